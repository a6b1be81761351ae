"""Painting against the plain pipeline of diffusers, with the same weights in the same run.

    python bench/imagine.py                  everything at the published size (not yet run whole)
    python bench/imagine.py --part b         one part: a Stable Diffusion 1.x, b our default
    python bench/imagine.py --tiny           everything at toy sizes, in seconds: only shows that it works
    python bench/imagine.py --json OUT       the figures to a file as well

The weights are random, as speed does not depend on them. Prompts are given as states of the text encoder, so that it is
left out on all sides: it runs once for a picture. Before anything is timed, the pictures of both sides are compared.

a   Pictures of 512 by 512 pixels with the sizes of Stable Diffusion 1.x, guided, from noise to pixels, the decoder of
    the autoencoder included: against ``StableDiffusionPipeline`` as it comes, fed the same noise and states. Ours has
    the U-Net's weights laid out channels last. Needs 10 GB of memory.
b   Our default: one picture by its own number of steps, guided. It has no peer.

"foreign cores" is how many of them other processes kept busy meanwhile: trust a time where it is below 0.1. On a busy
machine only ``--threads 1`` and the ratio in CPU seconds mean something.
"""

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
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
from torch import Tensor

from aural.audio_to_image.painter import LatentCanvas, Painter, PixelCanvas, paint, painting
from aural.audio_to_image.picture_model import PictureModelConfig, build_scheduler, build_unet

PIPELINE = "StableDiffusionPipeline"
GUIDANCE = 7.5
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
    repeats: int = 3
    sgemm: int = 2048
    read_megabytes: int = 1024


def tiny_sizes() -> Sizes:
    """The same parts in seconds."""
    default = PictureModelConfig(side=16, channels=(16, 32), head_width=16, groups=8, steps=2)
    return Sizes(32, (8, 16), (8, 16), 16, 4, 2, (1, 2), default, 1, 64, 8)


class Given:
    """A reader of prompts that has one answer: random states."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.blank = torch.randn(1, 77, width, generator=torch.Generator().manual_seed(1))

    def states(self, prompts: Sequence[str], embedding: Tensor | None = None) -> tuple[Tensor, None]:
        """See :meth:`aural.audio_to_image.words.Words.states`."""
        return self.blank.expand(len(prompts), -1, -1), None

    def embeddings(self, names: Sequence[str]) -> Tensor:
        """Not asked for."""
        raise NotImplementedError

    def to(self, device: torch.device) -> "Given":
        """It stays on the CPU."""
        return self


def part_a(sizes: Sizes) -> Iterator[Row]:
    """A Stable Diffusion."""
    torch.manual_seed(0)
    n = len(sizes.channels) - 1
    unet = UNet2DConditionModel(
        sample_size=sizes.side // 2 ** (len(sizes.vae_channels) - 1),
        block_out_channels=sizes.channels,
        down_block_types=(*["CrossAttnDownBlock2D"] * n, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * n),
        cross_attention_dim=sizes.width,
        attention_head_dim=8,
        norm_num_groups=sizes.groups,
    ).eval()
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


def _weights(module: Any) -> int:
    return n_bytes(*module.parameters())


# ------------------------------------------------------------------------------------------------------------- command


def main() -> None:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices="ab", action="append", help="may be given several times; default: both")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, in seconds")
    parser.add_argument("--repeats", type=int, help="timings of each thing")
    parser.add_argument("--threads", type=int, help="default: 2, with --tiny 1")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or (1 if options.tiny else 2))
    sizes = tiny_sizes() if options.tiny else Sizes()
    if options.repeats:
        sizes = replace(sizes, repeats=options.repeats)
    flops_per_second, bytes_per_second = peak_flops(sizes.sgemm), read_bandwidth(sizes.read_megabytes)
    print(f"{machine()}; {flops_per_second / 1e9:.0f} GFLOP/s sgemm, {bytes_per_second / 1e9:.1f} GB/s read\n")
    timed: dict[str, Callable[[Sizes], Iterator[Row]]] = {"a": part_a, "b": part_b}
    rows: list[Row] = []

    def cells() -> Iterator[list[str]]:
        for part in options.part or timed:
            for row in timed[part](sizes):
                rows.append(row)
                yield row.cells(flops_per_second, bytes_per_second)

    print_table(HEADER, cells())
    if options.json:
        figures = {"machine": machine(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
