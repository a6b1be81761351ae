"""The tour: it runs on the bundled recordings, and its page is whole, well-formed and needs nothing from outside."""

import base64
import contextlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile

from aural.answering.answer import answer
from aural.answering.classify import classify
from aural.audio_to_image.imagine import generate_image
from aural.captioning.caption import caption
from aural.demo import ASKED, BLENDED, EXAMPLES, LABELS, N_SOUNDSCAPES, PROMPTS, demo

VOID = {"meta", "link", "img", "br", "hr", "input"}
FETCHING = {"src", "srcset", "href", "poster", "data", "action", "background"}
"""Attributes that make a browser fetch something."""


class Page(HTMLParser):
    """Collects texts and fetching attributes, and fails on tags that do not close in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.fetched: list[str] = []
        self.counts: dict[str, int] = {}
        self.texts: list[str] = []
        self.feed(content)
        self.close()
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.fetched += [value or "" for name, value in attrs if name in FETCHING]
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The page and what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        page = demo(tmp_path_factory.mktemp("tour") / "new" / "folder", device="cpu", seed=0)
    return page, printed.getvalue()


def test_every_recording_has_its_sound_its_picture_and_its_caption(tour: tuple[Path, str]) -> None:
    clips = sorted(EXAMPLES.glob("*.ogg"))
    page = Page(tour[0].read_text(encoding="utf-8"))
    n_articles = 3 * len(clips) + len(PROMPTS) + N_SOUNDSCAPES
    assert clips and page.counts["article"] == page.counts["audio"] == n_articles
    assert page.counts["img"] == n_articles + len(BLENDED) * len(clips)
    for clip, result in zip(clips, caption([*clips], seed=0), strict=True):
        assert clip.name in page.texts and clip.name in tour[1]
        assert page.texts.count(result.text) >= 2  # said, and listed among the captions considered
        assert result.text in tour[1]
        best = result.candidates[0]
        for number in (best.log_likelihood, best.similarity, best.score):
            assert f"{number:+.2f}" in page.texts and f"{number:+.2f}" in tour[1]
    assert len([text for text in page.texts if text.startswith("truth: ")]) == N_SOUNDSCAPES
    sounds = [source for source in page.fetched if source.startswith("data:audio/ogg;base64,")]
    shown = [base64.b64decode(source.partition(",")[2]) for source in sounds]
    assert shown == 3 * [clip.read_bytes() for clip in clips]


def test_every_recording_is_asked_and_chooses_among_labels(tour: tuple[Path, str]) -> None:
    clips = sorted(EXAMPLES.glob("*.ogg"))
    page = Page(tour[0].read_text(encoding="utf-8"))
    for question in ASKED:
        assert page.texts.count(question) == len(clips)
        for said in answer([*clips], question):
            assert said.text in page.texts and f"{question}  {said.text}\n" in tour[1]
    for clip, found in zip(clips, classify([*clips], sorted(LABELS.values())), strict=True):
        assert found.label == LABELS[clip.stem]
        assert re.search(rf"{clip.name} +{found.label} {found.score:.0%}", tour[1])


def test_every_recording_is_painted(tour: tuple[Path, str]) -> None:
    shown = {source for source in Page(tour[0].read_text(encoding="utf-8")).fetched if "image/png" in source}
    for clip in sorted(EXAMPLES.glob("*.ogg")):
        file = io.BytesIO()
        generate_image(clip, seed=0).save(file, format="png")
        assert f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}" in shown
        assert f"{clip.name}, alone and with 35% and 65% of " in tour[1]


def test_every_prompt_has_its_sound(tour: tuple[Path, str]) -> None:
    page = Page(tour[0].read_text(encoding="utf-8"))
    played = [source for source in page.fetched if source.startswith("data:audio/flac;base64,")]
    assert len(played) == len(PROMPTS) + N_SOUNDSCAPES
    for prompt, source in zip(PROMPTS, played, strict=False):
        assert prompt in page.texts and f"aural generate {prompt!r}: 5 s of sound\n" in tour[1]
        waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert len(waveform) == 5 * rate and abs(waveform).max() > 0.01


def test_page_asks_nobody_for_anything(tour: tuple[Path, str]) -> None:
    content = tour[0].read_text(encoding="utf-8")
    assert all(source.startswith("data:") for source in Page(content).fetched)
    assert not re.search(r"@import|url\(|<script", content)
    assert [path.name for path in tour[0].parent.iterdir()] == ["index.html"]
