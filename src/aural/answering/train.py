"""Train an audio language model: mappers, projections and, in the paper, the audio encoder; the rest is frozen.

Deshmukh et al. 2023 (arXiv 2305.11834), sections 3 and 4: one objective for all tasks, the likelihood of the answer.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from aural.answering.answer import load
from aural.answering.asked import can_be_asked, told_of_imagined
from aural.answering.borrowed import borrowed_clip, borrowed_gpt2
from aural.answering.classify import fit_label_temperature
from aural.answering.convert import SYSTEM
from aural.answering.data import AskedCollate, AskedExamples
from aural.answering.encoded import EncodedCollate, EncodedScenes, FactsCollate, KnownScene
from aural.answering.fact_rows import FactRows, RememberedPrompts
from aural.answering.language import train_language_model, train_tokenizer, trained_before
from aural.answering.model import AnsweringConfig, AudioLanguageModel, encode_rows
from aural.answering.recipes import RECIPES, Recipe
from aural.answering.tasks import Task, asked_of, placeholders, read_table, read_tasks
from aural.answering.tokenizer import TEXT_TOKENIZER, TOKENIZER, Tokenizers, stop_token_id
from aural.checkpoint import find_model, load_config, load_into, load_weights, save_model, weights_digest
from aural.errors import CheckpointError, UsageError
from aural.manifest import VALIDATION, Clip, clips_digest, held_out, read_manifest
from aural.networks.conv_encoder import ConvEncoder
from aural.networks.htsat import Htsat
from aural.networks.listener import SYSTEM as LISTENING, Listener, ListenerConfig
from aural.networks.sentence_encoder import load_sentence_encoder
from aural.processes import joined, once
from aural.soundscapes.examples import Examples
from aural.training import TrainConfig, adjusted, train as run_training
from aural.whitening import start_white

CARD = """---
license: apache-2.0
library_name: aural
pipeline_tag: audio-text-to-text
---
# Audio language model

It answers questions about a recording. Trained from scratch by

    {command}

on {clips} clips, sound synthesised here, and soundscapes made of both.

Metrics at the end of training: {metrics}

Label temperature: {temperature:.3g}, {fitted}

Limits: it knows the sounds and the kinds of questions it was trained on and little else. The licence of the recordings
applies to what is said of them here: carry their attribution along with the weights.
"""

HEARING = ("audio_rows.", "audio_mapper.")
"""What of an audio language model learns from sound, over a frozen encoder and a frozen language model."""
FACTS_CARD = """# A mapper that says facts

