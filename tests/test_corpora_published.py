"""The published corpora, on miniatures of the folders that their archives unpack to."""

import logging
from pathlib import Path

import numpy as np
import pytest

from aural.audio import write
from aural.corpora import audiocaps, clotho, esc10, esc50, folder, instruments
from aural.errors import UsageError
from aural.manifest import read_manifest, write_manifest
from aural.sound_phrases import captions


def add_sounds(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, np.zeros(800), 8000)


def add_table(path: Path, *lines: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode(encoding))


# -------------------------------------------------------------------------------------------------------------- Clotho

HEADER = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
METADATA = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license"


def five(words: str) -> str:
    return ",".join(f'"{words}, heard {number} times."' for number in range(1, 6))


@pytest.fixture
def clotho_folder(tmp_path: Path) -> Path:
    """Three splits; two clips of one recording, one of an unknown one, and names that other tables spell otherwise."""
    add_table(
        tmp_path / "clotho_captions_development.csv",
        HEADER,
        f"Distorted AM Radio noise.wav,{five('Static hisses')}",
        f"Rain - part 2.wav,{five('Rain falls')}",
        f"Café: morning.wav,{five('People chat')}",
    )
    add_table(
        tmp_path / "clotho_metadata_development.csv",
        METADATA,
        'Distorted AM Radio noise.wav,noise;radio,372899,https://x/372899,"[1, 2]",Tester,CC0',
        "Rain - part 2.wav,rain,Not found,Not found,,Not found,Not found",
        'Café: morning.wav,café;"talk",111,https://x/111,"[1, 2]",Måns,CC0',
        encoding="latin-1",
    )
    add_table(tmp_path / "clotho_captions_validation.csv", HEADER, f"Rain - part 2.wav,{five('It drips')}")
    add_table(tmp_path / "clotho_metadata_validation.csv", METADATA, "Rain - part 2.wav,rain,222,u,s,m,l")
    add_table(tmp_path / "clotho_captions_evaluation.csv", HEADER, f"Santa Motor.wav,{five('A motor runs')}")
    add_sounds(tmp_path, "development/Distorted AM Radio noise.wav", "development/Rain - part 2.wav")
    add_sounds(tmp_path, "development/Cafe_ morning.wav")
    add_sounds(tmp_path, "validation/Rain - part 2.wav", "evaluation/Santa Motor.wav")
    return tmp_path


def test_clotho(clotho_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "aural"):
        clips = clotho.prepare(clotho_folder)
    assert [(clip.audio.relative_to(clotho_folder).as_posix(), clip.split, clip.source) for clip in clips] == [
        ("development/Distorted AM Radio noise.wav", "development", "372899"),
        ("development/Rain - part 2.wav", "development", "Rain - part 2"),  # "Not found" is no recording
        ("development/Cafe_ morning.wav", "development", "111"),
        ("validation/Rain - part 2.wav", "validation", "222"),
        ("evaluation/Santa Motor.wav", "evaluation", "Santa Motor"),
    ]
    assert clips[0].captions == tuple(f"Static hisses, heard {number} times." for number in range(1, 6))
    assert "all of its 5 sounds are there" in caplog.text
    assert "development 3 of 3, validation 1 of 1, evaluation 1 of 1" in caplog.text
    write_manifest(clotho_folder / "m.jsonl", clips)
    assert read_manifest(clotho_folder / "m.jsonl") == clips


