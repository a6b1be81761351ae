"""The words that :mod:`aural.fluency_rules` knows, by what they do in a caption.

Verbs are listed in their plain form and inflected here; nouns in the singular.
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = frozenset(("a", "an", "the"))
POSSESSIVES = _words("its their his her my your our")
PLURAL_DETERMINERS = _words(
    """
    two three four five six seven eight nine ten eleven twelve several many multiple few numerous various both
    these those
    """
)
SINGULAR_DETERMINERS = _words("a an one another each every")
DETERMINERS = ARTICLES | POSSESSIVES | PLURAL_DETERMINERS | SINGULAR_DETERMINERS | {"this", "that", "some", "no", "any"}
PRONOUNS = _words("someone somebody something everyone everybody nobody it he she")
BE = _words("is are was were")
SINGULAR_VERBS, PLURAL_VERBS = _words("is was has"), _words("are were have")
MODALS = _words("can could will would may might must should")

PREPOSITIONS = _words(
    """
    of in on at with from into onto to for by near over under through across against between among around along
    behind inside outside toward towards without during above below beside upon like than off past amid amidst
    within about via per until
    """
)
CONNECTORS = _words("and or but while as then before after followed with during alongside")
"""What stands between the events of a caption."""
RELATIVES = _words("who which that what where whose how why when if because whether")
"""Words that give a clause a second verb by right."""

# ---------------------------------------------------------------------------------------------------- ends of captions

NEVER_LAST = _words(
    """
    a an the and or but while as if because that which who whose where when than of with from into onto to for
    at during against between among amid amidst without via per until upon toward towards followed is are was
    were be has have had very its their my your our every would will could should might must am like such
    alongside including
    """
)
"""A sentence does not end with these. (Others, such as "in", "on" and "by", end one after some verbs.)"""
LAST_AFTER: dict[str, frozenset[str]] = {
    "on": _words(
        """
    turn switch go put come keep carry move drive talk run and later walk play drone flick flip drag click live
    ring ramble hum rain
    """
    ),
    "in": _words(
        """
    fade walk come breathe set kick chime join roll move drop blow go run get creep drift pull plug suck step
    break flow pour give tune ride and
    """
    ),
    "being": frozenset(("human", "humans")),
    "another": frozenset(("one", "after", "to", "and")),
    "after": _words("soon shortly right long moments seconds immediately"),
    "before": _words("than as ever one seconds moments shortly just right"),
}
ONOMATOPOEIA = _words(
    """
    tick tock knock beep choo woof bang tap clip clop ha ho ding dong drip click quack tweet ring clack chirp
    cuckoo pop knocking bye blah boom hoo moo caw chug clang la na thump whoop yap plop thud meow baa oink
    """
)
"""Words that may be said twice."""
PAIRED = _words("again on over more round up down around through years hours")
"""Words that may stand on both sides of "and"."""

# ------------------------------------------------------------------------------------------------- sound and vowels

AN_BEFORE_CONSONANT = re.compile(r"(hour|honest|heir|honou?r|x-?ray|mp3|[fhlmnrsx]\d*$|8|11|18|80)")
A_BEFORE_VOWEL = re.compile(r"(one|once|uni(?!n|m)|us(e|u|a|i)|eu|ewe|ut(e|i)|u[bf]i|ufo|uk|ur[ai]n)")

# ------------------------------------------------------------------------------------------------------------- verbs

INTRANSITIVE = _words(
    """
    bark growl howl whine whimper yelp yip yap pant meow purr hiss chirp tweet squawk caw cluck quack coo cheep
    peep hoot warble twitter chatter croak buzz hum drone moo neigh whinny bray bleat baa oink grunt snort
    squeal squeak roar snarl gallop trot talk speak converse chat murmur mumble whisper laugh giggle chuckle
    cackle cry sob wail weep scream shriek yell cheer gasp sigh cough sneeze sniff sniffle snore breathe burp
    belch hiccup gargle yawn groan moan idle sputter chug rumble whir accelerate decelerate rattle vibrate
    screech skid fall drip trickle gurgle bubble flow gush crash patter drizzle tick chime beep bleep toll clang
    clank clink clatter clack clunk jingle jangle tinkle thud thump boom crackle creak sizzle explode fade echo
    reverberate resound resonate occur hover zoom whiz throb pulse toot blare arrive whoosh swoosh rustle crow
    applaud shout sing
    """
)
_OTHER = _words(
    """
    honk whistle rev crank rush pour lap roll rain blow gust swish tock ring ding bang pop snap crack crunch
    grind scrape scratch fry sound play pass approach leave depart stop start begin continue drive move walk
    step run fly land ride speed race spin turn work operate knock slam shut close open make hit give emit
    produce create hear use tap beat strum pluck strike pull push drop throw switch flush trigger fire shoot
    shuffle clap stomp type saw hammer drill sand cut chop stir cook eat chew drink slurp swallow brush sweep
    wash clean wipe rub tear crumple fold write crush break shatter smash drag slide become get grow increase
    decrease rise change repeat follow say call answer have do go come keep seem appear carry splash spray
    squirt bounce bump flap peck splatter swirl whip wind zip tumble strain announce mutter
    """
)
_IRREGULAR_PAST = {
    **{"heard": "hear", "blown": "blow", "rung": "ring", "struck": "strike", "hit": "hit", "driven": "drive"},
    **{"broken": "break", "made": "make", "thrown": "throw", "cut": "cut", "run": "run", "fallen": "fall"},
    **{"sung": "sing", "spoken": "speak", "begun": "begin", "shot": "shoot", "said": "say", "gone": "go"},
    **{"torn": "tear", "written": "write", "eaten": "eat", "drunk": "drink", "ridden": "ride", "flown": "fly"},
    **{"beaten": "beat", "shut": "shut", "put": "put", "given": "give"},
}
SYNONYMS = {"talk": "speak", "fire": "shoot"}
"""Verbs that captioners take turns with when they tell of one event twice."""


def third(verb: str) -> str:
    """``barks``, ``passes``, ``cries``."""
    if re.search(r"(s|x|z|ch|sh|[^o]o)$", verb):
        return verb + "es"
    return re.sub(r"(?<![aeiou])y$", "ie", verb) + "s" if verb != "have" else "has"


def gerund(verb: str) -> str:
    """``barking``, ``idling``, ``humming``."""
    if re.search(r"[^eoy]e$", verb):
        return verb[:-1] + "ing"
    doubled = re.fullmatch(r"[^aeiou]*(qu)?[aeiou][^aeiouwxy]", verb) or verb == "begin"
    return verb + verb[-1] * bool(doubled) + "ing"


def past(verb: str) -> str:
    """``barked``, ``idled``, ``hummed``; regular verbs only."""
    stem = re.sub(r"(?<![aeiou])y$", "i", gerund(verb)[:-3] if not verb.endswith("y") else verb)
    return stem + "ed"


VERBS = INTRANSITIVE | _OTHER
THIRD = {third(verb): verb for verb in VERBS}
GERUND = {gerund(verb): verb for verb in VERBS}
PAST = {**{past(verb): verb for verb in VERBS}, **_IRREGULAR_PAST}
VERB_OF = {**PAST, **GERUND, **THIRD, **{verb: verb for verb in VERBS}, "lying": "lie", "dying": "die"}
"""Any form -> the verb."""
NOT_VERBS = _words("ceiling building morning evening string king thing something nothing anything spring wing")
"""Words in -ing that are none."""
ADJECTIVAL = _words(
    """
    open close clear clean dry slow live sound still cut hit shut run put set split wind rush speed start stop
    land light pop back past
    """
)
"""Plain forms that may follow "is": "is open", "is hit"."""
NOUNS_TOO = _words("call whistle sound show cry roll ride race work")
"""What an animal or a person may have as well as do: "a bird call"."""

# ------------------------------------------------------------------------------------------------------------- nouns

ANIMATE = _words(
    """
    dog puppy cat kitten bird rooster hen chicken duck cow lamb goat horse pig frog toad insect bee mosquito
    cricket owl seagull gull pigeon parrot dove wolf lion monkey snake rat animal man woman boy girl child baby
    infant person kid goose mouse donkey turkey cicada elephant tiger bear eagle hawk raven robin sparrow driver
    worker singer
    """
)
_THINGS = _words(
    """
    car truck bus motorcycle motorbike scooter vehicle train tram subway plane airplane jet helicopter boat ship
    engine motor machine tool drill window gate drawer toilet tap faucet sink pan pot cup bottle plate dish
    spoon fork knife key coin box bag book page keyboard typewriter phone telephone clock computer printer
    camera radio television microphone wheel tire road street track room house hall kitchen church forest river
    stream lake beach roof floor wall table chair desk stove hammer gun rifle ball rock stone stick branch tree
    object item surface hand finger foot chainsaw lawnmower tractor fan vacuum cleaner blender refrigerator
    bicycle bike carriage garden park field station market restaurant city town village background distance
    """
)
_SOUNDING = _words(
    """
    bell horn siren alarm drum guitar piano violin flute trumpet door glass cymbal cowbell wave raindrop voice
    song noise sound beep click tone note ring bark chirp explosion gunshot shot bang thud splash knock footstep
    step clap burst firework firecracker whoosh engine cash register drone record impact squeak tick whistle
    buzzer gong thunderclap cricket choir
    """
)
_MEASURES = _words("time second minute moment")
COUNTABLE = ANIMATE | _THINGS | _SOUNDING | _MEASURES
_IRREGULAR = {
    **{"man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice", "goose": "geese"},
    **{"foot": "feet", "knife": "knives"},
}
PLURAL = {
    _IRREGULAR.get(noun) or re.sub(r"(?<=[^aeiou])ys$", "ies", re.sub(r"(?<=[sxh])s$", "es", noun + "s")): noun
    for noun in COUNTABLE
}
MASS = _words(
    """
    rain water wind music thunder traffic laughter applause speech static silence food oil machinery equipment
    chatter rainfall hail snow steam air
    """
)
NEVER_WITH_A = _words("music water thunder traffic laughter applause food machinery equipment")
SILENT = (
    (ANIMATE | _THINGS | {"people", "men", "women", "children", "crowd", "group", "someone"}) - _SOUNDING - {"motor"}
)
"""What makes no sound unless it does something."""
SOUND_WORDS = (
    _SOUNDING | MASS | set(VERB_OF) | {"melody", "tune", "conversation", "ambience", "ambiance", "hiss", "storm"}
)

ADJECTIVES = _words(
    """
    loud soft low high small large big little heavy light short long quick slow fast deep old young new distant
    faint gentle strong sharp dull metallic electric electronic mechanical constant continuous steady sudden
    brief quiet noisy different wet dry hard rough smooth muffled high-pitched low-pitched busy metal wooden
    plastic musical
    """
)
MIDDLE_MODIFIERS = ADJECTIVES | {"male", "female", "adult"}

# ----------------------------------------------------------------------------------------------------------- adverbs

PLACES = _words("background distance nearby far close away foreground")
ADVERBS = _words(
    """
    nearby again once twice awhile somewhat away together overhead outside inside there here now also
    """
)
AGAIN = _words("again another more second third other different else once twice louder repeatedly")
"""A clause with one of these may tell of an event a second time."""
EMPTY = (
    ARTICLES | POSSESSIVES | BE | MODALS | PREPOSITIONS | {"be", "being", "been", "there", "it", "they", "has", "have"}
)
"""What says nothing of the event itself."""
TEMPORAL = frozenset(("then", "followed", "before", "after", ",", ";"))
"""Connectors that tell a sequence, in which an event may come back."""


def is_adverb(word: str) -> bool:
    """``loudly``, ``nearby``; of words in -ly those that are names or adjectives matter little here."""
    return word in ADVERBS or (word.endswith("ly") and word not in {"fly", "family", "assembly", "early"})


def is_plural(word: str) -> bool:
    """Known for sure to be more than one."""
    return word in PLURAL


def lemma(word: str) -> str:
    """The plain form of a known word; others without the s of the plural."""
    if word in VERB_OF:
        return SYNONYMS.get(VERB_OF[word], VERB_OF[word])
    if word in PLURAL:
        return PLURAL[word]
    return word[:-1] if re.search(r"[^su]s$", word) else word
