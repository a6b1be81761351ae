"""Does the regulariser help? The same training without it, and with lambda 3 and the maximum or the mean.

    python bench/ablation_rr.py --manifest sounds.jsonl --codec models/codec --hold-out fold1 --judge runs/judge \
        -o runs/ablation_rr

Trains three variants of the token language model from three seeds each, on all clips but those of the fold, and then
judges each by ``aural evaluate text_to_audio`` on the fold: the judge is a listener that has heard neither the fold nor
anything but recordings. Sounds are encoded once and shared, so that variants of a seed differ in nothing but the loss.
Finished runs are kept and a stopped one goes on, so the command may be given again; the table is printed from all that
are there. A row is the mean over its seeds, with the 95 % interval that follows from those of the seeds, which
resample sounds. The last two columns compare with the row without regulariser, seed by seed: the mean difference, and
in parentheses the least and the largest.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aural.checkpoint import write_whole
from aural.text_to_audio.evaluate import evaluate
from aural.text_to_audio.generate import Settings, load
from aural.text_to_audio.recipes import Recipe
from aural.text_to_audio.representation_regularization import RegularizationConfig
from aural.text_to_audio.train import train

VARIANTS = {
    "none": RegularizationConfig(weight=0.0),
    "lambda 3, max": RegularizationConfig(weight=3.0, pooling="max"),
    "lambda 3, mean": RegularizationConfig(weight=3.0, pooling="mean"),
}
MEASURES = ("class_heard", "both_heard", "similarity")
SEEDS = (0, 1, 2)
WITHOUT_MODEL = {"codec": "recordings through the codec", "real": "recordings"}


def changed(variant: str, options: argparse.Namespace) -> Callable[[Recipe], Recipe]:
    """What a variant and the options change in the recipe."""

    def change(recipe: Recipe) -> Recipe:
        model = replace(recipe.model, regularization=VARIANTS[variant])
        run = replace(recipe.train, batch_size=options.batch_size or recipe.train.batch_size)
        recipe = replace(recipe, model=model, train=run, pool=options.pool or recipe.pool)
        if options.seconds and recipe.soundscapes:
            scenes = replace(recipe.soundscapes.soundscapes, seconds=(options.seconds, options.seconds))
            soundscapes = replace(recipe.soundscapes, soundscapes=scenes)
            recipe = replace(recipe, model=replace(model, seconds=options.seconds), soundscapes=soundscapes)
        return recipe

    return change


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--codec", type=Path, help="folder of a codec; default: the one in the box")
    parser.add_argument("--judge", type=Path, required=True, help="folder of a listener that never heard the fold")
    parser.add_argument("--hold-out", metavar="SPLIT", help="clips to judge by, and not to learn from")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--batch-size", type=int, help="instead of the recipe's")
    parser.add_argument("--pool", type=int, help="sounds that are encoded for each seed, instead of the recipe's")
    parser.add_argument("--seconds", type=float, help="of a sound, instead of the recipe's")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="instead of the recipe's")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--n", type=int, default=20, help="sounds for each label")
    parser.add_argument("--pairs", type=int, default=60, help="sounds for two labels")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # two of these side by side use two cores better than one with two threads
    runs = [(variant, seed) for seed in options.seeds for variant in options.variants]
    for variant, seed in runs:
        _train(options, variant, seed)
    for variant, seed in runs:
        _judge(options, variant, seed)
    print(table(options.out))


def folder_of(variant: str) -> str:
    """The folder of a variant's runs."""
    return variant.replace(",", "").replace(" ", "_")


def _train(options: argparse.Namespace, variant: str, seed: int) -> None:
    train(
        options.recipe,
        manifest=options.manifest,
        out=options.out / folder_of(variant) / f"seed{seed}",
        codec=options.codec,
        codes=options.out / "codes" / f"seed{seed}",
        hold_out=options.hold_out,
        resume=True,
        device="cpu",
        seed=seed,
        steps=options.steps,
        precision=options.precision,
        change=changed(variant, options),
    )


def _judge(options: argparse.Namespace, variant: str, seed: int) -> None:
    run = options.out / folder_of(variant) / f"seed{seed}"
    if (run / "scores.json").exists():
        return
    model = load(run, codec=options.codec, device="cpu")
    how = {"split": options.hold_out, "n": options.n, "pairs": options.pairs, "settings": Settings(best_of=1)}
    scores = evaluate(model, options.judge, options.manifest, **how)  # of the same prompts and pairs for all
    write_whole(run / "scores.json", json.dumps(scores, indent=2) + "\n")


def table(out: Path) -> str:
    """Markdown: a row for each variant, and rows of what real recordings and the codec reach."""
    found = {
        variant: {path.parent.name: json.loads(path.read_text()) for path in sorted(paths)}
        for variant in VARIANTS
        if (paths := list((out / folder_of(variant)).glob("seed*/scores.json")))
    }
    lines = [
        "| regulariser | seeds | class heard | both heard | similarity | Frechet | class vs none | both vs none |",
        "| --- " * 8 + "|",
    ]
    for variant, of_seed in found.items():
        cells = [_pooled([each["generated"] for each in of_seed.values()], measure) for measure in MEASURES]
        distances = [each["frechet_distance"]["generated_to_real"] for each in of_seed.values()]
        cells.append(f"{sum(distances) / len(distances):.3f}")
        cells += [_against(of_seed, found.get("none", {}), measure) for measure in MEASURES[:2]]
        lines.append(f"| {variant} | {len(of_seed)} | {' | '.join(cells)} |")
    for name in WITHOUT_MODEL:
        scores = next((each for of_seed in found.values() for each in of_seed.values()), None)
        if scores is not None:  # the recordings are the same for all
            cells = [_pooled([scores[name]], measure) for measure in MEASURES]
            cells.append(f"{scores['frechet_distance'][f'{name}_to_real']:.3f}")
            lines.append(f"| ({WITHOUT_MODEL[name]}) | | {' | '.join(cells)} | | |")
    return "\n".join(lines)


def _pooled(scores: list[Mapping[str, Any]], measure: str) -> str:
    """Mean over seeds and its interval, whose half-widths are those of the mean of independent numbers."""
    if any(measure not in each for each in scores):
        return ""
    mean = sum(each[measure] for each in scores) / len(scores)
    sides = [
        sum((each[f"{measure}_interval_95"][side] - each[measure]) ** 2 for each in scores) ** 0.5 / len(scores)
        for side in (0, 1)
    ]
    return f"{mean:.3f} ({mean - sides[0]:.3f} to {mean + sides[1]:.3f})"


def _against(of_seed: Mapping[str, Any], none: Mapping[str, Any], measure: str) -> str:
    differences = [
        scores["generated"][measure] - none[seed]["generated"][measure]
        for seed, scores in of_seed.items()
        if seed in none and measure in scores["generated"]
    ]
    if of_seed is none or not differences:
        return ""
    return f"{sum(differences) / len(differences):+.3f} ({min(differences):+.3f} to {max(differences):+.3f})"


if __name__ == "__main__":
    main()
