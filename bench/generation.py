"""Writing codes of sound: ours in 32, 8 and 4 bits against transformers' MusicGen, in the same run.

    python bench/generation.py                     times and memory at the published size: about 6 minutes on two cores
    python bench/generation.py --part a            one part: a times, b peak memory
    python bench/generation.py --fidelity          what rounding does to the distributions, instead; random weights
    python bench/generation.py --fidelity MODEL    the same of a model folder
    python bench/generation.py --tiny              toy sizes, in seconds: only shows that it works
    python bench/generation.py --json OUT          the figures to a file as well

a   One sound, guidance 3, top-k 250: 24 layers of width 1024, 420 M parameters, 4 codebooks of 2048, a text of 16
    tokens. Both sides have the same random weights, and leave text encoder and codec out. The peers are transformers'
    ``MusicgenForConditionalGeneration.generate`` in float32, and with PyTorch's dynamic int8 of its linear layers.
    Before anything is timed, the logits of a few steps are compared; in 8 and 4 bits with what rounding may do.
b   Peak memory of one such sound, each side in a process of its own.

A step is one token of each codebook, in two rows because of guidance; a frame of sound takes one, and there are three
more for the delays. The floor is the bytes of weights that a step reads / best memory read, measured in the same run.
"foreign cores" is how many of them other processes kept busy meanwhile: trust a time where it is below 0.1. On a busy
machine only ``--threads 1`` and the ratio in CPU seconds mean something.

Fidelity: codes are drawn by float32, and at each step the distributions that rounded weights predict are compared with
float32's, guidance included: Kullback-Leibler divergence, how often the most probable code is the same, and how often
the same random number draws the same code.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from measure import (
    HEADER,
    Row,
    Samples,
    expect_close,
    in_turns,
    machine,
    peak_flops,
    peak_memory,
    print_table,
    read_bandwidth,
)
from torch import Tensor

from aural.sampling import uniforms
from aural.text_to_audio.decoding import DecodingConfig, Text, Writer, choose, generate
from aural.text_to_audio.delay_pattern import delay
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel
from aural.text_to_audio.published_names import from_transformers
from aural.text_to_audio.quantized import PackedModel, Weights, pack

if TYPE_CHECKING:
    from transformers import MusicgenForConditionalGeneration  # it must not count in our peak memory

ALL: tuple[Weights, ...] = ("float32", "int8", "int4")
PEERS = ("transformers", "transformers, dynamic int8")
COMPARED = (("float32", PEERS[0]), ("int8", PEERS[0]), ("int8", PEERS[1]), ("int4", PEERS[0]))
PROMPTS = ["a dog barks while rain falls", "a rooster crows", "sea waves", "a clock ticks"]


@dataclass(frozen=True)
class Sizes:
    """How much work."""

    model: GenerationConfig
    frames: int = 50
    tokens: int = 16  # of the text
    repeats: int = 3
    items: int = 4  # of fidelity
    sgemm: int = 2048
    read_megabytes: int = 1024

    @property
    def steps(self) -> int:
        """Steps of a sound."""
        return self.frames + max(self.model.delays)


def published_sizes() -> Sizes:
    """Those of the "300 M" models."""
    return Sizes(GenerationConfig(t5=None))


def tiny_sizes() -> Sizes:
    """Toys."""
    model = GenerationConfig(
        width=32, layers=2, heads=2, ffn_dim=64, codebook_size=300, text_width=16, t5=None, seconds=1.0
    )
    return Sizes(model, frames=8, tokens=3, repeats=2, items=2, sgemm=128, read_megabytes=1)


# ---------------------------------------------------------------------------------------------------------- both models


def new_peer(sizes: Sizes) -> "MusicgenForConditionalGeneration":
    """Random weights, over a text encoder of next to no size; it gives away the codes instead of their sound."""
    from transformers import EncodecConfig, MusicgenConfig, MusicgenForConditionalGeneration, T5Config, logging
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    logging.set_verbosity_error()  # it would warn of the special token, which is the published one
    config, special = sizes.model, sizes.model.special
    torch.manual_seed(0)
    decoder = MusicgenDecoderConfig(
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        ffn_dim=config.ffn_dim,
        vocab_size=config.codebook_size,
        num_codebooks=config.codebooks,
        audio_channels=1,
        pad_token_id=special,
        bos_token_id=special,
    )
    text = T5Config(vocab_size=sizes.tokens, d_model=config.text_width, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    codec = EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=8)
    peer = MusicgenForConditionalGeneration(MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder))
    settings = peer.generation_config
    settings.eos_token_id = None
    settings.pad_token_id = settings.bos_token_id = settings.decoder_start_token_id = special
    peer.audio_encoder.decode = lambda codes, **_: SimpleNamespace(audio_values=codes[0])
    return peer.eval().requires_grad_(False)


def ours_of(peer: "MusicgenForConditionalGeneration", config: GenerationConfig) -> TokenLanguageModel:
    """Our model over the peer's memory, but for what is packed in ours."""
    return shell(config, from_transformers(peer.state_dict()))


