"""Pengi against the original code: every tensor of both variants and of the front end; names as in their README."""

import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from parity import Comparison, read_json
from parity_htsat import compare as compare_htsat, golden_config as htsat_config
from torch import Tensor

from aural.answering.convert import inferred_config, our_name, our_weights
from aural.answering.decoding import beam, greedy
from aural.answering.model import AnsweringConfig, AudioLanguageModel, ClipTextConfig, Gpt2Config
from aural.answering.tokenizer import STOP, Tokenizers, find_clip, find_gpt2, stop_token_id
from aural.answering.waveform import windows
from aural.beam_search import Hypothesis
from aural.checkpoint import load_into
from aural.networks.htsat import Htsat, HtsatConfig, fold, official_constants, stretch

LOG_MEL = 1e-3
RELATIVE = 1e-4
SCORES = 1e-4
WAVEFORM = 1e-5


def check(folder: Path) -> set[str]:
    """Everything in a golden folder of Pengi: ``base``, the variant without a text tower, the front end."""
    used: set[str] = set()
    for place, file in ((folder, "io"), (folder / "no_text_enc", "no_text_enc/io")):
        if (place / "config.json").is_file():
            io = Comparison.load(folder, file)
            compare(io, *load(place, folder), read_json(place / "config.json"))
            used |= io.finish()
    if (folder / "frontend.json").is_file():
        frontend = Comparison.load(folder, "frontend")
        compare_frontend(frontend, read_json(folder / "frontend.json"))
        used |= frontend.finish()
    return used


def load(place: Path, tokenizers: Path) -> tuple[AudioLanguageModel, Tokenizers]:
    """The model of a variant, and its tokenizers out of another folder."""
    config = golden_config(read_json(place / "config.json"))
    weights = safetensors.torch.load_file(place / "weights.safetensors")
    assert inferred_config(weights, config) == config
    with torch.device("meta"):
        model = AudioLanguageModel(config)
    load_into(model, our_weights(weights, config))
    clip = None if config.text_encoder is None else find_clip(tokenizers / "tokenizer_clip-text")
    return model.eval(), Tokenizers(config, find_gpt2(tokenizers / "tokenizer_gpt2"), clip)


def golden_config(content: dict[str, Any]) -> AnsweringConfig:
    """Our config from a golden one."""
    clip, gpt2 = content["clip_text"], content["gpt2"]
    assert content["normalize_prefix"] and content["mapping_type"] == "transformer"
    assert gpt2["activation_function"] == "gelu_new" and gpt2["layer_norm_epsilon"] == 1e-5
    assert clip is None or clip["hidden_act"] == "quick_gelu"
    return AnsweringConfig(
        htsat=htsat_config(content),
        seconds=float(content["duration"]),
        text_encoder=clip
        and ClipTextConfig(
            vocab_size=clip["vocab_size"],
            width=clip["hidden_size"],
            layers=clip["num_hidden_layers"],
            heads=clip["num_attention_heads"],
            ffn_dim=clip["intermediate_size"],
            projection_dim=clip["projection_dim"],
            max_positions=clip["max_position_embeddings"],
            end_token_id=clip["eos_token_id"],
        ),
        gpt2=Gpt2Config(
            vocab_size=gpt2["vocab_size"],
            width=gpt2["n_embd"],
            layers=gpt2["n_layer"],
            heads=gpt2["n_head"],
            max_positions=gpt2["n_positions"],
        ),
        joint_width=content["d_proj"],
        prefix_length=content["prefix_length"],
        vector_rows=content["prefix_length_clip"],
        mapper_layers=content["mapper_layers_each"],
        mapper_heads=content["mapper_heads"],
        mapper_mlp_ratio=content["mapper_mlp_ratio"],
        prompt_length=content["enc_text_len"],
        pad_token_id=content["pad_token_id"],
        stop_token_id=content["stop_token_index"],
    )


def compare(io: Comparison, model: AudioLanguageModel, tokenizers: Tokenizers, content: dict[str, Any]) -> None:
    """Everything in the file of one variant."""
    compare_htsat(io, model.audio_encoder, model.config.n_samples)
    check_words(io, model, tokenizers, content)
    waveform = check_sounds(io, model)
    with torch.no_grad():
        prefixes = check_prefixes(io, model, waveform)
        check_answers(io, model, prefixes, content)
    check_losses(io, model, waveform)


