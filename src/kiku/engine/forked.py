"""Protection of a process that was forked from one that had loaded a model.

A fork copies the memory but not the threads. Code that then waits for a thread pool, even only to
end it, waits for ever. So an engine refuses to work in another process than its own, and an object
that holds a thread pool is never destroyed there.
"""

import ctypes
import os
import weakref
from typing import Any

from kiku.errors import StreamError

_held: "weakref.WeakSet[Any]" = weakref.WeakSet()
_pid = _first_pid = os.getpid()


class Held:
    """A native object that holds threads of its own."""

    def __init__(self, native: Any) -> None:
        """Around `native`, which must not be destroyed in a forked process."""
        self.native = native
        _held.add(self)


def process() -> int:
    """The id of this process, as noted here: cheaper than asking the system."""
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
            "the model was loaded before this process was forked from its parent, and its "
            "threads are not in this process: load it in this process, or start processes with "
            "'spawn'"
        )


def _after_fork() -> None:
    global _pid
    _pid = os.getpid()
    for held in list(_held):
        # This reference is never given back, so the destructor is never called.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held.native))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
