"""From encoded clips to token ids: greedy, beam search, and nucleus sampling, with one captioner or an ensemble.

All methods write with a cache and share the memory of a clip among its sentences. Sampling goes further: candidates
that agree so far share one row, so the first step of 50 candidates costs one row, not 50, and those that have ended
cost none.

Shapes: B clips, R rows being written, N candidates, L tokens so far with the start token, V vocabulary, k entries kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from aural.beam_search import Hypothesis, beam_search
from aural.captioning.model import IGNORED, Captioner, Encoded
from aural.networks.bart_decoder import settled
from aural.sampling import SamplingConfig, constrain_, sample, shortlist, uniforms

SCORED_AT_ONCE = 128  # tokens whose logits over the vocabulary are held at the same time (25 MB at the published size)


@dataclass(frozen=True)
class DecodingConfig(SamplingConfig):
    """How captions are written; the defaults are the paper's for nucleus sampling.

    Greedy and beam search obey the first three rules of :class:`SamplingConfig` only.
    """

    no_repeat_ngram: int = 3
    min_length: int = 5
    max_length: int = 30
    temperature: float = 0.5
    top_k: int | None = 50
    top_p: float | None = 0.95
    candidates: int = 50
    beams: int = 4
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ValueError: says which.
        """
        super().__post_init__()
        if self.candidates < 1 or self.beams < 1:
            raise ValueError(f"candidates {self.candidates} and beams {self.beams} must be at least 1")


@dataclass(frozen=True)
class Member:
    """One captioner of an ensemble (or the only one), and what it heard."""

    model: Captioner
    encoded: Encoded
    weight: float = 1.0


def greedy(members: Sequence[Member], config: DecodingConfig | None = None) -> list[Hypothesis]:
    """The most probable token at each step; one sentence for each clip. Arguments as for :func:`nucleus`."""
    config = replace(config or DecodingConfig(), candidates=1, top_k=1)
    return [found[0] for found in nucleus(members, config, [0] * len(members[0].encoded.memory))]


@torch.inference_mode()
def beam(members: Sequence[Member], config: DecodingConfig | None = None) -> list[list[Hypothesis]]:
    """Beam search; for each clip up to ``config.beams`` sentences, the best first. Arguments as for :func:`nucleus`."""
    config = config or DecodingConfig()
    ids = members[0].model.config
    n_clips = len(members[0].encoded.memory)
    writer = _Writer(members, config.max_length, n_clips * config.beams)

    def step(token_ids: Tensor, parents: Tensor) -> Tensor:
        logits, log_total = writer.step(token_ids, parents)
        return logits - log_total[:, None]

    return beam_search(
        step,
        n_clips,
        start_token_id=ids.decoder_start_token_id,
        eos_token_id=ids.eos_token_id,
        max_length=config.max_length,
        beams=config.beams,
        length_penalty=config.length_penalty,
        constrain=lambda log_probs, prefix: constrain_(log_probs, prefix, config, ids.eos_token_id),
    )


