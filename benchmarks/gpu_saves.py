"""Streams that are saved while all are stepped: whether what is saved is whole, and what it costs
the others. A part of `gpu.py`."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from gpu_job import Part
from gpu_models import asked, attention_of, drawing, frames_of, listeners, random_model
from gpu_wanted import SAVERS

from kiku.engine.core import SlotEngine
from kiku.engine.cuda import CudaBackend, cuda_engine
from kiku.engine.saved_slot import SlotCopy

FRAMES = 20
"""For how many frames a restored slot is compared with the one that was saved."""

_LOOK_S = 0.1


def saves(part: Part) -> None:
    """First whether a slot goes on elsewhere with the same tokens; then how long steps take while
    nobody is saved, and while `SAVERS` threads save one stream after another."""
    slots, options = asked(part.job)
    codec, lm = random_model(part.config, part.dtype, part.device)
    engine = cuda_engine(codec, lm, slots=slots, device=part.device, options=options)
    numbers = listeners(engine)
    size = part.config.frame_size
    frames = frames_of(part.config, FRAMES * slots).reshape(FRAMES, slots, size)
    part.attempt(lambda: _whole(part, engine, numbers, frames))
    part.attempt(lambda: _times(part, engine, numbers, frames))


def _whole(part: Part, engine: SlotEngine, slots: list[int], frames: np.ndarray) -> None:
    """Copy the first slot in both ways, step on, and put the copy into the last slot."""
    first, last = slots[0], slots[-1]
    for frame in frames[:3]:
        engine.step(slots, frame)
    # Drawn, so that tokens vary whatever the weights are, and the noise begins here.
    engine.set_decoding(first, drawing(1.0, seed=1))
    beside, at_once = engine.copy(first), _copy_without_room(engine, first)
    with ThreadPoolExecutor(1) as pool:
        bytes_ = pool.submit(beside.to_bytes)
        wanted = [engine.step(slots, frame).row(0).tokens.tolist() for frame in frames]
        saved = bytes_.result()
    if saved != at_once.to_bytes():
        raise SystemExit("a copy that was made beside the steps is not the one made at once")
    engine.put(last, engine.check(saved))
    engine.set_decoding(last, drawing(1.0, seed=1))
    told: list[list[int]] = []
    for frame in frames:
        again = frame.copy()
        again[-1] = frame[0]
        told.append(engine.step(slots, again).row(len(slots) - 1).tokens.tolist())
    for slot in (first, last):
        engine.set_decoding(slot)
    same = next((n for n in range(FRAMES) if told[n] != wanted[n]), FRAMES)
    if same < FRAMES:
        raise SystemExit(f"a restored slot says something else from frame {same} on")
    part.tell("saved", streams=len(slots), frames=FRAMES, attention=attention_of(engine),
              tokens=len({token for tokens in told for token in tokens}),
              megabytes=round(len(saved) / 1e6, 2))  # fmt: skip


def _copy_without_room(engine: SlotEngine, slot: int) -> SlotCopy:
    """A copy of a slot as it is made where too many are on their way already."""
    backend = engine.backend
    assert isinstance(backend, CudaBackend)
    free = backend._fetching.free
    taken = [free.pop() for _ in range(len(free))]
    try:
        return engine.copy(slot)
    finally:
        free.extend(taken)


def _times(part: Part, engine: SlotEngine, slots: list[int], frames: np.ndarray) -> None:
    """A row without and one with threads that save."""
    turns = itertools.cycle(frames)
    attention = attention_of(engine)
    times = part.times(lambda: engine.step(slots, next(turns)), 0.4)
    part.tell("saves", streams=len(slots), savers=0, attention=attention, **times)
    with Savers(engine, slots, SAVERS) as savers:

        def step() -> None:
            savers.copy()
            engine.step(slots, next(turns))

        times = part.times(step, 0.8)
        while not savers.took and not savers.failed and time.monotonic() < part.ends:
            step()
    if not savers.took:
        raise SystemExit("nothing was saved")
    part.tell("saves", streams=len(slots), savers=SAVERS, attention=attention,
              saves=len(savers.took), save_ms=round(float(np.median(savers.took)), 1),
              **times)  # fmt: skip


class Savers:
    """Threads that save slots again and again, as a service does: the thread that steps makes a
    copy between two steps, and the thread that asked for it makes bytes of it."""

    def __init__(self, engine: SlotEngine, slots: list[int], count: int) -> None:
        """Each thread saves its own share of the slots in turn."""
        self.took: list[float] = []
        """Milliseconds from asking for a copy to its bytes."""
        self.failed: list[BaseException] = []
        self._engine, self._stop = engine, threading.Event()
        self._asked: SimpleQueue[tuple[int, SimpleQueue[SlotCopy]]] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._save, args=(slots[n::count],), daemon=True)
            for n in range(count)
        ]

    def __enter__(self) -> "Savers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: Any) -> None:
        """End the threads; raise what one of them failed with."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if self.failed and failure[0] is None:
            raise self.failed[0]

    def copy(self) -> None:
        """Make the copies that threads wait for, one for each thread; between two steps."""
        with suppress(Empty):
            for _ in self._threads:
                slot, answer = self._asked.get_nowait()
                answer.put(self._engine.copy(slot))

    def _save(self, slots: list[int]) -> None:
        try:
            for slot in itertools.cycle(slots):
                asked = time.perf_counter()
                answer: SimpleQueue[SlotCopy] = SimpleQueue()
                self._asked.put((slot, answer))
                if (copied := self._answered(answer)) is None:
                    return
                copied.to_bytes()
                self.took.append((time.perf_counter() - asked) * 1e3)
        except BaseException as error:  # told where the threads are waited for
            self.failed.append(error)

    def _answered(self, answer: "SimpleQueue[SlotCopy]") -> SlotCopy | None:
        while not self._stop.is_set():
            with suppress(Empty):
                return answer.get(timeout=_LOOK_S)
        return None
