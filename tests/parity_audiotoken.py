"""AudioToken against the original code; names as in the README of ``shared/golden/audiotoken``.

The frozen diffusion model of the goldens is one of the diffusers library, which the tests do without: below is as much
of its U-Net as functions of a state dict, and of its schedulers, as those of Stable Diffusion 1.x and 2.x need.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from parity import Comparison, read_json
from torch import Tensor

from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.audio_to_image.convert import inferred_config, our_name, our_weights
from aural.audio_to_image.injection import prompt_states, token_width
from aural.audio_to_image.losses import (
    LossConfig,
    add_noise,
    diffusion_target,
    draw_latents,
    label_embeddings,
    loss_weights,
    losses,
    signal_levels,
)
from aural.checkpoint import load_into

CLOSE = {"absolute": 2e-5, "relative": 1e-4}
PREDICTION = {"absolute": 1e-4, "relative": 1e-4}
GRADIENT = {"relative_to_max": 2e-4}
SAMPLED = {"relative_to_max": 1e-4}
TEXT, UNET = "text_encoder.", "unet."
Weights = dict[str, Tensor]
Net = Callable[[Tensor, Tensor, Tensor], Tensor]


def check(folder: Path) -> set[str]:
    """Everything in a golden folder of AudioToken."""
    io = Comparison.load(folder, "io")
    content = read_json(folder / "config.json")
    compare(io, *models(safetensors.torch.load_file(folder / "weights.safetensors"), content), content)
    return io.finish()


def models(weights: Weights, content: dict[str, Any]) -> tuple[AudioToken, Any, Net]:
    """The bridge, the text encoder and the U-Net, the latter two frozen."""
    released = {name: tensor for name, tensor in weights.items() if not name.startswith((TEXT, UNET))}
    sizes = content["embedder"]
    published = AudioTokenConfig(layers=tuple(content["beats_layers"]), dropout=sizes["unary_dropout_p"])
    config = inferred_config(released, published)
    assert (config.feature_width, config.token_width) == (sizes["input_size"], sizes["output_size"])
    bridge = AudioToken(config)
    load_into(bridge, our_weights(released))
    text = {name.removeprefix(TEXT): tensor for name, tensor in weights.items() if name.startswith(TEXT)}
    encoder = make_text_encoder(content["text_encoder"])
    load_into(encoder, {name.removeprefix("text_model."): tensor for name, tensor in text.items()})
    assert token_width(encoder) == config.token_width
    unet = {name.removeprefix(UNET): tensor for name, tensor in weights.items() if name.startswith(UNET)}
    return bridge.eval(), encoder, partial(predict, unet, content["unet"])


def make_text_encoder(settings: dict[str, Any]) -> Any:
    """CLIP's, with random weights, frozen."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**settings)).requires_grad_(False).eval()


def compare(io: Comparison, bridge: AudioToken, encoder: Any, net: Net, content: dict[str, Any]) -> None:
    """Everything in the file."""
    features = torch.cat([io.input(f"features.layer{layer}") for layer in bridge.config.layers], dim=2)
    io.close("features.concat", features)
    check_pooling(io, bridge, features)
    embedding = bridge(features)
    io.close("audio_token", embedding, **CLOSE)
    check_losses(io, bridge, embedding, encoder, net, content)
    with torch.no_grad():
        check_inference(io, embedding, encoder, net, content)


def check_pooling(io: Comparison, bridge: AudioToken, features: Tensor) -> None:
    tokens = bridge.tokens(features)
    io.close("embedder.tokens", tokens, **CLOSE)
    pooled = bridge.pooling(tokens)
    io.close("embedder.unary_potential", pooled.local_potential, **CLOSE)
    io.close("embedder.self_potential", pooled.self_potential, **CLOSE)
    io.close("embedder.logits", pooled.logits, **CLOSE)
    io.close("embedder.attention", pooled.attention, **CLOSE)
    dropped = bridge.pooling(tokens, dropout_factors=io.input("embedder.dropout_mask").transpose(1, 2))
    io.close("audio_token_dropout", dropped.embedding, **CLOSE)


