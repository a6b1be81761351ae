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
from PIL.Image import Image
from torch import Tensor

from aural import __version__
from aural.answering.answer import AnsweringModel, answer, load as load_answering
from aural.answering.classify import classify
from aural.audio import read_mono, write
from aural.audio_to_image.imagine import ImaginationModel, generate_image, load as load_imagination
from aural.captioning.caption import Candidate, Caption, CaptioningModel, caption, load
from aural.checkpoint import write_whole
from aural.errors import UsageError
from aural.features import SAMPLE_RATE, kaldi_fbank
from aural.manifest import Clip
from aural.soundscapes import wording
from aural.soundscapes.compose import Soundscape, Soundscapes, SoundscapeSettings
from aural.soundscapes.prepare import with_kinds
from aural.soundscapes.questions import questions, verdict
from aural.text_to_audio.generate import GenerationModel, generate_audio, load as load_generation

EXAMPLES = Path(__file__).with_name("examples")
PAGE = Path(__file__).with_name("demo.html")
LOW_HZ, HIGH_HZ = 20.0, SAMPLE_RATE / 2  # the edges of the mel filters
TICKS_HZ = (250, 500, 1000, 2000, 4000)
RANGE_DB = 70.0  # what is softer than the loudest spot by more than this is drawn black
SHOWN = 6
"""How many candidates the page lists for a clip."""
N_SOUNDSCAPES = 4
BLENDED = (0.0, 0.35, 0.65)
"""Shares of the next recording in the pictures of one."""
LABELS = {
    "baby_cry": "baby cry",
    "dog_bark": "dog bark",
    "rain": "rain",
    "rooster": "rooster",
    "sea_waves": "sea waves",
    "sneeze": "person sneeze",
}
"""What the bundled recordings are, for soundscapes."""
ASKED = ("what can be heard?", "is there a barking dog?", "is there a crowing rooster?", "how loud is a piano?")
"""Of every recording; no piano is in any of them."""

PROMPTS = ("a dog barks", "rain falls", "a rooster crows", "a dog barks while rain falls")
"""Sounds that are made."""


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
    answerer = load_answering(device=device, offline=offline)
    material = [Clip(clip, labels=(LABELS[clip.stem],)) for clip in clips if clip.stem in LABELS]
    soundscapes = Soundscapes(material, with_kinds(SoundscapeSettings(), ["sequence", "counted"]), seed)
    drawn = [soundscapes(index) for index in range(N_SOUNDSCAPES)]
    sections = [
        _captioning(clips, captioner, seed),
        _answering(clips, answerer),
        _imagining(clips, load_imagination(device=device, offline=offline), seed),
        _generating(load_generation(device=device, offline=offline), seed),
        _soundscapes(drawn, captioner, answerer, seed),
    ]

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
        sound = _data_uri("audio/ogg", clip.read_bytes())
        articles.append(_article(clip.name, waveform, sound, _considered(result)))
    return _section(
        "Describe: <code>aural caption</code>",
        "Many captions are written for each sound; the one that is both likely and close to the sound wins.",
        articles,
    )


def _answering(clips: list[Path], answerer: AnsweringModel) -> str:
    """Ask each clip the same and let it choose among labels; print the answers and return their part of the page."""
    labels = [LABELS[stem] for stem in sorted(LABELS)]
    width = max(len(clip.name) for clip in clips)
    print(f"aural ask and aural classify {EXAMPLES}\n")
    found = classify([*clips], labels, model=answerer)
    answers = {question: answer([*clips], question, model=answerer) for question in ASKED}
    articles = []
    for place, (clip, chosen) in enumerate(zip(clips, found, strict=True)):
        rows = [(question, said[place].text) for question, said in answers.items()]
        likeliest = sorted(chosen.scores.items(), key=lambda item: -item[1])[:3]
        print(f"  {clip.name:{width}}  {', '.join(f'{label} {score:.0%}' for label, score in likeliest)}")
        for question, said in rows:
            print(f"  {'':{width}}    {question}  {said}")
        print(flush=True)
        bars = "".join(
            f'<tr><td>{escape(label)}</td><td><meter min="0" max="1" value="{score:.3f}"></meter></td>'
            f'<td class="number">{score:.0%}</td></tr>\n'
            for label, score in likeliest
        )
        body = f"{_questions(rows)}\n<table><tbody>\n{bars}</tbody></table>"
        waveform = torch.from_numpy(read_mono(clip, SAMPLE_RATE))
        articles.append(_article(clip.name, waveform, _data_uri("audio/ogg", clip.read_bytes()), body))
    return _section(
        "Ask and choose: <code>aural ask</code>, <code>aural classify</code>",
        "Any question in plain words; and the labels that are likeliest among those of all clips here.",
        articles,
    )


