"""What a large backlog leaves is given back to the system."""

import asyncio
import platform
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import kiku
from kiku.serve import memory
from kiku.serve.app import App
from kiku.serve.memory import LARGE_BYTES, Backlog
from kiku.serve.service import Service
from kiku.serve.settings import Settings

_SCRIPT = """
from kiku.serve.memory import trim


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


kept, dropped = [], []
before = resident()
for _ in range(10_000):
    dropped.append(bytearray(9_600))
    kept.append(bytearray(600))
dropped.clear()
left = resident() - before
trim()
print(left, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators know no trim")
def test_what_is_free_between_other_things_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True)
    left, trimmed = map(int, done.stdout.split())
    assert trimmed < left / 2


def test_a_backlog_has_gone_where_most_of_it_has_and_it_was_large() -> None:
    backlog = Backlog()
    assert not backlog.has_gone(LARGE_BYTES - 1)
    assert not backlog.has_gone(0)
    for waiting, has_gone in [(4, False), (3, False), (2, True), (1.5, False), (1, True), (0, True),
                              (0, False), (0.9, False), (0, False)]:  # fmt: skip
        assert backlog.has_gone(waiting * LARGE_BYTES) == has_gone, waiting


class Waiting:
    """A talk whose sound waits."""

    waiting_bytes: float = LARGE_BYTES
    counters = SimpleNamespace(flush=lambda: None)

    def check_client(self, now: float, held_up_s: float) -> None:
        pass


def test_it_is_looked_with_all_talks(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_trimmed = 0

    def trim() -> None:
        nonlocal num_trimmed
        num_trimmed += 1

    monkeypatch.setattr(memory, "SETTLE_S", 0.0)
    monkeypatch.setattr(memory, "trim", trim)

    async def play() -> None:
        sockets = App(Service(Settings(), demo)).sockets
        talks: list[Any] = [Waiting(), Waiting()]
        sockets.talks.update(talks)
        sockets.check_clients(0.0)
        talks[0].waiting_bytes = 0.0
        for _ in range(2):
            sockets.check_clients(1.0)
            while sockets._service._background:
                await asyncio.sleep(0.01)
        assert num_trimmed == 1
        sockets.talks.clear()
        sockets.check_clients(2.0)
        while sockets._service._background:
            await asyncio.sleep(0.01)
        assert num_trimmed == 2

    asyncio.run(play())
