"""What must not happen in a process that was forked from one that had loaded a model.

A fork copies the memory and leaves the threads behind: whoever then waits for a pool of threads,
be it only to end it, waits for ever. So engines refuse to work in another process than their own,
and what holds a pool is never destroyed there.
"""

import ctypes
import os
import weakref
from typing import Any

from kiku.errors import StreamError

_held: "weakref.WeakSet[Any]" = weakref.WeakSet()
_pid = _first_pid = os.getpid()


class Held:
    """Something native that holds threads of its own."""

    def __init__(self, native: Any) -> None:
        """Around `native`, which must not be destroyed in a forked process."""
        self.native = native
        _held.add(self)


def process() -> int:
    """The number of this process; cheaper than asking the system."""
    return _pid


def is_forked() -> bool:
    """Whether this process was forked since this module was loaded."""
    return _pid != _first_pid


def check_process(pid: int) -> None:
    """Refuse to work in another process than `pid`.

    Raises:
        StreamError: this one was forked.
    """
    if pid != _pid:
        raise StreamError(
            "the model was loaded before this process was forked from its parent, and its threads "
            "stayed there: load it in this process, or start processes by 'spawn'"
        )


def _after_fork() -> None:
    global _pid
    _pid = os.getpid()
    for held in list(_held):
        # Once more than anybody will ever give back: its destructor is never called.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held.native))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