def test_clotho_in_parts(clotho_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is there is used: a split less, a sound less, tables in a folder of their own."""
    (clotho_folder / "development" / "Rain - part 2.wav").unlink()
    (clotho_folder / "clotho_captions_evaluation.csv").unlink()
    (clotho_folder / "clotho_csv_files").mkdir()
    for table in clotho_folder.glob("*.csv"):
        table.rename(clotho_folder / "clotho_csv_files" / table.name)
    clips = clotho.prepare(clotho_folder)
    assert [clip.source for clip in clips] == ["372899", "111", "222"]
    assert "1 of its 4 sounds are missing (there are: development 2 of 3, validation 1 of 1)" in caplog.text


def test_clotho_does_not_confuse_names_that_are_nearly_one(tmp_path: Path) -> None:
    rows = [f"rain 1.wav,{five('One')}", f"Rain_1.wav,{five('Two')}", f"rain-1.wav,{five('Gone')}"]
    add_table(tmp_path / "clotho_captions_development.csv", HEADER, *rows)
    add_sounds(tmp_path, "development/rain 1.wav", "development/Rain_1.wav")
    assert [(clip.audio.name, clip.captions[0][:3]) for clip in clotho.prepare(tmp_path)] == [
        ("rain 1.wav", "One"),
        ("Rain_1.wav", "Two"),
    ]


# ----------------------------------------------------------------------------------------------------------- AudioCaps

AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption"


def test_audiocaps_under_all_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "r1nicOVtvkQ": ("r1nicOVtvkQ.wav", 130),
        "-0_aBcDeFgH": ("train/Y-0_aBcDeFgH.wav", 0),
        "Yabcdefghij": ("train/Yabcdefghij_30.flac", 30),
        "a_000_b_11c": ("audio_32000Hz/train/a_000_b_11c_40.000_50.000.wav", 40),
        "zx8Fsxb0Uko": ("Yzx8Fsxb0Uko_50000_57500.mp3", 50),
        "VGGstyle000": ("VGGstyle000_000060.wav", 60),
        "byItsNumber": ("train/91139.wav", 70),
        "lostForever": (None, 80),
    }
    rows = [f'{91133 + i},{video},{start},"{video} is, heard"' for i, (video, (_, start)) in enumerate(files.items())]
    add_table(tmp_path / "train.csv", AUDIOCAPS, *rows)
    add_sounds(tmp_path, *(name for name, _ in files.values() if name))
    clips = audiocaps.prepare(tmp_path)
    assert {clip.source: clip.audio.relative_to(tmp_path).as_posix() for clip in clips} == {
        video: name for video, (name, _) in files.items() if name
    }
    assert {clip.split for clip in clips} == {"train"} and clips[0].captions == ("r1nicOVtvkQ is, heard",)
    assert "1 of its 8 sounds are missing (there are: train 7 of 8)" in caplog.text


def test_audiocaps_joins_the_captions_of_a_clip(tmp_path: Path) -> None:
    """Two clips of one video, five captions each in another order, and a name that both splits have."""
    rows = [f"{100 * start + n},someVideo_1,{start},caption {n} of {start}" for n in range(5) for start in (30, 300)]
    add_table(tmp_path / "dataset" / "test.csv", AUDIOCAPS, *rows, "9,someVideo_1,30,caption 0 of 30")
    add_table(tmp_path / "dataset" / "val.csv", AUDIOCAPS, "7,otherVideo1,10,a dog", "8,sameNumber1,10,a cat")
    add_sounds(tmp_path, "test/someVideo_1_30_40.wav", "test/someVideo_1_300_310.wav", "test/8.wav", "val/8.wav")
    clips = audiocaps.prepare(tmp_path)
    assert [(clip.audio.relative_to(tmp_path).as_posix(), clip.split, clip.source) for clip in clips] == [
        ("val/8.wav", "validation", "sameNumber1"),
        ("test/someVideo_1_30_40.wav", "test", "someVideo_1"),
        ("test/someVideo_1_300_310.wav", "test", "someVideo_1"),
    ]
    assert clips[2].captions == tuple(f"caption {n} of 300" for n in range(5))
    assert len(clips[1].captions) == 5


# -------------------------------------------------------------------------------------------------------------- ESC-50


def test_esc50(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        "1-100032-A-0.wav,1,0,dog,True,100032,A",
        "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A",
        "3-28314-A-1.wav,3,1,rooster,True,28314,A",
        "3-30322-A-1.wav,3,1,rooster,True,30322,A",
        "5-9032-A-0.wav,5,0,dog,True,9032,A",
    ]
    add_table(tmp_path / "meta" / "esc50.csv", "filename,fold,target,category,esc10,src_file,take", *rows)
    add_sounds(tmp_path, *(f"audio/{row.split(',')[0]}" for row in rows[:-1]))
    dog, birds, rooster, same = esc50.prepare(tmp_path)
    assert (dog.labels, dog.captions, dog.split, dog.source) == (
        ("dog bark",),
        captions("dog bark"),
        "fold1",
        "100032",
    )
    assert birds.labels == ("chirping birds",) and birds.captions
    assert rooster.source == same.source == "28314" and rooster.captions == captions("rooster")
    assert "1 of its 5 sounds are missing (there are: fold1 2 of 2, fold3 2 of 2, fold5 0 of 1)" in caplog.text


# ------------------------------------------------------------------------------------------------ what is not a corpus


@pytest.mark.parametrize(
    ("corpus", "named"),
    [(clotho, "clotho_captions_development.csv"), (audiocaps, "train.csv"), (esc50, "esc50.csv")],
)
def test_what_is_not_the_corpus(corpus: object, named: str, tmp_path: Path) -> None:
    prepare = corpus.prepare  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="no_folder: there is no such folder"):
        prepare(tmp_path / "no_folder")
    with pytest.raises(UsageError, match=f"{named}.*is this the folder of"):
        prepare(tmp_path)
    add_table(tmp_path / ("meta/" if corpus is esc50 else "") / named, "name,words", "a.wav,a dog")
    add_sounds(tmp_path, "a.wav")
    with pytest.raises(UsageError, match=f"{named}: has no column .*; is this the folder of that corpus"):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("corpus", "table", "header", "row", "lacking"),
    [
        (
            esc50,
            "meta/esc50.csv",
            "filename,fold,target,category,esc10,src_file,take",
            "a.wav,1,0",
            "category, src_file",
        ),
        (esc10, "metadata.csv", "file,fold,label,phrase,source_id,licence", "a.wav,1", "label, licence, phrase"),
        (instruments, "metadata.csv", "file,label,phrase,source_name", "a.wav", "label, phrase, source_name"),
        (clotho, "clotho_captions_development.csv", HEADER, "a.wav,a dog", "caption_2, caption_3"),
    ],
)
def test_a_row_that_was_cut_off(
    corpus: object, table: str, header: str, row: str, lacking: str, tmp_path: Path
) -> None:
    add_sounds(tmp_path, "a.wav")
    add_table(tmp_path / table, header, row)
    with pytest.raises(UsageError, match=f"{Path(table).name}: row 1 has no {lacking}.*; mend or remove it$"):
        corpus.prepare(tmp_path)  # type: ignore[attr-defined]


def test_audiocaps_of_a_broken_table(tmp_path: Path) -> None:
    add_sounds(tmp_path, "a.wav")
    add_table(tmp_path / "train.csv", AUDIOCAPS, "1,abcdefghijk,soon,a dog")
    with pytest.raises(UsageError, match=r"train\.csv: row 1: start_time should be a number of seconds"):
        audiocaps.prepare(tmp_path)
    add_table(tmp_path / "train.csv", AUDIOCAPS, "1,abcdefghijk,10,a dog")
    with pytest.raises(UsageError, match="names 1 sounds, and none of them is there"):
        audiocaps.prepare(tmp_path)


# ---------------------------------------------------------------------------------------------- any folder, once more


def test_a_table_beside_the_folder(tmp_path: Path) -> None:
    add_sounds(tmp_path, "sounds/a.wav", "sounds/test/b.wav")
    add_table(tmp_path / "sounds.csv", "file,caption", "a.wav,a dog barks", "sounds/test/b.wav,a cat meows")
    add_table(tmp_path / "sounds.jsonl", '{"audio": "sounds/a.wav", "captions": ["a manifest of ours"]}')
    assert [(clip.audio.name, clip.captions) for clip in folder.prepare(tmp_path / "sounds")] == [
        ("a.wav", ("a dog barks",)),
        ("b.wav", ("a cat meows",)),
    ]


def test_a_table_in_each_split(tmp_path: Path) -> None:
    """As the audio folders of Hugging Face are laid out: files are named as seen from their table."""
    for split in ("train", "test"):
        add_sounds(tmp_path, f"{split}/1.wav")
        add_table(tmp_path / split / "metadata.csv", "file_name,text", f"1.wav,a {split} sound")
    assert [(clip.audio.parent.name, clip.split, clip.captions) for clip in folder.prepare(tmp_path)] == [
        ("test", "test", ("a test sound",)),
        ("train", "train", ("a train sound",)),
    ]
