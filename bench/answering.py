"""Answering against the released ways, with the same weights in the same run.

    python bench/answering.py                  everything at the published size: about 6 minutes on two cores
    python bench/answering.py --part b         one part: a answers, b HTS-AT
    python bench/answering.py --tiny           everything at toy sizes, in seconds: only shows that it works
    python bench/answering.py --json OUT       the figures to a file as well

The weights are random, as speed does not depend on them, and no token stops an answer: all are 30 tokens long, by a
beam search of 5. Before anything is timed, prefixes, embeddings, and the answers token by token are compared.

a   Clips of 7 s and a prompt to answers, batch 1 and 4: against the released loop, without a cache, item by item
    (``peers/pengi_loop.py``). *Token loop* goes from a prefix to the answers. *Whole* goes from the waveforms to the
    answers, on the peer's side through the ear of b, and is timed once.
b   HTS-AT from waveforms to embeddings: against a convolutional Fourier transform and explicit attention
    (``peers/htsat_explicit.py``).

The floor of a time is the larger of FLOPs / best matrix product and bytes read / best memory read; both are printed
below the times. Bytes read are the weights, in each step once for all beams of all items, and keys and values.
"foreign cores" is how many of them other processes kept busy meanwhile: trust a time where it is below 0.1. On a busy
machine only ``--threads 1`` and the ratio in CPU seconds mean something.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from measure import (
    HEADER,
    Row,
    count_flops,
    expect_close,
    in_turns,
    machine,
    n_bytes,
    peak_flops,
    print_table,
    read_bandwidth,
)
from peers.htsat_explicit import ExplicitHtsat
from peers.pengi_loop import Answers, released_answers, released_prefix
from torch import Tensor

from aural.answering.decoding import beam
from aural.answering.model import AnsweringConfig, AudioLanguageModel, ClipTextConfig, Gpt2Config
from aural.beam_search import Hypothesis
from aural.networks.htsat import Htsat, HtsatConfig

NO_TOKEN = -1
"""As the id of the stop token: no answer ends before its time."""
SHARPNESS = 10.0
"""By how much logits are larger than a new model's, which are so flat that beams tie within rounding errors."""
TOLERANCE = 1e-4
"""Of what ours and a peer compute, relative to the largest value."""
RELEASED_LOOP = "as released, no cache, item by item"
EXPLICIT = "explicit attention, STFT by convolution"


@dataclass(frozen=True)
class Sizes:
    """How much work."""

    model: AnsweringConfig
    batches: tuple[int, ...] = (1, 4)
    beams: int = 5
    length: int = 30  # tokens of each answer
    repeats: int = 3
    sgemm: int = 2048
    read_megabytes: int = 1024


def published_sizes() -> Sizes:
    """HTS-AT, CLIP's text tower, GPT-2 of 124 M parameters, mappers of four layers each."""
    return Sizes(AnsweringConfig(stop_token_id=NO_TOKEN))


def tiny_sizes() -> Sizes:
    """Seconds instead of minutes."""
    htsat = HtsatConfig(
        sample_rate=4000, filter_rate=4000, n_fft=128, hop_length=40, mel_bins=16, high_hz=2000.0, spec_size=64,
        embed_dim=8, depths=(2, 2, 1), num_heads=(1, 2, 4), window_size=4,
    )  # fmt: skip
    clip = ClipTextConfig(
        vocab_size=60, width=8, layers=1, heads=2, ffn_dim=12, projection_dim=6, max_positions=12, end_token_id=59
    )
    gpt2 = Gpt2Config(vocab_size=300, width=32, layers=2, heads=4, max_positions=32)
    model = AnsweringConfig(
        htsat=htsat, seconds=2.0, text_encoder=clip, gpt2=gpt2, joint_width=12, prefix_length=5, vector_rows=4,
        mapper_layers=1, mapper_heads=2, prompt_length=10, stop_token_id=NO_TOKEN,
    )  # fmt: skip
    return Sizes(model, batches=(1, 3), beams=4, length=8, repeats=2, sgemm=256, read_megabytes=4)


# --------------------------------------------------------------------------------------------------------------- parts


