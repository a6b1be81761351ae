"""Captions of pairs of clips from a language model (a small server of our own, on this machine) or the grammar."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aural.__main__ import main
from aural.audio import write
from aural.captioning.chat import Endpoint, RefusedPromptError, ask, from_environment
from aural.captioning.data import CaptionExamples, DataSettings
from aural.captioning.mixup_captions import PROMPT, Mixup, draw_pairs, read_mixups, write_mixups
from aural.errors import AuralError, UsageError
from aural.manifest import Clip, write_manifest
from aural.sound_phrases import captions, named_sounds

KEY = "sk-very-secret"
SAID = (
    *("A dog barks", "Rain falls", "A rooster crows", "A clock ticks", "A cat meows", "Birds chirp", "A bell rings"),
    *("A man speaks", "Thunder rumbles", "A door creaks", "Music plays", "A horse gallops"),
)
Reply = tuple[int, Any, dict[str, str]]


class Server:
    """An OpenAI-compatible endpoint. ``replies`` says what the n-th request of a prompt gets; else it is answered."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.answered: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.under_way = self.most_under_way = 0
        self.replies: Callable[[str, int], Reply | None] = lambda prompt, nth: None
        self.text: Callable[[str], object] = lambda prompt: joined(prompt)
        self.hold = threading.Event()
        self.hold.set()
        self.hold_after = 10**9
        self.seconds = 0.0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                with lock:
                    outer.prompts.append(prompt)
                    outer.headers.append({"path": self.path, "model": body["model"], **dict(self.headers)})
                    outer.under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer.under_way)
                    number, nth = len(outer.prompts), outer.prompts.count(prompt)
                if number > outer.hold_after:
                    outer.hold.wait(30)
                time.sleep(outer.seconds)
                reply = outer.replies(prompt, nth) or (200, good(outer.text(prompt)), {})
                with lock:
                    outer.under_way -= 1
                    if reply[0] == 200 and isinstance(reply[1], dict):
                        outer.answered.append(prompt)
                content = reply[1] if isinstance(reply[1], bytes) else json.dumps(reply[1]).encode()
                if reply[0] == 0:  # hang up
                    self.close_connection = True
                    return
                try:
                    self.send_response(reply[0])
                    for name, value in {"Content-Length": str(len(content)), **reply[2]}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client was killed

            def do_GET(self) -> None:
                raise AssertionError("nothing is ever fetched")

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.endpoint = Endpoint(f"{self.url}/chat/completions", "parrot", KEY, timeout=10, first_wait=0.01)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def good(text: object) -> dict[str, object]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37},
    }


def joined(prompt: str) -> str:
    first, second = (line[3:].rstrip(".").lower() for line in prompt.splitlines()[1:])
    return f'"{first} while {second}."'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    yield made
    made.hold.set()
    made.http.shutdown()
    made.http.server_close()


def clip(folder: Path, number: int, **values: object) -> Clip:
    text = f"{SAID[number % len(SAID)]}."
    return replace(Clip(folder / f"{number}.wav", captions=(text,), source=f"s{number}"), **values)  # type: ignore[arg-type]


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    return [clip(tmp_path / "sounds", number) for number in range(12)]


def load(path: Path) -> Any:
    return json.loads(path.read_text())


# --------------------------------------------------------------------------------------------------------------- pairs


def test_pairs_depend_on_the_seed_and_few_are_the_first_of_many(clips: list[Clip]) -> None:
    pairs = draw_pairs(clips, 30, seed=1)
    assert draw_pairs(clips, 10, seed=1) == pairs[:10] and draw_pairs(clips, 30, seed=2) != pairs
    assert len({frozenset(pair.numbers) for pair in pairs}) == 30
    for pair in pairs:
        assert pair.captions == tuple(clips[number].captions[0] for number in pair.numbers)


def test_pairs_are_of_one_split_and_of_different_recordings_and_labels(tmp_path: Path) -> None:
    clips = [
        clip(tmp_path, n, split=f"fold{n % 2}", source=f"s{n // 4}", labels=(("dog", "cat", "cow")[n % 3],), start=0.5)
        for n in range(24)
    ]
    clips.append(Clip(tmp_path / "silent.wav", split="fold0"))
    for pair in draw_pairs(clips, 60, seed=0):
        first, second = (clips[number] for number in pair.numbers)
        assert first.split == second.split and first.source != second.source and first.labels != second.labels
    assert {clips[n].split for pair in draw_pairs(clips, 20, 0, split="fold1") for n in pair.numbers} == {"fold1"}


