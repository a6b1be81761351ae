"""Words for glyphs: what Unicode's names leave unsaid, and which glyphs show what makes which sound.

Unicode calls a barking dog's picture "dog face" and knows no puppy. The table below is our own; it covers what can be
heard. All other glyphs go by their names alone (:func:`glyph_words`).
"""

import re
from dataclasses import dataclass
from functools import cache

TABLE = """
dog face, dog, poodle, guide dog | dog, puppy, hound, barking dog | dog bark
cloud with rain, umbrella with rain drops, white sun behind cloud with rain | rain, rainfall, drizzle | rain
thunder cloud and rain, cloud with lightning, high voltage sign | thunderstorm, thunder, lightning
water wave | sea waves, ocean, surf, sea | sea waves
baby | baby, infant, crying baby, newborn | baby cry
crying face, loudly crying face | crying, weeping, sobbing
alarm clock, mantelpiece clock, stopwatch, watch, timer clock | clock, ticking clock, timepiece | clock tick
sneezing face | sneeze, sneezing, person sneezing, achoo | person sneeze
helicopter | helicopter, chopper | helicopter
carpentry saw | saw, chainsaw, sawing | chainsaw
axe | axe, chopping wood
rooster | rooster, cockerel, crowing rooster, cock | rooster
fire | fire, flames, crackling fire, campfire, burning | fire crackling
chicken, turkey | hen, clucking hen
hatching chick, baby chick, front-facing baby chick | chick, chirping chick
cat face, cat | cat, kitten, meowing cat
grinning cat face with smiling eyes, smiling cat face with open mouth, crying cat face | cat face
cow face, cow | cow, mooing cow, cattle
ox, water buffalo, bison | ox, bull
pig face, pig, boar | pig, oinking pig, grunting pig
horse face, horse, horse racing | horse, neighing horse, galloping horse
donkey | donkey, braying donkey
sheep, ram | sheep, bleating sheep, lamb
goat | goat, bleating goat
frog face | frog, croaking frog, toad
bird | bird, singing bird, chirping bird, songbird | crow
owl | owl, hooting owl
duck | duck, quacking duck
goose | goose, honking goose
swan | swan
eagle | eagle, hawk
parrot | parrot, talking parrot
penguin | penguin
dove of peace | dove, pigeon, cooing dove
flamingo | flamingo
peacock | peacock
bat | bat
cricket | cricket, chirping cricket, grasshopper
honeybee | bee, buzzing bee, honey bee, wasp
mosquito | mosquito, whining mosquito
fly | fly, buzzing fly, insect
beetle, lady beetle, bug, cockroach, ant | beetle
lion face | lion, roaring lion
tiger face, tiger | tiger, growling tiger
leopard | leopard
bear face | bear, growling bear
wolf face | wolf, howling wolf
fox face | fox
monkey face, monkey | monkey, chattering monkey
gorilla, orangutan | gorilla, ape
elephant | elephant, trumpeting elephant
mouse face, mouse, rat | mouse, squeaking mouse, rat
hamster face, chipmunk | hamster, squirrel
rabbit face, rabbit | rabbit, bunny
snake | snake, hissing snake, rattlesnake
whale, spouting whale | whale, whale song
dolphin | dolphin
seal | seal, sea lion
crocodile | crocodile, alligator
dromedary camel, bactrian camel | camel
deer, moose | deer, stag
zebra face | zebra
dragon face, dragon, sauropod, t-rex | dragon, dinosaur, monster
fish, tropical fish | fish
automobile, oncoming automobile | car, driving car, car engine, engine | engine
taxi, oncoming taxi | taxi, cab
racing car | racing car, race car
motor scooter, racing motorcycle | motorcycle, motorbike, scooter
recreational vehicle, pickup truck, minibus | van, pickup
delivery truck, articulated lorry | truck, lorry
bus, oncoming bus, trolleybus | bus
ambulance | ambulance, ambulance siren
police car, oncoming police car | police car, police siren
fire engine | fire engine, fire truck, fire engine siren
police cars revolving light | siren, alarm, warning light | alarm
tractor | tractor
train, steam locomotive, railway car, high-speed train, high-speed train with bullet nose, station | train, railway
metro, light rail, monorail, mountain railway | subway, metro
tram, tram car | tram, streetcar
airplane, small airplane, airplane departure, airplane arriving | airplane, plane, aeroplane, jet, aircraft
rocket | rocket, rocket launch
flying saucer | ufo, flying saucer
ship, passenger ship, ferry | ship, ship horn, ferry
speedboat, motor boat | motorboat, speedboat
sailboat | sailing boat, yacht
rowboat, canoe | rowing boat, paddling
bicycle, bicyclist, mountain bicyclist | bicycle, bike, cycling
skateboard, roller skate | skateboard, skating
musical keyboard | piano, keyboard, synthesizer, organ | piano, synth bass, harpsichord, vibraphone
guitar | guitar, electric guitar, acoustic guitar | guitar, bass guitar, plucked string
banjo | banjo, sitar | sitar
violin | violin, fiddle, cello, strings | violin, cello
trumpet, postal horn | trumpet, brass, horn | trumpet
saxophone | saxophone, sax, clarinet | saxophone, clarinet
flute | flute, recorder, pipe | flute
accordion | accordion, squeezebox | accordion
drum with drumsticks | drum, drums, drum roll | snare drum, drum roll, drums, tom drum, kick drum, cymbal, hi-hat
long drum | tabla, bongo, conga, djembe | tabla
maracas | maracas, shaker, rattle | percussion loop
bell | bell, ringing bell, church bell | bell, cowbell
bellhop bell | desk bell, service bell, reception bell
wind chime | wind chimes, chimes
musical note | musical note, music, tune, melody
multiple musical notes, musical score | musical notes, song, score
microphone, studio microphone | microphone, singing, singer, choir | choir
headphone | headphones, listening
radio | radio, broadcast
television | television, tv
speaker, speaker with one sound wave, speaker with three sound waves | loudspeaker, speaker, sound, volume | beep
speaker with cancellation stroke | mute, silence, quiet
public address loudspeaker, cheering megaphone | megaphone, announcement, cheering
level slider, control knobs | mixer, control knobs
optical disc, dvd, minidisc | vinyl record, record, compact disc, turntable | vinyl record
black telephone, telephone receiver | telephone, ringing telephone, phone call
mobile phone, vibration mode | mobile phone, smartphone, ringtone
keyboard | computer keyboard, typing
personal computer, desktop computer | computer, laptop
three button mouse | mouse click, computer mouse | click
printer, fax machine | printer, 3D printer | 3D printer
camera, camera with flash | camera, camera shutter
movie camera, video camera, film projector | film camera, projector
joystick, video game | video game, game sound, arcade | electronic blip
money bag, heavy dollar sign, coin | cash register, coins, money | cash register
banknote with dollar sign, money with wings | banknote, cash
door | door, knocking on a door, door slam, creaking door | door
window | window
wine glass, clinking glasses, tumbler glass, glass of milk | glass, clinking glasses, breaking glass | glass
clinking beer mugs, beer mug | beer, toast, burp | burp
bottle with popping cork | champagne, popping cork
teacup without handle, hot beverage, teapot | tea, coffee, pouring tea
cup with straw, beverage box | drinking, slurping
pouring liquid | pouring water, pouring
droplet, splashing sweat symbol | water drops, dripping water, drop
potable water symbol | tap, running water, faucet
shower | shower
bath, bathtub | bathtub, bathing
toilet, water closet | toilet flush, toilet
fountain | fountain, splashing water
bubbles | bubbles, bubbling
cooking, shallow pan of food | frying, frying pan, sizzling
pot of food | boiling, cooking pot
fork and knife, fork and knife with plate, spoon | cutlery, dishes, eating
popcorn | popcorn
toothbrush | toothbrush, brushing teeth
broom | broom, sweeping
razor | razor, shaving
black scissors | scissors, cutting
hammer, hammer and wrench, hammer and pick | hammer, hammering, impact, hit | impact
wrench | wrench, spanner
screwdriver, nut and bolt | screwdriver
gear | gear, machine, machinery, motor
pick | pickaxe, digging
construction sign, building construction | construction, jackhammer, drilling
elevator | elevator, lift
key, old key | key, keys jingling
lock, open lock | lock, padlock
closed book, open book, books | book, turning pages
page facing up, page with curl, newspaper | paper, rustling paper, newspaper
wind blowing face, dash symbol, leaf fluttering in wind | wind, blowing wind, whoosh, breeze | whoosh
cloud with tornado, cyclone | tornado, hurricane, storm
cloud with snow, snowflake | snow, snowfall
volcano | volcano, eruption
collision symbol | explosion, crash, bang
bomb | bomb, exploding bomb
firecracker, fireworks, firework sparkler | fireworks, firecracker
pistol | gun, gunshot, shooting
balloon | balloon, popping balloon
party popper, confetti ball | party, celebration
clapping hands sign | clapping, applause, hand clap
call me hand, pinched fingers | finger snap, snapping fingers | finger snap
footprints, pedestrian, runner | footsteps, walking, running
face with tears of joy, rolling on the floor laughing | laughing, laughter, laugh
grinning face, smiling face with open mouth | smiling, happy
sleeping face, sleeping symbol, sleepy face | snoring, sleeping
yawning face | yawn, yawning
face with medical mask, face with thermometer | coughing, cough, ill
face screaming in fear | scream, screaming
angry face, pouting face | angry, shouting
face throwing a kiss, kiss mark, kissing face | kiss, kissing
face with open mouth vomiting | vomiting
face with look of triumph | snorting, sniffing
speaking head in silhouette | speech, talking, speaking, person speaking
speech balloon | conversation, chatter, voice
mouth | mouth, lips
ear | ear, hearing
beating heart, anatomical heart | heartbeat, beating heart
man | man, man speaking
woman | woman, woman speaking
child, boy, girl | child, children, children playing
busts in silhouette, family | crowd, people
dancer, man dancing | dancing, dance
church | church, church bells, church organ | church organ
basketball and hoop | basketball, bouncing ball
soccer ball | football, kicking a ball
tennis racquet and ball | tennis
table tennis paddle and ball | table tennis, ping pong
bowling | bowling
skier, ski and ski boot | skiing
swimmer | swimming, swimmer
ghost | ghost, spooky
robot face | robot
spider, spider web | spider
evergreen tree, deciduous tree, national park | forest, tree, trees
desert island, beach with umbrella | beach, seashore
satellite antenna, antenna with bars, radio button | signal, sonar, steady tone | steady tone, drone
magic wand, sparkles | magic, twinkle, sparkle
hourglass, hourglass with flowing sand | hourglass
ice cube, shaved ice | ice
"""
"""Unicode's names of glyphs | our words for them, the plainest first | labels of recordings that they are pictures of,
as in :mod:`aural.sound_phrases`. What is in no corpus has no label."""

