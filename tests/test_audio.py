"""Sounds in and out: every format, every way to name a sound, every kind of damage."""

import io
import logging
import os
import struct
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import piped_sounds
import pytest
import soundfile
import torch
from hypothesis import given, settings, strategies as st

import aural
from aural.audio import WRITABLE, read, read_mono, seconds, windows, write
from aural.errors import AudioError, UsageError
from aural.sound_source import rewindable

RATE = 44100
EXAMPLES = sorted((Path(aural.__file__).parent / "examples").glob("*.ogg"))


def tones(duration: float = 1.5, rate: int = RATE) -> np.ndarray:
    """(2, time): a tone rising from 300 Hz on the left, noise on the right."""
    time = np.arange(round(duration * rate)) / rate
    left = 0.4 * np.sin(2 * np.pi * (300 + 200 * time) * time)
    right = 0.1 * np.random.default_rng(0).standard_normal(len(time))
    return np.stack([left, right]).astype(np.float32)


def encode_aac(path: Path, waveform: np.ndarray, rate: int) -> None:
    """Write ``(channels, time)`` as AAC in the container that the suffix names."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        for place in range(0, waveform.shape[1], 1024):
            part = np.ascontiguousarray(waveform[:, place : place + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, place
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same sound in every format, by suffix."""
    folder = tmp_path_factory.mktemp("formats")
    for suffix in WRITABLE:
        write(
            folder / f"sound{suffix}",
            tones(rate=48000) if suffix == ".opus" else tones(),
            48000 if suffix == ".opus" else RATE,
        )
    soundfile.write(folder / "sound.w64", tones().T, RATE)
    encode_aac(folder / "sound.m4a", tones(), RATE)
    return {path.suffix: path for path in folder.iterdir()}


FORMATS = [*WRITABLE, ".w64", ".m4a"]


