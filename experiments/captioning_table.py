"""The captioner's table: ways to search for a caption, contrastive head on and off, several seeds, on held-out folds.

    python experiments/captioning_table.py --manifest sounds.jsonl --listeners held_out/listening -o runs/captioning

For each fold it takes the listener that never heard it (``LISTENERS/FOLD``), trains captioners over that listener, and
judges them on the fold's recordings and on soundscapes made of them. Finished runs are kept and not repeated; the table
is printed from all that are there. It is an ablation with fewer steps than the default's, so its figures lie below
those of the shipped weights; what counts are the differences.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aural.captioning.caption import CaptioningModel, caption_each, load
from aural.captioning.evaluate import Judged, score
from aural.captioning.recipes import Recipe
from aural.captioning.train import Shared, train
from aural.checkpoint import write_whole
from aural.errors import AuralError
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import interval
from aural.soundscapes.compose import SoundscapeSettings
from aural.soundscapes.prepare import prepare

SETS = {
    "two sounds": SoundscapeSettings(seconds=(5.0, 7.0), kinds=(("sequence", 1.0),), synthesised=0.2),
    "counts": SoundscapeSettings(seconds=(5.0, 10.0), kinds=(("counted", 1.0),)),
    "noise, silence": SoundscapeSettings(seconds=(4.0, 8.0), kinds=(("noise", 0.5), ("silence", 0.5))),
}
"""Soundscapes to judge on, made of the held-out fold's recordings and of synthesised sounds."""

SIZES = {"two sounds": 80, "counts": 80, "noise, silence": 24}
METHODS = ("greedy", "beam", "nucleus", "likelihood", "similarity", "hybrid")
STEPS = {"soundscapes": 1000, "recordings": 250}
POOLS = {"soundscapes": 5000, "recordings": 2500}