def shell(config: GenerationConfig, weights: dict[str, Tensor] | None = None) -> TokenLanguageModel:
    """A model of these weights; None = small random ones, which take less time than those of training."""
    with torch.device("meta"):
        model = TokenLanguageModel(config)
    if weights is None:
        model = model.to_empty(device="cpu")
        for parameter in model.parameters():
            parameter.data.uniform_(-0.03, 0.03, generator=torch.Generator().manual_seed(0))
    else:
        model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def states_of(sizes: Sizes, items: int = 1) -> tuple[Tensor, Tensor]:
    """Stand-in for the states (B, L, C) of texts, and their mask."""
    shape = items, sizes.tokens, sizes.model.text_width
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)), torch.ones(shape[:2], dtype=torch.bool)


def text_of(model: TokenLanguageModel, sizes: Sizes, items: int = 1) -> Text:
    """The same as our model reads it."""
    states, mask = states_of(sizes, items)
    return Text(model.condition(states, mask), mask)


def our_codes(model: TokenLanguageModel, sizes: Sizes, weights: Weights | PackedModel) -> Callable[[], Tensor]:
    """One sound."""
    text, config = text_of(model, sizes), DecodingConfig(window=sizes.frames)
    return lambda: generate(model, text, sizes.frames, config, weights=weights)


def peer_codes(peer: Any, sizes: Sizes) -> Callable[[], Tensor]:
    """One sound."""
    tokens = torch.arange(sizes.tokens)[None]

    @torch.inference_mode()
    def run() -> Tensor:
        torch.manual_seed(0)
        codes = peer.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=sizes.steps,
            do_sample=True,
            top_k=250,
            temperature=1.0,
            guidance_scale=3.0,
        )
        assert codes.shape == (1, sizes.model.codebooks, sizes.frames), codes.shape
        return codes

    return run


def dynamic_int8(peer: Any, *, inplace: bool = False) -> Any:
    """PyTorch's own rounding of all linear layers; it warns of its end, release after release."""
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(peer, {torch.nn.Linear}, dtype=torch.qint8, inplace=inplace)


def step_logits(
    model: TokenLanguageModel, text: Text, sequence: Tensor, weights: Weights | PackedModel, config: DecodingConfig
) -> Tensor:
    """Logits (B, S, K, V) of given steps (B, K, S), one by one."""
    items, _, steps = sequence.shape
    with torch.inference_mode():
        writer = Writer(model, text, None, items=items, steps=steps, config=config, weights=weights)
        return torch.stack([writer.step(step) for step in sequence.split(1, dim=2)], dim=1)