# ------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read(suffix: str, files: dict[str, Path]) -> None:
    waveform, rate = read(files[suffix])
    assert waveform.dtype == np.float32 and len(waveform) == 2
    assert rate == (48000 if suffix == ".opus" else RATE)
    mono = read_mono(files[suffix], 16000)
    # m4a ends with a whole packet
    assert len(mono) / 16000 == pytest.approx(1.5, abs=0.03 if suffix == ".m4a" else 1e-4)
    assert seconds(files[suffix]) == pytest.approx(len(mono) / 16000, abs=1e-4)
    left = read(files[suffix], 16000)[0][0]
    assert np.corrcoef(left[:24000], read(files[".wav"], 16000)[0][0])[0, 1] > 0.99


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_part_is_the_same_as_that_part_of_the_whole(suffix: str, files: dict[str, Path]) -> None:
    whole, rate = read(files[suffix])
    part, _ = read(files[suffix], start=0.7, duration=0.25)
    first = round(0.7 * rate)
    np.testing.assert_allclose(part, whole[:, first : first + round(0.25 * rate)], atol=1e-5)
    tail, _ = read(files[suffix], start=1.25, duration=100.0)
    np.testing.assert_allclose(tail, whole[:, round(1.25 * rate) :], atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_are_told_by_content(suffix: str, files: dict[str, Path], tmp_path: Path) -> None:
    expected = read_mono(files[suffix], 16000)
    for name in ("sound.raw", "sound.au", "sound.vox", "sound.txt", "sound"):
        (tmp_path / name).write_bytes(files[suffix].read_bytes())
        np.testing.assert_array_equal(read_mono(tmp_path / name, 16000), expected)


@pytest.mark.parametrize("suffix", FORMATS)
def test_paths_and_file_objects_give_the_same(suffix: str, files: dict[str, Path]) -> None:
    path = files[suffix]
    expected = read_mono(path, 16000)
    np.testing.assert_array_equal(read_mono(str(path), 16000), expected)
    data = io.BytesIO(path.read_bytes())
    data.seek(20)
    for _ in range(2):  # read from its beginning each time, and left open
        np.testing.assert_array_equal(read_mono(data, 16000), expected)
    with path.open("rb") as file:
        assert seconds(file) == seconds(path)
        np.testing.assert_array_equal(np.concatenate([w.waveform for w in windows(file, 16000, 0.4)]), expected)
        assert not file.closed


def test_pipes_are_read(files: dict[str, Path], tmp_path: Path) -> None:
    """``aural caption <(record)``: a path that can be neither sought nor opened twice."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(files[".flac"].read_bytes()))
    writer.start()
    waveform = read_mono(pipe, 16000)
    writer.join()
    np.testing.assert_array_equal(waveform, read_mono(files[".flac"], 16000))


def test_what_can_be_read_only_once_is_kept(files: dict[str, Path], tmp_path: Path) -> None:
    path = files[".wav"]
    expected = read_mono(path, 16000)
    assert rewindable(path) is path and rewindable(str(tmp_path)) == str(tmp_path)
    assert rewindable(tmp_path / "missing.wav") == tmp_path / "missing.wav"
    assert rewindable((expected, 16000))[0] is expected
    with path.open("rb") as file:
        assert rewindable(file) is file
    with piped_sounds.named(tmp_path / "pipe", path.read_bytes()) as pipe:
        of_path = rewindable(pipe)
    with piped_sounds.streamed(path.read_bytes()) as stream:
        of_stream = rewindable(stream)
    with piped_sounds.streamed(path.read_bytes()) as stream:
        of_number = rewindable(piped_sounds.by_number(stream))
    for kept in (of_path, of_stream, of_number):
        for _ in range(2):
            assert seconds(kept) == seconds(path)
            np.testing.assert_array_equal(read_mono(kept, 16000), expected)
    with pytest.raises(AudioError, match=r"pipe: is 1\.50 s long"):
        read_mono(of_path, 16000, start=100.0)
    with piped_sounds.streamed(b"") as stream, pytest.raises(AudioError, match="is empty"):
        rewindable(stream)


def test_foreign_formats_ask_for_the_extra_where_it_is_missing(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert seconds(files[".mp3"]) > 0
    with pytest.raises(AudioError, match=r"m4a: .*pip install 'aural\[formats\]'"):
        read(files[".m4a"])


def test_a_playlist_that_points_at_other_files_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    playlist = tmp_path / "list.wav"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{files['.m4a']}\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError, match="not a sound file"):
        read(playlist)
    playlist.write_text(f"ffconcat version 1.0\nfile '{files['.wav']}'\n")
    with pytest.raises(AudioError, match="not a sound file"):
        read(playlist)


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 32
        for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))):
            container.mux(packet)
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no sound track"):
        read(tmp_path / "silent.mp4")


def test_the_bundled_examples_are_five_seconds_each_and_credited() -> None:
    assert len(EXAMPLES) == 6
    assert sum(path.stat().st_size for path in EXAMPLES) < 500_000
    credits = (EXAMPLES[0].parent / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES:
        assert seconds(path) == pytest.approx(5.0, abs=0.01)
        assert np.abs(read_mono(path, 16000)).max() > 0.1
        (row,) = [line for line in credits.splitlines() if f"`{path.name}`" in line]
        assert "http" in row and "CC0" in row


# ------------------------------------------------------------------------------------------------ arrays, rates, mixing


def test_mono_is_the_mean_over_channels_before_resampling() -> None:
    waveform = tones()
    np.testing.assert_allclose(read_mono((waveform, RATE), RATE), waveform.mean(axis=0), atol=1e-7)
    mixed = waveform.mean(axis=0)
    np.testing.assert_array_equal(read_mono((waveform, RATE), 16000), read_mono((mixed, RATE), 16000))
    both, _ = read((waveform, RATE), 16000)
    np.testing.assert_allclose(both.mean(axis=0), read_mono((waveform, RATE), 16000), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_resampling_keeps_pitch_level_and_length_and_does_not_alias(rate: int) -> None:
    time = np.arange(2 * rate) / rate
    audible = np.sin(2 * np.pi * 1000 * time)
    resampled = read_mono((audible, rate), 16000)
    assert len(resampled) == 32000
    expected = np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=1e-4)
    if rate > 22050:
        too_high = read_mono((np.sin(2 * np.pi * 9500 * time), rate), 16000)
        assert np.abs(too_high[500:-500]).max() < 1e-3


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "int16", "int32", "uint8"])
def test_arrays_of_samples(dtype: str) -> None:
    waveform = tones(0.2)
    if dtype == "uint8":
        array, step = np.round(waveform * 128 + 128).clip(0, 255).astype(dtype), 1 / 128
    elif dtype.startswith("int"):
        full = -float(np.iinfo(dtype).min)
        array, step = np.round(waveform.astype(np.float64) * full).clip(-full, full - 1).astype(dtype), 1 / full
    else:
        array, step = waveform.astype(dtype), 1e-3 if dtype == "float16" else 1e-7
    result, rate = read((array, RATE))
    assert result.dtype == np.float32 and type(rate) is int and rate == RATE
    np.testing.assert_allclose(result, waveform, atol=step)


def test_integer_arrays_equal_the_file_they_came_from(tmp_path: Path) -> None:
    samples = np.array([[-32768, -1, 0, 1, 32767] * 400], np.int16)
    soundfile.write(tmp_path / "a.wav", samples.T, RATE, subtype="PCM_16")
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], read((samples, RATE))[0])


def test_tensors() -> None:
    waveform = tones(0.2)
    tensor = torch.from_numpy(waveform.copy()).requires_grad_()
    np.testing.assert_array_equal(read((tensor, RATE))[0], waveform)
    np.testing.assert_allclose(read((tensor.bfloat16(), RATE))[0], waveform, atol=2e-3)
    np.testing.assert_array_equal(read((tensor[0], RATE))[0], waveform[:1])


@pytest.mark.parametrize(
    ("sound", "error", "message"),
    [
        (np.zeros(100), UsageError, "pass \\(array, sample_rate\\)"),
        (torch.zeros(100), UsageError, "pass \\(array, sample_rate\\)"),
        ((16000, np.zeros(100)), UsageError, "in this order"),
        ((np.zeros(100), None), UsageError, "in this order"),
        ((np.zeros(100), 0), UsageError, "whole number of Hz, not 0"),
        ((np.zeros(100), float("nan")), UsageError, "whole number of Hz, not nan"),
        ((np.zeros(100), 16000.5), UsageError, "whole number of Hz"),
        ((np.zeros(100), 10), AudioError, "sample rate of 10 Hz"),
        ((np.zeros((44100, 2)), 44100), AudioError, "transpose"),
        ((np.zeros((1, 2, 100)), 44100), AudioError, "\\(channels, time\\)"),
        ((np.zeros(0), 44100), AudioError, "no samples"),
        ((np.zeros((2, 0)), 44100), AudioError, "no samples"),
        ((np.zeros((0, 9)), 44100), AudioError, "\\(channels, time\\)"),
        ((np.zeros(100, np.int64), 44100), AudioError, "int64 have no agreed full scale"),
        ((np.zeros(100, bool), 44100), AudioError, "bool have no agreed full scale"),
        ((np.array([0.0, np.nan]), 44100), AudioError, "not a number"),
        ((np.array([0.0, -np.inf]), 44100), AudioError, "infinite"),
        ((np.array([0.0, 1e300]), 44100), AudioError, "infinite"),
        ((np.array([0.0, 20000.0]), 44100), AudioError, "samples reach 20000"),
        (b"RIFF", UsageError, "not a bytes"),
        (None, UsageError, "not a NoneType"),
        (["a.wav"], UsageError, "not a list"),
        (io.StringIO("text"), UsageError, "binary file object"),
        (io.BytesIO(), AudioError, "empty \\(0 bytes\\)"),
        ("https://example.org/a.wav", AudioError, "download"),
        ("a\0b.wav", AudioError, "null"),
        ("x" * 5000, AudioError, "cannot be opened"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(sound: Any, error: type[Exception], message: str) -> None:
    for use in (lambda: read(sound), lambda: read_mono(sound, 16000), lambda: list(windows(sound, 16000, 1.0))):
        with pytest.raises(error, match=message) as raised:
            use()
        assert "\n" not in str(raised.value)


# ----------------------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty \\(0 bytes\\)"),
        (b"these are words, not sound\n" * 100, "not a sound file"),
        (b"\0" * 10000, "not a sound file"),
        (b"\xff" * 5000, "not a sound file"),
        (np.random.default_rng(1).bytes(20000), "not a sound file"),
        (b"RIFF", "not a sound file"),
    ],
)
def test_bad_content(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    for use in (read, seconds, lambda sound: list(windows(sound, 16000, 1.0))):
        with pytest.raises(AudioError, match=f"bad.wav: .*{message}") as raised:
            use(path)
        assert "\n" not in str(raised.value)
    with pytest.raises(AudioError, match=message):
        read(io.BytesIO(content))


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".caf"])
def test_a_header_without_sound(suffix: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / f"a{suffix}", np.zeros((0, 2)), RATE)
    for use in (read, seconds, lambda sound: list(windows(sound, 16000, 1.0))):
        with pytest.raises(AudioError, match="no samples"):
            use(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus"])
@pytest.mark.parametrize("kept", [0.9, 0.6])
def test_a_file_that_was_cut_off_gives_what_decodes(
    suffix: str, kept: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rate = 48000
    write(tmp_path / f"whole{suffix}", tones(3.0, rate), rate)
    data = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * kept)])
    whole, _ = read(tmp_path / f"whole{suffix}")
    with caplog.at_level(logging.WARNING, "aural"):
        part, _ = read(path)
    assert 0.3 < part.shape[1] / whole.shape[1] < kept + 0.05
    np.testing.assert_allclose(part[:, : rate // 4], whole[:, : rate // 4], atol=1e-5)
    np.testing.assert_allclose(
        np.concatenate([w.waveform for w in windows(path, 16000, 0.3)]), read_mono(path, 16000), atol=1e-4
    )
    if suffix in (".flac", ".mp3"):  # the others do not say how long they should be
        assert "damaged or cut off" in caplog.text


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_a_file_cut_off_before_any_sound(suffix: str, files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(files[suffix].read_bytes()[:150])
    with pytest.raises(AudioError, match=f"cut{suffix}"):
        read(path)


def test_damage_in_the_middle_gives_what_comes_before_it(files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(files[".flac"].read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    (tmp_path / "scratched.flac").write_bytes(data)
    part, rate = read(tmp_path / "scratched.flac")
    np.testing.assert_array_equal(part[:, : rate // 4], read(files[".flac"])[0][:, : rate // 4])


def test_samples_that_are_not_finite_in_a_file_say_where(tmp_path: Path) -> None:
    samples = np.zeros(3 * RATE, np.float32)
    samples[2 * RATE] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a.wav, from 1.\d\d s: .*not a number.*nan_to_num"):
        read(tmp_path / "a.wav")
    assert read(tmp_path / "a.wav", duration=1.0)[0].shape == (1, RATE)


def test_a_damaged_sample_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), RATE)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[24:28] = struct.pack("<I", 3)
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(AudioError, match="sample rate of 3 Hz"):
        read_mono(tmp_path / "a.wav", 16000)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nothing\.wav: there is no such file"):
        read(tmp_path / "nothing.wav")
    with pytest.raises(AudioError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(AudioError, match="cannot be opened"):
        (tmp_path / "file").touch()
        read(tmp_path / "file" / "a.wav")


def test_a_file_that_may_not_be_read(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(files[".wav"].read_bytes())
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(AudioError, match=r"secret\.wav: may not be read; check its permissions"):
            read(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        ({"start": 1.5}, AudioError, "is 1.50 s long, nothing is left at 1.5 s"),
        ({"start": 99.0}, AudioError, "start earlier"),
        ({"start": -1.0}, UsageError, "start must be 0 s or later"),
        ({"start": float("nan")}, UsageError, "start must be"),
        ({"duration": 0.0}, UsageError, "duration must be more than 0"),
        ({"duration": -1.0}, UsageError, "duration must be more than 0"),
        ({"duration": float("nan")}, UsageError, "duration must be"),
    ],
)
def test_parts_out_of_range(part: dict[str, Any], error: type[Exception], message: str, files: dict[str, Path]) -> None:
    for use in (lambda: read(files[".wav"], **part), lambda: read_mono((tones(), RATE), 16000, **part)):
        with pytest.raises(error, match=message):
            use()
    if part.get("start", 0.0) > 1.5:
        with pytest.raises(AudioError, match=r"nothing decodes from 99\.0 s on"):
            read(files[".m4a"], **part)


@pytest.mark.parametrize("n_samples", [1, 2, 16, 800])
def test_short_sounds_are_delivered_as_they_are(n_samples: int, tmp_path: Path) -> None:
    write(tmp_path / "short.wav", np.full(n_samples, 0.5), 16000)
    np.testing.assert_array_equal(read_mono(tmp_path / "short.wav", 16000), np.full(n_samples, 0.5, np.float32))
    (window,) = windows(tmp_path / "short.wav", 16000, 10.0)
    assert (window.start, window.end, len(window.waveform)) == (0.0, n_samples / 16000, n_samples)
    assert len(read_mono(tmp_path / "short.wav", 48000)) == 3 * n_samples


def test_less_than_one_sample_is_nothing() -> None:
    with pytest.raises(AudioError, match="shorter than one sample"):
        read_mono((np.zeros(1), 48000), 16000)
    with pytest.raises(AudioError, match="shorter than one sample"):
        list(windows((np.zeros(1), 48000), 16000, 1.0))


# ------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_windows_in_a_row_are_the_whole(suffix: str, rate: int, files: dict[str, Path]) -> None:
    whole = read_mono(files[suffix], rate)
    pieces = list(windows(files[suffix], rate, 0.4))
    np.testing.assert_allclose(np.concatenate([piece.waveform for piece in pieces]), whole, atol=1e-4)
    assert [piece.start for piece in pieces] == [0.0, 0.4, 0.8, 1.2]
    assert [piece.end for piece in pieces] == [0.4, 0.8, 1.2, len(whole) / rate]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    n_samples=st.integers(1, 40000),
    rate=st.sampled_from([8000, 11025, 16000]),
    window=st.integers(1, 30),
    overlap=st.floats(0.0, 0.9),
)
def test_windows_cover_everything_once_and_say_where_they_are(
    n_samples: int, rate: int, window: int, overlap: float
) -> None:
    noise = np.random.default_rng(n_samples).uniform(-1, 1, n_samples).astype(np.float32)
    size = round(window / 10 * 8000)
    step = max(1, round(size * (1 - overlap)))
    whole = read_mono((noise, rate), 8000)
    pieces = list(windows((noise, rate), 8000, window / 10, step / 8000))
    for number, piece in enumerate(pieces):
        first, last = round(piece.start * 8000), round(piece.end * 8000)
        assert first == number * step and last - first == len(piece.waveform)
        np.testing.assert_allclose(piece.waveform, whole[first:last], atol=1e-4)
    assert all(len(piece.waveform) == size for piece in pieces[:-1])
    assert round(pieces[-1].end * 8000) == len(whole)
    assert len(pieces[-1].waveform) < size + 800
    if len(pieces) > 1:  # the last has at least 0.1 s that the one before has not
        assert pieces[-1].end - pieces[-2].end >= 0.1 - 1e-9


def test_a_stream_whose_form_changes_midway_keeps_its_pitch_and_length(tmp_path: Path) -> None:
    parts = {(48000, "mono"): 440.0, (24000, "stereo"): 440.0}
    with open(tmp_path / "joined.aac", "wb") as joined:  # noqa: PTH123
        for (rate, layout), pitch in parts.items():
            part = io.BytesIO()
            with av.open(part, "w", format="adts") as container:
                stream = container.add_stream("aac", rate=rate, layout=layout)
                tone = 0.5 * np.sin(2 * np.pi * pitch * np.arange(rate) / rate, dtype=np.float32)
                channels = np.repeat(tone[None], len(stream.layout.channels), axis=0)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=layout)
                frame.sample_rate = rate
                for packet in (*stream.encode(frame), *stream.encode(None)):
                    container.mux(packet)
            joined.write(part.getvalue())
    waveform, rate = read(tmp_path / "joined.aac")
    assert rate == 48000 and len(waveform) == 1 and waveform.shape[1] == pytest.approx(2 * 48000, rel=0.1)
    for half in (waveform[0, 10000:40000], waveform[0, 56000:86000]):
        spectrum = np.abs(np.fft.rfft(half * np.hanning(len(half))))
        assert spectrum.argmax() * rate / len(half) == pytest.approx(440, abs=5)


def test_a_remnant_lengthens_the_last_window() -> None:
    assert [w.end for w in windows((np.zeros(16000 + 1599), 16000), 16000, 1.0)] == [1 + 1599 / 16000]
    assert [w.end for w in windows((np.zeros(16000 + 1600), 16000), 16000, 1.0)] == [1.0, 1.1]


@pytest.mark.parametrize(("window", "hop"), [(0.0, None), (-1.0, None), (1.0, 0.0), (1.0, 2.0), (1.0, 1e-9)])
def test_windows_that_would_not_cover_are_refused(window: float, hop: float | None) -> None:
    with pytest.raises(UsageError, match="0 < hop <= window"):
        windows((np.zeros(16000), 16000), 16000, window, hop)


def test_three_hours_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    n_bytes = 3 * 3600 * 8000 * 2
    with path.open("wb") as file:
        file.write(
            struct.pack(
                "<4sI8sIHHIIHH4sI", b"RIFF", 36 + n_bytes, b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", n_bytes
            )
        )
        file.truncate(44 + n_bytes)
    assert seconds(path) == 10800.0
    tracemalloc.start()
    pieces = [(window.start, window.end) for window in windows(path, 16000, 10.0)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pieces == [(10.0 * number, 10.0 * number + 10.0) for number in range(1080)]
    assert peak < 8e6
    tracemalloc.start()
    read_mono(path, 16000, start=10000.0, duration=5.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", list(WRITABLE))
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    waveform, rate = tones(0.5, 48000), 48000
    write(tmp_path / f"a{suffix}", waveform, rate)
    result, result_rate = read(tmp_path / f"a{suffix}")
    assert result_rate == rate and result.shape == waveform.shape
    lossless = suffix in (".wav", ".flac", ".aiff", ".aif", ".caf")
    np.testing.assert_allclose(result, waveform, atol=2e-5 if lossless else 0.5)
    assert np.corrcoef(result[0], waveform[0])[0, 1] > 0.99
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    if lossless:
        write(tmp_path / f"b{suffix}", result, rate)
        np.testing.assert_array_equal(read(tmp_path / f"b{suffix}")[0], result)


def test_writing_takes_tensors_and_one_dimension_and_clips(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]), 8000)
    full = 32767 / 32768
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], np.array([[-1, -1, 0, full, full]], np.float32))
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"


def test_long_vorbis_is_written(tmp_path: Path) -> None:
    """libsndfile crashes on a Vorbis write of millions of samples at once."""
    write(tmp_path / "long.ogg", np.zeros(3_000_000), 8000)
    assert seconds(tmp_path / "long.ogg") == 375.0


@pytest.mark.parametrize(
    ("name", "waveform", "rate", "error", "message"),
    [
        ("a.xyz", np.zeros(100), 8000, UsageError, "unknown format '.xyz'; choose one of .wav, .flac"),
        ("a", np.zeros(100), 8000, UsageError, "unknown format ''"),
        ("none/a.wav", np.zeros(100), 8000, UsageError, "folder you may write in"),
        ("a.opus", np.zeros(100), 44100, AudioError, "OGG cannot hold 1 channels at 44100 Hz"),
        ("a.wav", np.zeros(0), 8000, AudioError, "no samples"),
        ("a.wav", np.array([0.0, np.nan]), 8000, AudioError, "not a number"),
        ("a.wav", np.zeros((8000, 2)), 8000, AudioError, "transpose"),
        ("a.wav", np.zeros(10), 0, UsageError, "whole number of Hz"),
    ],
)
def test_what_cannot_be_written(
    name: str, waveform: np.ndarray, rate: int, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as raised:
        write(tmp_path / name, waveform, rate)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write(tmp_path / "a.opus", tones(0.3, 48000), 48000)
    before = (tmp_path / "a.opus").read_bytes()
    with pytest.raises(AudioError):
        write(tmp_path / "a.opus", tones(0.3), 44100)
    assert (tmp_path / "a.opus").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
