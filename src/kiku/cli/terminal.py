"""Standard output for results, standard error for everything said about them."""

import logging
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from kiku.errors import KikuError

FAILED, MISUSED, INTERRUPTED, READER_GONE = 1, 2, 130, 141
"""Exit codes: something could not be done, the command makes no sense, Ctrl-C, and `| head`."""


class ReaderGone(Exception):
    """Whoever read our standard output has gone (`kiku ... | head`): there is nobody to tell."""


def say(text: str) -> None:
    """Put `text` on standard output at once.

    Raises:
        ReaderGone: nobody reads it any more.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ReaderGone from None


def complain(message: str) -> None:
    """Put a message on standard error."""
    sys.stderr.write(f"kiku: {message}\n")
    sys.stderr.flush()


def describe(error: Exception) -> str:
    """What went wrong, in one sentence: kiku's errors say it themselves."""
    if isinstance(error, KikuError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}; KIKU_DEBUG=1 shows the traceback"


@dataclass
class Manner:
    """How a command behaves whatever it does."""

    debug: bool = False
    """Let errors through with their traceback."""


class _Complaints(logging.Handler):
    """Log records as lines on standard error, wherever that is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"warning: {record.getMessage()}")


@contextmanager
def plain_speech() -> Generator[None, None, None]:
    """Within, warnings and log records come out as lines, and no letter stops the output."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            # A terminal that lacks a letter shows something in its place rather than losing all.
            reconfigure(errors="backslashreplace")
    logger, handler = logging.getLogger("kiku"), _Complaints(logging.WARNING)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)


def _show_warning(message: Warning | str, category: type[Warning], *_where: object) -> None:
    # What libraries tell their developers is not for whoever runs a command.
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | ResourceWarning):
        complain(f"warning: {message}")
