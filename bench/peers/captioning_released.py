"""The released captioning pipeline as a peer: what it computes, in the way in which it computes it.

Written from descriptions of the released code, not from it: BEATs with explicit attention matrices; the Conformer and
the BART decoder that it takes from transformers (here the installed release, not the pinned 4.22); the audio encoder
run three times a clip; the memory copied for each of 50 candidates; every candidate tokenised and scored again.
It loads the weights of our captioner, whose names are the released ones.

Sampling is offered in two ways. ``cached=True`` is what transformers can do with this decoder: fused attention and
cached keys and values. ``cached=False`` is what the released pipeline does, where the cache never reaches the decoder:
each step decodes the whole prefix again, and runs the embedding head again.

Two things are ours on this side too, as the originals cannot be installed beside this PyTorch or bring nothing: the
log-mel front end, and the absence of padding masks (there is one clip and no padding).

Shapes: B clips, T frames, L tokens, D width, H heads, S memory steps, N candidates.
"""

import logging
import math
import string
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration, Wav2Vec2ConformerConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder

from aural.captioning.model import CaptionerConfig
from aural.features import beats_fbank
from aural.networks.beats import BeatsConfig

POSITION_OFFSET = 2
logging.getLogger("transformers").setLevel(logging.ERROR)


# ---------------------------------------------------------------------------------------------------------------- BEATs


class ReleasedBeats(nn.Module):
    """BEATs with an attention matrix for each head of each layer, and the gated bias written out anew in each layer."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.encoder_embed_dim, config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, width)
        self.encoder = nn.Module()
        conv = nn.Conv1d(width, width, config.conv_pos, padding=config.conv_pos // 2, groups=config.conv_pos_groups)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old weight normalisation, whose parameter names are the released ones
            conv = nn.utils.weight_norm(conv, dim=2)
        self.encoder.pos_conv = nn.ModuleList([conv])
        self.encoder.layer_norm = nn.LayerNorm(width)
        self.encoder.layers = nn.ModuleList(ReleasedBeatsLayer(config) for _ in range(config.encoder_layers))

    def forward(self, fbank: Tensor, n_layers: int | None = None) -> Tensor:
        """(B, T, mels) -> (B, L, D) after ``n_layers`` layers, None = all."""
        hidden = self.patch_embedding(fbank[:, None]).flatten(2).transpose(1, 2)
        hidden = self.post_extract_proj(self.layer_norm(hidden))
        positions = self.encoder.pos_conv[0](hidden.transpose(1, 2))
        if self.config.conv_pos % 2 == 0:
            positions = positions[:, :, :-1]
        hidden = self.encoder.layer_norm(hidden + F.gelu(positions.transpose(1, 2)))
        hidden = hidden.transpose(0, 1)  # the released layers run time first
        bias = None
        for layer in self.encoder.layers[:n_layers]:
            hidden, bias = layer(hidden, bias)
        return hidden.transpose(0, 1)


class ReleasedBeatsLayer(nn.Module):
    """Attention and feed-forward, post-norm with DeepNorm's factor."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attn = ReleasedBeatsAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """(L, B, D), bias (B * H, L, L) of the layer before -> the same of this one."""
        attended, bias = self.self_attn(hidden, bias)
        hidden = self.self_attn_layer_norm(self.alpha * hidden + attended)
        return self.final_layer_norm(self.alpha * hidden + self.fc2(F.gelu(self.fc1(hidden)))), bias


