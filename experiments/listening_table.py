"""The listener's table: three encoders of about equal cost, and what each part of the recipe brings, on held-out folds.

    python experiments/listening_table.py --manifest sounds.jsonl -o runs/listening

Leaves one fold out in turn, trains each variant on the others and judges it on the fold: by its label head, by the
words for the labels, and by words that no caption of the training holds. Finished runs are kept and not repeated; the
table is printed from all that are there. It is an ablation with an eighth of the default's examples, so its figures lie
below those of the shipped weights; what counts are the differences. They start from the recipe before this table was
made (:func:`earlier`); what it found has changed the default since.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from aural.checkpoint import write_whole
from aural.embedding import load
from aural.listening.evaluate import WAYS, judge
from aural.listening.recipes import RECIPES, Recipe
from aural.listening.train import train
from aural.manifest import read_manifest
from aural.metrics.bootstrap import interval
from aural.networks.listener import Listener
from aural.soundscapes.compose import SoundscapeSettings
from aural.spec_augment import SpecAugmentConfig

STEPS, BATCH_SIZE = 600, 16


SPEC_AUGMENT = SpecAugmentConfig(
    time_warp_window=0, n_freq_masks=2, max_freq_width=24, n_time_masks=2, max_time_width_ratio=0.08
)


def soundscapes(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with other settings of its soundscapes."""
    changed: SoundscapeSettings = replace(recipe.data.soundscapes, **changes)  # type: ignore[arg-type]
    return replace(recipe, data=replace(recipe.data, soundscapes=changed))


def earlier(recipe: Recipe) -> Recipe:
    """The recipe as it was: fewer recordings, longer clips, SpecAugment, always the same microphone."""
    recipe = replace(recipe, data=replace(recipe.data, recordings=0.35), spec_augment=SPEC_AUGMENT, response_db=0.0)
    return soundscapes(recipe, seconds=(4.0, 8.0))


def today(recipe: Recipe) -> Recipe:
    """What the default has instead."""
    now = RECIPES["default"]()
    recipe = replace(recipe, data=replace(recipe.data, recordings=now.data.recordings), spec_augment=now.spec_augment)
    return soundscapes(replace(recipe, response_db=now.response_db), seconds=now.data.soundscapes.seconds)


def without_overlaps(recipe: Recipe) -> Recipe:
    """No two sounds at once: what mixing brings."""
    kinds = tuple(kind for kind in recipe.data.soundscapes.kinds if kind[0] not in ("overlap", "background"))
    return soundscapes(recipe, kinds=kinds)


def without_speed(recipe: Recipe) -> Recipe:
    """No recording faster or slower than it is."""
    recipe = soundscapes(recipe, speed_octaves=0.0)
    return replace(recipe, data=replace(recipe.data, speed_octaves=0.0))


def with_masked_prediction(recipe: Recipe) -> Recipe:
    """More of the clip blanked, and guessed."""
    blanked = replace(SPEC_AUGMENT, n_time_masks=4, max_time_width_ratio=0.12)
    return replace(recipe, spec_augment=blanked, masked_weight=0.3)


VARIANTS: dict[str, tuple[str, Callable[[Recipe], Recipe]]] = {
    "convolutions": ("default", lambda recipe: recipe),
    "BEATs, small": ("beats", lambda recipe: recipe),
    "HTS-AT, small": ("htsat", lambda recipe: recipe),
    "recordings only, no soundscapes": ("default", lambda r: replace(r, data=replace(r.data, recordings=1.0))),
    "no two sounds at once": ("default", without_overlaps),
    "no speed changes (shifts)": ("default", without_speed),
    "no bandwidth changes": ("default", lambda r: replace(r, data=replace(r.data, bandwidth=0.0))),
    "no changes of level, distance, noise": (
        "default",
        lambda r: soundscapes(r, gain_db=0.0, contrast=0.0, distant=0.0, noise_floor=0.0),
    ),
    "no SpecAugment": ("default", lambda r: replace(r, spec_augment=None)),
    "no labels of steps": ("default", lambda r: replace(r, step_weight=0.0)),
    "no contrast with sentences": ("default", lambda r: replace(r, contrastive_weight=0.0)),
    "masked prediction besides": ("default", with_masked_prediction),
    "another microphone every time": ("default", lambda r: replace(r, response_db=4.0)),
    "the recipe as it is now": ("default", today),
}


def shortened(recipe: Recipe) -> Recipe:
    """The earlier recipe in fewer and smaller steps."""
    recipe = earlier(recipe)
    run = replace(recipe.train, batch_size=BATCH_SIZE, steps=STEPS, warmup_steps=100, ema_decay=0.99, save_every=300)
    return replace(soundscapes(recipe, group=BATCH_SIZE), train=run)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--folds", nargs="+", default=["fold1", "fold2", "fold3", "fold4"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # two of these side by side use two cores better than one with two threads
    for variant in options.variants:
        for fold in options.folds:
            run = options.out / variant.replace(" ", "_").replace(",", "") / fold
            if not (run / "rows.json").exists():
                _run(run, options, variant, fold)
    print(table(options.out))


def _run(run: Path, options: argparse.Namespace, variant: str, fold: str) -> None:
    name, change = VARIANTS[variant]
    train(
        name,
        manifest=options.manifest,
        out=run,
        hold_out=fold,
        seed=options.seed,
        precision=options.precision,
        resume=True,
        change=lambda recipe: change(shortened(recipe)),
    )
    clips = [clip for clip in read_manifest(options.manifest) if clip.split == fold and len(clip.labels) == 1]
    rows = [row | {"recording": str(row["recording"])} for row in judge(load(run), clips)]
    write_whole(run / "rows.json", json.dumps(rows))


def cost(listener: Listener) -> tuple[float, float]:
    """Million parameters of the encoder, and GFLOP for five seconds."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        listener.eval()(torch.zeros(1, 5 * 16_000))
    return sum(p.numel() for p in listener.encoder.parameters()) / 1e6, counter.get_total_flops() / 1e9


def table(out: Path) -> str:
    """Markdown: a row for each variant, pooled over the folds that are there, with intervals over recordings."""
    lines = [
        "| variant | encoder M | GFLOP / 5 s | folds | labels | 95 % | words | unseen words | 95 % |",
        "| --- " * 9 + "|",
    ]
    for variant, (name, change) in VARIANTS.items():
        folders = sorted((out / variant.replace(" ", "_").replace(",", "")).glob("*/rows.json"))
        if not folders:
            continue
        rows = [row for path in folders for row in json.loads(path.read_text())]
        cells = {}
        for way in WAYS:
            right = [float(row[way]) for row in rows]
            low, high = interval(right, [row["recording"] for row in rows])
            cells[way] = f"{sum(right) / len(right):.3f}", f"{low:.3f} to {high:.3f}"
        model = change(RECIPES[name]()).model
        millions, gflop = cost(Listener(replace(model, labels=("one",))))
        lines.append(
            f"| {variant} | {millions:.2f} | {gflop:.2f} | {len(folders)} | {' | '.join(cells['labels'])} "
            f"| {cells['words'][0]} | {' | '.join(cells['unseen_words'])} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
