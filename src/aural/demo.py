"""The tour: every verb on the bundled recordings, as a transcript on stdout and a page that needs nothing but itself.

Sounds and pictures are written into the page, so it can be opened, moved or mailed as one file and asks nobody for
anything.
"""

import base64
import io
import math
from html import escape
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from aural import __version__
from aural.audio import read_mono, write
from aural.captioning.caption import Candidate, Caption, CaptioningModel, caption, load
from aural.checkpoint import write_whole
from aural.errors import UsageError
from aural.features import SAMPLE_RATE, kaldi_fbank
from aural.manifest import Clip
from aural.soundscapes import wording
from aural.soundscapes.compose import Soundscapes, SoundscapeSettings
from aural.soundscapes.prepare import with_kinds

EXAMPLES = Path(__file__).with_name("examples")
PAGE = Path(__file__).with_name("demo.html")
LOW_HZ, HIGH_HZ = 20.0, SAMPLE_RATE / 2  # the edges of the mel filters
TICKS_HZ = (250, 500, 1000, 2000, 4000)
RANGE_DB = 70.0  # what is softer than the loudest spot by more than this is drawn black
SHOWN = 6
"""How many candidates the page lists for a clip."""
N_SOUNDSCAPES = 4
LABELS = {
    "baby_cry": "baby cry",
    "dog_bark": "dog bark",
    "rain": "rain",
    "rooster": "rooster",
    "sea_waves": "sea waves",
    "sneeze": "person sneeze",
}
"""What the bundled recordings are, for soundscapes."""


def demo(out: Path, *, device: str = "auto", seed: int = 0, offline: bool = False) -> Path:
    """Run every verb on the bundled recordings; print what comes out and write it as a page.

    Args:
        out: folder for the page; made if it is not there.
        device: where to compute: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        seed: seed of the sampling.
        offline: take models from the hub's cache only.

    Returns:
        ``out / "index.html"``, which is complete whenever it exists.

    Raises:
        UsageError: the default model or the recordings are not installed.
    """
    clips = sorted(EXAMPLES.glob("*.ogg"))
    if not clips:
        raise UsageError(f"the example recordings are missing from {EXAMPLES}: install aural again")
    captioner = load(device=device, offline=offline)
    sections = [_captioning(clips, captioner, seed), _soundscapes(clips, captioner, seed)]

    out.mkdir(parents=True, exist_ok=True)
    page = out / "index.html"
    content = Template(PAGE.read_text(encoding="utf-8")).substitute(
        command=escape(f"aural demo --seed {seed}"),
        version=__version__,
        sections="\n".join(sections),
        picture=f"mel bands over time, the loudest {RANGE_DB:.0f} dB of each clip",
        credits=escape(str(EXAMPLES / "README.md")),
    )
    write_whole(page, content)
    return page


def _captioning(clips: list[Path], captioner: CaptioningModel, seed: int) -> str:
    """Caption the clips; print them, and return their part of the page."""
    found = caption([*clips], model=captioner, seed=seed)
    width = max(len(clip.name) for clip in clips)
    print(f"aural caption --candidates {EXAMPLES}\n")
    articles = []
    for clip, result in zip(clips, found, strict=True):
        print(f"  {clip.name:{width}}  {result.text}")
        for each in result.candidates[:SHOWN]:
            scores = f"log-likelihood {each.log_likelihood:+.2f}, similarity {each.similarity:+.2f}"
            print(f"  {'':{width}}    {each.score:+.2f} ({scores})  {each.caption}")
        print(flush=True)
        waveform = torch.from_numpy(read_mono(clip, SAMPLE_RATE))
        articles.append(_article(clip.name, waveform, _data_uri("audio/ogg", clip.read_bytes()), result))
    return "\n".join(
        [
            "<section>",
            "<h2>Describe: <code>aural caption</code></h2>",
            "<p>Many captions are written for each sound; the one that is both likely and close to the sound wins.</p>",
            *articles,
            "</section>",
        ]
    )


