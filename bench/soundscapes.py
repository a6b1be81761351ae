"""How much faster than real time soundscapes are made, on one core.

    python bench/soundscapes.py [--manifest sounds.jsonl]

The recordings are decoded before the clock starts, as a training decodes them once and then goes on for hours. The
figure is seconds of soundscape for each second of processor time, of this process alone. There is no peer: the floor is
what the issue asks for, 100 times real time.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from aural.manifest import Clip, read_manifest
from aural.soundscapes.compose import Soundscapes, SoundscapeSettings
from aural.soundscapes.wording import caption

EXAMPLES = Path(__file__).parents[1] / "src" / "aural" / "examples"
LABELS = {
    "dog_bark": "dog bark",
    "rain": "rain",
    "rooster": "rooster",
    "sea_waves": "sea waves",
    "sneeze": "person sneeze",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, help="recordings; default: those that come with aural")
    parser.add_argument("--tiny", action="store_true", help="a few of each, seconds: shows that it runs")
    options = parser.parse_args()
    n = 4 if options.tiny else 400
    torch.set_num_threads(1)
    if options.manifest:
        clips = read_manifest(options.manifest)
    else:
        clips = [Clip(EXAMPLES / f"{name}.ogg", labels=(label,)) for name, label in LABELS.items()]
    default = SoundscapeSettings()
    print("| kind | times real time | ms a soundscape, median |\n| --- | --- | --- |")
    for kinds in (default.kinds, *((kind,) for kind in default.kinds)):
        soundscapes = Soundscapes(clips, SoundscapeSettings(kinds=kinds), seed=0)
        for index in range(n):
            soundscapes(index)
        seconds, spent = 0.0, []
        for index in range(n, 2 * n):
            start = time.process_time()
            scene = soundscapes(index).scene
            spent.append(time.process_time() - start)
            seconds += scene.seconds
        name = "all" if len(kinds) > 1 else kinds[0][0]
        print(f"| {name} | {seconds / sum(spent):.0f} | {1000 * statistics.median(spent):.1f} |", flush=True)
    said(Soundscapes(clips, default, seed=0), 25 * n)


def said(soundscapes: Soundscapes, n: int) -> None:
    """How many captions of as many soundscapes are different sentences."""
    generator = np.random.default_rng(0)
    sentences = [caption(soundscapes(index).scene, generator) for index in range(n)]
    print(f"\n{n} captions of as many soundscapes: {len(set(sentences))} different sentences")


if __name__ == "__main__":
    main()
