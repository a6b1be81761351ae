"""Sound, words and pictures turn into one another.

>>> import aural
>>> aural.caption("dog.wav")                    # Caption(text, score, candidates)
>>> captioner = aural.load("captioning")        # keep the weights for many calls
>>> aural.caption(["a.wav", "b.wav"], model=captioner)
>>> aural.ask("dog.wav", "how many dogs are there?")     # Answer(text, score)
>>> aural.classify("dog.wav", ["dog", "rain"])           # {"dog": 0.98, "rain": 0.02}
>>> aural.embed_audio("dog.wav") @ aural.embed_text("a puppy")    # how close sound and words are

Names are resolved on first use, so ``import aural`` alone is quick and loads no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from aural.errors import AudioError, AuralError, UsageError

if TYPE_CHECKING:
    import os

    from aural.answering.answer import AnsweringModel, ask
    from aural.answering.classify import classify
    from aural.captioning.caption import Candidate, Caption, CaptioningModel, caption
    from aural.listening.embed import ListeningModel, embed_audio, embed_text

__version__ = "0.1.0"

__all__ = [
    "AudioError",
    "AuralError",
    "Candidate",
    "Caption",
    "UsageError",
    "__version__",
    "ask",
    "caption",
    "classify",
    "embed_audio",
    "embed_text",
    "load",
]

_HOMES = {
    "ask": "aural.answering.answer",
    "classify": "aural.answering.classify",
    "caption": "aural.captioning.caption",
    "Caption": "aural.captioning.caption",
    "Candidate": "aural.captioning.caption",
    "embed_audio": "aural.listening.embed",
    "embed_text": "aural.listening.embed",
}


def load(
    model: "str | os.PathLike[str]" = "captioning", *, device: str = "auto", offline: bool = False
) -> "CaptioningModel | ListeningModel | AnsweringModel":
    """Load a model once, to hand it to many calls.

    Args:
        model: a system, ``"captioning"``, ``"listening"`` or ``"answering"``, for its default weights; a model folder;
            or the hub id of a captioner, such as ``"org/name"``.
        device: ``"auto"`` (cuda, else mps, else cpu), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        offline: take hub models from the local cache only.

    Raises:
        UsageError: there is no such model or device; the message says what exists.
    """
    from aural.checkpoint import system_of

    default = model in ("captioning", "listening", "answering")
    name = None if default else model
    match model if default else system_of(model):
        case "listening":
            from aural.listening.embed import load as load_listener

            return load_listener(name, device=device, offline=offline)
        case "answering":
            from aural.answering.answer import load as load_answerer

            return load_answerer(name, device=device, offline=offline)
    from aural.captioning.caption import load as load_captioner

    return load_captioner(name, device=device, offline=offline)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aural' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
