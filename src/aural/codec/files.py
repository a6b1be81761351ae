"""Sounds as files of codes, ``.codes``: a header, the codes in as few whole bits as they need, and a checksum.

All numbers are little-endian::

    8 bytes   89 41 55 52 41 4C 43 0A, "AURALC" between a byte that no text has and a line feed
    uint16    version of the format, 1
    uint16    channels, each coded on its own
    uint16    codebooks of a channel
    uint32    entries of a codebook; a code has b bits, the fewest that hold the last one's number
    uint32    sample rate in Hz
    uint32    samples of a frame
    uint64    samples of a channel
    32 bytes  SHA-256 of the codebooks, see :func:`codebooks_digest`
    ...       codes, frame by frame, codebook by codebook, channel by channel, each of b bits, the highest first; then
              zero bits up to a whole byte
    uint32    CRC-32 of all before

Shapes: C channels, N samples, T frames, K codebooks.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aural.checkpoint import write_whole
from aural.codec_folder import codebooks_digest
from aural.errors import AudioError, UsageError
from aural.networks.encodec import Encodec, interleave, separate
from aural.networks.encodec_windows import WINDOW_FRAMES, decode_windows, encode_windows

MAGIC = b"\x89AURALC\n"
VERSION = 1
SUFFIX = ".codes"
_HEADER = struct.Struct("<8sHHHIIIQ32s")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class EncodedSound:
    """A sound as codes, and what is needed to make a sound of it again."""

    codes: Tensor
    """(K C, T), whole numbers; the channels of a codebook follow one another."""
    n_samples: int
    """N, of a channel; T hops or less."""
    sample_rate: int
    hop: int
    """Samples of a frame."""
    channels: int
    codebook_size: int
    digest: bytes
    """Of the codebooks that the codes point into, see :func:`codebooks_digest`."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            ValueError: says what.
        """
        if min(self.n_samples, self.sample_rate, self.hop, self.channels) < 1 or self.codebook_size < 2:
            raise ValueError("length, sample rate, hop and channels are from 1, entries of a codebook from 2")
        rows, frames = self.codes.shape
        if not rows or rows % self.channels or frames != -(-self.n_samples // self.hop):
            raise ValueError(
                f"codes {rows} x {frames} are not those of {self.channels} channels of {self.n_samples} samples, "
                f"{self.hop} a frame"
            )
        if int(self.codes.min()) < 0 or int(self.codes.max()) >= self.codebook_size:
            raise ValueError(f"there are codes outside the {self.codebook_size} entries of a codebook")

    @property
    def n_codebooks(self) -> int:
        """K, of a channel."""
        return len(self.codes) // self.channels


# -------------------------------------------------------------------------------------------------------------- sounds


def encode_sound(
    codec: Encodec, waveform: Tensor, n_codebooks: int | None = None, *, window: int = WINDOW_FRAMES
) -> EncodedSound:
    """A sound of any length as codes.

    Args:
        codec: of one channel, in evaluation mode.
        waveform: (C, N) at the codec's sample rate; each channel goes through the codec on its own.
        n_codebooks: how many, the first ones; None = all.
        window: frames that are encoded at once.

    Raises:
        UsageError: there are not as many codebooks, or the sound is empty.
    """
    config = codec.config
    if not waveform.numel():
        raise UsageError("the sound is empty: there is nothing to encode")
    if n_codebooks is not None and not 1 <= n_codebooks <= config.quantizer.n_codebooks:
        raise UsageError(f"the codec has {config.quantizer.n_codebooks} codebooks: ask for 1 to as many")
    codes = encode_windows(codec, waveform[:, None], n_codebooks, window=window)
    return EncodedSound(
        codes=interleave(codes, len(waveform))[0].cpu(),
        n_samples=waveform.shape[1],
        sample_rate=config.sample_rate,
        hop=config.hop,
        channels=len(waveform),
        codebook_size=config.quantizer.codebook_size,
        digest=codebooks_digest(codec),
    )


def decode_sound(codec: Encodec, encoded: EncodedSound, *, window: int = WINDOW_FRAMES) -> Tensor:
    """Codes as a sound again: (C, N), as long as what was encoded, not cut to -1..1.

    Raises:
        UsageError: the codes are another codec's.
    """
    if encoded.digest != codebooks_digest(codec):
        raise UsageError("the codes were made with another codec: pass --model with the one they were made with")
    device = next(codec.parameters()).device
    codes = separate(encoded.codes.to(device)[None], encoded.channels)
    return decode_windows(codec, codes, window=window)[:, 0, : encoded.n_samples]


# --------------------------------------------------------------------------------------------------------------- files


def write_codes(path: str | os.PathLike[str], encoded: EncodedSound) -> None:
    """Write a ``.codes`` file; under its name there is always either the old content or all of the new.

    Raises:
        UsageError: it cannot be written there.
    """
    write_whole(Path(path), to_bytes(encoded))


def read_codes(path: str | os.PathLike[str]) -> EncodedSound:
    """Read a ``.codes`` file, strictly.

    Raises:
        AudioError: it is missing, none of this format, of a later version, cut short or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror or error}") from error
    return from_bytes(content, name=str(path))


