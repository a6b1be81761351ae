"""The captioner against the author's code: every tensor of ``io`` and ``specaug``, and the names of the released file.

The golden numbers follow the released padding rules; ``test_captioner_model.py`` is about the exact ones.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from parity import Comparison, read_json
from safetensors.torch import load_file
from torch import Tensor

from aural.beam_search import Hypothesis
from aural.captioning.convert import official_config
from aural.captioning.decoding import DecodingConfig, Member, beam, greedy
from aural.captioning.model import Captioner, Encoded, with_released_padding
from aural.captioning.rerank import rerank
from aural.checkpoint import load_into
from aural.sampling import SamplingConfig, warp
from aural.spec_augment import Draws, apply, time_warp

FROM_FBANK = 1e-4
FROM_WAVEFORM = 1e-3
FBANK = 1e-3
SAMPLING = SamplingConfig(no_repeat_ngram=3, min_length=5, max_length=30, temperature=0.5, top_k=50, top_p=0.95)


def check(folder: Path) -> set[str]:
    """Compare one golden folder; returns the tensors used, raises AssertionError with all differences."""
    torch.manual_seed(0)
    with torch.device("meta"):
        captioner = Captioner(with_released_padding(official_config(**read_json(folder / "config.json"))))
    load_into(captioner, load_file(folder / "weights.safetensors"))
    captioner.eval()

    check_released_names(folder)
    io = Comparison.load(folder, "io")
    check_encoding_and_losses(io, captioner)
    check_gradients(io, captioner)
    check_training_mode(io, captioner)
    check_captions(io, captioner)
    check_reranking(io, captioner)
    check_sampling(io, captioner)
    return io.finish() | check_spec_augment(folder)


def check_released_names(folder: Path) -> None:
    """Names, shapes and types of the full-size model are those of the published file, where the folder lists them."""
    if not (folder / "full_state_dict.json").is_file():
        return
    settings = read_json(folder / "official_config.json")
    expected = read_json(folder / "full_state_dict.json")
    for config in (
        official_config(),
        official_config(**{part: settings[part] for part in ("model", "conformer", "beats")}),
    ):
        with torch.device("meta"):
            state = Captioner(config).state_dict()
        found = {name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in state.items()}
        assert found == expected


def real(io: Comparison) -> Tensor:
    """(B, N) which samples are real."""
    return ~io.input("padding_mask")


def check_encoding_and_losses(io: Comparison, captioner: Captioner) -> None:
    waveform, mask = io.input("waveform"), real(io)
    with torch.no_grad():
        fbank, frame_mask = captioner.encoder.fbank(waveform, mask)
        io.close("fbank", fbank, absolute=FBANK)
        compare_stages(io, captioner, io.input("fbank"), frame_mask, FROM_FBANK)
        compare_stages(io, captioner, fbank, frame_mask, FROM_WAVEFORM)
        encoded = captioner.encode(waveform, mask)
        io.close("encoder_out", encoded.states, relative_to_max=FROM_WAVEFORM)
        io.close("audio_embed", encoded.embedding, relative_to_max=FROM_WAVEFORM)


def compare_stages(
    io: Comparison, captioner: Captioner, fbank: Tensor, frame_mask: Tensor | None, tolerance: float
) -> None:
    """Everything from the log-mel to the losses."""
    for name in io.names("beats_hidden_"):
        tokens = captioner.encoder.encode_fbank(fbank, frame_mask, int(name.rpartition("_")[2]))
        io.close(name, tokens.hidden, relative_to_max=tolerance)
    io.equal("token_mask", ~tokens.mask)

    steps, mask = captioner.downsample(tokens.hidden, tokens.mask)
    assert mask is not None
    io.close("downsample_out", steps, relative_to_max=tolerance)
    io.equal("downsample_mask", ~mask)

    with conformer_layers(captioner) as layers:
        encoded = captioner.encode_fbank(fbank, frame_mask)
    for name in io.names("conformer_layer_"):
        io.close(name, layers[int(name.rpartition("_")[2]) - 1], relative_to_max=tolerance)
    assert len(io.names("conformer_layer_")) == len(layers)
    io.close("encoder_out", encoded.states, relative_to_max=tolerance)
    io.close("cross_memory", encoded.memory, relative_to_max=tolerance)
    io.close("audio_embed", encoded.embedding, relative_to_max=tolerance)

    labels = io.input("labels")
    input_ids = captioner.shifted_right(labels)
    io.equal("decoder_input_ids", input_ids)
    states = captioner.decoder.hidden_states(input_ids, encoded.memory, encoded.mask)
    io.close("decoder_embed", states[0], relative_to_max=tolerance)
    for name in io.names("decoder_layer_"):
        io.close(name, states[int(name.rpartition("_")[2])], relative_to_max=tolerance)
    assert len(io.names("decoder_layer_")) == len(states) - 1
    io.close("logits", captioner.logits(encoded.memory, encoded.mask, input_ids), relative_to_max=tolerance)

    losses = captioner.losses(encoded, labels, io.input("text_embeds"))
    io.close("loss_ce_smoothed", losses["cross_entropy"][None], relative_to_max=tolerance)
    io.close("loss_infonce", losses["contrastive"][None], relative_to_max=tolerance)
    io.close("loss_total", total(captioner, losses)[None], relative_to_max=tolerance)
    nll = captioner.negative_log_likelihood(encoded.memory, encoded.mask, labels)
    io.close("nll_per_sample", nll, relative_to_max=tolerance)


def total(captioner: Captioner, losses: dict[str, Tensor]) -> Tensor:
    """The training objective."""
    return torch.stack([captioner.loss_weights[name] * loss for name, loss in losses.items()]).sum()


@contextmanager
def conformer_layers(captioner: Captioner) -> Iterator[list[Tensor]]:
    """Collects the output of each Conformer layer while it lasts."""
    outputs: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for layer in captioner.postencoder.layers
    ]
    yield outputs
    for hook in hooks:
        hook.remove()


def check_gradients(io: Comparison, captioner: Captioner) -> None:
    model = copy.deepcopy(captioner)
    frame_mask = model.encoder.fbank(io.input("waveform"), real(io))[1]
    encoded = model.encode_fbank(io.input("fbank"), frame_mask)
    total(model, model.losses(encoded, io.input("labels"), io.input("text_embeds"))).backward()
    for name in io.names("grad."):
        gradient = model.get_parameter(name.removeprefix("grad.")).grad
        assert gradient is not None, name
        io.close(name, gradient, relative_to_max=1e-3)


def check_training_mode(io: Comparison, captioner: Captioner) -> None:
    model = copy.deepcopy(captioner).train()
    frame_mask = model.encoder.fbank(io.input("waveform"), real(io))[1]
    with torch.no_grad():
        encoded = model.encode_fbank(io.input("fbank"), frame_mask)
        labels = io.input("labels")
        logits = model.logits(encoded.memory, encoded.mask, model.shifted_right(labels))
        losses = model.losses(encoded, labels, io.input("text_embeds"))
    io.close("train.logits", logits, relative_to_max=FROM_FBANK)
    io.close("train.loss_total", total(model, losses)[None], relative_to_max=FROM_FBANK)
    after = model.state_dict()
    for name in io.names("train.after."):
        io.close(name, after[name.removeprefix("train.after.")], relative_to_max=FROM_FBANK)


def alone(io: Comparison, captioner: Captioner, clip: int) -> Encoded:
    """One clip cut to its own length."""
    n_samples = int(real(io)[clip].sum())
    waveform = io.input("waveform")[clip : clip + 1, :n_samples]
    with torch.no_grad():
        return captioner.encode(waveform, torch.ones_like(waveform, dtype=torch.bool))


def check_captions(io: Comparison, captioner: Captioner) -> None:
    start = captioner.config.decoder_start_token_id

    def ids(found: Hypothesis) -> Tensor:
        return torch.tensor([[start, *found.token_ids]])

    config = DecodingConfig(no_repeat_ngram=3, min_length=5, max_length=30)
    for clip in sorted({int(name[3 : name.index(".")]) for name in io.names("gen")}):
        encoded = alone(io, captioner, clip)
        io.close(f"gen{clip}.encoder_out", encoded.states, relative_to_max=FROM_WAVEFORM)
        io.close(f"gen{clip}.audio_embed", encoded.embedding, relative_to_max=FROM_WAVEFORM)
        mask = torch.ones(encoded.states.shape[:2], dtype=torch.bool) if encoded.mask is None else encoded.mask
        io.equal(f"gen{clip}.encoder_mask", ~mask)
        members = [Member(captioner, encoded)]
        io.equal(f"gen{clip}.greedy", ids(greedy(members, config)[0]))
        freely = DecodingConfig(no_repeat_ngram=0, min_length=5, max_length=30)
        io.equal(f"gen{clip}.greedy_norepeat0", ids(greedy(members, freely)[0]))
        best = beam(members, config)[0][0]
        io.equal(f"gen{clip}.beam4", ids(best))
        io.close(f"gen{clip}.beam4_score", torch.tensor([best.score]), relative_to_max=FROM_WAVEFORM)


def check_reranking(io: Comparison, captioner: Captioner) -> None:
    candidates = io.input("rerank.candidates")
    first_clip = torch.zeros(len(candidates), dtype=torch.long)
    states = io.input("gen0.encoder_out")
    positions = captioner.cross_embed_positions.weight[2 : 2 + states.shape[1]]
    encoded = alone(io, captioner, 0)
    for memory, embedding, tolerance in (
        (states + positions, io.input("gen0.audio_embed"), FROM_FBANK),
        (encoded.memory, encoded.embedding, FROM_WAVEFORM),
    ):
        with torch.no_grad():
            nll = captioner.negative_log_likelihood(memory, None, candidates, first_clip)
            cosine = F.cosine_similarity(embedding, io.input("rerank.text_embeds"))
        io.close("rerank.nll", nll, relative_to_max=tolerance)
        io.close("rerank.cosine", cosine, relative_to_max=tolerance)
        for kind, znorm in (("raw", False), ("znorm", True)):
            order, scores = rerank(nll, cosine, znorm=znorm)
            io.close(f"rerank.score_{kind}", scores, relative_to_max=tolerance)
            io.equal(f"rerank.order_{kind}", order)


def check_sampling(io: Comparison, captioner: Captioner) -> None:
    for case in sorted({name.split(".")[1] for name in io.names("sample.")}):
        prefix, logits = io.input(f"sample.{case}.prefix"), io.input(f"sample.{case}.logits")
        warped = warp(logits, prefix, SAMPLING, captioner.config.eos_token_id)
        io.close(f"sample.{case}.warped", warped, absolute=1e-5)


def check_spec_augment(folder: Path) -> set[str]:
    if not (folder / "specaug.safetensors").is_file():
        return set()
    golden = Comparison.load(folder, "specaug")
    fbank = golden.input("input")
    centre, raw = (int(golden.input(name)) for name in ("warp_center", "warp_raw"))
    names = ("freq_len", "freq_pos", "time_len", "time_pos")
    draws = Draws((centre, raw + 1), *(golden.input(name) for name in names))
    golden.close("warped", time_warp(fbank, centre, raw + 1), relative_to_max=FROM_FBANK)
    golden.close("output", apply(fbank, draws), relative_to_max=FROM_FBANK)
    return golden.finish()
