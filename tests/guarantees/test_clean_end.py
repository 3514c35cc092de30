"""A program that ends with streams open or at work exits with its own code and says nothing."""

import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from tests.conftest import ROOT
from tests.guarantees.conftest import LONG_S

Load = Callable[..., kiku.Recognizer]

_BEGIN = """
import asyncio, os, sys, threading
import numpy as np
import kiku
sound = np.random.default_rng(0).standard_normal(24_000 * 20).astype(np.float32) * 0.1
rec = kiku.load("demo", slots=2, threads=1)
"""

ENDS = {
    "return with a backlog": ("s = rec.stream(); s.push(sound)", 0),
    "sys.exit": ("s = rec.stream(); s.push(sound); sys.exit(3)", 3),
    "idle": ("s = rec.stream(); s.push(sound[:100])", 0),
    "a transcription that nobody ends": ("t = rec.transcription(sound, rate=24_000); iter(t)", 0),
    "a thread at work": (
        "work = lambda: rec.transcribe(np.tile(sound, 9), rate=24_000)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "import time; time.sleep(0.3)",
        0,
    ),
    "asyncio": (
        "async def main():\n"
        "    a, b = await rec.astream(), await rec.astream()\n"
        "    await a.push(sound); await b.push(sound[:5])\n"
        "asyncio.run(main())",
        0,
    ),
}


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A program of its own."""
    return subprocess.run(
        [sys.executable, "-c", _BEGIN + program],
        cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_a_program_exits_with_its_own_code(name: str) -> None:
    program, code = ENDS[name]
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (code, "")


def test_an_uncaught_error_is_the_only_thing_that_is_told() -> None:
    ended = run("s = rec.stream(); s.push(sound); raise RuntimeError('mine')")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "RuntimeError: mine"
    assert ended.stderr.count("Traceback") == 1


def test_done_means_that_the_slot_is_free(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load(3)
    wrong: list[int] = []

    def use(number: int) -> None:
        for turn in range(12):
            stream = rec.stream(timeout=LONG_S)
            stream.push(digits[: 3_000 * (turn + 1)])
            if (turn + number) % 2:
                stream.stop()
            else:
                stream.close()
                for _ in stream.events():
                    pass
                while not stream.done:
                    stream.next_event(0.01)
            bindings = stream._setup.bindings  # pyright: ignore[reportPrivateUsage]
            sessions = rec.scheduler._sessions  # pyright: ignore[reportPrivateUsage]
            if any(sessions.holds(one) for one in bindings):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
    assert rec.free_slots == 3
