"""Words to what an audio language model reads, and back: GPT-2's tokens, CLIP's, states of a sentence encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from aural.answering.model import AnsweringConfig
from aural.checkpoint import read_tokenizer
from aural.errors import CheckpointError
from aural.networks.sentence_encoder import SentenceEncoder, load_sentence_encoder

TOKENIZER, TEXT_TOKENIZER = "tokenizer.json", "text_tokenizer.json"
"""Of GPT-2 and of CLIP, in a model folder."""
END = "<|endoftext|>"
START = "<|startoftext|>"
STOP = f" {END}"
"""What ends a target; the released code stops at the first of its tokens, which is the lone space."""
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a model and the lengths it was made for."""

    config: AnsweringConfig
    gpt2: Tokenizer
    text: Tokenizer | None = None  # CLIP's, if the model has a text tower
    sentences: SentenceEncoder | None = None  # if prompts are rows of its tokens

    def prompts(self, texts: Sequence[str]) -> Tensor:
        """Prompts to ids (B, L), each cut or padded to ``config.prompt_length``, or to rows (B, L, W) of that length.

        CLIP's keep their end token when they are cut, and are padded with it. GPT-2's are followed by " <|endoftext|>",
        which they may lose, and are padded with ``config.pad_token_id``. Rows are followed by zeros.
        """
        length = self.config.prompt_length
        if self.sentences is not None:
            words, states = self.sentences.token_words(texts, length), self.sentences.token_states(texts, length)
            return torch.cat([F.layer_norm(half, half.shape[2:]) for half in (words, states)], dim=2)
        if self.text is None:
            return self._padded([self.gpt2.encode(text + STOP).ids[:length] for text in texts], length)
        assert self.config.text_encoder is not None
        end = self.config.text_encoder.end_token_id
        rows = [self.text.encode(text).ids for text in texts]
        rows = [row if len(row) <= length else [*row[: length - 1], end] for row in rows]
        return torch.tensor([row + [end] * (length - len(row)) for row in rows])

    def targets(self, texts: Sequence[str]) -> Tensor:
        """Answers to learn, followed by " <|endoftext|>", to ids (B, T), cut at ``config.target_length``, padded."""
        rows = [self.gpt2.encode(text + STOP).ids[: self.config.target_length] for text in texts]
        return self._padded(rows, max(map(len, rows)))

    def ids(self, text: str) -> list[int]:
        """Tokens of a text as it stands, of any length; the ``added_ids`` of a prefix, a label to be scored."""
        return self.gpt2.encode(text).ids

    def text_of(self, token_ids: Sequence[int]) -> str:
        """What the model wrote, up to its stop token and without spaces around it."""
        stop = self.config.stop_token_id
        kept = token_ids[: token_ids.index(stop)] if stop in token_ids else token_ids
        return self.gpt2.decode(list(kept), skip_special_tokens=False).strip()

    def _padded(self, rows: list[list[int]], length: int) -> Tensor:
        return torch.tensor([row + [self.config.pad_token_id] * (length - len(row)) for row in rows])


def stop_token_id(gpt2: Tokenizer) -> int:
    """At which token an answer ends."""
    return gpt2.encode(STOP).ids[0]


def find_gpt2(folder: Path) -> Tokenizer:
    """GPT-2's tokenizer out of ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``, of a folder.

    Raises:
        CheckpointError: the folder has neither, or they cannot be read, or are none of GPT-2.
    """
    tokenizer = _whole(folder)
    if tokenizer is None:
        tokenizer = Tokenizer(_bpe(folder))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    _id(tokenizer, END, folder, "GPT-2")
    tokenizer.add_special_tokens([END])
    return tokenizer


def find_clip(folder: Path) -> Tokenizer:
    """CLIP's tokenizer, likewise; it adds the start and the end token."""
    tokenizer = _whole(folder)
    if tokenizer is not None:
        _id(tokenizer, START, folder, "CLIP")
        return tokenizer
    tokenizer = Tokenizer(_bpe(folder, end_of_word_suffix="</w>", unk_token=END))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    start, end = ((token, _id(tokenizer, token, folder, "CLIP")) for token in (START, END))
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=False, add_prefix_space=False)
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def load_tokenizers(folder: Path, config: AnsweringConfig, *, offline: bool = False) -> Tokenizers:
    """The tokenizers of a model folder.

    Raises:
        CheckpointError: one is missing or cannot be read.
    """
    text = None if config.text_encoder is None else _parsed(folder / TEXT_TOKENIZER)
    sentences = None if config.sentences is None else load_sentence_encoder(config.sentences.name, offline=offline)
    return Tokenizers(config, _parsed(folder / TOKENIZER), text, sentences)


def _whole(folder: Path) -> Tokenizer | None:
    return _parsed(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None


def _parsed(path: Path) -> Tokenizer:
    if not path.is_file():
        raise CheckpointError(f"{path}: no tokenizer; convert the model again with the folders of its tokenizers")
    tokenizer = read_tokenizer(path)
    # Files of the hub may cut and pad by themselves; here the config says to what length.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _bpe(folder: Path, **options: str) -> models.BPE:
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise CheckpointError(f"{folder} holds neither {TOKENIZER} nor vocab.json and merges.txt: give another folder")
    try:
        return models.BPE.from_file(str(vocabulary), str(merges), **options)
    except Exception as error:  # the tokenizers library raises plain Exception for what does not fit together
        raise CheckpointError(f"{folder}: vocab.json and merges.txt are damaged ({error})") from None


def _id(tokenizer: Tokenizer, token: str, folder: Path, name: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(f"{folder} is no tokenizer of {name}: it has no {token}")
    return found