def test_as_many_pairs_as_there_are(clips: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    assert len(draw_pairs(clips[:3], 50, seed=0)) == 3
    assert "only 3 of 50 pairs" in caplog.text
    for few in ([], clips[:1], [replace(each, source="one") for each in clips]):
        with pytest.raises(UsageError, match="nothing to mix"):
            draw_pairs(few, 5, seed=0)


# ---------------------------------------------------------------------------------------------------- a language model


def test_the_published_layout(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    out = tmp_path / "mixups.json"
    server.seconds = 0.02
    report = write_mixups(clips, out, n=20, seed=3, endpoint=server.endpoint)
    written = load(out)
    assert written.keys() == {"billed_tokens", "used_combinations", "dataset"}
    assert written["billed_tokens"] == report.billed_tokens == report.new_tokens == 20 * 37
    assert written["used_combinations"] == [entry["selected_pair"] for entry in written["dataset"]]
    for entry in written["dataset"]:
        assert entry.keys() == {"prompt", "selected_pair", "audio_files", "true_captions", "chatgpt_mixups"}
        assert entry["prompt"].startswith(PROMPT) and all(said in entry["prompt"] for said in entry["true_captions"])
        assert entry["audio_files"] == [f"sounds/{number}.wav" for number in entry["selected_pair"]]
        first, second = (SAID[number].lower() for number in entry["selected_pair"])
        assert entry["chatgpt_mixups"] == [f"{first} while {second}."]
    assert load(tmp_path / "mixups_err.json") == []
    assert (report.pairs, report.requests, report.retries, report.cached, report.rejected) == (20, 20, 0, 0, 0)
    assert 1 < server.most_under_way <= server.endpoint.concurrency
    sent = server.headers[0]
    assert (sent["path"], sent["model"]) == ("/v1/chat/completions", "parrot")
    assert sent["Authorization"] == f"Bearer {KEY}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixups.json", "mixups_cache.jsonl", "mixups_err.json"]


def test_nothing_is_sent_twice(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    """Neither by a second run, nor for what a longer one shares with it, nor for pairs that say the same."""
    out = tmp_path / "mixups.json"
    write_mixups(clips, out, n=10, endpoint=server.endpoint)
    before = out.read_bytes()
    report = write_mixups(clips, out, n=10, endpoint=server.endpoint)
    assert (report.requests, report.cached, report.new_tokens, report.billed_tokens) == (0, 10, 0, 370)
    assert out.read_bytes() == before
    report = write_mixups(clips, out, n=15, endpoint=server.endpoint)
    assert (report.requests, report.cached, report.new_tokens, report.billed_tokens) == (5, 10, 185, 555)
    assert len(server.prompts) == len(set(server.prompts)) == 15
    alike = [replace(each, captions=(("A dog.", "A cat.")[number % 2],)) for number, each in enumerate(clips)]
    report = write_mixups(alike, tmp_path / "alike.json", n=40, endpoint=server.endpoint)
    assert report.pairs == 40 and report.requests == len(set(server.prompts)) - 15 <= 4
    report = write_mixups(clips, out, n=10, endpoint=replace(server.endpoint, model="another"))
    assert report.cached == 0  # another model's answers are its own


def test_what_passes_is_tried_again(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    troubles: list[Reply] = [
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.2"}),
        (500, b"", {}),
        (503, b"<html>busy</html>", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        (200, b"{no json", {}),
        (200, {"choices": []}, {}),
    ]
    server.replies = lambda prompt, nth: troubles[nth - 1] if nth <= len(troubles) else None
    started = time.monotonic()
    report = write_mixups(clips, tmp_path / "m.json", n=3, endpoint=server.endpoint)
    assert time.monotonic() - started >= 0.2  # Retry-After was honoured
    assert (report.requests, report.retries, report.pairs, report.billed_tokens) == (18, 15, 3, 3 * 37)
    assert set(Counter(server.prompts).values()) == {6}


def test_a_lost_connection_is_tried_again(server: Server) -> None:
    server.replies = lambda prompt, nth: (0, b"", {}) if nth == 1 else None
    assert ask(server.endpoint, f"{PROMPT}\n1. a\n2. b", threading.Event()).requests == 2


def test_giving_up_keeps_what_was_answered(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    hopeless = draw_pairs(clips, 8, 0)[5].prompt
    server.replies = lambda prompt, nth: (503, b"", {}) if prompt == hopeless else None
    patient = replace(server.endpoint, attempts=2, concurrency=1)
    with pytest.raises(AuralError, match=r"no answer in 2 attempts \(503 Service Unavailable\); try again later"):
        write_mixups(clips, out, n=8, endpoint=patient)
    assert not out.exists()
    server.replies = lambda prompt, nth: None
    assert write_mixups(clips, out, n=8, endpoint=patient).cached == 5
    assert Counter(Counter(server.prompts).values()) == {1: 7, 3: 1}


def test_what_will_not_pass_is_an_error_at_once(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    server.replies = lambda prompt, nth: (401, {"error": {"message": f"no such key: {KEY}"}}, {})
    with pytest.raises(UsageError, match=r"401 Unauthorized: no such key: \*\*\*; check AURAL_LLM_URL") as raised:
        write_mixups(clips, tmp_path / "m.json", n=50, endpoint=server.endpoint)
    assert KEY not in str(raised.value) and KEY not in repr(server.endpoint) and "\n" not in str(raised.value)
    assert len(server.prompts) <= server.endpoint.concurrency
    server.replies = lambda prompt, nth: (307, b"", {"Location": f"{server.url}/elsewhere"})
    with pytest.raises(UsageError, match="307"):
        ask(server.endpoint, "a\nb", threading.Event())
    server.replies = lambda prompt, nth: (429, b"", {"Retry-After": "86400"})
    with pytest.raises(AuralError, match="asks to come back in 86400 s"):
        ask(server.endpoint, "a\nb", threading.Event())


def test_a_prompt_that_is_refused_is_left_out(
    server: Server, clips: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = replace(server.endpoint, concurrency=1)
    bad = draw_pairs(clips, 5, 0)[3].prompt
    server.replies = lambda prompt, nth: (400, {"error": "filtered"}, {}) if prompt == bad else None
    report = write_mixups(clips, tmp_path / "m.json", n=5, endpoint=one)
    assert (report.pairs, report.refused, report.requests, len(load(tmp_path / "m.json")["dataset"])) == (4, 1, 5, 4)
    assert "refuses a prompt: 400 Bad Request: filtered" in caplog.text
    server.replies = lambda prompt, nth: (400, {"error": {"message": "unknown model"}}, {})
    with pytest.raises(RefusedPromptError, match="unknown model"):  # it has not answered any yet
        write_mixups(clips, tmp_path / "other.json", n=5, endpoint=one)


def test_bad_captions_are_rejected(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    answers = {
        "a bell rings while rain falls": None,
        "A bell rings. Rain falls.": "not one sentence",
        "Here is a mix: a bell rings in the rain": "not one sentence",
        "": "not one sentence",
        " ".join(["a very long bell"] * 7): "over 25 words",
        "a bell rings and a bell rings": "malformed",
        "a bell rings followed by a": "malformed",
        None: "not one sentence",  # as content filters answer
    }
    given = list(answers)
    order = {pair.prompt: given[i] for i, pair in enumerate(draw_pairs(clips, len(given), 0))}
    server.text = lambda prompt: order[prompt]
    out = tmp_path / "m.json"
    report = write_mixups(clips, out, n=len(given), endpoint=server.endpoint)
    expected = [{"idx": [i, 0], "why": why} for i, why in enumerate(answers.values()) if why]
    assert load(tmp_path / "m_err.json") == expected and report.rejected == 7
    assert [mixup.captions for mixup in read_mixups(out, clips)] == [("a bell rings while rain falls",)]


def test_another_fluency_detector(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    report = write_mixups(
        clips, tmp_path / "m.json", n=4, endpoint=server.endpoint, fluency=lambda texts: [1.0] * len(texts)
    )
    assert report.rejected == 4


# ------------------------------------------------------------------------------------------------------ kill and resume


def test_a_killed_run_goes_on_and_pays_each_answer_once(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    """Killed with SIGKILL while two requests are under way: only these, which were not answered, are sent again."""
    manifest, out = tmp_path / "m.jsonl", tmp_path / "mixups.json"
    write_manifest(manifest, clips)
    server.hold_after = 7
    server.hold.clear()
    code = (
        "import sys; from pathlib import Path; from aural.manifest import read_manifest;"
        "from aural.captioning.chat import Endpoint; from aural.captioning.mixup_captions import write_mixups;"
        "write_mixups(read_manifest(sys.argv[1]), Path(sys.argv[2]), n=20,"
        f"endpoint=Endpoint({server.endpoint.url!r}, 'parrot', concurrency=2))"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(manifest), str(out)])
    deadline = time.monotonic() + 60
    while len(server.prompts) < 9 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert len(server.prompts) == 9 and not out.exists()
    server.replies = lambda prompt, nth: (0, b"", {}) if nth == 1 and server.prompts.index(prompt) in (7, 8) else None
    server.hold.set()
    cache = tmp_path / "mixups_cache.jsonl"
    assert len(cache.read_text().splitlines()) == 7
    with cache.open("a") as file:
        file.write('{"model": "parrot", "prompt": "half a li')  # as of a kill in the midst of writing
    report = write_mixups(clips, out, n=20, endpoint=server.endpoint)
    assert (report.cached, report.requests, report.billed_tokens) == (7, 13, 20 * 37)
    assert sorted(Counter(server.prompts).values()) == [1] * 18 + [2] * 2
    assert len(server.answered) == len(set(server.answered)) == 20
    assert len(cache.read_text().splitlines()) == 20


def test_one_run_at_a_time(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    server.hold_after = 0
    server.hold.clear()
    first = threading.Thread(
        target=write_mixups, args=(clips, tmp_path / "m.json"), kwargs={"n": 2, "endpoint": server.endpoint}
    )
    first.start()
    while not server.prompts:
        time.sleep(0.01)
    with pytest.raises(UsageError, match="another run is filling it"):
        write_mixups(clips, tmp_path / "m.json", n=2, endpoint=server.endpoint)
    server.hold.set()
    first.join()
    assert len(server.prompts) == 2


def test_a_cache_that_is_none(server: Server, clips: list[Clip], tmp_path: Path) -> None:
    (tmp_path / "m_cache.jsonl").write_text("[]\n")
    with pytest.raises(UsageError, match=r"m_cache\.jsonl:1: is no answer; delete that line"):
        write_mixups(clips, tmp_path / "m.json", n=2, endpoint=server.endpoint)


# ------------------------------------------------------------------------------------------------------------- offline


def test_the_grammar_joins_offline(tmp_path: Path) -> None:
    labels = ("dog bark", "rain", "rooster", "clock tick")
    clips = [Clip(tmp_path / f"{n}.wav", captions=captions(label), labels=(label,)) for n, label in enumerate(labels)]
    out = tmp_path / "m.json"
    report = write_mixups(clips, out, n=6, seed=5)
    assert (report.pairs, report.requests, report.billed_tokens, report.rejected) == (6, 0, 0, 0)
    for mixup in read_mixups(out, clips):
        assert {label for each in mixup.clips for label in each.labels} == named_sounds(mixup.captions[0])
    before = out.read_bytes()
    write_mixups(clips, out, n=6, seed=5)
    assert out.read_bytes() == before and not (tmp_path / "m_cache.jsonl").exists()


# ------------------------------------------------------------------------------------------------------------- reading


def test_the_released_files_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bare names of Clotho, several captions a pair, rejects without a reason, a clip that is not there."""
    names = ("Rain on a roof.wav", "Santa Motor.wav", "toy rattle 2.wav")
    clips = [Clip(tmp_path / "clotho" / "development" / name, captions=("x",)) for name in names]
    rows = [
        {"prompt": "p", "selected_pair": [2041, 7], "audio_files": [names[0], names[1]], "true_captions": ["a", "b"]},
        {"prompt": "p", "selected_pair": [7, 99], "audio_files": [names[1], names[2]], "true_captions": ["a", "b"]},
        {"prompt": "p", "selected_pair": [1, 2], "audio_files": [names[1], "gone.wav"], "true_captions": ["a", "b"]},
    ]
    for number, row in enumerate(rows):
        row["chatgpt_mixups"] = [f"caption {number} {i}" for i in range(3)]
    path = tmp_path / "chatgpt_mixups.json"
    path.write_text(json.dumps({"billed_tokens": 3, "used_combinations": [], "dataset": rows}))
    rejects = tmp_path / "rejects.json"
    rejects.write_text(json.dumps([{"idx": [0, 1]}, {"idx": [1, 0]}, {"idx": [1, 2]}]))
    assert read_mixups(path, clips, rejects) == [
        Mixup((clips[0], clips[1]), ("caption 0 0", "caption 0 2")),
        Mixup((clips[1], clips[2]), ("caption 1 1",)),
    ]
    assert "1 pairs are left out: their clips are not all in the manifest" in caplog.text
    assert len(read_mixups(path, clips)) == 2 and len(read_mixups(path, clips[:2])) == 1


def test_clips_of_one_file_or_one_name_are_told_apart(tmp_path: Path) -> None:
    clips = [clip(tmp_path / folder, n, start=start) for folder in "ab" for n in range(3) for start in (0.0, 5.0)]
    clips = [replace(each, captions=(SAID[number],)) for number, each in enumerate(clips)]
    out = tmp_path / "m.json"
    write_mixups(clips, out, n=20)
    mixups = read_mixups(out, clips)
    numbers = [entry["selected_pair"] for entry in load(out)["dataset"]]
    assert [[clips.index(each) for each in mixup.clips] for mixup in mixups] == numbers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("{", "is no JSON"),
        ("[]", "entry 0 is not laid out"),
        ('{"dataset": [{"audio_files": ["a.wav"], "selected_pair": [0, 1], "chatgpt_mixups": []}]}', "entry 0 is not"),
        ('{"dataset": []}', "holds no mix-up of the clips"),
    ],
)
def test_files_that_cannot_be_used(content: str | None, message: str, tmp_path: Path, clips: list[Clip]) -> None:
    path = tmp_path / "m.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message) as raised:
        read_mixups(path, clips)
    assert str(raised.value).startswith(str(path))


# ----------------------------------------------------------------------------------------------- learning from mix-ups


def test_mixtures_are_made_of_mixups_alone(tmp_path: Path) -> None:
    time_axis = np.arange(16000) / 16000
    tones = (400.0, 1000.0, 2500.0)
    clips = []
    for hz in tones:
        write(tmp_path / f"{hz:g}.wav", 0.2 * np.sin(2 * np.pi * hz * time_axis), 16000)
        clips.append(Clip(tmp_path / f"{hz:g}.wav", captions=(f"a tone of {hz:g} hertz",)))
    mixups = [Mixup((clips[0], clips[2]), ("Both: 400, 2500!", "both 2500 400"))]
    settings = DataSettings(seconds=1.0, speed_octaves=0.0, mix_probability=0.5)
    examples = CaptionExamples(clips, settings, seed=0, mixups=mixups)
    assert list(examples.captions(30)) == [examples(index).caption for index in range(30)]
    seen = Counter[str]()
    for index in range(30):
        example = examples(index)
        spectrum = np.abs(np.fft.rfft(example.waveform))
        heard = {hz for hz in tones if spectrum[round(hz)] > 0.1 * spectrum.max()}
        assert heard == {float(word) for word in example.caption.split() if word.isdigit()}
        seen[example.caption] += 1
    assert seen["both 400 2500"] and seen["both 2500 400"] and len(seen) == 5


def test_without_mixups_nothing_changes(clips: list[Clip]) -> None:
    settings = DataSettings(mix_probability=0.5)
    assert list(CaptionExamples(clips, settings, 0).captions(50)) == list(
        CaptionExamples(clips, settings, 0, mixups=[]).captions(50)
    )


# ----------------------------------------------------------------------------------------------------- the command line


def run(*arguments: str) -> object:
    with pytest.raises(SystemExit) as exit_:
        main(["prepare", "mixups", *arguments])
    return exit_.value.code


def test_the_command(
    server: Server,
    clips: list[Clip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("AURAL_LLM_URL", "AURAL_LLM_MODEL", "AURAL_LLM_KEY"):
        monkeypatch.delenv(name, raising=False)
    manifest, out = str(tmp_path / "m.jsonl"), str(tmp_path / "mixups.json")
    write_manifest(tmp_path / "m.jsonl", clips)
    assert run(manifest, "-o", out, "--n", "5") == 0
    said = capsys.readouterr()
    assert said.out == "" and "joined by the grammar; set AURAL_LLM_URL" in said.err and "5 mix-up captions" in said.err
    assert server.prompts == []
    monkeypatch.setenv("AURAL_LLM_URL", server.url + "/")
    assert run(manifest, "-o", out) == 2
    assert "AURAL_LLM_MODEL is not: name the model" in capsys.readouterr().err
    monkeypatch.setenv("AURAL_LLM_MODEL", "parrot")
    monkeypatch.setenv("AURAL_LLM_KEY", KEY)
    assert run(manifest, "-o", out, "--n", "6", "--seed", "2") == 0
    said = capsys.readouterr()
    assert f"joined by parrot at {server.url}/chat/completions" in said.err and "222 tokens" in said.err
    assert KEY not in said.err and len(server.prompts) == len(load(tmp_path / "mixups.json")["dataset"]) == 6
    assert run(manifest, manifest, "-o", out) == 2 and "pass one" in capsys.readouterr().err
    assert run(manifest, "-o", out, "--split", "nowhere") == 2 and "nothing to mix" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x"])
def test_addresses_that_are_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURAL_LLM_URL", url)
    with pytest.raises(UsageError, match="should begin with http"):
        from_environment()
