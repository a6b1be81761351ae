"""Pengi: sound and prompt become a prefix, from which a frozen language model writes the answer.

Deshmukh, Elizalde, Singh, Wang, "Pengi: An Audio Language Model for Audio Tasks", NeurIPS 2023, arXiv 2305.11834.

An item's way: waveform -> HTS-AT -> one vector -> projection to the joint width, of length 1 -> the audio mapper: P
rows. Prompt -> CLIP's text tower -> one vector -> projection (of length 1 in training) -> the prompt mapper: P rows.
Or, in the variant without a text tower, prompt -> the language model's own token rows -> the prompt mapper. The rows of
the audio, then those of the prompt, are the *prefix* of GPT-2.

Trained are the audio encoder, the projections, and the mappers; GPT-2 and the text tower are frozen (but not the text
tower's last linear layer, as in the released code). So is what brings the rows of a sentence encoder to GPT-2's width.

The embedded default is the same at a small size. One vector of a small encoder holds too little of when and how often:
the steps of the listener's convolutional encoder are averaged to R rows, and the audio mapper has the token form. A
prompt is what the frozen sentence encoder knows of its tokens, which outlives other words for the same question. These
rows, brought to GPT-2's width, are the prompt's part of the prefix as they are, without a mapper: whether what is asked
for is there is a comparison of tokens.

Shapes: B items, N samples, A width of the audio encoder, R rows of the audio, D joint width, L tokens of a prompt,
W width of the sentence encoder, P rows of a mapper, Q rows of a whole prefix, T tokens of a target, E width of the
language model, V its vocabulary.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural.answering.mapping import MappingNetwork, ProjectionHead
from aural.features import SAMPLE_RATE
from aural.networks.conv_encoder import ConvEncoder, ConvEncoderConfig
from aural.networks.htsat import Htsat, HtsatConfig


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of CLIP's text tower; the defaults are those of ViT-B/16."""

    vocab_size: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    ffn_dim: int = 2048
    projection_dim: int = 512
    max_positions: int = 77
    end_token_id: int = 49407  # pads as well


@dataclass(frozen=True)
class Gpt2Config:
    """Sizes of the language model; the defaults are those of GPT-2 base, 124 M parameters."""

    vocab_size: int = 50257
    width: int = 768
    layers: int = 12
    heads: int = 12
    max_positions: int = 1024


@dataclass(frozen=True)
class SentencesConfig:
    """Prompts as rows of a frozen sentence encoder's tokens, which lies outside the model."""

    width: int = 768  # of a token's row: its word's vector and its state, each as wide as the encoder
    name: str | None = None  # a folder or hub id; None = the bundled one


@dataclass(frozen=True)
class AnsweringConfig:
    """Sizes of an audio language model; the defaults are those of the released ``base``.

    Exactly one of ``htsat`` and ``conv_encoder`` is the audio encoder. Prompts go through ``text_encoder`` or
    ``sentences``; with neither, they are the language model's own token rows.
    """

    htsat: HtsatConfig | None = field(default_factory=HtsatConfig)
    conv_encoder: ConvEncoderConfig | None = None
    audio_rows: int = 0  # R, to which the steps of a convolutional encoder are averaged
    freeze_audio_encoder: bool = False
    seconds: float = 7.0  # of sound that the model hears at once
    min_seconds: float = 0.0  # shorter clips are followed by silence up to this length; over a convolutional encoder
    text_encoder: ClipTextConfig | None = field(default_factory=ClipTextConfig)
    sentences: SentencesConfig | None = None
    gpt2: Gpt2Config = field(default_factory=Gpt2Config)
    joint_width: int = 1024
    prefix_length: int = 40  # P, rows that a mapper returns
    vector_rows: int = 40  # rows that a mapper makes of a vector
    mapper_layers: int = 4  # "8" in the paper is both mappers together
    mapper_heads: int = 8
    mapper_mlp_ratio: float = 2.0
    prompt_length: int = 40  # tokens of a prompt, to which it is cut or padded
    target_length: int = 77  # tokens of a target at most
    pad_token_id: int = 0  # of the language model: "!" in GPT-2, which is therefore never learned
    stop_token_id: int = 220  # what ends an answer: the first token of " <|endoftext|>" is the lone space
    search: Literal["beam", "greedy"] = "beam"  # how answers are searched for unless asked otherwise
    label_temperature: float = 1.0  # by which log-likelihoods of labels are divided before they become probabilities

    def __post_init__(self) -> None:
        """Refuse what leaves no room for an answer.

        Raises:
            ValueError: says which settings do not fit.
        """
        if (self.htsat is None) == (self.conv_encoder is None):
            raise ValueError("exactly one of htsat and conv_encoder must be set")
        if (self.conv_encoder is None) != (self.audio_rows == 0):
            raise ValueError("audio_rows says into how many rows the steps of conv_encoder go: set both or neither")
        if self.text_encoder is not None and self.sentences is not None:
            raise ValueError("prompts go through text_encoder or sentences: set at most one of them")
        if self.prefix_rows >= self.gpt2.max_positions:
            raise ValueError(f"a prefix of {self.prefix_rows} rows leaves none of {self.gpt2.max_positions} positions")
        if self.gpt2.width % self.gpt2.heads:
            raise ValueError(f"{self.gpt2.heads} heads do not divide the width {self.gpt2.width} of the language model")
        if self.text_encoder is not None and self.prompt_length > self.text_encoder.max_positions:
            raise ValueError(f"prompts of {self.prompt_length} tokens are too long for the text tower")

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return SAMPLE_RATE if self.htsat is None else self.htsat.sample_rate

    @property
    def prefix_rows(self) -> int:
        """Q, rows for the audio and for the prompt, which stand before the answer."""
        return self.prefix_length + (self.prefix_length if self.sentences is None else self.prompt_length)

    @property
    def n_samples(self) -> int:
        """N, samples that the model hears at once."""
        return round(self.seconds * self.sample_rate)


