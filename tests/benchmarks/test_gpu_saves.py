"""The GPU benchmark's check of saved streams: that it passes, and that it would not if it should
not."""

import importlib
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kiku.engine.cuda import CudaBackend
from kiku.engine.gpu.fetching import Fetch
from tests.benchmarks.gpu_tools import rows_told, run


@pytest.fixture
def saves(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[Any]]:
    """The rows of the part; those that were hoped for are found."""
    (part,) = (one for one in gpu.wanted("tiny", "tiny", "cpu", True) if one.name == "saves")

    def rows() -> list[Any]:
        run({**part.job, "budget_s": 200.0})
        told = rows_told(capsys)
        return [
            next((n for n, hoped in enumerate(part.rows) if hoped.items() <= row.items()), row)
            for row in told
        ]

    return rows


def reasons(rows: list[Any]) -> list[str]:
    return [row["why"] for row in rows if isinstance(row, dict)]


def test_a_slot_is_copied_in_both_ways_beside_the_steps(
    saves: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways, begin = list[bool](), Fetch.__init__

    def noted(self: Fetch, *given: Any) -> None:
        begin(self, *given)
        ways.append(self._stage is None)

    monkeypatch.setattr(Fetch, "__init__", noted)
    assert saves() == [0, 1, 2]
    assert ways[:2] == [False, True], "there is room for the first one only"
    assert len(ways) > 2, "threads save, too"
    assert not any(ways[2:]), "and there is room again"


def test_copies_that_differ_are_told(
    saves: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Fetch.__call__

    def damaged(self: Fetch) -> Any:
        at_once = self._stage is None
        arrays: dict[str, Any] = {**fetch(self)}
        if at_once:
            arrays["pasts"] = arrays["pasts"] + 1
        return arrays

    monkeypatch.setattr(Fetch, "__call__", damaged)
    rows = saves()
    assert rows[1:] == [1, 2]
    assert reasons(rows) == [
        "SystemExit: a copy that was made beside the steps is not the one made at once"
    ]


def test_a_slot_that_goes_on_otherwise_is_told(
    saves: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaBackend, "put", lambda *_: None)
    (why,) = reasons(saves())
    assert why.startswith("SystemExit: a restored slot says something else from frame ")


def test_a_copy_that_the_steps_have_changed_is_told(
    saves: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both copies alike, so that the bytes are equal."""
    copy, waits = CudaBackend.copy, [True, True]

    def late(self: CudaBackend, slot: int) -> Any:
        def fetch() -> Any:
            while self._slots.read[slot] < read + 20:  # the steps go on in another thread
                time.sleep(0.001)
            return copy(self, slot)()

        read = self._slots.read[slot]
        return fetch if waits and waits.pop() else copy(self, slot)

    monkeypatch.setattr(CudaBackend, "copy", late)
    (why, *_) = reasons(saves())
    assert why.startswith("SystemExit: a restored slot says something else from frame ")


def test_a_thread_that_fails_is_told(
    saves: Callable[[], list[Any]], gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    room: Any = importlib.import_module("gpu_saves")
    monkeypatch.setattr(room.Savers, "_answered", lambda *_: 1 / 0)
    rows = saves()
    assert rows[:2] == [0, 1]
    assert reasons(rows) == ["ZeroDivisionError: division by zero"]


def test_threads_that_save_get_copies_between_two_steps_alone(gpu: ModuleType) -> None:
    room: Any = importlib.import_module("gpu_saves")

    class Copied:
        def to_bytes(self) -> bytes:
            return b""

    class Engine:
        def __init__(self) -> None:
            self.asked = list[int]()

        def copy(self, slot: int) -> Copied:
            self.asked.append(slot)
            return Copied()

    engine = Engine()
    with room.Savers(engine, [*range(6)], 2) as savers:
        while len(savers.took) < 12:
            savers.copy()
    assert {*engine.asked} == {*range(6)}, "each saves its share in turn"
    engine.asked.clear()
    for slot in range(5):
        savers._asked.put((slot, SimpleQueue()))
    savers.copy()
    assert len(engine.asked) == 2, "the steps go on"
    assert all(np.array(savers.took) >= 0)
