"""What is wrong with a caption: a few rules over word lists, and no other grammar.

FENSE (Zhou et al., arXiv 2110.04684) found that captioners go wrong in five ways: sentences that break off, events and
words that are told twice, conjunctions and verbs that are missing. :func:`errors` looks for these, and for articles and
numbers that do not agree. What it does not know it lets pass: what it objects to is nearly always wrong, but not all
that is wrong is found; tests/test_fluency.py measures both. Noun phrases ("a dog barking", "two short beeps, then
silence") are captions too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from aural import fluency_words as words


@dataclass(frozen=True)
class _Clause:
    """What stands between two connectors."""

    words: tuple[str, ...]
    before: str
    """The connector before it, "" at the beginning; "," for any punctuation."""

    @property
    def verb(self) -> int | None:
        """Where the first word is that can only be its finite verb, given what stands before it; None: nowhere."""
        for index, word in enumerate(self.words):
            if word in words.BE or word in words.MODALS or word in ("has", "have"):
                return index if index or word in words.BE else None
            if index and word in words.THIRD and _is_noun_like(self.words[index - 1]):
                return index
            if index and word in words.VERBS and self._head(index) is not None:
                return index
        return None

    def _head(self, verb: int) -> int | None:
        """Where the known noun or pronoun is that a verb's subject ends with; adverbs may come between."""
        index = verb - 1
        while index > 0 and words.is_adverb(self.words[index]):
            index -= 1
        word = self.words[index] if index >= 0 else ""
        known = word in words.COUNTABLE or words.is_plural(word) or word in words.PRONOUNS or word in words.MASS
        return index if known else None


def errors(caption: str) -> tuple[str, ...]:
    """What is wrong with a caption, by name, each once; nothing if nothing is known to be.

    The names: "empty", "too short", "incomplete", "repeated word", "repeated adverb", "repeated event", "missing
    conjunction", "missing verb", "missing preposition", "wrong article", "wrong number", "wrong verb form".
    """
    tokens = re.findall(
        r"[a-z0-9]+(?:['’/-][a-z0-9]+)*|[,;:.!?]", re.sub(r"\bfor a while\b", "awhile", caption.lower())
    )
    while tokens and tokens[-1] in ".!?,;:":
        tokens.pop()
    spoken = tuple(token for token in tokens if token[0].isalnum())
    if not spoken:
        return ("empty",)
    if len(spoken) == 1:
        says = spoken[0] in words.SOUND_WORDS or _is_verb_form(spoken[0])
        return () if says and spoken[0] not in words.NEVER_LAST else ("too short",)
    clauses = _clauses(tokens)
    found = {
        "incomplete": _is_incomplete(tokens),
        "repeated word": _repeats_word(tokens),
        "repeated adverb": any(map(_repeats_adverb, clauses)),
        "repeated event": _repeats_event(tokens, clauses),
        "missing conjunction": _lacks_conjunction(spoken, clauses),
        "missing verb": _lacks_verb(spoken, clauses),
        "missing preposition": _lacks_preposition(tokens),
        "wrong article": _has_wrong_article(tokens),
        "wrong number": _has_wrong_number(tokens) or _disagrees(clauses),
        "wrong verb form": _has_wrong_verb_form(tokens),
    }
    return tuple(kind for kind, is_there in found.items() if is_there)


def _clauses(tokens: Sequence[str]) -> list[_Clause]:
    clauses: list[_Clause] = []
    current: list[str] = []
    before = ""
    for index, token in enumerate(tokens):
        follows = index > 0 and tokens[index - 1] == "followed" and token == "by"
        as_loud_as = token == "as" and (
            (index + 2 < len(tokens) and tokens[index + 2] == "as") or _is_as_phrase(tokens, index)
        )
        if (token in words.CONNECTORS or not token[0].isalnum()) and not as_loud_as:
            if current:
                clauses.append(_Clause(tuple(current), before))
                before, current = "", []
            # "and then" tells a sequence, "and while" what happens at the same time.
            before = token if (token[0].isalnum() and token != "and") or not before else before
            before = "," if not before[0].isalnum() else before
        elif not follows:
            current.append(token)
    return [*clauses, _Clause(tuple(current), before)] if current else clauses


def _is_as_phrase(tokens: Sequence[str], index: int) -> bool:
    """ "such as", "as well", "as if": no connector of clauses."""
    before = tokens[index - 1] if index else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    return before in ("such", "same", "known", "well", "used") or after in ("well", "if", "though", "soon", "part")


def _is_verb_form(word: str) -> bool:
    return word in words.VERB_OF or (len(word) > 4 and word.endswith("ing") and word not in words.NOT_VERBS)


