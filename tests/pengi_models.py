"""Small audio language models with random weights, for tests of what Pengi's numbers do not show."""

from typing import Any

import torch
from torch import Tensor

from aural.answering.model import AnsweringConfig, AudioLanguageModel, ClipTextConfig, Gpt2Config
from aural.networks.htsat import HtsatConfig

HTSAT = HtsatConfig(
    sample_rate=4000,
    filter_rate=4000,
    n_fft=128,
    hop_length=40,
    mel_bins=16,
    high_hz=2000.0,
    spec_size=64,
    embed_dim=4,
    depths=(1, 1),
    num_heads=(1, 2),
    window_size=4,
    num_classes=0,
)
CLIP = ClipTextConfig(
    vocab_size=60, width=8, layers=1, heads=2, ffn_dim=12, projection_dim=6, max_positions=12, end_token_id=59
)
GPT2 = Gpt2Config(vocab_size=300, width=16, layers=2, heads=4, max_positions=48)


def model(seed: int = 0, **changes: Any) -> AudioLanguageModel:
    """A model in evaluation mode whose answers differ from item to item, and end sooner or later."""
    settings = {
        "htsat": HTSAT,
        "seconds": 0.6,
        "text_encoder": CLIP,
        "gpt2": GPT2,
        "joint_width": 10,
        "prefix_length": 3,
        "vector_rows": 2,
        "mapper_layers": 1,
        "mapper_heads": 2,
        "prompt_length": 7,
    }
    generator = torch.Generator().manual_seed(seed)
    made = AudioLanguageModel(AnsweringConfig(**{**settings, **changes})).eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    towards_stop = made.gpt2.transformer.wte.weight[made.config.stop_token_id]
    made.gpt2.transformer.ln_f.bias.data = 5.5 * towards_stop / towards_stop.norm()
    return made


def prefixes(made: AudioLanguageModel, n_items: int, n_rows: int = 6, seed: int = 1) -> Tensor:
    """(items, rows, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_items, n_rows, made.config.gpt2.width, generator=generator)
