"""The words for sounds: how the labels of the bundled corpora are said in captions, and how a caption is read back.

The phrases claim no more than a label does: that the sound is there, not how often, how loud or where. They are lower
case and without punctuation, the form that captioners learn and write. Every phrase names its own sound alone, by
:func:`named_sounds`, so that captions put together from them can be checked word by word.
"""

import re
from dataclasses import dataclass

from aural.errors import UsageError


@dataclass(frozen=True)
class SoundPhrases:
    """The words for one sound; any of a kind can stand where another can."""

    noun_phrases: tuple[str, ...]
    """``a barking dog``: after "and" or "with", before "can be heard"."""
    participle: tuple[str, ...]
    """``a dog barking``: before "while ...", after "the sound of"."""
    finite: tuple[str, ...]
    """``a dog barks``: a sentence, and half of one with "and", "while" or "as"."""
    keywords: tuple[str, ...]
    """A caption that has any of these whole words, or sequences of words, names this sound."""
    one_and_many: tuple[str, str] | None = None
    """``bark of a dog``, ``barks of a dog``: what is counted, where single events can be; None where they cannot."""


def _played(thing: str, *keywords: str, hit: str | None = None) -> SoundPhrases:
    """An instrument that is played, which is true of samples and of synthetic ones alike; ``hit``: one note of it."""
    return SoundPhrases(
        one_and_many=None if hit is None else (hit, hit + "s"),
        noun_phrases=(thing, f"the sound of {thing}"),
        participle=(f"{thing} playing", f"{thing} being played"),
        finite=(f"{thing} plays", f"{thing} is playing", f"{thing} is being played"),
        keywords=keywords,
    )


