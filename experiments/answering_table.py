"""Does an audio language model caption better for having learned other tasks too? Setting A against setting B.

    python experiments/answering_table.py --manifest sounds.jsonl --listeners held_out/listening -o runs/answering

Setting A learns captioning alone, setting B captioning, classification and questions together (Deshmukh et al. 2023,
section 5), neither of them facts first; encoder, language model, pool of scenes and number of steps are the same. For
each fold it takes the listener that never heard it (``LISTENERS/FOLD``) and judges the captions that the models write
of the fold's recordings and of soundscapes made of them; setting B is judged on its labels besides. Finished runs are
kept and not repeated.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aural.answering.answer import AnsweringModel, answer_each, load
from aural.answering.evaluate import classify, score_labels
from aural.answering.recipes import TASKS, Recipe
from aural.answering.train import Shared, train
from aural.captioning.evaluate import Judged, score
from aural.checkpoint import write_whole
from aural.errors import AuralError
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import interval
from aural.soundscapes.compose import SoundscapeSettings
from aural.soundscapes.prepare import prepare

SETTINGS = {"A, captioning alone": {"audio captioning": 1.0}, "B, all tasks": TASKS}
SETS = {
    "two sounds": SoundscapeSettings(seconds=(5.0, 7.0), kinds=(("sequence", 1.0),), synthesised=0.2),
    "counts": SoundscapeSettings(seconds=(5.0, 10.0), kinds=(("counted", 1.0),)),
}
SIZE = 80
"""Soundscapes of each kind."""
PROMPT = "generate audio caption"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--listeners", type=Path, required=True)
    parser.add_argument("--gpt2", type=Path, help="language side that a training left in its OUT/language")
    parser.add_argument("--folds", nargs="+", default=["fold1"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--pool", type=int, default=6000)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for fold in options.folds:
        shared = Shared()
        for seed in options.seeds:
            for name, tasks in SETTINGS.items():
                run = options.out / fold / f"{name[0]}-{seed}"
                if not (run / "scores.json").exists():
                    _run(run, options, fold, seed, tasks, shared)
    print(table(options.out))


def _run(run: Path, options: argparse.Namespace, fold: str, seed: int, tasks: dict[str, float], shared: Shared) -> None:
    def shortened(recipe: Recipe) -> Recipe:
        warmup = min(100, options.steps // 4)
        training = replace(recipe.train, steps=options.steps, learning_rate=1e-3, warmup_steps=warmup)
        return replace(recipe, pool=options.pool, train=training, facts=None, tasks=tasks)

    if shared.pool is None:  # it holds what either setting asks, and the language model has read all of that
        train(
            "default",
            manifest=options.manifest,
            out=run.parent / "shared",
            encoder=options.listeners / fold,
            gpt2=options.gpt2,
            hold_out=fold,
            precision=options.precision,
            resume=True,
            shared=shared,
            change=lambda recipe: replace(
                recipe, pool=options.pool, facts=None, train=replace(recipe.train, steps=1, warmup_steps=0)
            ),
        )
    train(
        "default",
        manifest=options.manifest,
        out=run,
        encoder=options.listeners / fold,
        hold_out=fold,
        seed=seed,
        precision=options.precision,
        resume=True,
        shared=shared,
        change=shortened,
    )
    write_whole(run / "scores.json", json.dumps(judged(load(run), options.manifest, fold, "B" in run.name), indent=1))


def judged(model: AnsweringModel, manifest: Path, fold: str, everything: bool) -> dict[str, Any]:
    """Scores of the captions, each with its items; with ``everything`` how often labels are right besides."""
    recordings = [clip for clip in read_manifest(manifest) if clip.split == fold]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = {"recordings": recordings}
        for name, settings in SETS.items():
            scenes = Path(folder) / f"{name.replace(' ', '-')}.jsonl"
            sets[name] = prepare(recordings, scenes, n=SIZE, seed=1, settings=settings)
        for name, clips in sets.items():
            pairs = [Judged(clip, text) for clip, text in zip(clips, captions(model, clips), strict=True)]
            items = [{"recording": one.recording, "right": one.right, "caption": one.caption} for one in pairs]
            found[name] = score(pairs) | {"items": items}
    if everything:
        labelled = [clip for clip in recordings if len(clip.labels) == 1]
        found["labels"] = score_labels(classify(model, labelled, "likelihood"))
    return found


def captions(model: AnsweringModel, clips: Sequence[Clip]) -> list[str]:
    """What the model writes of each clip when it is asked for a caption."""
    written = []
    for _, found in answer_each([clip.audio for clip in clips], [PROMPT], model, method="greedy"):
        if isinstance(found, AuralError):
            raise found
        written.append(found[0][0].text)
    return written


def table(out: Path) -> str:
    """Markdown: a row for each setting, pooled over folds and seeds, with the interval over recordings."""
    columns = "setting | runs | right | 95 % | exact | two sounds: F1 | order | counts"
    lines = [f"| {columns} |", "| --- " * 8 + "|"]
    for name in SETTINGS:
        runs = [json.loads(path.read_text()) for path in sorted(out.glob(f"*/{name[0]}-*/scores.json"))]
        if not runs:
            continue
        items = [item for scores in runs for item in scores["recordings"]["items"]]
        low, high = interval([float(item["right"]) for item in items], [item["recording"] for item in items])

        def mean(*path: str, runs: Sequence[dict[str, Any]] = runs) -> str:
            values = torch.tensor([float(_at(scores, path)) for scores in runs])
            return f"{values.mean():.3f} ± {values.std():.3f}" if len(values) > 1 else f"{values[0]:.3f}"

        lines.append(
            f"| {name} | {len(runs)} | {mean('recordings', 'right')} | {low:.3f} to {high:.3f} "
            f"| {mean('recordings', 'exact')} | {mean('two sounds', 'events', 'f1')} "
            f"| {mean('two sounds', 'order', 'accuracy')} | {mean('counts', 'count', 'accuracy')} |"
        )
    return "\n".join(lines)


def _at(scores: Any, path: Sequence[str]) -> Any:
    for key in path:
        scores = scores[key]
    return scores


if __name__ == "__main__":
    main()
