"""Whether generated sounds are what was asked for, judged by a listener of their own and beside real recordings.

The judge is a listener that was trained on real recordings, without those that it judges here, and had no part in what
it judges. It chooses among the labels of the recordings that are given:

- ``class_heard``: of sounds generated for one label, the share where that is the most likely;
- ``both_heard``: of sounds generated for two, the share where these two are the most likely ones;
- ``similarity``: the cosine of sound and prompt in the judge's space;
- ``frechet_distance``: between sets of equal size in that space, see :mod:`aural.metrics.frechet_distance`.

Beside each stands what the judge makes of real recordings, and of the same through the codec: no generation over this
codec can be expected to do better. Two sounds at once are then two recordings, mixed at equal power.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aural import __version__
from aural.audio import read_mono
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.judge import Judge, load_judge
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import RESAMPLES, interval
from aural.metrics.frechet_distance import FEWEST, frechet_distance
from aural.sound_phrases import SOUNDS
from aural.text_to_audio.generate import GenerationModel, Request, Settings, generate_each

SPLITS = 20
"""How often the real recordings are halved for the Frechet distances, of which the mean is given."""


@dataclass(frozen=True)
class Judged:
    """A sound that was meant to be of some labels, as the judge hears it."""

    wanted: frozenset[str]
    right: bool
    similarity: float
    """Of the sound and a text for it."""
    embedding: Tensor
    group: str
    """What it shares with others, such as the recording it was cut from."""


def evaluate(
    model: GenerationModel,
    judge: str | os.PathLike[str],
    manifest: Path,
    *,
    split: str | None = None,
    n: int = 20,
    pairs: int = 60,
    seed: int = 0,
    batch_size: int = 4,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Generate ``n`` sounds for each label and one for each of ``pairs`` pairs of labels, and judge them.

    Args:
        model: from :func:`.generate.load`.
        judge: folder of a listener.
        manifest: recordings of which the judge has heard none.
        split: only those of this split.
        n: sounds for each label, of as many seeds; the phrases for it take turns.
        pairs: sounds for two labels each, which are drawn.
        seed: of the generated sounds, the pairs, and the halves.
        batch_size: sounds generated at a time.
        settings: of the generation.

    Raises:
        UsageError: fewer than two labels that the judge knows, or too few recordings or sounds for distances between
            them.
    """
    settings = settings or Settings()
    settings = replace(settings, best_of=model.best_of(settings))
    clips = [clip for clip in read_manifest(manifest) if len(clip.labels) == 1 and split in (None, clip.split)]
    expert, clips = load_judge(judge, clips)
    if len(clips) < 2 * FEWEST or n * len(expert.labels) < FEWEST:
        raise UsageError(
            f"{len(clips)} recordings and {n * len(expert.labels)} sounds: distances between sets mean nothing below "
            f"{2 * FEWEST} and {FEWEST}; give a manifest of more recordings, and a larger --n"
        )
    two = _pairs(expert.labels, pairs, seed)
    whole = round(model.n_samples(settings) * SAMPLE_RATE / model.codec.sample_rate)
    real = [(clip, _cut(clip, whole)) for clip in clips]
    sets = {
        "generated": _generated(model, expert, two, n, seed, batch_size, settings),
        **_recorded(model, expert, real, two, seed),
    }
    return {
        **{name: _scores(judged) for name, judged in sets.items()},
        "frechet_distance": _distances(sets, seed),
        "protocol": {
            "class_heard": f"most likely of {len(expert.labels)} labels",
            "both_heard": f"the two most likely; by chance {1 / math.comb(len(expert.labels), 2):.3f}",
            "labels": list(expert.labels),
            "n_of_label": n,
            "n_pairs": len(two),
            "settings": asdict(settings),
            "seed": seed,
            "interval": f"bootstrap over sounds, of recordings over recordings, {RESAMPLES} resamples",
            "judge": expert.name,
            "model": model.name,
            "codec": model.codec.name,
            "manifest": manifest.name,
            "split": split,
            "aural": __version__,
        },
    }


def prompts(label: str) -> tuple[str, ...]:
    """The ways in which a label is asked for: "a dog barks", "a dog barking", "the barking of a dog"."""
    words = SOUNDS[label]
    return (words.finite[0], f"the sound of {words.participle[0]}", words.noun_phrases[0])


def pair_prompt(labels: Sequence[str]) -> str:
    """Two labels at once: "a dog barks while rain falls"."""
    return " while ".join(SOUNDS[label].finite[0] for label in labels)


