"""Which captions are malformed: by FENSE's error detector if its folder is given, else by the rules of our own.

A detector is any function of captions to probabilities; the rules are sure of what they find, and give 0 or 1.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aural.errors import CheckpointError, UsageError
from aural.fluency_rules import errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

THRESHOLD = 0.9
"""A caption is taken as malformed when the probability that it is is above this, as in SPIDEr-FL."""
MAX_TOKENS = 64
BATCH_SIZE = 64


class FluencyDetector(Protocol):
    """Judges captions."""

    def __call__(self, captions: Sequence[str]) -> list[float]:
        """Captions -> for each the probability, 0..1, that it is malformed."""
        ...


def detect(captions: Sequence[str]) -> list[float]:
    """The default detector: 1 where :func:`aural.fluency_rules.errors` finds something, else 0."""
    return [float(bool(errors(caption))) for caption in captions]


def is_flawed(caption: str, detector: FluencyDetector = detect) -> bool:
    """Whether a detector objects to one caption."""
    return detector([caption])[0] > THRESHOLD


def load_fluency(folder: str | os.PathLike[str], device: str = "cpu") -> FluencyDetector:
    """FENSE's error detector from a folder: BERT, the first token's vector, a linear layer of five classes, sigmoid.

    Args:
        folder: holds the published checkpoint (``echecker_clotho_audiocaps_base.ckpt`` or ``..._tiny.ckpt``), and of
            the BERT that it was made from ``config.json`` and ``vocab.txt`` or ``tokenizer.json``.
        device: where to compute.

    Returns:
        A detector that gives the probability of the last class, "any error". Captions are lower-cased, what is neither
        letter, digit, underscore nor white space is taken out, and they are cut to 64 tokens.

    Raises:
        UsageError: no such folder.
        CheckpointError: it lacks a file, or the weights do not fit.
    """
    import torch
    from torch import nn

    from aural.checkpoint import load_into, read_foreign
    from aural.networks.sentence_encoder import UNUSED_BERT_TENSORS, Bert, BertConfig

    place = Path(folder)
    if not place.is_dir():
        raise UsageError(f"{folder}: there is no such folder; it should hold FENSE's checkpoint and its BERT's files")
    # The BERT's own weights may lie beside it, but are not needed.
    suffixes = (".ckpt", ".pt", ".bin", ".safetensors")
    checkpoints = sorted(place.glob("echecker*")) or [path for path in place.iterdir() if path.suffix in suffixes]
    if len(checkpoints) != 1:
        raise CheckpointError(
            f"{folder}: holds {len(checkpoints)} checkpoints; it should be FENSE's alone, a .ckpt file"
        )
    try:
        settings = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(
            f"{folder}: no config.json, or none in JSON; copy that of the BERT it is based on"
        ) from None
    config = BertConfig(**{field.name: settings[field.name] for field in fields(BertConfig) if field.name in settings})
    stored = read_foreign(checkpoints[0])
    stored = stored.get("state_dict", stored)
    model = nn.ModuleDict(
        {"encoder": Bert(config), "clf": nn.Linear(config.hidden_size, len(stored.get("clf.bias", ())))}
    )
    unused = tuple(f"encoder.{name}" for name in UNUSED_BERT_TENSORS)
    load_into(model, {name: tensor.float() for name, tensor in stored.items() if not name.startswith(unused)})
    model.eval().to(device)
    tokenizer = _bert_tokenizer(place)

    @torch.inference_mode()
    def detector(captions: Sequence[str]) -> list[float]:
        # One by one and by equal length: no threads of the tokenizer, and no padding, hence no mask.
        rows = [tokenizer.encode(re.sub(r"[^\w\s]", "", caption.lower())).ids for caption in captions]
        of_length: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            of_length.setdefault(len(row), []).append(index)
        found = torch.empty(len(rows))
        for same in of_length.values():
            for start in range(0, len(same), BATCH_SIZE):
                batch = same[start : start + BATCH_SIZE]
                hidden = model["encoder"](torch.tensor([rows[index] for index in batch], device=device))
                found[batch] = model["clf"](hidden[:, 0])[:, -1].sigmoid().cpu()
        return found.tolist()

    return detector


def _bert_tokenizer(folder: Path) -> "Tokenizer | BertWordPieceTokenizer":
    from tokenizers.implementations import BertWordPieceTokenizer

    from aural.checkpoint import read_tokenizer

    if (folder / "tokenizer.json").is_file():
        tokenizer = read_tokenizer(folder / "tokenizer.json")
    elif (folder / "vocab.txt").is_file():
        tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    else:
        raise CheckpointError(f"{folder}: neither vocab.txt nor tokenizer.json; copy that of the BERT it is based on")
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