Part of an audio language model before it has learned to answer, and of little use alone.
"""

CONSTANTS = 0.02
"""Spread of a mapper's constants before training over a young language model, whose token rows have the same. From the
released spread of 1 they would be far larger than all that its layers add to them."""

WHITENED = 1000
"""Scenes, at most, by which the reading of sounds starts (:mod:`aural.whitening`)."""
LABELLED = 1000
"""Clips by which probabilities of labels are calibrated, at most."""


@dataclass
class Shared:
    """What several trainings over one encoder have in common."""

    pool: EncodedScenes | None = None
    language: tuple[Tokenizer, dict[str, Tensor]] | None = None
    """Tokenizer and weights of the language side."""


def train(
    recipe: str = "default",
    *,
    manifest: Path,
    out: Path,
    encoder: Path | None = None,
    gpt2: Path | None = None,
    text_encoder: Path | None = None,
    tasks: Path | None = None,
    hold_out: str | None = None,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
    shared: "Shared | None" = None,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.answering.answer.load`.

    In the end ``label_temperature`` is fitted on the clips that are left for validation or, without any, on those that
    were learned from; the model's card says which.

    Args:
        recipe: a name in ``RECIPES``.
        manifest: clips with captions, labels, questions and answers, or whatever the tasks speak of.
        out: folder of the model.
        encoder: folder of a trained listener; None: the one in the box, if no split is held out, of which it knows.
        gpt2: folder of GPT-2 in the hub's layout; for a recipe that trains a language model of its own, the folder of
            one that it trained before (``OUT/language``).
        text_encoder: folder of CLIP, likewise.
        tasks: a table of tasks beyond the built-in ones; all of them are learned, those that the recipe does not name
            as often as its tasks are on average.
        hold_out: clips of this ``split``, or of several, separated by commas, are left out: they can judge the model
            afterwards.
        resume: go on where an earlier run stopped.
        device: "auto", "cpu", "cuda", ...
        seed: of the data, the initial weights and dropout.
        steps: instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.
        shared: what trainings over the same encoder and clips need to compute only once.
        change: what an experiment changes in the recipe.

    Raises:
        UsageError: unknown recipe, nothing to learn from (for a task of ``tasks``, too), or something the recipe needs
            was not given.
    """
    settings = change(_recipe(recipe, seed, steps, precision))
    shared = shared or Shared()
    everything = read_manifest(manifest)
    left_out = held_out(hold_out, everything)
    everything = [clip for clip in everything if clip.split not in left_out]
    clips = [clip for clip in everything if clip.split != VALIDATION]
    own = {} if tasks is None else read_table(tasks)
    shares = _shares(settings, read_tasks(tasks), own)
    for task in own.values():
        _check_known(task, clips, settings)
    command = f"aural train answering --recipe {recipe} --manifest {manifest.name} --seed {seed}"
    command += f" --hold-out {hold_out}" if hold_out else ""
    command += f" --gpt2 {gpt2}" if gpt2 else ""
    command += f" --tasks {tasks}" if tasks else ""
    unseen = [clip for clip in everything if clip.split == VALIDATION and len(clip.labels) == 1]
    labelled = unseen or [clip for clip in clips if len(clip.labels) == 1]
    labelled = labelled[:: max(1, ceil(len(labelled) / LABELLED))]
    seen = f"{len(labelled)} clips " + ("left for validation" if unseen else "of those it learned from")
    of = {
        "set of clips": clips_digest(clips, "question", "answer", "about"),
        "hold-out": hold_out,
        "table of tasks": [(*astuple(task), share) for task, share in shares.items()],
    }
    how = _How(out, resume, of, None if device == "auto" else device, progress, labelled, seen)
    if settings.soundscapes is None:
        if gpt2 is None or (text_encoder is None) != (settings.model.text_encoder is None):
            raise UsageError(
                f"recipe {recipe} is over published models: pass --gpt2 and --text-encoder with their folders"
            )
        if encoder is not None:
            raise UsageError(f"recipe {recipe} trains its audio encoder along: leave out --encoder")
        _over_recordings(settings, clips, shares, gpt2, text_encoder, seed, command, how)
        return
    if text_encoder is not None:
        raise UsageError(
            f"recipe {recipe} reads prompts with the sentence encoder in the box: leave out --text-encoder"
        )
    if gpt2 is not None and settings.language is not None:
        shared.language = trained_before(gpt2, settings.model)
    if encoder is None and hold_out is None:
        encoder = find_model(None, LISTENING)
    if encoder is None:
        raise UsageError(f"pass --encoder with the folder of a listener that was trained with --hold-out {hold_out}")
    _over_soundscapes(settings, clips, shares, encoder, seed, command, how, shared)


@dataclass(frozen=True)
class _How:
    out: Path
    resume: bool
    of: Mapping[str, Any]
    """What all parts learn from."""
    device: str | None
    progress: bool
    labelled: Sequence[Clip]
    """By which probabilities of labels are calibrated."""
    labelled_are: str
    """For the model's card."""


def _recipe(name: str, seed: int, steps: int | None, precision: str | None) -> Recipe:
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]()

    def changed(run: TrainConfig) -> TrainConfig:
        return adjusted(run, seed=seed, steps=steps, precision=precision)

    language = recipe.language and replace(recipe.language, train=changed(recipe.language.train))
    facts = recipe.facts and changed(recipe.facts)
    return replace(recipe, train=changed(recipe.train), facts=facts, language=language)


def _shares(settings: Recipe, table: Mapping[str, Task], own: Mapping[str, Task]) -> dict[Task, float]:
    """Of the tasks of a recipe, and of those of a user's own table."""
    if not settings.tasks:
        return dict.fromkeys(table.values(), 1.0)
    mean = sum(settings.tasks.values()) / len(settings.tasks)
    return {table[name]: settings.tasks.get(name, mean) for name in dict.fromkeys((*settings.tasks, *own))}


def _check_known(task: Task, clips: Sequence[Clip], settings: Recipe) -> None:
    """A task that nothing can be learned for would be left out without a word."""
    if settings.soundscapes is None:
        able, beside = any(asked_of(clip, [task]) for clip in clips), ""
    else:
        able, beside = can_be_asked(task, clips), ", beside captions"
    if not able:
        names = " and ".join(dict.fromkeys(placeholders(task.prompt) + placeholders(task.answer)))
        raise UsageError(
            f"task {task.name!r} of --tasks: no clip of the manifest to learn from has {names}{beside}: "
            'say it in the manifest, under "about", or leave the task out'
        )


# ------------------------------------------------------------------------------------------- over what a listener hears