def check_losses(
    io: Comparison, bridge: AudioToken, embedding: Tensor, encoder: Any, net: Net, content: dict[str, Any]
) -> None:
    """From prompt and picture to the gradients of both totals, through the frozen networks."""
    slot_id, settings = content["placeholder_token_id"], content["text_encoder"]
    prompt = content["prompt_token_ids"]
    padding = [settings["pad_token_id"]] * (settings["max_position_embeddings"] - len(prompt))
    token_ids = torch.tensor([prompt + padding] * len(embedding))
    io.equal("input_ids", token_ids)
    states = prompt_states(encoder, token_ids, slot_id, embedding)
    io.close("text_hidden_states", states, **CLOSE)

    latents = draw_latents(io.input("vae_moments"), io.input("vae_eps"), content["vae_scaling_factor"])
    io.close("latents", latents, **CLOSE)
    noise, timesteps = io.input("noise"), io.input("timesteps")
    levels = schedule(content["scheduler"])[timesteps]
    noisy = add_noise(latents, noise, levels)
    io.close("noisy_latents", noisy, **CLOSE)
    predicted = net(noisy, timesteps, states)
    io.close("model_pred", predicted, **PREDICTION)
    target = diffusion_target(latents, noise, levels, content["scheduler"]["prediction_type"])
    io.close("target", target, **CLOSE)

    label_ids = io.input("label_ids")
    labels = label_embeddings(encoder.get_input_embeddings().weight, label_ids, label_ids >= 0)
    io.close("label_embeddings", labels, **CLOSE)
    io.close("label_cosine", F.cosine_similarity(embedding, labels), **CLOSE)
    terms = losses(predicted, target, embedding, labels)
    theirs = {"diffusion": "ldm", "l1": "l1_mean", "squared_l2": "l2_mean", "classification": "cls"}
    for name, term in terms.items():
        io.close(f"loss.{theirs[name]}", term, **CLOSE)
    weights = LossConfig(*(content["loss"][f"lambda_{letter}"] for letter in "abc"))
    for case, with_labels in {"total": False, "total_cls": True}.items():
        total = torch.stack([terms[name] * w for name, w in loss_weights(weights, labels=with_labels).items()]).sum()
        io.close(f"loss.{case}", total, **CLOSE)
        bridge.zero_grad()
        total.backward(retain_graph=True)
        for name in io.names(f"grad_{case}."):
            ours = our_name(name.removeprefix(f"grad_{case}."))
            assert ours is not None, name
            gradient = bridge.get_parameter(ours).grad
            assert gradient is not None, name
            if ".fga." in name and gradient.dim() == 2:  # theirs are convolutions: (out, in, 1)
                gradient = gradient.unsqueeze(2)
            io.close(name, gradient, **GRADIENT)