def check_words(io: Comparison, model: AudioLanguageModel, tokenizers: Tokenizers, content: dict[str, Any]) -> None:
    config, prompts = model.config, content["prompts"]
    ids = tokenizers.prompts(prompts)
    io.equal("enc_input_ids", ids)
    if config.text_encoder is not None:
        ends = (ids == config.text_encoder.end_token_id).long()
        io.equal("enc_attention_mask", ends.cumsum(dim=1) == ends)  # up to the first of them
    else:
        lengths = torch.tensor([len(tokenizers.ids(prompt + STOP)) for prompt in prompts])
        io.equal("enc_attention_mask", torch.arange(config.prompt_length) < lengths[:, None])
    io.equal("add_ids", torch.tensor(tokenizers.ids(content["add_text"])))
    assert content["stop_token"] == STOP and stop_token_id(tokenizers.gpt2) == config.stop_token_id


def check_sounds(io: Comparison, model: AudioLanguageModel) -> Tensor:
    """The waveforms (B, N), short ones repeated."""
    rate, seconds = model.config.htsat.sample_rate, model.config.seconds
    heard = []
    for number, name in enumerate(io.names("wave")):
        sound = io.input(name)
        ours, released = (next(windows((sound, rate), rate, seconds, released=released)) for released in (False, True))
        torch.testing.assert_close(ours.waveform, released.waveform, rtol=0.0, atol=0.0)
        heard.append(torch.from_numpy(ours.waveform))
        if f"audio_item{number}" in io:
            io.close(f"audio_item{number}", heard[-1])
    return torch.stack(heard)


def check_prefixes(io: Comparison, model: AudioLanguageModel, waveform: Tensor) -> dict[str, Tensor]:
    """The audio side and the text side, and the prefix of both kinds."""
    encoded = model.encode_audio(waveform)
    io.close("audio_embed_raw", model.audio_projection(encoded), relative_to_max=RELATIVE)
    embedding = model.embed_audio(waveform)
    io.close("audio_embed_normalized", embedding, relative_to_max=RELATIVE)
    io.close("audio_prefix", model.audio_prefix(embedding), relative_to_max=RELATIVE)

    prompt_ids = io.input("enc_input_ids")
    if model.text_encoder is not None:
        pooled = model.text_encoder.text_model(input_ids=prompt_ids).pooler_output
        io.close("text.pooled", pooled, relative_to_max=RELATIVE)
        io.close("text.clip_projected", model.text_encoder.text_projection(pooled), relative_to_max=RELATIVE)
    io.close("prompt_embed_raw", model.embed_prompt(prompt_ids), relative_to_max=RELATIVE)
    half = model.prompt_prefix(prompt_ids, normalize_prompt=False)
    io.close("prompt_prefix_wrapper", half, relative_to_max=RELATIVE)
    prefixes = {
        "prefix_wrapper": model.prefix(embedding, prompt_ids, normalize_prompt=False),
        "prefix_model": model.prefix(embedding, prompt_ids),
    }
    for name, prefix in prefixes.items():
        io.close(name, prefix, relative_to_max=RELATIVE)
    return prefixes


def check_answers(
    io: Comparison, model: AudioLanguageModel, prefixes: dict[str, Tensor], content: dict[str, Any]
) -> None:
    """Beam search, all items of a case at once."""
    for case in content["generate"]:
        name, max_tokens, beams = case["tag"], case["max_len"], case["beam_size"]
        prefix = case_prefix(io, model, prefixes, case.get("prefix", "prefix_wrapper[i]"))
        found = beam(model, prefix, beams=beams, max_tokens=max_tokens, temperature=case["temperature"])
        tokens = [
            [[*answer.token_ids, *[-1] * (max_tokens - len(answer.token_ids))] for answer in own] for own in found
        ]
        scores = torch.tensor([[answer.score for answer in own] for own in found])
        io.equal(f"{name}.tokens", torch.tensor(tokens))
        io.equal(f"{name}.lengths", torch.tensor([[len(answer.token_ids) for answer in own] for own in found]))
        io.close(f"{name}.scores", scores, absolute=SCORES)
        io.close(f"{name}.scores_raw", scores, absolute=SCORES)
        if beams == 1:
            assert token_ids(greedy(model, prefix, max_tokens=max_tokens)) == [own[0].token_ids for own in found]


def token_ids(answers: list[Hypothesis]) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


