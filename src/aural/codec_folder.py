"""A codec out of its model folder: what all systems need of one that turn sound into codes, or codes into sound.

The codec is a system of its own (:mod:`aural.codec`), in which it is trained, judged and put to use on files; others
only load it here.

Shapes: B clips, N samples of one channel, T frames, K codebooks.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aural.checkpoint import find_model, load_config, load_into, load_weights, uninitialised
from aural.device import choose_device
from aural.errors import CheckpointError
from aural.networks.encodec import Encodec, EncodecConfig
from aural.networks.encodec_windows import decode_blocks, decode_windows, encode_windows

SYSTEM = "codec"
"""Name of the system in the config files of model folders."""
OWN_CODEC = "codec"
"""Folder, in the folder of a model that writes codes, of the codec that came with it."""


@dataclass(frozen=True)
class Codec:
    """A codec of one channel, ready for use."""

    name: str
    network: Encodec
    """In evaluation mode, on ``device``."""
    device: torch.device

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.network.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.network.config.hop

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.network.config.frame_rate

    @property
    def n_codebooks(self) -> int:
        """K, codes of a frame."""
        return self.network.config.quantizer.n_codebooks

    @property
    def codebook_size(self) -> int:
        """Entries of a codebook; codes lie from 0 to below it."""
        return self.network.config.quantizer.codebook_size

    @property
    def digest(self) -> str:
        """:func:`codebooks_digest` as hexadecimal digits."""
        return codebooks_digest(self.network).hex()

    def encode(self, waveform: Tensor) -> Tensor:
        """Waveforms (B, N) at ``sample_rate``, of any length -> codes (B, K, T), T = N / hop, rounded up."""
        return encode_windows(self.network, waveform.to(self.device)[:, None])

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, k, T) of the first k codebooks, k <= K -> waveforms (B, T hop), not cut to -1..1.

        Raises:
            ValueError: there are not as many codebooks.
        """
        return decode_windows(self.network, codes.to(self.device))[:, 0]

    def decode_stream(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """:meth:`decode` while codes are still being made, with the same result.

        Args:
            blocks: (B, k, any number of frames), one after the other.

        Yields:
            Waveforms (B, any number of frames times hop), some frames behind the codes until those end.
        """
        for waveform in decode_blocks(self.network, (block.to(self.device) for block in blocks)):
            yield waveform[:, 0]


def codebooks_digest(codec: Encodec) -> bytes:
    """SHA-256 of what codes mean: rates, and the codebooks' entries as float32. The decoder may go on learning."""
    config = codec.config
    digest = hashlib.sha256(f"{config.sample_rate} {config.hop}".encode())
    for codebook in codec.quantizer.codebooks:
        digest.update(codebook.embed.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return digest.digest()


def load_codec(model: str | os.PathLike[str] | None = None, *, device: str = "auto", offline: bool = False) -> Codec:
    """A codec: the one in the box, a folder, or a hub id.

    Raises:
        CheckpointError: the folder does not hold a codec of one channel, or is damaged.
        UsageError: there is no such model, or no such device.
    """
    where = choose_device(device)
    folder = find_model(model, SYSTEM, offline=offline)
    config = load_config(folder, EncodecConfig, SYSTEM)
    if config.channels != 1:
        raise CheckpointError(f"the codec in {folder} is of {config.channels} channels: take one of one channel")
    with uninitialised():
        network = Encodec(config)
    load_into(network, load_weights(folder))
    return Codec(str(model or "default"), network.to(where).eval(), where)