def check_inference(io: Comparison, embedding: Tensor, encoder: Any, net: Net, content: dict[str, Any]) -> None:
    """Guided sampling by two schedulers."""
    settings = content["inference"]
    one = embedding[settings["sample_index"]][None]
    states = prompt_states(encoder, io.input("infer.input_ids"), content["placeholder_token_id"], one)
    io.close("infer.text_hidden_states", states, **CLOSE)
    start, n_steps = io.input("infer.latents_init"), settings["num_inference_steps"]

    def branches(latents: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        without, told = net(latents.expand(2, -1, -1, -1), torch.tensor([timestep] * 2), states).chunk(2)
        return without, told

    def guided(latents: Tensor, timestep: int) -> Tensor:
        without, told = branches(latents, timestep)
        return without + settings["guidance_scale"] * (told - without)

    for name, sample in {"pndm": pndm, "ddim": ddim}.items():
        path = list(sample(guided, start, n_steps, content["scheduler"], settings[name]))
        steps = [timestep for timestep, _ in path]
        io.equal(f"infer.{name}.timesteps", torch.tensor(steps))
        io.close(f"infer.{name}.latents_after_1", path[0][1], **SAMPLED)
        io.close(f"infer.{name}.latents_final", path[-1][1], **SAMPLED)
        if name == "pndm":
            without, told = branches(start, steps[0])
            io.close("infer.step0_uncond", without, **PREDICTION)
            io.close("infer.step0_cond", told, **PREDICTION)
            io.close("infer.step0_guided", guided(start, steps[0]), **PREDICTION)


# ----------------------------------------------------------------------------------------------------------- schedulers


def schedule(settings: dict[str, Any]) -> Tensor:
    """The signal levels of a scheduler's settings."""
    assert settings["beta_schedule"] == "scaled_linear"
    return signal_levels(settings["num_train_timesteps"], settings["beta_start"], settings["beta_end"])


def visited(n_steps: int, settings: dict[str, Any], own: dict[str, Any]) -> tuple[list[int], int]:
    """Timesteps, the first to visit first, and how far they lie apart."""
    apart = settings["num_train_timesteps"] // n_steps
    return [step * apart + own["steps_offset"] for step in reversed(range(n_steps))], apart


def level_at(levels: Tensor, timestep: int, own: dict[str, Any]) -> Tensor:
    if timestep >= 0:
        return levels[timestep]
    return torch.tensor(1.0) if own["set_alpha_to_one"] else levels[0]


def as_noise(predicted: Tensor, latents: Tensor, level: Tensor, settings: dict[str, Any]) -> Tensor:
    """The noise in what was foretold."""
    if settings["prediction_type"] == "epsilon":
        return predicted
    return level.sqrt() * predicted + (1 - level).sqrt() * latents


Guided = Callable[[Tensor, int], Tensor]


def ddim(
    guided: Guided, latents: Tensor, n_steps: int, settings: dict[str, Any], own: dict[str, Any]
) -> Iterator[tuple[int, Tensor]]:
    """Song et al., arXiv 2010.02502, equation 12 without fresh noise: each timestep, and the latents after it."""
    assert own["eta"] == 0 and not own["clip_sample"]
    levels = schedule(settings)
    timesteps, apart = visited(n_steps, settings, own)
    for timestep in timesteps:
        here, there = levels[timestep], level_at(levels, timestep - apart, own)
        predicted = guided(latents, timestep)
        if settings["prediction_type"] == "epsilon":
            clean = (latents - (1 - here).sqrt() * predicted) / here.sqrt()
        else:
            clean = here.sqrt() * latents - (1 - here).sqrt() * predicted
        noise = as_noise(predicted, latents, here, settings)
        latents = there.sqrt() * clean + (1 - there).sqrt() * noise
        yield timestep, latents


def pndm(
    guided: Guided, latents: Tensor, n_steps: int, settings: dict[str, Any], own: dict[str, Any]
) -> Iterator[tuple[int, Tensor]]:
    """Liu et al., arXiv 2202.09778, without its Runge-Kutta start: the first step is made twice, by Heun's method."""
    assert own["skip_prk_steps"]
    levels = schedule(settings)
    timesteps, apart = visited(n_steps, settings, own)
    multistep = {2: (3, -1), 3: (23, -16, 5), 4: (55, -59, 37, -9)}  # Adams-Bashforth; the newest first
    history: list[Tensor] = []
    start = latents

    def move(latents: Tensor, predicted: Tensor, timestep: int) -> Tensor:
        """Equation 11: from a timestep to the next."""
        here, there = levels[timestep], level_at(levels, timestep - apart, own)
        noise = as_noise(predicted, latents, here, settings)
        denominator = here * (1 - there).sqrt() + (here * (1 - here) * there).sqrt()
        return (there / here).sqrt() * latents - (there - here) * noise / denominator

    for number, timestep in enumerate([*timesteps[:2], *timesteps[1:]]):
        predicted = guided(latents, timestep)
        if number == 1:
            latents = move(start, (predicted + history[0]) / 2, timesteps[0])
        else:
            history = [predicted, *history[:3]]
            weights = multistep.get(len(history), (1,))
            mixed = torch.stack([w * each for w, each in zip(weights, history, strict=True)]).sum(dim=0) / sum(weights)
            latents = move(latents, mixed, timestep)
        yield timestep, latents


# ---------------------------------------------------------------------------------------------------------------- U-Net


def predict(weights: Weights, settings: dict[str, Any], latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
    """The U-Net of latent diffusion (Rombach et al., arXiv 2112.10752), by the names and settings of diffusers.

    Args:
        weights: its state dict.
        settings: its config; ``attention_head_dim`` is the number of heads, of all blocks or of each.
        latents: (B, C, H, W)
        timesteps: (B,)
        states: (B, L, D) of the text encoder.
    """
    n_blocks = len(settings["block_out_channels"])
    heads = settings.get("num_attention_heads") or settings["attention_head_dim"]
    heads = [heads] * n_blocks if isinstance(heads, int) else heads
    layer = partial(block_layer, weights, settings, time_vector(weights, settings, timesteps), states)

    x = convolve(weights, "conv_in", latents)
    kept = [x]
    for block in range(n_blocks):
        for number in range(count(weights, f"down_blocks.{block}.resnets.")):
            x = layer(f"down_blocks.{block}", number, heads[block], x)
            kept.append(x)
        if f"down_blocks.{block}.downsamplers.0.conv.weight" in weights:
            x = convolve(weights, f"down_blocks.{block}.downsamplers.0.conv", x, stride=2)
            kept.append(x)
    for number in range(count(weights, "mid_block.resnets.")):
        x = layer("mid_block", number, heads[-1], x, attention=number - 1)
    for block in range(n_blocks):
        for number in range(count(weights, f"up_blocks.{block}.resnets.")):
            x = layer(f"up_blocks.{block}", number, heads[-1 - block], torch.cat((x, kept.pop()), dim=1))
        if f"up_blocks.{block}.upsamplers.0.conv.weight" in weights:
            x = F.interpolate(x, size=kept[-1].shape[2:], mode="nearest")
            x = convolve(weights, f"up_blocks.{block}.upsamplers.0.conv", x)
    return convolve(weights, "conv_out", F.silu(group_norm(weights, settings, "conv_norm_out", x)))


def time_vector(weights: Weights, settings: dict[str, Any], timesteps: Tensor) -> Tensor:
    half = settings["block_out_channels"][0] // 2
    angles = timesteps[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    waves = torch.cat((angles.cos(), angles.sin()), dim=1)
    return linear(weights, "time_embedding.linear_2", F.silu(linear(weights, "time_embedding.linear_1", waves)))


def block_layer(
    weights: Weights,
    settings: dict[str, Any],
    time: Tensor,
    states: Tensor,
    block: str,
    number: int,
    heads: int,
    x: Tensor,
    attention: int | None = None,
) -> Tensor:
    """A residual block, and the transformer that belongs to it, if any; in the middle a transformer comes first."""
    attention = number if attention is None else attention
    transformer = f"{block}.attentions.{attention}"
    residual = partial(residual_block, weights, settings, f"{block}.resnets.{number}", time)
    if f"{transformer}.norm.weight" not in weights:
        return residual(x)
    attend = partial(spatial_transformer, weights, settings, transformer, heads, states)
    return residual(attend(x)) if block == "mid_block" else attend(residual(x))


def residual_block(weights: Weights, settings: dict[str, Any], name: str, time: Tensor, x: Tensor) -> Tensor:
    hidden = convolve(weights, f"{name}.conv1", F.silu(group_norm(weights, settings, f"{name}.norm1", x)))
    hidden = hidden + linear(weights, f"{name}.time_emb_proj", F.silu(time))[:, :, None, None]
    hidden = convolve(weights, f"{name}.conv2", F.silu(group_norm(weights, settings, f"{name}.norm2", hidden)))
    return hidden + (convolve(weights, f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in weights else x)


def spatial_transformer(
    weights: Weights, settings: dict[str, Any], name: str, heads: int, states: Tensor, x: Tensor
) -> Tensor:
    def project(side: str, rows: Tensor) -> Tensor:  # a linear layer, or a convolution over one place: the same
        return F.linear(rows, weights[f"{name}.{side}.weight"].flatten(1), weights[f"{name}.{side}.bias"])

    rows = project("proj_in", group_norm(weights, settings, f"{name}.norm", x, 1e-6).flatten(2).transpose(1, 2))
    for number in range(count(weights, f"{name}.transformer_blocks.")):
        block = f"{name}.transformer_blocks.{number}"
        normed = layer_norm(weights, f"{block}.norm1", rows)
        rows = rows + attention(weights, f"{block}.attn1", heads, normed, normed)
        rows = rows + attention(weights, f"{block}.attn2", heads, layer_norm(weights, f"{block}.norm2", rows), states)
        inner = linear(weights, f"{block}.ff.net.0.proj", layer_norm(weights, f"{block}.norm3", rows))
        value, gate = inner.chunk(2, dim=2)
        rows = rows + linear(weights, f"{block}.ff.net.2", value * F.gelu(gate))
    return x + project("proj_out", rows).transpose(1, 2).unflatten(2, x.shape[2:])


def attention(weights: Weights, name: str, heads: int, rows: Tensor, memory: Tensor) -> Tensor:
    query, key, value = (
        linear(weights, f"{name}.{part}", source).unflatten(2, (heads, -1)).transpose(1, 2)
        for part, source in (("to_q", rows), ("to_k", memory), ("to_v", memory))
    )
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return linear(weights, f"{name}.to_out.0", attended)


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def convolve(weights: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return F.conv2d(x, kernel, weights[f"{name}.bias"], stride, padding=kernel.shape[-1] // 2)


def group_norm(
    weights: Weights, settings: dict[str, Any], name: str, x: Tensor, epsilon: float | None = None
) -> Tensor:
    epsilon = settings.get("norm_eps", 1e-5) if epsilon is None else epsilon
    return F.group_norm(x, settings["norm_num_groups"], weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon)


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def count(weights: Weights, prefix: str) -> int:
    """How many numbers follow ``prefix`` in names."""
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
