"""The commands, and how each of them reports an error: with one sentence and an exit code."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

import kiku
from kiku.cli import terminal
from kiku.cli.advice import advise, empty_argument
from kiku.cli.bench import bench
from kiku.cli.doctor import doctor
from kiku.cli.end_request import EndRequest
from kiku.cli.evaluate import evaluate_command
from kiku.cli.interrupts import all_like_ctrl_c, was_interrupted
from kiku.cli.listen import listen
from kiku.cli.loadtest import loadtest
from kiku.cli.models import app as models
from kiku.cli.plan import plan_command
from kiku.cli.serve import serve
from kiku.cli.terminal import (
    FAILED,
    INTERRUPTED,
    MISUSED,
    READER_GONE,
    ReaderGone,
    describe,
    plain_output,
)
from kiku.cli.themes import ThemedCommand
from kiku.cli.train import app as train
from kiku.cli.transcribe import transcribe_command

app = typer.Typer(
    name="kiku",
    help="Kyutai's streaming speech-to-text: turns recorded or live speech into words with times.",
    # Plain help and plain errors: the same in a terminal, a pipe and a log.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("transcribe", cls=ThemedCommand)(transcribe_command)
app.command("listen", cls=ThemedCommand)(listen)
app.add_typer(models, name="models")
app.command("bench")(bench)
app.command("evaluate", cls=ThemedCommand)(evaluate_command)
app.command("serve", cls=ThemedCommand)(serve)
app.command("loadtest")(loadtest)
app.command("plan")(plan_command)
app.command("doctor")(doctor)
app.add_typer(train, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        terminal.echo(f"kiku {kiku.__version__}\n")
        raise typer.Exit


@app.callback()
def shared_options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show the traceback of an unexpected error. KIKU_DEBUG=1 does the same."
        ),
    ] = False,
) -> None:
    """Kyutai's streaming speech-to-text: recorded speech in, words with times out."""
    context.ensure_object(terminal.Context).debug |= debug


def run_command(
    arguments: Sequence[str] | None = None, end_request: EndRequest | None = None
) -> int:
    """Run `kiku`.

    Args:
        arguments: what follows the program's name; None takes them from the command line.
        end_request: for `kiku serve`.

    Returns:
        The exit code.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    debug = bool(os.environ.get("KIKU_DEBUG"))
    shared = terminal.Context(debug, end_request)
    with plain_output(), all_like_ctrl_c() as ending:
        if (wrong := empty_argument(arguments)) is not None:
            terminal.error(wrong)
            return MISUSED
        try:
            code = app(
                args=arguments or ["--help"], prog_name="kiku", standalone_mode=False, obj=shared
            )
            if code == INTERRUPTED:
                return ending.code
            return code if isinstance(code, int) else 0
        except typer.TyperException as error:
            terminal.error(advise(error, arguments, get_command(app)))
            return MISUSED
        except ReaderGone:
            return READER_GONE
        except KeyboardInterrupt:
            terminal.error("interrupted")
            return ending.code
        except Exception as error:
            if was_interrupted(error):
                terminal.error("interrupted")
                return ending.code
            if shared.debug:
                raise
            terminal.error(describe(error))
            return FAILED
