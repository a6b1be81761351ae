"""Facts of a scene in words: all that is asked about it can be told from them."""

import re

import numpy as np

from aural.soundscapes.compose import Soundscapes, SoundscapeSettings
from aural.soundscapes.facts import FIELDS, MOST_SOUNDS, PLACES, fact_sheet, facts, sheet_of_labels
from aural.soundscapes.imagined import imagined
from aural.soundscapes.questions import KINDS, attributes, questions, thing
from aural.soundscapes.scene import Part, Scene


def test_in_turn_counted_soft_and_far_away() -> None:
    dog = Part("dog bark", ((0.0, 0.3), (0.5, 0.8), (1.0, 1.3)), counted=True, level_db=-10.0, distant=True)
    rain = Part("rain", ((2.0, 5.0),))
    assert facts(Scene(5.0, (dog, rain))) == "a barking dog three far away soft then falling rain loud long"


def test_at_once_behind_and_silence() -> None:
    behind = Part("rain", ((0.0, 5.0),), background=True)
    bell = Part("bell", ((1.0, 1.4), (1.5, 1.9), (2.0, 2.4), (2.5, 2.9)), counted=True, bpm=120.0)
    quick = Part("bell", bell.times, counted=True, bpm=180.0)
    assert facts(Scene(5.0, (behind, bell))) == f"falling rain behind with {thing('bell')} four"
    assert facts(Scene(5.0, (behind, quick))).endswith(" four fast")
    assert facts(Scene(5.0, ())) == "there is silence"
    assert facts(Scene(5.0, (Part("no such sound", ((0.0, 1.0),)),))) == ""


def test_each_fact_has_a_place_of_its_own() -> None:
    dog = Part("dog bark", ((0.0, 0.3), (0.5, 0.8), (1.0, 1.3)), counted=True, level_db=-10.0, distant=True)
    rain = Part("rain", ((2.0, 5.0),))
    sheet = fact_sheet(Scene(5.0, (dog, rain)))
    assert sheet is not None and all(sheet.known) and len(sheet.places) == len(sheet.known) == MOST_SOUNDS * PLACES
    name = ("barking dog",)
    assert sheet.places[:PLACES] == (
        name, name, (*name, "three"), name, (*name, "far away"), (*name, "soft"), name, name
    )  # fmt: skip
    name = ("falling rain",)
    assert sheet.places[PLACES : 2 * PLACES] == (
        name, (*name, "then"), name, name, name, (*name, "loud"), (*name, "long"), name
    )  # fmt: skip
    assert set(sheet.places[2 * PLACES :]) == {()}


def test_of_a_label_only_the_first_place_is_known() -> None:
    sheet = sheet_of_labels(["rain"])
    assert sheet is not None and sheet.places[0] == ("falling rain",) and sum(sheet.known) == 1 and sheet.known[0]
    assert sheet_of_labels(["rain", "wind"]) is None and sheet_of_labels(["no such sound"]) is None
    silence = fact_sheet(Scene(5.0, ()))
    assert silence is not None and silence.places[:2] == (("there is silence",), ()) and all(silence.known)
    assert fact_sheet(Scene(5.0, (Part("no such sound", ((0.0, 1.0),)),))) is None


def test_no_fact_is_left_out_of_the_sheet() -> None:
    for index in range(200):
        scene = imagined(np.random.default_rng([1, index]))
        sheet = fact_sheet(scene)
        assert sheet is not None
        assert len(sheet.places) == MOST_SOUNDS * PLACES
        for place, part in enumerate(scene.parts):
            name, *places = sheet.places[place * PLACES : (place + 1) * PLACES]
            assert name and name[0] in facts(scene) and all(said[0] == name[0] for said in places)
            words = [word for said in places for word in said[1:]]
            assert sorted(set(words) - {"then", "with"}) == sorted(attributes(scene, part))
            assert all(set(said[1:]) <= set(field) for said, field in zip(places, FIELDS, strict=True))


def test_what_is_answered_stands_in_the_facts() -> None:
    soundscapes = Soundscapes([], SoundscapeSettings(seconds=(3.0, 6.0), group=4), 0)
    for index in range(40):
        scene = soundscapes(index).scene
        said = facts(scene)
        for one in questions(scene, np.random.default_rng(index)):
            if one.kind in ("count", "tempo", "what") or (one.kind == "order" and one.answer not in ("yes", "no")):
                named = re.sub(" (first|later), so (yes|no)$", "", one.answer).split(" and ")
                assert all(word in said for word in named), (said, one)
            if one.kind == "distance":
                assert ("far away" in said) or one.answer == "near"


def test_imagined_scenes_hold_all_that_can_be_asked() -> None:
    scenes = [imagined(np.random.default_rng([0, index])) for index in range(400)]
    assert scenes == [imagined(np.random.default_rng([0, index])) for index in range(400)]
    asked = {one.kind for scene in scenes for one in questions(scene, np.random.default_rng(0))}
    assert asked == set(KINDS)
    for scene in scenes:
        assert len(set(scene.labels)) == len(scene.labels) and facts(scene)
        assert all(0 <= start < end <= scene.seconds for part in scene.parts for start, end in part.times)
        assert [part.start for part in scene.foreground] == sorted(part.start for part in scene.foreground)
    assert any(len(scene.order) == 3 for scene in scenes) and any(not scene.order for scene in scenes)