def _soundscapes(clips: list[Path], captioner: CaptioningModel, seed: int) -> str:
    """Put the clips on timelines, beside synthesised sounds, and compare what is heard with what is there."""
    material = [Clip(clip, labels=(LABELS[clip.stem],)) for clip in clips if clip.stem in LABELS]
    soundscapes = Soundscapes(material, with_kinds(SoundscapeSettings(), ["sequence", "counted"]), seed)
    print("soundscapes of these recordings and of synthesised sounds\n")
    articles = []
    for index in range(N_SOUNDSCAPES):
        soundscape = soundscapes(index)
        truth = wording.caption(soundscape.scene, np.random.default_rng([seed, index]))
        result = caption((soundscape.waveform, SAMPLE_RATE), model=captioner, seed=seed)
        print(f"  is     {truth}\n  heard  {result.text}\n", flush=True)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "soundscape.flac"
            write(file, soundscape.waveform, SAMPLE_RATE)
            sound = _data_uri("audio/flac", file.read_bytes())
        articles.append(_article(f"truth: {truth}", torch.from_numpy(soundscape.waveform), sound, result))
    return "\n".join(
        [
            "<section>",
            "<h2>Soundscapes: <code>aural prepare soundscapes</code></h2>",
            "<p>Sounds on a timeline, so that the truth is known exactly: which, in which order, how many.</p>",
            *articles,
            "</section>",
        ]
    )


def _article(name: str, waveform: Tensor, sound: str, result: Caption) -> str:
    """One sound with its picture, its player, its caption and the captions that were considered."""
    return f"""<article>
<figure>
<img alt="Spectrogram of {escape(name)}" src="{_data_uri("image/png", _spectrogram(waveform))}">
<audio controls preload="metadata" src="{sound}"></audio>
</figure>
<div>
<h3><code>{escape(name)}</code></h3>
<blockquote>{escape(result.text)}</blockquote>
<div class="scores">
<table>
<thead><tr>
<th>captions considered</th>
<th class="number">log-<br>likelihood</th>
<th class="number">similarity<br>to the sound</th>
<th class="number">score</th>
</tr></thead>
<tbody>
{"".join(_row(each) for each in result.candidates[:SHOWN])}
</tbody>
</table>
</div>
</div>
</article>"""


def _row(each: Candidate) -> str:
    numbers = (each.log_likelihood, each.similarity, each.score)
    cells = "".join(f'<td class="number">{number:+.2f}</td>' for number in numbers)
    return f"<tr><td>{escape(each.caption)}</td>{cells}</tr>\n"


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _spectrogram(waveform: Tensor) -> bytes:
    """A PNG of the mel bands of ``waveform`` (time,), with seconds and kilohertz, fit for light and dark pages."""
    from matplotlib.figure import Figure

    bands = kaldi_fbank(waveform[None], sample_rate=SAMPLE_RATE, low_hz=LOW_HZ)[0].T.numpy()  # (mel bands, frames)
    n_mels = len(bands)
    loudest = float(bands.max())
    figure = Figure(figsize=(5.4, 3.3), dpi=160, layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        bands,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=loudest - RANGE_DB / 10 * math.log(10),  # the bands are natural logarithms of power
        vmax=loudest,
        extent=(0, len(waveform) / SAMPLE_RATE, 0, n_mels),
        interpolation="nearest",
    )
    span = _mel(HIGH_HZ) - _mel(LOW_HZ)
    axes.set_yticks(
        [(_mel(hz) - _mel(LOW_HZ)) / span * n_mels for hz in TICKS_HZ], [f"{hz / 1000:g}" for hz in TICKS_HZ]
    )
    axes.set_xlabel("seconds")
    axes.set_ylabel("kHz")
    grey = "#868e96"
    axes.tick_params(colors=grey, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(grey)
    for spine in axes.spines.values():
        spine.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _mel(hz: float) -> float:
    """Kaldi's mel scale."""
    return 1127.0 * math.log1p(hz / 700.0)