@torch.inference_mode()
def expect_agreement(model: TokenLanguageModel, peer: Any, packed: dict[Weights, PackedModel], sizes: Sizes) -> None:
    """Logits of six steps, without guidance."""
    config = sizes.model
    sequence = torch.randint(0, config.codebook_size, (1, config.codebooks, 6), generator=torch.Generator())
    states, mask = states_of(sizes)
    text = text_of(model, sizes)
    theirs = peer(attention_mask=mask.long(), encoder_outputs=(states,), decoder_input_ids=sequence[0]).logits
    theirs = theirs.unflatten(0, (1, config.codebooks)).transpose(1, 2)
    for weights, tolerance in (("float32", 1e-3), ("int8", 0.1), ("int4", 0.5)):
        alone = DecodingConfig(guidance=1.0)
        expect_close(weights, step_logits(model, text, sequence, packed[weights], alone), theirs, tolerance)


# ---------------------------------------------------------------------------------------------------------------- parts


def part_a(sizes: Sizes) -> tuple[dict[str, Samples], dict[Weights, int]]:
    """Times of all sides, and the bytes that a step of ours reads."""
    peer = new_peer(sizes)
    model = ours_of(peer, sizes.model)
    packed = {weights: pack(model, weights) for weights in ALL}
    expect_agreement(model, peer, packed, sizes)
    runs = {weights: our_codes(model, sizes, packed[weights]) for weights in ALL}
    rounded = dynamic_int8(peer)
    peers = {name: peer_codes(each, sizes) for name, each in zip(PEERS, (peer, rounded), strict=True)}
    return in_turns(runs | peers, sizes.repeats), {weights: packed[weights].step_bytes for weights in ALL}


def rows_of(samples: dict[str, Samples], step_bytes: dict[Weights, int], sizes: Sizes) -> Iterator[Row]:
    """Ours against each peer that it is compared with."""
    flops = 4 * sizes.steps * step_bytes["float32"] // 4  # two rows
    for weights, peer in COMPARED:
        name = f"{sizes.frames} frames, {weights}"
        yield Row(name, samples[weights], peer, samples[peer], flops, sizes.steps * step_bytes[weights])


def speeds(samples: dict[str, Samples], sizes: Sizes) -> Iterator[list[str]]:
    """Each side by itself, at its best."""
    for name, each in samples.items():
        rate = sizes.frames / each.minimum
        step = [f"{1e3 * seconds / sizes.steps:.3g}" for seconds in (each.minimum, each.median, min(each.cpu_seconds))]
        busy = max(each.foreign)
        marks = "" if busy < 0.1 else f"busy machine ({busy:.1f} cores): not to be quoted"
        yield [name, *step, f"{rate:.3g}", f"{rate / sizes.model.frame_rate:.2f}", marks]


