"""Write a set of soundscapes for others to use: sounds, captions, labels with times, questions and answers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aural.audio import write
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.manifest import Clip, write_manifest
from aural.soundscapes.compose import Soundscapes, SoundscapeSettings
from aural.soundscapes.questions import questions
from aural.soundscapes.wording import captions

CAPTIONS = 5
"""Paraphrases of each soundscape, as many as Clotho has."""


def with_kinds(settings: SoundscapeSettings, kinds: Sequence[str]) -> SoundscapeSettings:
    """The settings with only these kinds of scenes, at their shares.

    Raises:
        UsageError: there is no such kind.
    """
    shares = dict[str, float](settings.kinds)
    unknown = [kind for kind in kinds if kind not in shares]
    if unknown:
        raise UsageError(f"no kind of soundscape is called {unknown[0]!r}; there are {', '.join(shares)}")
    return replace(settings, kinds=tuple(one for one in settings.kinds if one[0] in kinds))


def prepare(
    clips: Sequence[Clip],
    manifest: Path,
    *,
    n: int,
    seed: int = 0,
    settings: SoundscapeSettings | None = None,
    split: str | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Clip]:
    """Render soundscapes 0 .. n-1 of a seed beside their manifest, ``M.jsonl``.

    ``M/`` holds the sounds (FLAC, 16 kHz), ``M.jsonl`` a line for each with captions, labels and events,
    ``M.questions.jsonl`` a line for each question.

    Args:
        clips: recordings to make them from; there may be none.
        manifest: the manifest to write.
        n: how many.
        seed: of the set.
        settings: what is drawn.
        split: written to every line.
        advance: called after each soundscape.

    Returns:
        The lines of the manifest.
    """
    soundscapes = Soundscapes(clips, settings or SoundscapeSettings(), seed)
    folder = manifest.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[Clip] = []
    asked: list[Clip] = []
    for index in range(n):
        advance()
        soundscape = soundscapes(index)
        scene = soundscape.scene
        generator = np.random.default_rng([seed, 3, index])
        audio = folder / f"{index:06d}.flac"
        write(audio, soundscape.waveform, SAMPLE_RATE)
        clip = Clip(
            audio,
            captions=captions(scene, CAPTIONS, generator),
            labels=scene.labels,
            events=scene.events,
            split=split,
            source="+".join(sorted(scene.sources)) or None,
        )
        lines.append(clip)
        asked += [
            Clip(audio, labels=(question.kind,), question=question.question, answer=question.answer, split=split)
            for question in questions(scene, generator)
        ]
    write_manifest(manifest, lines)
    write_manifest(manifest.with_suffix(".questions.jsonl"), asked)
    return lines
