"""Examples as the frozen encoder hears them, computed once: most of a step's cost is then paid a single time.

An encoder that does not learn gives the same features for the same example every time. A pool of examples is encoded
before the training begins; the training goes through it again and again, in another order each time and with another
caption of those that are true.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor

from aural.captioning.data import clean_caption, token_rows
from aural.networks.beats import BEATs
from aural.networks.conv_encoder import ConvEncoder
from aural.soundscapes.examples import Examples
from aural.spec_augment import frequency_response
from aural.turns import order


@dataclass(frozen=True)
class EncodedExample:
    tokens: Tensor
    """(S, D) float16, the encoder's output."""
    caption: str


class EncodedExamples:
    """``examples(index)`` goes through the pool; a batch of ``group`` examples is of one length throughout."""

    def __init__(
        self,
        examples: Examples,
        encoder: BEATs | ConvEncoder,
        *,
        tapped_layer: int | None,
        n: int,
        n_captions: int,
        response_db: float,
        device: torch.device,
        bfloat16: bool,
        progress: bool,
    ) -> None:
        """Encode examples 0 .. n-1 with ``n_captions`` captions each; ``n`` is rounded up to whole groups.

        ``response_db``: each is heard as by another microphone (:func:`aural.spec_augment.frequency_response`).
        """
        self.group = examples.settings.soundscapes.group
        self.n_groups = -(-n // self.group)
        self.n_captions = n_captions
        self.seed = examples.seed
        self.tokens: list[Tensor] = []
        self.captions: list[tuple[str, ...]] = []
        encoder = encoder.to(device).eval()
        for group in track(range(self.n_groups), "encoding examples", disable=not progress):
            some = [examples.with_captions(group * self.group + place, n_captions) for place in range(self.group)]
            waveform = torch.from_numpy(np.stack([example.waveform for example, _ in some])).to(device)
            drawn = torch.Generator().manual_seed(examples.seed + group)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                fbank, mask = encoder.fbank(waveform)
                fbank = fbank + frequency_response(len(fbank), fbank.shape[2], response_db, drawn).to(fbank)
                hidden = encoder.encode_fbank(fbank, mask, tapped_layer).hidden
            self.tokens += list(hidden.half().cpu())
            self.captions += [tuple(clean_caption(text) for text in captions) for _, captions in some]

    def __call__(self, index: int) -> EncodedExample:
        turn, place = divmod(index // self.group, self.n_groups)
        group = order(self.n_groups, seed=self.seed, stream=4, turn=turn)[place]
        example = int(group) * self.group + index % self.group
        captions = self.captions[example]
        return EncodedExample(self.tokens[example], captions[turn % len(captions)])


@dataclass(frozen=True)
class EncodedCollate:
    """Encoded examples -> what a captioner learns from."""

    tokenizer: Tokenizer
    eos_token_id: int = 2

    def __call__(self, examples: Sequence[EncodedExample]) -> Mapping[str, Any]:
        """``tokens`` (B, S, D), ``labels`` (B, L) tokens and </s>, then -100, ``captions`` B strings."""
        captions = [example.caption for example in examples]
        return {
            "tokens": torch.stack([example.tokens for example in examples]).float(),
            "labels": token_rows(self.tokenizer, captions, self.eos_token_id),
            "captions": captions,
        }
