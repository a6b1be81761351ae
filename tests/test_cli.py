"""The command line as a user meets it: what stands on stdout and stderr, and the exit status."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from aural import __version__
from aural.__main__ import _explain, main
from aural.audio import read_mono, write
from aural.commands.output import interruptible

RATE = 16000
QUICKLY = ("--device", "cpu", "--quiet", "--method", "greedy")
"""For what does not depend on how captions are chosen."""
RANKED = ("--device", "cpu", "--quiet", "--n-candidates", "3")
"""The default way, with fewer candidates."""


@dataclass(frozen=True)
class Outcome:
    status: object
    out: str
    err: str

    @property
    def results(self) -> list[dict[str, object]]:
        """stdout as JSON Lines; fails where anything else stands there."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """The one line on stderr."""
        assert self.err.startswith("aural: ") and self.err.count("\n") == 1 and "Traceback" not in self.err, self.err
        return self.err


@pytest.fixture
def aural(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process, with the weights of PyTorch loaded once for all tests."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(exit_.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three short sounds."""
    folder = tmp_path_factory.mktemp("sounds")
    time = np.arange(2 * RATE, dtype=np.float32) / RATE
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    write(folder / "a tone.wav", 0.3 * np.sin(2 * np.pi * 440 * time), RATE)
    write(folder / "noise.wav", 0.1 * noise, RATE)
    write(folder / "swell.wav", 0.1 * noise * time / 2, RATE)
    return folder


@pytest.fixture
def bad(tmp_path: Path) -> list[Path]:
    """A text that calls itself a sound, an empty file, and a name with nothing behind it."""
    text, empty = tmp_path / "text.wav", tmp_path / "empty.wav"
    text.write_text("this is no sound\n")
    empty.touch()
    return [text, empty, tmp_path / "missing.wav"]


# ---------------------------------------------------------------------------------------------------------- wrong usage


def test_version(aural: Callable[..., Outcome]) -> None:
    shown = aural("--version")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith(f"aural {__version__} (torch ")


