"""The captioner's network: padding, losses, parts and files. Parity with the original is in parity_captioner.py."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, multiprocessing, nn

from aural.captioning.conformer import Conformer, ConformerConfig, RelativeAttention, relative_positions
from aural.captioning.model import (
    Captioner,
    CaptionerConfig,
    EmbeddingHead,
    paper,
    pooled_mean,
    with_released_padding,
)
from aural.checkpoint import load_config, load_into, load_weights, save_model
from aural.networks.bart_decoder import BartDecoderConfig
from aural.networks.beats import BASE, BeatsConfig
from aural.networks.conv_encoder import ConvEncoderConfig
from aural.spec_augment import SpecAugmentConfig
from aural.text_embedding_loss import text_embedding_loss

RATE = 16000
LENGTHS = (24000, 17001, 9999)  # samples; none of them fills its last frame

BEATS = BeatsConfig(
    input_patch_size=16,
    embed_dim=12,
    encoder_layers=3,
    encoder_embed_dim=16,
    encoder_ffn_embed_dim=24,
    encoder_attention_heads=2,
    deep_norm=True,
    dropout=0.0,
    attention_dropout=0.0,
    encoder_layerdrop=0.5,
    conv_pos=8,
    conv_pos_groups=4,
    relative_position_embedding=True,
    num_buckets=16,
    max_distance=40,
    gru_rel_pos=True,
)
CONFORMER = ConformerConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    conv_depthwise_kernel_size=5,
    hidden_dropout=0.0,
    activation_dropout=0.0,
    attention_dropout=0.0,
    conformer_conv_dropout=0.0,
)
DECODER = BartDecoderConfig(
    vocab_size=40,
    d_model=16,
    layers=2,
    heads=2,
    ffn_dim=24,
    max_positions=20,
    dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
)
WITH_BEATS = CaptionerConfig(
    beats=BEATS,
    tapped_layer=2,
    conformer=CONFORMER,
    decoder=DECODER,
    max_cross_positions=40,
    embedding_ffn_dim=20,
    embedding_dim=10,
    spec_augment=None,
)
WITH_CONVOLUTIONS = replace(
    WITH_BEATS,
    beats=None,
    tapped_layer=None,
    conv_encoder=ConvEncoderConfig(channels=(4, 4, 8, 8, 16)),
    downsample_rate=1,
)
CONFIGS = {"beats": WITH_BEATS, "convolutions": WITH_CONVOLUTIONS}


def captioner(config: CaptionerConfig, seed: int = 0) -> Captioner:
    """In evaluation mode, with weights large enough that everything matters."""
    torch.manual_seed(seed)
    model = Captioner(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not name.startswith("encoder."):
                parameter.normal_(std=0.3)
        for name, statistic in model.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_(std=0.2)
            if name.endswith("running_var"):
                statistic.uniform_(0.5, 2.0)
        model.final_logits_bias.normal_()
    return model.eval()


def clips(lengths: tuple[int, ...] = LENGTHS, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of these lengths in a batch that is longer than the longest by ``extra`` samples, and its mask."""
    generator = torch.Generator().manual_seed(1)
    waveform = torch.zeros(len(lengths), max(lengths) + extra)
    mask = torch.zeros_like(waveform, dtype=torch.bool)
    for row, length in enumerate(lengths):
        waveform[row, :length] = 0.1 * torch.randn(length, generator=generator)
        mask[row, :length] = True
    return waveform, mask


LABELS = torch.tensor([[5, 6, 7, 8, 2], [9, 4, 2, -100, -100], [3, 11, 12, 2, -100]])
TEXT = torch.randn(3, WITH_BEATS.embedding_dim, generator=torch.Generator().manual_seed(2))


