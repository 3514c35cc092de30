"""`python -m recipes.demo make` makes the demo model; `... evaluate` measures one."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kiku.checkpoint import DEMO
from recipes.demo.make import KEPT, Budgets, DemoRecipe, make_demo
from recipes.demo.report import as_rows, measure

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Train and measure the demo model."
)

Data = Annotated[
    Path, typer.Option(help="Folder of recordings (train.jsonl, dev.jsonl, speech, noise, text).")
]


@app.command("make")
def make_model(
    data: Data,
    out: Annotated[
        Path, typer.Option(help="Folder for caches, checkpoints and the finished model.")
    ],
    scale: Annotated[
        float, typer.Option(help="Multiplies the time that every stage trains.")
    ] = 1.0,
    start: Annotated[
        str | None,
        typer.Option(
            help="Goes on from an earlier model (what kiku.load takes) in place of the stages"
            " before the tuning: a folder of the same shapes, or demo."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another one draws other strings to train on.")] = 0,
    kept: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="How much of --start stays in the weights that are written."
        ),
    ] = KEPT,
) -> None:
    """Make the demo model: over an hour on two cores. Goes on where it was killed."""
    make_demo(DemoRecipe(data, out, Budgets().scaled(scale), start, seed, kept), out / "demo")
    typer.echo(
        f"the model is in {out / 'demo'}, its learning curve in {out / 'learning_curve.png'}"
    )


@app.command()
def evaluate(
    data: Data,
    cache: Annotated[Path, typer.Option(help="Folder for the decoded recordings.")],
    model: Annotated[str, typer.Option(help="What kiku.load takes.")] = DEMO,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures there too.")
    ] = None,
) -> None:
    """Word errors on speakers and voices that the demo model never heard."""
    figures = measure(data, cache, model)
    for figure in figures:
        typer.echo(figure.line())
    if json_file is not None:
        json_file.write_text(json.dumps(as_rows(figures), indent=2) + "\n")


if __name__ == "__main__":
    app()
