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
from aural.soundscapes.questions import HELD_OUT, SEEN, Wording, questions
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
    splits: Sequence[str | None] = (None,),
    advance: Callable[[], None] = lambda: None,
) -> list[Clip]:
    """Render soundscapes 0 .. n-1 of a seed beside their manifest, ``M.jsonl``; for each split, if there are several.

    ``M/`` holds the sounds (FLAC, 16 kHz), ``M.jsonl`` a line for each with captions, labels and events,
    ``M.questions.jsonl`` a line for each question, of whose kind ``about`` tells; ``M.paraphrases.jsonl`` has questions
    of the same kinds in words that training never uses.

    Args:
        clips: recordings to make them from; there may be none.
        manifest: the manifest to write.
        n: how many, of each split.
        seed: of the set.
        settings: what is drawn.
        splits: each is made of its own recordings only, and its name is written to its lines; None: of all clips.
        advance: called after each soundscape.

    Returns:
        The lines of the manifest.
    """
    folder = manifest.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[Clip] = []
    asked: list[Clip] = []
    paraphrased: list[Clip] = []
    for split in splits:
        own = [clip for clip in clips if split is None or clip.split == split]
        soundscapes = Soundscapes(own, settings or SoundscapeSettings(), seed)
        for index in range(n):
            audio = folder / f"{split + '-' if split else ''}{index:06d}.flac"
            line, of_training, held_out = _written(soundscapes, index, audio, split)
            lines.append(line)
            asked += of_training
            paraphrased += held_out
            advance()
    write_manifest(manifest, lines)
    write_manifest(manifest.with_suffix(".questions.jsonl"), asked)
    write_manifest(manifest.with_suffix(".paraphrases.jsonl"), paraphrased)
    return lines


def _written(
    soundscapes: Soundscapes, index: int, audio: Path, split: str | None
) -> tuple[Clip, list[Clip], list[Clip]]:
    """Write one soundscape; its line in the manifest, and lines of questions as training asks them and otherwise."""
    soundscape = soundscapes(index)
    scene = soundscape.scene
    generator = np.random.default_rng([soundscapes.seed, 3, index])
    write(audio, soundscape.waveform, SAMPLE_RATE)
    source = "+".join(sorted(scene.sources)) or None
    said = captions(scene, CAPTIONS, generator)
    line = Clip(audio, captions=said, labels=scene.labels, events=scene.events, split=split, source=source)

    def asked(wording: Wording) -> list[Clip]:
        return [
            Clip(
                audio,
                question=question.question,
                answer=question.answer,
                split=split,
                source=source,
                about={"kind": question.kind},
            )
            for question in questions(scene, generator, wording)
        ]

    return line, asked(SEEN), asked(HELD_OUT)
