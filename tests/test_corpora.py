"""From raw corpora to clips, and the words for their sounds."""

import json
import logging
import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import aural
from aural.audio import write
from aural.corpora import esc10, folder, instruments
from aural.errors import UsageError
from aural.manifest import Clip, read_manifest, write_manifest
from aural.sound_phrases import SOUNDS, captions, named_sounds, phrases

EXAMPLES = Path(aural.__file__).parent / "examples"
ESC10_LABELS = [
    *("dog bark", "rain", "sea waves", "baby cry", "clock tick"),
    *("person sneeze", "helicopter", "chainsaw", "rooster", "fire crackling"),
]


def add_sounds(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, np.zeros(800), 8000)


def add_table(root: Path, *lines: str, name: str = "metadata.csv") -> None:
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- the phrases


def test_the_sounds_of_both_corpora_have_words() -> None:
    assert set(ESC10_LABELS) < set(SOUNDS)
    assert len(SOUNDS) >= 10 + 26 + 9
    with pytest.raises(UsageError, match="no words are known for 'yak'"):
        phrases("yak")


@pytest.mark.parametrize("label", SOUNDS)
def test_every_phrase_names_its_sound_alone(label: str) -> None:
    sound = phrases(label)
    said = [*sound.noun_phrases, *sound.participle, *sound.finite, *captions(label)]
    assert {phrase: named_sounds(phrase) for phrase in said if named_sounds(phrase) != {label}} == {}
    others = [(word, other) for other in SOUNDS if other != label for word in SOUNDS[other].keywords]
    clashes = [(phrase, word) for phrase in said for word, _ in others if re.search(rf"\b{re.escape(word)}\b", phrase)]
    assert clashes == []


@pytest.mark.parametrize("label", SOUNDS)
def test_captions_are_many_different_and_plain(label: str) -> None:
    said = captions(label)
    assert 8 <= len(said) <= 12 and len(set(said)) == len(said)
    for caption in said:
        assert caption == " ".join(caption.lower().split())
        assert not set(caption) & set(string.punctuation)


def test_keywords_belong_to_one_sound_each() -> None:
    counted = Counter(word for sound in SOUNDS.values() for word in sound.keywords)
    assert [word for word, count in counted.items() if count > 1] == []
    assert {word: named_sounds(word) for label in SOUNDS for word in SOUNDS[label].keywords} == {
        word: {label} for label in SOUNDS for word in SOUNDS[label].keywords
    }


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("A DOG's bark, while it rains.", {"dog bark", "rain"}),
        ("a cowbell and a bell", {"cowbell", "bell"}),
        ("an open hi-hat cymbal", {"hi-hat"}),
        ("an open hihat cymbal and a ride cymbal", {"hi-hat", "cymbal"}),
        ("a rooster crows near a crow", {"rooster", "crow"}),
        ("someone makes firewood in the rain-soaked doghouse", set()),
        ("", set()),
    ],
)
def test_captions_are_read_by_whole_words(caption: str, named: set[str]) -> None:
    assert named_sounds(caption) == named


# -------------------------------------------------------------------------------------------------------------- ESC-10


@pytest.fixture
def esc10_folder(tmp_path: Path) -> Path:
    """A folder laid out as ESC-10 is: one clip a class, and a rooster of doubtful licence."""
    lines = ["file,fold,class_id,label,phrase,source_id,take,licence,note"]
    for number, label in enumerate(ESC10_LABELS):
        phrase = phrases(label).participle[0]
        lines.append(f'audio/{number}.wav,{number % 4 + 1},{number},{label},{phrase},{1000 + number},A,CC0 1.0,"a, b"')
        add_sounds(tmp_path, f"audio/{number}.wav")
    lines.append("audio/r.wav,1,8,rooster,a rooster crowing,40730,A,CC Sampling+ 1.0,")
    lines.append("audio/s.wav,2,8,rooster,a rooster crowing,30322,A,CC BY 3.0,")
    add_sounds(tmp_path, "audio/r.wav", "audio/s.wav")
    add_table(tmp_path, *lines)
    return tmp_path


