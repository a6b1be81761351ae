"""Captions of two recordings played together, joined from theirs by a language model, or offline by the grammar.

Wu et al. 2023 (arXiv 2309.17352), section 2.3: pairs of clips, the prompt below, fifty thousand captions, those that
read badly left out. The files have the layout in which the authors published theirs, which are read as well:

    mixups.json      {"billed_tokens": 93, "used_combinations": [[4, 17]], "dataset": [{"prompt": "...",
                     "selected_pair": [4, 17], "audio_files": ["a.wav", "b.wav"], "true_captions": ["...", "..."],
                     "chatgpt_mixups": ["..."]}]}
    mixups_err.json  [{"idx": [0, 0], "why": "over 25 words"}], which entry and which caption of it to leave out

``selected_pair`` numbers the clips of the manifest; ``audio_files`` are as seen from the file. Every answer is added to
``mixups_cache.jsonl`` as it comes and before it is used, so that a run that was killed goes on where it stopped, a
longer one pays for what is new alone, and no answer is paid twice.
"""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from aural.captioning.caption_mixup import join_captions
from aural.captioning.chat import Answer, AnswerCache, Endpoint, RefusedPromptError, StoppedError, ask
from aural.errors import UsageError
from aural.fluency import THRESHOLD, FluencyDetector, detect
from aural.manifest import Clip

PROMPT = "Generate a mix of the following two audio captions, and keep the generation under 25 words:"
MOST_WORDS = 25
DRAWS = 100
"""Draws for each pair that is wanted before it is taken that there are no more."""

logger = logging.getLogger("aural")


@dataclass(frozen=True)
class Mixup:
    """Two clips to be heard together, and captions that are true of both."""

    clips: tuple[Clip, Clip]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two clips, by their numbers, and the captions to join."""

    numbers: tuple[int, int]
    captions: tuple[str, str]

    @property
    def prompt(self) -> str:
        """The paper's, and the two captions."""
        return f"{PROMPT}\n1. {self.captions[0]}\n2. {self.captions[1]}"


@dataclass(frozen=True)
class MixupReport:
    """What making the captions took."""

    pairs: int
    """In the file, rejected ones included."""
    rejected: int
    refused: int
    """Pairs left out because the endpoint would not answer."""
    cached: int
    """Prompts that had been answered before."""
    requests: int
    retries: int
    """Of the requests, those that repeated one."""
    billed_tokens: int
    """For all that is in the file, whenever it was paid."""
    new_tokens: int
    """Of these, those of this run."""

    def __str__(self) -> str:
        return (
            f"{self.pairs} mix-up captions, {self.rejected} of them rejected, {self.refused} pairs refused; "
            f"{self.requests} requests ({self.retries} retries), {self.cached} answers were there; "
            f"{self.billed_tokens} tokens, {self.new_tokens} of them now"
        )


def draw_pairs(clips: Sequence[Clip], n: int, seed: int, split: str | None = None) -> list[Pair]:
    """Up to ``n`` different pairs of clips with captions; the first of many are those of few.

    The two are of one split, so that holding one out leaves the others whole, of different sources, and, where labels
    are known, of different ones.

    Args:
        clips: of a manifest.
        n: how many pairs.
        seed: of the draws.
        split: only clips of this split.

    Raises:
        UsageError: there is no such pair.
    """
    of_split: dict[str | None, list[int]] = {}
    for number, clip in enumerate(clips):
        if clip.captions and split in (None, clip.split):
            of_split.setdefault(clip.split, []).append(number)
    choices = [number for numbers in of_split.values() for number in numbers]
    generator = np.random.default_rng([seed])
    pairs: dict[frozenset[int], Pair] = {}
    for _ in range(DRAWS * n if choices else 0):
        first = choices[int(generator.integers(len(choices)))]
        others = of_split[clips[first].split]
        second = others[int(generator.integers(len(others)))]
        captions = tuple(clips[i].captions[int(generator.integers(len(clips[i].captions)))] for i in (first, second))
        if _go_together(clips[first], clips[second]):
            pairs.setdefault(frozenset((first, second)), Pair((first, second), (captions[0], captions[1])))
        if len(pairs) == n:
            break
    if not pairs:
        raise UsageError("no two clips with captions are of one split and different recordings: nothing to mix")
    if len(pairs) < n:
        logger.warning("only %d of %d pairs of clips were found", len(pairs), n)
    return list(pairs.values())