@torch.inference_mode()
def part_a(sizes: Sizes) -> Iterator[Row]:
    """Answers at each batch size: the token loop, then the whole."""
    model = random_model(sizes.model)
    listen = ExplicitHtsat(ear(model))
    before_loop = n_bytes(*(parameter for name, parameter in model.named_parameters() if _is_read_before_loop(name)))

    def our_prefix(waveform: Tensor, prompt: Tensor) -> Tensor:
        read = model.prompt_prefix(prompt).expand(len(waveform), -1, -1)
        return torch.cat((model.audio_prefix(model.embed_audio(waveform)), read), dim=1)

    def peer_prefix(waveform: Tensor, prompt: Tensor) -> Tensor:
        return released_prefix(model, listen, waveform, prompt.expand(len(waveform), -1))

    def our_loop(prefix: Tensor) -> list[list[Hypothesis]]:
        return beam(model, prefix, beams=sizes.beams, max_tokens=sizes.length)

    def peer_loop(prefix: Tensor) -> list[Answers]:
        stop = sizes.model.stop_token_id
        return released_answers(model.gpt2, prefix, beams=sizes.beams, max_tokens=sizes.length, stop=stop)

    def our_whole(waveform: Tensor, prompt: Tensor) -> list[list[Hypothesis]]:
        return our_loop(our_prefix(waveform, prompt))

    def peer_whole(waveform: Tensor, prompt: Tensor) -> list[Answers]:
        return peer_loop(peer_prefix(waveform, prompt))

    for n_items in sizes.batches:
        given = noise(sizes, n_items), random_prompt(sizes)
        prefix = our_prefix(*given)
        expect_close("prefix", prefix, peer_prefix(*given), TOLERANCE)
        expect_same_answers(our_loop(prefix), peer_loop(prefix))  # which has warmed both up
        what = f"{sizes.length} tokens, beam {sizes.beams}, batch {n_items}"
        bytes_read = loop_bytes(model, n_items, sizes)
        loop, whole = partial(our_loop, prefix), partial(our_whole, *given)
        taken = in_turns({"ours": loop, "peer": partial(peer_loop, prefix)}, sizes.repeats, warm_up=False)
        flops = count_flops(loop)
        yield Row(f"{what}: token loop", taken["ours"], RELEASED_LOOP, taken["peer"], flops, bytes_read)
        taken = in_turns({"ours": whole, "peer": partial(peer_whole, *given)}, 1, warm_up=False)
        flops = count_flops(whole)
        yield Row(f"{what}: whole", taken["ours"], RELEASED_LOOP, taken["peer"], flops, bytes_read + before_loop)


@torch.inference_mode()
def part_b(sizes: Sizes) -> Iterator[Row]:
    """HTS-AT at each batch size."""
    model = random_model(sizes.model)
    listen = ExplicitHtsat(ear(model))
    weights = n_bytes(*(tensor for name, tensor in ear(model).named_parameters() if not name.startswith("tscam_conv.")))
    for n_clips in sizes.batches:
        waveform = noise(sizes, n_clips)
        ours, peer = partial(model.encode_audio, waveform), partial(listen, waveform)
        expect_close("HTS-AT", ours(), peer(), TOLERANCE)
        samples = in_turns({"ours": ours, "peer": peer}, sizes.repeats)
        what = f"HTS-AT, {sizes.model.seconds:g} s, batch {n_clips}"
        yield Row(what, samples["ours"], EXPLICIT, samples["peer"], count_flops(ours), weights)


def _is_read_before_loop(name: str) -> bool:
    """Whether a parameter makes prefixes, and all of it is read for one."""
    return not name.startswith(("gpt2.", "audio_encoder.tscam_conv.")) and ".embeddings." not in name