def _over_soundscapes(
    settings: Recipe,
    clips: Sequence[Clip],
    shares: Mapping[Task, float],
    encoder: Path,
    seed: int,
    command: str,
    how: _How,
    shared: Shared,
) -> None:
    """A language model of its own first, then a mapper between it and a trained listener; both are frozen."""
    heard = load_config(encoder, ListenerConfig, LISTENING)
    listener = Listener(heard)
    load_into(listener, load_weights(encoder))
    if not isinstance(listener.encoder, ConvEncoder):
        raise CheckpointError(f"{encoder}: its encoder is not a convolutional one, which this recipe is for")
    assert settings.soundscapes is not None and settings.language is not None and settings.model.sentences is not None
    of_sound = {**how.of, "encoder": weights_digest(listener.state_dict())}
    if shared.pool is None:
        with joined(how.device) as here:
            encode = partial(
                encode_rows,
                listener.encoder.to(here.device).eval(),
                n_rows=settings.model.audio_rows,
                min_seconds=heard.min_seconds,
            )
            shared.pool = EncodedScenes(
                Examples(clips, settings.soundscapes, seed),
                encode,
                tuple(shares),
                n=settings.pool,
                response_db=settings.pool_response_db,
                device=here.device,
                bfloat16=settings.train.precision == "bfloat16",
                progress=how.progress and here.first and sys.stderr.isatty(),
            )
    sentences = load_sentence_encoder(settings.model.sentences.name)
    hears = listener.encoder.config

    def made(words: Tokenizer) -> tuple[AudioLanguageModel, Tokenizers]:
        config = replace(
            settings.model,
            conv_encoder=hears,
            min_seconds=heard.min_seconds,
            gpt2=replace(settings.model.gpt2, vocab_size=words.get_vocab_size()),
            stop_token_id=stop_token_id(words),
        )
        torch.manual_seed(seed)
        model = AudioLanguageModel(config)
        model.audio_mapper.prefix_const.detach().mul_(CONSTANTS)
        return model, Tokenizers(config, words, sentences=sentences)

    if shared.language is None:
        texts = [*shared.pool.hold(0).texts(), *told_of_imagined(settings.language.imagined, tuple(shares), seed)]
        read = {text: None for told in texts for text in (told.prompt, told.answer)}
        words = train_tokenizer(read, settings.language.vocab_size)
        model, reader = made(words)
        shared.language = (
            words,
            train_language_model(
                model,
                texts,
                reader,
                RememberedPrompts(reader),
                FactRows(reader),
                training=settings.language.train,
                out=how.out / "language",
                resume=how.resume,
                of=how.of,
                device=how.device,
                progress=how.progress,
            ),
        )
    words, spoken = shared.language
    of_sound["language model"] = weights_digest(spoken)
    model, reader = made(words)
    load_into(model.audio_encoder, listener.encoder.state_dict())
    for name, part in (("gpt2.", model.gpt2), ("prompt_rows.", model.prompt_rows)):
        load_into(part, {key.removeprefix(name): value for key, value in spoken.items() if key.startswith(name)})
    start_white(model.audio_rows.linear, shared.pool.first_rows(WHITENED).flatten(0, 1))
    if settings.facts is not None:
        _say_facts(model, shared.pool, settings.pools, FactRows(reader), settings.facts, of_sound, how)
    shared.pool.hold(settings.pools - 1 if settings.facts is not None else 0)
    collate = EncodedCollate(RememberedPrompts(reader), reader.targets)
    asked = {task.name: share for task, share in shares.items()}
    example = partial(shared.pool.draw, shares=asked, n_asked=settings.n_asked, seed=seed)
    _run(_OverEncoded(model), example, collate, settings.train, reader, clips, command, of_sound, how)


