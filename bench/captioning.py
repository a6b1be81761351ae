"""Captioning against peers that do the same work with the same weights in the same run.

    python bench/captioning.py                 everything at the published size: about 8 minutes on two cores
    python bench/captioning.py --part a        one part: a BEATs, b one clip, c a folder, d peak memory
    python bench/captioning.py --tiny          everything at toy sizes, in seconds: only shows that it works
    python bench/captioning.py --json OUT      the figures to a file as well

The weights are random, as speed does not depend on them, and every caption is forced to 30 tokens on all sides: random
weights would never end one. Before anything is timed, encoder outputs, greedy captions, likelihoods and the ranking are
compared. The sentence encoder is left out on all sides (fixed vectors stand in for its output).

a   BEATs base, 12 layers, from log-mel on, against explicit attention matrices as in the released code.
b   One clip of 10 s, 50 candidates, reranked: against transformers' BART with its cache, and against the pipeline as
    released, which re-decodes the prefix at each step. See ``peers/captioning_released.py``.
c   A folder of sounds of 5-10 s through the function behind ``aural caption``, with the packaged default model.
d   Peak memory of b and of the larger batch of a, each in a process of its own.

The floor of a time is the larger of FLOPs / best matrix product and weight bytes read / best memory read, both measured
in the same run. "foreign cores" is how many of them other processes kept busy meanwhile: trust a time where it is below
0.1. On a busy machine only ``--threads 1`` and the ratio in CPU seconds mean something.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
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
    peak_memory,
    print_table,
    read_bandwidth,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from aural import audio
from aural.captioning.caption import CaptioningModel, caption_each, load
from aural.captioning.conformer import ConformerConfig
from aural.captioning.decoding import DecodingConfig, Member, greedy, nucleus
from aural.captioning.model import SAMPLE_RATE, Captioner, CaptionerConfig, paper
from aural.captioning.rerank import choose
from aural.captioning.tokenizer import train_tokenizer
from aural.errors import UsageError
from aural.features import beats_fbank
from aural.networks.bart_decoder import BartDecoderConfig
from aural.networks.beats import BASE, BEATs

if TYPE_CHECKING:
    from peers.captioning_released import ReleasedCaptioner  # its libraries must not count in our peak memory


@dataclass(frozen=True)
class Sizes:
    """How much work."""

    captioner: CaptionerConfig
    seconds: float = 10.0
    batches: tuple[int, ...] = (1, 8)
    candidates: int = 50
    length: int = 30  # tokens of each caption, start and end included
    repeats: int = 5
    clips: int = 100
    memory_of_beats: bool = True  # in part d
    sgemm: int = 2048
    read_megabytes: int = 1024


def tiny_sizes() -> Sizes:
    """Seconds instead of minutes."""
    beats = replace(
        BASE, embed_dim=16, encoder_layers=3, encoder_embed_dim=32, encoder_ffn_embed_dim=48, encoder_attention_heads=4,
        conv_pos=8, conv_pos_groups=4, num_buckets=32, max_distance=40,
    )  # fmt: skip
    captioner = CaptionerConfig(
        beats=beats,
        tapped_layer=2,
        conformer=ConformerConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=48,
            conv_depthwise_kernel_size=7,
        ),
        decoder=BartDecoderConfig(vocab_size=300, d_model=32, layers=2, heads=4, ffn_dim=48, max_positions=32),
        max_cross_positions=64,
        embedding_ffn_dim=48,
        embedding_dim=16,
    )
    return Sizes(
        captioner, seconds=2.0, batches=(1, 2), candidates=5, length=12, repeats=2, clips=3, memory_of_beats=False,
        sgemm=256, read_megabytes=4,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- the same work, two ways


def random_captioner(config: CaptionerConfig) -> Captioner:
    """Random weights, without any that are zero at the beginning and so would hide an error."""
    torch.manual_seed(0)
    captioner = Captioner(config)
    with torch.no_grad():
        for name, parameter in captioner.postencoder.named_parameters():
            if "pos_bias" in name:
                parameter.normal_(std=0.1)
        captioner.final_logits_bias.normal_(std=0.1)
        captioner.final_logits_bias[0, [0, 1, 3]] = -100.0  # no special tokens inside a caption
    return captioner.eval().requires_grad_(False)


def word_tokenizer(vocab_size: int) -> Tokenizer:
    """A word for each id, so that captions of random ids come back from their text as the same ids."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(4, vocab_size))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(words[:4])
    return tokenizer


