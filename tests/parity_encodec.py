"""EnCodec against golden tensors of the original code; tolerances and names as in ``golden/encodec/README.md``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison, read_json
from torch import Tensor

from aural.checkpoint import load_into
from aural.codec import losses
from aural.codec.convert import inferred_config, our_name, our_weights
from aural.networks import stft_discriminator
from aural.networks.encodec import Encodec, EncodecConfig, add_weight_norm, fold_weight_norm, folded
from aural.networks.residual_quantizer import Codebook, QuantizerConfig, kmeans
from aural.networks.stft_discriminator import Judged, StftDiscriminator, StftDiscriminatorConfig

RELATIVE = 1e-4
GRADIENT = 1e-3  # and whatever follows an optimiser's step


def check(folder: Path) -> set[str]:
    """Everything in a golden folder of EnCodec."""
    content = read_json(folder / "config.json")
    io = Comparison.load(folder, "io")
    weights = {
        name: safetensors.torch.load_file(folder / f"weights_{name}.safetensors")
        for name in ("audiocraft", "hf", "msstftd")
    }
    compare(io, weights, content)
    return io.finish()


def golden_config(content: Mapping[str, Any], pad_mode: str = "constant", *, causal: bool = False) -> EncodecConfig:
    """Our config from a golden one."""
    seanet, rvq = content["seanet"], content["rvq"]
    assert seanet["norm"] == "weight_norm" and seanet["activation"] == "ELU"
    return EncodecConfig(
        sample_rate=content["sample_rate"],
        channels=seanet["channels"],
        ratios=tuple(seanet["ratios"]),
        n_filters=seanet["n_filters"],
        dimension=seanet["dimension"],
        residual_layers=seanet["n_residual_layers"],
        kernel_size=seanet["kernel_size"],
        last_kernel_size=seanet["last_kernel_size"],
        residual_kernel_size=seanet["residual_kernel_size"],
        dilation_base=seanet["dilation_base"],
        compress=seanet["compress"],
        lstm_layers=seanet["lstm"],
        true_skip=seanet["true_skip"],
        causal=causal or seanet["causal"],
        pad_mode=pad_mode,  # type: ignore[arg-type]
        trim_right_ratio=seanet["trim_right_ratio"],
        quantizer=QuantizerConfig(
            n_codebooks=rvq["n_q"],
            codebook_size=rvq["bins"],
            decay=rvq["decay"],
            epsilon=rvq["epsilon"],
            commitment_weight=rvq["commitment_weight"],
            dead_code_share=0.0,  # the original's replacement does nothing
        ),
    )


def golden_codec(config: EncodecConfig, weights: Mapping[str, Tensor]) -> Encodec:
    """A codec for training with released weights, in evaluation mode."""
    with torch.device("meta"):
        codec = add_weight_norm(Encodec(config))
    load_into(codec, {name: tensor.clone() for name, tensor in our_weights(weights).items()})
    return codec.eval()


def golden_discriminator(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> StftDiscriminator:
    """The discriminator of a golden folder."""
    msstftd = content["msstftd"]
    assert msstftd["filters_scale"] == 1 and msstftd["norm"] == "weight_norm"
    config = StftDiscriminatorConfig(
        channels=msstftd["in_channels"],
        out_channels=msstftd["out_channels"],
        n_filters=msstftd["filters"],
        n_ffts=tuple(msstftd["n_ffts"]),
        hop_lengths=tuple(msstftd["hop_lengths"]),
        win_lengths=tuple(msstftd["win_lengths"]),
        kernel_size=tuple(msstftd["kernel_size"]),
        stride=tuple(msstftd["stride"]),
        dilations=tuple(msstftd["dilations"]),
        negative_slope=msstftd["negative_slope"],
        normalized=msstftd["normalized"],
    )
    discriminator = StftDiscriminator(config)
    load_into(discriminator, stft_discriminator.official_weights(weights))
    for name, tensor in weights.items():
        if name.endswith(".spec_transform.window"):
            scale = discriminator.discriminators[int(name.split(".")[1])]
            torch.testing.assert_close(scale.window, tensor, rtol=0.0, atol=1e-6)
    return discriminator


def compare(io: Comparison, weights: Mapping[str, Mapping[str, Tensor]], content: Mapping[str, Any]) -> None:
    """All that a golden file of EnCodec holds."""
    released, config = weights["audiocraft"], golden_config(content)
    shown = inferred_config(released, config)
    assert shown == inferred_config(weights["hf"], config) == config
    assert our_weights(weights["hf"]).keys() == our_weights(released).keys()
    with torch.no_grad():
        for mode in content["seanet"]["pad_modes"]:
            _evaluation(io, mode, golden_codec(golden_config(content, mode), released))
        _way(io, "causal", golden_codec(golden_config(content, causal=True), released), io.input("wav"))
        _layers(io, golden_codec(config, released))
        if "hf.decoded" in io:
            plain = Encodec(golden_config(content, "reflect")).eval()
            load_into(plain, folded(our_weights(weights["hf"])))
            io.close("hf.decoded", plain.decode(io.input("reflect.codes")), relative_to_max=RELATIVE)
    codec = golden_codec(config, released).train()
    _training(io, codec, content["grad_norm_order"])
    discriminator = golden_discriminator(content, weights["msstftd"])
    _balancer(io, discriminator, content)
    _generator(io, golden_codec(config, released).train(), discriminator, content)
    _discriminator(io, discriminator, content["disc_optim"])
    _mel(io, content)
    _kmeans(io, content)


# ------------------------------------------------------------------------------------------------------------ inference


def _evaluation(io: Comparison, mode: str, codec: Encodec) -> None:
    waveform = io.input("wav")
    codes = _way(io, mode, codec, waveform)
    for name in io.names(f"{mode}.codes_nq"):
        io.equal(name, codec.encode(waveform, int(name.rpartition("nq")[2])))
    io.close(f"{mode}.quantized", codec.quantizer.decode(codes), relative_to_max=RELATIVE)
    io.close(f"{mode}.forward", codec(waveform)[0], relative_to_max=RELATIVE)
    short = io.input("short.wav")
    io.close(f"{mode}.short_latent", codec.encoder(short), relative_to_max=RELATIVE)
    io.close(f"{mode}.short_decoded", codec.decode(codec.encode(short)), relative_to_max=RELATIVE)
    plain = fold_weight_norm(codec)
    assert torch.equal(plain.encode(waveform), codes)
    io.close(f"{mode}.decoded", plain.decode(codes), relative_to_max=RELATIVE)


def _way(io: Comparison, mode: str, codec: Encodec, waveform: Tensor) -> Tensor:
    """Latent, codes, decoded; returns the golden codes."""
    io.close(f"{mode}.latent", codec.encoder(waveform), relative_to_max=RELATIVE)
    io.equal(f"{mode}.codes", codec.encode(waveform))
    codes = io.input(f"{mode}.codes")
    io.close(f"{mode}.decoded", codec.decode(codes), relative_to_max=RELATIVE)
    return codes


def _layers(io: Comparison, codec: Encodec) -> None:
    x = io.input("wav")[:1]
    for index, layer in enumerate(codec.encoder.layers):
        x = layer(x)
        io.close(f"enc_layer.{index}", x, relative_to_max=RELATIVE)
    x = codec.quantizer.decode(io.input("constant.codes")[:1])
    for index, layer in enumerate(codec.decoder.layers):
        x = layer(x)
        io.close(f"dec_layer.{index}", x, relative_to_max=RELATIVE)


# ------------------------------------------------------------------------------------------------------------- training


def _training(io: Comparison, codec: Encodec, order: Sequence[str]) -> None:
    decoded, quantized = codec(io.input("train.wav"))
    io.close("train.y_pred", decoded, relative_to_max=RELATIVE)
    io.equal("train.codes", quantized.codes)
    io.close("train.commit_per_quantizer", quantized.commitment, relative_to_max=RELATIVE)
    io.close("train.penalty", quantized.penalty, relative_to_max=RELATIVE)
    io.close("train.quantized_st", quantized.vectors, relative_to_max=RELATIVE)
    rate = torch.tensor(codec.config.kilobits_per_second)
    io.close("train.bandwidth_kbps", rate, relative_to_max=RELATIVE)
    for index, codebook in enumerate(codec.quantizer.codebooks):
        for name in ("cluster_size", "embed", "embed_avg"):
            io.close(f"train.after.{index}.{name}", getattr(codebook, name), relative_to_max=GRADIENT)
    quantized.penalty.backward()
    _gradients(io, codec, order, norms="train.penalty_grad_norm", prefix="train.penalty_grad.")


def _gradients(io: Comparison, codec: Encodec, order: Sequence[str], *, norms: str, prefix: str) -> None:
    """The norms of all gradients, in the given order of audiocraft's names, and some of them in full."""
    gradients = {}
    for name in order:
        parameter = codec.get_parameter(str(our_name(name)))
        gradients[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    io.close(norms, torch.stack([gradients[name].norm() for name in order]), relative_to_max=GRADIENT)
    for name in io.names(prefix):
        io.close(name, gradients[name.removeprefix(prefix)], relative_to_max=GRADIENT)


def _discriminator(io: Comparison, discriminator: StftDiscriminator, optim: Mapping[str, Any]) -> None:
    """Updates the discriminator."""
    real, fake = io.input("wav"), io.input("train.y_pred").clone().requires_grad_()
    _judged(io, discriminator(fake), discriminator(real))
    _verdicts(io, discriminator, fake, real)
    loss = losses.discriminator_loss(discriminator(fake.detach()), discriminator(real))
    io.close("disc.d_loss", loss, relative_to_max=RELATIVE)
    assert optim["optimizer"] == "adam"
    adam = torch.optim.Adam(
        discriminator.parameters(), optim["lr"], tuple(optim["betas"]), weight_decay=optim["weight_decay"]
    )
    adam.zero_grad()
    loss.backward()
    adam.step()
    for name in io.names("disc.after_update."):
        ours = stft_discriminator.our_name(name.removeprefix("disc.after_update."))
        io.close(name, discriminator.get_parameter(ours), relative_to_max=GRADIENT)
    with torch.no_grad():
        fakes, reals = discriminator(fake), discriminator(real)
        io.close("disc.adv_after_update", losses.adversarial_loss(fakes), relative_to_max=GRADIENT)
        io.close("disc.feat_after_update", losses.feature_matching_loss(fakes, reals), relative_to_max=GRADIENT)


def _judged(io: Comparison, fakes: Sequence[Judged], reals: Sequence[Judged]) -> None:
    for scale, (fake, real) in enumerate(zip(fakes, reals, strict=True)):
        io.close(f"disc.fake_logits.{scale}", fake.logits, relative_to_max=RELATIVE)
        io.close(f"disc.real_logits.{scale}", real.logits, relative_to_max=RELATIVE)
        io.close(f"disc.fake_fmap_first.{scale}", fake.features[0], relative_to_max=RELATIVE)
        io.close(f"disc.fake_fmap_last.{scale}", fake.features[-1], relative_to_max=RELATIVE)
        for layer, features in enumerate(fake.features):
            io.close(f"disc.fake_fmap_mean.{scale}.{layer}", features.mean((0, 2, 3)), relative_to_max=RELATIVE)
            io.equal(f"disc.fmap_shape.{scale}.{layer}", torch.tensor(features.shape))


def _verdicts(io: Comparison, discriminator: StftDiscriminator, fake: Tensor, real: Tensor) -> None:
    """Both losses of the codec, and their gradients."""
    fakes, reals = discriminator(fake), discriminator(real)
    adversarial, matching = losses.adversarial_loss(fakes), losses.feature_matching_loss(fakes, reals)
    for name, loss in {"adv": adversarial, "feat": matching}.items():
        io.close(f"disc.{name}", loss, relative_to_max=RELATIVE)
        (gradient,) = torch.autograd.grad(loss, fake, retain_graph=True)
        io.close(f"disc.{name}_grad", gradient, relative_to_max=GRADIENT)


def _balanced_losses(
    discriminator: StftDiscriminator, mel: losses.MelConfig, fake: Tensor, real: Tensor
) -> dict[str, Tensor]:
    fakes, reals = discriminator(fake), discriminator(real)
    return {
        "adv_msstftd": losses.adversarial_loss(fakes),
        "feat_msstftd": losses.feature_matching_loss(fakes, reals),
        "l1": losses.l1_loss(fake, real),
        "msspec": losses.multi_scale_mel_loss(fake, real, mel),
    }


def _new_balancer(content: Mapping[str, Any]) -> losses.GradientBalancer:
    settings = content["balancer"]
    return losses.GradientBalancer(
        {name: settings["weights"][name] for name in settings["order"]},
        decay=settings["ema_decay"],
        total_norm=settings["total_norm"],
        per_item=settings["per_batch_item"],
        epsilon=settings["epsilon"],
    )


def _balancer(io: Comparison, discriminator: StftDiscriminator, content: Mapping[str, Any]) -> None:
    balancer, mel = _new_balancer(content), mel_config(content["msspec_for_balancer"])
    for update in sorted({name.split(".")[1] for name in io.names("bal.")}, key=int):
        fake = io.input(f"bal.{update}.y_pred").clone().requires_grad_()
        computed = _balanced_losses(discriminator, mel, fake, io.input("wav"))
        in_order = torch.stack([computed[name] for name in content["balancer"]["order"]])
        io.close(f"bal.{update}.losses", in_order, relative_to_max=RELATIVE)
        balanced = balancer.backward(computed, fake)
        assert fake.grad is not None
        io.close(f"bal.{update}.grad", fake.grad, relative_to_max=GRADIENT)
        io.close(f"bal.{update}.effective_loss", balanced.loss, relative_to_max=RELATIVE)
        io.close(f"bal.{update}.ratios", torch.tensor(list(balanced.ratios.values())), relative_to_max=RELATIVE)


def _generator(io: Comparison, codec: Encodec, discriminator: StftDiscriminator, content: Mapping[str, Any]) -> None:
    mel = mel_config(content["msspec_for_balancer"])
    decoded, quantized = codec(io.input("train.wav"))
    computed = _balanced_losses(discriminator, mel, decoded, io.input("wav"))
    quantized.penalty.backward(retain_graph=True)
    balanced = _new_balancer(content).backward(computed, decoded)
    io.close("gen.effective_loss", balanced.loss, relative_to_max=RELATIVE)
    _gradients(io, codec, content["grad_norm_order"], norms="gen.grad_norm", prefix="gen.grad.")


# --------------------------------------------------------------------------------------------------------------- parts


def mel_config(settings: Mapping[str, Any]) -> losses.MelConfig:
    """Our config from golden settings, of several sizes of window or of one."""
    return losses.MelConfig(
        sample_rate=settings["sample_rate"],
        n_mels=settings["n_mels"],
        low_hz=settings["f_min"],
        high_hz=settings.get("f_max"),
        normalized=settings["normalized"],
        floor=settings["floor_level"],
        first_power=settings.get("range_start", 0),
        last_power=settings.get("range_end", 0) - 1,
        heavier_logs=settings.get("alphas", False),
    )


def _mel(io: Comparison, content: Mapping[str, Any]) -> None:
    predicted, target = io.input("mel.y_pred").clone().requires_grad_(), io.input("mel.y")
    config, single = mel_config(content["msspec"]), content["mel"]
    assert single["win_length"] == single["n_fft"]
    loss = losses.multi_scale_mel_loss(predicted, target, config)
    io.close("mel.msspec", loss, relative_to_max=RELATIVE)
    (gradient,) = torch.autograd.grad(loss, predicted)
    io.close("mel.msspec_grad", gradient, relative_to_max=GRADIENT)
    predicted = predicted.detach()
    weighed = losses.multi_scale_mel_loss(predicted, target, replace(config, heavier_logs=True))
    io.close("mel.msspec_alphas", weighed, relative_to_max=RELATIVE)
    sizes = [2**power for power in range(config.first_power, config.last_power + 1)]
    parts = [torch.stack(losses.mel_distances(predicted, target, size, config)) for size in sizes]
    io.close("mel.msspec_per_scale", torch.stack(parts), relative_to_max=RELATIVE)
    one = mel_config(single)
    distance = losses.log_mel_loss(predicted, target, one, single["n_fft"], single["hop_length"])
    io.close("mel.l1_mel", distance, relative_to_max=RELATIVE)
    io.close("mel.l1", losses.l1_loss(predicted, target), relative_to_max=RELATIVE)
    for name, seconds in {"mel.sisnr": 5.0, "mel.sisnr_short": 0.1}.items():
        ratio = losses.negative_si_snr(predicted, target, config.sample_rate, seconds=seconds)
        io.close(name, ratio, relative_to_max=RELATIVE)
    for name in io.names("mel.fb_"):
        n_fft = int(name.rpartition("_")[2])
        high_hz = config.sample_rate / 2 if config.high_hz is None else config.high_hz
        filters = losses.mel_filters(config.n_mels, n_fft, config.sample_rate, config.low_hz, high_hz)
        io.close(name, filters, relative_to_max=RELATIVE)
    for name in io.names("mel.spec_"):
        kind, size = name.split("_")[1:]
        mel = losses.mel_spectrogram(target, int(size), int(size) // 4, config)
        mel = mel if kind == "lin" else (config.floor + mel).log10()
        io.close(name, mel[..., : io.input(name).shape[2]], relative_to_max=RELATIVE)


def _kmeans(io: Comparison, content: Mapping[str, Any]) -> None:
    samples, start = io.input("kmeans.samples"), io.input("kmeans.start")
    means, counts = kmeans(samples, samples[start], content["kmeans"]["iters"])
    io.close("kmeans.means", means, relative_to_max=RELATIVE)
    io.equal("kmeans.bins", counts)
    config = QuantizerConfig(
        n_codebooks=1,
        codebook_size=content["kmeans"]["clusters"],
        decay=content["rvq"]["decay"],
        epsilon=content["rvq"]["epsilon"],
        kmeans_iterations=content["kmeans"]["iters"],
        published_start=True,
        dead_code_share=0.0,
    )
    codebook = Codebook(config, samples.shape[1]).train()
    codebook.start(samples, start)
    index, entries = codebook(samples)
    io.equal("kinit.codes", index[None])
    io.close("kinit.quantized", entries[None], relative_to_max=RELATIVE)
    for name in io.names("kinit.after."):
        io.close(name, getattr(codebook, name.removeprefix("kinit.after.")), relative_to_max=GRADIENT)
