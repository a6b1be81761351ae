"""How much of a sound a codec keeps, on recordings it has never heard, and how well its codebooks are used.

Every clip is encoded, decoded and compared with what it was (:mod:`aural.metrics.reconstruction`), one channel at the
codec's rate. A judge (:mod:`aural.judge`) says besides whether it is still heard for what it is. Intervals resample
recordings, as clips of one recording are not independent.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aural import __version__
from aural.audio import read_mono
from aural.codec_folder import Codec, load_codec
from aural.errors import UsageError
from aural.found_of_clips import splits_held_out
from aural.judge import load_judge
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import RESAMPLES, interval
from aural.metrics.reconstruction import RANGE_DB, mel_distance, si_sdr


@dataclass(frozen=True)
class Judged:
    """One clip through a codec."""

    clip: Clip
    mel_distance: float
    """In dB."""
    si_sdr: float
    """In dB."""

    @property
    def recording(self) -> str:
        """What it was cut from."""
        return self.clip.source or str(self.clip.audio)


def evaluate(
    codec: Codec,
    manifest: Path,
    *,
    split: str | None = None,
    listener: str | os.PathLike[str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Judge a codec on the clips of a manifest, or of one split.

    Args:
        codec: a loaded one.
        manifest: recordings; labels are used to group results.
        split: only the clips of this split.
        listener: folder of a judge that is asked of clips with one label which of these labels it hears, before the
            codec and behind it.
        advance: called after each clip.

    Raises:
        UsageError: no clip to judge, or nothing but silence; the judge knows fewer than two of the labels.
        AudioError: a clip cannot be read.
    """
    clips = [clip for clip in read_manifest(manifest) if split is None or clip.split == split]
    if not clips:
        raise UsageError(f"{manifest}: no clip to judge" + (f" in split {split}" if split else ""))
    judged, use = judge(codec, clips, advance)
    heard = {} if listener is None else _heard(codec, listener, clips)
    return score(judged, use, len(clips)) | heard | {"protocol": _protocol(codec.name, manifest, split)}


def evaluate_held_out(models: Path, manifest: Path, *, device: str = "auto", offline: bool = False) -> dict[str, Any]:
    """Leave one split out in turn: ``models/SPLIT`` was trained without SPLIT and is judged on it; clips are pooled.

    The use of codebooks is the mean over the models.

    Raises:
        UsageError: ``models`` holds no folder named after a split of the manifest, or nothing but silence is judged.
    """
    clips = read_manifest(manifest)
    splits = splits_held_out(models, manifest)
    judged: list[Judged] = []
    uses = []
    for split in splits:
        codec = load_codec(models / split, device=device, offline=offline)
        own, use = judge(codec, [clip for clip in clips if clip.split == split])
        judged += own
        uses.append(use)
    n_clips = sum(clip.split in splits for clip in clips)
    return score(judged, torch.stack(uses).mean(0), n_clips) | {
        "protocol": _protocol(str(models), manifest, ", ".join(splits))
    }


@torch.inference_mode()
def judge(
    codec: Codec, clips: Sequence[Clip], advance: Callable[[], None] = lambda: None
) -> tuple[list[Judged], Tensor]:
    """Send clips through a codec.

    Returns:
        Each clip that is not silent (a ratio to silence says nothing), and the use of codebooks over all, (K, 2), see
        :func:`codebook_use`.
    """
    counts = torch.zeros(codec.n_codebooks, codec.codebook_size)
    judged = []
    for clip in clips:
        sound = read_mono(clip.audio, codec.sample_rate, start=clip.start, duration=clip.duration)
        truth = torch.from_numpy(sound)
        codes = codec.encode(truth[None])
        for count, row in zip(counts, codes[0].cpu(), strict=True):
            count += torch.bincount(row, minlength=codec.codebook_size)
        if truth.ne(truth[0]).any() and len(truth) >= codec.sample_rate // 40:
            made = codec.decode(codes)[0, : len(truth)].cpu()
            judged.append(Judged(clip, mel_distance(made, truth, codec.sample_rate), si_sdr(made, truth)))
        advance()
    return judged, codebook_use(counts)


@torch.inference_mode()
def _heard(codec: Codec, listener: str | os.PathLike[str], clips: Sequence[Clip]) -> dict[str, Any]:
    """How often a judge hears the label of a clip, before and behind the codec."""
    expert, clips = load_judge(listener, clips)
    right: dict[str, list[float]] = {"recorded": [], "decoded": []}
    for clip in clips:
        sound = read_mono(clip.audio, codec.sample_rate, start=clip.start, duration=clip.duration)
        decoded = codec.decode(codec.encode(torch.from_numpy(sound)[None]))[0, : len(sound)].cpu().numpy()
        for name, waveform in (("recorded", sound), ("decoded", decoded)):
            logits, _ = expert.hear(waveform, codec.sample_rate)
            right[name].append(float(expert.best(logits, 1) == {clip.labels[0]}))
    recordings = [clip.source or str(clip.audio) for clip in clips]
    found: dict[str, Any] = {"judge": expert.name, "n_judged": len(clips)}
    for name, values in right.items():
        found |= {f"heard_{name}": sum(values) / len(values), f"heard_{name}_interval_95": interval(values, recordings)}
    return {"heard": found}


def codebook_use(counts: Tensor) -> Tensor:
    """How often each entry was chosen (K, V) -> (K, 2): share of entries in use, and perplexity.

    The perplexity of a codebook is the number of entries that, chosen equally often, would say as much.
    """
    shares = counts / counts.sum(1, keepdim=True)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(1)
    return torch.stack([counts.gt(0).float().mean(1), entropy.exp()], dim=1)


def score(judged: Sequence[Judged], use: Tensor, n_clips: int) -> dict[str, Any]:
    """Means with 95 % intervals, means by label, and the use of each codebook.

    Raises:
        UsageError: there is nothing but silence.
    """
    if not judged:
        raise UsageError("all clips to judge are silent or shorter than 25 ms: give a manifest of sounds")
    recordings = [one.recording for one in judged]
    labels = sorted({one.clip.labels[0] for one in judged if len(one.clip.labels) == 1})
    result: dict[str, Any] = {}
    for name in ("mel_distance", "si_sdr"):
        values = [getattr(one, name) for one in judged]
        result[name] = sum(values) / len(values)
        result[f"{name}_interval_95"] = interval(values, recordings)
    for name in ("mel_distance", "si_sdr"):
        of_label = {label: [getattr(one, name) for one in judged if one.clip.labels == (label,)] for label in labels}
        result[f"{name}_of_label"] = {label: sum(values) / len(values) for label, values in of_label.items()}
    result["codebooks"] = [{"used": share, "perplexity": perplexity} for share, perplexity in use.tolist()]
    counts = {"n_clips": len(judged), "n_recordings": len(set(recordings)), "n_silent_clips": n_clips - len(judged)}
    return result | counts


def _protocol(model: str, manifest: Path, split: str | None) -> dict[str, Any]:
    return {
        "mel_distance": f"mean distance in dB over 64 mel bands, the loudest {RANGE_DB:g} dB; lower is better",
        "si_sdr": "dB over the whole clip; higher is better",
        "interval": f"bootstrap over recordings, {RESAMPLES} resamples",
        "model": model,
        "manifest": manifest.name,
        "split": split,
        "aural": __version__,
    }
