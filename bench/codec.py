"""The codec at its default size on one core, beside the transformers library's EnCodec with the same weights.

    python bench/codec.py            # about a minute
    python bench/codec.py --tiny     # seconds: shows that it runs
    python bench/codec.py --json F   # the figures as JSON besides

Ten seconds of sound, batch 1, random weights; decoding, encoding, and decoding as a stream of half seconds, as while
codes are being generated. Results are compared first, times are taken in turns. "times real time" is how many seconds
of sound a second gives.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from measure import (
    HEADER,
    Row,
    count_flops,
    expect_close,
    in_turns,
    machine,
    n_bytes,
    peak_flops,
    print_table,
    read_bandwidth,
)
from torch import Tensor
from torch.nn.utils import parametrize
from transformers import EncodecConfig as PeerConfig, EncodecModel

from aural.codec.recipes import default, tiny
from aural.codec_folder import Codec
from aural.networks.encodec import Encodec, EncodecConfig

PEER = "transformers"


def same_model(config: EncodecConfig) -> tuple[Codec, EncodecModel]:
    """Our codec and the peer with the same random weights; names and layout are the same."""
    torch.manual_seed(0)
    ours = Encodec(config).eval()
    for codebook in ours.quantizer.codebooks:
        codebook.embed.normal_()
    peer = EncodecModel(
        PeerConfig(
            target_bandwidths=[config.kilobits_per_second],
            sampling_rate=config.sample_rate,
            num_filters=config.n_filters,
            upsampling_ratios=list(config.ratios),
            hidden_size=config.dimension,
            codebook_dim=config.dimension,
            codebook_size=config.quantizer.codebook_size,
            num_lstm_layers=config.lstm_layers,
            num_residual_layers=config.residual_layers,
            use_causal_conv=config.causal,
            use_conv_shortcut=not config.true_skip,
            pad_mode=config.pad_mode,
            norm_type="weight_norm",
            normalize=False,
            chunk_length_s=None,
        )
    ).eval()
    for module in peer.modules():  # as in ours: the peer as fast as it can be
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    peer.load_state_dict(ours.state_dict())
    return Codec("random", ours, torch.device("cpu")), peer


@torch.inference_mode()
def main() -> None:
    """Compare, time, and print the tables."""
    small = "--tiny" in sys.argv[1:]
    torch.set_num_threads(1)
    config = replace(tiny().model, quantizer=default().model.quantizer) if small else default().model
    seconds, repeats = (1, 2) if small else (10, 20)
    ours, peer = same_model(config)
    waveform = torch.randn(1, seconds * config.sample_rate, generator=torch.Generator().manual_seed(0)) * 0.1
    kilobits = config.kilobits_per_second
    codes = ours.encode(waveform)

    def encoded() -> Tensor:
        return peer.encode(waveform[:, None], bandwidth=kilobits).audio_codes[0]

    def decoded() -> Tensor:
        return peer.decode(codes[None], [None]).audio_values[:, 0]

    def streamed() -> Tensor:
        return torch.cat([*ours.decode_stream(codes.split(25, dim=2))], dim=1)

    expect_close("decoding", ours.decode(codes), decoded())
    expect_close("streaming", streamed(), decoded())
    expect_close("encoding", codes.float(), encoded().float())
    whole = f"{seconds} s"
    taken = in_turns({"ours": lambda: ours.decode(codes), "peer": decoded, "stream": streamed}, repeats)
    encoding = in_turns({"ours": lambda: ours.encode(waveform), "peer": encoded}, repeats)
    weights = n_bytes(*ours.network.decoder.state_dict().values())
    work = count_flops(lambda: ours.decode(codes))
    rows = [
        Row(f"decode {whole}", taken["ours"], PEER, taken["peer"], work, weights),
        Row(f"decode {whole} as a stream", taken["stream"], PEER, taken["peer"], work, weights),
        Row(
            f"encode {whole}", encoding["ours"], PEER, encoding["peer"],
            count_flops(lambda: ours.encode(waveform)), n_bytes(*ours.network.encoder.state_dict().values()),
        ),
    ]  # fmt: skip
    flops, bandwidth = peak_flops(256 if small else 2048), read_bandwidth(16 if small else 1024)
    n_parameters = sum(parameter.numel() for parameter in ours.network.parameters())
    print(f"{machine()}; {config.sample_rate} Hz, {n_parameters / 1e6:.1f} M parameters, batch 1\n")
    cells = ([*row.cells(flops, bandwidth), f"{seconds / row.ours.median:.1f}"] for row in rows)
    print_table([*HEADER, "times real time"], cells)
    if "--json" in sys.argv[1:]:
        target = Path(sys.argv[sys.argv.index("--json") + 1])
        target.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