@torch.inference_mode()
def nucleus(
    members: Sequence[Member], config: DecodingConfig | None = None, seeds: Sequence[int] | None = None
) -> list[list[Hypothesis]]:
    """Draw ``config.candidates`` sentences for each clip.

    Args:
        members: captioners in evaluation mode that share a vocabulary, each with its encoding of the same B clips.
            Several average their next-token probabilities by weight.
        config: how to write.
        seeds: one for each clip, by default 0. A clip's sentences depend on its seed and not on the batch; with fewer
            candidates they are the first of those with more.

    Returns:
        For each clip its sentences in the order drawn, duplicates included. ``score`` is the mean log-probability of a
        token, the end token included.

    Raises:
        ValueError: a member is in training mode, seeds and clips do not match, or ``max_length`` is more than a decoder
            has positions.
    """
    config = config or DecodingConfig()
    ids = members[0].model.config
    vocab_size, eos = ids.decoder.vocab_size, ids.eos_token_id
    n_clips, n_candidates, n_steps = len(members[0].encoded.memory), config.candidates, config.max_length - 1
    seeds = [0] * n_clips if seeds is None else seeds
    if len(seeds) != n_clips:
        raise ValueError(f"{len(seeds)} seeds for {n_clips} clips")
    uniform = torch.cat([uniforms(seed, (n_candidates, n_steps)) for seed in seeds])  # (B N, steps)

    writer = _Writer(members, config.max_length, n_clips * n_candidates)
    written = torch.full((n_clips * n_candidates, n_steps), IGNORED)
    log_probs = torch.zeros(n_clips * n_candidates, n_steps)
    going = torch.arange(n_clips * n_candidates)  # candidates that have not ended
    row_of = going // n_candidates  # the row that each of them continues
    parents = torch.arange(n_clips)
    prefix = torch.full((n_clips, 1), ids.decoder_start_token_id)
    for step in range(n_steps):
        logits, log_total = writer.step(prefix[:, -1], parents)
        values, choices = (each.cpu() for each in shortlist(logits, prefix, config, eos))  # (R, k)
        drawn = sample(values[row_of], uniform[going, step])
        tokens = choices[row_of, drawn]
        chosen = logits[row_of.to(logits.device), tokens.to(logits.device)].cpu()
        written[going, step] = tokens
        log_probs[going, step] = chosen - log_total.cpu()[row_of]

        unended = tokens != eos
        going, tokens = going[unended], tokens[unended]
        if len(going) == 0:
            break
        # A row for each distinct sentence so far: what agrees in parent and token is one.
        distinct, which = torch.unique(row_of[unended] * vocab_size + tokens, return_inverse=True)
        order = settled(distinct // vocab_size)
        row_of = order.argsort()[which]
        parents, appended = distinct[order] // vocab_size, distinct[order] % vocab_size
        prefix = torch.cat((prefix[parents], appended[:, None]), dim=1)
    return [
        [_hypothesis(written[c], log_probs[c]) for c in range(clip * n_candidates, (clip + 1) * n_candidates)]
        for clip in range(n_clips)
    ]


def _hypothesis(written: Tensor, log_probs: Tensor) -> Hypothesis:
    """A candidate's tokens, (steps,) with IGNORED behind the end, and their log-probabilities."""
    length = int((written != IGNORED).sum())
    total = float(log_probs[:length].double().sum())
    return Hypothesis(tuple(written[:length].tolist()), total / length, total)


@torch.inference_mode()
def log_likelihood(members: Sequence[Member], sentences: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
    """Summed log-probabilities of given sentences, all of them in one padded pass over the shared memories.

    Args:
        members: as for :func:`nucleus`, B clips.
        sentences: for each clip any number of sentences: token ids with the end token, without the start token.

    Returns:
        For each clip (number of sentences,), on the CPU.

    Raises:
        ValueError: a sentence is longer than a decoder's positions.
    """
    flat = [torch.tensor(sentence) for of_clip in sentences for sentence in of_clip]
    counts = [len(of_clip) for of_clip in sentences]
    if not flat:
        return [torch.zeros(0) for _ in sentences]
    device = members[0].encoded.memory.device
    memory_of_row = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=IGNORED)
    real = labels != IGNORED
    targets = labels[real].to(device)
    states = [
        member.model.decoder(
            member.model.shifted_right(labels).to(device), member.encoded.memory, member.encoded.mask, memory_of_row
        )[real.to(device)]
        for member in members
    ]
    output = _Output(members, min(SCORED_AT_ONCE, len(targets)))
    parts = []
    for first in range(0, len(targets), SCORED_AT_ONCE):
        part = slice(first, first + SCORED_AT_ONCE)
        logits, log_total = output([state[part] for state in states])
        parts.append(logits.gather(1, targets[part, None])[:, 0] - log_total)
    token_log_probs = torch.zeros(labels.shape, dtype=torch.float64)
    token_log_probs[real] = torch.cat(parts).cpu().double()
    return list(token_log_probs.sum(dim=1).float().split(counts))


class _Output:
    """Hidden states to next-token logits; members are averaged as probabilities, log(sum of weight x probability)."""

    def __init__(self, members: Sequence[Member], max_rows: int) -> None:
        for member in members:
            if member.model.training:
                raise ValueError("the captioner is in training mode: call its eval() before it writes")
        self.models = [member.model for member in members]
        total = sum(member.weight for member in members)
        self.log_weights = [math.log(member.weight / total) for member in members]
        # Used again at each step: fresh memory of this size (10 MB for 50 rows) costs more than the work done in it.
        self.buffers = [
            member.encoded.memory.new_empty(max_rows, member.model.config.decoder.vocab_size) for member in members
        ]
        self.scratch = torch.empty_like(self.buffers[0])

    def __call__(self, hidden: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """A member's states (R, D) each -> logits (R, V), valid until the next call, and their log-sum-exp (R,)."""
        logits = [
            torch.addmm(model.final_logits_bias, states, model.lm_head.weight.t(), out=buffer[: len(states)])
            for model, states, buffer in zip(self.models, hidden, self.buffers, strict=True)
        ]
        if len(logits) == 1:
            return logits[0], self._log_sum_exp(logits[0])
        weighted = [F.log_softmax(each, dim=1) + weight for each, weight in zip(logits, self.log_weights, strict=True)]
        averaged = torch.stack(weighted).logsumexp(dim=0)
        return averaged, averaged.new_zeros(len(averaged))

    def _log_sum_exp(self, logits: Tensor) -> Tensor:
        """``logits.logsumexp(dim=1)`` without new memory."""
        largest = logits.amax(dim=1)
        exponentials = torch.sub(logits, largest[:, None], out=self.scratch[: len(logits)]).exp_()
        return exponentials.sum(dim=1).log_() + largest


class _Writer:
    """The caches of all members, kept in step."""

    def __init__(self, members: Sequence[Member], max_length: int, max_rows: int) -> None:
        # The last token of a sentence is never fed back: one less than max_length is enough.
        self.output = _Output(members, max_rows)
        self.device = members[0].encoded.memory.device
        self.caches = [
            member.model.decoder.start(
                member.encoded.memory, member.encoded.mask, max_length=max_length - 1, max_rows=max_rows
            )
            for member in members
        ]

    def step(self, token_ids: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Rows go on from ``parents`` (R,) with ``token_ids`` (R,) -> logits (R, V) and their log-sum-exp (R,)."""
        for cache in self.caches:
            cache.select(parents)
        return self.output([cache.step(token_ids.to(self.device)) for cache in self.caches])