SOUNDS: dict[str, SoundPhrases] = {
    # ESC-10
    "dog bark": SoundPhrases(
        ("a barking dog", "the barking of a dog", "the bark of a dog"),
        ("a dog barking", "a dog making barking sounds"),
        ("a dog barks", "a dog is barking", "a dog makes barking sounds"),
        ("dog", "dogs", "puppy", "bark", "barks", "barking", "barked", "woof"),
        one_and_many=("bark of a dog", "barks of a dog"),
    ),
    "rain": SoundPhrases(
        ("falling rain", "rainfall", "the noise of falling rain"),
        ("rain falling", "rain coming down"),
        ("rain falls", "rain is falling", "the rain comes down"),
        ("rain", "rains", "raining", "rainfall", "raindrops", "rainy", "rainstorm"),
    ),
    "sea waves": SoundPhrases(
        ("breaking sea waves", "the waves of the sea", "the surf of the sea"),
        ("sea waves breaking", "waves of the sea rolling"),
        ("sea waves break", "sea waves are breaking", "the waves of the sea roll"),
        ("sea", "ocean", "wave", "waves", "surf"),
    ),
    "baby cry": SoundPhrases(
        ("a crying baby", "the crying of a baby", "the cry of a baby"),
        ("a baby crying", "an infant crying"),
        ("a baby cries", "a baby is crying", "an infant is crying"),
        ("baby", "babies", "infant", "cry", "cries", "crying"),
    ),
    "clock tick": SoundPhrases(
        ("a ticking clock", "the ticking of a clock", "the tick of a clock"),
        ("a clock ticking", "a clock making ticking sounds"),
        ("a clock ticks", "a clock is ticking", "a clock makes ticking sounds"),
        ("clock", "clocks", "tick", "ticks", "ticking", "tick-tock", "ticktock"),
    ),
    "person sneeze": SoundPhrases(
        ("a sneezing person", "the sneeze of a person"),
        ("a person sneezing", "someone sneezing"),
        ("a person sneezes", "a person is sneezing", "someone sneezes"),
        ("sneeze", "sneezes", "sneezing", "sneezed", "achoo"),
        one_and_many=("sneeze of a person", "sneezes of a person"),
    ),
    "helicopter": SoundPhrases(
        ("a flying helicopter", "the noise of a helicopter", "the rotor of a helicopter"),
        ("a helicopter flying", "a helicopter with its rotor turning"),
        ("a helicopter flies", "a helicopter is flying", "the rotor of a helicopter turns"),
        ("helicopter", "helicopters", "chopper", "rotor"),
    ),
    "chainsaw": SoundPhrases(
        ("a running chainsaw", "the buzz of a chainsaw", "the motor of a chainsaw"),
        ("a chainsaw running", "a chainsaw buzzing"),
        ("a chainsaw runs", "a chainsaw is running", "a chainsaw buzzes"),
        ("chainsaw", "chainsaws", "chain saw", "chain saws"),
    ),
    "rooster": SoundPhrases(
        ("a crowing rooster", "the crowing of a rooster", "the call of a rooster"),
        ("a rooster crowing", "a rooster calling"),
        ("a rooster crows", "a rooster is crowing", "a rooster calls"),
        ("rooster", "roosters", "cockerel", "crowing", "cock-a-doodle-doo", "cockadoodledoo"),
        one_and_many=("call of a rooster", "calls of a rooster"),
    ),
    "fire crackling": SoundPhrases(
        ("a crackling fire", "the crackling of a fire", "the crackle of a fire"),
        ("a fire crackling", "a fire burning and crackling"),
        ("a fire crackles", "a fire is crackling", "a fire burns and crackles"),
        ("fire", "fires", "campfire", "flames", "crackle", "crackles", "crackling"),
    ),
    # instruments
    "tabla": _played("a tabla", "tabla", "tablas", hit="tabla stroke"),
    "kick drum": _played("a kick drum", "kick", "kicks", "kick drums", "bass drum", "bass drums", hit="kick drum hit"),
    "hi-hat": _played(
        "a hi hat",
        *(f"{hat}{s}" for hat in ("hi-hat", "hi hat", "hihat") for s in ("", "s", " cymbal", " cymbals")),
        hit="hi hat hit",
    ),
    "snare drum": _played("a snare drum", "snare", "snares", "snare drums", hit="snare drum hit"),
    "tom drum": _played("a tom drum", "tom", "toms", "tom drums", "tom-tom", "tomtom", hit="tom drum hit"),
    "cymbal": _played("a cymbal", "cymbal", "cymbals", hit="cymbal hit"),
    "synth bass": _played("a synthesizer bass", "synthesizer bass", "synth bass", "bass synthesizer", "bass synth"),
    "guitar": _played("a guitar", "guitar", "guitars"),
    "piano": _played("a piano", "piano", "pianos"),
    "cowbell": SoundPhrases(
        ("a cowbell", "the sound of a cowbell"),
        ("a cowbell being hit", "a cowbell sounding"),
        ("a cowbell is hit", "a cowbell is being hit", "a cowbell sounds"),
        ("cowbell", "cowbells"),
        one_and_many=("cowbell hit", "cowbell hits"),
    ),
    "drum roll": SoundPhrases(
        ("a drum roll", "the sound of a drum roll"),
        ("a drum roll sounding", "a drum roll being played"),
        ("a drum roll sounds", "a drum roll is played", "a drum roll is being played"),
        ("drum roll", "drum rolls", "drumroll", "drumrolls"),
    ),
    "percussion loop": _played("a percussion rhythm", "percussion"),
    "electronic blip": SoundPhrases(
        ("an electronic blip", "an electronic blip sound"),
        ("an electronic blip being played", "something making an electronic blip"),
        ("an electronic blip is played", "an electronic blip sounds", "something makes an electronic blip"),
        (
            *("blip", "blips", "bloop", "bong", "ping", "pings", "plip", "twang"),
            *("wood block", "woodblock"),
        ),
        one_and_many=("electronic blip", "electronic blips"),
    ),
    "bell": SoundPhrases(
        ("a ringing bell", "the ringing of a bell"),
        ("a bell ringing", "a bell sounding"),
        ("a bell rings", "a bell is ringing", "a bell sounds"),
        ("bell", "bells", "chime", "chimes", "chiming", "triangle"),
        one_and_many=("ring of a bell", "rings of a bell"),
    ),
    "whoosh": SoundPhrases(
        ("a whoosh", "a whooshing sound"),
        ("something whooshing", "something making a whoosh"),
        ("something whooshes", "something is whooshing", "something makes a whoosh"),
        ("whoosh", "whooshes", "whooshing", "woosh", "swoosh", "swooshes", "swooshing", "swash"),
    ),
    "vinyl record": SoundPhrases(
        ("a vinyl record", "a turning vinyl record"),
        ("a vinyl record turning", "a vinyl record turning on a turntable"),
        ("a vinyl record turns", "a vinyl record is turning", "a vinyl record turns on a turntable"),
        ("vinyl", "turntable", "record player"),
    ),
    "drone": SoundPhrases(
        ("a drone", "a droning sound"),
        ("a drone humming", "a drone sounding"),
        ("a drone hums", "a drone is humming", "a drone sounds"),
        ("drone", "drones", "droning", "haunting hum"),
    ),
    "glass": SoundPhrases(
        ("a humming glass", "the sound of a glass"),
        ("a glass humming", "a glass making a humming sound"),
        ("a glass hums", "a glass is humming", "a glass makes a humming sound"),
        ("glass", "glasses"),
    ),
    "impact": SoundPhrases(
        ("an impact", "a heavy impact"),
        ("something making an impact", "something making a heavy impact"),
        ("an impact sounds", "something makes an impact", "something makes a heavy impact"),
        ("impact", "impacts", "boom", "booms", "thud"),
        one_and_many=("impact", "impacts"),
    ),
    "finger snap": SoundPhrases(
        ("a finger snap", "the snap of fingers"),
        ("someone snapping their fingers", "a person snapping their fingers"),
        ("someone snaps their fingers", "a person snaps their fingers", "a person is snapping their fingers"),
        ("snap", "snaps", "snapping"),
        one_and_many=("finger snap", "finger snaps"),
    ),
    "choir": SoundPhrases(
        ("a singing choir", "the singing of a choir"),
        ("a choir singing", "a choir holding a note"),
        ("a choir sings", "a choir is singing", "a choir holds a note"),
        ("choir", "choirs"),
    ),
    "3D printer": SoundPhrases(
        ("a running 3d printer", "the noise of a 3d printer"),
        ("a 3d printer working", "a 3d printer running"),
        ("a 3d printer works", "a 3d printer is working", "a 3d printer is running"),
        ("3d printer", "3d printers", "printer"),
    ),
    "burp": SoundPhrases(
        ("a burp", "the burp of a person"),
        ("a person burping", "someone burping"),
        ("a person burps", "a person is burping", "someone burps"),
        ("burp", "burps", "burping", "belch"),
        one_and_many=("burp", "burps"),
    ),
    "crow": SoundPhrases(
        ("a cawing crow", "the caw of a crow"),
        ("a crow cawing", "a crow calling"),
        ("a crow caws", "a crow is cawing", "a crow calls"),
        ("crow", "caw", "caws", "cawing"),
        one_and_many=("caw of a crow", "caws of a crow"),
    ),
    "door": SoundPhrases(
        ("a door", "the noise of a door"),
        ("a door moving", "a door making a noise"),
        ("a door moves", "a door is moving", "a door makes a noise"),
        ("door", "doors"),
    ),
    "cash register": SoundPhrases(
        ("a cash register", "the noise of a cash register"),
        ("a cash register working", "a cash register being used"),
        ("a cash register works", "a cash register is working", "a cash register is being used"),
        ("cash register", "cash registers"),
    ),
    # instruments of rendered music, see soundscapes/music.py
    "harpsichord": _played("a harpsichord", "harpsichord", "harpsichords"),
    "vibraphone": _played("a vibraphone", "vibraphone", "vibraphones"),
    "church organ": _played("a church organ", "church organ", "church organs", "pipe organ", "organ", "organs"),
    "accordion": _played("an accordion", "accordion", "accordions"),
    "bass guitar": _played("an electric bass", "electric bass", "bass guitar", "bass guitars"),
    "violin": _played("a violin", "violin", "violins", "fiddle"),
    "cello": _played("a cello", "cello", "cellos"),
    "harp": _played("a harp", "harp", "harps"),
    "trumpet": _played("a trumpet", "trumpet", "trumpets"),
    "saxophone": _played("a saxophone", "saxophone", "saxophones", "sax"),
    "clarinet": _played("a clarinet", "clarinet", "clarinets"),
    "flute": _played("a flute", "flute", "flutes"),
    "sitar": _played("a sitar", "sitar", "sitars"),
    "steel drum": _played("a steel drum", "steel drum", "steel drums", "steelpan"),
    "drums": _played("a drum kit", "drum kit", "drum kits", "drum set", "drums", "drummer", "drumming"),
    # synthesised sounds, see soundscapes/synthesis.py
    "beep": SoundPhrases(
        ("an electronic beep", "a beeping sound"),
        ("a device beeping", "something beeping"),
        ("a device beeps", "something beeps", "something is beeping"),
        ("beep", "beeps", "beeping", "beeped"),
        one_and_many=("beep", "beeps"),
    ),
    "steady tone": SoundPhrases(
        ("a steady tone", "a constant tone"),
        ("a steady tone sounding", "a constant tone sounding"),
        ("a steady tone sounds", "a constant tone sounds", "a steady tone is sounding"),
        ("steady tone", "steady tones", "constant tone", "constant tones"),
    ),
    "rising tone": SoundPhrases(
        ("a rising tone", "a tone that goes up"),
        ("a tone rising in pitch", "a rising tone sounding"),
        ("a tone rises in pitch", "a rising tone sounds", "a tone goes up in pitch"),
        ("rising tone", "tone that goes up", "tone rising in pitch", "tone rises in pitch", "tone goes up in pitch"),
    ),
    "falling tone": SoundPhrases(
        ("a falling tone", "a tone that goes down"),
        ("a tone falling in pitch", "a falling tone sounding"),
        ("a tone falls in pitch", "a falling tone sounds", "a tone goes down in pitch"),
        (
            *("falling tone", "tone that goes down", "tone falling in pitch", "tone falls in pitch"),
            "tone goes down in pitch",
        ),
    ),
    "noise": SoundPhrases(
        ("constant noise", "static noise"),
        ("static noise hissing", "constant noise hissing"),
        ("static noise hisses", "constant noise hisses", "static noise is hissing"),
        ("noise hissing", "noise hisses", "static noise", "constant noise", "white noise", "background noise"),
    ),
    "alarm": SoundPhrases(
        ("an alarm", "the wail of a siren", "the sound of an alarm"),
        ("an alarm sounding", "a siren wailing"),
        ("an alarm sounds", "a siren wails", "an alarm is sounding"),
        ("alarm", "alarms", "siren", "sirens"),
    ),
    "click": SoundPhrases(
        ("a dry click", "a clicking sound"),
        ("something clicking", "something making a click"),
        ("something clicks", "something makes a click"),
        ("click", "clicks", "clicking"),
        one_and_many=("click", "clicks"),
    ),
    "plucked string": SoundPhrases(
        ("a plucked string", "the sound of a plucked string"),
        ("a string being plucked", "someone plucking a string"),
        ("a string is plucked", "someone plucks a string"),
        ("string", "strings", "plucked", "plucks", "plucking"),
        one_and_many=("plucked note", "plucked notes"),
    ),
    "engine": SoundPhrases(
        ("a running engine", "the rumble of an engine"),
        ("an engine running", "an engine rumbling"),
        ("an engine runs", "an engine is running", "an engine rumbles"),
        ("engine", "engines"),
    ),
}


