"""A Stable Diffusion of toy sizes in its full folder layout, glyphs to learn from, and sounds to go with them."""

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from aural.audio import write
from aural.audio_to_image.glyphs import prepare_glyphs
from aural.audio_to_image.train_pictures import train_pictures
from aural.manifest import Clip, read_manifest, write_manifest

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
GLYPHS = {"mouse face": "mouse", "black telephone": "telephone", "black scissors": "scissors"}
"""Unicode's name of a few glyphs of the font, and the label they have as a sound."""
MORE = (0x2701, 0x2702, 0x2703, 0x1F42D, 0x1F431, 0x1F600, 0x1F601, 0x2206, 0x394, 0x220F, 0x2211, 0x2126)
"""Code points beyond the ranges: scissors, faces, and signs that look like letters."""
WIDTH = 16
"""Of the toy CLIP's words."""
TOKENIZER = Path(__file__).parent / "golden" / "pengi" / "tokenizer_clip-text"


def stable_diffusion(folder: Path, prediction: str = "epsilon") -> Path:
    """Random weights in the layout that diffusers writes: pictures of 16 pixels, prompts of 77 tokens."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=77)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
                       num_attention_heads=2, bos_token_id=512, eos_token_id=513)
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4, attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4)  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1,
        prediction_type=prediction,
    )  # fmt: skip
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
    pipeline = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {*parts, "model_index.json"}
    shutil.rmtree(folder / "safety_checker", ignore_errors=True)
    return folder


def font(folder: Path) -> Path:
    """A part of a font that matplotlib ships: letters, arrows, weather, signs, faces; quickly drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(drop_tables=["GSUB", "GPOS", "GDEF"], notdef_outline=True)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=[*range(0x41, 0x5B), *range(0x2190, 0x2196), *range(0x2600, 0x2640), *MORE])
    with TTFont(FONT) as whole:
        subsetter.subset(whole)
        whole.save(folder / "part.ttf")
    return folder / "part.ttf"


def glyphs(folder: Path) -> Path:
    """A manifest of the glyphs of that font."""
    return prepare_glyphs(font(folder), folder)


def few_glyphs(folder: Path) -> Path:
    """A manifest of three glyphs, each with a label."""
    clips = read_manifest(glyphs(folder), required="image")
    few = [clip for clip in clips if set(GLYPHS) & set(clip.captions)]
    assert len(few) == len(GLYPHS)
    write_manifest(folder / "few.jsonl", few)
    return folder / "few.jsonl"


def sounds(folder: Path, n: int = 2, seconds: float = 1.0) -> Path:
    """A manifest of sounds with the labels of the few glyphs: tones, each label at its own pitch; in two splits."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for place, label in enumerate(GLYPHS.values()):
        for number in range(n):
            time = np.arange(round(seconds * 16000)) / 16000
            wave = 0.1 * np.sin(2 * np.pi * 300 * 2**place * (1 + 0.01 * number) * time).astype(np.float32)
            path = folder / f"{label}-{number}.wav"
            write(path, wave, 16000)
            clips.append(Clip(path, captions=(label,), labels=(label,), split=f"fold{number % 2}", source=path.stem))
    write_manifest(folder / "sounds.jsonl", clips)
    return folder / "sounds.jsonl"


def picture_model(folder: Path, manifest: Path) -> Path:
    """A picture model of the tiny recipe."""
    train_pictures("tiny", manifest=manifest, out=folder, progress=False)
    return folder