def _pairs(labels: Sequence[str], n: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of labels in an order of their own, again from the start where there are fewer; either may come first."""
    generator = np.random.default_rng([seed, 1])
    all_of_them = list(combinations(labels, 2))
    order = generator.permutation(len(all_of_them))
    drawn = (all_of_them[int(order[place % len(order)])] for place in range(n))
    return [(pair[1], pair[0]) if generator.random() < 0.5 else pair for pair in drawn]


def _generated(
    model: GenerationModel,
    judge: Judge,
    two: Sequence[tuple[str, str]],
    n: int,
    seed: int,
    batch_size: int,
    settings: Settings,
) -> list[Judged]:
    wanted: list[tuple[str, ...]] = [(label,) for label in judge.labels for _ in range(n)]
    requests = [Request(prompts(label)[i % 3], seed + i) for label in judge.labels for i in range(n)]
    wanted += two
    requests += [Request(pair_prompt(pair), seed + i) for i, pair in enumerate(two)]
    made = generate_each(requests, model, settings, batch_size=batch_size)
    return [
        _judged(judge, one.waveform.mean(axis=0), labels, one.prompt, str(place), one.sample_rate)
        for place, (one, labels) in enumerate(zip(made, wanted, strict=True))
    ]


def _recorded(
    model: GenerationModel,
    judge: Judge,
    real: Sequence[tuple[Clip, np.ndarray]],
    two: Sequence[tuple[str, str]],
    seed: int,
) -> dict[str, list[Judged]]:
    """Recordings, and mixtures of two, as they are and through the codec."""
    sounds = [(sound, clip.labels, clip.source or str(clip.audio)) for clip, sound in real]
    sounds += [(_mix(real, pair, seed + place), pair, f"pair {place}") for place, pair in enumerate(two)]
    found: dict[str, list[Judged]] = {"real": [], "codec": []}
    for sound, labels, group in sounds:
        text = prompts(labels[0])[0] if len(labels) == 1 else pair_prompt(labels)
        found["real"].append(_judged(judge, sound, labels, text, group))
        found["codec"].append(_judged(judge, _through(model, sound), labels, text, group))
    return found


def _judged(
    judge: Judge,
    waveform: np.ndarray,
    labels: Sequence[str],
    text: str,
    group: str,
    sample_rate: int = SAMPLE_RATE,
) -> Judged:
    logits, embedding = judge.hear(waveform, sample_rate)
    similarity = F.normalize(judge.sentences([text], embedding.device), dim=1)[0] @ embedding
    wanted = frozenset(labels)
    return Judged(wanted, judge.best(logits, len(wanted)) == wanted, float(similarity), embedding, group)


def _scores(judged: Sequence[Judged]) -> dict[str, Any]:
    """Shares and means, with 95 % intervals."""
    result: dict[str, Any] = {}
    for name, size in (("class_heard", 1), ("both_heard", 2)):
        some = [one for one in judged if len(one.wanted) == size]
        if some:
            right = [float(one.right) for one in some]
            result[name] = sum(right) / len(right)
            result[f"{name}_interval_95"] = interval(right, [one.group for one in some])
    alone = [one for one in judged if len(one.wanted) == 1]
    labels = sorted({label for one in alone for label in one.wanted})
    of_label = {label: [one.right for one in alone if label in one.wanted] for label in labels}
    result["of_label"] = {label: sum(right) / len(right) for label, right in of_label.items()}
    similar = [one.similarity for one in judged]
    result["similarity"] = sum(similar) / len(similar)
    result["similarity_interval_95"] = interval(similar, [one.group for one in judged])
    return result


def _distances(sets: dict[str, list[Judged]], seed: int) -> dict[str, Any]:
    """Of as many generated sounds, recordings through the codec, and recordings, to other recordings.

    The recordings are halved again and again; the second half stands for itself and goes through the codec.
    """
    embeddings = {
        name: torch.stack([one.embedding for one in some if len(one.wanted) == 1]) for name, some in sets.items()
    }
    half = min(len(embeddings["real"]) // 2, len(embeddings["generated"]))
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {name: [] for name in sets}
    for _ in range(SPLITS):
        order = torch.randperm(len(embeddings["real"]), generator=generator)
        first, second = order[:half], order[half : 2 * half]
        for name, vectors in embeddings.items():
            some = torch.randperm(len(vectors), generator=generator)[:half] if name == "generated" else second
            found[name].append(frechet_distance(vectors[some], embeddings["real"][first]))
    means = {f"{name}_to_real": sum(each) / len(each) for name, each in found.items()}
    return means | {"n_of_set": half, "splits": SPLITS}


# ----------------------------------------------------------------------------------------------------------- recordings


def _cut(clip: Clip, n_samples: int) -> np.ndarray:
    """The beginning of a recording, (n_samples,) at 16 kHz; silence follows what is shorter."""
    sound = read_mono(clip.audio, SAMPLE_RATE, start=clip.start, duration=clip.duration)[:n_samples]
    return np.pad(sound, (0, n_samples - len(sound)))


def _mix(real: Sequence[tuple[Clip, np.ndarray]], pair: Sequence[str], seed: int) -> np.ndarray:
    """A recording of each of two labels at once, with equal power."""
    generator = np.random.default_rng([seed, 2])
    parts = []
    for label in pair:
        some = [sound for clip, sound in real if clip.labels[0] == label]
        sound = some[int(generator.integers(len(some)))]
        parts.append(sound / max(1e-6, float(np.sqrt(np.mean(sound**2)))))
    mixed = parts[0] + parts[1]
    return (0.5 * mixed / max(1e-6, float(np.abs(mixed).max()))).astype(np.float32)


def _through(model: GenerationModel, waveform: np.ndarray) -> np.ndarray:
    """A sound (time,) at 16 kHz, to codes and back."""
    sound = torch.from_numpy(read_mono((waveform, SAMPLE_RATE), model.codec.sample_rate))
    decoded = model.codec.decode(model.codec.encode(sound[None]))[0, : len(sound)].cpu().numpy()
    return read_mono((decoded, model.codec.sample_rate), SAMPLE_RATE)[: len(waveform)]