def part_b(arguments: list[str]) -> Iterator[list[str]]:
    """Peak memory: a process for each side."""
    for name in (*ALL, *PEERS):
        command = [sys.executable, __file__, "--worker", name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        before, peak = json.loads(done.stdout.splitlines()[-1])
        yield [name, f"{peak:.0f}", f"{before:.0f}", f"{peak - before:.0f}"]


def work_alone(name: str, sizes: Sizes) -> None:
    """Run one side and print its memory in MB: with the float32 weights loaded, and at its peak."""
    sizes = replace(sizes, frames=min(sizes.frames, 10))
    run: Callable[[], Tensor]
    if name in PEERS:
        peer: Any = new_peer(sizes)
        before = peak_memory()
        if name == PEERS[1]:
            peer = dynamic_int8(peer, inplace=True)
        run = peer_codes(peer, sizes)
    else:
        model = shell(sizes.model)
        before = peak_memory()
        run = our_codes(model, sizes, pack(model, name))  # type: ignore[arg-type]
    run()
    print(json.dumps([before, peak_memory()]))


# ------------------------------------------------------------------------------------------------------------- fidelity


def fidelity(model: TokenLanguageModel, text: Text, frames: int) -> Iterator[list[str]]:
    """A line for each kind of rounded weights."""
    items, config, sizes = len(text.memory), DecodingConfig(window=frames), model.config
    codes = generate(model, text, frames, config, seeds=range(items))
    sequence, mask = delay(codes, sizes.delays, sizes.special, full=True)
    counted = mask[:, 1:].T.expand(items, -1, -1)  # (B, S - 1, K): the codes that the steps are to predict
    uniform = torch.stack([uniforms(1000 + item, (counted.shape[1], sizes.codebooks)) for item in range(items)])

    def judged(weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of probabilities, most probable codes, and codes drawn, of the places that count."""
        logits = step_logits(model, text, sequence[:, :, :-1], weights, config)
        drawn = choose(logits.flatten(0, 1), uniform.flatten(0, 1), config).view(counted.shape)
        return logits.log_softmax(dim=3)[counted], logits.argmax(dim=3)[counted], drawn[counted]

    exact, best, drawn = judged("float32")
    for weights in ALL[1:]:
        other, other_best, other_drawn = judged(weights)
        divergence = (exact.exp() * (exact - other)).sum(dim=1)
        yield [
            weights,
            str(len(best)),
            f"{divergence.mean():.4f}",
            f"{divergence.quantile(0.95):.4f}",
            f"{(best == other_best).double().mean():.1%}",
            f"{(drawn == other_drawn).double().mean():.1%}",
        ]


def model_and_text(name: str, sizes: Sizes) -> tuple[TokenLanguageModel, Text]:
    """A model folder's, or random ones where there is no name."""
    if name:
        from aural.text_to_audio.generate import load

        loaded = load(name, device="cpu")
        return loaded.model, loaded.texts(PROMPTS)
    torch.manual_seed(0)
    model = TokenLanguageModel(sizes.model).eval().requires_grad_(False)
    return model, text_of(model, sizes, sizes.items)


# ------------------------------------------------------------------------------------------------------------- command


def main() -> None:
    """Run the parts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices="ab", action="append", help="may be given several times; default: all")
    parser.add_argument("--fidelity", nargs="?", const="", metavar="MODEL", help="instead of the parts")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, in seconds")
    parser.add_argument("--frames", type=int, help="50 are a second of sound")
    parser.add_argument("--repeats", type=int, help="timings of each thing")
    parser.add_argument("--threads", type=int, help="default: 2, with --tiny 1")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = options.threads or (1 if options.tiny else 2)
    torch.set_num_threads(threads)
    sizes = tiny_sizes() if options.tiny else published_sizes()
    sizes = replace(sizes, frames=options.frames or sizes.frames, repeats=options.repeats or sizes.repeats)
    if options.worker:
        work_alone(options.worker, sizes)
        return

    figures: dict[str, Any] = {"machine": machine()}
    if options.fidelity is not None:
        header = ["weights", "places", "mean KL, nats", "95 %", "same most probable code", "same code drawn"]
        figures["fidelity"] = list(fidelity(*model_and_text(options.fidelity, sizes), sizes.frames))
        print_table(header, figures["fidelity"])
    parts = [] if options.fidelity is not None else options.part or list("ab")
    if "a" in parts:
        flops_per_second, bytes_per_second = peak_flops(sizes.sgemm), read_bandwidth(sizes.read_megabytes)
        print(f"{machine()}; {flops_per_second / 1e9:.0f} GFLOP/s sgemm, {bytes_per_second / 1e9:.1f} GB/s read\n")
        samples, step_bytes = part_a(sizes)
        rows = list(rows_of(samples, step_bytes, sizes))
        print_table(HEADER, (row.cells(flops_per_second, bytes_per_second) for row in rows))
        print()
        who = ["who", "ms a step: best", "median", "best CPU", "frames/s", "real-time factor", "remarks"]
        print_table(who, speeds(samples, sizes))
        print()
        floors = [[name, f"{n / 1e6:.1f}", f"{1e3 * n / bytes_per_second:.3g}"] for name, n in step_bytes.items()]
        print_table(["weights", "MB a step", "floor, ms a step"], floors)
        figures |= {"bytes_per_second": bytes_per_second, "rows": [asdict(row) for row in rows]}
        figures["step_bytes"] = step_bytes
    if "b" in parts:
        arguments = [*(["--tiny"] if options.tiny else []), "--threads", str(threads)]
        figures["memory"] = list(part_b(arguments))
        print()
        print_table(["who", "peak MB", "of which float32 weights and imports", "the run added MB"], figures["memory"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