UNNAMED = {
    0x1F6DC: "wireless",
    0x1FA75: "light blue heart",
    0x1FA76: "grey heart",
    0x1FA77: "pink heart",
    0x1FA87: "maracas",
    0x1FA88: "flute",
    0x1FAAD: "folding hand fan",
    0x1FAAE: "hair pick",
    0x1FAAF: "khanda",
    0x1FABB: "hyacinth",
    0x1FABC: "jellyfish",
    0x1FABD: "wing",
    0x1FABF: "goose",
    0x1FACE: "moose",
    0x1FACF: "donkey",
    0x1FADA: "ginger root",
    0x1FADB: "pea pod",
    0x1FAE8: "shaking face",
    0x1FAF7: "leftwards pushing hand",
    0x1FAF8: "rightwards pushing hand",
}
"""Names of Unicode 15, which Python's table does not have before version 3.12."""

_DECORATION = re.compile(
    r"^(black|white|heavy|squared|negative squared|lower left|silhouette of|oncoming) |"
    r" (symbol|sign|face|symbol for \w+|ornament|in silhouette)$"
)


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    glyphs: tuple[str, ...]
    words: tuple[str, ...]
    labels: tuple[str, ...] = ()


@cache
def lines() -> tuple[Line, ...]:
    """The table, read."""
    rows = [row.split("|") for row in TABLE.strip().splitlines()]
    return tuple(Line(*(tuple(one.strip() for one in cell.split(",")) for cell in row)) for row in rows)


def glyph_words(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a glyph is called, the plainest words first, and the labels of sounds that it is a picture of.

    Whatever can be heard has a label: the plainest word, besides those that corpora have for it.

    Args:
        name: Unicode's, in lower case.
    """
    of_glyph = [line for line in lines() if name in line.glyphs]
    words = [word for line in of_glyph for word in line.words]
    plain = _DECORATION.sub("", name)
    labels = [label for line in of_glyph for label in (*line.labels, line.words[0])]
    return tuple(dict.fromkeys((*words, plain, name))), tuple(dict.fromkeys(labels))


def sound_names() -> list[str]:
    """The plainest word of each line of the table: names of what can be heard."""
    return [line.words[0] for line in lines()]