def _go_together(first: Clip, second: Clip) -> bool:
    if (first.source or first.audio) == (second.source or second.audio) or first.audio == second.audio:
        return False
    return not first.labels or first.labels != second.labels


# ------------------------------------------------------------------------------------------------------------- writing


def write_mixups(
    clips: Sequence[Clip],
    out: Path,
    *,
    n: int,
    seed: int = 0,
    split: str | None = None,
    endpoint: Endpoint | None = None,
    fluency: FluencyDetector = detect,
) -> MixupReport:
    """Make captions for pairs of clips and write them in the published layout, with the rejected ones beside them.

    Args:
        clips: of a manifest.
        out: the file, ``.json``; the rejects and the cache lie beside it.
        n: pairs.
        seed: which pairs, and, offline, which words.
        split: only clips of this split.
        endpoint: who joins the captions; None: the grammar.
        fluency: captions that it takes as malformed are rejected, as are those of over 25 words or several sentences.

    Raises:
        UsageError: nothing to mix, a wrong address, model or key, or another run is writing the same file.
        AuralError: the endpoint does not answer any more; what was answered is kept.
    """
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}")
    pairs = draw_pairs(clips, n, seed, split)
    answers: Mapping[str, Answer] = {}
    cached = in_vain = 0
    if endpoint is not None:
        prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
        with AnswerCache(out.with_name(f"{out.stem}_cache.jsonl"), endpoint.model) as cache:
            cached = sum(prompt in cache.answers for prompt in prompts)
            in_vain = _ask_all(endpoint, [prompt for prompt in prompts if prompt not in cache.answers], cache)
            answers = {prompt: cache.answers[prompt] for prompt in prompts if prompt in cache.answers}
        texts = [answers[pair.prompt].text if pair.prompt in answers else None for pair in pairs]
    else:
        texts = [_joined(pair, clips, np.random.default_rng([seed, index])) for index, pair in enumerate(pairs)]
    dataset: list[dict[str, Any]] = [
        {
            "prompt": pair.prompt,
            "selected_pair": list(pair.numbers),
            "audio_files": [_relative(clips[number].audio, out.parent) for number in pair.numbers],
            "true_captions": list(pair.captions),
            "chatgpt_mixups": [_unquoted(text)],
        }
        for pair, text in zip(pairs, texts, strict=True)
        if text is not None
    ]
    rejects = _rejects([entry["chatgpt_mixups"] for entry in dataset], fluency)
    report = MixupReport(
        pairs=len(dataset),
        rejected=len(rejects),
        refused=len(pairs) - len(dataset),
        cached=cached,
        requests=sum(answer.requests for answer in answers.values()) + in_vain,
        retries=sum(max(0, answer.requests - 1) for answer in answers.values()),
        billed_tokens=sum(answer.tokens for answer in answers.values()),
        new_tokens=sum(answer.tokens for answer in answers.values() if answer.requests),
    )
    # The rejects first: the captions never lie there without them.
    _write_json(_rejects_of(out), rejects)
    used = [entry["selected_pair"] for entry in dataset]
    _write_json(out, {"billed_tokens": report.billed_tokens, "used_combinations": used, "dataset": dataset})
    logger.info("%s: %s", out, report)
    return report


def _joined(pair: Pair, clips: Sequence[Clip], generator: np.random.Generator) -> str:
    first, second = (caption.strip().rstrip(".! ").lower() for caption in pair.captions)
    labels = [clips[number].labels for number in pair.numbers]
    names = [label[0] if len(label) == 1 else None for label in labels]
    return join_captions(first, second, (names[0], names[1]), generator)


def _ask_all(endpoint: Endpoint, prompts: Sequence[str], cache: AnswerCache) -> int:
    """Ask a few at a time; how many requests came to nothing because their prompt is refused.

    The first error that will not pass ends it, after what is under way has come in.
    """
    stop = Event()
    in_vain = 0

    def answer(prompt: str) -> None:
        if stop.is_set():
            return
        try:
            cache.add(prompt, ask(endpoint, prompt, stop))
        except StoppedError:
            return
        except RefusedPromptError:
            raise
        except BaseException:
            stop.set()  # here and not below, or this thread would ask once more
            raise

    with ThreadPoolExecutor(endpoint.concurrency) as pool:
        try:
            for asked in as_completed([pool.submit(answer, prompt) for prompt in prompts]):
                try:
                    asked.result()
                except RefusedPromptError as error:
                    if not cache.answers:  # nothing shows that it ever answers
                        raise
                    in_vain += error.requests
                    logger.warning("%s", error)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return in_vain


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'“”").strip()


