"""Sound, words and pictures turn into one another.

>>> import aural
>>> aural.caption("dog.wav")                    # Caption(text, score, candidates)
>>> captioner = aural.load("captioning")        # keep the weights for many calls
>>> aural.caption(["a.wav", "b.wav"], model=captioner)
>>> aural.answer("dog.wav", "how many dogs are there?")  # Answer(text, score)
>>> aural.classify("dog.wav", ["dog", "rain"])           # Labels(label, scores)
>>> aural.generate_audio("a dog barks", duration=5.0, seed=0)    # Audio(waveform, sample_rate, ...)
>>> aural.generate_image("dog.wav", seed=0).save("dog.png")      # a PIL image
>>> aural.embed_audio("dog.wav") @ aural.embed_text("a puppy")    # how close sound and words are

Names are resolved on first use, so ``import aural`` alone is quick and loads no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from aural.errors import AudioError, AuralError, UsageError

if TYPE_CHECKING:
    import os

    from aural.answering.answer import AnsweringModel, answer
    from aural.answering.classify import classify
    from aural.audio_to_image.imagine import ImaginationModel, generate_image
    from aural.captioning.caption import Caption, CaptioningModel, caption
    from aural.codec_folder import Codec
    from aural.embedding import ListeningModel, embed_audio, embed_text
    from aural.text_to_audio.generate import GenerationModel, generate_audio

__version__ = "0.1.0"

__all__ = [
    "AudioError",
    "AuralError",
    "Caption",
    "UsageError",
    "__version__",
    "answer",
    "caption",
    "classify",
    "embed_audio",
    "embed_text",
    "generate_audio",
    "generate_image",
    "load",
]

_HOMES = {
    "answer": "aural.answering.answer",
    "classify": "aural.answering.classify",
    "caption": "aural.captioning.caption",
    "Caption": "aural.captioning.caption",
    "generate_audio": "aural.text_to_audio.generate",
    "generate_image": "aural.audio_to_image.imagine",
    "embed_audio": "aural.embedding",
    "embed_text": "aural.embedding",
}


def load(
    model: "str | os.PathLike[str]" = "captioning", *, device: str = "auto", offline: bool = False, **options: Any
) -> "CaptioningModel | ListeningModel | AnsweringModel | GenerationModel | ImaginationModel | Codec":
    """Load a model once, to hand it to many calls.

    Args:
        model: a system, ``"captioning"``, ``"listening"``, ``"answering"``, ``"text_to_audio"``, ``"audio_to_image"``
            or ``"codec"``, for its default weights; a model folder; or the hub id of a captioner.
        device: ``"auto"`` (cuda, else mps, else cpu), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        offline: take hub models from the local cache only.
        options: what the system's own ``load`` takes besides: ``codec`` and ``weights`` for
            :func:`aural.text_to_audio.generate.load`, ``normalize_prompt`` for :func:`aural.answering.answer.load`, ...

    Raises:
        UsageError: there is no such model or device; the message says what exists.
    """
    from aural.checkpoint import system_of

    default = model in ("captioning", "listening", "answering", "text_to_audio", "audio_to_image", "codec")
    name = None if default else model
    match model if default else system_of(model):
        case "listening":
            from aural.embedding import load as load_listener

            return load_listener(name, device=device, offline=offline, **options)
        case "answering":
            from aural.answering.answer import load as load_answerer

            return load_answerer(name, device=device, offline=offline, **options)
        case "text_to_audio":
            from aural.text_to_audio.generate import load as load_generator

            return load_generator(name, device=device, offline=offline, **options)
        case "audio_to_image":
            from aural.audio_to_image.imagine import load as load_audio_to_image

            return load_audio_to_image(name, device=device, offline=offline, **options)
        case "codec":
            from aural.codec_folder import load_codec

            return load_codec(name, device=device, offline=offline, **options)
    from aural.captioning.caption import load as load_captioner

    return load_captioner(name, device=device, offline=offline, **options)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aural' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