def test_no_verb_shows_the_help(aural: Callable[..., Outcome]) -> None:
    shown = aural()
    assert (shown.status, shown.out) == (2, "") and "caption" in shown.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["captoin", "a.wav"], "captoin"),
        (["caption"], "PATH"),
        (["caption", "a.wav", "--bad-option"], "--bad-option"),
        (["caption", "a.wav", "--method", "guess"], "guess"),
        (["caption", "a.wav", "--device", "abacus"], "abacus"),
        (["caption", "a.wav", "--seed", "x"], "--seed"),
        (["caption", "a.wav", "--batch-size", "0"], "--batch-size"),
        (["caption", "a.wav", "--windows", "0"], "--windows"),
        (["caption", "a.wav", "--windows", "nan"], "--windows"),
        (["ask", "a.wav"], "--question"),
        (["ask", "a.wav", "--question", "is it loud?", "--describe"], "--describe"),
        (["classify", "a.wav", "--labels", "a,b", "--labels-file", "labels.txt"], "--labels-file"),
        (["classify", "a.wav", "--labels-file", "labels.txt"], "labels.txt"),
        (["evaluate", "answering", "--manifest", "m.jsonl", "--method", "hybrid"], "hybrid"),
        (["train", "no_system", "--recipe", "tiny", "-o", "out"], "no_system"),
        (["train", "captioning", "--recipe", "tiny", "-o", "out"], "--manifest"),
        (["train", "captioning", "--recipe", "no_recipe", "--manifest", "m.jsonl", "-o", "out"], "no_recipe"),
        (["prepare", "no_corpus", "folder", "-o", "m.jsonl"], "no_corpus"),
        (["prepare", "folder", "no_folder", "-o", "m.jsonl"], "no_folder"),
        (["evaluate", "captioning", "--manifest", "no.jsonl"], "no.jsonl"),
        (["convert", "no.pt", "-o", "out"], "no.pt"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_culprit(
    aural: Callable[..., Outcome], arguments: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = aural(*arguments)
    assert (refused.status, refused.out) == (2, "")
    assert named in refused.complaint
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_do(aural: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound here")
    refused = aural("caption", tmp_path)
    assert (refused.status, refused.out) == (2, "")
    assert str(tmp_path) in refused.complaint


def test_unknown_model_says_what_exists(aural: Callable[..., Outcome], sounds: Path) -> None:
    refused = aural("caption", sounds, "--model", "no-such-model")
    assert (refused.status, refused.out) == (2, "")
    assert "no-such-model" in refused.complaint


def test_unknown_hub_model_offline_says_what_to_do(aural: Callable[..., Outcome], sounds: Path) -> None:
    refused = aural("caption", sounds, "--model", "nobody/no-such-model", "--offline")
    assert (refused.status, refused.out) == (2, "")
    assert "--offline" in refused.complaint and "folder" in refused.complaint


def test_debug_adds_the_traceback(aural: Callable[..., Outcome], tmp_path: Path) -> None:
    refused = aural("convert", tmp_path / "no.pt", "-o", tmp_path / "out", "--debug")
    assert refused.status == 2
    assert "Traceback" in refused.err and refused.err.splitlines()[-1].startswith("aural: ")


def test_an_error_of_ours_is_one_line_too() -> None:
    message, status = _explain(RuntimeError("shapes differ"))
    assert status == 1 and "shapes differ" in message and "--debug" in message


# ---------------------------------------------------------------------------------------------------------- the results


def test_caption_of_one_sound_is_the_caption_alone(aural: Callable[..., Outcome], sounds: Path) -> None:
    done = aural("caption", sounds / "noise.wav", *RANKED)
    assert (done.status, done.err) == (0, "")
    assert done.out.strip() and done.out.count("\n") == 1 and "\t" not in done.out


def test_captions_of_a_folder_name_their_files(aural: Callable[..., Outcome], sounds: Path) -> None:
    done = aural("caption", sounds, *QUICKLY)
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert done.status == 0
    assert [file for file, _ in lines] == [str(path) for path in sorted(sounds.iterdir())]


def test_json_has_the_promised_fields_and_nothing_else(aural: Callable[..., Outcome], sounds: Path) -> None:
    done = aural("caption", sounds, "--json", *QUICKLY)
    assert (done.status, done.err) == (0, "")
    assert [result["file"] for result in done.results] == [str(path) for path in sorted(sounds.iterdir())]
    for result in done.results:
        assert list(result) == ["file", "caption", "score"]
        assert isinstance(result["caption"], str) and isinstance(result["score"], float)


def test_candidates_show_both_scores(aural: Callable[..., Outcome], sounds: Path) -> None:
    done = aural("caption", sounds / "noise.wav", "--json", "--candidates", *RANKED)
    (result,) = done.results
    candidates = result["candidates"]
    assert isinstance(candidates, list) and candidates
    for candidate in candidates:
        assert list(candidate) == ["caption", "log_likelihood", "similarity", "score"]
    assert result["caption"] in [candidate["caption"] for candidate in candidates]
    assert result["score"] == max(candidate["score"] for candidate in candidates)
    as_text = aural("caption", sounds / "noise.wav", "--candidates", *RANKED)
    assert all(" ".join(candidate["caption"].split()) in as_text.out for candidate in candidates)
    assert "log-likelihood" in as_text.out and "similarity" in as_text.out


def test_windows_have_times_that_cover_the_recording(aural: Callable[..., Outcome], tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    write(long, 0.1 * np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32), RATE)
    done = aural("caption", long, "--windows", "2", "--json", *QUICKLY)
    assert [list(result) for result in done.results] == [["file", "start", "end", "caption", "score"]] * 3
    starts, ends = ([result[key] for result in done.results] for key in ("start", "end"))
    assert starts[0] == 0 and ends[-1] == pytest.approx(5.0) and starts[1:] == ends[:-1]
    assert aural("caption", long, "--windows", "2", *QUICKLY).out.startswith("0.00-2.00 s\t")


def test_same_seed_gives_the_same_output_whatever_the_batch_size(aural: Callable[..., Outcome], sounds: Path) -> None:
    outputs = {
        size: aural("caption", sounds, "--json", "--candidates", "--seed", "7", "--batch-size", size, *RANKED)
        for size in ("1", "2", "3")
    }
    captions = {size: [result["caption"] for result in done.results] for size, done in outputs.items()}
    assert captions["1"] == captions["2"] == captions["3"]
    for done in outputs.values():
        for result, alone in zip(done.results, outputs["1"].results, strict=True):
            assert result["score"] == pytest.approx(alone["score"], abs=1e-4)


def test_failed_inputs_are_reported_and_the_rest_is_delivered(
    aural: Callable[..., Outcome], sounds: Path, bad: list[Path]
) -> None:
    files = [bad[0], sounds / "noise.wav", bad[1], bad[2], sounds / "swell.wav"]
    done = aural("caption", *files, "--json", *QUICKLY)
    assert done.status == 1
    assert [result["file"] for result in done.results] == [str(file) for file in files]
    assert [list(result) for result in done.results if "error" in result] == [["file", "error"]] * 3
    assert ["caption" in result for result in done.results] == [False, True, False, False, True]
    assert done.err.count("\n") == 3 and all(line.startswith("aural: ") for line in done.err.splitlines())
    assert "Traceback" not in done.err
    as_text = aural("caption", *files, *QUICKLY)
    assert as_text.status == 1 and len(as_text.out.splitlines()) == 2 and as_text.err == done.err


def test_a_name_that_is_no_text_loses_no_other(sounds: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff.wav"
    with open(odd, "wb") as file:  # noqa: PTH123 (such a name is no text)
        file.write(sorted(sounds.glob("*.wav"))[0].read_bytes())
    write(tmp_path / "z.wav", np.zeros(RATE), RATE)
    command = [sys.executable, "-m", "aural", "caption", str(tmp_path), *QUICKLY]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": os.pathsep.join(sys.path)}
    plain, as_json = (subprocess.run([*command, *more], capture_output=True, env=strict) for more in ([], ["--json"]))
    assert (plain.returncode, as_json.returncode) == (0, 0), plain.stderr + as_json.stderr
    assert [line.split(b"\t")[0] for line in plain.stdout.splitlines()] == [os.fsencode(tmp_path / "z.wav"), odd]
    named = [json.loads(line)["file"] for line in as_json.stdout.decode().splitlines()]
    assert named == [str(tmp_path / "z.wav"), os.fsdecode(odd)]


def test_only_failures_still_are_failures_not_wrong_usage(aural: Callable[..., Outcome], bad: list[Path]) -> None:
    for path in bad:
        done = aural("caption", path, *QUICKLY)
        assert (done.status, done.out) == (1, "") and path.name in done.complaint


def test_very_short_sound(aural: Callable[..., Outcome], tmp_path: Path) -> None:
    short = tmp_path / "short.wav"
    write(short, 0.1 * np.ones(RATE // 10, dtype=np.float32), RATE)
    done = aural("caption", short, *QUICKLY)
    assert done.status in (0, 1) and "Traceback" not in done.err
    assert done.out.strip() if done.status == 0 else done.complaint


def test_paths_come_from_stdin_and_globs(
    aural: Callable[..., Outcome], sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [str(sounds / "swell.wav"), str(sounds / "a tone.wav")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(listed) + "\n"))
    done = aural("caption", "-", "--json", *QUICKLY)
    assert [result["file"] for result in done.results] == listed
    done = aural("caption", str(sounds / "*o*.wav"), "--json", *QUICKLY)
    assert [result["file"] for result in done.results] == [str(sounds / "a tone.wav"), str(sounds / "noise.wav")]


def test_prepare_and_append(aural: Callable[..., Outcome], sounds: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "sounds.jsonl"
    assert aural("prepare", "folder", sounds, "-o", manifest).status == 0
    once = manifest.read_text()
    assert len(once.splitlines()) == 3
    done = aural("prepare", "folder", sounds, "-o", manifest, "--append", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert manifest.read_text() == once


# ----------------------------------------------------------------------------------------------------- as a process


def start(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "aural", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a run that was itself started in the background ignores Ctrl-C, and its children would
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,  # type: ignore[call-overload]
    )


def many(sounds: Path, folder: Path) -> list[Path]:
    links = [folder / f"{number:03}.wav" for number in range(200)]
    for link in links:
        link.symlink_to(sounds / "noise.wav")
    return links


def test_interrupt_keeps_what_is_finished(sounds: Path, tmp_path: Path) -> None:
    with start("caption", *many(sounds, tmp_path), "--json", "--batch-size", "1", *QUICKLY) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err and err.count("\n") == 1
    finished = [json.loads(line) for line in [first, *rest.splitlines()]]
    assert 1 <= len(finished) < 200 and all("caption" in result for result in finished)


def test_an_interrupt_waits_while_a_file_is_read(
    sounds: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    done = threading.Event()

    class Later(threading.Timer):
        """On a busy machine reading takes longer than it waits."""

        def run(self) -> None:
            done.wait()
            super().run()

    monkeypatch.setattr(threading, "Timer", Later)
    # A shell starts what runs in its background with interrupts ignored; then there is nothing to wait with.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )

    class Interrupting(io.BytesIO):
        def tell(self) -> int:  # called back by libsndfile, which throws away what is raised here
            signal.raise_signal(signal.SIGINT)
            return super().tell()

    whole = read_mono(sounds / "noise.wav", RATE)
    found = []
    with interruptible(), pytest.raises(KeyboardInterrupt):
        found.append(read_mono(Interrupting((sounds / "noise.wav").read_bytes()), RATE))
        done.set()
        for _ in range(1000):
            time.sleep(0.01)
        found.append(whole)  # never
    assert len(found) == 1 and np.array_equal(found[0], whole)
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_closed_pipe_is_no_drama(sounds: Path, tmp_path: Path) -> None:
    with start("caption", *many(sounds, tmp_path), "--batch-size", "1", *QUICKLY) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode != 0


def test_progress_is_drawn_on_a_terminal_only_and_results_stay_clean(sounds: Path) -> None:
    def drawn(*options: str) -> str:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "aural", "caption", str(sounds), "--json", "--method", "greedy", *options]
        out = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
        os.close(theirs)
        assert [list(json.loads(line)) for line in out.stdout.splitlines()] == [["file", "caption", "score"]] * 3
        try:
            return os.read(ours, 100_000).decode()
        except OSError:  # nothing was written
            return ""
        finally:
            os.close(ours)

    assert "%" in drawn()
    assert drawn("--quiet") == ""
