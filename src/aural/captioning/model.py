"""The captioner: BEATs features, a strided convolution, a Conformer, and a BART decoder that writes the caption.

Wu, Chang, Wichern, Jung, Germain, Le Roux, Watanabe, "Improving Audio Captioning Models with Fine-grained Audio
Features, Text Embedding Supervision, and LLM Mix-up Augmentation", arXiv 2309.17352. Parameters bear the names of the
released file.

A clip's way: waveform -> log-mel -> audio encoder -> a step for every ``downsample_rate`` tokens -> Conformer ->
*states*; the mean of the states goes through an MLP to the *embedding*, which is compared with sentence embeddings of
captions; states + learned positions are the *memory* that the decoder attends to.

Shapes: B batch, N samples, T frames, M mel bands, S memory steps, D model width, K embedding width, L caption tokens,
V vocabulary. Masks are boolean, True = real; None = all real.
"""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural import spec_augment
from aural.captioning.conformer import Conformer, ConformerConfig
from aural.features import FRAME_LENGTH, HOP_LENGTH, SAMPLE_RATE
from aural.networks.bart_decoder import BartDecoder, BartDecoderConfig
from aural.networks.beats import BASE, BEATs, BeatsConfig, reduce_mask
from aural.networks.conv_encoder import TIME_STRIDE, ConvEncoder, ConvEncoderConfig
from aural.networks.sentence_encoder import CAPTION_INSTRUCTION
from aural.spec_augment import SpecAugmentConfig
from aural.text_embedding_loss import text_embedding_loss

IGNORED = -100  # label of padding
POSITION_OFFSET = 2  # BART's position tables begin with two rows that are never used


@dataclass(frozen=True)
class CaptionerConfig:
    """Sizes, losses and padding rules of a captioner; exactly one of ``beats`` and ``conv_encoder`` is its encoder."""

    beats: BeatsConfig | None = None
    conv_encoder: ConvEncoderConfig | None = None
    tapped_layer: int | None = None  # take the encoder's output after this many layers; None = after the last
    downsample_rate: int = 3  # encoder tokens a memory step; 1 = no downsampling convolution at all
    conformer: ConformerConfig = field(default_factory=ConformerConfig)
    decoder: BartDecoderConfig = field(default_factory=BartDecoderConfig)
    max_cross_positions: int = 512  # memory steps at most
    embedding_ffn_dim: int = 3072
    embedding_dim: int = 768  # width of the sentence embeddings of captions
    contrastive_temperature: float = 0.5
    contrastive_weight: float = 1.0
    duplicate_captions_are_negatives: bool = True  # as in the paper; see text_embedding_loss
    label_smoothing: float = 0.1
    eos_token_id: int = 2
    decoder_start_token_id: int = 2
    spec_augment: SpecAugmentConfig | None = field(default_factory=SpecAugmentConfig)  # in training only; None = off
    freeze_encoder: bool = True
    # A frozen encoder runs in evaluation mode here. The released code leaves it in training mode, where LayerDrop and
    # dropouts of its own config act; True does the same.
    frozen_encoder_in_train_mode: bool = False
    # False: a clip gives the same numbers alone and in a padded batch. True: the released rules, where the padding of a
    # batch leaks through mask rounding, convolutions, batch statistics and the pooled mean.
    released_padding: bool = False
    text_encoder: str | None = None  # sentence encoder of the embeddings, a folder or hub id; None = the bundled one
    text_instruction: str = ""  # what an instructed sentence encoder reads before each caption
    decoder_weight: float = (
        0.3  # of the log-likelihood in reranking; the similarity has the rest (section 5 of the paper)
    )
    min_length: int = 5  # tokens of a caption at least when it is decoded, the start token included
    min_seconds: float = 0.0  # shorter clips are followed by silence up to this length, as what was seen in training

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together.

        Raises:
            ValueError: says which.
        """
        if (self.beats is None) == (self.conv_encoder is None):
            raise ValueError("exactly one of beats and conv_encoder must be set")
        if self.beats is not None and self.beats.released_padding != self.released_padding:
            raise ValueError("beats.released_padding must equal released_padding")
        if self.downsample_rate < 1:
            raise ValueError(f"downsample_rate must be at least 1, got {self.downsample_rate}")
        if self.downsample_rate == 1 and self.encoder_width != self.conformer.hidden_size:
            raise ValueError(
                f"without a downsampling convolution the encoder's width {self.encoder_width} must equal the "
                f"Conformer's hidden_size {self.conformer.hidden_size}"
            )

    @property
    def encoder_width(self) -> int:
        """Width of the audio encoder's tokens."""
        if self.beats is not None:
            return self.beats.encoder_embed_dim
        assert self.conv_encoder is not None
        return self.conv_encoder.width

    @property
    def pad_token_id(self) -> int:
        """What fills decoder input after the end; it is the decoder's setting."""
        return self.decoder.pad_token_id

    @property
    def downsample_kernel(self) -> int:
        """Kernel of the downsampling convolution; 4 for the published rate 3, since halves round to even."""
        return round(self.downsample_rate * 1.5)