def shortened(recipe: Recipe, contrastive: bool) -> Recipe:
    """The default recipe with fewer steps, with or without the contrastive loss."""
    stages = []
    for stage in recipe.stages:
        steps = STEPS[stage.name]
        run = replace(stage.train, steps=steps, warmup_steps=min(stage.train.warmup_steps, steps // 4))
        stages.append(replace(stage, train=run, pool=POOLS[stage.name]))
    weight = recipe.model.contrastive_weight if contrastive else 0.0
    return replace(recipe, stages=tuple(stages), model=replace(recipe.model, contrastive_weight=weight))


def judged_on(fold: str, clips: Sequence[Clip], folder: Path) -> dict[str, list[Clip]]:
    """The recordings of a fold, and soundscapes made of them."""
    recordings = [clip for clip in clips if clip.split == fold]
    sets = {"recordings": recordings}
    for name, settings in SETS.items():
        manifest = folder / f"{fold}-{name.replace(', ', '-').replace(' ', '-')}.jsonl"
        sets[name] = prepare(recordings, manifest, n=SIZES[name], seed=1, settings=settings)
    return sets


def captions(model: CaptioningModel, clips: Sequence[Clip], contrastive: bool) -> Iterator[tuple[str, list[str]]]:
    """Every method and the captions it finds; the choices among candidates are made from one set of candidates."""
    sounds = [clip.audio for clip in clips]
    for method in ("greedy", "beam", "nucleus"):
        found = [one for _, one in caption_each(sounds, model, method=method)]  # type: ignore[arg-type]
        yield method, [_first(one).text for one in found]
    candidates = [_first(one).candidates for _, one in caption_each(sounds, model, method="hybrid")]
    yield "likelihood", [max(some, key=lambda one: one.log_likelihood).caption for some in candidates]
    if contrastive:  # an embedding that was never trained ranks by chance
        yield "similarity", [max(some, key=lambda one: one.similarity).caption for some in candidates]
        yield "hybrid", [some[0].caption for some in candidates]


def _first(found: Any) -> Any:
    if isinstance(found, AuralError):
        raise found
    return found[0]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--listeners", type=Path, required=True)
    parser.add_argument("--folds", nargs="+", default=["fold1", "fold2", "fold3", "fold4"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # runs of several folds side by side use the cores better
    options.out.mkdir(parents=True, exist_ok=True)
    clips = read_manifest(options.manifest)
    for fold in options.folds:
        shared = Shared()
        with tempfile.TemporaryDirectory() as folder:
            sets = judged_on(fold, clips, Path(folder))
            for seed in options.seeds:
                for contrastive in (True, False):
                    run = options.out / fold / f"{'on' if contrastive else 'off'}-{seed}"
                    if not (run / "scores.json").exists():
                        _run(run, options, fold, seed, contrastive, shared, sets)
    print(table(options.out))


def _run(
    run: Path,
    options: argparse.Namespace,
    fold: str,
    seed: int,
    contrastive: bool,
    shared: Shared,
    sets: dict[str, list[Clip]],
) -> None:
    earlier = next(iter(sorted(run.parent.glob("*/tokenizer.json"))), None)  # that of a fold is the same for all seeds
    train(
        "default",
        manifest=options.manifest,
        out=run,
        tokenizer=earlier,
        encoder=options.listeners / fold,
        hold_out=fold,
        seed=seed,
        precision=options.precision,
        resume=True,
        shared=shared,
        change=lambda recipe: shortened(recipe, contrastive),
    )
    model = load(run)
    rows: dict[str, Any] = {}
    for name, clips in sets.items():
        for method, said in captions(model, clips, contrastive):
            judged = [Judged(clip, caption) for clip, caption in zip(clips, said, strict=True)]
            rows.setdefault(method, {})[name] = score(judged) | {
                "items": [
                    {"recording": one.recording, "right": one.right, "exact": bool(one.exact), "caption": one.caption}
                    for one in judged
                ]
            }
    write_whole(run / "scores.json", json.dumps(rows, indent=1))


def table(out: Path) -> str:
    """Markdown: a row for each method and head, pooled over folds and seeds, with the interval over recordings."""
    files = sorted(out.glob("*/*/scores.json"))
    runs = [(path.parent.name.split("-")[0], json.loads(path.read_text())) for path in files]
    columns = "head | method | runs | right | 95 % | exact | two sounds: F1 | order | counts | noise, silence | fluent"
    lines = [f"| {columns} |", "| --- " * 11 + "|"]
    for head in ("on", "off"):
        for method in METHODS:
            some = [scores[method] for which, scores in runs if which == head and method in scores]
            if not some:
                continue
            items = [item for scores in some for item in scores["recordings"]["items"]]
            low, high = interval([float(item["right"]) for item in items], [item["recording"] for item in items])
            mean = _mean_of(some)
            lines.append(
                f"| {head} | {method} | {len(some)} | {mean('recordings', 'right')} | {low:.3f} to {high:.3f} "
                f"| {mean('recordings', 'exact')} | {mean('two sounds', 'events', 'f1')} "
                f"| {mean('two sounds', 'order', 'where_named')} | {mean('counts', 'count', 'accuracy')} "
                f"| {mean('noise, silence', 'exact')} | {mean('recordings', 'fluent')} |"
            )
    return "\n".join(lines)


def _mean_of(some: Sequence[dict[str, Any]]) -> Any:
    """A function from the path of a score to its mean and standard deviation over runs."""

    def mean(*path: str) -> str:
        values = []
        for scores in some:
            value: Any = scores
            for key in path:
                value = value.get(key) if value is not None else None
            values += [] if value is None else [float(value)]  # no run that never names both sounds has an order
        if not values:
            return "none"
        tensor = torch.tensor(values)
        return f"{tensor.mean():.3f} ± {tensor.std():.3f}" if len(values) > 1 else f"{values[0]:.3f}"

    return mean


if __name__ == "__main__":
    main()
