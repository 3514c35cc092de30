"""`kiku models`: lists, describes, checks, downloads and converts models."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiku.checkpoint import DEMO, KNOWN_REPOS, KnownRepo, find, is_local
from kiku.cli import terminal
from kiku.cli.columns import columns
from kiku.cli.options import Revision, mistake_in
from kiku.cli.progress import Meter
from kiku.cli.terminal import FAILED
from kiku.converted import Entry, cache_folder, entries, entries_of, name_of, remove

if TYPE_CHECKING:
    from kiku.config import ModelConfig

app = typer.Typer(help="List, describe, check, download and convert models.", rich_markup_mode=None)

_Model = Annotated[
    str, typer.Argument(metavar="NAME", help="demo, a Hugging Face repository, or a folder.")
]
_Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="int8, int4, float32, int8_kv8 or int4_kv8.")
]
_Target = Annotated[
    Path | None,
    typer.Option("--to", metavar="DIR", help="Write it to this folder instead of the cache."),
]

_DEMO = (DEMO, "en", "0.5 s", "4", "-", "included; few words only")


@app.command("list")
def list_models() -> int:
    """List the models that kiku knows by name, with their download sizes, and the models that are
    converted for ONNX Runtime.
    """
    head = ("NAME", "SPEAKS", "DELAY", "HEADS", "GB", "NOTE")
    terminal.echo(columns([head, _DEMO, *map(_row, KNOWN_REPOS)]))
    if kept := entries():
        terminal.echo(
            "\n"
            + columns([("CONVERTED", "PRECISION", "SIZE", ""), *(_entry(e, kept) for e in kept)])
            + f"\nin {cache_folder()}\n"
        )
    return 0


@app.command("info")
def show_model(model: _Model = DEMO, revision: Revision = None) -> int:
    """Show the numbers of a model. From a repository, only the small files are downloaded."""
    from kiku.checkpoint import read_config
    from kiku.converted import is_converted, open_converted

    if is_converted(model):
        opened = open_converted(model)
        rows = [
            ("name", opened.name),
            ("layout", f"converted to {opened.precision} by kiku {opened.manifest.kiku}"),
            *_facts(opened.name, opened.config),
            ("folder", str(opened.folder)),
            ("weights", f"{opened.manifest.num_bytes / 1e6:,.1f} MB"),
        ]
        terminal.echo(columns(rows))
        return 0
    files = find(model, revision=revision, weights=is_local(model))
    rows = [
        ("name", model),
        ("layout", files.layout),
        *_facts(model, read_config(files)),
        ("folder", str(files.config.parent)),
    ]
    if files.weights:
        size = sum(path.stat().st_size for path in files.weights)
        rows.append(("weights", f"{size / 1e6:,.1f} MB in {len(files.weights)} files"))
    terminal.echo(columns(rows))
    return 0


@app.command("verify")
def verify_model(model: _Model = DEMO, revision: Revision = None) -> int:
    """Check that a model is complete: its files, tensors and vocabulary, and its conversions.

    The exit code is 1 if it is not.
    """
    from kiku.checkpoint import verify
    from kiku.converted import is_converted, verify_converted

    converted = is_converted(model)
    findings = verify_converted(model) if converted else verify(model, revision=revision)
    for finding in findings:
        terminal.echo(f"{'ok ' if finding.ok else 'BAD'}  {finding.what}: {finding.detail}\n")
    good = all(finding.ok for finding in findings)
    for entry in entries_of(model):
        if not entry.is_whole:
            continue
        wrong = [finding for finding in verify_converted(entry.folder) if not finding.ok]
        for finding in wrong:
            terminal.echo(f"BAD  {entry.folder / finding.what}: {finding.detail}\n")
        if wrong:
            again = f"kiku models convert {model} --precision {entry.precision}"
            terminal.error(f"{again}  makes a new one")
        else:
            terminal.echo(f"ok   converted to {entry.precision}: {entry.folder}\n")
        good &= not wrong
    return 0 if good else FAILED


@app.command("pull")
def pull_model(model: _Model, revision: Revision = None) -> int:
    """Download a model, so that it can be used without a network, and print where it is."""
    files = find(model, revision=revision)
    terminal.echo(f"{files.config.parent}\n")
    return 0


@app.command("convert")
def convert_model(
    model: _Model,
    precision: _Precision = None,
    target: _Target = None,
    revision: Revision = None,
) -> int:
    """Convert a model for ONNX Runtime, as its first use would, and print where it is.

    The folder contains everything: you can copy it to another machine and give it there as the
    model. If the model is converted already, kiku checks all of it, and converts it again if it is
    damaged.
    """
    from kiku.converted import convert
    from kiku.graph import check_precision

    if precision is not None:
        with mistake_in("--precision"):
            check_precision(precision)
    with Meter(quiet=False).noting():
        made = convert(
            model, precision=precision, revision=revision, folder=target,
            checksums=True, lasting=True,
        )  # fmt: skip
    terminal.echo(f"{made.folder}\n")
    return 0


@app.command("rm")
def remove_model(model: _Model, precision: _Precision = None) -> int:
    """Remove the conversions of a model from the cache. The model itself stays where it is."""
    from kiku.converted import is_converted

    found = entries_of(model, precision)
    if not found and is_converted(model):
        terminal.error(f"{model} is a folder outside the cache; remove it as any other folder")
        return FAILED
    if not found:
        what = f"{model} in {precision}" if precision else model
        alike = [entry.folder.name for entry in entries() if entry.title == name_of(model)]
        others = (
            f"; there is one made from other files of the same name: {', '.join(alike)}"
            if alike
            else ""
        )
        terminal.error(
            f"{what} is not converted; run kiku models list to see which models are{others}"
        )
        return FAILED
    for entry in found:
        link = entry.folder.resolve() if entry.folder.is_symlink() else None
        remove(entry)
        what = _megabytes(entry) if link is None else f"a link; the files stay in {link}"
        terminal.echo(f"removed {entry.folder}, {what}\n")
    return 0


def _entry(entry: Entry, all_of_them: Sequence[Entry]) -> tuple[str, ...]:
    note = "" if entry.is_whole else "not finished"
    # Two of one name, from different files, are distinguished by their folders.
    same = [one for one in all_of_them if _called(one) == _called(entry)]
    note = note if len(same) == 1 else f"{entry.folder.name} {note}".rstrip()
    return *_called(entry), _megabytes(entry), note


def _called(entry: Entry) -> tuple[str, str]:
    return entry.title, entry.precision


def _megabytes(entry: Entry) -> str:
    return f"{entry.num_bytes / 1e6:,.1f} MB"


def _row(repo: KnownRepo) -> tuple[str, ...]:
    return (
        repo.repo_id,
        repo.languages,
        f"{repo.text_delay_s} s",
        str(repo.num_pause_heads or "-"),
        f"{repo.download_gb}",
        repo.note,
    )


def _facts(name: str, config: "ModelConfig") -> Iterable[tuple[str, str]]:
    lm, codec = config.lm, config.codec
    heads = max(
        [lm.num_pause_heads, *(r.num_pause_heads for r in KNOWN_REPOS if r.repo_id == name)]
    )
    yield "sound", f"{config.sample_rate:,} Hz, {config.frame_rate:g} frames a second"
    yield "codec", f"{codec.num_codebooks} codebooks of {codec.codebook_size:,} codes"
    yield (
        "decoder",
        f"{lm.transformer.num_layers} layers of {lm.transformer.dim:,}, reads {lm.num_codebooks} "
        f"codebooks, remembers {lm.transformer.window / config.frame_rate:g} s",
    )
    yield "vocabulary", f"{lm.text_vocab_size:,} tokens"
    yield "delay", f"{config.text_delay_s:g} s"
    yield "silence before", f"{config.silence_prefix_s:g} s"
    yield "pause heads", str(heads)
