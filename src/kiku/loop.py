"""The one loop: frames of every stream that has some go through the engine, and what it says goes
back. File, microphone and socket end here.

One lock guards the engine and who sits where; each stream has its own, which is held only while
its frames are taken and its words are given back. So no client waits for another's sound.
"""

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.engine import Choose, Engine, StepOutput
from kiku.errors import StreamError
from kiku.stream import Due, Refresh, Reread, Stream

_LOG = logging.getLogger(__name__)

Tap = Callable[[StepOutput], None]
"""Is shown everything that the engine says about one stream, one row at a time (n = 1)."""

_LIVE_FRAMES = 2
"""A stream with at most so many frames waiting is live; with more it has a backlog."""

_SHARED_BLOCK = 4
"""While somebody is live, a backlog moves in steps of so many frames: it costs them little more
than a step of their own."""

_SHARED_REFRESH = 8
"""Columns that a stream's decoder reads again before it is the others' turn."""


@dataclass(eq=False)
class Seat:
    """A stream in its slot."""

    stream: Stream
    slot: int
    choose: Choose | None = None
    num_codebooks: int | None = None
    steering: Any = None
    """How whoever opened it calls the two above."""
    tap: Tap | None = None
    is_live: bool = False
    """Whether a worker steps it."""
    lock: Any = field(default_factory=threading.RLock)
    """Held by whoever touches the stream."""
    news: Callable[[], None] | None = None
    """Called when frames were taken or events have come, with no lock held but the loop's."""
    held_back: Callable[[], bool] | None = None
    """Whether the stream is to wait: its events are not fetched."""

    @property
    def is_held_back(self) -> bool:
        """Whether it is not to be stepped now."""
        return self.held_back is not None and self.held_back()


