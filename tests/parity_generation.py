"""The token language model against the original code; names as in the README of ``shared/golden/audiogen``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison, read_json
from torch import Tensor

from aural.checkpoint import load_into
from aural.padding import lengths_to_mask
from aural.text_to_audio.convert import inferred_config, t5_config, t5_weights
from aural.text_to_audio.decoding import DecodingConfig, Text, allowed, generate
from aural.text_to_audio.delay_pattern import delay, undelay, usual_delays
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel, codebook_losses, pad_codes
from aural.text_to_audio.published_names import (
    TEXT,
    from_audiocraft,
    from_transformers,
    to_audiocraft,
    to_transformers,
)
from aural.text_to_audio.representation_regularization import (
    Pooling,
    RegularizationConfig,
    pool,
    representation_loss,
    similarities,
)
from aural.text_to_audio.schedule import average_decay, cosine_factor, dropping_draws, inverse_sqrt_factor
from aural.text_to_audio.text_encoder import make_t5, t5_states

RELATIVE = 1e-4
GRADIENT = 1e-3
FLOAT64 = 1e-10
POOLINGS: tuple[Pooling, ...] = ("max", "mean")


def check(folder: Path) -> set[str]:
    """Everything in a golden folder of the token language model."""
    io = Comparison.load(folder, "io")
    compare(io, *load(folder), read_json(folder / "config.json"))
    return io.finish()


def load(folder: Path) -> tuple[TokenLanguageModel, Any]:
    """The language model, by audiocraft's masking, and the text encoder; both layouts hold the same."""
    content = read_json(folder / "config.json")
    published = safetensors.torch.load_file(folder / "weights_audiocraft.safetensors")
    theirs = safetensors.torch.load_file(folder / "weights_hf.safetensors")
    weights = from_audiocraft(published)
    same(from_transformers(theirs), weights)
    same(to_audiocraft(weights), published)
    same(to_transformers(weights), {name: tensor for name, tensor in theirs.items() if not name.startswith(TEXT)})
    config = golden_config(content)
    assert inferred_config(weights, replace(config, width=4, layers=1, heads=1, ffn_dim=1, codebook_size=1)) == replace(
        config, heads=1
    )
    model, encoder = TokenLanguageModel(config), make_t5(config.t5)
    load_into(model, weights)
    text = {name.removeprefix(TEXT): tensor for name, tensor in theirs.items() if name.startswith(TEXT)}
    load_into(encoder, t5_weights(text))
    return model.eval(), encoder


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def golden_config(content: dict[str, Any]) -> GenerationConfig:
    """Our config from a golden one."""
    lm, regularised = content["lm"], content["rr"]
    assert lm["special_token"] == lm["card"] and lm["norm_eps"] == 1e-5 and lm["max_period"] == 10000
    assert lm["n_q"] == len(lm["delays"]) and not lm["dropout"]
    t5 = t5_config(content["t5"])
    assert content["t5"]["pad_token_id"] == 0 and content["t5"]["eos_token_id"] == 1
    return GenerationConfig(
        width=lm["dim"],
        layers=lm["num_layers"],
        heads=lm["num_heads"],
        ffn_dim=lm["dim"] * lm["hidden_scale"],
        codebook_size=lm["card"],
        delays=tuple(lm["delays"]),
        text_width=t5.width,
        t5=t5,
        cross_mask="none",
        frame_rate=content["generation"]["frame_rate"],
        regularization=RegularizationConfig(regularised["lam"], regularised["pool"], regularised["exponent"]),
    )


def compare(io: Comparison, model: TokenLanguageModel, encoder: Any, content: dict[str, Any]) -> None:
    """Everything in the file."""
    check_patterns(io, model.config)
    text_states, text = check_text(io, model, encoder)
    with torch.no_grad():
        check_states(io, model, text, content)
    check_losses(io, model, text_states, content["grad_norm_order"])
    check_codes(io, model, text, content["generation"])
    check_sampling(io)
    check_regularization(io)
    check_schedules(io)