class ReleasedBeatsAttention(nn.Module):
    """softmax(q k / sqrt(d) + gate x relative bias) v, with the products scaled by 1/32 and back as for float16."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.config = config
        self.n_heads = config.encoder_attention_heads
        self.head_size = width // self.n_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.grep_linear = nn.Linear(self.head_size, 8)
        self.grep_a = nn.Parameter(torch.ones(1, self.n_heads, 1, 1))
        self.relative_attention_bias = nn.Embedding(config.num_buckets, self.n_heads)

    def forward(self, hidden: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """(L, B, D), bias (B * H, L, L) or None -> (L, B, D) and the bias."""
        length, n_clips, width = hidden.shape
        if bias is None:
            bias = self._bias(length).unsqueeze(0).repeat(n_clips, 1, 1, 1).view(-1, length, length)
        scale = 32.0
        query = self.q_proj(hidden) * (self.head_size**-0.5 / scale)
        query, key, value = (
            each.contiguous().view(length, n_clips * self.n_heads, self.head_size).transpose(0, 1)
            for each in (query, self.k_proj(hidden), self.v_proj(hidden))
        )
        scores = torch.bmm(query, key.transpose(1, 2))
        scores = (scores - scores.max(dim=-1, keepdim=True)[0]) * scale
        unscaled = query.view(n_clips, self.n_heads, length, self.head_size) * (scale * self.head_size**0.5)
        gates = torch.sigmoid(self.grep_linear(unscaled).view(n_clips, self.n_heads, length, 2, 4).sum(-1))
        a, b = gates.chunk(2, dim=-1)
        gate = a * (b * self.grep_a - 1.0) + 2.0
        scores = scores + gate.view(n_clips * self.n_heads, -1, 1) * bias
        attended = torch.bmm(F.softmax(scores, dim=-1), value)
        return self.out_proj(attended.transpose(0, 1).contiguous().view(length, n_clips, width)), bias

    def _bias(self, length: int) -> Tensor:
        """(H, L, L)."""
        steps = torch.arange(length)
        distance = steps[None, :] - steps[:, None]
        half = self.config.num_buckets // 2
        exact = half // 2
        far = torch.log(distance.abs().float() / exact) / math.log(self.config.max_distance / exact) * (half - exact)
        far = (exact + far.clamp(min=-exact).long()).clamp(max=half - 1)
        bucket = (distance > 0).long() * half + torch.where(distance.abs() < exact, distance.abs(), far)
        return self.relative_attention_bias(bucket).permute(2, 0, 1)


# ----------------------------------------------------------------------------------------------------- the whole of it


class ReleasedCaptioner(nn.Module):
    """Encoding, sampling and reranking of one clip."""

    def __init__(self, config: CaptionerConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        """Build from a config of ours; ``weights`` is the state dict of our captioner, None = leave them random."""
        super().__init__()
        assert config.beats is not None
        self.config = config
        bart, sizes = config.decoder, config.conformer
        width, rate = bart.d_model, config.downsample_rate
        self.encoder = ReleasedBeats(config.beats)
        self.downsample_conv = nn.Conv1d(config.encoder_width, sizes.hidden_size, round(rate * 1.5), rate)
        self.postencoder = Wav2Vec2ConformerEncoder(
            Wav2Vec2ConformerConfig(
                hidden_size=sizes.hidden_size,
                num_hidden_layers=sizes.num_hidden_layers,
                num_attention_heads=sizes.num_attention_heads,
                intermediate_size=sizes.intermediate_size,
                conv_depthwise_kernel_size=sizes.conv_depthwise_kernel_size,
                hidden_act="swish",
                position_embeddings_type="relative",
                max_source_positions=1536,
                attn_implementation="eager",  # unset, the library masks wrongly
            )
        )
        del self.postencoder.pos_conv_embed  # no forward pass uses it
        hidden = config.embedding_ffn_dim
        self.encoder_embed_mlp = nn.Sequential()
        self.encoder_embed_mlp.add_module("fc1", nn.Linear(width, hidden, bias=False))
        self.encoder_embed_mlp.add_module("bn", nn.BatchNorm1d(hidden))
        self.encoder_embed_mlp.add_module("gelu", nn.GELU())
        self.encoder_embed_mlp.add_module("fc2", nn.Linear(hidden, config.embedding_dim, bias=False))
        self.cross_embed_positions = nn.Embedding(config.max_cross_positions + POSITION_OFFSET, width)
        self.bart = BartForConditionalGeneration(
            BartConfig(
                vocab_size=bart.vocab_size,
                d_model=width,
                encoder_layers=0,
                decoder_layers=bart.layers,
                decoder_attention_heads=bart.heads,
                decoder_ffn_dim=bart.ffn_dim,
                max_position_embeddings=bart.max_positions,
                decoder_start_token_id=config.decoder_start_token_id,
                eos_token_id=config.eos_token_id,
                pad_token_id=config.pad_token_id,
            )
        )
        if weights is not None:
            self._load(weights)
        self.eval().requires_grad_(False)

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        renamed = {
            f"bart.model.{name}" if name.startswith("decoder.") else name: tensor
            for name, tensor in weights.items()
            if not name.startswith(("encoder.predictor.", "postencoder.pos_conv_embed."))
        }
        for name in ("lm_head.weight", "final_logits_bias"):
            renamed[f"bart.{name}"] = renamed.pop(name)
        missing, unexpected = self.load_state_dict(renamed, strict=False)
        missing = [name for name in missing if not name.startswith(("bart.model.shared.", "bart.model.encoder."))]
        assert not missing and not unexpected, (missing, unexpected)

    def encode(self, waveform: Tensor) -> Tensor:
        """(1, samples) -> encoder output (1, S, D)."""
        tokens = self.encoder(beats_fbank(waveform), self.config.tapped_layer)
        return self.postencoder(self.downsample_conv(tokens.transpose(1, 2)).transpose(1, 2)).last_hidden_state

    def memory(self, states: Tensor) -> Tensor:
        """What the decoder attends to: (1, S, D) with positions."""
        return states + self.cross_embed_positions.weight[POSITION_OFFSET : POSITION_OFFSET + states.shape[1]]

    def sample(self, states: Tensor, n: int, *, cached: bool, length: int, do_sample: bool = True) -> Tensor:
        """Draw ``n`` captions of exactly ``length`` tokens, start and end included -> ids (n, length)."""
        self.bart.set_attn_implementation("sdpa" if cached else "eager")
        warpers = {"temperature": 0.5, "top_k": 50, "top_p": 0.95} if do_sample else {}
        each_step = None if cached else self.bart.register_forward_pre_hook(self._embed_again, with_kwargs=True)
        ids: Tensor = self.bart.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.memory(states)),
            do_sample=do_sample,
            num_beams=1,
            num_return_sequences=n,
            no_repeat_ngram_size=3,
            min_length=length - 1,
            max_length=length,
            forced_eos_token_id=self.config.eos_token_id,
            use_cache=cached,
            **warpers,
        )
        if each_step is not None:
            each_step.remove()
        return ids

    def _embed_again(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the released model does in each of its forward passes, used or not."""
        self.encoder_embed_mlp(kwargs["encoder_outputs"].last_hidden_state.mean(dim=1))

    def negative_log_likelihood(self, states: Tensor, texts: list[str], tokenizer: Tokenizer) -> Tensor:
        """Mean over tokens, end token included, (n,): all texts in one pass, each with a copy of the memory."""
        rows = [torch.tensor([*tokenizer.encode(text, add_special_tokens=False).ids, 2]) for text in texts]
        labels = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        memory = BaseModelOutput(last_hidden_state=self.memory(states).repeat(len(texts), 1, 1))
        self.bart.set_attn_implementation("eager")
        logits = self.bart(encoder_outputs=memory, labels=labels, use_cache=False).logits
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
        return losses.sum(1) / (labels != -100).sum(1)

    def caption(
        self, waveform: Tensor, tokenizer: Tokenizer, text_embeddings: Tensor, *, n: int, length: int, cached: bool
    ) -> list[tuple[float, str]]:
        """One clip (1, samples) -> captions and their scores, best first; (n, K) stands in for the text encoder."""
        ids = self.sample(self.encode(waveform), n, cached=cached, length=length)
        texts = [clean(text) for text in tokenizer.decode_batch(ids.tolist())]
        return self.rank(waveform, texts, tokenizer, text_embeddings)

    def rank(
        self, waveform: Tensor, texts: list[str], tokenizer: Tokenizer, text_embeddings: Tensor
    ) -> list[tuple[float, str]]:
        """Score captions of a clip; the clip is encoded once for each of the two scores."""
        nll = self.negative_log_likelihood(self.encode(waveform), texts, tokenizer)
        embedding = self.encoder_embed_mlp(self.encode(waveform).mean(dim=1))
        scores = -0.3 * nll + 0.7 * F.cosine_similarity(embedding, text_embeddings[: len(texts)])
        return sorted(zip(scores.tolist(), texts, strict=True), reverse=True)


def clean(text: str) -> str:
    """Text without ASCII punctuation."""
    return text.translate(str.maketrans("", "", string.punctuation)).strip()
