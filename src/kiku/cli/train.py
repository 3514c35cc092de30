"""`kiku train`: train a model, from recordings to a model that `kiku serve` takes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiku.checkpoint import DEMO
from kiku.cli import terminal
from kiku.cli.outputs import make_folder, refuse_existing, refuse_no_file, same_file, write_result
from kiku.cli.progress import Meter
from kiku.cli.themes import themed
from kiku.errors import InputError

if TYPE_CHECKING:
    from kiku.train.pack import Packed
    from kiku.train.vocab import Grown

app = typer.Typer(
    help="Teach a model: vocab, align, pack, fit, export. docs/teach.md goes through it.",
    rich_markup_mode=None,
)


class _Layout(StrEnum):
    """How an exported model is laid out."""

    NATIVE = "native"
    TRANSFORMERS = "transformers"
    ADAPTER = "adapter"


class _ModelLayout(StrEnum):
    """How a model is laid out."""

    NATIVE = "native"
    TRANSFORMERS = "transformers"


class _Kind(StrEnum):
    """How pieces of a new vocabulary are found."""

    BPE = "bpe"
    UNIGRAM = "unigram"


_SHOWN = 20
"""Dropped rows that are printed; pack.json has them all."""

_Manifest = Annotated[
    list[Path],
    typer.Argument(
        metavar="MANIFEST",
        help="Files of JSON lines, or folders: LibriSpeech, Common Voice, LJSpeech, Kaldi.",
    ),
]
_Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="demo, a repository, or a folder.")
]
_ForceModel = Annotated[
    bool, typer.Option("--force", help="Replace the model in DIR, if there is one.")
]
_Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="cpu, cuda, ...; auto takes a GPU if any.")
]


@dataclass(frozen=True, slots=True)
class PieceOptions:
    """Which pieces the new vocabulary has."""

    pieces: Annotated[
        int, typer.Option(metavar="N", min=1, help="New ones at most; with --new, all.")
    ] = 200
    any_letters: Annotated[
        bool,
        typer.Option("--any-letters", help="Also pieces of letters that the model has already."),
    ] = False
    new: Annotated[
        _Kind | None, typer.Option(help="A vocabulary of these texts alone, of this kind.")
    ] = None


@app.command("vocab")
@themed
def vocab_command(
    *,
    manifest: _Manifest,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for the model.")
    ],
    model: _Model = DEMO,
    wanted: PieceOptions,
    layout: Annotated[
        _ModelLayout, typer.Option(help="Kyutai's, or transformers'.")
    ] = _ModelLayout.NATIVE,
    force: _ForceModel = False,
) -> int:
    """Make a model that can spell what recordings say: its own pieces, and new ones behind them.

    Old pieces keep their ids, and old words their spelling. The new ones begin as what spelled them
    before, and are learned by kiku train fit.
    """
    from kiku.train.extra import need_torch
    from kiku.train.folders import read_rows

    need_torch("kiku train vocab")
    rows = [row for one in manifest for row in read_rows(one)]
    from kiku.train.vocab import VocabOptions, make_vocabulary

    kind = "" if wanted.new is None else wanted.new.value
    options = VocabOptions(wanted.pieces, wanted.any_letters, kind)
    done = make_vocabulary(rows, model, output, options, layout=layout.value, force=force)
    if done.left_out:
        terminal.error(f"{layout} has no place for {', '.join(done.left_out)}: left out")
    terminal.echo(_vocab_report(done))
    return 0


@dataclass(frozen=True, slots=True)
class ExampleOptions:
    """What an example holds."""

    delay: Annotated[
        float | None,
        typer.Option("--delay", metavar="SECONDS", min=0.0, help="Of the text; else the model's."),
    ] = None
    lead: Annotated[
        str,
        typer.Option(metavar="zero|pad", help="Before the delay: nothing is taught, or PAD is."),
    ] = "zero"
    most: Annotated[
        float, typer.Option("--most-s", metavar="SECONDS", min=1.0, help="Of one example.")
    ] = 60.0
    augment: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML: copies, speed, noise, join, ...")
    ] = None
    sound: Annotated[
        bool, typer.Option("--sound", help="Keep the sound, too: for a run that trains the codec.")
    ] = False
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what is drawn.")] = 0


@app.command("pack")
@themed
def pack_command(
    *,
    manifest: _Manifest,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PACK", help="The folder for the pack.")
    ],
    model: _Model = DEMO,
    example: ExampleOptions,
    device: _Device = "auto",
) -> int:
    """Turn recordings and their words into codes and text, ready to train on.

    Run again after an interruption, it goes on. What cannot be used is named, with the reason.
    """
    from kiku.train.augment import read_augmentation
    from kiku.train.extra import need_torch
    from kiku.train.folders import read_rows
    from kiku.train.places import check_pack_folder

    need_torch("kiku train pack")
    if example.lead not in ("zero", "pad"):
        raise typer.BadParameter(f"{example.lead!r} is neither zero nor pad", param_hint="--lead")
    augmentation = None if example.augment is None else read_augmentation(example.augment)
    rows = [row for one in manifest for row in read_rows(one)]
    check_pack_folder(output)  # before a model is loaded
    from kiku.checkpoint import load
    from kiku.train.device import choose_device
    from kiku.train.examples import PackOptions
    from kiku.train.pack import pack

    options = PackOptions(
        delay_s=example.delay, lead=example.lead, most_s=example.most, seed=example.seed,
        augmentation=augmentation, sound=example.sound,
    )  # fmt: skip
    counter = _Counter("packed")
    done = pack(
        rows, load(model), output, options, device=choose_device(device), on_unit=counter.update
    )
    terminal.echo(_pack_report(done))
    if not done.examples:
        raise InputError("nothing could be packed: the reasons stand above")
    return 0


@app.command("align")
def align_command(
    manifest: _Manifest,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The manifest with times.")
    ],
    model: _Model = DEMO,
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Of learning which sounds are which letters.")
    ] = 1500,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what is drawn.")] = 0,
    device: _Device = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite FILE and its report, if they exist.")
    ] = False,
) -> int:
    """Find out when each word is said, for recordings whose texts have no times.

    A small network learns letters from these recordings as the model's codec hears them. What could
    not be aligned, and what looks wrong, is named here and in FILE's report; what looks wrong is
    drawn on a page beside it.
    """
    from kiku.train.extra import need_torch
    from kiku.train.folders import read_rows
    from kiku.train.manifest import write_manifest

    need_torch("kiku train align")
    report, drawn = output.with_suffix(".report.json"), output.with_suffix(".report.html")
    _check_aligned([output, report, drawn], manifest, force=force)
    rows = [row for one in manifest for row in read_rows(one)]
    from kiku.checkpoint import load
    from kiku.train.align import AlignOptions, align, page_of, report_of
    from kiku.train.device import choose_device

    meter = Meter(quiet=False, forced=True)
    options = AlignOptions(steps=steps, seed=seed)
    done = align(rows, load(model), options, device=choose_device(device), on_progress=meter.note)
    write_manifest(done.rows, output)
    write_result(report, json.dumps(report_of(done), indent=1, ensure_ascii=False) + "\n")
    lines = [f"{len(done.rows):,} rows have times now: {output}"]
    write_result(drawn, page_of(done))
    for name, found in (("left out", done.left_out), ("to look at", done.doubtful)):
        if found:
            lines.append(f"{name}: {len(found):,} (all of them are in {report})")
            lines += [f"  {one.row}: {one.why}" for one in found[:_SHOWN]]
    if done.pictures:
        lines.append(f"what they look like: {drawn}")
    terminal.echo("\n".join(lines) + "\n")
    return 0


def _check_aligned(files: Sequence[Path], manifests: Sequence[Path], *, force: bool) -> None:
    """Refuse files that cannot be written, or that exist, before anything is learned."""
    for path in files:
        refuse_no_file(path)
        if any(same_file(path, one) for one in manifests):
            raise typer.BadParameter(
                f"{path} is the manifest that is read; write to another file", param_hint="-o"
            )
    if not force:
        refuse_existing({path.suffix: path for path in files})
    make_folder(files[0].parent, wants="a file in a folder")


@app.command("fit")
def fit_command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A TOML file: see docs/teach.md.")
    ],
) -> int:
    """Train a model on a pack, as the file says; run again after an interruption, it goes on.

    Under torchrun several processes train together:
    torchrun --nproc-per-node 2 -m kiku train fit CONFIG
    """
    from kiku.train.extra import need_torch
    from kiku.train.settings import read_settings

    need_torch("kiku train fit")
    settings = read_settings(config)
    from kiku.train.fit import fit

    done = fit(settings, on_progress=lambda line: terminal.echo(f"{line}\n"))
    if done.step == done.resumed_at:
        terminal.echo(f"{done.folder} is finished already\n")
    return 0


@app.command("export")
def export_command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or an adapter of PEFT's.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for the model.")
    ],
    layout: Annotated[
        _Layout, typer.Option(help="Kyutai's, transformers', or PEFT's adapter alone.")
    ] = _Layout.NATIVE,
    last: Annotated[
        bool, typer.Option("--last", help="The weights of the last step, not the averaged ones.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help="float32, bfloat16, float16; auto: as it began.")
    ] = "auto",
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="What it began with, if that lies elsewhere.")
    ] = None,
    force: _ForceModel = False,
) -> int:
    """Write what was learned as a model that kiku, moshi and transformers load; adapters are
    merged.
    """
    from kiku.train.extra import need_torch

    need_torch("kiku train export")
    from kiku.checkpoint.loading import DTYPES
    from kiku.train.export import export

    if dtype not in ("auto", *DTYPES):
        raise typer.BadParameter(
            f"there is no {dtype!r}; there are auto, {', '.join(DTYPES)}", param_hint="--dtype"
        )
    which = "last" if last else "average"
    done = export(
        run, output, layout=layout.value, which=which, dtype=dtype, model=model, force=force
    )
    if done.left_out:
        terminal.error(f"{layout} has no place for {', '.join(done.left_out)}: left out")
    terminal.echo(f"{done.folder}\n")
    return 0


class _Counter:
    """Prints progress as a line on standard error now and then."""

    def __init__(self, what: str) -> None:
        self._meter, self._what, self._next = Meter(quiet=False, forced=True), what, 0.1

    def update(self, done: int, of: int, seconds: float) -> None:
        """Print a line at every tenth of the way."""
        if done / of >= self._next and done < of:
            self._next = done / of + 0.1
            self._meter.note(f"{self._what} {done:,} of {of:,}, {seconds / 3600:.2f} h of sound")


def _vocab_report(done: "Grown") -> str:
    size, new = len(done.vocabulary), done.new
    lines = [f"{done.folder}: {size:,} pieces, {len(new):,} of them new (ids {new.start} on)"]
    if done.letters:
        lines.append(f"letters that were lacking: {' '.join(done.letters)}")
    longest = sorted((done.vocabulary.piece(i) for i in new), key=len, reverse=True)
    lines.append(f"the longest new pieces: {' '.join(longest[:_SHOWN])}")
    if done.recut:
        lines.append(
            f"{len(done.recut):,} words that it could spell are cut otherwise now, and have to be "
            f"learned again: {' '.join(done.recut[:_SHOWN])}"
        )
    return "\n".join(lines) + "\n"


def _pack_report(done: "Packed") -> str:
    counts = ", ".join(f"{split} {count:,}" for split, count in sorted(done.examples.items()))
    lines = [
        f"{done.rows:,} rows -> {counts or 'no'} examples, {done.seconds / 3600:.3f} h of sound, "
        f"in {done.folder}"
    ]
    if done.resumed_at:
        lines.append(f"went on from {done.resumed_at:,} of {done.index.num_units:,}")
    unknown = done.index.unknown
    if unknown:
        lines.append(
            "letters that the vocabulary has no pieces for ( kiku train vocab  makes a model that "
            "has them):"
        )
        lines += [
            f"  {one.letter!r} in {one.words:,} words, first in {one.word!r} at {one.at_s:.2f} s "
            f"of {one.row}"
            for one in unknown[:_SHOWN]
        ]
    dropped = done.index.dropped
    if dropped:
        lines.append(f"dropped {len(dropped):,} rows:")
        lines += [f"  {one.row}: {one.why}" for one in dropped[:_SHOWN]]
    if len(dropped) > _SHOWN:
        lines.append(f"  ... all of them are in {done.folder / 'pack.json'}")
    return "\n".join(lines) + "\n"
