"""Sound in and out: files, file objects, arrays and tensors to float32 waveforms, and back to files.

Conventions, the same for every caller:

- A waveform is float32 in -1..1 (full scale), ``(channels, time)``, or ``(time,)`` once mixed down. Integer samples are
  divided by their full scale, whether they come from a file or in an array.
- Mono is the mean over the channels, taken at the sound's own sample rate; resampling comes after it. There is one
  resampler, soxr at its quality "HQ", in one piece (:func:`read`) or as a stream (:func:`windows`), with equal results.
- Times are in seconds, sample rates in Hz. A part (``start``, ``duration``) is cut out at the sound's own rate, then
  resampled; what reaches beyond the end is cut off, and only a part that begins beyond it is an error.
- Formats are told by content, never by suffix: libsndfile reads wav, flac, ogg, opus, mp3, aiff, caf, w64 and au;
  PyAV, if installed (``pip install 'aural[formats]'``), whatever else has sound in it (m4a, aac, webm, mp4).
- A damaged file gives what decodes, and a warning in the log ``aural``; nothing at all is an :class:`AudioError`.
- However short a sound is, it is delivered as it is: networks that need a least length pad for themselves.
"""

import io
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
import soxr

from aural.errors import AudioError, UsageError

if TYPE_CHECKING:
    import torch

Sound: TypeAlias = "str | os.PathLike[str] | BinaryIO | tuple[np.ndarray | torch.Tensor, int]"
"""A path; a binary file object (read from its beginning, whatever its position, and left open); or an array or tensor
``(time,)`` or ``(channels, time)`` with its sample rate in Hz."""

BLOCK = 8192
"""Frames decoded at a time. Damage costs at most one block of sound before it."""
SHORTEST_WINDOW = 0.1
"""A last window with less than these seconds of new sound is not made; its sound lengthens the window before it."""
MOST_CHANNELS = 64
"""An array with more rows than this is taken for ``(time, channels)`` and refused."""
LOUDEST = 100.0
"""Samples beyond this (+40 dB over full scale) are integers in disguise, not sound in -1..1."""
FULL_SCALE = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}
WRITABLE = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
"""What :func:`write` makes of each suffix: format and encoding."""
SUFFIXES = {
    *(*WRITABLE, ".wave", ".w64", ".rf64", ".au", ".snd", ".aifc", ".oga"),
    *(".m4a", ".m4b", ".aac", ".mp4", ".webm", ".mka", ".wma", ".amr", ".ac3"),
}
"""The suffixes by which sounds are found in folders."""
DEMUXERS = "aac,ac3,amr,asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,mpegts,mp3,ogg,wav,wv,ape,tta,flac,aiff,caf,au"
"""What PyAV may open: formats that hold their own sound, so none (playlists, lists of files) that point elsewhere."""

logger = logging.getLogger("aural")


@dataclass(frozen=True)
class Window:
    """A piece of a longer recording: where it starts and ends, in seconds, and its samples ``(time,)``."""

    start: float
    end: float
    waveform: np.ndarray


# ------------------------------------------------------------------------------------------------------------- reading


def read(
    sound: Sound, sample_rate: int | None = None, *, start: float = 0.0, duration: float | None = None
) -> tuple[np.ndarray, int]:
    """Read a sound with all its channels.

    Args:
        sound: see :data:`Sound`.
        sample_rate: resample to this, in Hz; ``None`` keeps the sound's own rate.
        start: where to begin, in seconds.
        duration: how much to read, in seconds; ``None`` reads to the end. Only this part is read into memory.

    Returns:
        The waveform, float32 ``(channels, time)``, and its sample rate.

    Raises:
        AudioError: the sound is missing, empty, unreadable or not finite, or ends before ``start``.
        UsageError: an array without a sample rate, or arguments out of range.
    """
    with _opened(sound) as recording:
        waveform = np.concatenate(list(_part(recording, start, duration)), axis=1)
        return _resampled(waveform, recording, sample_rate), sample_rate or recording.sample_rate