def _rejects(captions: Sequence[Sequence[str]], fluency: FluencyDetector) -> list[dict[str, Any]]:
    places = [(entry, number) for entry, of_entry in enumerate(captions) for number in range(len(of_entry))]
    malformed = fluency([captions[entry][number] for entry, number in places])
    why = [_why(captions[entry][number], flaw) for (entry, number), flaw in zip(places, malformed, strict=True)]
    return [{"idx": list(place), "why": reason} for place, reason in zip(places, why, strict=True) if reason]


def _why(caption: str, malformed: float) -> str | None:
    """The reason to reject a caption."""
    sentences = [part for part in re.split(r"[.!?]+(?:\s+|$)|[:\n]", caption) if part.strip()]
    if len(sentences) != 1:
        return "not one sentence"
    if len(caption.split()) > MOST_WORDS:
        return f"over {MOST_WORDS} words"
    return "malformed" if malformed > THRESHOLD else None


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _write_json(path: Path, content: Any) -> None:
    """Under its name there is always all of it, or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------- reading


def _rejects_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_err.json")


def read_mixups(path: Path, clips: Sequence[Clip], rejects: Path | None = None) -> list[Mixup]:
    """Read mix-ups in the published layout, without the rejected captions and the pairs whose clips are not given.

    Args:
        path: the file.
        clips: those that may be used; they are recognised by path as seen from the file, else by name alone, where
            several share it by ``selected_pair``.
        rejects: the file of rejects; None: the one beside it whose name ends in ``_err.json``, if there is one.

    Raises:
        UsageError: a file is missing or not of this layout, or nothing is left of it.
    """
    if rejects is None and _rejects_of(path).is_file():
        rejects = _rejects_of(path)
    try:
        dropped = {(int(row["idx"][0]), int(row["idx"][1])) for row in (_read_json(rejects) if rejects else ())}
    except (LookupError, TypeError, ValueError):
        raise UsageError(f'{rejects}: is no list of rejects; a row is {{"idx": [entry, caption]}}') from None
    by_path: dict[str, list[Clip]] = {}
    by_name: dict[str, list[Clip]] = {}
    for clip in clips:
        by_path.setdefault(os.path.abspath(clip.audio), []).append(clip)  # noqa: PTH100 (resolve would follow links)
        by_name.setdefault(clip.audio.name, []).append(clip)
    numbered = dict(enumerate(clips))
    content = _read_json(path)
    mixups = []
    left_out = 0
    for entry, row in enumerate(content["dataset"] if isinstance(content, dict) and "dataset" in content else [None]):
        try:
            written = [str(text) for text in row["chatgpt_mixups"]]
            files, numbers = [str(name) for name in row["audio_files"]], row["selected_pair"]
            if len(files) != 2 or len(numbers) != 2:
                raise ValueError
        except (LookupError, TypeError, ValueError):
            raise UsageError(
                f"{path}: entry {entry} is not laid out as published mix-ups are; is it such a file?"
            ) from None
        found = []
        for name, number in zip(files, numbers, strict=True):
            alike = by_path.get(os.path.abspath(path.parent / name)) or by_name.get(Path(name).name, [])  # noqa: PTH100
            meant = numbered.get(number) if isinstance(number, int) else None
            found += [meant] if meant in alike else alike if len(alike) == 1 else []
        captions = [text for number, text in enumerate(written) if (entry, number) not in dropped and text.strip()]
        if len(found) != 2:
            left_out += 1
        elif captions:
            mixups.append(Mixup((found[0], found[1]), tuple(captions)))
    if left_out:
        logger.warning("%s: %d pairs are left out: their clips are not all in the manifest", path, left_out)
    if not mixups:
        raise UsageError(f"{path}: holds no mix-up of the clips of the manifest; was it made from another one?")
    return mixups


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; `aural prepare mixups` makes one") from None
    except ValueError as error:
        raise UsageError(f"{path}: is no JSON: {error}") from None
