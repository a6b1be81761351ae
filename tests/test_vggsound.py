"""VGGSound on a miniature of its folder: tables of both forms, pairs, filter lists that never run, best frames."""

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from aural.__main__ import main
from aural.audio import write
from aural.corpora import vggsound
from aural.errors import UsageError
from aural.manifest import read_manifest, write_manifest

ROWS = [
    '--aaaaaaaaa,30,"bird chirping, tweeting",train',
    "bbbbbbbbbbb,0,dog barking,train",
    "ccccccccccc,7,dog barking,train",
    "ddddddddddd,7,people marching,test",
    "eeeeeeeeeee,9,people marching,test",
]
NAMES = ("--aaaaaaaaa_30000_40000", "bbbbbbbbbbb_0_10000", "ccccccccccc_000007", "ddddddddddd_000007")


class Trap:
    """What a pickle may do to who unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pairs, a sound alone, a video alone, and one that the table does not name."""
    folder = tmp_path / "vggsound"
    for name in ("audio", "video", "constants"):
        (folder / name).mkdir(parents=True)
    for name in (*NAMES, "fffffffffff_000001", "eeeeeeeeeee_000009"):
        write(folder / "audio" / f"{name}.wav", np.zeros(800), 8000)
    for place, name in enumerate((*NAMES, "fffffffffff_000001", "ggggggggggg_000001")):
        (folder / "video" / f"{name}{('.mp4', '.webm')[place % 2]}").write_bytes(b"a video")
    (folder / "vggsound.csv").write_text("\n".join(ROWS) + "\n")
    return folder


def test_pairs_of_sound_and_video(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = {NAMES[1]: [[3, 17, 40]], NAMES[3]: "none", NAMES[0]: []}
    (root / "constants" / "best_frames.json").write_text(json.dumps(best))
    clips = vggsound.prepare(root)
    assert [
        (clip.audio.stem, clip.image and clip.image.name, clip.labels, clip.split, clip.source) for clip in clips
    ] == [
        (NAMES[0], f"{NAMES[0]}.mp4", ("bird chirping, tweeting",), "train", "--aaaaaaaaa"),
        (NAMES[1], f"{NAMES[1]}.webm", ("dog barking",), "train", "bbbbbbbbbbb"),
        (NAMES[2], f"{NAMES[2]}.mp4", ("dog barking",), "train", "ccccccccccc"),
        (NAMES[3], f"{NAMES[3]}.webm", ("people marching",), "test", "ddddddddddd"),
    ]
    assert clips[0].captions == ("bird chirping, tweeting",)
    assert [clip.about for clip in clips] == [{}, {"best_frames": "3 17 40"}, {}, {}]
    assert "1 clips are left out: vggsound.csv does not name them" in caplog.text
    assert "1 of its 5 sounds are missing (there are: train 3 of 3, test 1 of 2)" in caplog.text
    write_manifest(root / "m.jsonl", clips)
    assert read_manifest(root / "m.jsonl") == clips


def test_the_table_of_audiotoken(root: Path) -> None:
    as_published = vggsound.prepare(root)
    rows = ["7,ddddddddddd,people marching,test", '1,--aaaaaaaaa,"bird chirping, tweeting",train']
    (root / "vggsound.csv").write_text("\n".join([",YTID,class,set", *rows, "2,--aaaaaaaaa,again,test"]))
    assert vggsound.prepare(root) == [as_published[3], as_published[0]]  # of two rows the first


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_lists_filter_the_training_only_and_pickles_never_run(
    root: Path, protocol: int, caplog: pytest.LogCaptureFixture
) -> None:
    trace = root / "the pickle ran"
    unmatched = {"bbbbbbbbbbb", "ddddddddddd", "hhhhhhhhhhh"}
    (root / "constants" / "unmatch_videos.pkl").write_bytes(pickle.dumps([unmatched, Trap(trace)], protocol))
    (root / "low_quality.json").write_text(json.dumps([NAMES[2]]))
    with caplog.at_level(logging.WARNING, "aural"):
        assert [clip.source for clip in vggsound.prepare(root)] == ["--aaaaaaaaa", "ddddddddddd"]
    assert not trace.exists()
    assert "unmatch_videos.pkl: 1 clips of the split train are left out" in caplog.text
    assert "low_quality.json: 1 clips of the split train are left out" in caplog.text
    (root / "unmatched.txt").write_text("--aaaaaaaaa\n")
    assert [clip.source for clip in vggsound.prepare(root)] == ["ddddddddddd"]


def test_what_cannot_be_read_is_said_in_a_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"vggsound\.csv: there is no such table; is this the folder of"):
        vggsound.prepare(tmp_path)
    for name, content, what in (
        ("low_quality.pkl", pickle.dumps(["bbbbbbbbbbb"])[:-3], "is no whole pickle"),
        ("low_quality.pkl", pickle.dumps([1, 2]), "lists no ids"),
        ("low_quality.json", b"[", "cannot be read as json"),
        ("best_frames.json", b"[]", "should be an object"),
        (
            "vggsound.csv",
            b"name,words\na.wav,a dog\n",
            r"clip 1 should be ytid,start,label,split; is this the folder of",
        ),
        ("vggsound.csv", b"ytid,words\nbbbbbbbbbbb,a dog\n", r"has no column label, split; is this the folder of"),
    ):
        before = (root / name).read_bytes() if (root / name).exists() else None
        (root / name).write_bytes(content)
        with pytest.raises(UsageError, match=what):
            vggsound.prepare(root)
        (root / name).unlink() if before is None else (root / name).write_bytes(before)


def test_by_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main(["prepare", "vggsound", str(root), "-o", str(tmp_path / "m.jsonl")])
    assert status.value.code == 0
    assert "4 clips (splits: test, train)" in "".join(capsys.readouterr())
    assert len(read_manifest(tmp_path / "m.jsonl", required="image")) == 4