def read_mono(sound: Sound, sample_rate: int, *, start: float = 0.0, duration: float | None = None) -> np.ndarray:
    """Read a sound, mixed down to one channel, as float32 ``(time,)``; arguments and errors as for :func:`read`."""
    with _opened(sound) as recording:
        waveform = np.concatenate([_mono(block) for block in _part(recording, start, duration)])
        return _resampled(waveform[None], recording, sample_rate)[0]


def seconds(sound: Sound) -> float:
    """How long a sound is; formats that do not say it reliably are decoded and counted.

    Of a file that was cut off, this may be the length it once had.

    Raises:
        AudioError: the sound is missing, empty or unreadable.
    """
    with _opened(sound) as recording:
        frames = recording.frames
        if frames is None:
            frames = sum(block.shape[1] for block in recording.blocks(0))
        if not frames:
            raise AudioError(f"{recording.name}: holds no samples; record or export it again")
        return frames / recording.sample_rate


def windows(sound: Sound, sample_rate: int, window: float, hop: float | None = None) -> Iterator[Window]:
    """Cut a sound of any length into windows, mono and resampled, holding one window in memory.

    Windows start every ``hop`` seconds (rounded to whole samples at ``sample_rate``) until one reaches the end. The
    last one is as short as what is left, unpadded; less than :data:`SHORTEST_WINDOW` of new sound makes no window of
    its own but lengthens the one before. With ``hop`` equal to ``window``, the windows in a row are exactly what
    :func:`read_mono` gives.

    Args:
        sound: see :data:`Sound`.
        sample_rate: in Hz, of the windows.
        window: length of a window in seconds.
        hop: from the start of one to the start of the next, in seconds, at most ``window``, which is the default.

    Raises:
        AudioError: as for :func:`read`; sound that decodes before the fault is delivered first.
        UsageError: ``window`` or ``hop`` out of range.
    """
    hop = window if hop is None else hop
    if not (math.isfinite(window) and 0 < hop <= window and round(hop * sample_rate) >= 1):
        raise UsageError(f"windows of {window} s every {hop} s would not cover a sound: choose 0 < hop <= window")
    return _windows(sound, sample_rate, round(window * sample_rate), round(hop * sample_rate))


def _windows(sound: Sound, sample_rate: int, size: int, step: int) -> Iterator[Window]:
    """The windows of ``size`` samples every ``step`` samples."""
    enough = size + math.ceil(SHORTEST_WINDOW * sample_rate)
    waiting = np.empty(0, np.float32)
    arrived: list[np.ndarray] = []
    first = 0

    def cut(length: int) -> Window:
        # A copy, so that a window that is kept does not keep the rest of the buffer.
        return Window(first / sample_rate, (first + length) / sample_rate, waiting[:length].copy())

    with _opened(sound) as recording:
        for piece in _resampled_stream(recording, sample_rate):
            arrived.append(piece)
            if len(waiting) + sum(map(len, arrived)) < enough:
                continue
            waiting, arrived = np.concatenate([waiting, *arrived]), []
            while len(waiting) >= enough:
                yield cut(size)
                waiting, first = waiting[step:], first + step
    waiting = np.concatenate([waiting, *arrived])
    if not first and not len(waiting):
        raise AudioError(f"{recording.name}: shorter than one sample at {sample_rate} Hz; nothing to work with")
    yield cut(len(waiting))