def test_esc10(esc10_folder: Path) -> None:
    clips = esc10.prepare(esc10_folder)
    assert [clip.labels for clip in clips] == [(label,) for label in [*ESC10_LABELS, "rooster"]]
    assert clips[5].audio == esc10_folder / "audio" / "5.wav"
    assert clips[5].split == "fold2" and clips[5].source == "1005"
    assert clips[-1].source == "28314"  # the same take under two numbers
    for clip in clips:
        assert clip.captions[0] == phrases(clip.labels[0]).participle[0]
        assert set(clip.captions) == set(captions(clip.labels[0])) and len(set(clip.captions)) == len(clip.captions)


def test_esc10_leaves_sampling_plus_out_unless_asked(esc10_folder: Path) -> None:
    kept = {clip.audio.name for clip in esc10.prepare(esc10_folder)}
    everything = {clip.audio.name for clip in esc10.prepare(esc10_folder, include_sampling_plus=True)}
    assert everything - kept == {"r.wav"}


def test_clips_pass_through_a_manifest(
    esc10_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(esc10_folder.parent)
    clips = esc10.prepare(esc10_folder.name)
    manifest = tmp_path_factory.mktemp("manifest") / "m.jsonl"
    write_manifest(manifest, clips)
    assert read_manifest(manifest) == clips


def test_missing_sounds_are_counted(esc10_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (esc10_folder / "audio" / "3.wav").unlink()
    assert len(esc10.prepare(esc10_folder)) == 10
    assert "1 of its 11 sounds are missing" in caplog.text
    for path in (esc10_folder / "audio").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="names 11 sounds, and none of them is there"):
        esc10.prepare(esc10_folder)


@pytest.mark.parametrize("prepare", [esc10.prepare, instruments.prepare])
def test_what_is_not_the_corpus(prepare: object, tmp_path: Path) -> None:
    assert callable(prepare)
    with pytest.raises(UsageError, match="no_folder: there is no such folder"):
        prepare(tmp_path / "no_folder")
    with pytest.raises(UsageError, match=r"metadata\.csv: there is no such table; is this the folder of that corpus"):
        prepare(tmp_path)
    add_table(tmp_path, "file,label", "a.wav,dog bark")
    with pytest.raises(UsageError, match=r"metadata\.csv: has no column .*phrase"):
        prepare(tmp_path)
    header = "file,fold,label,phrase,source_id,licence,source_name"
    add_table(tmp_path, header, "a.wav,1,yak,a yak grunting,1,CC0 1.0,yak")
    with pytest.raises(UsageError, match="no words are known for 'yak'"):
        prepare(tmp_path)


# --------------------------------------------------------------------------------------------------------- instruments


def test_instruments(tmp_path: Path) -> None:
    rows = {
        "drum_snare_hard": ("snare drum", "a snare drum hit hard"),
        "drum_snare_soft": ("snare drum", "a snare drum hit softly"),
        "drum_cymbal_open": ("hi-hat", "an open hi-hat cymbal"),
        "tabla_tun2": ("tabla", "a ringing tabla stroke"),
        "tabla_tun3": ("tabla", "a ringing tabla stroke"),
        "tabla_te2": ("tabla", "a short dry tabla stroke"),
        "tabla_te_m": ("tabla", "a short dry tabla stroke"),
        "elec_blip2": ("electronic blip", "a low electronic blip"),
        "loop_3d_printer": ("3D printer", "a 3D printer working"),
    }
    lines = [f"{name}.flac,{label},{phrase},{name}" for name, (label, phrase) in rows.items()]
    add_table(tmp_path, "file,label,phrase,source_name", *lines)
    add_sounds(tmp_path, *(f"{name}.flac" for name in rows))
    clips = instruments.prepare(tmp_path)
    assert [clip.source for clip in clips] == [
        *("drum_snare", "drum_snare", "drum_cymbal_open"),
        *("tabla_tun", "tabla_tun", "tabla_te", "tabla_te", "elec_blip2", "loop_3d_printer"),
    ]
    assert {clip.split for clip in clips} == {None}
    assert clips[2].captions[0] == "an open hi hat cymbal"
    assert clips[-1].captions[0] == "a 3d printer working"
    for clip in clips:
        assert all(named_sounds(caption) == set(clip.labels) for caption in clip.captions), clip
        assert set(captions(clip.labels[0])) < set(clip.captions)


# ----------------------------------------------------------------------------------------------------------- any folder


def test_a_table_of_captions(tmp_path: Path) -> None:
    add_sounds(tmp_path, "a.wav", "sub/b.wav", "sub/c.wav")
    add_table(
        tmp_path,
        *(
            "\ufefffile_name,caption_1,caption_2,Split,source_id,start,duration",
            'a.wav,"a dog, barking",a bark,train,7,,',
        ),
        *("b.wav,a b,,test,,1.5,2", "sub/c.wav,a c,a c,,,0,0"),
    )
    assert folder.prepare(tmp_path) == [
        Clip(tmp_path / "a.wav", captions=("a dog, barking", "a bark"), split="train", source="7"),
        Clip(tmp_path / "sub" / "b.wav", start=1.5, duration=2.0, captions=("a b",), split="test"),
        Clip(tmp_path / "sub" / "c.wav", captions=("a c",)),
    ]


def test_a_table_of_labels(tmp_path: Path) -> None:
    add_sounds(tmp_path, "a.wav", "b.wav", "c.wav")
    add_table(
        tmp_path, "file\tlabel\tfold", "a.wav\train\t3", "b.wav\train; Yak\t4", "c.wav\tYak\t", name="metadata.tsv"
    )
    a, b, c = folder.prepare(tmp_path)
    assert (a.labels, a.captions, a.split) == (("rain",), captions("rain"), "fold3")
    assert (b.labels, b.captions, b.split) == (("rain", "Yak"), ("falling rain and yak",), "fold4")
    assert (c.labels, c.captions, c.split) == (("Yak",), ("yak",), None)


def test_several_rows_for_one_file_and_several_tables(tmp_path: Path) -> None:
    add_sounds(tmp_path, "a.wav", "b.wav")
    add_table(tmp_path, "path;text", "a.wav;one", "a.wav;two", name="x.csv")
    add_table(
        tmp_path,
        '{"file": "a.wav", "captions": ["three", "one"]}',
        '{"file": "b.wav", "captions": "four"}',
        name="y.jsonl",
    )
    add_table(tmp_path, '{"prompt": "no sound of this folder", "seed": 1}', name="z.json")
    add_table(tmp_path, "this,is", "something,else", name="other.csv")
    assert folder.prepare(tmp_path) == [
        Clip(tmp_path / "a.wav", captions=("one", "two", "three")),
        Clip(tmp_path / "b.wav", captions=("four",)),
    ]


def test_questions_stay_apart(tmp_path: Path) -> None:
    add_sounds(tmp_path, "a.wav")
    add_table(tmp_path, "file,question,answer", "a.wav,what?,a dog", "a.wav,how many?,two")
    assert folder.prepare(tmp_path) == [
        Clip(tmp_path / "a.wav", question="what?", answer="a dog"),
        Clip(tmp_path / "a.wav", question="how many?", answer="two"),
    ]


@pytest.mark.parametrize("value", [["a dog", "a bark"], {"captions": ["a dog", "a bark"]}])
def test_json_by_file_name(value: object, tmp_path: Path) -> None:
    add_sounds(tmp_path, "a.wav")
    add_table(tmp_path, json.dumps({"a.wav": value}), name="metadata.json")
    assert folder.prepare(tmp_path) == [Clip(tmp_path / "a.wav", captions=("a dog", "a bark"))]


def test_what_a_table_does_not_cover_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_sounds(tmp_path, "a.wav", "b.wav", "c.wav")
    add_table(tmp_path, "file,caption", "a.wav,a dog", "gone.wav,a cat", "b.wav,")
    assert [clip.audio.name for clip in folder.prepare(tmp_path)] == ["a.wav"]
    assert "1 of its 2 sounds are missing" in caplog.text
    assert "2 of 3 sounds are left out" in caplog.text


def test_text_files_beside_the_sounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_sounds(tmp_path, "a.wav", "sub/b.flac", "c.wav")
    (tmp_path / "a.txt").write_text("a dog barks\n\n  a dog is barking \n")
    (tmp_path / "sub" / "b.txt").write_text("rain\n")
    assert folder.prepare(tmp_path) == [
        Clip(tmp_path / "a.wav", captions=("a dog barks", "a dog is barking")),
        Clip(tmp_path / "sub" / "b.flac", captions=("rain",)),
    ]
    assert "1 of 3 sounds are left out" in caplog.text


def test_names_of_folders(tmp_path: Path) -> None:
    add_sounds(
        tmp_path, "train/001 - Dog bark/1.wav", "test/dog_bark/2.wav", "fold3/3d_printer/3.wav", "Yaks/deep/01/4.wav"
    )
    found = {clip.audio.name: clip for clip in folder.prepare(tmp_path)}
    assert {name: (clip.labels, clip.split) for name, clip in found.items()} == {
        "1.wav": (("dog bark",), "train"),
        "2.wav": (("dog bark",), "test"),
        "3.wav": (("3D printer",), "fold3"),
        "4.wav": (("deep",), None),
    }
    assert found["1.wav"].captions == captions("dog bark") and found["4.wav"].captions == ("deep",)


def test_names_of_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_sounds(tmp_path, "Dog_barking-03.wav", "test/rain.wav", "0001.wav")
    assert folder.prepare(tmp_path) == [
        Clip(tmp_path / "Dog_barking-03.wav", captions=("dog barking",)),
        Clip(tmp_path / "test" / "rain.wav", captions=("rain",), split="test"),
    ]
    assert "1 of 3 sounds are left out" in caplog.text


def test_the_bundled_examples_are_a_folder_of_sounds() -> None:
    assert [clip.captions for clip in folder.prepare(EXAMPLES)] == [
        *(("baby cry",), ("dog bark",), ("rain",), ("rooster",), ("sea waves",), ("sneeze",))
    ]


def test_a_complete_folder_is_prepared_in_silence(esc10_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "aural"):
        clips = folder.prepare(esc10_folder)
    assert caplog.text == ""
    assert {clip.split for clip in clips} == {"fold1", "fold2", "fold3", "fold4"}
    assert clips[0].labels == ("dog bark",) and clips[0].captions == captions("dog bark") and clips[0].source == "1000"


@pytest.mark.parametrize(
    ("lines", "name", "message"),
    [
        (["file,caption", "a.wav,a dog,barking"], "metadata.csv", "row 1 has more fields than the header"),
        (["file,caption", 'a.wav,"a dog'], "metadata.csv", "cannot be read as csv"),
        (["name,words", "a.wav,a dog"], "metadata.csv", "name its columns file,caption"),
        (["file,caption", "other.wav,a dog"], "metadata.csv", "names 1 sounds, and none of them is there"),
        (["file,caption,start", "a.wav,a dog,soon"], "metadata.csv", "row 1: could not convert string to float"),
        (["file,caption,start", "a.wav,a dog,-1"], "metadata.csv", "row 1: start and duration"),
        (["{"], "metadata.json", "cannot be read as json"),
        (["[1]"], "metadata.json", "list of objects"),
        (["[" * 100_000], "metadata.json", "cannot be read as json"),
    ],
)
def test_tables_that_cannot_be_used(lines: list[str], name: str, message: str, tmp_path: Path) -> None:
    add_sounds(tmp_path, "a.wav")
    add_table(tmp_path, *lines, name=name)
    with pytest.raises(UsageError, match=message) as raised:
        folder.prepare(tmp_path)
    assert str(raised.value).startswith(str(tmp_path / name)) and "\n" not in str(raised.value)


def test_folders_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no_folder: there is no such folder"):
        folder.prepare(tmp_path / "no_folder")
    with pytest.raises(UsageError, match="no sounds in this folder"):
        folder.prepare(tmp_path)
    add_sounds(tmp_path, "0001.wav")
    with pytest.raises(UsageError, match=r"nothing says what its 1 sounds are; add a metadata\.csv"):
        folder.prepare(tmp_path)
