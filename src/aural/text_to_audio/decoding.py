"""From texts to codes: one step of all codebooks at a time, with guidance, in windows where they are long.

A step costs one token of each row, whatever stands before it: keys and values of self-attention lie in one cache that
is reserved before the first step, those of the memory are computed once. With guidance (Ho & Salimans, arXiv
2207.12598) the items are written twice in one batch, with their text and without it. A row without text has no
cross-attention: what it would find in a memory of zeros is zero.

Randomness belongs to a place, not to a step or a batch: the code of frame t and codebook k of an item is drawn by the
(t, k)-th number of the item's own seed. So an item does not depend on its company (but for the rounding of sums, on
which a draw almost never turns), writing that goes on from its own beginning comes to the same end, and a longer
generation begins as a shorter one, but for the last frames of that, over which late codebooks are alone.

Shapes: B items, R rows (B, or 2 B with guidance), K codebooks, T frames, P frames of a prompt, S steps, V codes, L
tokens of a text, D width, H heads, d = D / H. Masks are boolean, True = real.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aural.sampling import sample, top_k as keep_top_k, top_p as keep_top_p, uniforms
from aural.text_to_audio.delay_pattern import delay, undelay
from aural.text_to_audio.model import CrossMask, TokenLanguageModel, attendable, sinusoids
from aural.text_to_audio.quantized import PackedModel, Stepper, Weights, pack, pays


@dataclass(frozen=True)
class DecodingConfig:
    """How codes are chosen; the defaults are the published ones."""

    guidance: float = 3.0  # 1 = none
    temperature: float = 1.0  # 0 = the most probable code each time
    top_k: int | None = 250
    top_p: float | None = None  # where it is set, top_k does not count
    window: int | None = None  # frames that the model is to see at once; None = as many as in training
    stride: int | None = None  # frames by which windows follow one another; None = a fifth of the window, as for sounds
    cross_mask: CrossMask = "mask"
    """What padding of texts does: ``"mask"`` treats each item as if it were alone, whatever the model was trained with;
    ``"none"`` repeats what audiocraft makes of a batch."""

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ValueError: says which.
        """
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 frame, got {self.window}")


@dataclass(frozen=True)
class Text:
    """What items are to sound like: :meth:`.TokenLanguageModel.condition`'s memory (B, L, D), and its mask (B, L)."""

    memory: Tensor
    mask: Tensor


def generate(
    model: TokenLanguageModel,
    text: Text | None,
    frames: int,
    config: DecodingConfig | None = None,
    *,
    seeds: Sequence[int] = (0,),
    negative: Text | None = None,
    prompt: Tensor | None = None,
    weights: Weights | PackedModel = "float32",
) -> Tensor:
    """Codes (B, K, T) of all ``frames``, the prompt's included; arguments as for :func:`stream`."""
    written = stream(model, text, frames, config, seeds=seeds, negative=negative, prompt=prompt, weights=weights)
    return torch.cat([*([] if prompt is None else [prompt.cpu()]), *written], dim=2)


