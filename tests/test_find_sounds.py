"""From what a user names to a list of files."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from aural.audio import SUFFIXES, WRITABLE
from aural.errors import UsageError
from aural.find_sounds import find_sounds


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A folder of files to find, as the working directory; returns find_sounds as names."""
    for name in (
        *("b.wav", "a.FLAC", "notes.txt", "take[1].wav", "data.dat", ".hidden.wav"),
        *("sub/c.ogg", "sub/deep/d.mp3", "sub/deep/e.m4a", ".git/f.wav", "empty/readme.md"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def find(*patterns: str | Path, stdin: str | None = None) -> list[str]:
        return [path.as_posix() for path in find_sounds(patterns, None if stdin is None else io.StringIO(stdin))]

    return find


def test_folders_are_searched(tree: Callable[..., list[str]]) -> None:
    everything = ["a.FLAC", "b.wav", "sub/c.ogg", "sub/deep/d.mp3", "sub/deep/e.m4a", "take[1].wav"]
    assert tree(".") == everything
    assert tree(Path("sub")) == ["sub/c.ogg", "sub/deep/d.mp3", "sub/deep/e.m4a"]
    assert tree(Path.cwd()) == [(Path.cwd() / name).as_posix() for name in everything]
    assert tree(".git") == [".git/f.wav"]


def test_files_are_taken_as_they_are_named(tree: Callable[..., list[str]]) -> None:
    assert tree("notes.txt", ".hidden.wav", "take[1].wav") == ["notes.txt", ".hidden.wav", "take[1].wav"]
    assert tree("missing.wav", "b.wav") == ["missing.wav", "b.wav"]


def test_globs(tree: Callable[..., list[str]]) -> None:
    assert tree("*") == ["a.FLAC", "b.wav", "take[1].wav"]
    assert tree("*.wav") == ["b.wav", "take[1].wav"]
    assert tree("**/*.mp3") == ["sub/deep/d.mp3"]
    assert tree("sub/**") == ["sub/c.ogg", "sub/deep/d.mp3", "sub/deep/e.m4a"]
    assert tree("?.[wW]av", "*.dat") == ["b.wav", "data.dat"]
    assert tree(str(Path.cwd() / "b.*")) == [(Path.cwd() / "b.wav").as_posix()]


def test_lists_on_standard_input(tree: Callable[..., list[str]]) -> None:
    assert tree("-", stdin="b.wav\r\n\nsub\nmissing.wav\n") == [
        *("b.wav", "sub/c.ogg", "sub/deep/d.mp3", "sub/deep/e.m4a", "missing.wav")
    ]
    assert tree("-", stdin="take[1].wav\0b.wav\0") == ["take[1].wav", "b.wav"]
    assert tree("a.FLAC", "-", stdin="b.wav") == ["a.FLAC", "b.wav"]


def test_each_is_found_once_in_the_order_named(tree: Callable[..., list[str]]) -> None:
    assert tree("b.wav", "./b.wav", str(Path.cwd() / "b.wav"), "sub/../b.wav", "*.wav") == ["b.wav", "take[1].wav"]
    assert tree("sub", "a.FLAC", "sub/c.ogg") == ["sub/c.ogg", "sub/deep/d.mp3", "sub/deep/e.m4a", "a.FLAC"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], "no sounds were named"),
        (["empty"], "empty: no sounds in this folder"),
        (["*.ogg"], "\\*.ogg: no sounds match"),
        (["sub/*.txt"], "no sounds match"),
        (["-"], "standard input"),
    ],
)
def test_finding_nothing_is_wrong_usage(patterns: list[str], message: str, tree: Callable[..., list[str]]) -> None:
    with pytest.raises(UsageError, match=message):
        tree(*patterns, stdin="\n")
    if "-" in patterns:
        with pytest.raises(UsageError, match=message):
            tree("-")


def test_what_holds_no_sound_fails_alone_beside_others(tree: Callable[..., list[str]]) -> None:
    assert tree("empty", "b.wav", "*.ogg", "n" * 300) == ["empty", "b.wav", "*.ogg", "n" * 300]
    assert tree("-", stdin="b.wav\nempty\n" + "n" * 300) == ["b.wav", "empty", "n" * 300]
    with pytest.raises(UsageError, match="empty: no sounds in this folder"):
        tree("empty", "*.ogg")


def test_links_that_go_in_circles_are_not_followed(tree: Callable[..., list[str]]) -> None:
    for name in ("one", "two"):
        Path("sub", name).symlink_to(Path.cwd(), target_is_directory=True)
    assert tree("sub/**", "**/*.mp3") == ["sub/c.ogg", "sub/deep/d.mp3", "sub/deep/e.m4a"]
    assert tree("**/deep/*") == ["sub/deep/d.mp3", "sub/deep/e.m4a"]
    assert tree(f"{Path.cwd()}/s*/**/[de].*") == [str(Path.cwd() / f"sub/deep/{name}") for name in ("d.mp3", "e.m4a")]


def test_what_can_be_written_is_found() -> None:
    assert set(WRITABLE) < SUFFIXES


def test_a_sound_on_standard_input_is_no_list(tree: Callable[..., list[str]]) -> None:
    with pytest.raises(UsageError, match="no list of paths"):
        tree("-", stdin="RIFF\x24\x10\0\0WAVEfmt \x10\0\0\0\x01\0")
