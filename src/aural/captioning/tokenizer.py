"""The captioner's tokenizer: BART's byte-level BPE as published, or a small one of its kind trained on captions."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from aural.errors import CheckpointError

TOKENIZER = "tokenizer.json"

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]
"""Ids 0 to 3, as in BART."""


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE over captions: whatever text comes later, every byte of it has a token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A ``tokenizer.json``, or the folder that holds it.

    Raises:
        CheckpointError: there is none, or it is not a tokenizer.
    """
    path = Path(path)
    if path.is_dir():
        path = path / TOKENIZER
    if not path.is_file():
        raise CheckpointError(f"{path}: no tokenizer; copy the {TOKENIZER} of the model's text side there")
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the tokenizers library raises plain Exception for a bad file
        raise CheckpointError(f"{path}: not a tokenizer file ({error})") from None
