"""`python -m recipes.teach FOLDER` makes the recordings of docs/teach.md."""

from pathlib import Path
from typing import Annotated

import typer

from recipes.teach.speak import speak

app = typer.Typer(add_completion=False, help="Recordings to follow docs/teach.md with.")


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="For wav files and manifests.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder of recordings of people, to mix them in.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another one says other strings.")] = 0,
) -> None:
    """Speak; espeak-ng has to be installed."""
    speak(folder, data, seed)


if __name__ == "__main__":
    app()
