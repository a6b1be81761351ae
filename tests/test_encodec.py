"""The codec: beside transformers' EnCodec, released files, padding, windows, losses by hand, and files of codes."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import parity_encodec
import pytest
import torch
from hypothesis import given, strategies as st
from parity import read_json
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import EncodecConfig as PeerConfig, EncodecModel

from aural.checkpoint import load_into, read_foreign
from aural.codec import files, losses
from aural.codec.convert import convert_codec, inferred_config, is_codec, our_name
from aural.codec_folder import load_codec
from aural.errors import AudioError, AuralError, CheckpointError, UsageError
from aural.networks.encodec import (
    Encodec,
    EncodecConfig,
    add_weight_norm,
    fold_weight_norm,
    folded,
    interleave,
    separate,
)
from aural.networks.encodec_windows import decode_blocks, decode_windows, encode_blocks, encode_windows
from aural.networks.residual_quantizer import QuantizerConfig
from aural.networks.stft_discriminator import Judged, StftDiscriminator, StftDiscriminatorConfig

GOLDEN = Path(__file__).parent / "golden" / "encodec"
TINY = EncodecConfig(
    sample_rate=1500,
    ratios=(5, 3, 2),
    n_filters=4,
    dimension=8,
    quantizer=QuantizerConfig(n_codebooks=3, codebook_size=33, kmeans_iterations=0),
)
VARIANTS = {
    "published": TINY,
    "mirrored": replace(TINY, pad_mode="reflect"),
    "causal": replace(TINY, causal=True),
    "causal, mirrored": replace(TINY, causal=True, pad_mode="reflect", trim_right_ratio=0.4),
    "repeated, dilated, with shortcuts": replace(TINY, pad_mode="replicate", residual_layers=3, true_skip=False),
    "without LSTM": replace(TINY, lstm_layers=0, ratios=(4, 1), kernel_size=5),
}


def codec(config: EncodecConfig = TINY) -> Encodec:
    torch.manual_seed(0)
    network = Encodec(config)
    for parameter in network.parameters():
        parameter.data *= 1.7  # so that no part drowns
    return network.eval()


def sine_and_noise(n_samples: int, channels: int = 1) -> Tensor:
    """Two clips."""
    sine = (2 * torch.pi / 32 * torch.arange(n_samples)).sin().expand(channels, -1)
    noise = torch.randn(channels, n_samples, generator=torch.Generator().manual_seed(1))
    return 0.5 * torch.stack([sine, noise])


# -------------------------------------------------------------------------------------------------------------- others


@pytest.mark.parametrize(
    "settings",
    [
        {"use_causal_conv": False, "pad_mode": "constant", "use_conv_shortcut": False},  # as MusicGen's
        {"use_causal_conv": True, "pad_mode": "reflect", "num_lstm_layers": 1, "num_residual_layers": 2},  # as 24 kHz
    ],
)
@torch.no_grad()
def test_a_model_of_transformers_says_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"upsampling_ratios": [4, 3, 2], "hidden_size": 8, "num_filters": 4, "codebook_size": 32, "compress": 4}
    peer_config = PeerConfig(sampling_rate=1200, target_bandwidths=[0.25, 0.75], **sizes, **settings)
    peer = EncodecModel(peer_config).eval()
    for layer in peer.quantizer.layers:
        layer.codebook.embed.normal_()
    peer.save_pretrained(tmp_path / "peer")
    assert is_codec(read_foreign(tmp_path / "peer" / "model.safetensors"))
    notes = convert_codec(tmp_path / "peer" / "model.safetensors", tmp_path / "ours")
    assert notes == [f"settings from {tmp_path / 'peer' / 'config.json'}"]
    ours = load_codec(tmp_path / "ours").network
    assert ours.config.sample_rate == 1200 and ours.config.quantizer.n_codebooks == peer_config.num_quantizers == 3
    assert ours.config.kilobits_per_second == pytest.approx(0.75)
    waveform = sine_and_noise(401)
    theirs = peer.encode(waveform, bandwidth=0.75)
    codes = ours.encode(waveform)
    assert torch.equal(codes, theirs.audio_codes[0])
    expected = peer.decode(theirs.audio_codes, theirs.audio_scales).audio_values
    torch.testing.assert_close(ours.decode(codes), expected)


def audiocraft_file(folder: Path, **changes: Any) -> Path:
    """The golden codec as audiocraft releases its own."""
    settings = (
        "sample_rate: 1500\nencodec:\n  causal: false\n  renormalize: false\n"
        "seanet:\n  causal: ${encodec.causal}\n  dilation_base: 3\n  pad_mode: reflect\n  norm: weight_norm\n"
        "  activation: ELU\n  decoder:\n    trim_right_ratio: 1.0\nrvq:\n  q_dropout: true\n  decay: 0.97\n"
    )
    weights = {name: tensor.half() for name, tensor in load_file(GOLDEN / "weights_audiocraft.safetensors").items()}
    content = {"best_state": weights, "xp.cfg": settings, "version": "1", "exported": True} | changes
    torch.save(content, folder / "compression_state_dict.bin")
    return folder / "compression_state_dict.bin"


def test_a_released_file_of_audiocraft_becomes_a_codec(tmp_path: Path) -> None:
    file = audiocraft_file(tmp_path)
    assert is_codec(read_foreign(file))
    assert convert_codec(file, tmp_path / "out") == ["settings from xp.cfg in the file"]
    ours = load_codec(tmp_path / "out").network
    golden = parity_encodec.golden_config(read_json(GOLDEN / "config.json"), "reflect")
    assert replace(ours.config, quantizer=golden.quantizer) == golden
    learns = ours.config.quantizer
    assert (learns.decay, learns.codebook_dropout, learns.codebook_size) == (0.97, True, 16)
    io = load_file(GOLDEN / "io.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(io["reflect.codes"]), io["reflect.decoded"], atol=0.02, rtol=0.02)


def test_a_codec_inside_a_musicgen_is_found_and_settings_may_be_missing(tmp_path: Path) -> None:
    weights = load_file(GOLDEN / "weights_hf.safetensors")
    inside = {f"audio_encoder.{name}": x for name, x in weights.items() if ".shortcut." not in name}
    save_file(inside | {"decoder.lm_heads.0.weight": torch.zeros(2, 2)}, tmp_path / "musicgen.safetensors")
    assert not is_codec(read_foreign(tmp_path / "musicgen.safetensors"))
    (notes,) = convert_codec(tmp_path / "musicgen.safetensors", tmp_path / "out")
    assert "1500 Hz" in notes and load_codec(tmp_path / "out").network.config.sample_rate == 30 * 50


def name_in_the_encodec_package(name: str) -> str:
    """Of a tensor of transformers."""
    name = re.sub(r"^decoder\.layers\.(3|6|9|12)\.conv\.", r"decoder.layers.\1.convtr.convtr.", name)
    name = re.sub(r"(?<!conv)\.conv\.(?!conv)", ".conv.conv.", name)
    name = re.sub(r"^(encoder|decoder)\.layers", r"\1.model", name)
    name = re.sub(r"^quantizer\.layers\.(\d+)\.codebook", r"quantizer.vq.layers.\1._codebook", name)
    return name.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


@torch.no_grad()
def test_the_24_khz_codec_of_the_encodec_package_is_known_by_its_shortcuts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_filters": 4, "codebook_size": 32, "num_lstm_layers": 1}
    peer = EncodecModel(PeerConfig(target_bandwidths=[1.125], **sizes)).eval()  # else as published at 24 kHz
    latent = peer.encoder(sine_and_noise(3001)).transpose(0, 1).flatten(1)
    for place, layer in enumerate(peer.quantizer.layers):  # where the encoder's vectors lie, or all codes are one
        entries = torch.randn(32, 8) * latent.std(1) * 0.5**place
        layer.codebook.embed.copy_(entries + latent.mean(1) if place == 0 else entries)
    released = {name_in_the_encodec_package(name): tensor for name, tensor in peer.state_dict().items()}
    assert {"encoder.model.1.shortcut.conv.conv.weight_g", "decoder.model.3.convtr.convtr.bias"} < released.keys()
    torch.save(released, tmp_path / "encodec_24khz.th")
    (note,) = convert_codec(tmp_path / "encodec_24khz.th", tmp_path / "ours")
    assert "24 kHz" in note and "causal" in note
    ours = load_codec(tmp_path / "ours").network
    assert (ours.config.sample_rate, ours.config.frame_rate, ours.config.true_skip) == (24000, 75, False)
    waveform = sine_and_noise(3001)
    theirs = peer.encode(waveform)
    codes = ours.encode(waveform)
    assert torch.equal(codes, theirs.audio_codes[0]) and len(codes.unique()) > 3
    torch.testing.assert_close(ours.decode(codes), peer.decode(theirs.audio_codes, theirs.audio_scales).audio_values)

    other = EncodecModel(PeerConfig(target_bandwidths=[45.0], upsampling_ratios=[4, 2], **sizes))
    torch.save(other.state_dict(), tmp_path / "other.th")
    with pytest.raises(CheckpointError, match=r"ratios \(4, 2\) and .*: put its config.json"):
        convert_codec(tmp_path / "other.th", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pretrained": "org/codec"}, "only names the codec org/codec"),
        ({"xp.cfg": "encodec:\n  renormalize: true\n"}, r"encodec\.renormalize=True"),
        ({"xp.cfg": "a: ["}, "no YAML"),
        ({"xp.cfg": "seanet:\n  pad_mode: wrap\n"}, "pad_mode should be"),
        ({"best_state": {"emb.0.weight": torch.zeros(2, 2)}}, "no EnCodec"),
    ],
)
def test_other_files_are_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        convert_codec(audiocraft_file(tmp_path, **changes), tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    weights = load_file(GOLDEN / "weights_audiocraft.safetensors")
    for change, says in (
        ({"encoder.model.0.conv.gate.weight": torch.zeros(3)}, "none of an EnCodec"),
        ({"encoder.model.0.conv.norm.weight": torch.zeros(3)}, "norm_type='time_group_norm', which aural lacks"),
        ({"encoder.model.0.conv.conv.bias": torch.zeros(5)}, "of the wrong shape"),
    ):
        with pytest.raises(CheckpointError, match=says):
            convert_codec(audiocraft_file(tmp_path, best_state=weights | change), tmp_path / "out")
    part = {name: tensor for name, tensor in weights.items() if not name.startswith("encoder.model.1.")}
    with pytest.raises(CheckpointError, match="missing"):
        convert_codec(audiocraft_file(tmp_path, best_state=part), tmp_path / "out")


@pytest.mark.parametrize(("ratios", "sample_rate"), [((8, 5, 4, 2), 16000), ((8, 5, 4, 4), 32000)])
def test_the_published_sizes(ratios: tuple[int, ...], sample_rate: int) -> None:
    config = EncodecConfig(sample_rate=sample_rate, ratios=ratios)
    with torch.device("meta"):
        network = add_weight_norm(Encodec(config))
    assert inferred_config(network.state_dict(), EncodecConfig(sample_rate=sample_rate)) == config
    assert config.kilobits_per_second == 2.2 and config.frame_rate == 50
    if sample_rate == 32000:
        assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == 56.9
    assert all(our_name(name) == name for name in network.state_dict())


# -------------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_any_length_comes_back(config: EncodecConfig) -> None:
    network = codec(config)
    for n_samples in (1, 7, config.hop, config.hop + 1, 3 * config.hop + 5):
        waveform = sine_and_noise(n_samples)
        codes = network.encode(waveform)
        assert codes.shape == (2, 3, config.n_frames(n_samples))
        decoded, quantized = network(waveform)
        assert torch.equal(quantized.codes, codes) and decoded.shape == waveform.shape
        assert torch.equal(network.decode(codes)[..., :n_samples], decoded)


@torch.no_grad()
def test_a_causal_codec_does_not_look_ahead() -> None:
    waveform = sine_and_noise(20 * TINY.hop)
    other = waveform.clone()
    other[..., 10 * TINY.hop :] += 0.3
    for causal, same in ((True, 10), (False, 4)):
        network = codec(replace(TINY, causal=causal))
        before, after = network.encoder(waveform), network.encoder(other)
        assert torch.equal(before[..., :same], after[..., :same]) and not torch.equal(before[..., 10], after[..., 10])
        assert torch.equal(before[..., :10], after[..., :10]) == causal


@torch.no_grad()
def test_stereo_is_two_mono_passes() -> None:
    network = codec()
    waveform = sine_and_noise(200, channels=2)
    codes = network.encode_stereo(waveform)
    assert torch.equal(codes[:, 0::2], network.encode(waveform[:, :1]))
    assert torch.equal(codes[:, 1::2], network.encode(waveform[:, 1:]))
    assert torch.equal(separate(codes, 2), network.encode(waveform.flatten(0, 1)[:, None]))
    assert torch.equal(interleave(separate(codes, 2), 2), codes)
    decoded = network.decode_stereo(codes)
    torch.testing.assert_close(decoded[:, 1:], network.decode(codes[:, 1::2]))
    with pytest.raises(ValueError, match="two channels"):
        network.encode_stereo(waveform[:, :1])


@torch.no_grad()
def test_weight_norm_is_added_and_folded_without_a_change() -> None:
    waveform, network = sine_and_noise(100), codec()
    expected, plain = network(waveform)[0], {name: x.clone() for name, x in network.state_dict().items()}
    state = add_weight_norm(network).state_dict()
    torch.testing.assert_close(network(waveform)[0], expected)
    assert folded(state).keys() == plain.keys()
    for name, tensor in folded(state).items():
        torch.testing.assert_close(tensor, plain[name])
    assert fold_weight_norm(network).state_dict().keys() == plain.keys()
    load_into(network, plain)
    assert torch.equal(network(waveform)[0], expected)


def test_codebooks_start_and_learn_within_the_codec() -> None:
    config = replace(TINY, quantizer=QuantizerConfig(n_codebooks=2, codebook_size=8, kmeans_iterations=5))
    torch.manual_seed(0)
    network = add_weight_norm(Encodec(config)).train()
    waveform = sine_and_noise(20 * config.hop)[:1]
    generator = torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(network.parameters(), 5e-3)
    errors = []
    for _ in range(20):
        decoded, quantized = network(waveform, generator=generator)
        error = losses.l1_loss(decoded, waveform)
        adam.zero_grad()
        (error + quantized.penalty).backward()
        adam.step()
        errors.append(error.item())
    assert errors[-1] < 0.8 * errors[0]
    assert all(codebook.inited.item() == 1.0 for codebook in network.quantizer.codebooks)


# -------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_windows_give_what_the_whole_gives(config: EncodecConfig) -> None:
    """No seam at all: neither at the borders of windows nor at those of the sound, however short windows are."""
    network, waveform = codec(config), sine_and_noise(24 * config.hop + 2)
    codes = network.encode(waveform)
    whole = network.decode(codes)
    for window in (1, 7, 100):
        assert torch.equal(encode_windows(network, waveform, window=window), codes)
        decoded = decode_windows(network, codes, window=window)
        torch.testing.assert_close(decoded, whole, rtol=0.0, atol=1e-5 * whole.abs().max().item())
    assert torch.equal(encode_windows(network, waveform, 2, window=5), codes[:, :2])


@torch.no_grad()
def test_windows_are_short_and_overlap_by_little() -> None:
    network, lengths = codec(), []
    network.decoder.layers[-1].register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[2]))
    decode_windows(network, torch.zeros(1, 3, 200, dtype=torch.long), window=20)
    assert len(lengths) == 10 and max(lengths) <= 30 * TINY.hop and sum(lengths) <= 260 * TINY.hop


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_blocks_are_decoded_as_they_come(causal: bool) -> None:
    """What has come out lags behind by the few frames that the network looks ahead, and by the block held back."""
    network = codec(replace(TINY, causal=causal))
    codes = network.encode(sine_and_noise(40 * TINY.hop))
    given = []

    def blocks() -> Iterator[Tensor]:
        for block in codes.split(4, dim=2):
            given.append(block.shape[2])
            yield block

    done, pieces = 0, []
    for piece in decode_blocks(network, blocks()):
        pieces.append(piece)
        done += piece.shape[2] // TINY.hop
        assert causal or done < 40 or sum(given) == 40
        assert sum(given) - done <= (4 if causal else 4 + 8)
    torch.testing.assert_close(torch.cat(pieces, dim=2), network.decode(codes))
    assert list(decode_blocks(network, [])) == [] and list(encode_blocks(network, iter([]))) == []


# --------------------------------------------------------------------------------------------------------------- losses


def judged(*logits: float) -> list[Judged]:
    """A verdict of each scale, whose features are the verdicts and their doubles."""
    return [Judged(torch.tensor([x]), (torch.tensor([x]), torch.tensor([2 * x]))) for x in logits]


def test_adversarial_losses_by_hand() -> None:
    fake, real = judged(-2.0, 0.5), judged(0.25, 3.0)
    assert losses.discriminator_loss(fake, real).item() == pytest.approx(((0.75 + 0.0) + (0.0 + 1.5)) / 2)
    assert losses.adversarial_loss(fake).item() == pytest.approx(0.75)
    assert losses.feature_matching_loss(fake, real).item() == pytest.approx((2.25 * 1.5 + 2.5 * 1.5) / 2)


def test_the_balancer_by_hand() -> None:
    """Two opposed losses, the first a thousand times the second: their gradients come in the parts that were asked."""
    balancer = losses.GradientBalancer({"up": 3.0, "down": 1.0}, decay=0.5, total_norm=2.0)
    output = torch.zeros(4, 1, 1, requires_grad=True)

    def step(slope: float) -> losses.Balanced:
        output.grad = None
        return balancer.backward({"up": slope * output.sum(), "down": -output.sum()}, output)

    balanced = step(1000.0)
    assert output.grad is not None
    torch.testing.assert_close(output.grad, torch.full((4, 1, 1), 2.0 * (0.75 - 0.25)))
    assert balanced.ratios["up"] == pytest.approx(1000 / 1001) and balanced.loss.item() == 0.0
    resumed = losses.GradientBalancer({"up": 3.0, "down": 1.0}, decay=0.5, total_norm=2.0)
    resumed.load_state_dict(balancer.state_dict())
    balancer = resumed
    step(4000.0)  # averaged: (0.5 * 1000 + 4000) / 1.5 = 3000
    torch.testing.assert_close(output.grad, torch.full((4, 1, 1), 2.0 * (0.75 * 4 / 3 - 0.25)))
    with pytest.raises(ValueError, match="weights"):
        balancer.backward({"up": output.sum()}, output)


def test_distances_between_waveforms() -> None:
    truth = sine_and_noise(4000)
    config = losses.MelConfig(sample_rate=8000, n_mels=20, last_power=9)
    assert losses.multi_scale_mel_loss(truth, truth, config).item() == 0.0
    quieter, much_quieter = (losses.multi_scale_mel_loss(scale * truth, truth, config) for scale in (0.9, 0.3))
    assert 0 < quieter < much_quieter
    mel = losses.mel_spectrogram(truth, 256, 64, config)
    assert mel.shape == (2, 20, -(-4000 // 64))
    near_tone = losses.mel_filters(20, 256, 8000, 64.0, 4000.0)[7:10].sum(0) > 0  # it turns 8 times in a window
    assert near_tone.sum() < 5 and mel[0, near_tone].sum() > 0.99 * mel[0].sum()
    with pytest.raises(ValueError, match="97 at least"):
        losses.mel_spectrogram(truth[..., :96], 256, 64, config)
    # noise of a tenth of the power, apart from what is said: 10 dB whatever the scale
    orthogonal = truth[1:] - (truth[1:] * truth[:1]).sum() / truth[:1].square().sum() * truth[:1]
    noisy = truth[:1] + orthogonal * (0.1 * truth[:1].square().sum() / orthogonal.square().sum()).sqrt()
    for scale in (1.0, 3.0):
        assert losses.negative_si_snr(scale * noisy, truth[:1], 8000, seconds=0.5, overlap=0.0).item() == pytest.approx(
            -10, abs=0.02
        )


def test_the_discriminator_learns_to_tell_noise_from_tones() -> None:
    torch.manual_seed(0)
    sizes = {"n_ffts": (64, 32), "hop_lengths": (16, 8), "win_lengths": (64, 32)}
    network = StftDiscriminator(StftDiscriminatorConfig(n_filters=4, **sizes))
    tone, noise = sine_and_noise(400)[:, None].unbind()
    adam = torch.optim.Adam(network.parameters(), 5e-3, (0.5, 0.9))
    for _ in range(25):
        loss = losses.discriminator_loss(network(noise), network(tone))
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.5
    assert all(r.logits.mean() > f.logits.mean() for r, f in zip(network(tone), network(noise), strict=True))


# ---------------------------------------------------------------------------------------------------------------- files


@given(
    channels=st.integers(1, 3),
    n_codebooks=st.integers(1, 5),
    codebook_size=st.sampled_from([2, 3, 31, 32, 33, 1024, 2048, 70000]),
    hop=st.integers(1, 50),
    n_samples=st.integers(1, 900),
    seed=st.integers(0, 99),
)
def test_files_hold_codes_in_as_few_bits_as_they_need(
    channels: int, n_codebooks: int, codebook_size: int, hop: int, n_samples: int, seed: int
) -> None:
    shape = (channels * n_codebooks, -(-n_samples // hop))
    codes = torch.randint(codebook_size, shape, generator=torch.Generator().manual_seed(seed))
    encoded = files.EncodedSound(codes, n_samples, 16000, hop, channels, codebook_size, bytes(range(32)))
    content = files.to_bytes(encoded)
    read = files.from_bytes(content)
    assert torch.equal(read.codes, codes) and replace(read, codes=codes) == encoded
    assert len(content) == 66 + 4 + -(-codes.numel() * (codebook_size - 1).bit_length() // 8)


def test_a_sound_through_a_file(tmp_path: Path) -> None:
    network, waveform = codec(), sine_and_noise(20 * TINY.hop + 3)[:, 0]  # two channels
    encoded = files.encode_sound(network, waveform, window=6)
    files.write_codes(tmp_path / "sound.codes", encoded)
    decoded = files.decode_sound(network, files.read_codes(tmp_path / "sound.codes"), window=7)
    with torch.no_grad():
        expected = network(waveform[:, None])[0][:, 0]
    torch.testing.assert_close(decoded, expected, rtol=0.0, atol=1e-5)
    assert encoded.n_codebooks == 3 and files.encode_sound(network, waveform, 2).n_codebooks == 2
    network.quantizer.codebooks[1].embed[3, 4] += 0.1
    with pytest.raises(UsageError, match="another codec: pass --model"):
        files.decode_sound(network, encoded)
    with pytest.raises(UsageError, match="empty"):
        files.encode_sound(network, waveform[:, :0])
    with pytest.raises(UsageError, match="3 codebooks"):
        files.encode_sound(network, waveform, 4)


def refusal(content: bytes) -> str:
    with pytest.raises(AuralError) as caught:
        files.from_bytes(content, name="a.codes")
    message = str(caught.value)
    assert isinstance(caught.value, AudioError) and message.startswith("a.codes") and "\n" not in message
    return message


def test_whatever_happens_to_a_file_is_noticed(tmp_path: Path) -> None:
    content = files.to_bytes(files.encode_sound(codec(), sine_and_noise(100)[0]))
    for at in range(len(content)):
        refusal(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        refusal(content[:at])
    refusal(content + b"\0")
    assert "no .codes file" in refusal(b"RIFF" + content) and "no .codes file" in refusal(b"")
    assert "version 2" in refusal(content[:8] + struct.pack("<H", 2) + content[10:])
    for at, value in ((10, 0), (14, 0), (14, 7), (18, 0), (22, 0), (26, 2**60)):  # a header that fits its checksum
        changed = bytearray(content[:-4])
        struct.pack_into("<Q" if at == 26 else "<H" if at == 10 else "<I", changed, at, value)
        assert "damaged" in refusal(bytes(changed) + struct.pack("<I", zlib.crc32(changed)))
    with pytest.raises(AudioError, match="cannot be read"):
        files.read_codes(tmp_path / "none.codes")


def test_codes_that_do_not_fit_are_refused() -> None:
    good = files.EncodedSound(torch.zeros(4, 3, dtype=torch.long), 25, 16000, 10, 2, 8, bytes(32))
    for changes in (
        {"n_samples": 31},
        {"channels": 3},
        {"codes": good.codes + 8},
        {"codes": good.codes - 1},
        {"hop": 0},
    ):
        with pytest.raises(ValueError, match=r"codes|from 1"):
            replace(good, **changes)


def test_settings_of_no_codec_are_refused() -> None:
    for wrong in ({"ratios": ()}, {"n_filters": 3}, {"trim_right_ratio": 2.0}):
        with pytest.raises(ValueError, match=r"ratios|filters|trim"):
            replace(TINY, **wrong)
