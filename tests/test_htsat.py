"""HTS-AT: the original's numbers, and what they do not show: windows, masks, padding, long clips, training."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import parity_htsat
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aural import spec_augment
from aural.checkpoint import load_config, load_into, load_weights, save_model, uninitialised
from aural.errors import CheckpointError
from aural.networks import htsat
from aural.networks.htsat import Htsat, HtsatConfig, official_constants, official_weights, small

GOLDEN = Path(__file__).parent / "golden" / "htsat"
TINY = HtsatConfig(
    sample_rate=8000,
    filter_rate=8000,
    n_fft=256,
    hop_length=80,
    mel_bins=32,
    high_hz=4000.0,
    spec_size=64,  # 128 frames, 1.28 s
    embed_dim=8,
    depths=(2, 2),
    num_heads=(2, 4),
    window_size=4,
    drop_path=0.0,
    spec_augment=False,
    num_classes=3,
)
LONG = replace(TINY, spec_size=256, mel_bins=64, embed_dim=4, num_heads=(1, 1), window_size=8, released_windows=True)


def model(config: HtsatConfig = TINY) -> Htsat:
    torch.manual_seed(0)
    network = Htsat(config)
    for parameter in network.parameters():  # far from the initial values, so that every part matters
        torch.nn.init.normal_(parameter, std=0.2)
    network.bn0.running_mean = torch.linspace(-70.0, -30.0, config.mel_bins)
    network.bn0.running_var = torch.full((config.mel_bins,), 100.0)
    return network.eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


# --------------------------------------------------------------------------------------------------------- the original


def test_agrees_with_the_original() -> None:
    compared = parity_htsat.check(GOLDEN)
    assert {f"io.safetensors:htsat.{name}" for name in ("logmel", "item0.img", "embedding")} <= compared


def golden_weights() -> tuple[dict[str, Tensor], HtsatConfig]:
    config = parity_htsat.golden_config(parity_htsat.read_json(GOLDEN / "config.json"))
    return safetensors.torch.load_file(GOLDEN / "weights.safetensors"), config


def test_other_tensors_and_what_is_computed_here_are_left_out() -> None:
    weights, config = golden_weights()
    plain = official_weights({name.removeprefix(parity_htsat.PREFIX): weights[name] for name in weights}, config)
    assert plain.keys() == Htsat(config).state_dict().keys()
    assert official_weights(weights | {"caption_decoder.wte.weight": torch.zeros(1)}, config).keys() == plain.keys()


@pytest.mark.parametrize(
    "name",
    [
        "spectrogram_extractor.stft.conv_imag.weight",
        "layers.0.blocks.0.attn.relative_position_index",
        "layers.1.blocks.1.attn_mask",
    ],
)
def test_constants_of_another_model_are_refused(name: str) -> None:
    weights, config = golden_weights()
    weights[parity_htsat.PREFIX + name] = -weights[parity_htsat.PREFIX + name]
    with pytest.raises(CheckpointError, match=f"^{name} differ"):
        official_weights(weights, config)
    with pytest.raises(CheckpointError, match="conv_real"):
        official_weights(weights, replace(config, n_fft=128))


def test_weights_of_something_else_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no HTS-AT weights"):
        official_weights({"fc.weight": torch.zeros(1)}, TINY)


def test_the_published_size() -> None:
    config = HtsatConfig()
    with torch.device("meta"):
        own = Htsat(config)
    constants = official_constants(config)
    masked = [name for name in constants if name.endswith("attn_mask")]
    assert masked == [f"layers.{place}.attn_mask" for place in ("0.blocks.1", "1.blocks.1", "2.blocks.1")] + [
        f"layers.2.blocks.{block}.attn_mask" for block in (3, 5)
    ]
    n_published = sum(tensor.numel() for tensor in own.parameters()) + own.logmel_extractor.melW.numel()
    n_published += sum(tensor.numel() for name, tensor in constants.items() if "stft" in name)
    n_published += 527 * 527 + 527  # its head, which it never uses
    assert round(n_published / 1e6, 1) == 31.3
    assert (config.target_frames, config.steps, config.bands, config.width) == (1024, 32, 2, 768)


# ---------------------------------------------------------------------------------------------------------------- parts


def test_windows_are_cut_row_by_row_and_put_back() -> None:
    x = noise(2, 12, 12, 5)
    windows = htsat.to_windows(x, 4)
    assert windows.shape == (2, 9, 16, 5)
    torch.testing.assert_close(windows[1, 5], x[1, 4:8, 8:12].reshape(16, 5), rtol=0, atol=0)
    torch.testing.assert_close(htsat.from_windows(windows, 12), x, rtol=0, atol=0)


@pytest.mark.parametrize(("side", "window", "shift"), [(8, 4, 2), (12, 4, 2), (16, 8, 4), (9, 3, 1)])
def test_tokens_see_each_other_if_they_were_neighbours_before_the_shift(side: int, window: int, shift: int) -> None:
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), dim=2)
    windows = htsat.to_windows(places.roll((-shift, -shift), (0, 1))[None], window)[0]  # the place each token came from
    mask = htsat.shift_mask(side, window, shift, torch.device("cpu"))
    for own, allowed in zip(windows.tolist(), (mask == 0).tolist(), strict=True):
        for (row_p, column_p), allowed_p in zip(own, allowed, strict=True):
            near = [abs(row_p - row_q) < window and abs(column_p - column_q) < window for row_q, column_q in own]
            assert allowed_p == near
    assert mask.unique().tolist() == [-100.0, 0.0]


def test_the_bias_of_two_tokens_depends_on_their_difference() -> None:
    index = htsat.relative_index(3, torch.device("cpu"))
    for p in range(9):
        for q in range(9):
            assert index[p, q] == (p // 3 - q // 3 + 2) * 5 + (p % 3 - q % 3 + 2)


def test_shifted_attention_by_the_definition() -> None:
    network = model()
    attention = network.get_submodule("layers.0.blocks.1.attn")
    assert isinstance(attention, htsat.WindowAttention)
    x = noise(2, 16, 16, 8) * 10
    inside = [
        [max(0, first), min(16, first + 4)] for first in range(-2, 16, 4)
    ]  # the windows of a picture shifted by 2, those at its edges cut off
    expected = torch.zeros_like(x)
    index = htsat.relative_index(4, torch.device("cpu")).view(4, 4, 4, 4)
    for top, bottom in inside:
        for left, right in inside:
            window = x[:, top:bottom, left:right].flatten(1, 2)
            query, key, value = attention.qkv(window).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            n_rows, n_columns = bottom - top, right - left
            own = index[:n_rows, :n_columns, :n_rows, :n_columns].reshape(n_rows * n_columns, -1)
            bias = attention.relative_position_bias_table[own].permute(2, 0, 1)
            mixed = (query @ key.transpose(2, 3) / 2 + bias).softmax(dim=3) @ value
            out = attention.proj(mixed.transpose(1, 2).flatten(2))
            expected[:, top:bottom, left:right] = out.unflatten(1, (n_rows, n_columns))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-4)


def test_strips_lie_below_one_another() -> None:
    fbank = torch.arange(128 * 32.0).view(1, 128, 32)
    picture = htsat.fold(fbank, 64)
    assert picture.shape == (1, 64, 64)
    for strip, band, frame in ((0, 0, 0), (1, 3, 20), (1, 31, 63)):
        assert picture[0, strip * 32 + band, frame] == fbank[0, strip * 64 + frame, band]


def test_long_clips_are_cut_evenly() -> None:
    assert htsat.even_spans(100, 100) == [(0, 100)]
    assert htsat.even_spans(250, 100) == [(0, 83), (83, 166), (166, 250)]


def test_short_clips_are_stretched_from_end_to_end() -> None:
    line = torch.linspace(0.0, 1.0, 40)[None, :, None].expand(1, 40, 6)
    stretched = htsat.stretch(line, 79)
    torch.testing.assert_close(stretched[0, ::2], line[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(stretched[0, 9:-9, 2], torch.linspace(0.0, 1.0, 79)[9:-9], atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------------------ behaviour


@torch.inference_mode()
def test_steps_stand_in_the_order_of_time() -> None:
    network = model(replace(TINY, spec_size=128, depths=(1,), num_heads=(2,)))  # 512 frames of 128 steps
    fbank = noise(1, 1000, 32) * 10
    before = network.encode_fbank(fbank).hidden
    assert before.shape == (1, 256, 8)
    for frame in (3, 130, 333, 499, 700, 998):
        changed = fbank.clone()
        changed[:, frame] += 1.0
        moved = (network.encode_fbank(changed).hidden - before).abs().amax(dim=2)[0].nonzero()[:, 0]
        step = frame * 256 // 1000
        assert step - 4 < moved.min() <= step <= moved.max() < step + 4  # not beyond an attention window of 4


@torch.inference_mode()
def test_a_clip_in_a_padded_batch_gives_what_it_gives_alone() -> None:
    network = model()
    lengths = [30000, 20500, 10240, 6000, 130, 40]
    waveform = noise(len(lengths), max(lengths))  # what is masked is noise, too
    mask = torch.arange(waveform.shape[1]) < torch.tensor(lengths)[:, None]
    padded = network(waveform, mask)
    probabilities = network.classify(padded)
    for i, n in enumerate(lengths):
        alone = network(waveform[i : i + 1, :n])
        n_steps = alone.hidden.shape[1]
        assert alone.mask.all() and padded.mask[i].sum() == n_steps == TINY.steps * -(-(n // 80 + 1) // 128)
        torch.testing.assert_close(padded.hidden[i, :n_steps], alone.hidden[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(padded.embedding[i], alone.embedding[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(probabilities[i], network.classify(alone)[0], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_longest_clip_for_so_many_steps() -> None:
    network = model()
    n_samples = network.max_samples(2 * TINY.steps + 1)
    assert network(noise(1, n_samples)).hidden.shape[1] == 2 * TINY.steps
    assert network(noise(1, n_samples + 1)).hidden.shape[1] == 3 * TINY.steps
    assert network.max_samples(TINY.steps - 1) == 0


@torch.inference_mode()
def test_released_windows_over_a_long_clip() -> None:
    network = model(LONG)
    fbank = noise(2, 1500, 64) * 10
    output = network.encode_fbank(fbank)
    crops = [network.encode_fbank(fbank[:, start : start + 689]) for start in (0, 344, 688)]  # the next would be 1032
    torch.testing.assert_close(output.embedding, torch.stack([crop.embedding for crop in crops]).mean(dim=0))
    expected = torch.stack([network.classify(crop) for crop in crops]).mean(dim=0)
    torch.testing.assert_close(network.classify(output), expected)
    unheard = fbank.clone()
    unheard[:, 688 + 689 :] = 0.0
    torch.testing.assert_close(network.encode_fbank(unheard).hidden, output.hidden, rtol=0, atol=0)

    generator = torch.Generator().manual_seed(0)
    network.train()
    crop = network.encode_fbank(fbank[:1], generator=generator)
    start = int(torch.randint(1500 - 1024, (), generator=generator.manual_seed(0)))
    torch.testing.assert_close(crop.hidden, network.encode_fbank(fbank[:1, start : start + 1024]).hidden)

    even = model(replace(LONG, released_windows=False))
    halves = torch.cat([even.encode_fbank(half).hidden for half in (fbank[:, :750], fbank[:, 750:])], dim=1)
    torch.testing.assert_close(even.encode_fbank(fbank).hidden, halves)


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"depths": (2,)}, "as many stages"),
        ({"spec_size": 80}, "multiple"),
        ({"depths": (1, 1, 1, 1, 1), "num_heads": (1,) * 5}, "whole tokens"),
        ({"num_heads": (3, 4)}, "3 heads"),
        ({"window_size": 5}, "windows of 5"),
        ({"patch_size": 5}, "patch_size 5"),
        ({"released_windows": True}, "128 frames"),
        ({"labels": ("dog",)}, "1 labels"),
    ],
)
def test_impossible_sizes_are_refused(sizes: Mapping[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(TINY, **sizes)  # type: ignore[arg-type]


def test_wrong_calls_are_refused() -> None:
    network = model(replace(TINY, num_classes=0))
    with pytest.raises(ValueError, match="tapped_layer"):
        network.encode_fbank(noise(1, 100, 32), None, 2)
    with pytest.raises(ValueError, match="32 bands"):
        network.encode_fbank(noise(1, 100, 64))
    with pytest.raises(ValueError, match="no classifier"):
        network.classify(network.encode_fbank(noise(1, 100, 32)))


def test_overlapping_patches() -> None:
    output = model(replace(TINY, patch_size=6))(noise(1, 8000))
    assert output.hidden.shape == (1, TINY.steps, TINY.width)


# ------------------------------------------------------------------------------------------------------------- training


def test_every_parameter_learns_and_the_draws_can_be_repeated() -> None:
    network = model(replace(TINY, spec_augment=True, drop_path=0.5)).train()
    with torch.inference_mode():
        network(noise(2, 16000))  # what it remembers must still be fit for training
    fbank, mask = network.fbank(noise(3, 16000))

    def hidden() -> Tensor:
        torch.manual_seed(5)
        output = network.encode_fbank(fbank, mask, generator=torch.Generator().manual_seed(4))
        return torch.cat([output.hidden.flatten(), network.step_logits(output).flatten()])

    first = hidden()
    torch.testing.assert_close(hidden(), first, rtol=0, atol=0)
    first.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert not torch.allclose(network.eval().encode_fbank(fbank, mask).hidden.flatten(), first[: 3 * 32 * 16])


def test_a_dropped_block_lets_its_input_through() -> None:
    block = model(replace(TINY, drop_path=1.0)).get_submodule("layers.1.blocks.1").train()
    x = noise(2, 8, 8, 16)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    assert not torch.allclose(block.eval()(x), x)


def test_bands_are_normalised_over_real_frames_only() -> None:
    clips, n = noise(2, 16000), 5000
    mask = torch.arange(16000) < torch.tensor([[16000], [n]])
    network = model().train()
    fbank, frame_mask = network.fbank(clips, mask)
    mel = torch.cat([network.log_mel(clips[:1])[0], network.log_mel(clips[1:, :n])[0]])
    expected = (mel - mel.mean(dim=0)) / (mel.var(dim=0, correction=0) + 1e-5).sqrt()
    expected = expected * network.bn0.weight + network.bn0.bias
    torch.testing.assert_close(fbank[frame_mask], expected, atol=1e-4, rtol=1e-4)
    assert not fbank[~frame_mask].any()


def test_stripes_blank_little() -> None:
    draws = htsat.draw_stripes(500, 300, 64, torch.Generator().manual_seed(0))
    assert draws.time_widths.unique().tolist() == list(range(64)) and draws.freq_widths.unique().tolist() == [*range(8)]
    for widths, starts, size in (
        (draws.time_widths, draws.time_starts, 300),
        (draws.freq_widths, draws.freq_starts, 64),
    ):
        assert starts.min() >= 0 and (starts + widths).max() <= size
    blanked = (spec_augment.apply(torch.ones(500, 300, 64), draws) == 0).float()
    assert blanked.mean(dim=(1, 2)).max() < 126 / 300 + 14 / 64


# ---------------------------------------------------------------------------------------------------------------- small


@torch.inference_mode()
def test_the_small_one_has_the_cost_it_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = small(("bird", "dog"))
    network = Htsat(config).eval()
    assert round(sum(tensor.numel() for tensor in network.parameters()) / 1e6, 1) == 0.8
    with FlopCounterMode(display=False) as flops, sdpa_kernel(SDPBackend.MATH):  # the others are not counted on a CPU
        output = network(noise(1, 5 * 16000))
    assert flops.get_total_flops() / 1e9 == pytest.approx(0.55, abs=0.01)
    assert output.hidden.shape == (1, 32, 192) and network.classify(output).shape == (1, 2)

    save_model(tmp_path / "ear", system="htsat", config=config, weights=network.state_dict(), card="An ear.")
    again = Htsat(load_config(tmp_path / "ear", HtsatConfig, "htsat")).eval()
    load_into(again, load_weights(tmp_path / "ear"))
    torch.testing.assert_close(again(noise(1, 5 * 16000)).hidden, output.hidden)
    assert Htsat(small()).tscam_conv is None


def test_it_can_be_made_without_drawing_weights() -> None:
    with uninitialised():  # rejection sampling inside trunc_normal_ once went on for ever here
        model = Htsat(small())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