def _is_noun_like(word: str) -> bool:
    """Whether a word can end a subject: a pronoun, or nothing that is known to be something else."""
    if word in words.PRONOUNS or words.is_adverb(word):
        return True
    other = words.DETERMINERS | words.PREPOSITIONS | words.MIDDLE_MODIFIERS | words.BE | words.MODALS
    return word not in other and word not in words.VERB_OF and not _is_verb_form(word)


def _is_over(tokens: Sequence[str], index: int) -> bool:
    """Whether the noun phrase is over before ``index``: what follows is no noun that would continue it."""
    if index >= len(tokens):
        return True
    token = tokens[index]
    return (
        not token[0].isalnum()
        or token in words.CONNECTORS | words.PREPOSITIONS | words.BE | words.MODALS | words.RELATIVES | {"has", "have"}
        or words.is_adverb(token)
        or (_is_verb_form(token) and token not in words.COUNTABLE)
        or (token in words.VERBS and _is_over(tokens, index + 1))
    )


def _is_incomplete(tokens: Sequence[str]) -> bool:
    last, before = tokens[-1], tokens[-2]
    is_past = before.endswith("ed") or before in words.PAST
    if last in words.NEVER_LAST or (
        last in words.ADJECTIVES and before in words.ARTICLES and last not in ("metal", "low")
    ):
        return True
    if last in words.LAST_AFTER:
        allowed = words.LAST_AFTER[last]
        return before not in allowed and words.lemma(before) not in allowed and not (last == "on" and is_past)
    if last == "by" and is_past:
        return True
    needs_object = {"of", "from", "into", "onto", "at", "for", "against", "with"}
    joins = {"and", "while", "as", "then", "or", "but", "followed", ","}
    pairs = set(pairwise(tokens))
    dangling = any(first in needs_object and second in joins for first, second in pairs)
    with_and_without = "with and without" in " ".join(tokens)
    return (dangling and not with_and_without) or ("followed" in tokens and ("by", "and") in pairs)


def _repeats_word(tokens: Sequence[str]) -> bool:
    """ "a dog dog barks", "rustling and rustling", "and while and"."""
    for index, token in enumerate(tokens[:-1]):
        if token == tokens[index + 1] and token not in words.ONOMATOPOEIA and token.isalpha():
            return True
        if (
            tokens[index : index + 2] == tokens[index + 2 : index + 4]
            and token not in words.ONOMATOPOEIA
            and token[0].isalnum()
        ):
            return not set(tokens[index : index + 2]) & (words.ONOMATOPOEIA | {"and", "then"})
    joined = ("while and", "as and", "then and", "or and", "but and", "while while", "as while", "the a", "an and")
    return any(f" {pair} " in f" {' '.join(tokens)} " for pair in joined)


def _repeats_adverb(clause: _Clause) -> bool:
    adverbs = [word for word in clause.words if words.is_adverb(word)]
    return len(adverbs) != len(set(adverbs))


def _repeats_event(tokens: Sequence[str], clauses: Sequence[_Clause]) -> bool:
    for first, middle, last in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if (
            first == last
            and middle == "and"
            and not (first in words.PAIRED | words.ONOMATOPOEIA or first.endswith("er"))
        ):
            return True
    told: list[tuple[frozenset[str], frozenset[str]]] = []
    subject: frozenset[str] = frozenset()
    for index, clause in enumerate(clauses):
        event, manner, subject = _told(clause, subject)
        comes_back = clause.before in words.TEMPORAL
        for earlier, (other, other_manner) in enumerate(told):
            near = earlier == index - 1 or not comes_back
            alike = event == other and (manner == other_manner or not manner or not other_manner)
            if event and near and alike and not words.AGAIN & set(clause.words) and event & words.SOUND_WORDS:
                return True
        told.append((event, manner))
    return False