def _part(recording: "_Recording", start: float, duration: float | None) -> Iterator[np.ndarray]:
    """The blocks ``(channels, time)`` of a part of a recording, checked; together at least one sample long."""
    name, rate = recording.name, recording.sample_rate
    if not 0 <= start < math.inf:
        raise UsageError(f"{name}: start must be 0 s or later, not {start}")
    if duration is not None and not 0 < duration < math.inf:
        raise UsageError(f"{name}: duration must be more than 0 s, not {duration}")
    first, done = round(start * rate), 0
    wanted = None if duration is None else max(1, round(duration * rate))
    if recording.frames and recording.frames <= first:
        raise AudioError(
            f"{name}: is {recording.frames / rate:.2f} s long, nothing is left at {start} s: start earlier"
        )
    for block in recording.blocks(first):
        block = block if wanted is None else block[:, : wanted - done]
        _check_samples(block, f"{name}, from {(first + done) / rate:.2f} s")
        done += block.shape[1]
        yield block
        if done == wanted:
            return
    if not done and (first or recording.frames):
        raise AudioError(f"{name}: nothing decodes from {start} s on; it is shorter, or damaged")
    if not done:
        raise AudioError(f"{name}: holds no samples; record or export it again")
    if recording.frames and first + done < recording.frames:
        logger.warning(
            "%s: damaged or cut off: %.2f of %.2f s are used", name, (first + done) / rate, recording.frames / rate
        )


def _check_samples(block: np.ndarray, where: str) -> None:
    peak = float(np.abs(block).max(initial=0.0))
    if not math.isfinite(peak):
        raise AudioError(f"{where}: has samples that are infinite or not a number; replace them (numpy.nan_to_num)")
    if peak > LOUDEST:
        raise AudioError(f"{where}: samples reach {peak:.0f}, where sound lies in -1..1; divide by the full scale")


def _mono(block: np.ndarray) -> np.ndarray:
    """Mix ``(channels, time)`` down to ``(time,)``: the mean over channels."""
    return np.ascontiguousarray(block[0]) if len(block) == 1 else block.mean(axis=0)


def _resampled(waveform: np.ndarray, recording: "_Recording", sample_rate: int | None) -> np.ndarray:
    """``(channels, time)`` at the recording's rate to ``sample_rate``."""
    if sample_rate is None or sample_rate == recording.sample_rate:
        return waveform
    resampled = soxr.resample(waveform.T, recording.sample_rate, sample_rate, quality="HQ").T
    if not resampled.shape[1]:
        raise AudioError(f"{recording.name}: shorter than one sample at {sample_rate} Hz; nothing to work with")
    return np.ascontiguousarray(resampled)


