"""Captions as AudioGen was trained on them: keywords, such as ``dog bark park`` for "a dog is barking at the park".

Kreuk et al., arXiv 2209.15352, section 4, which arXiv 2309.08773 follows: tags are joined to a pseudo-sentence; of
captions, words that say nothing (stop words) and numbers are left out and the others put into their plain form; clips
of speech are left out altogether. The paper took its lemmas from WordNet; here they come from the words that
:mod:`aural.fluency_words` knows, and from the rules of spelling for all others.
"""

import re
from collections.abc import Sequence

from aural.fluency_words import (
    BE,
    CONNECTORS,
    DETERMINERS,
    MODALS,
    NOT_VERBS,
    PLURAL,
    PREPOSITIONS,
    PRONOUNS,
    RELATIVES,
    VERB_OF,
)
from aural.manifest import Clip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LEFT_OUT = "speech"
"""Clips whose tags or captions hold this word are not learned from."""

NUMBERS = _words(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand
    """
)

STOP_WORDS = DETERMINERS | PRONOUNS | BE | MODALS | PREPOSITIONS | CONNECTORS | RELATIVES
STOP_WORDS |= _words(
    """
    be been being am do does did doing has have had having i we they you me him us them himself herself itself
    themselves there here not nor so too very just only own same such both all most more less also again once
    still almost about up down out off then now ever never yet else rather quite even much later
    """
)

_IRREGULAR = {
    **{"teeth": "tooth", "wolves": "wolf", "leaves": "leaf", "hooves": "hoof", "calves": "calf", "buses": "bus"},
    **{
        "glasses": "glass",
        "geese": "goose",
        "oxen": "ox",
        "ran": "run",
        "rang": "ring",
        "sang": "sing",
        "spun": "spin",
    },
    **{"spoke": "speak", "drove": "drive", "flew": "fly", "blew": "blow", "fell": "fall", "went": "go", "came": "come"},
    **{"swung": "swing", "changing": "change", "changed": "change", "tying": "tie", "skiing": "ski"},
}
_AS_THEY_ARE = NOT_VERBS | _words(
    """
    wedding lightning clothing lining bearing red bed shed sled seed weed need feed speed breed bleed hundred sacred
    chaos canvas gas bass bus lens news series species scissors headphones christmas
    """
)
_VOWEL = "[aeiouy]"


def pseudo_sentence(tags: Sequence[str]) -> str:
    """Tags joined by spaces: ``("dog", "bark", "park")`` -> ``dog bark park``."""
    return " ".join(tags)


def keywords(caption: str) -> str:
    """A caption without stop words, numbers and punctuation, each word in its plain form; perhaps nothing is left."""
    words = re.findall(r"[a-z]+(?:'[a-z]+)?|\d+", caption.lower().replace("’", "'"))
    return " ".join(
        lemma(word)
        for word in (word.split("'")[0] for word in words)
        if word not in STOP_WORDS and word not in NUMBERS and not word.isdigit() and len(word) > 1
    )


def says_speech(clip: Clip) -> bool:
    """Whether a tag or caption of the clip holds the word "speech"."""
    return any(LEFT_OUT in re.findall(r"[a-z]+", text.lower()) for text in (*clip.labels, *clip.captions))


def prepared(clip: Clip) -> tuple[str, ...]:
    """The texts that a clip is learned with: keywords of its captions, or else its tags; none if it is left out."""
    if says_speech(clip):
        return ()
    texts = [keywords(caption) for caption in clip.captions] or [pseudo_sentence(clip.labels)]
    return tuple(dict.fromkeys(text for text in texts if text))


def lemma(word: str) -> str:
    """The plain form of a lower-case word: the verb of ``barking``, the one thing of ``dogs``."""
    if word in _AS_THEY_ARE:
        return word
    known = _IRREGULAR.get(word) or VERB_OF.get(word) or PLURAL.get(word)
    if known:
        return known
    if found := re.fullmatch(rf"(\w*{_VOWEL}\w*)(?:ing|(?<!e)ed)", word):
        return _verb(found[1])
    if word.endswith("ies"):
        return word[:-3] + ("y" if len(word) > 4 else "ie")
    if re.search(r"(?:ss|sh|ch|x|zz)es$", word):
        return word[:-2]
    return word[:-1] if len(word) > 3 and re.search(r"[^sui]s$", word) else word


def _verb(stem: str) -> str:
    """What is left of a verb without -ing or -ed -> the verb, with its ``e`` or without the doubled letter."""
    if stem.endswith("i") and len(stem) > 2:
        return stem[:-1] + "y"
    if re.search(r"([bdgkmnprt])\1$", stem):
        return stem[:-1]
    is_short = re.fullmatch(rf"(?:qu|[^aeiouy])*{_VOWEL}[^aeiouywx]", stem)  # the letter would be doubled
    is_mute = re.search(r"([bcdfgkpstz]l|[cuv]|[^s]s|[^z]z|[dr]g|[^aeo]at|[st]ur)$", stem)
    return stem + "e" if is_short or is_mute else stem
