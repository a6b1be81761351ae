"""The Kaldi filterbank against ``kaldi-native-fbank``, the C++ library that speech toolkits use, on one core.

    python bench/features.py            # about half a minute
    python bench/features.py --tiny     # a second: shows that it runs

Both make 128 bands of 10 s clips at 16 kHz, batch 1 and 8, in turns; the results are compared first. The floor is the
arithmetic of the transforms and the mel product alone at the machine's best matrix product.
"""

import sys

import kaldi_native_fbank
import numpy as np
import torch
from measure import in_turns, machine, peak_flops

from aural.features import FRAME_LENGTH, HOP_LENGTH, N_MELS, SAMPLE_RATE, kaldi_fbank

N_FFT = 512


def kaldi(waveform: np.ndarray) -> np.ndarray:
    """(B, N) in [-1, 1] -> (B, T, 128) by the library, clip by clip, as it has no batches."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.mel_opts.num_bins = N_MELS
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 0.0
    options.energy_floor = 0.0
    clips = []
    for clip in waveform:
        fbank = kaldi_native_fbank.OnlineFbank(options)
        fbank.accept_waveform(SAMPLE_RATE, clip * 32768)
        fbank.input_finished()
        clips.append(np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)]))
    return np.stack(clips)


def main() -> None:
    """Compare, time, and print the table."""
    tiny = "--tiny" in sys.argv[1:]
    torch.set_num_threads(1)
    seconds, repeats = (1, 2) if tiny else (10, 30)
    speed = peak_flops(256 if tiny else 1024)
    print(f"{machine()}; {seconds} s clips, one thread\n")
    print("| batch | ours, ms | kaldi-native-fbank, ms | ratio | floor, ms | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for batch in (1, 8):
        generator = torch.Generator().manual_seed(0)
        waveform = torch.randn(batch, seconds * SAMPLE_RATE, generator=generator) * 0.1
        array = waveform.numpy()
        ours, theirs = kaldi_fbank(waveform), torch.from_numpy(kaldi(array))
        difference = float((ours - theirs).abs().max())
        if difference > 0.02:
            sys.exit(f"the two disagree by {difference:.3g} in the raw log-mel")
        taken = in_turns({"ours": lambda w=waveform: kaldi_fbank(w), "peer": lambda a=array: kaldi(a)}, repeats)
        n_frames = batch * (1 + (seconds * SAMPLE_RATE - FRAME_LENGTH) // HOP_LENGTH)
        # a real transform of n points takes about 2.5 n log2(n) operations
        floor = n_frames * (2.5 * N_FFT * np.log2(N_FFT) + 2 * (N_FFT // 2 + 1) * N_MELS) / speed
        mine, other = taken["ours"].median, taken["peer"].median
        print(
            f"| {batch} | {mine * 1e3:.2f} | {other * 1e3:.2f} | {other / mine:.2f} | {floor * 1e3:.2f} "
            f"| {difference:.1g} |"
        )


if __name__ == "__main__":
    main()