def _say_facts(
    model: AudioLanguageModel,
    pool: EncodedScenes,
    n_pools: int,
    read: FactRows,
    training: TrainConfig,
    of: Mapping[str, Any],
    how: _How,
) -> None:
    """Let the audio mapper learn to say the facts, before it learns to be answered from; that takes no GPT-2."""
    of_pool = ceil(training.steps / n_pools) * training.batch_size

    def example(index: int) -> KnownScene:
        return pool.hold(index // of_pool).draw_facts(index, seed=training.seed)

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        own = {name.removeprefix("model."): value for name, value in weights.items()}
        own = {name: value for name, value in own.items() if name.startswith(HEARING)}
        save_model(folder, system="facts", config=model.config, weights=own, card=FACTS_CARD)

    run_training(
        _SayingFacts(model),
        example=example,
        collate=FactsCollate(read),
        counts=lambda batch: {"facts": int(batch["known"].sum())},
        loss_weights={"facts": 1.0},
        config=training,
        out=how.out / "facts",
        save=save,
        resume=how.resume,
        of=of,
        device=how.device,
        progress=how.progress,
    )
    model.load_state_dict(load_weights(how.out / "facts"), strict=False)


class _SayingFacts(nn.Module):
    """How far the audio's part of the prefix is from the facts, as the language model learned to read them."""

    def __init__(self, model: AudioLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        said = self.model.audio_prefix(self.model.embed_encoded(batch["rows"]))
        error = (said - self.model.prompt_prefix(batch["facts"])).square().mean(2)
        return {"facts": error[batch["known"]].mean()}


class _OverEncoded(nn.Module):
    """The losses over rows of the frozen audio encoder, of which each is asked several things."""

    def __init__(self, model: AudioLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        heard = self.model.audio_prefix(self.model.embed_encoded(batch["rows"]))
        asked = self.model.prompt_prefix(batch["prompts"])
        prefix = torch.cat((heard.repeat_interleave(len(asked) // len(heard), dim=0), asked), dim=1)
        return self.model.losses(prefix, batch["targets"])


# ------------------------------------------------------------------------------------------ over published models


def _over_recordings(
    settings: Recipe,
    clips: Sequence[Clip],
    shares: Mapping[Task, float],
    gpt2: Path,
    text_encoder: Path | None,
    seed: int,
    command: str,
    how: _How,
) -> None:
    """As in the paper: the audio encoder learns along, GPT-2 and CLIP's text tower are as published."""
    sizes, spoken, words = borrowed_gpt2(gpt2)
    config = replace(settings.model, gpt2=sizes, stop_token_id=stop_token_id(words))
    read: dict[str, Tensor] = {}
    text_words = None
    if text_encoder is not None:
        text_sizes, read, text_words = borrowed_clip(text_encoder)
        config = replace(config, text_encoder=text_sizes)
    torch.manual_seed(seed)
    model = AudioLanguageModel(config)
    load_into(model.gpt2, spoken)
    if model.text_encoder is not None:
        load_into(model.text_encoder, read)
    reader = Tokenizers(config, words, text_words)
    examples = AskedExamples(
        clips, shares, sample_rate=config.sample_rate, n_samples=config.n_samples, seed=settings.train.seed
    )
    _run(
        _OverWaveforms(model),
        examples,
        AskedCollate(reader.prompts, reader.targets),
        settings.train,
        reader,
        clips,
        command,
        {**how.of, "language model": weights_digest(spoken), "text encoder": weights_digest(read)},
        how,
    )


class _OverWaveforms(nn.Module):
    """The losses over waveforms."""

    def __init__(self, model: AudioLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.model(batch["waveform"], batch["prompts"], batch["targets"])


# --------------------------------------------------------------------------------------------------------------- both


def _blocks(module: nn.Module) -> list[nn.Module]:
    """What FSDP assembles one at a time; of the module it is given, which is a copy."""
    model = cast(_OverWaveforms, module).model
    stages = list(model.audio_encoder.layers) if isinstance(model.audio_encoder, Htsat) else []
    mappers = [*model.audio_mapper.transformer.layers, *model.prompt_mapper.transformer.layers]
    return [*stages, *mappers, *model.gpt2.transformer.h]


def _run(
    module: _OverEncoded | _OverWaveforms,
    example: Callable[[int], Any],
    collate: Callable[[list[Any]], Any],
    config: TrainConfig,
    reader: Tokenizers,
    clips: Sequence[Clip],
    command: str,
    of: Mapping[str, Any],
    how: _How,
) -> None:
    model = module.model

    def save(
        weights: Mapping[str, Tensor],
        folder: Path,
        metrics: Mapping[str, float],
        config: AnsweringConfig = model.config,
        fitted: str = "not fitted",
    ) -> None:
        weights = {name.removeprefix("model."): value for name, value in weights.items()}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())) or "none"
        known = {"temperature": config.label_temperature, "fitted": fitted, "metrics": figures}
        card = CARD.format(command=command, clips=len(clips), **known)
        files = {TOKENIZER: reader.gpt2.to_str()} | ({TEXT_TOKENIZER: reader.text.to_str()} if reader.text else {})
        save_model(folder, system=SYSTEM, config=config, weights=weights, card=card, files=files)

    def counts(batch: Mapping[str, Tensor]) -> dict[str, float]:
        return {"cross_entropy": int((batch["targets"] != model.config.pad_token_id).sum())}

    done = run_training(
        module,
        example=example,
        collate=collate,
        counts=counts,
        loss_weights=model.loss_weights,
        config=replace(config, validate_every=0),
        out=how.out,
        save=save,
        blocks=_blocks,
        resume=how.resume,
        of=of,
        device=how.device,
        progress=how.progress,
    )

    def calibrate() -> None:
        temperature = fit_label_temperature(load(how.out, device=how.device or "auto"), how.labelled)
        config = replace(model.config, label_temperature=temperature)
        metrics = {"step": done.steps, **done.metrics}
        told = "fitted on" if temperature != model.config.label_temperature else "not changed for"
        save(load_weights(how.out), how.out, metrics, config, f"{told} {how.labelled_are}")

    once(calibrate)
