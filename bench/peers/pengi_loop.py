"""How the released Pengi answers, as a peer: its beam search without a cache, one item after the other.

Written from a description of the released code, not from it. Each step runs prefix and tokens of all beams through the
language model again, and its output layer at every position, of which the last alone is used; equal prompts are read
once for each item. The networks are those of our model, so the weights are the same: GPT-2 is the one of transformers
(here the installed release with its fused attention, not the pinned one), the text tower and the mappers too are
called as ours are. For the ear see :mod:`peers.htsat_explicit`.

Shapes: B items, N samples, L tokens of a prompt, Q rows of a prefix, E width, K beams, T tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aural.answering.model import AudioLanguageModel

Answers = tuple[Tensor, Tensor]
"""Of one item, the best first: tokens (K, T), and the mean log-probability of a token (K,)."""


def released_prefix(
    model: AudioLanguageModel, listen: Callable[[Tensor], Tensor], waveform: Tensor, prompt_ids: Tensor
) -> Tensor:
    """Waveforms (B, N) and a prompt for each (B, L) -> (B, Q, E); ``listen`` makes vectors of waveforms."""
    embedding = F.normalize(model.audio_projection(listen(waveform)), dim=1)
    return model.prefix(embedding, prompt_ids)


def released_answers(gpt2: Any, prefix: Tensor, **options: Any) -> list[Answers]:
    """:func:`released_beam` of prefixes (B, Q, E), one by one."""
    return [released_beam(gpt2, item[None], **options) for item in prefix]


@torch.inference_mode()
def released_beam(
    gpt2: Any, prefix: Tensor, *, beams: int, max_tokens: int, stop: int, temperature: float = 1.0
) -> Answers:
    """The search for one item (1, Q, E); tokens behind a stop token are filler."""
    rows = prefix
    tokens = torch.empty(beams, 0, dtype=torch.long)
    totals, lengths = torch.zeros(beams), torch.ones(beams)
    stopped = torch.zeros(beams, dtype=torch.bool)
    for step in range(max_tokens):
        logits = gpt2(inputs_embeds=rows, use_cache=False).logits[:, -1] / (temperature if temperature > 0 else 1.0)
        log_probs = logits.log_softmax(dim=1)
        if step == 0:  # all beams come from the only row
            totals, drawn = log_probs[0].topk(beams)
            rows = rows.expand(beams, -1, -1)
        else:
            log_probs[stopped] = -torch.inf
            log_probs[stopped, 0] = 0.0
            lengths[~stopped] += 1
            means, places = ((totals[:, None] + log_probs) / lengths[:, None]).flatten().topk(beams)
            source, drawn = places // log_probs.shape[1], places % log_probs.shape[1]
            rows, tokens, lengths, stopped = rows[source], tokens[source], lengths[source], stopped[source]
            totals = means * lengths
        tokens = torch.cat((tokens, drawn[:, None]), dim=1)
        rows = torch.cat((rows, gpt2.transformer.wte(drawn)[:, None]), dim=1)
        stopped = stopped | (drawn == stop)
        if stopped.all():
            break
    means = totals / lengths
    order = means.argsort(descending=True)
    return tokens[order], means[order]
