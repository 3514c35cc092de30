"""The command `kiku`.

    app.py          the commands, and what every one of them does with errors
    advice.py       mistakes on the command line -> the command that was meant
    transcribe.py   kiku transcribe: whether its options make sense, and what is left to do
    transcribe_options.py  options that only kiku transcribe takes
    transcribe_fleet.py  kiku transcribe --ray
    run.py          one recording after the other; a failure of one does not stop the others
    listen.py       kiku listen: its options, and whether they make sense
    listening.py    one live stream from its first sound to its last word
    feed.py         sound -> a live stream, at the sound's own speed
    live_results.py events -> txt, srt and JSON lines, written while they come
    captions_view.py  live captions on a terminal
    options.py      options that several commands take, and what they make of a stream
    themes.py       dataclasses of options -> a command's options, and its help
    loaded.py       the model, with notes while it is loaded
    lines.py        words -> whole lines
    inputs.py       paths and folders -> recordings
    raw.py          samples without a header
    outputs.py      recordings -> names of files, written whole or not at all
    word_output.py  words on standard output, as they come
    progress.py     progress, on standard error
    models.py       kiku models list | info | verify | pull | convert | rm
    bench.py        kiku bench
    plan.py         kiku plan
    evaluate.py     kiku evaluate
    doctor.py       kiku doctor
    train.py        kiku train vocab | align | pack | fit | export
    interrupts.py   Ctrl-C, and what counts as Ctrl-C
    end_request.py  Ctrl-C and SIGTERM while kiku serve starts
    columns.py      rows of text as a table
    terminal.py     the only place that writes to standard output and standard error

Nothing here imports torch or onnxruntime, so `kiku --help` answers at once. This file imports
nothing that takes time, so that Ctrl-C is quiet from the beginning.
"""

import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType

from kiku.cli.end_request import first_is_noted

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `kiku`. Standard streams that are closed (None) are replaced by the null device.

    Args:
        arguments: what follows the program's name; None takes them from the command line.

    Returns:
        The exit code.
    """
    _open_closed()
    given = sys.argv[1:] if arguments is None else arguments
    if next((one for one in given if not one.startswith("-")), "") == "serve":
        with first_is_noted() as end_request:
            from kiku.cli.app import run_command

            return run_command(arguments, end_request)
    with _quiet_interrupts():
        from kiku.cli.app import run_command
    return run_command(arguments)


def _open_closed() -> None:
    """Open the null device for closed streams, as some daemons leave them: results may be files."""
    # In the order of their numbers: each takes the lowest number that is free, which is its own.
    # Otherwise the first file that is written would get that number, and what libraries print.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


@contextmanager
def _quiet_interrupts() -> Generator[None]:
    """Let Ctrl-C end the program at once while the block imports: a module that is interrupted
    half way may turn it into any other error."""
    quiet = "kiku.cli.app" not in sys.modules
    try:
        # A program that ignores Ctrl-C, or has a handler of its own, keeps that.
        quiet = quiet and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if quiet:
            signal.signal(signal.SIGINT, _leave)
    except ValueError:  # not in the main thread, where Ctrl-C does not come either
        quiet = False
    try:
        yield
    finally:
        if quiet:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"kiku: interrupted\n")
    os._exit(128 + number)
