"""Standard output for results, standard error for messages about them."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

from kiku.cli.end_request import EndRequest
from kiku.errors import KikuError, OutputError

FAILED, MISUSED, INTERRUPTED, READER_GONE = 1, 2, 130, 141
"""Exit codes: something failed, the command makes no sense, Ctrl-C, and a reader that is gone."""

_ARGUMENT = re.compile(
    r"\b(?:[a-z]+(?:_[a-z]+)+|channel='mix')(?: in StreamOptions)? \((--[a-z-]+(?: mix)?)\)"
)


class ReaderGone(Exception):
    """The reader of our standard output is gone (`kiku ... | head`): no one reads results."""


def echo(text: str) -> None:
    """Print `text` on standard output at once.

    Raises:
        ReaderGone: its reader is gone.
        OutputError: it cannot be written (a full disk); later it may work again.
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
    """Print a message on standard error; it is lost if nobody reads that (`2>&1 | head`).

    An argument of Python that is followed by its option, "start_s (--start)", is that option here.
    """
    said = _ARGUMENT.sub(r"\1", message)
    try:
        sys.stderr.write(f"kiku: {said}\n")
        sys.stderr.flush()
    except OSError:
        # The reader of the results may still be there, so this is no reason to stop.
        _mute(sys.stderr)


def describe(error: Exception) -> str:
    """An error in one sentence: for kiku's own errors, their message."""
    if isinstance(error, KikuError):
        return str(error)
    if _is_out_of_memory(error):
        return (
            "there is not enough memory; use a smaller --model, --dtype bfloat16, or another "
            "--device"
        )
    return f"unexpected {type(error).__name__}: {error}; KIKU_DEBUG=1 shows the traceback"


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch raises a RuntimeError or a subclass; its CPU allocator has another message.
    # NumPy raises a ValueError for more bytes than there are addresses.
    said = str(error).lower()
    if isinstance(error, ValueError) and said.startswith("array is too big"):
        return True
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in said or "can't allocate memory" in said)
    )


def _mute(stream: TextIO) -> None:
    """Send later output to the null device: Python flushes once more at its end, and would fail."""
    # A program that calls `main` may have replaced the stream by one without a number.
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@dataclass
class Context:
    """What all commands share."""

    debug: bool = False
    """Let errors through with their traceback."""
    end_request: EndRequest | None = None
    """What `kiku serve` is asked as it starts."""


class _LogLines(logging.Handler):
    """Log records as lines on standard error, wherever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        error(f"warning: {record.getMessage()}")


@contextmanager
def plain_output() -> Generator[None, None, None]:
    """Print warnings and log records as lines in this block; no character stops the output."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            # A character that the terminal lacks is replaced, rather than losing all output.
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
        except OSError:  # the error has been reported
            _mute(sys.stdout)


def _write_warning(message: Warning | str, category: type[Warning], *_where: object) -> None:
    # Warnings for developers of libraries are not for users of a command.
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | ResourceWarning):
        error(f"warning: {message}")