def _resampled_stream(recording: "_Recording", sample_rate: int) -> Iterator[np.ndarray]:
    """The whole recording, mono, at ``sample_rate``, piece by piece ``(time,)``."""
    pieces = (_mono(block) for block in _part(recording, 0.0, None))
    if sample_rate == recording.sample_rate:
        yield from pieces
        return
    stream = soxr.ResampleStream(recording.sample_rate, sample_rate, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


# ------------------------------------------------------------------------------------------------------------- opening


@dataclass(frozen=True)
class _Recording:
    """An opened sound. ``blocks(first)``, to be called once, gives it from that frame on, ``(channels, time)`` each."""

    name: str
    sample_rate: int
    frames: int | None  # None: known only after decoding all of it
    blocks: Callable[[int], Iterator[np.ndarray]]

    def __post_init__(self) -> None:
        if not 100 <= self.sample_rate <= 10_000_000:
            raise AudioError(f"{self.name}: has a sample rate of {self.sample_rate} Hz, which cannot be; correct it")


@contextmanager
def _opened(sound: Sound) -> Iterator[_Recording]:
    if isinstance(sound, tuple):
        yield _array_recording(*_checked_array(sound))
        return
    with binary_file(sound) as (file, name):
        try:
            decoder = soundfile.SoundFile(file)
        except (soundfile.LibsndfileError, TypeError):
            decoder = None
        with ExitStack() as stack:
            if decoder is not None:
                yield _sndfile_recording(stack.enter_context(decoder), name)
            else:
                yield _container_recording(stack.enter_context(_container(file, name)), name)


@contextmanager
def binary_file(sound: Any) -> Iterator[tuple[BinaryIO, str]]:
    """A seekable file, at its beginning, and what to call it in errors; closed after use if opened here."""
    if isinstance(sound, (str, os.PathLike)):
        name = os.fspath(sound)
        if "://" in name:
            raise AudioError(f"{name}: addresses are not fetched; download the sound and pass its path")
        with _open_path(name) as file:
            yield (file if file.seekable() else io.BytesIO(file.read())), name
    elif hasattr(sound, "read") and not isinstance(sound, io.TextIOBase):
        given = getattr(sound, "name", None)
        file = sound if sound.seekable() else io.BytesIO(sound.read())
        name = given if isinstance(given, str) else "the given file object"
        if not file.seek(0, io.SEEK_END) and not file.tell():
            raise AudioError(f"{name}: is empty (0 bytes); record or copy it again")
        file.seek(0)
        yield file, name
    elif hasattr(sound, "shape"):
        raise UsageError("an array of samples needs its sample rate: pass (array, sample_rate)")
    else:
        raise UsageError(
            f"a sound is a path, a binary file object or (array, sample_rate), not a {type(sound).__name__}"
        )


def _open_path(path: str) -> BinaryIO:
    try:
        # By descriptor, because libsndfile takes suffixes such as .raw, .au or .vox for a format if it sees them.
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")
        if file.seekable() and not os.fstat(file.fileno()).st_size:
            file.close()
            raise AudioError(f"{path}: is empty (0 bytes); record or copy it again")
        return file
    except FileNotFoundError:
        raise AudioError(f"{path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a folder; pass the sounds in it") from None
    except PermissionError:
        raise AudioError(f"{path}: may not be read; check its permissions") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None


def _sndfile_recording(decoder: soundfile.SoundFile, name: str) -> _Recording:
    def blocks(first: int) -> Iterator[np.ndarray]:
        try:
            if first:
                decoder.seek(first)
            while len(block := decoder.read(BLOCK, dtype="float32", always_2d=True)):
                yield block.T
        except soundfile.LibsndfileError as error:
            logger.debug("%s: %s", name, error)

    # A FLAC stream of unknown length announces the largest number there is.
    frames = decoder.frames if decoder.frames < 2**62 else None
    return _Recording(name, decoder.samplerate, frames, blocks)


def _container(file: BinaryIO, name: str) -> Any:
    """Open with PyAV what libsndfile does not know."""
    try:
        import av
    except ImportError:
        raise AudioError(
            f"{name}: is no sound that can be read; if it is m4a, aac, webm or video: pip install 'aural[formats]'"
        ) from None
    file.seek(0)
    try:
        return closing(av.open(file, metadata_errors="ignore", options={"format_whitelist": DEMUXERS}))
    except (av.FFmpegError, ValueError):
        raise AudioError(f"{name}: is not a sound file, or is damaged; convert it to wav or flac") from None


def _container_recording(container: Any, name: str) -> _Recording:
    import av

    if not container.streams.audio:
        raise AudioError(f"{name}: has no sound track; pass a file with sound")
    frames = container.decode(audio=0)
    try:
        # The stream's header may give half the true rate (AAC with spectral band replication); the first frame knows.
        head = next(frames)
    except (av.FFmpegError, StopIteration):
        raise AudioError(f"{name}: none of its sound can be decoded; convert it to wav or flac") from None

    def converter() -> Any:
        return av.AudioResampler(format="fltp", layout=head.layout, rate=head.sample_rate)

    def form(frame: Any) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    def decoded() -> Iterator[np.ndarray]:
        now, convert = form(head), converter()
        try:
            for frame in chain([head], frames):
                if form(frame) != now:  # as where streams were joined; the converter goes by the first frame it got
                    yield from (part.to_ndarray() for part in convert.resample(None))
                    now, convert = form(frame), converter()
                yield from (part.to_ndarray() for part in convert.resample(frame))
            yield from (part.to_ndarray() for part in convert.resample(None))
        except (av.FFmpegError, ValueError) as error:
            logger.warning("%s: damaged; only what comes before is used (%s)", name, error)

    def blocks(first: int) -> Iterator[np.ndarray]:
        # No seeking: in these formats it is exact to a packet only.
        for block in decoded():
            if block.shape[1] > first:
                yield block[:, first:]
            first = max(0, first - block.shape[1])

    return _Recording(name, head.sample_rate, None, blocks)


def _array_recording(waveform: np.ndarray, sample_rate: int) -> _Recording:
    def blocks(first: int) -> Iterator[np.ndarray]:
        for place in range(first, waveform.shape[1], BLOCK):
            yield waveform[:, place : place + BLOCK]

    return _Recording("the given array", sample_rate, waveform.shape[1], blocks)


def _checked_array(sound: Any) -> tuple[np.ndarray, int]:
    """``(array, sample_rate)`` as float32 ``(channels, time)`` in -1..1 and an int."""
    if len(sound) != 2 or not hasattr(sound[0], "ndim") or not isinstance(sound[1], (int, float, np.number)):
        raise UsageError("a tuple is a sound if it is (array, sample_rate), in this order")
    array: Any = sound[0]
    sample_rate = int(sound[1]) if math.isfinite(sound[1]) else 0
    if sample_rate < 1 or sample_rate != sound[1]:
        raise UsageError(f"the sample rate of an array must be a whole number of Hz, not {sound[1]}")
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 0 < len(array) <= MOST_CHANNELS):
        raise AudioError(f"an array of shape {array.shape} is not (time,) or (channels, time); transpose or index it")
    kind = str(array.dtype)
    if kind == "uint8":
        array = (array.astype(np.float32) - 128.0) / 128.0
    elif kind in FULL_SCALE:
        array = array / np.float64(FULL_SCALE[kind])
    elif array.dtype.kind != "f":
        raise AudioError(f"samples of type {kind} have no agreed full scale; convert them to floats in -1..1")
    with np.errstate(over="ignore"):
        return np.atleast_2d(array.astype(np.float32, copy=False)), sample_rate


