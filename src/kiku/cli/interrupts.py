"""Signals that end a command early: Ctrl-C, and those that are handled like it."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from kiku.cli.terminal import INTERRUPTED

_NAMES = ("SIGTERM", "SIGHUP")
"""Sent by a service or a batch system that wants the machine back, and by a closed terminal."""


class Ending:
    """Which signal ended the command, if one did."""

    def __init__(self) -> None:
        """Start before any signal."""
        self._number = int(signal.SIGINT)

    @property
    def code(self) -> int:
        """The exit code that shells use for a program that was ended by this signal."""
        return INTERRUPTED - int(signal.SIGINT) + self._number

    def note(self, number: int, frame: FrameType | None) -> None:
        """Do what Ctrl-C would do now."""
        self._number = number
        ctrl_c = signal.getsignal(signal.SIGINT)
        if callable(ctrl_c):
            ctrl_c(number, frame)
        else:  # Ctrl-C is ignored, as in the background of a script; this is no Ctrl-C
            raise KeyboardInterrupt


def was_interrupted(error: BaseException) -> bool:
    """Whether an error was caused by Ctrl-C: a compiled module that is interrupted while it is
    imported raises an `ImportError` instead."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return True
        cause = cause.__cause__
    return False


@contextmanager
def all_like_ctrl_c() -> Generator[Ending, None, None]:
    """Handle all requests to end the program like Ctrl-C in this block, so results are kept."""
    ending, before = Ending(), dict[int, signal.Handlers | int]()
    try:
        for name in _NAMES:
            number = getattr(signal, name, None)
            # A program that ignores one (`nohup`), or has a handler of its own, keeps that.
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, ending.note)
                before[number] = signal.SIG_DFL
    except ValueError:  # not in the main thread, where signals do not come either
        pass
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