# -------------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_clip_gives_the_same_numbers_alone_and_padded(config: CaptionerConfig) -> None:
    model = captioner(config)
    waveform, mask = clips(extra=3000)
    with torch.no_grad():
        together = model.encode(waveform, mask)
        assert together.mask is not None
        nll = model.negative_log_likelihood(together.memory, together.mask, LABELS)
        for row, length in enumerate(LENGTHS):
            alone = model.encode(waveform[row : row + 1, :length])
            n_steps = alone.memory.shape[1]
            assert together.mask[row].tolist() == [i < n_steps for i in range(together.mask.shape[1])]
            torch.testing.assert_close(together.memory[row, :n_steps], alone.memory[0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(together.embedding[row], alone.embedding[0], atol=2e-5, rtol=1e-4)
            n_tokens = int((LABELS[row] != -100).sum())
            own = model.negative_log_likelihood(alone.memory, alone.mask, LABELS[row : row + 1, :n_tokens])
            torch.testing.assert_close(nll[row : row + 1], own, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("released_padding", [False, True])
def test_more_padding_changes_nothing_in_training_unless_released(released_padding: bool) -> None:
    """Batch statistics are taken over real steps only; the released rules let padding into them and into the mean."""
    config = with_released_padding(WITH_BEATS, released_padding)
    losses = [captioner(config).train()(*clips(extra=extra), LABELS, TEXT) for extra in (0, 8000)]
    for name in losses[0]:
        same = torch.allclose(losses[0][name], losses[1][name], atol=1e-4)
        assert same is not released_padding, name


def test_batch_norm_learns_from_real_steps_only() -> None:
    config = replace(CONFORMER, num_hidden_layers=1)
    torch.manual_seed(0)
    padded = Conformer(config).train()
    plain = Conformer(config).train()
    plain.load_state_dict(padded.state_dict())
    steps = torch.randn(1, 12, 16)
    mask = torch.arange(12)[None] < 7
    out = padded(steps, mask)[:, :7]
    torch.testing.assert_close(out, plain(steps[:, :7]))
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(padded.get_buffer(name), buffer)


def test_pooled_mean() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    mask = torch.tensor([[True, True, False]])
    assert pooled_mean(states, mask).tolist() == [[2.0, 3.0]]
    assert pooled_mean(states, mask, released_padding=True).tolist() == [[52.0, 53.0]]
    assert pooled_mean(states[:, :2], None).tolist() == [[2.0, 3.0]]


# --------------------------------------------------------------------------------------------------------------- losses


def info_nce_by_hand(cosines: list[list[float]], temperature: float) -> float:
    n = len(cosines)
    total = 0.0
    for i in range(n):
        row = [math.exp(cosines[i][j] / temperature) for j in range(n)]
        column = [math.exp(cosines[j][i] / temperature) for j in range(n)]
        total -= math.log(row[i] / sum(row)) + math.log(column[i] / sum(column))
    return total / (2 * n)


def test_text_embedding_loss_by_hand() -> None:
    audio = torch.tensor([[3.0, 4.0], [0.0, 2.0]])  # unit rows (0.6, 0.8), (0, 1)
    text = torch.tensor([[5.0, 0.0], [0.0, 0.1]])  # unit rows (1, 0), (0, 1)
    cosines = [[0.6, 0.8], [0.0, 1.0]]
    for temperature in (0.5, 0.07):
        expected = info_nce_by_hand(cosines, temperature)
        assert text_embedding_loss(audio, text, temperature).item() == pytest.approx(expected, rel=1e-5)
    assert text_embedding_loss(audio[:1], text[:1]).item() == 0.0


def test_clips_that_share_a_caption() -> None:
    audio = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])  # rows 0 and 1 are one caption
    assert text_embedding_loss(audio, text).item() == pytest.approx(
        info_nce_by_hand([[1.0, 1.0, 0.0], [0.6, 0.6, 0.8], [0.0, 0.0, 1.0]], 0.5), rel=1e-5
    )
    minus = -math.inf  # left out of both denominators
    assert text_embedding_loss(audio, text, duplicates_are_negatives=False).item() == pytest.approx(
        info_nce_by_hand([[1.0, minus, 0.0], [minus, 0.6, 0.8], [0.0, 0.0, 1.0]], 0.5), rel=1e-5
    )


def test_text_embedding_loss_refuses_another_width() -> None:
    with pytest.raises(ValueError, match=r"embedding_dim"):
        text_embedding_loss(torch.ones(2, 3), torch.ones(2, 4))


def loss_of_one_process(rank: int, address: Path, audio: Tensor, text: Tensor, out: Path) -> None:
    """Two rows each; leaves the loss and the gradient of the own audio rows."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    own = slice(2 * rank, 2 * rank + 2)
    mine = audio[own].clone().requires_grad_()
    loss = text_embedding_loss(mine, text[own])
    loss.backward()
    torch.save((loss.detach(), mine.grad), out / str(rank))
    torch.distributed.destroy_process_group()


def test_two_processes_contrast_with_all_rows(tmp_path: Path) -> None:
    """Gradients sum to the number of processes times the true one, which DistributedDataParallel divides again."""
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    arguments = (tmp_path / "address", audio, text, tmp_path)
    multiprocessing.spawn(loss_of_one_process, arguments, nprocs=2)
    whole = audio.clone().requires_grad_()
    expected = text_embedding_loss(whole, text)
    expected.backward()
    results = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2)]
    for loss, _ in results:
        torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results]) / 2, whole.grad)


def test_label_smoothing_and_caption_score_by_hand() -> None:
    model = captioner(replace(WITH_BEATS, label_smoothing=0.2))
    logits = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[4, 7, 2], [9, 2, -100]])
    terms = []
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        values = logits[row, column].tolist()
        log_total = math.log(sum(map(math.exp, values)))
        negative = [log_total - value for value in values]
        terms.append(0.8 * negative[int(labels[row, column])] + 0.2 * sum(negative) / 40)
    assert model.cross_entropy(logits, labels).item() == pytest.approx(sum(terms) / 5, rel=1e-5)

    memory = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[2, 4, 7], [2, 9, 2]])
    assert torch.equal(model.shifted_right(labels), ids)
    with torch.no_grad():
        log_p = model.logits(memory, None, ids).log_softmax(dim=2)
        nll = model.negative_log_likelihood(memory, None, labels)
    assert nll[0].item() == pytest.approx(-(log_p[0, 0, 4] + log_p[0, 1, 7] + log_p[0, 2, 2]).item() / 3, rel=1e-5)
    assert nll[1].item() == pytest.approx(-(log_p[1, 0, 9] + log_p[1, 1, 2]).item() / 2, rel=1e-5)


def test_many_captions_of_one_clip() -> None:
    model = captioner(WITH_BEATS)
    memory = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    memory_of_row = torch.tensor([1, 0, 1])
    with torch.no_grad():
        shared = model.negative_log_likelihood(memory, None, LABELS, memory_of_row)
        copied = model.negative_log_likelihood(memory[memory_of_row], None, LABELS)
    torch.testing.assert_close(shared, copied)


def test_losses_have_weights_and_all_but_the_encoder_learns() -> None:
    model = captioner(replace(WITH_BEATS, contrastive_weight=0.25)).train()
    losses = model(*clips(), LABELS, TEXT)
    assert losses.keys() == model.loss_weights.keys()
    assert model.loss_weights == {"cross_entropy": 1.0, "contrastive": 0.25}
    assert model(*clips(), LABELS).keys() == {"cross_entropy"}
    sum(losses.values()).backward()
    trained = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {
        "downsample_conv",
        "postencoder",
        "encoder_embed_mlp",
        "cross_embed_positions",
        "decoder",
        "final_logits_bias",
    }


def test_a_single_clip_can_be_trained_on() -> None:
    losses = captioner(WITH_BEATS).train()(*clips((9000,)), LABELS[:1], TEXT[:1])
    assert losses["contrastive"].item() == 0.0
    head = EmbeddingHead(4, 8, 2)
    statistics = head.bn.state_dict()["running_mean"].clone()
    torch.testing.assert_close(head.train()(torch.ones(1, 4)), head.eval()(torch.ones(1, 4)))
    assert torch.equal(head.bn.state_dict()["running_mean"], statistics)


# -------------------------------------------------------------------------------------------------------- training mode


def test_a_frozen_encoder_stays_in_evaluation_mode_unless_asked() -> None:
    model = captioner(WITH_BEATS).train()
    assert not model.encoder.training and model.postencoder.training
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    released = captioner(replace(WITH_BEATS, frozen_encoder_in_train_mode=True)).train()
    assert released.encoder.training
    assert not released.eval().encoder.training
    free = captioner(replace(WITH_BEATS, freeze_encoder=False, beats=replace(BEATS, encoder_layerdrop=0.0))).train()
    assert free.encoder.training
    sum(free(*clips(), LABELS, TEXT).values()).backward()
    assert any(p.grad is not None and p.grad.any() for p in free.encoder.parameters())


def test_spec_augment_acts_in_training_only_and_obeys_its_generator() -> None:
    config = replace(WITH_BEATS, spec_augment=SpecAugmentConfig())
    model, plain = captioner(config), captioner(WITH_BEATS)
    waveform, mask = clips()

    def memory(which: Captioner, seed: int = 0) -> Tensor:
        return which.encode(waveform, mask, generator=torch.Generator().manual_seed(seed)).memory

    with torch.no_grad():
        assert torch.equal(memory(model), memory(plain))
        model.train(), plain.train()
        assert torch.equal(memory(model, 1), memory(model, 1))
        assert not torch.equal(memory(model, 1), memory(model, 2))
        assert not torch.equal(memory(model, 1), memory(plain))


# ---------------------------------------------------------------------------------------------------------------- parts


def test_relative_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    n_steps, size, n_heads = 6, 16, 4
    attention = RelativeAttention(CONFORMER).eval()
    nn.init.normal_(attention.pos_bias_u)
    nn.init.normal_(attention.pos_bias_v)
    hidden = torch.randn(1, n_steps, size)
    mask = torch.tensor([[True] * 5 + [False]])
    positions = relative_positions(n_steps, size)
    split = (n_heads, size // n_heads)
    with torch.no_grad():
        q, k, v = (
            project(hidden)[0].unflatten(1, split)
            for project in (attention.linear_q, attention.linear_k, attention.linear_v)
        )
        mixed = torch.zeros(n_steps, *split)
        for head in range(n_heads):
            for i in range(n_steps):
                scores = []
                for j in range(5):
                    encoding = torch.zeros(size)
                    for m in range(size // 2):
                        angle = (i - j) * 10000 ** (-2 * m / size)
                        encoding[2 * m], encoding[2 * m + 1] = math.sin(angle), math.cos(angle)
                    torch.testing.assert_close(encoding, positions[n_steps - 1 - (i - j)], atol=1e-5, rtol=1e-5)
                    p = attention.linear_pos(encoding).unflatten(0, split)[head]
                    content = (q[i, head] + attention.pos_bias_u[head]) @ k[j, head]
                    distance = (q[i, head] + attention.pos_bias_v[head]) @ p
                    scores.append((content + distance) / math.sqrt(split[1]))
                mixed[i, head] = torch.stack(scores).softmax(0) @ v[:5, head]
        expected = attention.linear_out(mixed.flatten(1))
        torch.testing.assert_close(attention(hidden, positions, mask)[0], expected, atol=1e-5, rtol=1e-4)


def test_one_step_is_enough_for_the_conformer() -> None:
    torch.manual_seed(0)
    assert Conformer(CONFORMER).eval()(torch.randn(2, 1, 16)).isfinite().all()


def test_conformer_layerdrop_skips_layers_in_training_only() -> None:
    torch.manual_seed(0)
    conformer = Conformer(replace(CONFORMER, layerdrop=1.0))
    steps = torch.randn(2, 5, 16)
    torch.testing.assert_close(conformer.train()(steps), conformer.layer_norm(steps))
    assert not torch.allclose(conformer.eval()(steps), conformer.layer_norm(steps))


def test_shapes_of_ten_seconds_at_the_published_size() -> None:
    """Section 1 of the paper's numbers: 496 tokens of BEATs, 165 memory steps."""
    small = replace(paper(), beats=replace(BASE, encoder_layers=1), tapped_layer=1)
    with torch.device("meta"):
        model = Captioner(replace(small, decoder=replace(small.decoder, layers=1))).eval()
        tokens, mask = torch.empty(1, 496, 768), torch.ones(1, 496, dtype=torch.bool)
        steps, step_mask = model.downsample(tokens, mask)
        assert step_mask is not None and step_mask.shape == (1, 165)
        states = model.postencoder(steps, step_mask)
        assert states.shape == (1, 165, 768)
        assert model.encoder_embed_mlp(pooled_mean(states, step_mask)).shape == (1, 768)
        assert model.logits(states, step_mask, torch.zeros(1, 7, dtype=torch.long)).shape == (1, 7, 50265)
    assert model.max_seconds == pytest.approx(30.9, abs=0.01)


def test_paper_size() -> None:
    with torch.device("meta"):
        model = Captioner(paper())
    trained = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("encoder."))
    assert trained == 121_905_753  # published as 126.6 M, with the unused convolution
    assert model.lm_head.weight is model.decoder.embed_tokens.weight


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_longest_clip_fits_and_a_longer_one_is_refused(config: CaptionerConfig) -> None:
    model = captioner(replace(config, max_cross_positions=12))
    longest = round(model.max_seconds * RATE)
    with torch.no_grad():
        assert model.encode(torch.zeros(1, longest)).memory.shape[1] <= 12
        with pytest.raises(ValueError, match=rf"longer than this captioner takes \({model.max_seconds:.1f} s\)"):
            model.encode(torch.zeros(1, longest + 1))
        with pytest.raises(ValueError, match="more than the model's 12"):
            model.encode_fbank(*model.encoder.fbank(torch.zeros(1, longest + 1)))


