"""Models of the tiny recipes: what they say is nonsense, but they say it the way the large ones do."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from aural.answering.convert import SYSTEM
from aural.answering.model import AnsweringConfig
from aural.answering.train import train as train_answerer
from aural.captioning.train import train as train_captioner
from aural.checkpoint import load_config, load_weights, save_model
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


def talkative(out: Path, trained: Path, varied: Callable[[Path], bool]) -> Path:
    """That model with other weights behind its listener: four steps of training leave all answers alike.

    They are the first that satisfy ``varied``. Which those are depends on how the machine's threads round in training.
    """
    for seed in range(100):
        if varied(_with_other_weights(out, trained, seed)):
            return out
    raise AssertionError("no weights of a hundred say different things of different sounds")


def _with_other_weights(out: Path, trained: Path, seed: int) -> Path:
    config, weights = load_config(trained, AnsweringConfig, SYSTEM), load_weights(trained)
    generator = torch.Generator().manual_seed(seed)
    alone = ("wpe.weight", "positions")
    for name, weight in weights.items():
        if weight.dim() > 1 and not name.startswith("audio_encoder.") and not name.endswith(alone):
            weights[name] = 0.5 * torch.randn(weight.shape, generator=generator)
    features = config.conv_encoder.channels[-1]  # type: ignore[union-attr]
    weights["audio_rows.linear.weight"][:, :features] *= 400.0  # they differ little from sound to sound
    weights["prompt_rows.linear.weight"] *= 0.02  # or all is said by the prompt
    for rows in ("audio_rows", "prompt_rows"):
        weights[f"{rows}.linear.bias"].zero_()
    words = weights["gpt2.lm_head.weight"] = weights["gpt2.transformer.wte.weight"]
    tokenizer = (trained / "tokenizer.json").read_text(encoding="utf-8")
    for token, place in json.loads(tokenizer)["model"]["vocab"].items():
        if len(token) == 1 and place != config.stop_token_id:
            words[place] = 0.0  # single bytes make no text
    stop = words[config.stop_token_id]
    weights["gpt2.transformer.ln_f.bias"] = 2.0 * stop / stop.norm()
    save_model(out, system=SYSTEM, config=config, weights=weights, card="", files={"tokenizer.json": tokenizer})
    return out


def listener(out: Path, manifest: Path) -> Path:
    """A listener in ``out``, trained if it is not there."""
    if not out.exists():
        train_listener("tiny", manifest=manifest, out=out, progress=False)
    return out
