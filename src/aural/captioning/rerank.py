"""Hybrid reranking (Wu et al., arXiv 2309.17352): the likelihood of a caption, and how well its meaning fits the sound.

    score = 0.3 * (mean log-likelihood of a token, end token included) + 0.7 * cosine(audio embedding, text embedding)

on the raw values, as in the released pipeline; with ``znorm`` each of the two is standardised over the clip's captions
before.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from aural.beam_search import Hypothesis
from aural.captioning.decoding import Member, log_likelihood

EncodeText = Callable[[list[str]], Tensor]
"""Captions -> sentence embeddings (captions, K) of any length."""

IsFlawed = Callable[[str], bool]
"""Whether an error detector objects to a caption."""


@dataclass(frozen=True)
class Ranked:
    """A distinct caption of a clip, judged."""

    caption: str
    log_likelihood: float  # mean log-probability of its tokens and the end token, in nats
    similarity: float  # cosine of audio and text embedding
    score: float


@dataclass(frozen=True)
class Choice:
    """The outcome for one clip."""

    best: Ranked
    ranked: tuple[Ranked, ...]  # all captions, the best score first


def clean(text: str) -> str:
    """Text without ASCII punctuation and without white space around it."""
    return text.translate(str.maketrans("", "", string.punctuation)).strip()


def rerank(
    nll: Tensor,
    cosine: Tensor,
    *,
    decoder_weight: float = 0.3,
    encoder_weight: float = 0.7,
    znorm: bool = False,
) -> tuple[Tensor, Tensor]:
    """Score the captions of one clip.

    Args:
        nll: (n,) mean negative log-likelihoods.
        cosine: (n,) similarities.
        decoder_weight: of -nll.
        encoder_weight: of the cosine.
        znorm: standardise each part by its mean and population standard deviation first.

    Returns:
        Order (n,), best first, equal scores by the lower nll; and scores (n,) in the order given.
    """
    likelihood = -nll
    if znorm:
        likelihood, cosine = _standardised(likelihood), _standardised(cosine)
    scores = decoder_weight * likelihood + encoder_weight * cosine
    by_nll = nll.argsort(stable=True)
    return by_nll[scores[by_nll].argsort(descending=True, stable=True)], scores


def _standardised(values: Tensor) -> Tensor:
    """Mean 0 and population standard deviation 1; values that are all equal become 0."""
    centred = values - values.mean()
    deviation = centred.square().mean().sqrt()
    return centred / deviation if deviation > 0 else centred


def choose(
    members: Sequence[Member],
    candidates: Sequence[Sequence[Hypothesis]],
    tokenizer: Tokenizer,
    encode_text: EncodeText,
    *,
    decoder_weight: float = 0.3,
    encoder_weight: float = 0.7,
    znorm: bool = False,
    is_flawed: IsFlawed | None = None,
) -> list[Choice]:
    """Clean, judge and order the candidates of each clip, and choose one.

    The decoder judges what is read: the caption tokenised anew from its cleaned text. Where these are tokens that were
    drawn, as they nearly always are, their log-probabilities are known; others are scored in one pass. Each distinct
    caption is scored and embedded once. Captions of which cleaning leaves nothing are dropped, unless all are such.

    Args:
        members: the captioners that wrote the candidates, B clips. Likelihoods are of the averaged next-token
            probabilities, similarities are averaged, both by weight.
        candidates: for each clip at least one.
        tokenizer: of the captioners.
        encode_text: the sentence encoder whose embeddings the captioners were trained towards.
        decoder_weight: weight of the mean log-likelihood.
        encoder_weight: weight of the similarity.
        znorm: see :func:`rerank`.
        is_flawed: the best caption it does not object to is chosen; the best of all if it objects to each.

    Returns:
        A choice for each clip.
    """
    distinct = [_distinct(found, tokenizer) for found in candidates]
    likelihoods = _likelihoods(members, distinct, candidates, tokenizer)
    texts = list(dict.fromkeys(text for captions in distinct for text in captions))
    embedding_of = dict(zip(texts, F.normalize(encode_text(texts).float(), dim=1).cpu(), strict=True))
    choices = []
    for clip, (captions, likelihood) in enumerate(zip(distinct, likelihoods, strict=True)):
        similarity = _similarities(members, clip, torch.stack([embedding_of[text] for text in captions]))
        order, scores = rerank(
            -likelihood, similarity, decoder_weight=decoder_weight, encoder_weight=encoder_weight, znorm=znorm
        )
        judged = [
            Ranked(*values)
            for values in zip(captions, likelihood.tolist(), similarity.tolist(), scores.tolist(), strict=True)
        ]
        ranked = tuple(judged[i] for i in order.tolist())
        sound = (each for each in ranked if is_flawed is None or not is_flawed(each.caption))
        choices.append(Choice(next(sound, ranked[0]), ranked))
    return choices


def _distinct(candidates: Sequence[Hypothesis], tokenizer: Tokenizer) -> list[str]:
    """Distinct cleaned captions in the order drawn."""
    drawn = tokenizer.decode_batch([list(candidate.token_ids) for candidate in candidates])
    captions = list(dict.fromkeys(clean(text) for text in drawn))
    return [caption for caption in captions if caption] or captions


def _likelihoods(
    members: Sequence[Member],
    captions: Sequence[Sequence[str]],
    candidates: Sequence[Sequence[Hypothesis]],
    tokenizer: Tokenizer,
) -> list[Tensor]:
    """Mean log-likelihood per token of each clip's captions (n,), end token included."""
    eos = members[0].model.config.eos_token_id
    room = min(member.model.config.decoder.max_positions for member in members) - 1
    sentences = [
        [(*encoding.ids[:room], eos) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        for texts in captions
    ]
    log_probs = [{drawn.token_ids: drawn.log_prob for drawn in of_clip} for of_clip in candidates]
    unknown = [
        [sentence for sentence in of_clip if sentence not in known]
        for of_clip, known in zip(sentences, log_probs, strict=True)
    ]
    for known, of_clip, scored in zip(log_probs, unknown, log_likelihood(members, unknown), strict=True):
        known.update(zip(of_clip, scored.tolist(), strict=True))
    return [
        torch.tensor([known[sentence] / len(sentence) for sentence in of_clip])
        for of_clip, known in zip(sentences, log_probs, strict=True)
    ]


def _similarities(members: Sequence[Member], clip: int, embeddings: Tensor) -> Tensor:
    """Cosines (n,) of a clip with text embeddings (n, K) of length 1, averaged over the members by weight."""
    total = sum(member.weight for member in members)
    similarity = torch.zeros(len(embeddings))
    for member in members:
        audio = F.normalize(member.encoded.embedding[clip].detach().float().cpu(), dim=0)
        similarity += member.weight / total * (embeddings @ audio)
    return similarity