def _told(clause: _Clause, subject: frozenset[str]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """What a clause tells: the event, where and how it happens, and of whom (as before, if it names nobody)."""
    manner = {word for word in clause.words if words.is_adverb(word) or word in words.PLACES | {"times"}}
    manner |= {a for a, b in pairwise(clause.words) if b == "times"}  # several, three
    core: list[str] = []
    started = False
    for word in clause.words:
        if word in words.PREPOSITIONS and started and word != "of":
            manner |= {word for word in clause.words[clause.words.index(word) + 1 :] if word not in words.EMPTY}
            break
        started = started or _is_verb_form(word)
        if word not in words.EMPTY and word not in manner:
            core.append(words.lemma(word))
    verbs = [i for i, word in enumerate(core) if word in words.VERBS]
    if verbs and verbs[0] == 0:
        return frozenset(core) | subject, frozenset(manner), subject
    named = frozenset(core[: verbs[0]] if verbs else core)
    return frozenset(core), frozenset(manner), named


def _lacks_conjunction(spoken: Sequence[str], clauses: Sequence[_Clause]) -> bool:
    """Two clauses run together: "a dog barks a cat meows", "birds chirping people talking"."""
    if words.RELATIVES & set(spoken) or "like" in spoken or "each time" in " ".join(spoken):
        return False
    if any(a == "followed" and (b in words.DETERMINERS or b in words.GERUND) for a, b in pairwise(spoken)):
        return True
    return any(_runs_on(clause.words) for clause in clauses)


def _runs_on(clause: tuple[str, ...]) -> bool:
    finite = 0
    acting: int | None = None  # where the last participle was that takes no object
    for index, word in enumerate(clause):
        after = clause[index + 1] if index + 1 < len(clause) else ""
        previous = clause[index - 1] if index else ""
        if word in words.BE or (word in words.MODALS and (after == "be" or after in words.VERBS)):
            finite += previous != "there" or finite > 0
        elif word in words.THIRD and words.THIRD.get(previous) in words.INTRANSITIVE:
            return True
        elif after not in words.BE | words.MODALS | {"and"} and _is_finite(clause, index):
            finite += 1
        elif word in words.GERUND and index and _is_known_noun(previous):
            if acting is not None and index - acting <= 4 and not words.PREPOSITIONS & set(clause[acting:index]):
                return True
            acting = index if words.GERUND[word] in words.INTRANSITIVE else None
    return finite > 1


def _is_finite(clause: tuple[str, ...], index: int) -> bool:
    """Whether a word is the verb of the noun before it; "bird calls" without an article are calls."""
    start = index - 1
    while start > 0 and words.is_adverb(clause[start]):
        start -= 1
    if start < 0:
        return False
    noun = clause[start]
    if clause[index] in words.VERBS:
        return words.is_plural(noun)
    if clause[index] not in words.THIRD:
        return False
    has_determiner = any(word in words.DETERMINERS for word in clause[max(0, start - 3) : start])
    return noun in words.PRONOUNS or noun in words.MASS or (has_determiner and _is_noun_like(noun))


def _is_known_noun(word: str) -> bool:
    return word in words.COUNTABLE or word in words.MASS or words.is_plural(word)


def _lacks_verb(spoken: tuple[str, ...], clauses: Sequence[_Clause]) -> bool:
    if _is_silent(spoken):
        return True
    for index, clause in enumerate(clauses):
        if clause.before in ("while", "as") and _is_silent(clause.words):
            return True
        following = clauses[index + 1].before if index + 1 < len(clauses) else ""
        if following == "followed" and _is_silent(tuple(w for w in clause.words if w not in words.BE)):
            return True
        # "a man speaks and a bird": what does the bird do?
        before = clauses[index - 1].words if index else ()
        says = before and words.THIRD.get(before[-1]) in words.INTRANSITIVE and _is_finite(before, len(before) - 1)
        last = index == len(clauses) - 1
        if (
            says
            and last
            and len(clause.words) <= 3
            and clause.words[0] in words.DETERMINERS
            and _is_silent(clause.words)
        ):
            return clause.before in ("and", "then", "but")
    return False


def _is_silent(clause: tuple[str, ...]) -> bool:
    """Known things, and nothing that any of them does."""
    left = [
        word
        for word in clause
        if word not in words.EMPTY | words.DETERMINERS | words.CONNECTORS and not words.is_adverb(word)
    ]
    left = [word for word in left if word not in words.MIDDLE_MODIFIERS]
    return bool(left) and all(word in words.SILENT or words.PLURAL.get(word) in words.SILENT for word in left)


def _lacks_preposition(tokens: Sequence[str]) -> bool:
    """ "birds chirp the background"."""
    for index in range(1, len(tokens) - 1):
        if tokens[index] == "the" and tokens[index + 1] in ("background", "distance") and _is_over(tokens, index + 2):
            return _is_verb_form(tokens[index - 1]) and tokens[index - 1] not in (
                "filling",
                "fills",
                "fill",
                "covering",
            )
    return False


def _has_wrong_article(tokens: Sequence[str]) -> bool:
    never_next = words.BE | {"and", "or", "while", "as", "but", "of", "with", "from", "to", "into", "at", "for", "then"}
    never_next |= words.ARTICLES | words.POSSESSIVES | {","}
    for index, (article, word) in enumerate(pairwise(tokens)):
        if article not in words.SINGULAR_DETERMINERS | words.ARTICLES:
            continue
        if article in words.ARTICLES and word in never_next:
            return True
        vowel = word[0] in "aeiou"
        if article == "a" and vowel and not words.A_BEFORE_VOWEL.match(word) and len(word) > 1:
            return True
        if article == "an" and not vowel and not words.AN_BEFORE_CONSONANT.match(word) and re.search("[aeiouy]", word):
            return True
        if article == "the":
            continue
        noun = _skip_modifiers(tokens, index + 1)
        if noun < len(tokens) and words.is_plural(tokens[noun]) and _is_over(tokens, noun + 1):
            return True
        if article in ("a", "an") and word in words.NEVER_WITH_A and _is_over(tokens, index + 2):
            return True
    return False


def _skip_modifiers(tokens: Sequence[str], index: int) -> int:
    while index < len(tokens) and tokens[index] in words.MIDDLE_MODIFIERS:
        index += 1
    return index


def _has_wrong_number(tokens: Sequence[str]) -> bool:
    """ "two dog bark", "several time"."""
    for index, token in enumerate(tokens[:-1]):
        if not (token in words.PLURAL_DETERMINERS or (token.isdigit() and int(token) > 1)):
            continue
        noun = _skip_modifiers(tokens, index + 1)
        if noun < len(tokens) and tokens[noun] in words.COUNTABLE and _is_over(tokens, noun + 1):
            return not (tokens[noun] == "second" and token == "both")
    return False


def _disagrees(clauses: Sequence[_Clause]) -> bool:
    """ "a dog bark", "dogs barks", "a man and a woman speaks", "there is two dogs"."""
    for index, clause in enumerate(clauses):
        verb = clause.verb
        if verb is None:
            continue
        said = clause.words[verb]
        after = clause.words[verb + 1] if verb + 1 < len(clause.words) else ""
        if verb and clause.words[verb - 1] == "there":
            plural = after in words.PLURAL_DETERMINERS or words.is_plural(after)
            if (said == "is" and plural) or (said == "are" and after in words.SINGULAR_DETERMINERS):
                return True
            continue
        head = clause._head(verb)
        if head is None or words.PREPOSITIONS & set(clause.words[:head]):
            continue
        noun = clause.words[head]
        singular_verb = said in words.SINGULAR_VERBS or said in words.THIRD
        plural_verb = said in words.PLURAL_VERBS or (said in words.VERBS and said not in words.THIRD)
        earlier = clauses[index - 1] if index and clause.before in ("and", "or", ",") else None
        joined = earlier is not None and earlier.verb is None
        if words.is_plural(noun) and singular_verb and after not in words.BE:
            return True
        if joined and earlier is not None:
            both = [each.words[-1] if each is earlier else noun for each in (earlier, clause)]
            alone = index == 1 and len(earlier.words) <= 3 and clause.before == "and"
            if alone and singular_verb and set(both) <= words.ANIMATE and earlier.words[0] in words.ARTICLES:
                return True
            continue
        if plural_verb and _is_one(clause.words, head) and not _is_compound(noun, said, after):
            return not {"hear", "hears", "hearing", "make", "makes", "making", "let", "lets"} & set(clause.words[:verb])
    return False


def _is_one(clause: tuple[str, ...], head: int) -> bool:
    noun = clause[head]
    if noun in words.PRONOUNS or noun in words.MASS:
        return True
    singular = words.SINGULAR_DETERMINERS | {"this"}
    return noun in words.COUNTABLE and any(word in singular for word in clause[max(0, head - 3) : head])


def _is_compound(noun: str, verb: str, after: str) -> bool:
    """ "a door slam", "a bird call is heard": the verb may be a noun. What is alive does things, though."""
    if verb in words.PLURAL_VERBS:
        return False
    if after in words.BE | words.MODALS | {"of"} or after in words.THIRD or _is_known_noun(after):
        return True
    only_verbs = {"fly", "occur", "speak", "become", "begin", "continue", "sing", "sizzle"}
    return verb not in only_verbs and (noun not in words.ANIMATE | words.PRONOUNS or verb in words.NOUNS_TOO)


def _has_wrong_verb_form(tokens: Sequence[str]) -> bool:
    """ "a dog is bark", "a bell can heard"."""
    for index, (first, second) in enumerate(pairwise(tokens)):
        before = tokens[index - 1] if index else ""
        if first in words.BE | {"be"} and before != "there":
            plain = second in words.VERBS and second not in words.ADJECTIVAL | words.PAST.keys()
            if (plain or second in words.THIRD) and second not in words.MASS:
                return True
        modal = first in words.MODALS and index and before not in words.DETERMINERS | words.MIDDLE_MODIFIERS
        if modal and (second in ("heard", "being") or (second in words.THIRD and second not in words.VERBS)):
            return True
    return False
