"""Standard output for results, standard error for everything said about them."""

import logging
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

from kiku.errors import KikuError, OutputError

FAILED, MISUSED, INTERRUPTED, READER_GONE = 1, 2, 130, 141
"""Exit codes: something could not be done, the command makes no sense, Ctrl-C, and `| head`."""


class ReaderGone(Exception):
    """Whoever read our standard output has gone (`kiku ... | head`): there is nobody to tell."""


def echo(text: str) -> None:
    """Put `text` on standard output at once.

    Raises:
        ReaderGone: nobody reads it any more.
        OutputError: it takes no more (a full disk); later it may.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _mute(sys.stdout)
        raise ReaderGone from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"standard output cannot be written ({reason}); make room, or write files with -o"
        ) from error


def error(message: str) -> None:
    """Put a message on standard error; it is lost where nobody reads that (`2>&1 | head`)."""
    try:
        sys.stderr.write(f"kiku: {message}\n")
        sys.stderr.flush()
    except OSError:
        # Whoever wants the results may still be there: no reason to stop.
        _mute(sys.stderr)


def describe(error: Exception) -> str:
    """What went wrong, in one sentence: kiku's errors say it themselves."""
    if isinstance(error, KikuError):
        return str(error)
    if _is_out_of_memory(error):
        return (
            "there is not enough memory; use a smaller --model, --dtype bfloat16, "
            "or another --device"
        )
    return f"unexpected {type(error).__name__}: {error}; KIKU_DEBUG=1 shows the traceback"


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch says it with a RuntimeError, or one derived from it; its CPU allocator in other words.
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in said or "can't allocate memory" in said)
    )


def _mute(stream: TextIO) -> None:
    """Send what comes later nowhere: Python flushes once more at its end, and would fail again."""
    # What stands in for a stream in a program that calls `main` may have no number.
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@dataclass
class Context:
    """How a command behaves whatever it does."""

    debug: bool = False
    """Let errors through with their traceback."""


class _LogLines(logging.Handler):
    """Log records as lines on standard error, wherever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        error(f"warning: {record.getMessage()}")


@contextmanager
def plain_output() -> Generator[None, None, None]:
    """Within, warnings and log records come out as lines, and no letter stops the output."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            # A terminal that lacks a letter shows something in its place rather than losing all.
            reconfigure(errors="backslashreplace")
    logger, handler = logging.getLogger("kiku"), _LogLines(logging.WARNING)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _write_warning
            yield
    finally:
        logger.removeHandler(handler)
        try:
            sys.stdout.flush()
        except OSError:  # what it did not take has been told of
            _mute(sys.stdout)


def _write_warning(message: Warning | str, category: type[Warning], *_where: object) -> None:
    # What libraries tell their developers is not for whoever runs a command.
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | ResourceWarning):
        error(f"warning: {message}")
