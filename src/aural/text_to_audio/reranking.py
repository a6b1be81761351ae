"""Several sounds are drawn for one that is wanted, and the one in which a listener hears most of its prompt is kept.

What a language model draws is now and then not what it was asked for, and a listener that places sounds among the
meanings of sentences can tell. The winner of DCASE 2023's task 7 chose so among the draws of AudioLDM, by CLAP; here it
is by the listener in the box.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from aural.embedding import ListeningModel

if TYPE_CHECKING:
    from aural.text_to_audio.generate import Audio, Request


def candidates(request: "Request", n: int) -> list["Request"]:
    """``n`` requests that differ in nothing but their seeds; the first is the request itself."""
    seeds = np.random.default_rng(request.seed % 2**64).integers(2**62, size=n - 1).tolist()
    return [request, *(replace(request, seed=seed) for seed in seeds)]


def nearest(drawn: Sequence["Audio"], listener: ListeningModel) -> "Audio":
    """Of sounds for one prompt, the one whose embedding has the largest cosine with the prompt's."""
    heard = torch.stack([listener.embed_audio((one.waveform, one.sample_rate)) for one in drawn])
    cosines = heard @ listener.embed_text([drawn[0].prompt])[0].cpu()
    return drawn[int(cosines.argmax())]