class AudioLanguageModel(nn.Module):
    """Audio encoder, text side, two mappers and GPT-2."""

    def __init__(self, config: AnsweringConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder: Htsat | ConvEncoder
        if config.htsat is not None:
            self.audio_encoder = Htsat(config.htsat)
            self.audio_projection = ProjectionHead(config.htsat.width, config.joint_width)
        else:
            assert config.conv_encoder is not None
            self.audio_encoder = ConvEncoder(config.conv_encoder)
            self.audio_rows = RowProjection(config.conv_encoder.width, config.gpt2.width, config.audio_rows)
        self.audio_mapper = self._mapper(None if config.htsat is None else config.joint_width)
        self.text_encoder = self.prompt_projection = None
        if config.text_encoder is not None:
            self.text_encoder = _clip_text(config.text_encoder)
            self.prompt_projection = ProjectionHead(config.text_encoder.projection_dim, config.joint_width)
        elif config.sentences is not None:
            self.prompt_rows = RowProjection(config.sentences.width, config.gpt2.width, config.prompt_length)
        if config.sentences is None:
            self.prompt_mapper = self._mapper(None if config.text_encoder is None else config.joint_width)
        self.gpt2 = make_gpt2(config.gpt2)
        for frozen in self._frozen():
            frozen.requires_grad_(False)
            frozen.eval()

    def _mapper(self, vector_width: int | None) -> MappingNetwork:
        config = self.config
        return MappingNetwork(
            config.gpt2.width,
            config.prefix_length,
            layers=config.mapper_layers,
            heads=config.mapper_heads,
            mlp_ratio=config.mapper_mlp_ratio,
            vector_width=vector_width,
            vector_rows=config.vector_rows,
        )

    def _frozen(self) -> list[nn.Module]:
        frozen: list[nn.Module] = [self.gpt2]
        frozen += [] if self.config.sentences is None else [self.prompt_rows]
        frozen += [] if self.text_encoder is None else [self.text_encoder.text_model]
        return frozen + ([self.audio_encoder] if self.config.freeze_audio_encoder else [])

    def train(self, mode: bool = True) -> "AudioLanguageModel":
        """Switch between training and evaluation; the frozen parts stay in evaluation mode."""
        super().train(mode)
        for frozen in self._frozen():
            frozen.eval()
        return self

    # ------------------------------------------------------------------------------------------------------ audio side

    def encode_audio(
        self, waveform: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """What the audio encoder makes of waveforms (B, N) in [-1, 1] at ``config.sample_rate``.

        Args:
            waveform: (B, N)
            mask: (B, N), True = real; None: all of it is.
            generator: of SpecAugment, in training mode; None = torch's global one.

        Returns:
            HTS-AT's vectors (B, A), or rows (B, R, A), each the mean of an equal part of a clip's steps.
        """
        if isinstance(self.audio_encoder, Htsat):
            fbank, fbank_mask = self.audio_encoder.fbank(waveform, mask)
            return self.audio_encoder.encode_fbank(fbank, fbank_mask, generator=generator).embedding
        return encode_rows(
            self.audio_encoder, waveform, mask, n_rows=self.config.audio_rows, min_seconds=self.config.min_seconds
        )

    def embed_audio(
        self, waveform: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """:meth:`embed_encoded` of :meth:`encode_audio`; arguments as there."""
        return self.embed_encoded(self.encode_audio(waveform, mask, generator=generator))

    def embed_encoded(self, encoded: Tensor) -> Tensor:
        """What the audio encoder made, (B, A) -> embeddings of length 1, (B, D); or (B, R, A) -> (B, R, E)."""
        if encoded.dim() == 3:
            return self.audio_rows(encoded)
        return F.normalize(self.audio_projection(encoded), dim=1)

    def audio_prefix(self, embedding: Tensor) -> Tensor:
        """What :meth:`embed_audio` returns -> the audio's half of the prefix (B, P, E)."""
        return self.audio_mapper(embedding)

    # ------------------------------------------------------------------------------------------------------- text side

    def embed_prompt(self, prompt_ids: Tensor) -> Tensor:
        """Prompts, cut and padded to ``prompt_length``, -> vectors (B, D) not normalised, or rows (B, L, E).

        Prompts are token ids (B, L), or rows (B, L, W) of a sentence encoder. Of padding the text tower sees nothing:
        its attention is causal, and the first end token is what it hands on. Rows of padding are rows like others.
        """
        if self.config.sentences is not None:
            return self.prompt_rows(prompt_ids)
        if self.text_encoder is None or self.prompt_projection is None:
            return self.gpt2.transformer.wte(prompt_ids)
        with torch.no_grad():
            pooled = self.text_encoder.text_model(input_ids=prompt_ids).pooler_output
        return self.prompt_projection(self.text_encoder.text_projection(pooled))

    def prompt_prefix(self, prompt_ids: Tensor, *, normalize_prompt: bool = True) -> Tensor:
        """Prompts of :meth:`embed_prompt` -> the prompt's part of the prefix (B, P or L, E); see :meth:`prefix`."""
        embedding = self.embed_prompt(prompt_ids)
        if self.config.sentences is not None:
            return embedding
        if normalize_prompt and embedding.dim() == 2:
            embedding = F.normalize(embedding, dim=1)
        return self.prompt_mapper(embedding)

    # --------------------------------------------------------------------------------------------------- language model

    def prefix(
        self,
        embedding: Tensor,
        prompt_ids: Tensor,
        added_ids: Tensor | None = None,
        *,
        normalize_prompt: bool = True,
    ) -> Tensor:
        """What the language model reads before it writes.

        Args:
            embedding: of :meth:`embed_audio`.
            prompt_ids: of :meth:`embed_prompt`.
            added_ids: (B, any), tokens of text that the answer is to go on from; they follow the prompt.
            normalize_prompt: bring the prompt's vector to length 1, as the released model does in training. False: as
                the released inference code does, whose prompts are about sqrt(D) times as long. Nothing to the variant
                without a text tower.

        Returns:
            (B, Q, E), Q = 2 P, or P + L over a sentence encoder, and the tokens added.
        """
        parts = [self.audio_prefix(embedding), self.prompt_prefix(prompt_ids, normalize_prompt=normalize_prompt)]
        if added_ids is not None:
            parts.append(self.gpt2.transformer.wte(added_ids))
        return torch.cat(parts, dim=1)

    def states(self, prefix: Tensor, target_ids: Tensor) -> Tensor:
        """States of the language model over prefix (B, Q, E) and target tokens (B, T), teacher-forced: (B, Q + T, E).

        Padding of targets stands behind them, where no real token sees it.

        Raises:
            ValueError: more rows than the language model has positions.
        """
        rows = torch.cat((prefix, self.gpt2.transformer.wte(target_ids)), dim=1)
        if rows.shape[1] > self.config.gpt2.max_positions:
            raise ValueError(
                f"{rows.shape[1]} rows are more than the language model's {self.config.gpt2.max_positions} positions"
            )
        return self.gpt2.transformer(inputs_embeds=rows, use_cache=False).last_hidden_state

    def losses(self, prefix: Tensor, target_ids: Tensor) -> dict[str, Tensor]:
        """Equation 3 of the paper, over prefixes (B, Q, E) and targets (B, T) that end with " <|endoftext|>".

        Returns:
            ``cross_entropy``: mean negative log-likelihood over the batch's target tokens but padding, in nats. By
            ClipCap's convention padding is told by its id, and a target that holds that token does not learn it.
        """
        real = target_ids != self.config.pad_token_id
        # Most answers are a word and a few are sentences: three quarters of them do not pay for the longest's padding.
        lengths = (real * torch.arange(1, 1 + real.shape[1], device=real.device)).amax(1)
        by_length = lengths.argsort()
        first = max(1, 3 * len(real) // 4)
        predicting, expected = [], []
        for rows in filter(len, (by_length[:first], by_length[first:])):
            longest = max(1, int(lengths[rows].max()))
            states = self.states(prefix[rows], target_ids[rows, :longest])[:, prefix.shape[1] - 1 : -1]
            predicting.append(states[real[rows, :longest]])
            expected.append(target_ids[rows, :longest][real[rows, :longest]])
        return {"cross_entropy": F.cross_entropy(self.gpt2.lm_head(torch.cat(predicting)), torch.cat(expected))}

    def forward(
        self, waveform: Tensor, prompt_ids: Tensor, target_ids: Tensor, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """:meth:`losses` of waveforms (B, N), prompts (B, L) and targets (B, T)."""
        return self.losses(self.prefix(self.embed_audio(waveform, generator=generator), prompt_ids), target_ids)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each of :meth:`losses` in the training objective."""
        return {"cross_entropy": 1.0}


def encode_rows(
    encoder: ConvEncoder,
    waveform: Tensor,
    mask: Tensor | None = None,
    *,
    n_rows: int,
    min_seconds: float,
    response: Tensor | None = None,
) -> Tensor:
    """The steps of waveforms (B, N), averaged over equal parts of each clip: (B, n_rows, A).

    Args:
        encoder: the listener's.
        waveform: (B, N), 16 kHz.
        mask: (B, N), True = real; None: all of it is.
        n_rows: R.
        min_seconds: clips that are shorter are followed by silence up to this length.
        response: (B, 1, mels), added to the encoder's features: as if they had been heard by another microphone.
    """
    n_samples = round(min_seconds * SAMPLE_RATE)
    missing = max(0, n_samples - waveform.shape[1])
    if mask is not None:
        waveform, mask = F.pad(waveform.masked_fill(~mask, 0.0), (0, missing)), F.pad(mask, (0, missing))
        mask = mask | (torch.arange(waveform.shape[1], device=mask.device) < n_samples)
    else:
        waveform = F.pad(waveform, (0, missing))
    fbank, fbank_mask = encoder.fbank(waveform, mask)
    output = encoder.encode_fbank(fbank if response is None else fbank + response.to(fbank), fbank_mask)
    rows = [
        F.adaptive_avg_pool1d(steps[real].T[None], n_rows)[0].T
        for steps, real in zip(output.hidden, output.mask, strict=True)
    ]
    return torch.stack(rows)


def make_gpt2(config: Gpt2Config) -> Any:
    """GPT-2 of the transformers library, whose import costs seconds."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            n_positions=config.max_positions,
            activation_function="gelu_pytorch_tanh",  # what GPT-2 calls gelu_new, in one kernel
            bos_token_id=None,
            eos_token_id=None,
        )
    )


class RowProjection(nn.Module):
    """Rows of another width to the language model's, each with a vector of its place: mappers see no positions."""

    def __init__(self, in_width: int, width: int, n_rows: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_width, width)
        self.positions = nn.Parameter(0.02 * torch.randn(n_rows, width))

    def forward(self, rows: Tensor) -> Tensor:
        """(B, rows, any) -> (B, rows, E), also of fewer rows than there are places."""
        return self.linear(rows) + self.positions[: rows.shape[1]]


def _clip_text(config: ClipTextConfig) -> Any:
    """CLIP's text tower of the transformers library."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    tower = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.ffn_dim,
            projection_dim=config.projection_dim,
            max_position_embeddings=config.max_positions,
            bos_token_id=None,
            eos_token_id=config.end_token_id,
            pad_token_id=config.end_token_id,
        )
    )
    # No state dict holds this one, so a model made on the meta device must have it from the start.
    tower.text_model.embeddings.position_ids = torch.arange(config.max_positions, device="cpu")[None]
    return tower
