"""Painting against the plain pipeline of diffusers, with the same weights in the same run.

    python bench/imagine.py                  everything at the published size (so far part by part, a at --batches 1)
    python bench/imagine.py --part b         one part: a Stable Diffusion 1.x, b our default
    python bench/imagine.py --tiny           everything at toy sizes, in seconds: only shows that it works
    python bench/imagine.py --json OUT       the figures to a file as well

The weights are random, as speed does not depend on them. Prompts are given as states of the text encoder, so that it is
left out on all sides: it runs once for a picture or a step. Before anything is timed, the pictures of both sides are
compared.

a   Pictures of 512 by 512 pixels with the sizes of Stable Diffusion 1.x, guided, from noise to pixels, the decoder of
    the autoencoder included: against ``StableDiffusionPipeline`` as it comes, fed the same noise and states. Ours has
    the U-Net's weights laid out channels last. Needs 10 GB of memory.
b   Our default: one picture by its own number of steps, guided. It has no peer.
c   Peak memory of one training step of an audio token through the U-Net of a, in float32, latents known: for pictures
    of several sizes, with and without gradient checkpointing, each in a process of its own. It has no peer either.

"foreign cores" is how many of them other processes kept busy meanwhile: trust a time where it is below 0.1. On a busy
machine only ``--threads 1`` and the ratio in CPU seconds mean something.
"""

import argparse
import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
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
from torch import Tensor

from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.audio_to_image.losses import LossConfig
from aural.audio_to_image.painter import LatentCanvas, Painter, PixelCanvas, paint, painting
from aural.audio_to_image.picture_model import PictureModelConfig, build_scheduler, build_unet
from aural.audio_to_image.train import TokenTraining

PIPELINE = "StableDiffusionPipeline"
GUIDANCE = 7.5
SLOT = 4
"""Place of the audio token in a prompt."""
TOLERANCE = 1e-3
"""Of what ours and a peer paint, relative to the largest value."""


@dataclass(frozen=True)
class Sizes:
    """How much work."""

    side: int = 512
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    width: int = 768
    groups: int = 32
    steps: int = 5
    batches: tuple[int, ...] = (1, 2)
    default: PictureModelConfig = PictureModelConfig()  # noqa: RUF009, it is frozen
    trained: tuple[tuple[int, int], ...] = ((256, 256), (320, 512), (512, 512))  # height and width in part c
    repeats: int = 3
    sgemm: int = 2048
    read_megabytes: int = 1024


def tiny_sizes() -> Sizes:
    """The same parts in seconds."""
    default = PictureModelConfig(side=16, channels=(16, 32), head_width=16, groups=8, steps=2)
    return Sizes(32, (8, 16), (8, 16), 16, 4, 2, (1, 2), default, ((32, 32),), 1, 64, 8)