def test_short_clips_are_followed_by_silence() -> None:
    model = captioner(replace(WITH_BEATS, min_seconds=1.0))
    waveform, mask = clips((6000, 3000))
    whole = F.pad(waveform, (0, RATE - 6000))
    with torch.no_grad():
        expected = model.encode(whole)
        padded = model.encode(waveform, mask)
        torch.testing.assert_close(padded.memory, expected.memory)
        torch.testing.assert_close(padded.embedding, expected.embedding)
        torch.testing.assert_close(model.encode(waveform[:1]).memory, expected.memory[:1])


def test_widths_that_differ_get_a_projection() -> None:
    config = replace(WITH_BEATS, decoder=replace(DECODER, d_model=24, heads=3))
    model = captioner(config)
    assert model.enc_dec_proj.weight.shape == (24, 16)
    encoded = model.encode(*clips())
    assert encoded.states.shape[2] == encoded.memory.shape[2] == 24
    assert not hasattr(captioner(WITH_BEATS), "enc_dec_proj")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beats": None}, "exactly one of"),
        ({"conv_encoder": ConvEncoderConfig()}, "exactly one of"),
        ({"released_padding": True}, "released_padding"),
        ({"downsample_rate": 0}, "downsample_rate"),
        ({"downsample_rate": 1, "conformer": replace(CONFORMER, hidden_size=32)}, "without a downsampling convolution"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(WITH_BEATS, **change)  # type: ignore[arg-type]


def test_conformer_refuses_sizes_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        replace(CONFORMER, num_attention_heads=3)
    with pytest.raises(ValueError, match="must be odd"):
        replace(CONFORMER, conv_depthwise_kernel_size=4)


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip_through_a_folder(config: CaptionerConfig, tmp_path: Path) -> None:
    model = captioner(replace(config, spec_augment=SpecAugmentConfig()))
    folder = tmp_path / "model"
    save_model(folder, system="captioning", config=model.config, weights=model.state_dict(), card="# A captioner")
    with torch.device("meta"):
        again = Captioner(load_config(folder, CaptionerConfig, "captioning"))
    load_into(again, load_weights(folder))
    assert again.config == model.config
    assert again.lm_head.weight is again.decoder.embed_tokens.weight
    waveform, mask = clips()
    with torch.no_grad():
        first, second = (each.eval().encode(waveform, mask) for each in (model, again))
    assert torch.equal(first.memory, second.memory)
    assert torch.equal(first.embedding, second.embedding)
