"""How probable given texts are as the answer: closed questions, and the choice among answers.

Shapes: Q rows of a prefix, E width of the language model, C texts, T tokens of the longest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aural.answering.decoding import Writer
from aural.answering.model import AudioLanguageModel


@torch.inference_mode()
def log_likelihoods(
    model: AudioLanguageModel, prefix: Tensor, texts: Sequence[Sequence[int]], *, mean: bool = False
) -> Tensor:
    """Log-probability of each text after one prefix, which is read once.

    Args:
        model: in evaluation mode.
        prefix: (1, Q, E).
        texts: token ids, none of them empty; with the stop token where the text is to end there.
        mean: of a token, instead of the sum over tokens.

    Returns:
        (C,), in nats.
    """
    lengths = torch.tensor([len(text) for text in texts], device=prefix.device)
    longest = int(lengths.max())
    tokens = torch.zeros(len(texts), longest, dtype=torch.long, device=prefix.device)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    writer = Writer(model, prefix, None, max_tokens=longest, max_rows=len(texts))
    total = writer.first_logits().log_softmax(dim=1)[0, tokens[:, 0]]
    rows = torch.arange(len(texts), device=prefix.device)  # those that go on
    parents = torch.zeros_like(rows)
    for place in range(1, longest):
        going = lengths[rows] > place
        rows, parents = rows[going], parents[going]
        logits = writer.step(tokens[rows, place - 1], parents)
        total[rows] += logits.log_softmax(dim=1).gather(1, tokens[rows, place, None])[:, 0]
        parents = torch.arange(len(rows), device=prefix.device)
    return total / lengths if mean else total