def check_patterns(io: Comparison, config: GenerationConfig) -> None:
    codes = io.input("codes")
    for form in ("valid", "full"):
        sequence, mask = delay(codes, config.delays, config.special, full=form == "full")
        io.equal(f"pattern.{form}.sequence", sequence)
        io.equal(f"pattern.{form}.mask", mask)
    reverted, mask = undelay(sequence[:, :, 1:], config.delays, codes.shape[2])
    io.equal("pattern.full.reverted", reverted)
    io.equal("pattern.full.reverted_mask", mask)
    codes = io.input("stereo.codes")
    delays = usual_delays(codes.shape[1], stereo=True)
    sequence, mask = delay(codes, delays, config.special, full=True)
    io.equal("stereo.sequence", sequence)
    io.equal("stereo.mask", mask)
    torch.testing.assert_close(undelay(sequence[:, :, 1:], delays, codes.shape[2])[0], codes)


def check_text(io: Comparison, model: TokenLanguageModel, encoder: Any) -> tuple[Tensor, Text]:
    """States of the texts, and the memory."""
    mask = io.input("text_mask").bool()
    states = t5_states(encoder, io.input("text_ids"), mask)
    io.close("t5_states", states, relative_to_max=RELATIVE, where=mask)
    memory = model.condition(states, mask)
    io.close("cond_emb", memory, relative_to_max=RELATIVE)
    io.equal("cond_mask", mask)
    nothing = torch.zeros_like(mask[:, :1])
    io.close("null.cond_emb", model.condition(states[:, :1], nothing))
    io.equal("null.cond_mask", nothing)
    return states, Text(memory.detach(), mask)


def check_states(io: Comparison, model: TokenLanguageModel, text: Text, content: dict[str, Any]) -> None:
    """Forward passes over the valid form."""
    delays, codes = model.config.delays, io.input("codes")
    sequence, _ = delay(codes, delays, model.config.special)
    io.close("cond.transformer_out", model.transform(sequence, text.memory, text.mask), relative_to_max=RELATIVE)
    states = model(sequence, text.memory, text.mask)
    io.close("cond.u", states, relative_to_max=RELATIVE)
    told = model.logits(states)
    io.close("cond.seq_logits", told, relative_to_max=RELATIVE)
    predictions, mask = undelay(told[:, :, :-1], delays, codes.shape[2])
    io.close("cond.pred_logits", predictions, relative_to_max=RELATIVE)
    io.equal("pred.mask", mask.expand_as(codes))
    for memory in (None, model.condition(text.memory.new_zeros(*text.mask.shape, model.config.text_width),
                                         torch.zeros_like(text.mask))):  # fmt: skip
        states = model(sequence, memory)
        io.close("uncond.u", states, relative_to_max=RELATIVE)
        io.close("uncond.seq_logits", model.logits(states), relative_to_max=RELATIVE)
    untold = model.logits(states)
    scale = content["lm"]["cfg_coef"]
    io.close("cfg.seq_logits", untold + scale * (told - untold), relative_to_max=RELATIVE)
    masking = TokenLanguageModel(replace(model.config, cross_mask="mask")).eval()
    masking.load_state_dict(model.state_dict())
    io.close("hf.cond.seq_logits", masking.logits(masking(sequence, text.memory, text.mask)), relative_to_max=RELATIVE)


