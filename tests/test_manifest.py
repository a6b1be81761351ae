"""Manifests: read strictly, written so that they read back."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from aural.errors import ManifestError
from aural.manifest import Clip, Event, clips_digest, held_out, read_manifest, write_manifest

HERE = Path("/recordings")
texts = st.text().map(lambda text: f"a{text}")  # control characters, U+2028 and all
names = st.from_regex(r"[a-zé \[\]]{0,8}[a-z]\.wav", fullmatch=True)
clips = st.builds(
    Clip,
    audio=names.map(HERE.joinpath),
    start=st.floats(0.0, 1e6),
    duration=st.none() | st.floats(1e-3, 1e6),
    captions=st.lists(texts, max_size=3).map(tuple),
    labels=st.lists(texts, max_size=3).map(tuple),
    question=st.none() | texts,
    answer=st.none() | texts,
    image=st.none() | st.just(HERE / "pictures" / "a.png"),
    split=st.none() | texts,
    source=st.none() | texts,
    events=st.lists(st.builds(Event, texts, st.just(0.25), st.floats(0.25, 9.0), st.booleans())).map(tuple),
    about=st.dictionaries(texts, texts, max_size=2),
)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "m.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_all_fields(tmp_path: Path) -> None:
    line = {
        "audio": "sub/../a.wav",
        "start": 1,
        "duration": 2.5,
        "captions": ["a dog barks", "a dog"],
        "labels": ["dog"],
        "question": "what?",
        "answer": "a dog",
        "image": "a.png",
        "split": "fold1",
        "source": "1234",
        "events": [["dog", 0, 0.5], ["dog", 1.5, 2, False]],
        "about": {"scene": "park"},
    }
    assert set(line) == {field.name for field in fields(Clip)}
    (clip,) = read_manifest(written(tmp_path, json.dumps(line)))
    assert clip == Clip(
        *(tmp_path / "a.wav", 1.0, 2.5, ("a dog barks", "a dog"), ("dog",), "what?", "a dog"),
        *(tmp_path / "a.png", "fold1", "1234"),
        events=(Event("dog", 0.0, 0.5), Event("dog", 1.5, 2.0, single=False)),
        about={"scene": "park"},
    )
    assert type(clip.start) is float
    assert hash(clip) == hash(clip)


def test_only_audio_is_needed_and_empty_lines_are_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "", '{"audio": "a.wav"}', "  ", '{"audio": "/b.wav", "duration": null}')
    assert read_manifest(path) == [Clip(tmp_path / "a.wav"), Clip(Path("/b.wav"))]
    path.write_bytes(b'\xef\xbb\xbf{"audio": "\xc3\xa9.wav"}\r\n')
    assert read_manifest(path) == [Clip(tmp_path / "é.wav")]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(clips, min_size=1, max_size=4))
def test_what_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, clips: list[Clip]) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    write_manifest(folder / "m.jsonl", clips)
    assert read_manifest(folder / "m.jsonl") == clips
    assert [path.name for path in folder.iterdir()] == ["m.jsonl"]


def test_paths_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    monkeypatch.chdir(tmp_path)
    clips = [Clip(Path("clips/a.wav"), image=Path("b.png")), Clip(tmp_path / "made" / "c.wav")]
    write_manifest("made/m.jsonl", clips)
    lines = [json.loads(line) for line in Path("made/m.jsonl").read_text().splitlines()]
    assert lines == [{"audio": "../clips/a.wav", "image": "../b.png"}, {"audio": "c.wav"}]
    expected = [Clip(tmp_path / "clips/a.wav", image=tmp_path / "b.png"), Clip(tmp_path / "made" / "c.wav")]
    assert read_manifest("made/m.jsonl") == expected
    moved = tmp_path / "elsewhere"
    (tmp_path / "made").rename(moved)
    assert read_manifest(moved / "m.jsonl")[1] == Clip(moved / "c.wav")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON: .* at column 2"),
        ('{"audio": ' + "9" * 5000 + "}", "not JSON"),
        ("[1]", "not an object"),
        ('"a.wav"', "not an object"),
        ("{}", "field 'audio' is missing"),
        ('{"audio": null}', "field 'audio' is missing"),
        ('{"audio": " "}', "'audio' should be a text that is not empty"),
        ('{"audio": 5}', "'audio' should be a text that is not empty, not 5"),
        ('{"audio": "a.wav", "caption": "a dog"}', "unknown field 'caption' \\(did you mean 'captions'\\?\\)"),
        ('{"audio": "a.wav", "xyzzy": 1}', "unknown field 'xyzzy'$"),
        ('{"audio": "a.wav", "captions": "a dog"}', "'captions' should be a list of texts"),
        ('{"audio": "a.wav", "captions": [""]}', "'captions' should be a list of texts that are not empty"),
        ('{"audio": "a.wav", "labels": [1]}', "'labels' should be a list of texts"),
        ('{"audio": "a.wav", "start": -1}', "'start' should be a number of seconds, 0 or more, not -1"),
        ('{"audio": "a.wav", "start": "1"}', "'start' should be a number"),
        ('{"audio": "a.wav", "start": true}', "'start' should be a number"),
        ('{"audio": "a.wav", "start": NaN}', "'start' should be a number"),
        ('{"audio": "a.wav", "start": 1' + "0" * 400 + "}", "'start' should be a number"),
        ('{"audio": "a.wav", "duration": 0}', "'duration' should be a number of seconds, more than 0, not 0"),
        ('{"audio": "a.wav", "duration": Infinity}', "'duration' should be"),
        ('{"audio": "a.wav", "split": 1}', "'split' should be a text"),
        ('{"audio": "a.wav", "source": 1}', "'source' should be a text"),
        ('{"audio": "a.wav", "question": ["what?"]}', "'question' should be a text"),
        ('{"audio": "a.wav", "image": 1}', "'image' should be a text"),
    ],
)
def test_a_bad_line_is_reported_with_its_number(line: str, problem: str, tmp_path: Path) -> None:
    path = written(tmp_path, '{"audio": "a.wav"}', "", line)
    with pytest.raises(ManifestError, match=problem) as raised:
        read_manifest(path)
    assert str(raised.value).startswith(f"{path}:3: ")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize("depth", [500, *range(940, 1000, 10), 100_000])
def test_a_line_of_lists_in_lists_is_a_bad_line(depth: int, tmp_path: Path) -> None:
    nested = "[" * depth + "]" * depth
    problem = r"m\.jsonl:1: (lists or objects in one another|field 'captions')"
    with pytest.raises(ManifestError, match=problem) as raised:
        read_manifest(written(tmp_path, '{"audio": "a.wav", "captions": ' + nested + "}"))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_a_digest_tells_clips_apart_wherever_they_lie(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.wav").write_bytes(b"1234")
    clip = Clip(tmp_path / "a" / "x.wav", captions=("a dog",), labels=("dog",), split="fold1")
    known = clips_digest([clip])
    assert len(known) == 64 and known == clips_digest([replace(clip, audio=tmp_path / "b" / "x.wav")])
    assert known == clips_digest([replace(clip, split="fold2")])
    assert clips_digest([clip], "split") != clips_digest([replace(clip, split="fold2")], "split")
    others = [
        replace(clip, start=1.0),
        replace(clip, duration=1.0),
        replace(clip, captions=()),
        replace(clip, labels=()),
    ]
    others.append(replace(clip, audio=tmp_path / "a" / "y.wav"))
    (tmp_path / "a" / "x.wav").write_bytes(b"12345")
    digests = [clips_digest(some) for some in ([clip], *([other] for other in others), [clip, clip], [])]
    assert len({known, *digests}) == 1 + len(digests)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, '{"audio": 1, "start": -1, "capions": []}', '{"audio": "a.wav"}', "{", *["[]"] * 20)
    with pytest.raises(ManifestError) as raised:
        read_manifest(path)
    problems = str(raised.value).split("; ")
    assert [problem.split(": ")[0] for problem in problems[:5]] == [f"{path}:{n}" for n in (1, 1, 1, 3, 4)]
    assert problems[-1] == "and 16 more problems"


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.jsonl: there is no such manifest; `aural prepare` makes one"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="holds no clips"):
        read_manifest(written(tmp_path, "", ""))
    (tmp_path / "m.jsonl").write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not UTF-8"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is its folder there"):
        write_manifest(tmp_path / "none" / "m.jsonl", [Clip(tmp_path / "a.wav")])
    write_manifest(tmp_path / "m.jsonl", [Clip(tmp_path / "a.wav")])
    with pytest.raises(ManifestError, match="rename the file"):
        write_manifest(tmp_path / "m.jsonl", [Clip(tmp_path / "\udcff.wav")])
    assert read_manifest(tmp_path / "m.jsonl") == [Clip(tmp_path / "a.wav")]
    assert len(list(tmp_path.iterdir())) == 1


def test_several_splits_are_held_out_and_none_that_is_not_there() -> None:
    first, second = [Clip(split="train"), Clip(split="test")], [Clip(split="evaluation"), Clip()]
    assert held_out("test, evaluation", first, second) == {"test", "evaluation"}
    assert held_out(None, first) == held_out("", first) == frozenset()
    with pytest.raises(ManifestError, match="no clip is of the split 'evaluation'; there are test, train"):
        held_out("test,evaluation", first)
