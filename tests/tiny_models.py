"""Models of the tiny recipes: what they say is nonsense, but they say it the way the large ones do."""

from pathlib import Path

from aural.answering.train import train as train_answerer
from aural.captioning.train import train as train_captioner
from aural.listening.train import train as train_listener


def captioner(out: Path, manifest: Path, seed: int = 0, hold_out: str | None = None) -> Path:
    """A captioner in ``out``, over a listener that is trained in ``out-listener`` if it is not there."""
    over = listener(out.with_name(f"{out.name}-listener"), manifest)
    train_captioner("tiny", manifest=manifest, out=out, encoder=over, seed=seed, hold_out=hold_out, progress=False)
    return out


def answerer(out: Path, manifest: Path) -> Path:
    """An audio language model in ``out``, over a listener that is trained in ``out-listener`` if it is not there."""
    over = listener(out.with_name(f"{out.name}-listener"), manifest)
    train_answerer("tiny", manifest=manifest, out=out, encoder=over, progress=False)
    return out


def listener(out: Path, manifest: Path) -> Path:
    """A listener in ``out``, trained if it is not there."""
    if not out.exists():
        train_listener("tiny", manifest=manifest, out=out, progress=False)
    return out
