"""The truth about a soundscape: which sounds, how often, when, how loud, how far away."""

from dataclasses import dataclass
from itertools import combinations

from aural.manifest import Event
from aural.sound_phrases import SILENCE

CONTRAST_DB = 8.0
"""From this difference on, one sound may be called louder than another."""

SLOW_BPM, FAST_BPM = 90.0, 150.0
"""A regular series below the first is slow, above the second quick; in between, nothing is said."""


@dataclass(frozen=True)
class Part:
    """One sound of a scene, all its occurrences together."""

    label: str
    times: tuple[tuple[float, float], ...]
    """(start, end) in seconds of each occurrence, or of the whole where single ones cannot be told apart."""
    counted: bool = False
    """Whether ``times`` are single events, whose number may be stated and asked for."""
    level_db: float = 0.0
    """Of what sounds, relative to the level of the scene."""
    distant: bool = False
    bpm: float | None = None
    """Occurrences a minute, where at least four come at a steady pace."""
    background: bool = False
    """Goes on from beginning to end behind the others."""

    @property
    def start(self) -> float:
        """Seconds."""
        return self.times[0][0]

    @property
    def end(self) -> float:
        """Seconds."""
        return self.times[-1][1]

    @property
    def count(self) -> int | None:
        """How many occurrences, where they can be told apart."""
        return len(self.times) if self.counted else None

    @property
    def seconds(self) -> float:
        """How long it sounds altogether, pauses not counted."""
        return sum(end - start for start, end in self.times)

    @property
    def tempo(self) -> str | None:
        """ "slow", "fast", or None where it is neither."""
        if self.bpm is None or SLOW_BPM <= self.bpm <= FAST_BPM:
            return None
        return "slow" if self.bpm < SLOW_BPM else "fast"


@dataclass(frozen=True)
class Scene:
    """All there is to know about a soundscape. No parts: silence."""

    seconds: float
    parts: tuple[Part, ...]
    """The background first, then by onset; no two have the same label."""
    sources: tuple[str, ...] = ()
    """The recordings it was made from."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What is heard; "silence" where nothing is."""
        return tuple(part.label for part in self.parts) or (SILENCE,)

    @property
    def events(self) -> tuple[Event, ...]:
        """Every occurrence with its times, by onset; ``single`` where the number of them may be stated."""
        events = [Event(part.label, *times, single=part.counted) for part in self.parts for times in part.times]
        return tuple(sorted(events, key=lambda event: (event.start, event.label)))

    @property
    def foreground(self) -> tuple[Part, ...]:
        """All but the background."""
        return tuple(part for part in self.parts if not part.background)

    @property
    def order(self) -> tuple[tuple[str, str], ...]:
        """Pairs of labels of which all of the first is over before the second begins."""
        return tuple((a.label, b.label) for a, b in combinations(self.foreground, 2) if a.end <= b.start)

    def louder(self, part: Part) -> bool | None:
        """Whether a foreground part is the loudest by a clear margin (True), clearly softer than another (False)."""
        others = [other for other in self.foreground if other is not part]
        if not others or part.background:
            return None
        if all(part.level_db - other.level_db >= CONTRAST_DB for other in others):
            return True
        return False if any(other.level_db - part.level_db >= CONTRAST_DB for other in others) else None
