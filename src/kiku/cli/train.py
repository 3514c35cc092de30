"""`kiku train`: train a model, from recordings to a model that `kiku serve` takes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from kiku.checkpoint import DEMO
from kiku.cli import terminal
from kiku.cli.outputs import make_folder, refuse_existing, refuse_no_file, same_file, write_result
from kiku.cli.progress import Meter
from kiku.cli.terminal import FAILED
from kiku.cli.themes import themed
from kiku.cli.train_reports import align_report, pack_report, vocab_report
from kiku.errors import InputError

app = typer.Typer(
    help="Train a model: vocab, align, pack, fit, export. See docs/teach.md.",
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


_LINE_EVERY_S = 60.0
"""Seconds after which another line of progress is printed."""


class _Kind(StrEnum):
    """How pieces of a new vocabulary are found."""

    BPE = "bpe"
    UNIGRAM = "unigram"


_Manifest = Annotated[
    list[Path],
    typer.Argument(
        metavar="MANIFEST",
        help="Files of JSON lines, or folders: LibriSpeech, Common Voice, LJSpeech, Kaldi, or "
        "with a .txt beside each recording.",
    ),
]
_Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="demo, a repository, or a folder.")
]
_ForceModel = Annotated[
    bool, typer.Option("--force", help="Replace the model in DIR, if there is one.")
]
_Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", help="cpu, cuda, ...; auto uses a GPU if there is one."
    ),
]


@dataclass(frozen=True, slots=True)
class PieceOptions:
    """Which pieces the new vocabulary has."""

    pieces: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Most new pieces; with --new, most pieces altogether."
        ),
    ] = 200
    any_letters: Annotated[
        bool,
        typer.Option(
            "--any-letters", help="Also add pieces of letters that the model already has."
        ),
    ] = False
    new: Annotated[
        _Kind | None, typer.Option(help="Make a vocabulary of this kind from these texts alone.")
    ] = None


@app.command("vocab")
@themed
def vocab_command(
    *,
    manifest: _Manifest,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the model.")
    ],
    model: _Model = DEMO,
    wanted: PieceOptions,
    layout: Annotated[
        _ModelLayout, typer.Option(help="Layout of the model: Kyutai's, or transformers'.")
    ] = _ModelLayout.NATIVE,
    force: _ForceModel = False,
) -> int:
    """Make a model that can spell the texts of recordings: add new pieces to its vocabulary.

    Old pieces keep their ids, and old words their spelling. Each new piece starts from the pieces
    that spelled it before; kiku train fit then trains it.
    """
    from kiku.train.extra import need_torch
    from kiku.train.folders import read_rows

    need_torch("kiku train vocab")
    rows = [row for one in manifest for row in read_rows(one, terminal.error)]
    from kiku.train.vocab import VocabOptions, make_vocabulary

    kind = "" if wanted.new is None else wanted.new.value
    options = VocabOptions(wanted.pieces, wanted.any_letters, kind)
    done = make_vocabulary(rows, model, output, options, layout=layout.value, force=force)
    if done.left_out:
        terminal.error(f"left out, as {layout} cannot store it: {', '.join(done.left_out)}")
    terminal.echo(vocab_report(done))
    return 0


@dataclass(frozen=True, slots=True)
class ExampleOptions:
    """What an example holds."""

    delay: Annotated[
        float | None,
        typer.Option(
            "--delay", metavar="SECONDS", min=0.0, help="Delay of the text. Default: the model's."
        ),
    ] = None
    lead: Annotated[
        str,
        typer.Option(
            metavar="zero|pad", help="Before the delay, teach nothing (zero) or PAD (pad)."
        ),
    ] = "zero"
    most: Annotated[
        float, typer.Option("--most-s", metavar="SECONDS", min=1.0, help="Longest example.")
    ] = 60.0
    augment: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML file of augmentations: copies, speed, noise, join, ..."
        ),
    ] = None
    sound: Annotated[
        bool, typer.Option("--sound", help="Also keep the sound, for a run that trains the codec.")
    ] = False
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the random numbers.")] = 0


@app.command("pack")
@themed
def pack_command(
    *,
    manifest: _Manifest,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PACK", help="Folder for the pack.")
    ],
    model: _Model = DEMO,
    example: ExampleOptions,
    device: _Device = "auto",
) -> int:
    """Turn recordings and their words into codes and text, ready to train on.

    If it was interrupted, run it again to continue. Recordings that cannot be used are listed with
    the reason; the exit code is then 1.
    """
    from kiku.train.augment import read_augmentation
    from kiku.train.extra import need_torch
    from kiku.train.folders import read_rows
    from kiku.train.places import check_pack_folder

    need_torch("kiku train pack")
    if example.lead not in ("zero", "pad"):
        raise typer.BadParameter(
            f"{example.lead!r} is not possible; give zero or pad", param_hint="--lead"
        )
    augmentation = None if example.augment is None else read_augmentation(example.augment)
    rows = [row for one in manifest for row in read_rows(one, terminal.error)]
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
        rows, load(model), output, options, device=choose_device(device), on_progress=counter.update
    )
    terminal.echo(pack_report(done))
    if not done.examples:
        raise InputError("nothing could be packed; the reasons are listed above")
    return FAILED if done.index.dropped else 0


@app.command("align")
def align_command(
    manifest: _Manifest,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="File for the manifest with times."),
    ],
    model: _Model = DEMO,
    steps: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Steps of training, in which the aligner learns the letters."
        ),
    ] = 1500,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the random numbers.")] = 0,
    device: _Device = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite FILE and its report, if they exist.")
    ] = False,
) -> int:
    """Find the times of the words, for recordings whose texts have none.

    A small network learns letters from the codes of these recordings. Rows that could not be
    aligned, or that look wrong, are listed here and in the report next to FILE; if any could not
    be aligned, the exit code is 1. A page shows pictures of those that look wrong.
    """
    from kiku.train.extra import need_torch
    from kiku.train.folders import read_rows
    from kiku.train.manifest import write_manifest

    need_torch("kiku train align")
    report, drawn = output.with_suffix(".report.json"), output.with_suffix(".report.html")
    _check_aligned([output, report, drawn], manifest, force=force)
    rows = [row for one in manifest for row in read_rows(one, terminal.error)]
    from kiku.checkpoint import load
    from kiku.train.align import AlignOptions, align, page_of, report_of
    from kiku.train.device import choose_device

    meter = Meter(quiet=False, forced=True)
    options = AlignOptions(steps=steps, seed=seed)
    done = align(rows, load(model), options, device=choose_device(device), on_progress=meter.note)
    write_manifest(done.rows, output)
    write_result(report, json.dumps(report_of(done), indent=1, ensure_ascii=False) + "\n")
    write_result(drawn, page_of(done))
    terminal.echo(align_report(done, output, report, drawn))
    return FAILED if done.left_out else 0


def _check_aligned(files: Sequence[Path], manifests: Sequence[Path], *, force: bool) -> None:
    """Refuse files that cannot be written, or that exist, before anything is learned."""
    for path in files:
        refuse_no_file(path)
        if any(same_file(path, one) for one in manifests):
            raise typer.BadParameter(
                f"{path} is a manifest that this command reads; write to another file",
                param_hint="-o",
            )
    if not force:
        refuse_existing({path.suffix: path for path in files})
    make_folder(files[0].parent, wants="a file in a folder")


@app.command("fit")
def fit_command(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="Settings of the run in TOML; see docs/teach.md."),
    ],
) -> int:
    """Train a model on a pack with the settings of a file.

    If it was interrupted, run it again to continue.

    With torchrun, several processes train together:
    torchrun --nproc-per-node 2 -m kiku train fit CONFIG
    """
    from kiku.train.extra import need_torch
    from kiku.train.settings import read_settings

    need_torch("kiku train fit")
    settings = read_settings(config)
    from kiku.train.fit import fit

    done = fit(settings, on_progress=lambda line: terminal.echo(f"{line}\n"))
    if done.step == done.resumed_at:
        terminal.echo(f"{done.folder} is already finished\n")
    return 0


@app.command("export")
def export_command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run, or of an adapter in PEFT's format."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the model.")
    ],
    layout: Annotated[
        _Layout,
        typer.Option(
            help="Layout of the model: Kyutai's, transformers', or PEFT's with the adapter alone."
        ),
    ] = _Layout.NATIVE,
    last: Annotated[
        bool,
        typer.Option(
            "--last", help="Export the weights of the last step instead of the averaged ones."
        ),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="float32, bfloat16 or float16; auto keeps the dtype that training started from.",
        ),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model that training started from, if it has moved."),
    ] = None,
    force: _ForceModel = False,
) -> int:
    """Write the trained weights as a model that kiku, moshi and transformers can load. Adapters are
    merged.
    """
    from kiku.train.extra import need_torch

    need_torch("kiku train export")
    from kiku.checkpoint.loading import DTYPES
    from kiku.train.export import export

    if dtype not in ("auto", *DTYPES):
        raise typer.BadParameter(
            f"{dtype!r} is not known; choose one of auto, {', '.join(DTYPES)}", param_hint="--dtype"
        )
    which = "last" if last else "average"
    done = export(
        run, output, layout=layout.value, which=which, dtype=dtype, model=model, force=force
    )
    if done.left_out:
        terminal.error(f"left out, as {layout} cannot store it: {', '.join(done.left_out)}")
    terminal.echo(f"{done.folder}\n")
    return 0


class _Counter:
    """Prints progress as a line on standard error now and then."""

    def __init__(self, what: str) -> None:
        self._meter, self._what, self._next = Meter(quiet=False, forced=True), what, 0.1
        self._last = monotonic()

    def update(self, done: int, of: int, seconds: float) -> None:
        """Print a line at every tenth of the way, and when there was none for a minute."""
        late = monotonic() - self._last >= _LINE_EVERY_S
        if done < of and (late or done / of >= self._next):
            self._next, self._last = max(self._next, done / of + 0.1), monotonic()
            self._meter.note(f"{self._what} {done:,} of {of:,}, {seconds / 3600:.2f} h of sound")
