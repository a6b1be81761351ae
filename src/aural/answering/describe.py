"""A recording described in full: what three prompts make a model say of it, in one text.

``describe`` of Pengi's released code asks for a caption, for metadata and for the sounds, and joins the answers end to
end. It counts on the space that the stop token leaves behind each of them: an answer that was cut off runs into the
next one, and the last loses its last letter. Here answers end before their stop token and are joined by spaces.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any, overload

from aural.answering.answer import Answer, AnsweringModel, all_found, answer_each, load
from aural.audio import Sound
from aural.errors import AuralError

PROMPTS = ("generate audio caption", "generate metadata", "this is a sound of")
SOUNDS = "this audio contains sound events: {}."
"""What is said of the answer to the last prompt."""


@overload
def describe(sounds: Sound, **options: Any) -> Answer: ...
@overload
def describe(sounds: list[Sound], **options: Any) -> list[Answer]: ...
def describe(sounds: Any, *, model: "AnsweringModel | str | os.PathLike[str] | None" = None, **options: Any) -> Any:
    """Describe a sound, or each of a list of sounds.

    Args:
        sounds: a path, a binary file object, or an array or tensor with its sample rate; or a list of these.
        model: a loaded model, or what :func:`aural.answering.answer.load` takes.
        options: see :func:`describe_each`.

    Returns:
        An :class:`aural.answering.answer.Answer` for each sound; with ``windows``, a list of them for each sound.

    Raises:
        AuralError: a sound cannot be read, or the options do not fit.
    """
    loaded = model if isinstance(model, AnsweringModel) else load(model)
    alone = not isinstance(sounds, list)
    found = all_found(describe_each([sounds] if alone else sounds, loaded, **options))
    results = found if options.get("windows") is not None else [whole for (whole,) in found]
    return results[0] if alone else results


def describe_each(
    sounds: Iterable[Sound], model: AnsweringModel, **options: Any
) -> Iterator[tuple[Sound, list[Answer] | AuralError]]:
    """Describe each sound, in order; one that cannot be read gives its error, and the rest goes on.

    Args:
        sounds: any number; they are read as they are needed.
        model: from :func:`aural.answering.answer.load`.
        options: as for :func:`aural.answering.answer.answer_each`: how each of the three answers is searched for.

    Yields:
        Each sound with the one description, or one for each window.

    Raises:
        UsageError: an option that does not fit.
    """
    for sound, found in answer_each(sounds, PROMPTS, model, **options):
        yield sound, found if isinstance(found, AuralError) else [_joined(*some) for some in zip(*found, strict=True)]


def _joined(caption: Answer, metadata: Answer, sounds: Answer) -> Answer:
    """The three answers of a sound, or of a window of it, as one, whose score is the mean of theirs."""
    parts = (caption.text, metadata.text, SOUNDS.format(sounds.text))
    score = (caption.score + metadata.score + sounds.score) / 3
    return Answer(" ".join(filter(None, parts)), score, caption.start, caption.end)