def noise(sizes: Sizes, n_clips: int = 1) -> Tensor:
    """(clips, samples)"""
    return 0.1 * torch.randn(n_clips, int(sizes.seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(1))


def stand_in_embeddings(sizes: Sizes) -> Tensor:
    """(candidates, K), what the sentence encoder would have given."""
    shape = sizes.candidates, sizes.captioner.embedding_dim
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def decoding(sizes: Sizes) -> DecodingConfig:
    """The paper's sampling, with the length forced."""
    return DecodingConfig(candidates=sizes.candidates, min_length=sizes.length - 1, max_length=sizes.length)


def our_caption(captioner: Captioner, sizes: Sizes) -> Callable[[], list[tuple[float, str]]]:
    """Encode once, sample, rerank."""
    waveform, embeddings = noise(sizes), stand_in_embeddings(sizes)
    tokenizer = word_tokenizer(sizes.captioner.decoder.vocab_size)

    @torch.inference_mode()
    def run() -> list[tuple[float, str]]:
        members = [Member(captioner, captioner.encode(waveform))]
        drawn = nucleus(members, decoding(sizes))
        [choice] = choose(members, drawn, tokenizer, lambda captions: embeddings[: len(captions)])
        return [(ranked.score, ranked.caption) for ranked in choice.ranked]

    return run


def released_caption(released: "ReleasedCaptioner", sizes: Sizes, *, cached: bool) -> Callable[[], object]:
    """Encode three times, sample, rerank; see ``peers/captioning_released.py``."""
    waveform, embeddings = noise(sizes), stand_in_embeddings(sizes)
    tokenizer = word_tokenizer(sizes.captioner.decoder.vocab_size)
    work = partial(released.caption, waveform, tokenizer, embeddings, n=sizes.candidates, length=sizes.length)
    return torch.inference_mode()(partial(work, cached=cached))


def our_beats(sizes: Sizes, n_clips: int, beats: BEATs | None = None) -> Callable[[], Tensor]:
    """All layers over log-mel; without ``beats`` on random weights of its own."""
    beats, fbank = beats or new_beats(sizes), beats_fbank(noise(sizes, n_clips))
    return torch.inference_mode()(lambda: beats.encode_fbank(fbank).hidden)


def released_beats(sizes: Sizes, n_clips: int, beats: BEATs | None = None) -> Callable[[], Tensor]:
    """The same with explicit attention matrices."""
    from peers.captioning_released import ReleasedBeats

    assert sizes.captioner.beats is not None
    released, fbank = ReleasedBeats(sizes.captioner.beats).eval(), beats_fbank(noise(sizes, n_clips))
    if beats is not None:
        weights = beats.state_dict()
        released.load_state_dict({name: weights[name] for name in weights if not name.startswith("predictor.")})
    return torch.inference_mode()(lambda: released(fbank))


def new_beats(sizes: Sizes) -> BEATs:
    """Random weights."""
    assert sizes.captioner.beats is not None
    torch.manual_seed(0)
    return BEATs(sizes.captioner.beats).eval().requires_grad_(False)


# --------------------------------------------------------------------------------------------------------------- parts


def part_a(sizes: Sizes) -> Iterator[Row]:
    """BEATs at each batch size."""
    beats = new_beats(sizes)
    for n_clips in sizes.batches:
        ours, peer = our_beats(sizes, n_clips, beats), released_beats(sizes, n_clips, beats)
        expect_close("BEATs", ours(), peer())
        samples = in_turns({"ours": ours, "peer": peer}, sizes.repeats)
        yield Row(
            f"BEATs, {sizes.seconds:g} s, batch {n_clips}",
            samples["ours"],
            "explicit attention",
            samples["peer"],
            count_flops(ours),
            n_bytes(*beats.parameters()),
        )


@torch.inference_mode()
def part_b(sizes: Sizes) -> Iterator[Row]:
    """One clip: the stages that have a counterpart, then the whole."""
    from peers.captioning_released import ReleasedCaptioner

    captioner = random_captioner(sizes.captioner)
    released = ReleasedCaptioner(sizes.captioner, captioner.state_dict())
    expect_agreement(captioner, released, sizes)
    waveform = noise(sizes)
    members = [Member(captioner, captioner.encode(waveform))]
    states = released.encode(waveform)
    listening = [p for name, p in captioner.named_parameters() if not name.startswith(("decoder.", "lm_head."))]
    writing = (sizes.length - 1) * n_bytes(captioner.lm_head.weight, *captioner.decoder.layers.parameters())

    def encode() -> object:
        return captioner.encode(waveform)

    def sample() -> object:
        return nucleus(members, decoding(sizes))

    draw = partial(released.sample, states, sizes.candidates, cached=True, length=sizes.length)
    clip = f"{sizes.seconds:g} s clip"
    stages = {
        f"{clip}: encode": (encode, partial(released.encode, waveform), n_bytes(*listening)),
        f"{clip}: sample {sizes.candidates} captions of {sizes.length} tokens": (sample, draw, writing),
    }
    for name, (own, other, weight_bytes) in stages.items():
        samples = in_turns({"ours": own, "peer": other}, sizes.repeats)
        yield Row(name, samples["ours"], "transformers, cached", samples["peer"], count_flops(own), weight_bytes)

    ours = our_caption(captioner, sizes)
    peers = {cached: released_caption(released, sizes, cached=cached) for cached in (True, False)}
    flops, weight_bytes = count_flops(ours), n_bytes(*listening) + writing
    names = {True: "transformers, cached", False: "as released, no cache"}
    for cached, peer in peers.items():
        repeats = sizes.repeats if cached else 1
        samples = in_turns({"ours": ours, "peer": peer}, repeats, warm_up=cached)
        yield Row(f"{clip}: whole", samples["ours"], names[cached], samples["peer"], flops, weight_bytes)


def part_c(sizes: Sizes, *, packaged: bool) -> Iterator[Row]:
    """A folder of sounds, in one go."""
    model = packaged_model() if packaged else tiny_model()
    model.embed_text(["warm up"])
    with tempfile.TemporaryDirectory() as folder:
        paths = list(write_clips(Path(folder), sizes.clips))

        def run() -> None:
            found = [captions for _, captions in caption_each(paths, model)]
            assert all(isinstance(captions, list) for captions in found)

        flops = count_flops(run)
        samples = in_turns({"ours": run}, min(sizes.repeats, 3), warm_up=False)["ours"]
    yield Row(
        f"folder of {sizes.clips} clips, model {model.name}, {flops / sizes.clips / 1e9:.2g} GFLOP each: "
        f"{sizes.clips / samples.median:.1f} clips/s",
        samples,
        flops=flops,
    )


def part_d(arguments: list[str], sizes: Sizes) -> Iterator[list[str]]:
    """Peak memory: a process for each run."""
    sides: dict[str, tuple[str, ...]] = {"clip": ("ours", "transformers, cached", "as released, no cache")}
    if sizes.memory_of_beats:
        sides[f"beats-{sizes.batches[-1]}"] = ("ours", "explicit attention")
    for work, names in sides.items():
        for side, name in enumerate(names):
            command = [sys.executable, __file__, "--worker", f"{work}:{side}", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, peak = json.loads(done.stdout.splitlines()[-1])
            yield [work, name, f"{peak:.0f}", f"{before:.0f}", f"{peak - before:.0f}"]


def work_alone(name: str, sizes: Sizes) -> None:
    """Run one side of one work and print its memory in MB: with the weights loaded, and at its peak."""
    work, side = name.split(":")
    run: Callable[[], object]
    if work.startswith("beats-"):
        run = (our_beats, released_beats)[int(side)](sizes, int(work.removeprefix("beats-")))
    elif side == "0":
        run = our_caption(random_captioner(sizes.captioner), sizes)
    else:
        from peers.captioning_released import ReleasedCaptioner

        run = released_caption(ReleasedCaptioner(sizes.captioner), sizes, cached=side == "1")
    before = peak_memory()
    run()
    print(json.dumps([before, peak_memory()]))


# ----------------------------------------------------------------------------------------------------------- agreement


def expect_agreement(captioner: Captioner, released: "ReleasedCaptioner", sizes: Sizes) -> None:
    """Encoder output, greedy captions, likelihoods and scores, on the same weights."""
    waveform, tokenizer = noise(sizes), word_tokenizer(sizes.captioner.decoder.vocab_size)
    encoded, states = captioner.encode(waveform), released.encode(waveform)
    expect_close("encoder output", encoded.states, states)
    members = [Member(captioner, encoded)]
    [ours] = greedy(members, decoding(sizes))
    [theirs] = released.sample(states, 1, cached=True, length=sizes.length, do_sample=False).tolist()
    if list(ours.token_ids) != theirs[1:]:
        sys.exit(f"greedy captions differ; nothing is timed: {ours.token_ids} {theirs[1:]}")

    embeddings = stand_in_embeddings(sizes)
    [drawn] = nucleus(members, decoding(sizes))
    [choice] = choose(members, [drawn], tokenizer, lambda captions: embeddings[: len(captions)])
    texts = list(dict.fromkeys(tokenizer.decode(list(found.token_ids)) for found in drawn))
    peer_scores = {text: score for score, text in released.rank(waveform, texts, tokenizer, embeddings)}
    peer_nll = released.negative_log_likelihood(states, texts, tokenizer)
    judged = {ranked.caption: ranked for ranked in choice.ranked}
    likelihoods = torch.tensor([judged[text].log_likelihood for text in texts])
    expect_close("likelihoods", -likelihoods, peer_nll, 1e-4)
    scores = torch.tensor([judged[text].score for text in texts])
    expect_close("scores", scores, torch.tensor([peer_scores[text] for text in texts]))


# ---------------------------------------------------------------------------------------------------------- the folder


def packaged_model() -> CaptioningModel:
    """The default that comes with the package, or a toy where there is none yet."""
    try:
        return load()
    except UsageError as missing:
        print(f"{missing}; a toy model stands in", file=sys.stderr)
        return tiny_model()


def tiny_model() -> CaptioningModel:
    """Random weights of the tiny recipe."""
    from aural.captioning.recipes import tiny  # here, as it imports all that training needs

    tokenizer = train_tokenizer(["a dog barks", "rain falls on a roof"], 300)
    config = tiny().model
    torch.manual_seed(0)
    captioner = Captioner(replace(config, decoder=replace(config.decoder, vocab_size=tokenizer.get_vocab_size())))
    return CaptioningModel("tiny", (captioner.eval(),), (1.0,), tokenizer, torch.device("cpu"), None)


def write_clips(folder: Path, n_clips: int) -> Iterator[Path]:
    """Bursts of tones in noise, 5-10 s, 44.1 kHz mono wav."""
    rng = np.random.default_rng(0)
    for i in range(n_clips):
        time = np.arange(int(44100 * rng.uniform(5, 10))) / 44100
        tone = np.sin(2 * np.pi * rng.uniform(100, 4000) * time) * (np.sin(2 * np.pi * rng.uniform(0.5, 3) * time) > 0)
        path = folder / f"{i:03}.wav"
        audio.write(path, (0.3 * tone + 0.02 * rng.standard_normal(len(time))).astype(np.float32), 44100)
        yield path


# ------------------------------------------------------------------------------------------------------------- command


def main() -> None:
    """Run the parts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices="abcd", action="append", help="may be given several times; default: all")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, in seconds")
    parser.add_argument("--repeats", type=int, help="timings of each thing (the pipeline as released: always 1)")
    parser.add_argument("--threads", type=int, help="default: 2, with --tiny 1")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = options.threads or (1 if options.tiny else 2)
    torch.set_num_threads(threads)
    sizes = tiny_sizes() if options.tiny else Sizes(paper())
    if options.repeats:
        sizes = replace(sizes, repeats=options.repeats)
    if options.worker:
        work_alone(options.worker, sizes)
        return

    flops_per_second, bytes_per_second = peak_flops(sizes.sgemm), read_bandwidth(sizes.read_megabytes)
    print(f"{machine()}; {flops_per_second / 1e9:.0f} GFLOP/s sgemm, {bytes_per_second / 1e9:.1f} GB/s read\n")
    parts = options.part or list("abcd")
    timed: dict[str, Callable[[], Iterator[Row]]] = {
        "a": lambda: part_a(sizes),
        "b": lambda: part_b(sizes),
        "c": lambda: part_c(sizes, packaged=not options.tiny),
    }
    rows: list[Row] = []

    def lines() -> Iterator[list[str]]:
        for part in parts:
            for row in timed[part]() if part in timed else ():
                rows.append(row)
                yield row.cells(flops_per_second, bytes_per_second)

    if parts != ["d"]:
        print_table(HEADER, lines())
    memory: list[list[str]] = []
    if "d" in parts:
        memory += part_d([*(["--tiny"] if options.tiny else []), "--threads", str(threads)], sizes)
        print()
        print_table(["work", "who", "peak MB", "of which before the run", "the run added MB"], memory)
    if options.json:
        figures = {
            "machine": machine(),
            "flops_per_second": flops_per_second,
            "bytes_per_second": bytes_per_second,
            "rows": [asdict(row) for row in rows],
            "memory": memory,
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