# ------------------------------------------------------------------------------------------------------------- writing


def write(path: str | os.PathLike[str], waveform: "np.ndarray | torch.Tensor", sample_rate: int) -> None:
    """Write a waveform; the suffix decides the format (:data:`WRITABLE`; wav, flac, aiff and caf with 16 bits).

    Samples beyond -1..1 are clipped. 16-bit files hold ``round(sample * 32768)``, so writing what was read from one
    gives the same samples again. The file appears under its name when it is complete.

    Args:
        path: in a folder that exists.
        waveform: ``(channels, time)`` or ``(time,)``; any type that :func:`read` takes.
        sample_rate: in Hz.

    Raises:
        AudioError: no samples, samples that are not finite, or a sample rate that the format does not have.
        UsageError: unknown suffix, or the file cannot be made there.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise UsageError(f"{path}: unknown format {path.suffix!r}; choose one of {', '.join(WRITABLE)}")
    container, encoding = WRITABLE[path.suffix.lower()]
    samples, rate = _checked_array((waveform, sample_rate))
    if not samples.size:
        raise AudioError(f"{path}: there are no samples to write")
    _check_samples(samples, str(path))
    samples = samples.clip(-1.0, 1.0)
    if encoding == "PCM_16":
        samples = np.round(samples * 32768.0).clip(-32768, 32767).astype(np.int16)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with soundfile.SoundFile(
            temporary, "w", samplerate=rate, channels=len(samples), format=container, subtype=encoding
        ) as file:
            for place in range(0, samples.shape[1], BLOCK):  # libsndfile overflows its stack on long Vorbis writes
                file.write(samples[:, place : place + BLOCK].T)
        temporary.replace(path)
    except soundfile.LibsndfileError as error:
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise UsageError(f"{path}: cannot be made; is {path.parent} a folder you may write in?") from None
        raise AudioError(
            f"{path}: {container} cannot hold {len(samples)} channels at {rate} Hz ({error.error_string.rstrip('.')}); "
            "write .wav or resample"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