def case_prefix(io: Comparison, model: AudioLanguageModel, prefixes: dict[str, Tensor], wanted: str) -> Tensor:
    """What a case of ``config.json`` starts from, such as ``prefix_wrapper[0] + wte(add_ids)``."""
    parts = re.fullmatch(r"(prefix_\w+)\[(i|\d+)\]( \+ wte\(add_ids\))?", wanted)
    assert parts is not None, wanted
    prefix = prefixes[parts[1]]
    if parts[2] != "i":
        prefix = prefix[int(parts[2]) : int(parts[2]) + 1]
    if parts[3]:
        added = model.gpt2.transformer.wte(io.input("add_ids"))
        prefix = torch.cat((prefix, added.expand(len(prefix), -1, -1)), dim=1)
    return prefix


def check_losses(io: Comparison, model: AudioLanguageModel, waveform: Tensor) -> None:
    """Logits, losses, and gradients of the whole model, from the waveforms on."""
    prompt_ids, targets = io.input("enc_input_ids"), io.input("label_ids")
    with torch.no_grad():
        prefix = model.prefix(model.embed_audio(waveform), prompt_ids)
        logits = model.gpt2.lm_head(model.states(prefix, targets))
    io.close("logits", logits, relative_to_max=RELATIVE)
    predicting = logits[:, prefix.shape[1] - 1 : -1].flatten(0, 1)
    io.close("loss_all_tokens", F.cross_entropy(predicting, targets.flatten())[None], relative_to_max=RELATIVE)

    model.zero_grad()
    loss = model(waveform, prompt_ids, targets)["cross_entropy"]
    io.close("loss_ignore_pad", loss[None], relative_to_max=RELATIVE)
    loss.backward()
    for name in io.names("grad."):
        ours = our_name(name.removeprefix("grad."))
        assert ours is not None, name
        gradient = model.get_parameter(ours).grad
        assert gradient is not None, name
        io.close(name, gradient, relative_to_max=RELATIVE)


# ----------------------------------------------------------------------------------------------------------- front end


def compare_frontend(io: Comparison, content: dict[str, Any]) -> None:
    """Front end and sound loading at the real sizes; a file may hold either."""
    if "wave_int16" in io:
        compare_picture(io, content)
    for case, settings in content["preprocess"].items():
        compare_loading(io, f"pre.{case}", settings)


def compare_picture(io: Comparison, content: dict[str, Any]) -> None:
    frontend, image = content["frontend"], content["image"]
    config = HtsatConfig(
        sample_rate=frontend["audio_sample_rate"],
        filter_rate=frontend["sample_rate_for_mel"],
        n_fft=frontend["n_fft"],
        hop_length=frontend["hop"],
        mel_bins=frontend["mel_bins"],
        low_hz=frontend["fmin"],
        high_hz=frontend["fmax"],
        spec_size=image["spec_size"],
        embed_dim=1,
        depths=(1,),
        num_heads=(1,),
        num_classes=0,
    )
    model = Htsat(config).eval()
    io.close("melW", model.logmel_extractor.melW, absolute=1e-7)
    model.bn0.load_state_dict(
        {name: io.input(f"bn0.{name}") for name in ("weight", "bias", "running_mean", "running_var")}, strict=False
    )
    waveform = io.input("wave_int16").float()[None] / 2**15
    with torch.no_grad():
        io.close("logmel", model.log_mel(waveform)[0], absolute=LOG_MEL)
        fbank, _ = model.fbank(waveform)
        picture = fold(stretch(fbank, config.target_frames), config.spec_size)[0]
    io.close("img", picture, relative_to_max=RELATIVE)
    assert config.target_frames == image["target_frames"] and config.strips == image["freq_ratio"]
    constants = official_constants(config)
    for name in io.names("dft_"):
        part, bins = re.fullmatch(r"dft_(real|imag)_rows_([\d_]+)", name).groups()  # type: ignore[union-attr]
        rows = constants[f"spectrogram_extractor.stft.conv_{part}.weight"][[int(row) for row in bins.split("_")], 0]
        io.close(name, rows, relative_to_max=RELATIVE)


def compare_loading(io: Comparison, name: str, settings: dict[str, Any]) -> None:
    """One sound, as the original hears it."""
    sound, seed = (io.input(f"{name}.in_int16"), settings["in_rate"]), settings.get("python_random_seed", 0)
    (window,) = windows(sound, settings["out_rate"], settings["duration_s"], released=True, seed=seed)
    heard = torch.from_numpy(window.waveform)
    if f"{name}.out" in io:
        io.close(f"{name}.out", heard, absolute=WAVEFORM)
    else:
        start = settings["crop_start"]
        torch.testing.assert_close(heard, sound[0][0, start : start + len(heard)] / 2**15, rtol=0.0, atol=0.0)