class Given:
    """A reader of prompts that has one answer: random states."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.blank = torch.randn(1, 77, width, generator=torch.Generator().manual_seed(1))

    def states(self, prompts: Sequence[str], embedding: Tensor | None = None) -> tuple[Tensor, None]:
        """See :meth:`aural.audio_to_image.words.Words.states`."""
        states = self.blank.expand(len(prompts), -1, -1)
        if embedding is not None:
            states = torch.cat((states[:, :SLOT], embedding[:, None], states[:, SLOT + 1 :]), dim=1)
        return states, None

    def embeddings(self, names: Sequence[str]) -> Tensor:
        """Not asked for."""
        raise NotImplementedError

    def to(self, device: torch.device) -> "Given":
        """It stays on the CPU."""
        return self


def published_unet(sizes: Sizes) -> UNet2DConditionModel:
    """That of a Stable Diffusion 1.x."""
    n = len(sizes.channels) - 1
    return UNet2DConditionModel(
        sample_size=sizes.side // 2 ** (len(sizes.vae_channels) - 1),
        block_out_channels=sizes.channels,
        down_block_types=(*["CrossAttnDownBlock2D"] * n, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * n),
        cross_attention_dim=sizes.width,
        attention_head_dim=8,
        norm_num_groups=sizes.groups,
    ).eval()


def part_a(sizes: Sizes) -> Iterator[Row]:
    """A Stable Diffusion."""
    torch.manual_seed(0)
    unet = published_unet(sizes)
    n_vae = len(sizes.vae_channels)
    vae = AutoencoderKL(
        block_out_channels=sizes.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * n_vae,
        up_block_types=("UpDecoderBlock2D",) * n_vae,
        layers_per_block=2,
        norm_num_groups=sizes.groups,
        sample_size=sizes.side,
    ).eval()
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=None, tokenizer=None, unet=copy.deepcopy(unet), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    words = Given(sizes.width)
    unet = unet.to(memory_format=torch.channels_last)
    painter = Painter("ours", words, unet, scheduler, LatentCanvas(vae), sizes.side, 8, sizes.steps, GUIDANCE)
    how = painting(painter)
    for batch in sizes.batches:
        states = torch.randn(batch, 77, sizes.width, generator=torch.Generator().manual_seed(2))
        seeds = list(range(batch))
        shape = painter.canvas.shape(sizes.side, sizes.side)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

        def ours(states: Tensor = states, seeds: list[int] = seeds) -> Tensor:
            return paint(painter, states, None, seeds, how)

        def theirs(states: Tensor = states, noise: Tensor = noise) -> Tensor:
            pictures: Tensor = pipeline(
                prompt_embeds=states,
                negative_prompt_embeds=words.blank.expand_as(states),
                latents=noise,
                num_inference_steps=sizes.steps,
                guidance_scale=GUIDANCE,
                output_type="pt",
            ).images
            return 2 * pictures - 1

        expect_close("pictures", ours(), theirs(), TOLERANCE)
        flops = count_flops(ours)
        timed = in_turns({"ours": ours, "peer": theirs}, sizes.repeats, warm_up=False)
        what = f"Stable Diffusion 1.x, {sizes.side} pixels, {sizes.steps} steps, batch {batch}"
        read = _weights(unet) * sizes.steps + _weights(vae.decoder)
        yield Row(what, timed["ours"], PIPELINE, timed["peer"], flops, read)


def part_b(sizes: Sizes) -> Iterator[Row]:
    """Our default."""
    torch.manual_seed(0)
    config = sizes.default
    unet, canvas = build_unet(config).eval(), PixelCanvas(config.patch)
    words = Given(config.words_width)
    painter = Painter("ours", words, unet, build_scheduler(), canvas, config.side, 1, config.steps, config.guidance)
    how = painting(painter)

    def ours() -> Tensor:
        return paint(painter, words.blank[:, :8], None, [0], how)

    flops = count_flops(ours)
    timed = in_turns({"ours": ours}, sizes.repeats)
    what = f"default, {config.side} pixels, {config.steps} steps"
    yield Row(what, timed["ours"], flops=flops, bytes_read=_weights(unet) * config.steps)


def part_c(arguments: list[str], sizes: Sizes) -> Iterator[list[str]]:
    """Memory of a training step: a process for each."""
    for height, width in sizes.trained:
        for checkpointing in (False, True):
            work = f"{height}:{width}:{int(checkpointing)}"
            command = [sys.executable, __file__, "--worker", work, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, peak = json.loads(done.stdout.splitlines()[-1])
            name = "yes" if checkpointing else "no"
            yield [f"{height} x {width}", name, f"{peak:.0f}", f"{before:.0f}", f"{peak - before:.0f}"]


def train_alone(work: str, sizes: Sizes) -> None:
    """Take one training step of one clip and print its memory in MB: with the weights loaded, and at its peak."""
    height, width, checkpointing = map(int, work.split(":"))
    torch.manual_seed(0)
    unet = published_unet(sizes).requires_grad_(False)
    scheduler, words, factor = DDPMScheduler(), Given(sizes.width), 2 ** (len(sizes.vae_channels) - 1)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)  # latents are known: it only says what they are
    painter = Painter("ours", words, unet, scheduler, LatentCanvas(vae), sizes.side, factor, 1, GUIDANCE)
    token = AudioToken(AudioTokenConfig(token_width=sizes.width))
    module = TokenTraining(token, painter, LossConfig(), checkpointing=bool(checkpointing)).train()
    batch = {
        "heard": torch.randn(1, 248, token.config.feature_width),  # five seconds through BEATs
        "mask": torch.ones(1, 248, dtype=torch.bool),
        "moments": torch.randn(1, 8, height // factor, width // factor),
    }
    before = peak_memory()
    weights = module.loss_weights(labels=False)
    torch.stack([weights[name] * loss for name, loss in module(batch).items()]).sum().backward()
    if not all(parameter.grad is not None for parameter in token.parameters()):
        raise SystemExit("the gradient does not reach the audio token")
    print(json.dumps([before, peak_memory()]))


def _weights(module: Any) -> int:
    return n_bytes(*module.parameters())


# ------------------------------------------------------------------------------------------------------------- command


def main() -> None:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices="abc", action="append", help="may be given several times; default: all")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, in seconds")
    parser.add_argument("--repeats", type=int, help="timings of each thing")
    parser.add_argument("--batches", type=int, nargs="+", metavar="N", help="of part a: so many pictures at a time")
    parser.add_argument("--threads", type=int, help="default: 2, with --tiny 1")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = options.threads or (1 if options.tiny else 2)
    torch.set_num_threads(threads)
    sizes = tiny_sizes() if options.tiny else Sizes()
    if options.worker:
        train_alone(options.worker, sizes)
        return
    if options.repeats:
        sizes = replace(sizes, repeats=options.repeats)
    if options.batches:
        sizes = replace(sizes, batches=tuple(options.batches))
    flops_per_second, bytes_per_second = peak_flops(sizes.sgemm), read_bandwidth(sizes.read_megabytes)
    print(f"{machine()}; {flops_per_second / 1e9:.0f} GFLOP/s sgemm, {bytes_per_second / 1e9:.1f} GB/s read\n")
    timed: dict[str, Callable[[Sizes], Iterator[Row]]] = {"a": part_a, "b": part_b}
    rows: list[Row] = []

    def cells() -> Iterator[list[str]]:
        for part in sorted(timed.keys() & parts):
            for row in timed[part](sizes):
                rows.append(row)
                yield row.cells(flops_per_second, bytes_per_second)

    parts = options.part or ["a", "b", "c"]
    memory: list[list[str]] = []
    if timed.keys() & parts:
        print_table(HEADER, cells())
        print()
    if "c" in parts:
        memory += part_c([*(["--tiny"] if options.tiny else []), "--threads", str(threads)], sizes)
        print_table(["pictures", "checkpointing", "peak MB", "of which before the step", "the step added MB"], memory)
    if options.json:
        figures = {"machine": machine(), "rows": [asdict(row) for row in rows], "memory": memory}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
