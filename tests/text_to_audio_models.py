"""A codec and a token language model of toy sizes, for the tests of what generates sound."""

from pathlib import Path

import numpy as np
import torch

from aural.audio import write
from aural.checkpoint import save_model
from aural.codec_folder import SYSTEM
from aural.manifest import Clip, write_manifest
from aural.networks.encodec import Encodec, EncodecConfig
from aural.networks.residual_quantizer import QuantizerConfig
from aural.sound_phrases import captions
from aural.text_to_audio.train import train

RATE = 16000


def codec(out: Path, seed: int = 0) -> Path:
    """A codec of 50 frames a second and 4 codebooks of 16, drawn at random where its encoder's vectors lie."""
    config = EncodecConfig(
        n_filters=2, dimension=8, lstm_layers=1, quantizer=QuantizerConfig(n_codebooks=4, codebook_size=16)
    )
    torch.manual_seed(seed)
    network = Encodec(config).eval()
    with torch.no_grad():
        latent = network.encoder(torch.randn(1, 1, RATE) * torch.linspace(0, 1, RATE))
        for place, codebook in enumerate(network.quantizer.codebooks):
            mean = latent.mean(2) if place == 0 else 0.0
            codebook.embed.copy_(mean + torch.randn(16, 8) * latent.std(2) * 0.5**place)
    save_model(out, system=SYSTEM, config=config, weights=network.state_dict(), card="")
    return out


def recordings(folder: Path) -> Path:
    """The manifest of four recordings of noise."""
    generator = np.random.default_rng(0)
    clips = []
    for number, label in enumerate(["dog bark", "rain", "rooster", "dog bark"]):
        path = folder / f"{number}.wav"
        write(path, 0.1 * generator.standard_normal(RATE // 2 + 4000 * number).astype(np.float32), RATE)
        clips.append(Clip(path, captions=captions(label), labels=(label,), source=str(number)))
    write_manifest(folder / "m.jsonl", clips)
    return folder / "m.jsonl"


def many_recordings(folder: Path) -> Path:
    """The manifest of as many short recordings of noise as a judgement takes."""
    generator = np.random.default_rng(3)
    clips = []
    for number in range(66):
        path = folder / f"{number}.wav"
        write(path, 0.1 * generator.standard_normal(4000).astype(np.float32), RATE)
        label = ("dog bark", "rain", "rooster")[number % 3]
        clips.append(Clip(path, captions=captions(label), labels=(label,), source=f"{number // 2}"))
    write_manifest(folder / "many.jsonl", clips)
    return folder / "many.jsonl"


def generator(out: Path, manifest: Path, over: Path) -> Path:
    """A token language model of the tiny recipe, over a codec."""
    train("tiny", manifest=manifest, out=out, codec=over, device="cpu", progress=False)
    return out