def to_bytes(encoded: EncodedSound) -> bytes:
    """The content of a ``.codes`` file."""
    n_bits = (encoded.codebook_size - 1).bit_length()
    codes = encoded.codes.T.contiguous().numpy().astype(np.uint32).reshape(-1, 1)
    bits = (codes >> np.arange(n_bits - 1, -1, -1, dtype=np.uint32)) & 1
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        encoded.channels,
        encoded.n_codebooks,
        encoded.codebook_size,
        encoded.sample_rate,
        encoded.hop,
        encoded.n_samples,
        encoded.digest,
    )
    content = header + np.packbits(bits.astype(np.uint8)).tobytes()
    return content + _CHECKSUM.pack(zlib.crc32(content))


def from_bytes(content: bytes, *, name: str = "the file") -> EncodedSound:
    """What :func:`to_bytes` wrote.

    Args:
        content: of the whole file.
        name: how errors call it.

    Raises:
        AudioError: as :func:`read_codes`.
    """
    if not content.startswith(MAGIC):
        raise AudioError(f"{name} is no {SUFFIX} file: give one that `aural encode` has written")
    damaged = AudioError(f"{name} is damaged or cut short: copy it again, or encode the sound again")
    if len(content) < len(MAGIC) + 2:
        raise damaged
    (version,) = struct.unpack_from("<H", content, len(MAGIC))
    if version != VERSION:
        raise AudioError(f"{name} has version {version} of the format, this aural reads {VERSION}: update aural")
    if len(content) < _HEADER.size + _CHECKSUM.size:
        raise damaged
    body, (checksum,) = content[: -_CHECKSUM.size], _CHECKSUM.unpack(content[-_CHECKSUM.size :])
    if zlib.crc32(body) != checksum:
        raise damaged
    _, _, channels, n_codebooks, codebook_size, sample_rate, hop, n_samples, digest = _HEADER.unpack_from(body)
    rows, n_bits = channels * n_codebooks, (codebook_size - 1).bit_length()
    n_frames = -(-n_samples // hop) if hop else 0
    payload = body[_HEADER.size :]
    used = rows * n_frames * n_bits
    if len(payload) != -(-used // 8):
        raise damaged
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    places = 1 << np.arange(n_bits - 1, -1, -1, dtype=np.int64)
    try:
        if bits[used:].any():
            raise damaged
        codes = bits[:used].reshape(-1, n_bits).astype(np.int64) @ places
        return EncodedSound(
            codes=torch.from_numpy(codes.reshape(n_frames, rows).T.copy()),
            n_samples=n_samples,
            sample_rate=sample_rate,
            hop=hop,
            channels=channels,
            codebook_size=codebook_size,
            digest=digest,
        )
    except ValueError:
        raise damaged from None
