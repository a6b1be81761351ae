"""Residual vector quantiser: a vector as the sum of one entry from each of several codebooks.

Defossez et al., "High Fidelity Neural Audio Compression" (EnCodec), arXiv 2210.13438, section 3.2; codebooks learn as
in van den Oord et al., arXiv 1711.00937, appendix A.1: by moving averages of the vectors that chose each entry, not by
gradients. Each stage quantises what the stages before it left over.

Two things that the published training code meant to do and does not are done here: entries that hardly anyone chooses
are replaced (there, the replacement is overwritten in the same step), and the sums behind a codebook that starts from
k-means are those of its clusters (there, they are the means, so that the next average shrinks the entries). Its ways
remain as options, :attr:`QuantizerConfig.dead_code_share` = 0 and :attr:`QuantizerConfig.published_start`.

Names of parameters are those of transformers' EnCodec. Shapes: B clips, T frames, D width, K codebooks, V entries of a
codebook, N = B T vectors.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class QuantizerConfig:
    """Sizes of a :class:`ResidualQuantizer`, and how it learns; the defaults are those of MusicGen's and AudioGen's."""

    n_codebooks: int = 4
    codebook_size: int = 2048
    decay: float = 0.99  # of the moving averages, at every batch
    epsilon: float = 1e-5  # added to the counts, so that none is zero
    commitment_weight: float = 1.0
    kmeans_iterations: int = 50  # on the first batch, which the codebooks start from; 0 = they start at random
    published_start: bool = False  # keep the slip of the published code: sums that are means
    dead_code_share: float = 0.1  # an entry chosen less than this part of the average is replaced; 0 = never
    codebook_dropout: bool = False  # train with the first n codebooks alone, n anew for every batch

    def __post_init__(self) -> None:
        """Refuse what is no quantiser.

        Raises:
            ValueError: says which setting.
        """
        if self.n_codebooks < 1 or self.codebook_size < 2:
            raise ValueError(f"{self.n_codebooks} codebooks of {self.codebook_size} entries quantise nothing")
        if not 0.0 <= self.dead_code_share < 1.0:
            raise ValueError(f"dead_code_share is a part of the average, below 1, not {self.dead_code_share}")

    @property
    def bits_per_code(self) -> int:
        """Of a code written plainly."""
        return (self.codebook_size - 1).bit_length()


@dataclass(frozen=True)
class Quantized:
    """What a quantiser makes of vectors."""

    vectors: Tensor
    """(B, D, T): the sums of the entries. In training they pass the gradient straight on to what was quantised."""
    codes: Tensor
    """(B, k, T), which entries they are; k codebooks ran."""
    commitment: Tensor
    """(k,): of each stage the mean squared distance of its input from its entry, weighed; zeros in evaluation."""

    @property
    def penalty(self) -> Tensor:
        """The commitment loss: the mean over stages."""
        return self.commitment.mean()


class ResidualQuantizer(nn.Module):
    """K codebooks, each for what those before it left over."""

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(_Stage(config, width) for _ in range(config.n_codebooks))

    @property
    def codebooks(self) -> list["Codebook"]:
        """In the order of their stages."""
        return [cast(_Stage, layer).codebook for layer in self.layers]

    def encode(self, vectors: Tensor, n_codebooks: int | None = None) -> Tensor:
        """Vectors (B, D, T) -> codes (B, k, T) of the first ``n_codebooks`` stages; None = of all.

        Raises:
            ValueError: there are not as many codebooks.
        """
        residual, codes = _rows(vectors), []
        for codebook in self._first(n_codebooks):
            index = codebook.nearest(residual)
            residual = residual - codebook.embed[index]
            codes.append(index.view(len(vectors), -1))
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, k, T), k <= K -> vectors (B, D, T).

        Raises:
            ValueError: there are not as many codebooks.
        """
        books = self._first(codes.shape[1])
        return torch.stack([book.embed[codes[:, k]] for k, book in enumerate(books)]).sum(0).transpose(1, 2)

    def forward(
        self, vectors: Tensor, n_codebooks: int | None = None, *, generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantise vectors (B, D, T), and in training mode let the codebooks learn from them.

        Args:
            vectors: (B, D, T)
            n_codebooks: how many stages; None = all, or in training with ``codebook_dropout`` a number drawn.
            generator: of what is drawn in training mode; None = torch's global one.

        Raises:
            ValueError: there are not as many codebooks.
        """
        if n_codebooks is None and self.training and self.config.codebook_dropout:
            device = None if generator is None else generator.device
            drawn = torch.randint(self.config.n_codebooks, (1,), generator=generator, device=device)
            n_codebooks = 1 + int(_of_first_process(drawn))
        rows = _rows(vectors)
        residual, total = rows, torch.zeros_like(rows)
        codes, commitment = [], []
        for codebook in self._first(n_codebooks):
            index, entries = codebook(residual, generator=generator)
            if self.training:
                # rounded as in the published code, where the entry has gone through the straight-through form
                entries = (residual + (entries - residual)).detach()
                commitment.append(self.config.commitment_weight * F.mse_loss(entries, residual))
            residual, total = residual - entries, total + entries
            codes.append(index.view(len(vectors), -1))
        if self.training:
            total = rows + (total - rows).detach()
        losses = torch.stack(commitment) if commitment else rows.new_zeros(len(codes))
        return Quantized(total.view(len(vectors), -1, rows.shape[1]).transpose(1, 2), torch.stack(codes, 1), losses)

    def _first(self, n_codebooks: int | None) -> list["Codebook"]:
        if n_codebooks is not None and not 1 <= n_codebooks <= self.config.n_codebooks:
            raise ValueError(f"there are {self.config.n_codebooks} codebooks, of which {n_codebooks} are no first ones")
        return self.codebooks[:n_codebooks]


class Codebook(nn.Module):
    """Entries, and the moving averages behind them: entry v is the mean of the vectors that chose v, ``sums / counts``.

    Under ``torch.distributed`` the averages are over the vectors of all processes, so their codebooks stay the same.
    """

    inited: Tensor
    """(1,), 1.0 once there is a codebook."""
    embed: Tensor
    """(V, D), the entries."""
    cluster_size: Tensor
    """(V,), how often each was chosen in a batch, averaged."""
    embed_avg: Tensor
    """(V, D), sums of the vectors that chose each, averaged."""

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        waits = config.kmeans_iterations > 0
        entries = torch.zeros(config.codebook_size, width)
        if not waits:
            nn.init.kaiming_uniform_(entries)
        self.register_buffer("inited", torch.tensor([0.0 if waits else 1.0]))
        # with 0, as published, the first average would make a random start a hundred times as long
        self.register_buffer("cluster_size", torch.full((config.codebook_size,), 0.0 if waits else 1.0))
        self.register_buffer("embed", entries)
        self.register_buffer("embed_avg", entries.clone())

    def nearest(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N,): the entry at the smallest squared distance, the first of equals."""
        return _nearest(rows, self.embed)

    def forward(self, rows: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(N, D) -> which entries (N,), and the entries (N, D) as they were before learning from these rows."""
        if self.training and not self.inited.item():
            vectors = rows.detach()
            self.start(vectors, _draw(len(vectors), self.config.codebook_size, vectors.device, generator))
        index = self.nearest(rows.detach())
        entries = F.embedding(index, self.embed)
        if self.training:
            self.learn(rows.detach(), index)
            self.replace_dead(rows.detach(), generator)
        return index, entries

    @torch.no_grad()
    def start(self, rows: Tensor, chosen: Tensor) -> None:
        """Take the k-means clusters of ``rows`` (N, D) for entries, beginning with the rows ``chosen`` (V,)."""
        means, counts = kmeans(rows, rows[chosen], self.config.kmeans_iterations)
        means, counts = _of_first_process(means), _of_first_process(counts.to(means))
        self.embed.copy_(means)
        self.cluster_size.copy_(counts)
        self.embed_avg.copy_(means if self.config.published_start else means * counts[:, None])
        self.inited.fill_(1.0)

    @torch.no_grad()
    def learn(self, rows: Tensor, index: Tensor) -> None:
        """Average in the rows (N, D) that chose the entries ``index`` (N,)."""
        counts = _over_processes(torch.bincount(index, minlength=self.config.codebook_size).to(rows))
        sums = _over_processes(torch.zeros_like(self.embed).index_add_(0, index, rows))
        self.cluster_size.lerp_(counts, 1 - self.config.decay)
        self.embed_avg.lerp_(sums, 1 - self.config.decay)
        n, epsilon = self.cluster_size.sum(), self.config.epsilon
        smoothed = (self.cluster_size + epsilon) / (n + self.config.codebook_size * epsilon) * n
        self.embed.copy_(self.embed_avg / smoothed[:, None])

    @torch.no_grad()
    def replace_dead(self, rows: Tensor, generator: torch.Generator | None = None) -> None:
        """Put rows drawn from (N, D) in the place of entries that are chosen too seldom.

        Seldom is a part of the average, not an absolute count as in the published settings: those ask for 2 in a batch,
        where with 64 clips of 1 s an average entry of 2048 is chosen 1.6 times. A new entry counts as one of average
        use, and has some hundred batches to find its vectors before it is replaced in turn.
        """
        average = self.cluster_size.mean()
        dead = self.cluster_size < self.config.dead_code_share * average
        if not dead.any():
            return
        vectors = _of_first_process(rows[_draw(len(rows), int(dead.sum()), rows.device, generator)])
        self.embed[dead] = vectors
        self.embed_avg[dead] = vectors * average
        self.cluster_size[dead] = average


class _Stage(nn.Module):
    """Exists for the published names alone."""

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__()
        self.codebook = Codebook(config, width)


def kmeans(rows: Tensor, means: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: assign each row to its nearest mean, move each mean to its rows; an empty one stays.

    Args:
        rows: (N, D)
        means: (V, D), to begin with.
        iterations: how often.

    Returns:
        Means (V, D), and how many rows were last assigned to each (V,).
    """
    counts = torch.zeros(len(means), dtype=torch.long, device=rows.device)
    for _ in range(iterations):
        index = _nearest(rows, means)
        counts = torch.bincount(index, minlength=len(means))
        sums = torch.zeros_like(means).index_add_(0, index, rows)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], means)
    return means, counts


def _nearest(rows: Tensor, entries: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):  # half precision confounds neighbours
        # in this order of operations, in which the published codes were made
        distances = rows.pow(2).sum(1, keepdim=True) - 2 * rows @ entries.T + entries.pow(2).sum(1)
    return distances.argmin(1)


def _rows(vectors: Tensor) -> Tensor:
    """(B, D, T) -> (B T, D), in full precision."""
    return vectors.transpose(1, 2).flatten(0, 1).float()


def _draw(n: int, wanted: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Indices below n, (wanted,), without repetition where there are enough."""
    own = device if generator is None else generator.device
    repeats = math.ceil(wanted / n)
    drawn = torch.cat([torch.randperm(n, generator=generator, device=own) for _ in range(repeats)])[:wanted]
    return drawn.to(device)


def _over_processes(tensor: Tensor) -> Tensor:
    """The sum over all processes."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def _of_first_process(tensor: Tensor) -> Tensor:
    """What the first process has drawn or computed."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(tensor, 0)
    return tensor