def check_losses(io: Comparison, model: TokenLanguageModel, text_states: Tensor, order: list[str]) -> None:
    """Losses with text, without it, with padding; the step that is regularised; gradients."""
    codes, mask = io.input("codes"), io.input("text_mask").bool()
    everyone = torch.ones(len(codes), dtype=torch.bool)
    config = model.config
    padded, frames = pad_codes(codes, io.input("pad.valid_len"), config.special), io.input("pad.valid_len")
    io.equal("pad.codes", padded)
    cases = {
        "cond": (None, None),
        "uncond": (everyone, None),
        "pad": (None, frames),
    }
    for case, (dropped, lengths) in cases.items():
        shown = mask if dropped is None else mask & ~dropped[:, None]
        memory = model.condition(text_states, shown)
        sequence, _ = delay(codes if lengths is None else padded, config.delays, config.special)
        with torch.no_grad():
            logits = model.logits(model(sequence, memory, shown))
        predictions, real = undelay(logits[:, :, :-1], config.delays, codes.shape[2])
        real = real.expand_as(codes)
        if lengths is not None:
            inside = lengths_to_mask(lengths, codes.shape[2])[:, None].expand_as(codes)
            io.equal("pad.mask", inside)
            real = real & inside
        io.close(f"{case}.ce_per_codebook", codebook_losses(predictions, codes, real), relative_to_max=RELATIVE)
        losses = model.losses(codes, text_states, mask, dropped=dropped, frames=lengths)
        io.close(f"{case}.ce", losses["cross_entropy"], relative_to_max=RELATIVE)
        if case == "cond":
            assert losses["representation_regularization"] == 0
            check_gradients(io, model, losses["cross_entropy"], "cond_ce", order)

    losses = model.losses(codes, text_states, mask, dropped=everyone)
    total = sum(losses[name] * weight for name, weight in model.loss_weights.items())
    assert isinstance(total, Tensor)
    io.close("step.ce", losses["cross_entropy"], relative_to_max=RELATIVE)
    io.close("step.total", total, relative_to_max=RELATIVE)
    check_gradients(io, model, total, "step", order)
    with torch.no_grad():
        states = model(delay(codes, config.delays, config.special)[0])
    for pooling in POOLINGS:
        loss = representation_loss(text_states, states, mask, pooling=pooling)
        io.close(f"step.rr_{pooling}", loss, relative_to_max=GRADIENT)
    io.close("step.text_sim", similarities(pool(text_states, mask)), relative_to_max=RELATIVE)
    io.close("step.audio_sim", similarities(pool(states)), relative_to_max=RELATIVE)


