"""`python -m recipes.english gate` trains the transformer alone and says how well it hears."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recipes.english.gate import Gate, run_gate

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A model of ordinary English.")


@app.callback()
def english() -> None:
    """A model of ordinary English: so far, the gate before it."""


@app.command()
def gate(
    data: Annotated[Path, typer.Option(help="Folder of recordings, as for recipes.demo.")],
    out: Annotated[Path, typer.Option(help="Folder for caches, checkpoints and the log.")],
    teacher: Annotated[list[Path], typer.Option(help="The two wheels of Whisper base.")],
    minutes: Annotated[float, typer.Option(help="Of two processors.")] = 360.0,
    said_hours: Annotated[float, typer.Option(help="Of synthetic speech.")] = 10.0,
    start: Annotated[Path | None, typer.Option(help="trunk.pt of an earlier run.")] = None,
    ahead: Annotated[
        int | None, typer.Option(help="States of the future that are seen, all the time.")
    ] = None,
) -> None:
    """Train the transformer on spectra, and measure it on readers it never heard."""
    found = run_gate(
        Gate(data, out, tuple(teacher), minutes * 60, said_hours, start=start, always=ahead)
    )
    typer.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    app()