SILENCE = "silence"
"""What the label of a clip without any sound is."""

SILENT = ("there is silence", "nothing can be heard", "complete silence", "there is no sound")
"""Sentences that are true where nothing sounds."""


def phrases(label: str) -> SoundPhrases:
    """The words for a label.

    Raises:
        UsageError: there are none; the message names the labels that have some.
    """
    if label not in SOUNDS:
        raise UsageError(f"no words are known for {label!r}: add them to sound_phrases.py, beside {', '.join(SOUNDS)}")
    return SOUNDS[label]


def captions(label: str) -> tuple[str, ...]:
    """Sentences that are true of any recording with this label, nine or ten of them; errors as :func:`phrases`."""
    sound = phrases(label)
    return (
        *sound.finite,
        *sound.participle,
        *(f"the sound of {phrase}" for phrase in sound.participle),
        *(f"{phrase} can be heard" for phrase in sound.noun_phrases),
    )


_LABELS = {keyword: label for label, sound in SOUNDS.items() for keyword in sound.keywords}
_LABELS |= dict.fromkeys(
    ("silence", "nothing can be heard", "nothing is heard", "there is no sound", "no sound"), SILENCE
)
# The longest keyword first, so that a hi-hat cymbal is no cymbal; whole words, so that neither is a cowbell a bell.
_KEYWORD = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(map(re.escape, _LABELS), key=len, reverse=True))})(?![\w-])")


def named_sounds(caption: str) -> frozenset[str]:
    """The labels of the sounds that a caption names, by whole words of :data:`SOUNDS`, whatever the case."""
    return frozenset(_LABELS[match] for match in _KEYWORD.findall(caption.lower()))