def paper() -> CaptionerConfig:
    """The published size: BEATs base tapped after layer 10 of 12, 2 Conformer layers, 6 decoder layers."""
    return CaptionerConfig(
        beats=BASE,
        tapped_layer=10,
        text_encoder="hkunlp/instructor-xl",
        text_instruction=CAPTION_INSTRUCTION,
    )


def with_released_padding(config: CaptionerConfig, released_padding: bool = True) -> CaptionerConfig:
    """The same captioner under the other padding rules."""
    beats = None if config.beats is None else replace(config.beats, released_padding=released_padding)
    return replace(config, beats=beats, released_padding=released_padding)


@dataclass(frozen=True)
class Encoded:
    """What the audio side knows of a batch of clips; computed once, used by sampling, scoring and reranking."""

    states: Tensor  # (B, S, D) Conformer output in the decoder's width
    mask: Tensor | None  # (B, S)
    memory: Tensor  # (B, S, D) states + cross positions: what the decoder attends to
    embedding: Tensor  # (B, K) to be compared with sentence embeddings by cosine


class Captioner(nn.Module):
    """Audio encoder, Conformer and caption decoder."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder.d_model
        self.encoder: BEATs | ConvEncoder
        if config.beats is not None:
            self.encoder = BEATs(config.beats)
        else:
            assert config.conv_encoder is not None
            self.encoder = ConvEncoder(config.conv_encoder)
        if config.downsample_rate > 1:
            self.downsample_conv = nn.Conv1d(
                config.encoder_width,
                config.conformer.hidden_size,
                config.downsample_kernel,
                stride=config.downsample_rate,
            )
        self.postencoder = Conformer(config.conformer, config.released_padding)
        if config.conformer.hidden_size != width:
            self.enc_dec_proj = nn.Linear(config.conformer.hidden_size, width, bias=False)
        self.encoder_embed_mlp = EmbeddingHead(width, config.embedding_ffn_dim, config.embedding_dim)
        self.cross_embed_positions = nn.Embedding(config.max_cross_positions + POSITION_OFFSET, width)
        self.decoder = BartDecoder(config.decoder)
        self.lm_head = nn.Linear(width, config.decoder.vocab_size, bias=False)
        self.final_logits_bias = nn.Parameter(torch.zeros(1, config.decoder.vocab_size))
        self.lm_head.weight = self.decoder.embed_tokens.weight
        bridge: list[nn.Module] = [self.postencoder, self.encoder_embed_mlp, self.cross_embed_positions]
        if config.conformer.hidden_size != width:
            bridge.append(self.enc_dec_proj)
        for part in bridge:
            part.apply(self._initialise)
        if config.freeze_encoder:
            self.encoder.requires_grad_(False)
            self.encoder.eval()

    def _initialise(self, module: nn.Module) -> None:
        """As the decoder's; convolutions keep PyTorch's own initialisation."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.decoder.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> "Captioner":
        """Switch between training and evaluation; a frozen encoder stays in evaluation mode (see the config)."""
        super().train(mode)
        if self.config.freeze_encoder and not self.config.frozen_encoder_in_train_mode:
            self.encoder.eval()
        return self

    # ------------------------------------------------------------------------------------------------------ audio side

    @property
    def max_seconds(self) -> float:
        """Longest clip, in seconds, whose memory fits the cross positions (30.9 s at the published size)."""
        rate, kernel = self.config.downsample_rate, self.config.downsample_kernel
        n_tokens = self.config.max_cross_positions
        if rate > 1:
            n_tokens = (n_tokens - 1) * rate + kernel + rate - 1
        if isinstance(self.encoder, BEATs):
            return self.encoder.max_samples(n_tokens) / SAMPLE_RATE
        n_frames = n_tokens * TIME_STRIDE + 1
        return (FRAME_LENGTH + n_frames * HOP_LENGTH - 1) / SAMPLE_RATE

    def encode(
        self, waveform: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Encoded:
        """Encode clips; run it once a clip.

        Args:
            waveform: (B, N) at 16 kHz in [-1, 1].
            mask: (B, N), real samples first.
            generator: of the SpecAugment draws in training mode; None = torch's global one.

        Raises:
            ValueError: a clip is too long for the model, or too short for one step.
        """
        waveform, mask = self._with_silence(waveform, mask)
        seconds = waveform.shape[1] / SAMPLE_RATE
        if seconds > self.max_seconds:
            raise ValueError(
                f"a clip of {seconds:.1f} s is longer than this captioner takes ({self.max_seconds:.1f} s): "
                "split it into windows"
            )
        fbank, frame_mask = self.encoder.fbank(waveform, mask)
        return self.encode_fbank(fbank, frame_mask, generator=generator)

    def encode_fbank(
        self, fbank: Tensor, frame_mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Encoded:
        """Encode clips from the encoder's own normalised log-mel (B, T, M) and its mask (B, T); see :meth:`encode`."""
        if self.training and self.config.spec_augment is not None:
            n_clips, n_frames, n_mels = fbank.shape
            draws = spec_augment.draw(self.config.spec_augment, n_clips, n_frames, n_mels, generator)
            fbank = spec_augment.apply(fbank, draws)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_encoder):
            tokens = self.encoder.encode_fbank(fbank, frame_mask, self.config.tapped_layer)
        return self.bridge(*self.downsample(tokens.hidden, tokens.mask))

    def _with_silence(self, waveform: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Clips shorter than ``min_seconds`` become that long; the silence counts as real."""
        n_samples = round(self.config.min_seconds * SAMPLE_RATE)
        if n_samples == 0:
            return waveform, mask
        missing = max(0, n_samples - waveform.shape[1])
        if mask is not None:
            waveform = F.pad(waveform.masked_fill(~mask, 0.0), (0, missing))
            mask = F.pad(mask, (0, missing))
            return waveform, mask | (torch.arange(mask.shape[1], device=mask.device) < n_samples)
        return F.pad(waveform, (0, missing)), None

    def downsample(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Encoder tokens and mask -> one step for every ``downsample_rate`` tokens, and its mask.

        A step counts as real when all the tokens it sees are; under ``released_padding``, by BEATs' rule for masks.
        """
        rate, kernel = self.config.downsample_rate, self.config.downsample_kernel
        if rate == 1:
            return tokens, mask
        steps = self.downsample_conv(tokens.transpose(1, 2)).transpose(1, 2)
        if mask is None:
            return steps, None
        if self.config.released_padding:
            return steps, reduce_mask(mask, steps.shape[1])
        return steps, mask.unfold(1, kernel, rate).all(dim=-1)

    def bridge(self, steps: Tensor, mask: Tensor | None) -> Encoded:
        """Downsampled features (B, S, hidden_size) and mask (B, S) -> states, memory and embedding.

        Raises:
            ValueError: more steps than cross positions, or a clip without any.
        """
        n_steps, limit = steps.shape[1], self.config.max_cross_positions
        if n_steps == 0 or (mask is not None and not mask.any(dim=1).all()):
            raise ValueError("a clip is too short for a single memory step: follow it by silence")
        if n_steps > limit:
            raise ValueError(f"{n_steps} memory steps are more than the model's {limit}: split the clip into windows")
        states = self.postencoder(steps, mask)
        if self.config.conformer.hidden_size != self.config.decoder.d_model:
            states = self.enc_dec_proj(states)
        positions = self.cross_embed_positions.weight[POSITION_OFFSET : POSITION_OFFSET + n_steps]
        embedding = self.encoder_embed_mlp(pooled_mean(states, mask, self.config.released_padding))
        return Encoded(states, mask, states + positions, embedding)

    # ------------------------------------------------------------------------------------------------------- text side

    def logits(
        self, memory: Tensor, mask: Tensor | None, input_ids: Tensor, memory_of_row: Tensor | None = None
    ) -> Tensor:
        """Next-token logits after each input token, teacher-forced.

        Args:
            memory: (B, S, D).
            mask: (B, S).
            input_ids: (R, L).
            memory_of_row: (R,), the clip that each row is about; None = row i is about clip i.

        Returns:
            (R, L, V).
        """
        return self.head(self.decoder(input_ids, memory, mask, memory_of_row))

    def head(self, hidden: Tensor) -> Tensor:
        """Decoder states (..., D) -> next-token logits (..., V)."""
        return self.lm_head(hidden) + self.final_logits_bias[0]

    def shifted_right(self, labels: Tensor) -> Tensor:
        """Decoder input for labels (B, L): the start token, then all labels but the last, ignored ones as padding."""
        start = labels.new_full((len(labels), 1), self.config.decoder_start_token_id)
        shifted = torch.cat((start, labels[:, :-1]), dim=1)
        return shifted.masked_fill(shifted == IGNORED, self.config.pad_token_id)

    def negative_log_likelihood(
        self, memory: Tensor, mask: Tensor | None, labels: Tensor, memory_of_row: Tensor | None = None
    ) -> Tensor:
        """Score of captions: the mean negative log-likelihood per token, </s> included, without smoothing.

        Args:
            memory: (B, S, D).
            mask: (B, S).
            labels: (R, L), each caption's tokens and </s>, then -100.
            memory_of_row: (R,), the clip that each caption is about; None = caption i is about clip i.

        Returns:
            (R,), in nats a token.
        """
        logits = self.logits(memory, mask, self.shifted_right(labels), memory_of_row)
        token_loss = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
        return token_loss.sum(dim=1) / (labels != IGNORED).sum(dim=1)

    # -------------------------------------------------------------------------------------------------------- training

    def forward(
        self,
        waveform: Tensor,
        mask: Tensor | None,
        labels: Tensor,
        text_embeddings: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch of clips and captions: :meth:`encode`, then :meth:`losses`."""
        return self.losses(self.encode(waveform, mask, generator=generator), labels, text_embeddings)

    def losses(self, encoded: Encoded, labels: Tensor, text_embeddings: Tensor | None = None) -> dict[str, Tensor]:
        """Unweighted losses; the objective is their sum under :attr:`loss_weights`.

        Args:
            encoded: B clips.
            labels: (B, L), tokens and </s>, then -100.
            text_embeddings: (B, K), the sentence embedding of each caption; None leaves the contrastive loss out.

        Returns:
            ``cross_entropy``: mean over all tokens of the batch, label smoothing included;
            ``contrastive``: InfoNCE of :func:`text_embedding_loss`, if there are text embeddings.
        """
        logits = self.logits(encoded.memory, encoded.mask, self.shifted_right(labels))
        losses = {"cross_entropy": self.cross_entropy(logits, labels)}
        if text_embeddings is not None:
            losses["contrastive"] = text_embedding_loss(
                encoded.embedding,
                text_embeddings,
                self.config.contrastive_temperature,
                duplicates_are_negatives=self.config.duplicate_captions_are_negatives,
            )
        return losses

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Token mean of (1 - e) * nll + e * mean over the vocabulary of -log p, e = label smoothing."""
        return F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=self.config.label_smoothing
        )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each of :meth:`losses` in the training objective."""
        return {"cross_entropy": 1.0, "contrastive": self.config.contrastive_weight}


class EmbeddingHead(nn.Module):
    """Linear, BatchNorm, GELU, Linear: from the clip's mean state to the space of the sentence embeddings."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden, bias=False)
        self.bn = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, out, bias=False)

    def forward(self, mean_state: Tensor) -> Tensor:
        """(B, D) -> (B, K). A single clip has no batch statistics: it is normalised by the running ones always."""
        hidden = self.fc1(mean_state)
        if self.training and len(hidden) == 1:
            bn = self.bn
            hidden = F.batch_norm(hidden, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
        else:
            hidden = self.bn(hidden)
        return self.fc2(F.gelu(hidden))


def pooled_mean(states: Tensor, mask: Tensor | None, released_padding: bool = False) -> Tensor:
    """Mean of states (B, S, D) over real steps -> (B, D).

    The released code sums over all steps, padded ones included, and divides by the number of real ones.
    """
    if mask is None:
        return states.mean(dim=1)
    summed = states if released_padding else states.masked_fill(~mask.unsqueeze(-1), 0.0)
    return summed.sum(dim=1) / mask.sum(dim=1, keepdim=True)