@torch.inference_mode()
def stream(
    model: TokenLanguageModel,
    text: Text | None,
    frames: int,
    config: DecodingConfig | None = None,
    *,
    seeds: Sequence[int] = (0,),
    negative: Text | None = None,
    prompt: Tensor | None = None,
    weights: Weights | PackedModel = "float32",
) -> Iterator[Tensor]:
    """Write codes, and give away each frame as soon as all its codebooks are there.

    Longer than a window, each window but the first begins with what the one before it wrote from ``stride`` frames on.

    Args:
        model: in evaluation mode.
        text: of the B items; None = none, and as many items as seeds.
        frames: T of the whole, the prompt included.
        config: how to choose; None = the published way.
        seeds: one for each item.
        negative: what guidance leads away from; None = from what has no text. Its B may be 1, for all items.
        prompt: (B, K, P), codes to go on from, at most a window.
        weights: what single steps read: weights as they are, or rounded to 8 or 4 bits, see :mod:`.quantized`. Who
            writes often with rounded weights gives what :func:`.pack` made of them, once.

    Yields:
        (B, K, 1) on the CPU, the frames after the prompt in order.

    Raises:
        ValueError: the model is in training mode, or the arguments do not fit together.
        UsageError: rounded weights are not to be had here.
    """
    config = config or DecodingConfig()
    window = config.window or model.config.window_frames
    stride = max(1, window // 5) if config.stride is None else config.stride
    if prompt is None:
        prompt = torch.empty(len(seeds), model.config.codebooks, 0, dtype=torch.long)
    _check(model, text, negative, frames, seeds, prompt, window, stride)
    codes = torch.empty(*prompt.shape[:2], frames, dtype=torch.long)
    n_known = prompt.shape[2]
    codes[:, :, :n_known] = prompt
    uniform = torch.stack([uniforms(seed, (frames, model.config.codebooks)) for seed in seeds]).transpose(1, 2)
    steps = min(frames, window) + max(model.config.delays)
    writer = Writer(model, text, negative, items=len(seeds), steps=steps, config=config, weights=weights)
    for start in range(0, max(1, frames - window + stride), stride):
        end = min(start + window, frames)
        if end == n_known:  # all of it was given
            continue
        for frame in _write(writer, codes[:, :, start:n_known], uniform[:, :, start:end], config):
            codes[:, :, n_known] = frame[:, :, 0]
            n_known += 1
            yield frame


def _check(
    model: TokenLanguageModel,
    text: Text | None,
    negative: Text | None,
    frames: int,
    seeds: Sequence[int],
    prompt: Tensor,
    window: int,
    stride: int,
) -> None:
    """Refuse arguments of :func:`stream` that do not fit together."""
    if model.training:
        raise ValueError("the language model is in training mode: call its eval() before it writes")
    if text is not None and len(text.memory) != len(seeds):
        raise ValueError(f"{len(seeds)} seeds for {len(text.memory)} texts: give one for each")
    if negative is not None and (text is None or len(negative.memory) not in (1, len(seeds))):
        raise ValueError("a negative text goes with a text: give one for all items, or one for each")
    if prompt.shape[:2] != (len(seeds), model.config.codebooks) or prompt.shape[2] > min(window, frames):
        raise ValueError(
            f"a prompt {tuple(prompt.shape)} does not fit {len(seeds)} items of {model.config.codebooks} codebooks, or "
            f"is longer than the window of {window} or the whole of {frames} frames"
        )
    if frames < 1 or not 1 <= stride <= window:
        raise ValueError(f"frames {frames} must be at least 1, and stride {stride} between 1 and the window {window}")


def _write(writer: "Writer", prompt: Tensor, uniform: Tensor, config: DecodingConfig) -> Iterator[Tensor]:
    """One window: the frames after the prompt (B, K, P), drawn by ``uniform`` (B, K, T)."""
    model = writer.model.config
    n_known, n_frames = prompt.shape[2], uniform.shape[2]
    unknown = prompt.new_full((*prompt.shape[:2], n_frames - n_known), model.special)
    sequence, mask = delay(torch.cat((prompt, unknown), dim=2), model.delays, model.special, full=True)
    draws, _ = delay(uniform, model.delays, 0, full=True)
    open_ = mask & (torch.arange(-1, sequence.shape[2] - 1) - torch.tensor(model.delays)[:, None] >= n_known)
    writer.restart()
    logits = writer.step(sequence[:, :, : n_known + 1])
    for step in range(n_known + 1, sequence.shape[2]):
        chosen = choose(logits, draws[:, :, step], config)
        sequence[:, :, step] = torch.where(open_[:, step], chosen, sequence[:, :, step])
        done = step - 1 - max(model.delays)  # the frame whose last codebook this was
        if done >= n_known:
            yield undelay(sequence[:, :, 1 + done :], model.delays, 1)[0]
        if step + 1 < sequence.shape[2]:
            logits = writer.step(sequence[:, :, step : step + 1])


def choose(logits: Tensor, uniform: Tensor, config: DecodingConfig) -> Tensor:
    """Codes (B, K) out of guided logits (B, K, V) on the CPU, each drawn by its number of ``uniform`` (B, K)."""
    if config.temperature == 0:
        return logits.argmax(dim=2)
    return sample(allowed(logits.flatten(0, 1), config), uniform.flatten()).view_as(uniform)


def allowed(logits: Tensor, config: DecodingConfig) -> Tensor:
    """Logits (R, V) by temperature and top-p, or else top-k; -inf where a code may not come.

    Top-k keeps all that equal the k-th; top-p keeps the one at which the sum first exceeds it.
    """
    logits = logits / config.temperature
    if config.top_p is not None:
        return keep_top_p(logits, config.top_p)
    return logits if config.top_k is None else keep_top_k(logits, config.top_k)


@dataclass(frozen=True)
class _Memory:
    """What some of the rows attend to."""

    rows: slice
    allowed: Tensor | None  # (B, 1, 1, L)
    keys_and_values: list[tuple[Tensor, Tensor]]  # of each layer, (B, H, L, d) each


class Writer:
    """The language model writing items step by step."""

    def __init__(
        self,
        model: TokenLanguageModel,
        text: Text | None,
        negative: Text | None,
        *,
        items: int,
        steps: int,
        config: DecodingConfig,
        weights: Weights | PackedModel = "float32",
    ) -> None:
        """Compute the memories' keys and values, and reserve room for ``steps`` steps of B ``items``.

        ``text``, ``negative`` and ``weights`` are as for :func:`stream`.
        """
        self.model = model
        self._guidance = config.guidance
        self._halves = 1 if text is None or config.guidance == 1 else 2
        self._memories = []
        for half, given in enumerate((text, negative)[: self._halves]):
            if given is not None:
                rows = slice(half * items, (half + 1) * items)
                self._memories.append(_Memory(rows, *self._read(given, items, config.cross_mask)))
        weight = model.out_norm.weight
        size = (model.config.layers, 2, self._halves * items, model.config.heads, steps)
        # 2: keys and values; beside rounded weights, those in 32 bits would be most of what a step reads
        rounded = (weights if isinstance(weights, str) else weights.weights) != "float32"
        kind = torch.bfloat16 if rounded else weight.dtype
        self._cache = weight.new_empty(*size, model.config.width // model.config.heads, dtype=kind)
        self._positions = sinusoids(steps, model.config.width, weight.device)
        self._length = 0
        self._stepper = self._fast(weights)

    def _fast(self, weights: Weights | PackedModel) -> Stepper | None:
        """What makes single steps; None = PyTorch."""
        if weights == "float32" and not pays(self.model, self._cache.shape[2]):
            return None
        packed = weights if isinstance(weights, PackedModel) else pack(self.model, weights)
        return Stepper(packed, self._cache, [(each.allowed, each.keys_and_values) for each in self._memories])

    def _read(self, text: Text, items: int, cross_mask: CrossMask) -> tuple[Tensor | None, list[tuple[Tensor, Tensor]]]:
        """What may be attended to of a text, and its keys and values in each layer."""
        device = self.model.out_norm.weight.device
        memory, mask = (each.to(device).expand(items, *each.shape[1:]) for each in (text.memory, text.mask))
        layers = [layer.cross_attention.keys_and_values(memory) for layer in self.model.blocks]
        contiguous = [(keys.contiguous(), values.contiguous()) for keys, values in layers]
        return None if cross_mask == "none" or mask.all() else attendable(mask), contiguous

    def restart(self) -> None:
        """Forget what was written."""
        self._length = 0

    def step(self, sequence: Tensor) -> Tensor:
        """Append steps (B, K, n), several only at the start -> guided logits (B, K, V) of the step to come, on the CPU.

        Raises:
            ValueError: there is no room for them.
        """
        begin, end = self._length, self._length + sequence.shape[2]
        if end > self._cache.shape[4] or (begin and end > begin + 1):
            raise ValueError(f"no room for steps {begin} to {end} of {self._cache.shape[4]}: they come one by one")
        hidden = self.model.embed(sequence.to(self._cache.device), self._positions[begin:end])  # (B, n, D)
        hidden = hidden.repeat(self._halves, 1, 1)  # (R, n, D)
        self._length = end
        if self._stepper is not None and end == begin + 1:
            logits = self._stepper.step(hidden[:, 0], begin)
        else:
            logits = self._transform(hidden, begin, end)
        if self._halves == 1:
            return logits.cpu()
        towards, away = logits.chunk(2)
        return (away + self._guidance * (towards - away)).cpu()

    def _transform(self, hidden: Tensor, begin: int, end: int) -> Tensor:
        """Input (R, n, D) of the steps from ``begin`` to ``end`` -> logits (R, K, V) of the last."""
        for i, (layer, (cached_keys, cached_values)) in enumerate(zip(self.model.blocks, self._cache, strict=True)):
            attention = layer.self_attn
            queries, keys, values = attention.queries_keys_values(layer.norm1(hidden))
            cached_keys[:, :, begin:end], cached_values[:, :, begin:end] = keys, values
            known = (each[:, :, :end].to(queries.dtype) for each in (cached_keys, cached_values))
            hidden = hidden + attention.attend(queries, *known, causal=end > begin + 1)
            for memory in self._memories:
                cross = layer.cross_attention
                queries = cross.queries(layer.norm_cross(hidden[memory.rows]))
                hidden[memory.rows] += cross.attend(queries, *memory.keys_and_values[i], allowed=memory.allowed)
            hidden = hidden + layer.feed_forward(hidden)
        return self.model.logits(self.model.out_norm(hidden[:, -1:]))[:, :, 0].float()