def loop_bytes(model: AudioLanguageModel, n_items: int, sizes: Sizes) -> int:
    """What a token loop has to read, whatever the way: weights once a token, and keys and values once a step."""
    gpt2, config = model.gpt2, sizes.model
    weights = n_bytes(gpt2.lm_head.weight, *gpt2.transformer.h.parameters())
    position = 2 * config.gpt2.layers * config.gpt2.width * gpt2.lm_head.weight.itemsize  # a key and a value a layer
    steps = sizes.length - 1  # the first token comes with the prefix
    of_prefix = steps * 2 * config.prefix_length
    of_beams = sizes.beams * steps * (steps + 1) // 2
    return sizes.length * weights + n_items * position * (of_prefix + of_beams)


# --------------------------------------------------------------------------------------------- the same for both sides


@torch.no_grad()
def random_model(config: AnsweringConfig) -> AudioLanguageModel:
    """Random weights, none of them as small as new ones are: that would hide errors and make all answers alike."""
    torch.manual_seed(0)
    model = AudioLanguageModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter.numel() ** -0.25)  # about 1 / sqrt(inputs): what comes in large goes out so
        elif not parameter.any():
            parameter.normal_(std=0.1)
    model.gpt2.transformer.ln_f.weight.fill_(SHARPNESS)
    return model


def ear(model: AudioLanguageModel) -> Htsat:
    """Its audio encoder."""
    assert isinstance(model.audio_encoder, Htsat)
    return model.audio_encoder


def noise(sizes: Sizes, n_clips: int) -> Tensor:
    """(clips, samples)"""
    return 0.1 * torch.randn(n_clips, sizes.model.n_samples, generator=torch.Generator().manual_seed(1))


def random_prompt(sizes: Sizes) -> Tensor:
    """(1, L): words up to half of its length, then the end token."""
    text = sizes.model.text_encoder
    assert text is not None
    prompt = torch.full((1, sizes.model.prompt_length), text.end_token_id)
    n_words = sizes.model.prompt_length // 2
    prompt[0, :n_words] = torch.randint(text.end_token_id, (n_words,), generator=torch.Generator().manual_seed(2))
    return prompt


def expect_same_answers(ours: list[list[Hypothesis]], peer: list[Answers]) -> None:
    """Stop unless all beams of all items have the same tokens in the same order, and the same scores."""
    for item, (own, (tokens, scores)) in enumerate(zip(ours, peer, strict=True)):
        if [list(answer.token_ids) for answer in own] != tokens.tolist():
            sys.exit(f"answers of item {item} differ; nothing is timed")
        expect_close("scores", torch.tensor([answer.score for answer in own]), scores, TOLERANCE)


# ------------------------------------------------------------------------------------------------------------- command


def main() -> None:
    """Run the parts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices="ab", action="append", help="may be given several times; default: both")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, in seconds")
    parser.add_argument("--repeats", type=int, help="timings of each thing (of the whole: always 1)")
    parser.add_argument("--threads", type=int, help="default: 2, with --tiny 1")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or (1 if options.tiny else 2))
    sizes = tiny_sizes() if options.tiny else published_sizes()
    if options.repeats:
        sizes = replace(sizes, repeats=options.repeats)

    flops_per_second, bytes_per_second = peak_flops(sizes.sgemm), read_bandwidth(sizes.read_megabytes)
    print(f"{machine()}; {flops_per_second / 1e9:.0f} GFLOP/s sgemm, {bytes_per_second / 1e9:.1f} GB/s read\n")
    timed: dict[str, Callable[[Sizes], Iterator[Row]]] = {"a": part_a, "b": part_b}
    rows: list[Row] = []

    def lines() -> Iterator[list[str]]:
        for part in options.part or timed:
            for row in timed[part](sizes):
                rows.append(row)
                yield row.cells(flops_per_second, bytes_per_second)

    print_table(HEADER, lines())
    print()
    print_table(
        ["floor of", "GB read", "at best memory read s", "GFLOP", "at best matrix product s"],
        (
            [
                row.what,
                f"{row.bytes_read / 1e9:.3g}",
                f"{row.bytes_read / bytes_per_second:.3g}",
                f"{row.flops / 1e9:.3g}",
                f"{row.flops / flops_per_second:.3g}",
            ]
            for row in rows
        ),
    )
    if options.json:
        figures = {
            "machine": machine(),
            "flops_per_second": flops_per_second,
            "bytes_per_second": bytes_per_second,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