def _imagining(clips: list[Path], imaginer: ImaginationModel, seed: int) -> str:
    """Paint each clip, and what lies between it and the next one; return their part of the page."""
    print(f"aural imagine {EXAMPLES} -o pictures\n")
    articles = []
    for place, clip in enumerate(clips):
        after = clips[(place + 1) % len(clips)]
        painted = [
            generate_image(clip, model=imaginer, seed=seed, blend=after if share else None, share=share)
            for share in BLENDED
        ]
        print(f"  {clip.name}, alone and with {' and '.join(f'{share:.0%}' for share in BLENDED[1:])} of {after.name}")
        pictures = "\n".join(
            f'<figure><img alt="{escape(clip.name)} with {share:.0%} of {escape(after.name)}" '
            f'src="{_data_uri("image/png", _png(image))}"><figcaption>{share:.0%}</figcaption></figure>'
            for share, image in zip(BLENDED, painted, strict=True)
        )
        body = f'<div class="painted">{pictures}</div>\n<p>From {escape(clip.name)} to {escape(after.name)}.</p>'
        waveform = torch.from_numpy(read_mono(clip, SAMPLE_RATE))
        articles.append(_article(clip.name, waveform, _data_uri("audio/ogg", clip.read_bytes()), body))
    print(flush=True)
    return _section(
        "Picture: <code>aural imagine</code>",
        "What is heard becomes a word for a small picture model, which paints it; so do mixtures of two such words.",
        articles,
    )


def _generating(generator: GenerationModel, seed: int) -> str:
    """Make a sound of each prompt; return their part of the page."""
    articles = []
    for made in generate_audio([*PROMPTS], model=generator, seed=seed):
        print(f"aural generate {made.prompt!r}: {made.seconds:g} s of sound")
        articles.append(_article(made.prompt, torch.from_numpy(made.waveform[0]), _flac(made.waveform), ""))
    print(flush=True)
    return _section(
        "Sound: <code>aural generate</code>",
        "A small language model writes the codes of a codec from the words alone, several times; a listener chooses.",
        articles,
    )


def _soundscapes(soundscapes: list[Soundscape], captioner: CaptioningModel, answerer: AnsweringModel, seed: int) -> str:
    """Compare what is said of soundscapes of the clips, beside synthesised sounds, with what is there."""
    print("soundscapes of these recordings and of synthesised sounds\n")
    articles = []
    for index, soundscape in enumerate(soundscapes):
        generator = np.random.default_rng([seed, index])
        truth = wording.caption(soundscape.scene, generator)
        sound = (soundscape.waveform, SAMPLE_RATE)
        result = caption(sound, model=captioner, seed=seed)
        print(f"  is     {truth}\n  heard  {result.text}")
        rows = []
        for one in questions(soundscape.scene, generator):
            said = answer(sound, one.question, model=answerer).text
            rows.append((one.question, said if verdict(said) == verdict(one.answer) else f"{said} (no: {one.answer})"))
            print(f"         {one.question}?  {rows[-1][1]}")
        print(flush=True)
        played = _flac(soundscape.waveform)
        body = f"<blockquote>{escape(result.text)}</blockquote>\n{_questions(rows)}"
        articles.append(_article(f"truth: {truth}", torch.from_numpy(soundscape.waveform), played, body))
    return _section(
        "Soundscapes: <code>aural prepare soundscapes</code>",
        "Sounds on a timeline, so that the truth is known exactly: which, in which order, how many. Where an answer is "
        "wrong, the right one stands behind it.",
        articles,
    )


def _section(title: str, about: str, articles: list[str]) -> str:
    """HTML of the title, escaped text, articles."""
    return "\n".join(["<section>", f"<h2>{title}</h2>", f"<p>{escape(about)}</p>", *articles, "</section>"])


def _questions(rows: list[tuple[str, str]]) -> str:
    """Questions with their answers."""
    said = "".join(f"<dt>{escape(question)}</dt><dd>{escape(text)}</dd>\n" for question, text in rows)
    return f"<dl>\n{said}</dl>"


def _article(name: str, waveform: Tensor, sound: str, body: str) -> str:
    """One sound with its picture, its player, and what was made of it."""
    return f"""<article>
<figure>
<img alt="Spectrogram of {escape(name)}" src="{_data_uri("image/png", _spectrogram(waveform))}">
<audio controls preload="metadata" src="{sound}"></audio>
</figure>
<div>
<h3><code>{escape(name)}</code></h3>
{body}
</div>
</article>"""


def _considered(result: Caption) -> str:
    """A caption and those that it was chosen among."""
    return f"""<blockquote>{escape(result.text)}</blockquote>
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
</div>"""


def _row(each: Candidate) -> str:
    numbers = (each.log_likelihood, each.similarity, each.score)
    cells = "".join(f'<td class="number">{number:+.2f}</td>' for number in numbers)
    return f"<tr><td>{escape(each.caption)}</td>{cells}</tr>\n"


def _flac(waveform: np.ndarray) -> str:
    """A sound (time,) or (1, time) at 16 kHz, for the page's player."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sound.flac"
        write(file, waveform, SAMPLE_RATE)
        return _data_uri("audio/flac", file.read_bytes())


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


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