def check_gradients(io: Comparison, model: TokenLanguageModel, loss: Tensor, case: str, order: list[str]) -> None:
    """Gradients of the whole model and, as one tensor, their norms in the order of published names."""
    model.zero_grad()
    loss.backward()
    gradients = to_audiocraft(
        {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
    )
    assert set(gradients) == set(order)
    for name in io.names(f"grad.{case}."):
        io.close(name, gradients[name.removeprefix(f"grad.{case}.")], relative_to_max=GRADIENT)
    norms = torch.stack([gradients[name].norm() for name in order])
    io.close(f"grad_norm.{case}", norms, relative_to_max=GRADIENT)
    model.zero_grad()


def check_codes(io: Comparison, model: TokenLanguageModel, text: Text, settings: dict[str, Any]) -> None:
    """Greedy generation, in both maskings, alone and in company, continued and in windows."""
    frames, seeds, prompt = settings["frames"], range(len(text.memory)), io.input("gen.prompt")
    greedy = DecodingConfig(guidance=settings["cfg_coef"], temperature=0.0)
    theirs = replace(greedy, cross_mask="none")
    alone, nothing = single(text), Text(torch.zeros_like(text.memory[:1, :1]), torch.zeros_like(text.mask[:1, :1]))

    def codes(n_frames: int = frames, config: DecodingConfig = theirs, **others: Any) -> Tensor:
        return generate(model, text, n_frames, config, seeds=seeds, **others)

    io.equal("gen.greedy", codes())
    io.equal("gen.greedy_two_step", codes(negative=nothing))
    io.equal("gen.greedy_nocfg_scale1", codes(config=replace(theirs, guidance=1.0)))
    io.equal("gen.greedy_continue", codes(prompt=prompt))
    io.equal("gen.greedy_single", generate(model, alone, frames, theirs))
    io.equal("hf.gen.greedy", codes(config=greedy))
    io.equal("hf.gen.greedy_single", generate(model, alone, frames, greedy))
    n_without = len(io.input("gen.greedy_uncond"))
    io.equal("gen.greedy_uncond", generate(model, None, frames, theirs, seeds=range(n_without)))
    rate, window, stride, total = io.input("window.params").tolist()
    assert rate == settings["frame_rate"]
    in_windows = replace(theirs, window=window, stride=stride)
    io.equal("window.greedy", codes(total, in_windows))
    io.equal("window.greedy_prompt", codes(total, in_windows, prompt=prompt))


def single(text: Text) -> Text:
    """The first text alone, without padding."""
    length = int(text.mask[0].sum())
    return Text(text.memory[:1, :length], text.mask[:1, :length])


def check_sampling(io: Comparison) -> None:
    temperature, k, p = io.input("sample.params").tolist()
    logits = io.input("sample.logits")
    rules = {"topk": DecodingConfig(temperature=temperature, top_k=int(k))}
    rules["topp"] = DecodingConfig(temperature=temperature, top_k=int(k), top_p=p)
    for name, config in rules.items():
        kept = allowed(logits.flatten(0, -2), config).softmax(dim=1).view_as(logits)
        io.close(f"sample.{name}_probs", kept, relative_to_max=RELATIVE)


def check_regularization(io: Comparison) -> None:
    """The regulariser by itself, in float64; gradients where they are stored."""
    for name in sorted({name.split(".")[1] for name in io.names("rr.")}):
        start = f"rr.{name}"
        text, audio = (io.input(f"{start}.{side}").clone().requires_grad_() for side in ("text", "audio"))
        masks = [io.input(f"{start}.{side}_mask").bool() for side in ("text", "audio")]
        for pooling in POOLINGS:
            text.grad = audio.grad = None
            for side, states, mask in zip(("text", "audio"), (text, audio), masks, strict=True):
                vectors = pool(states, mask, pooling)
                io.close(f"{start}.{pooling}.{side}_vec", vectors, relative_to_max=FLOAT64)
                io.close(f"{start}.{pooling}.{side}_sim", similarities(vectors), relative_to_max=FLOAT64)
            loss = representation_loss(text, audio, *masks, pooling=pooling)
            loss.backward()
            assert text.grad is not None and audio.grad is not None
            io.close(f"{start}.{pooling}.loss", loss, relative_to_max=FLOAT64)
            io.close(f"{start}.{pooling}.grad_text", text.grad, relative_to_max=FLOAT64)
            io.close(f"{start}.{pooling}.grad_audio", audio.grad, relative_to_max=FLOAT64)
            loss = representation_loss(text, audio, *masks, pooling=pooling, exponent=1.0)
            io.close(f"{start}.{pooling}.loss_abs", loss, relative_to_max=FLOAT64)
            if f"{start}.{pooling}.subset_loss" in io:
                keep = io.input(f"{start}.subset_keep").bool()
                loss = representation_loss(text, audio, *masks, pooling=pooling, keep=keep)
                io.close(f"{start}.{pooling}.subset_loss", loss, relative_to_max=FLOAT64)


def check_schedules(io: Comparison) -> None:
    steps = io.input("sched.steps").tolist()
    for name, factor in (("cosine", cosine_factor), ("inverse_sqrt", inverse_sqrt_factor)):
        factors = torch.tensor([factor(step) for step in steps], dtype=torch.float64)
        io.close(f"sched.{name}", factors, absolute=FLOAT64)
    average, averages = io.input("ema.init").clone(), []
    for updates, weights in enumerate(io.input("ema.inputs")):
        average = average.lerp(weights, 1 - average_decay(0.99, updates))
        averages.append(average)
    io.close("ema.outputs", torch.stack(averages), absolute=FLOAT64)
    draws = io.input("cfg_dropout.draws")
    io.close("cfg_dropout.draws", dropping_draws(len(draws)))
