"""`kiku models`: which there are, what they are, whether they are whole, fetching them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiku.checkpoint import DEMO, KNOWN_REPOS, Files, KnownRepo, find
from kiku.cli.terminal import FAILED, say
from kiku.errors import MissingExtra

if TYPE_CHECKING:
    from kiku.config import ModelConfig

app = typer.Typer(help="List, describe, check and download models.", rich_markup_mode=None)

_Model = Annotated[
    str, typer.Argument(metavar="NAME", help="demo, a Hugging Face repository, or a folder.")
]
_Revision = Annotated[
    str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the repository.")
]

_DEMO = (DEMO, "en", "0.5 s", "4", "-", "ships with kiku; a few words only")


@app.command("list")
def list_models() -> int:
    """List the models that can be named, with what has to be downloaded for each."""
    head = ("NAME", "LANGUAGES", "DELAY", "PAUSE HEADS", "DOWNLOAD", "NOTE")
    say(_columns([head, _DEMO, *map(_row, KNOWN_REPOS)]))
    return 0


@app.command("info")
def info(model: _Model = DEMO, revision: _Revision = None) -> int:
    """Show the numbers of a model. Of a repository only the small files are fetched."""
    local = model == DEMO or Path(model).is_dir()
    files = find(model, revision=revision, weights=local)
    try:
        from kiku.checkpoint import read_config
    except ModuleNotFoundError as error:
        raise MissingExtra("reading a model's config", "torch") from error
    say(_columns(_facts(model, files, read_config(files))))
    return 0


@app.command("verify")
def verify_model(model: _Model = DEMO, revision: _Revision = None) -> int:
    """Check that a model is whole: its files, tensors and vocabulary. Exit code 1 if it is not."""
    try:
        from kiku.checkpoint import verify
    except ModuleNotFoundError as error:
        raise MissingExtra("checking a model", "torch") from error
    findings = verify(model, revision=revision)
    for finding in findings:
        say(f"{'ok ' if finding.ok else 'BAD'}  {finding.what}: {finding.detail}\n")
    return 0 if all(finding.ok for finding in findings) else FAILED


@app.command("pull")
def pull(model: _Model, revision: _Revision = None) -> int:
    """Download what a model needs, so that it can be used without a network; print where it is."""
    files = find(model, revision=revision)
    say(f"{files.config.parent}\n")
    return 0


def _row(repo: KnownRepo) -> tuple[str, ...]:
    return (
        repo.repo_id,
        repo.languages,
        f"{repo.text_delay_s} s",
        str(repo.num_pause_heads or "-"),
        f"{repo.download_gb} GB",
        repo.note,
    )


def _facts(name: str, files: Files, config: "ModelConfig") -> Iterable[tuple[str, str]]:
    lm, codec = config.lm, config.codec
    heads = max(
        [lm.num_pause_heads, *(r.num_pause_heads for r in KNOWN_REPOS if r.repo_id == name)]
    )
    yield "name", name
    yield "layout", files.layout
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
    yield "folder", str(files.config.parent)
    if files.weights:
        size = sum(path.stat().st_size for path in files.weights)
        yield "weights", f"{size / 1e6:,.1f} MB in {len(files.weights)} files"


def _columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines whose columns stand below one another."""
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)