class Loop:
    """Streams in the slots of an engine."""

    def __init__(self, engine: Engine, max_block: int | None = None) -> None:
        """Nobody sits anywhere yet; a step takes at most `max_block` frames of a stream."""
        self.engine = engine
        self.max_block = min(engine.max_block, max_block or engine.max_block)
        self._lock = threading.Lock()  # held while the engine is used
        self._turn = threading.Lock()  # held by who is next: so nobody goes twice before another
        self._owner: int | None = None
        self._seats: dict[Stream, Seat] = {}
        self._stepping = False
        self._leaving: deque[Stream] = deque()
        self._freed: list[Callable[[], None]] = []

    @contextmanager
    def held(self) -> Generator[None]:
        """Nobody else uses the engine meanwhile. Who holds a stream's lock must not wait for it."""
        if self._owner == threading.get_ident():
            yield
            return
        with self._turn:
            self._lock.acquire()
        self._owner = threading.get_ident()
        try:
            self._sweep()
            yield
        finally:
            self._owner = None
            self._lock.release()
            self._sweep()  # whoever left in between found the lock held, and counts on this

    @property
    def free_slots(self) -> int:
        """Slots that no stream holds."""
        self._sweep()
        return self.engine.free_slots

    def seat(
        self,
        stream: Stream,
        choose: Choose | None = None,
        *,
        num_codebooks: int | None = None,
        tap: Tap | None = None,
        saved: bytes | None = None,
        is_live: bool = False,
    ) -> Seat:
        """Give a stream a slot.

        Args:
            stream: a fresh one; or, with `saved`, one that was restored.
            choose: see `Engine.open`.
            num_codebooks: see `Engine.open`.
            tap: is shown every output of the engine for this stream.
            saved: what the slot remembers; None is a fresh one.
            is_live: a worker will step it.

        Raises:
            NoFreeSlot: all slots are held.
            StreamError: see `Engine.restore`.
        """
        with self.held():
            # What the first frame's token costs a chooser that goes on, it has spent already.
            chooser = copy.deepcopy(choose) if saved is not None else choose
            slot, first = self.engine.open(chooser, num_codebooks=num_codebooks)
            seat = Seat(stream, slot, choose, num_codebooks, tap=tap, is_live=is_live)
            self._seats[stream] = seat
            try:
                if saved is not None:
                    self.engine.restore(slot, saved)
                    self.engine.steer(slot, choose, num_codebooks=num_codebooks)
                else:
                    stream.begin(int(first.tokens[0, 0]), float(first.logprobs[0, 0]))
                    if tap is not None:
                        tap(first)
            except BaseException:  # a tap may raise anything; nobody has the stream to release it
                self.release(stream)
                raise
            return seat

    def steer(self, seat: Seat, choose: Choose | None, num_codebooks: int | None) -> None:
        """From the next frame on, pick tokens and read codes so.

        Raises:
            StreamError: the stream has no slot any more.
            ConfigError: see `Engine.steer`.
        """
        with self.held():
            self._check(seat)
            self.engine.steer(seat.slot, choose, num_codebooks=num_codebooks)
            seat.choose, seat.num_codebooks = choose, num_codebooks

    def save(self, seat: Seat) -> tuple[dict[str, Any], bytes]:
        """What the stream and the slot remember, at the same place; what was due has been done.

        Raises:
            StreamError: the stream has no slot any more.
        """
        with self.held():
            while True:
                self._check(seat)
                with seat.lock:
                    due = seat.stream.due
                    if due is None:
                        seat.stream.check_alive()
                        state = seat.stream.save()
                        break
                with self._told_to([seat]):
                    self._act(seat, due)
                self._tell(seat)
            # Sound that is pushed meanwhile is not in the state, and no frame is stepped.
            return state, self.engine.save(seat.slot)

    def _check(self, seat: Seat) -> None:
        if self._seats.get(seat.stream) is not seat:
            raise StreamError("the stream has ended: its slot has been given back")

    def step(self, *, live: bool = False) -> int:
        """Advance every stream that has whole frames waiting; return how many frames moved.

        Live streams, and those that their openers step, are two worlds: a stream that knows no
        thread must not be touched by another one than its opener's.

        Streams with a backlog move a block of frames, live ones a single frame. What else was due
        in a slot (see `Stream.due`) counts as one. 0 means that all wait for sound. A stream whose
        step failed ends, with the error in it; the others go on.
        """
        with self.held():
            self._stepping = True
            try:
                seats = [seat for seat in self._seats.values() if seat.is_live == live]
                return self._act_for_one(seats) + self._move(seats)
            finally:
                self._settle(live)
                self._stepping = False

    def fail_live(self, error: Exception) -> None:
        """End every live stream with an error that nobody foresaw."""
        with self.held():
            self._stepping = True
            try:
                with self._told_to([seat for seat in self._seats.values() if seat.is_live]):
                    raise error
                self._settle(live=True)
            finally:
                self._stepping = False

    def guard(self, stream: Stream) -> AbstractContextManager[Any]:
        """Nobody else touches the stream meanwhile."""
        seat = self._seats.get(stream)
        return nullcontext() if seat is None else seat.lock

    def _settle(self, live: bool) -> None:
        for seat in [seat for seat in self._seats.values() if seat.is_live == live]:
            with seat.lock:
                seat.stream.settle()
                done = seat.stream.done
            if done:
                self.release(seat.stream)
                self._tell(seat)

    def _tell(self, seat: Seat) -> None:
        if seat.news is not None:
            _call(seat.news)

    def _act_for_one(self, seats: list[Seat]) -> int:
        """What is due in a slot, for one stream at most: the others must not wait for long."""
        for seat in seats:
            if seat.is_held_back:
                continue
            with seat.lock:
                due = seat.stream.due
            if due is None:
                continue
            with self._told_to([seat]):
                self._act(seat, due)
            self._seats[seat.stream] = self._seats.pop(seat.stream)  # it is the last one next time
            self._tell(seat)
            return 1
        return 0

    def _act(self, seat: Seat, due: Due) -> None:
        stream, slot = seat.stream, seat.slot
        if isinstance(due, Refresh):
            most = _SHARED_REFRESH if len(self._seats) > 1 else None
            if self.engine.refresh(slot, due.frames, most=most):
                return  # it is still due
            with seat.lock:
                stream.refreshed(due)
        elif isinstance(due, Reread):
            out = self.engine.reread(slot, due.frames)
            with seat.lock:
                stream.reread(due, out.tokens[0].tolist(), out.logprobs[0].tolist())
        else:
            with seat.lock:
                stream.begin_flush(due)
            with self._detour(seat):
                while len(frames := due.take(self.max_block)):
                    out = self.engine.step([slot], frames[None])
                    due.accept(out.tokens[0].tolist(), out.logprobs[0].tolist())
            with seat.lock:
                stream.flushed(due)

    @contextmanager
    def _detour(self, seat: Seat) -> Generator[None]:
        """What the slot goes through inside leaves no trace in it."""
        mark = self.engine.mark(seat.slot)
        spare = copy.deepcopy(seat.choose)
        self.engine.steer(seat.slot, spare, num_codebooks=seat.num_codebooks)
        try:
            yield
        finally:
            self.engine.go_back(seat.slot, mark)
            self.engine.steer(seat.slot, seat.choose, num_codebooks=seat.num_codebooks)

    @contextmanager
    def _told_to(self, seats: list[Seat]) -> Generator[None]:
        """A failure inside ends these streams, and no other."""
        try:
            yield
        except Exception as error:
            for seat in seats:
                with seat.lock:
                    seat.stream.fail(error)
        except BaseException:  # Ctrl-C: the frames that were under way are gone
            for seat in seats:
                with seat.lock:
                    seat.stream.fail(StreamError("the stream was interrupted in a step"))
            raise

    def _move(self, seats: list[Seat]) -> int:
        """Step every stream that has whole frames waiting, and deliver what the engine says."""
        waiting: list[tuple[Seat, int]] = []
        for seat in seats:
            if seat.is_held_back:
                continue
            with seat.lock:
                if ready := min(seat.stream.num_ready, self.max_block):
                    waiting.append((seat, ready))
        live = any(ready <= _LIVE_FRAMES for _, ready in waiting)
        # A recording, stepped by another thread, must not hold up who speaks meanwhile.
        beside = any(seat.is_live for seat in self._seats.values() if seat not in seats)
        blocks: dict[int, list[Seat]] = {}
        for seat, ready in waiting:
            most = min(ready, _SHARED_BLOCK) if live or beside else ready
            # Few sizes, so that many streams share a step.
            size = most if len(waiting) == 1 else 1 << (most.bit_length() - 1)
            blocks.setdefault(size, []).append(seat)
        return sum(self._step(blocks[size], size) for size in sorted(blocks))  # live ones first

    def _step(self, seats: list[Seat], size: int) -> int:
        moving: list[Seat] = []
        taken: list[NDArray[np.float32]] = []
        for seat in seats:
            with seat.lock:
                if seat.stream.num_ready >= size:  # it may have been stopped since it was asked
                    taken.append(seat.stream.take(size))
                    moving.append(seat)
        if not moving:
            return 0
        with self._told_to(moving):
            out = self.engine.step([seat.slot for seat in moving], np.stack(taken))
            for i, seat in enumerate(moving):
                with self._told_to([seat]):
                    self._deliver(seat, out.row(i))
        for seat in moving:
            self._tell(seat)
        return size * len(moving)

    def _deliver(self, seat: Seat, out: StepOutput) -> None:
        with seat.lock:
            pauses = None if out.pauses is None else out.pauses[0]
            seat.stream.accept(out.tokens[0].tolist(), out.logprobs[0].tolist(), pauses)
        if seat.tap is not None:
            seat.tap(out)

    def release(self, stream: Stream) -> None:
        """Give up a stream before its end: its slot is free at once, or after the step that is
        under way. Twice does no harm, and it never waits: the garbage collector may call it at any
        moment."""
        self._leaving.append(stream)
        self._sweep()

    def _sweep(self) -> None:
        """Free the slots of those that leave, unless somebody is at work, who then will."""
        while self._leaving and not self._stepping:
            mine = self._owner == threading.get_ident()
            if not mine and not self._lock.acquire(blocking=False):
                return
            try:
                self._free_slots()
            finally:
                if not mine:
                    self._lock.release()

    def _free_slots(self) -> None:
        while not self._stepping:
            try:
                stream = self._leaving.popleft()
            except IndexError:  # the garbage collector may have come here in between
                return
            seat = self._seats.pop(stream, None)
            if seat is not None:
                self.engine.close(seat.slot)
                for call in list(self._freed):
                    _call(call)

    def on_freed(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` called whenever a slot becomes free; the result ends that."""
        self._freed.append(call)
        return lambda: self._freed.remove(call)


def _call(call: Callable[[], None]) -> None:
    """A listener's mistake is his own."""
    try:
        call()
    except Exception:
        _LOG.exception("a callback of a stream failed")
