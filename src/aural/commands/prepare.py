"""``aural prepare``: manifests of corpora, and soundscapes, music, mix-up captions and glyphs that are made."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aural.commands.options import Debug, Quiet, Seed
from aural.commands.output import progress, say
from aural.errors import UsageError

Corpus = Literal[
    "esc10",
    "esc50",
    "clotho",
    "audiocaps",
    "vggsound",
    "instruments",
    "folder",
    "soundscapes",
    "music",
    "mixups",
    "glyphs",
]


def prepare(
    corpus: Annotated[
        Corpus,
        typer.Argument(
            metavar="CORPUS",
            help="esc10, esc50, clotho, audiocaps, vggsound, instruments, folder; made: soundscapes, music, mixups, "
            "glyphs",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="M.jsonl", help="The manifest to write; of mixups a .json file, of glyphs a folder."
        ),
    ],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DIR...",
            help="Where the corpus was unpacked; of soundscapes and mixups the manifest of recordings; of glyphs none.",
            show_default=False,
        ),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Keep what the manifest holds and add to it.")] = False,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="How many are made.")] = 1000,
    seed: Seed = 0,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Make them from clips of this split only.")] = None,
    fluency: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Mixups: FENSE's error detector, instead of the rules.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="A,B", help="Soundscapes: only these kinds, such as sequence,counted.")
    ] = None,
    seconds: Annotated[
        tuple[float, float], typer.Option(metavar="MIN MAX", help="Soundscapes: shortest and longest.")
    ] = (4.0, 10.0),
    by_split: Annotated[
        bool, typer.Option("--by-split", help="Soundscapes: N of each split, from its own recordings only.")
    ] = False,
    soundfont: Annotated[Path | None, typer.Option(metavar="FILE", help="Music: a General MIDI soundfont.")] = None,
    font: Annotated[Path | None, typer.Option(metavar="FILE", help="Glyphs: a font, such as Noto Color Emoji.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """A published corpus, or any folder, to a manifest; or soundscapes, music and mix-up captions that are made."""
    if corpus == "glyphs":
        _glyphs(folders, font, out, quiet=quiet)
        return
    if font is not None:
        raise UsageError(f"--font is for glyphs: leave it out with {corpus}")
    if not folders:
        raise UsageError(f"nothing to prepare: name what holds the recordings, `aural prepare {corpus} DIR -o OUT`")
    if corpus in ("soundscapes", "mixups"):
        if len(folders) != 1:
            raise UsageError(
                f"{len(folders)} manifests were given; pass one: `aural prepare {corpus} M.jsonl -o OUT`, or append "
                "one corpus to the other first"
            )
        if corpus == "soundscapes":
            settings = (kinds.split(",") if kinds else None, seconds, by_split)
            _soundscapes(folders[0], out, *settings, n=n, seed=seed, split=split, quiet=quiet)
        else:
            _mixups(folders[0], out, n=n, seed=seed, split=split, fluency=fluency, quiet=quiet)
        return
    from aural.corpora import audiocaps, clotho, esc10, esc50, folder, instruments, vggsound
    from aural.manifest import read_manifest, write_manifest

    corpora = {"esc10": esc10, "esc50": esc50, "clotho": clotho, "audiocaps": audiocaps}
    corpora |= {"vggsound": vggsound, "instruments": instruments, "folder": folder}
    clips = read_manifest(out) if append and out.exists() else []
    if corpus == "music":
        from aural.soundscapes import music

        clips += [clip for place in folders for clip in music.prepare(place, n=n, seed=seed, soundfont=soundfont)]
    else:
        clips += [clip for place in folders for clip in corpora[corpus].prepare(place)]
    clips = list(dict.fromkeys(clips))  # appending the same corpus twice changes nothing
    if not clips:
        raise UsageError(f"nothing to do: no {corpus} clips in {', '.join(map(str, folders))}")
    write_manifest(out, clips)
    splits = sorted({clip.split or "none" for clip in clips})
    say(f"wrote {out}: {len(clips)} clips (splits: {', '.join(splits)})", quiet)


def _glyphs(folders: list[Path] | None, font: Path | None, out: Path, *, quiet: bool) -> None:
    """The glyphs of a font as pictures, with the words for them."""
    if font is None or folders:
        raise UsageError("glyphs are drawn from a font alone: `aural prepare glyphs --font NotoColorEmoji.ttf -o DIR`")
    from aural.audio_to_image.glyphs import prepare_glyphs
    from aural.manifest import read_manifest

    manifest = prepare_glyphs(font, out)
    say(f"wrote {manifest}: {len(read_manifest(manifest, required='image'))} pictures", quiet)


def _soundscapes(
    manifest: Path,
    out: Path,
    kinds: list[str] | None,
    seconds: tuple[float, float],
    by_split: bool,
    *,
    n: int,
    seed: int,
    split: str | None,
    quiet: bool,
) -> None:
    """Sounds on a timeline, from the recordings of a manifest and from synthesised ones, with their exact truth."""
    from dataclasses import replace

    from aural.manifest import read_manifest
    from aural.soundscapes.compose import SoundscapeSettings
    from aural.soundscapes.prepare import prepare as make, with_kinds

    if not 0.5 <= seconds[0] <= seconds[1]:
        raise UsageError(f"--seconds {seconds[0]:g} {seconds[1]:g}: give the shortest first, 0.5 or more")
    settings = replace(SoundscapeSettings(), seconds=seconds)
    settings = with_kinds(settings, kinds) if kinds else settings
    clips = [clip for clip in read_manifest(manifest) if split is None or clip.split == split]
    splits = sorted({clip.split for clip in clips if clip.split}) if by_split else [split]
    with progress(n * len(splits), quiet, prints=False) as advance:
        made = make(clips, out, n=n, seed=seed, settings=settings, splits=splits, advance=advance)
    say(f"wrote {out}: {len(made)} soundscapes, with questions in {out.with_suffix('.questions.jsonl')}", quiet)


def _mixups(
    manifest: Path, out: Path, *, n: int, seed: int, split: str | None, fluency: Path | None, quiet: bool
) -> None:
    """Pairs of the clips of a manifest, with captions by a language model if the environment names one."""
    from aural.captioning.chat import URL, from_environment
    from aural.captioning.mixup_captions import write_mixups
    from aural.fluency import detect, load_fluency
    from aural.manifest import read_manifest

    endpoint = from_environment()
    if endpoint is None:
        say(f"captions are joined by the grammar; set {URL} to have a language model do it", quiet)
    else:
        say(f"captions are joined by {endpoint.model} at {endpoint.url}", quiet)
    detector = detect if fluency is None else load_fluency(fluency)
    report = write_mixups(
        read_manifest(manifest), out, n=n, seed=seed, split=split, endpoint=endpoint, fluency=detector
    )
    say(f"wrote {out}: {report}", quiet)
