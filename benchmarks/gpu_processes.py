"""Processes that `gpu.py` measures in: they may hang, die, and say anything."""

import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

REST_S = 1.0
"""For what is left in the pipes of a process that has gone: a child of its own may hold them."""

LOOK_S = 0.2
"""How often it is looked whether a process has gone: with its pipes held nothing tells."""


class Watched:
    """A process whose lines are read as they come. It is killed at `ends`, a time of
    `time.monotonic`, and `late` says that it was."""

    def __init__(self, command: Sequence[str], ends: float) -> None:
        """Start it."""
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.ends, self.late = ends, False
        self._gone: float | None = None

    def lines(self) -> Iterator[tuple[bool, str]]:
        """Every line, and whether it is one of errors; also lines that were begun."""
        assert self.process.stdout
        assert self.process.stderr
        rests = {self.process.stdout: b"", self.process.stderr: b""}
        try:
            with selectors.DefaultSelector() as selector:
                for pipe in rests:
                    selector.register(pipe, selectors.EVENT_READ, pipe)
                while self._goes_on(bool(selector.get_map())):
                    for key, _ in selector.select(LOOK_S):
                        # Whatever is there: a whole line may never come.
                        piece = os.read(key.fd, 1 << 16)
                        if not piece:
                            selector.unregister(key.data)
                        *whole, rests[key.data] = (rests[key.data] + piece).split(b"\n")
                        for line in whole:
                            yield key.data is self.process.stderr, _text(line)
            for pipe, rest in rests.items():
                if rest:
                    yield pipe is self.process.stderr, _text(rest)
        finally:
            self._end()

    def _goes_on(self, is_open: bool) -> bool:
        now = time.monotonic()
        if self._gone is None and self.process.poll() is not None:
            self._gone = now
        elif self._gone is None and now >= self.ends:
            self.process.kill()
            self._gone, self.late = now, True
        return self._gone is None or (is_open and now - self._gone < REST_S)

    def _end(self) -> None:
        """It is not waited for long: one that waits for a driver may not even be killed."""
        self.process.kill()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(REST_S)


def _text(line: bytes) -> str:
    """Of a bar of progress what it says last."""
    return line.decode(errors="replace").strip().split("\r")[-1].strip()
