"""Long sounds through a codec, window by window: what comes out is what the whole sound at once would give.

Convolutions see a few frames around their own, and the LSTM all that came before. So each window is given as many
frames more on both sides as the convolutions reach, of which nothing is kept, and the LSTM goes on from the state in
which the window before has left it. There is nothing to cross-fade: no sample depends on where windows begin, beyond
rounding. The true beginning and end of a sound are padded as the codec pads them.

Sounds may also come and go block by block, as they are recorded or generated. What was handed on so far lags behind by
as many frames as the convolutions look ahead, none if the codec is causal and pads with zeros.

Shapes: B clips, C channels, N samples, T frames, k codebooks.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from aural.networks.encodec import Encodec, LstmState, PaddedConv, ResidualBlock, ResidualLstm, TrimmedConvTranspose

WINDOW_FRAMES = 500
"""Ten seconds: enough that what is computed twice, a few frames a window, costs under two percent."""


def encode_windows(
    codec: Encodec, waveform: Tensor, n_codebooks: int | None = None, *, window: int = WINDOW_FRAMES
) -> Tensor:
    """:meth:`aural.networks.encodec.Encodec.encode` of a long sound: (B, C, N) -> (B, k, T).

    Args:
        codec: in evaluation mode.
        waveform: (B, C, N)
        n_codebooks: how many; None = all.
        window: frames that are encoded at once.
    """
    blocks = waveform.split(window * codec.config.hop, dim=2)
    return torch.cat(list(encode_blocks(codec, blocks, n_codebooks)), dim=2)


def decode_windows(codec: Encodec, codes: Tensor, *, window: int = WINDOW_FRAMES) -> Tensor:
    """:meth:`aural.networks.encodec.Encodec.decode` of a long sound: (B, k, T) -> (B, C, T hop)."""
    return torch.cat(list(decode_blocks(codec, codes.split(window, dim=2))), dim=2)


@torch.no_grad()
def encode_blocks(codec: Encodec, blocks: Iterable[Tensor], n_codebooks: int | None = None) -> Iterator[Tensor]:
    """Encode a sound that comes in blocks.

    Args:
        codec: in evaluation mode.
        blocks: (B, C, any number of samples), one after the other.
        n_codebooks: how many; None = all.

    Yields:
        Codes (B, k, any number of frames), one after the other.
    """
    hop, layers = codec.config.hop, list(codec.encoder.layers)
    at = next((i for i, layer in enumerate(layers) if isinstance(layer, ResidualLstm)), len(layers))
    way = _Way(_Reach(layers[:at], hop, 1, step=1), layers[at : at + 1], _Reach(layers[at + 1 :], 1, 1, step=hop))
    for latent in way.run(blocks):
        yield codec.quantizer.encode(latent, n_codebooks)


@torch.no_grad()
def decode_blocks(codec: Encodec, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Decode codes that come in blocks, such as while they are being generated.

    Args:
        codec: in evaluation mode.
        blocks: (B, k, any number of frames), one after the other.

    Yields:
        Waveforms (B, C, any number of frames times hop), one after the other.
    """
    hop, layers = codec.config.hop, list(codec.decoder.layers)
    at = next((i for i, layer in enumerate(layers) if isinstance(layer, ResidualLstm)), None)
    front, back = ([], layers) if at is None else (layers[:at], layers[at + 1 :])
    lstm = [] if at is None else [layers[at]]
    way = _Way(_Reach(front, 1, 1, step=hop), lstm, _Reach(back, 1, hop, step=hop))
    yield from way.run(codec.quantizer.decode(codes) for codes in blocks)


class _Way:
    """Encoder or decoder: convolutions, an LSTM or none, convolutions."""

    def __init__(self, front: "_Reach", lstm: Sequence[nn.Module], back: "_Reach") -> None:
        self.front, self.lstm, self.back = front, lstm, back
        self.state: LstmState | None = None

    def run(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The whole way, block by block; a block is held back until it is known whether it is the last."""
        held = None
        for block in blocks:
            if held is not None:
                yield from self._push(held, last=False)
            held = block
        if held is not None:
            yield from self._push(held, last=True)

    def _push(self, block: Tensor, *, last: bool) -> Iterator[Tensor]:
        x = self.front.push(block, last=last)
        for layer in self.lstm:
            assert isinstance(layer, ResidualLstm)
            if x is not None:
                x, self.state = layer.go_on(x, self.state)
        y = self.back.push(x, last=last)
        if y is not None:
            yield y


class _Reach:
    """Layers without a memory over steps that come in blocks.

    Keeps the steps that outputs to come depend on, and computes an output as soon as all it depends on is there.
    """

    def __init__(self, layers: Sequence[nn.Module], steps_in: int, steps_out: int, *, step: int) -> None:
        """Measure how far the layers see.

        Args:
            layers: one after the other.
            steps_in: of a frame.
            steps_out: of a frame.
            step: how long the first layer's steps are, in samples.
        """
        self.layers, self.steps_in, self.steps_out = layers, steps_in, steps_out
        hop, (left, right) = step * steps_in, _samples_seen(layers, step)
        self.left, self.right = -(-left // hop), -(-right // hop)
        self.kept: Tensor | None = None
        self.first = 0  # frame at which what is kept begins
        self.done = 0  # frames that have been handed on

    def push(self, x: Tensor | None, *, last: bool) -> Tensor | None:
        """The next steps (B, W, L), the last ones perhaps of part of a frame -> what has become certain (B, W', L').

        None stands for no steps.
        """
        parts = [part for part in (self.kept, x) if part is not None]
        if not parts:
            return None
        kept = torch.cat(parts, dim=2)
        there = self.first + (-(-kept.shape[2] // self.steps_in) if last else kept.shape[2] // self.steps_in)
        ready = there if last else there - self.right
        self.kept = kept
        if ready <= self.done:
            return None
        y = kept[..., : (there - self.first) * self.steps_in]
        for layer in self.layers:
            y = layer(y)
        y = y[..., (self.done - self.first) * self.steps_out : (ready - self.first) * self.steps_out]
        first = max(0, ready - self.left)
        self.kept, self.first, self.done = kept[..., (first - self.first) * self.steps_in :], first, ready
        return y


def _samples_seen(layers: Sequence[nn.Module], step: int) -> tuple[int, int]:
    """How many samples, at most, an output depends on that lie to the left and right of its frame."""
    left = right = 0
    for layer in _convolutions(layers):
        if isinstance(layer, TrimmedConvTranspose):
            left, right = left + step, right + (step if layer.left else 0)
            step //= layer.conv.stride[0]
        else:
            back, ahead = layer.left, layer.right
            if layer.pad_mode != "constant":  # what is padded at either end comes from the other side of the step
                back, ahead = max(layer.left, layer.right + layer.stride - 1), max(layer.left, layer.right)
            left, right = left + back * step, right + ahead * step
            step *= layer.stride
    return left, right


def _convolutions(layers: Sequence[nn.Module]) -> Iterator[PaddedConv | TrimmedConvTranspose]:
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            yield from _convolutions(list(layer.block))
        elif isinstance(layer, PaddedConv | TrimmedConvTranspose):
            yield layer
