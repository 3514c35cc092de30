"""THE driver: steps every open session, whoever opened it. File, microphone and socket end here.

    clients                 | whoever drives (one thread at a time, the leader)
    ------------------------+--------------------------------------------------
    push, finalize, close   | sweep: free the slots of those that leave
      -> inbox of a session | jobs: save, set_decoding, ... between two steps
    open, save, ...         | admit: openings that found a free slot
      -> jobs, openings     | work: one piece for one session (finalize, truncate, re-decode)
    stop, forgotten         | step: frames of all sessions through the engine, and their output back
      -> leaving            |

`drive(until)` is leader and followers: whoever finds nobody leading leads, and steps all sessions
until its own wish holds; the others wait on one condition. While live streams are open a thread of
the scheduler's own leads, and callers only wait, so that a Ctrl-C in one of them breaks no step.

Locks: one condition here, held for a moment and never while the engine, a session or a callback
runs, but for `released` of a session that leaves while nobody leads. A client's lock (see `live`)
is therefore never held while this one is asked for.
"""

import atexit
import copy
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kiku.engine import Picker, SamplingParams, SlotEngine, StepOutput
from kiku.engine.forked import check_process, process
from kiku.errors import NoFreeSlot, StreamError
from kiku.stream import Work

_LOG = logging.getLogger(__name__)

LIVE_FRAMES = 2
"""A session with at most so many frames waiting is live; with more it has a backlog."""

SHARED_BLOCK = 4
"""While somebody is live, a backlog moves by so many frames a step: that costs the others little
more than a step of their own."""

SHARED_PIECE = 8
"""Frames that work reads before it is the others' turn: about as much as a step costs them."""

STREAMS_PER_PIECE = 16
"""One piece of work is done between two steps, and one more for so many streams: that many make a
step longer by as much."""

_STEP_FRAMES = 1_024
"""Frames of one step of all sessions together: 8 MB of sound, far more than makes it quicker."""

_LOOK_S = 0.5
"""Who waits looks so often by himself: the garbage collector may have made a stream leave at a
moment when it could wake nobody."""

_END_S = 30.0
"""At the end of the program a step that is under way is waited for so long."""

T = TypeVar("T")

OnOutput = Callable[[StepOutput], None]
"""Is shown everything that the engine says about one session, one row at a time."""


class Session(Protocol):
    """All that the scheduler asks of a client. Whatever a method raises ends this session alone."""

    on_input: Callable[[], None] | None
    """Set by the scheduler: to be called, from any thread and without a lock, when there may be
    something pending that was not before."""

    @property
    def done(self) -> bool:
        """Whether nothing more will come and the slot is free."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether it comes to its end without anybody doing anything more."""
        ...

    @property
    def work(self) -> Work | None:
        """What is to be done in the slot before the next frame."""
        ...

    def pending(self) -> int | Work | None:
        """How many frames may be taken (0: none now), or what is to be done before; None at the
        end."""
        ...

    def take_into(self, frames: NDArray[np.float32]) -> None:
        """Write the next frames into `frames` [T, frame_size]."""
        ...

    def begin(self, token: int, logprob: float) -> None:
        """Take what the model said before the first frame."""
        ...

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take what the model said after the frames taken last: [T] each, pauses [T][E]."""
        ...

    def finish(self) -> None:
        """All has been heard."""
        ...

    def cut(self) -> None:
        """End at once."""
        ...

    def fail(self, error: BaseException) -> None:
        """Nothing more will come."""
        ...

    def released(self) -> None:
        """The slot is free again."""
        ...


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """How a slot picks its tokens."""

    picker: Picker | SamplingParams | None = None
    num_codebooks: int | None = None


class Binding:
    """A session and the slot that it holds. Does in the slot what work asks for (`SlotAccess`)."""

    def __init__(
        self, engine: SlotEngine, session: Session, slot: int, options: SlotOptions, *, live: bool
    ) -> None:
        """`Scheduler` makes them."""
        self.session, self.slot, self.options, self.live = session, slot, options, live
        self.on_output: OnOutput | None = None
        self.thread = threading.get_ident()
        """That opened it."""
        self.is_awake = False
        """Whether it stands in the queue of those that are to be looked at."""
        self.worked_at = 0
        """When a piece of work was last done for it."""
        self._engine = engine
        self._mark: Any = None

    def set_decoding(self, options: SlotOptions) -> None:
        """From the next frame on, pick tokens so."""
        self._engine.set_decoding(self.slot, options.picker, num_codebooks=options.num_codebooks)
        self.options = options

    def look_ahead(self, frames: NDArray[np.float32]) -> tuple[list[int], list[float]]:
        """See `SlotAccess.look_ahead`."""
        engine, slot, options = self._engine, self.slot, self.options
        if self._mark is None:
            self._mark = engine.mark(slot)
            spare = copy.deepcopy(options.picker)  # what is taken back must cost no chance
            engine.set_decoding(slot, spare, num_codebooks=options.num_codebooks)
        tokens: list[int] = []
        logprobs: list[float] = []
        for first in range(0, len(frames), engine.max_block):
            part = frames[first : first + engine.max_block]
            out = engine.step([slot], part, [len(part)])
            out.raise_failure()
            tokens += out.tokens.tolist()
            logprobs += out.logprobs.tolist()
        return tokens, logprobs

    def end_look_ahead(self) -> None:
        """See `SlotAccess.end_look_ahead`."""
        if self._mark is not None:
            self._engine.go_back(self.slot, self._mark)
            self._mark = None
            self.set_decoding(self.options)

    def truncate(self, frames: int, most: int | None) -> int:
        """See `SlotAccess.truncate`."""
        return self._engine.truncate(self.slot, frames, most=most)

    def redecode(self, frames: int, most: int | None) -> tuple[tuple[list[int], list[float]], int]:
        """See `SlotAccess.redecode`."""
        out, left = self._engine.redecode(self.slot, frames, most=most)
        out.raise_failure()
        return (out.tokens.tolist(), out.logprobs.tolist()), left


class Job(Generic[T]):
    """A call that whoever drives makes between two steps."""

    def __init__(self, call: Callable[[], T], on_done: Callable[[], None] | None = None) -> None:
        """Of `call`; `on_done` is called when it has been made, by whoever drives."""
        self._call, self._on_done = call, on_done
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call."""
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error
        self.settle()

    def settle(self, error: BaseException | None = None) -> None:
        """It is done, or will never be."""
        self._error = error or self._error
        self.done = True
        if self._on_done is not None:
            self._on_done()

    def result(self) -> T:
        """What the call gave, or raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._value  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, slots=True)
class Member:
    """A session that is to be given a slot."""

    session: Session
    options: SlotOptions = field(default_factory=SlotOptions)
    saved: bytes | None = None
    """What the slot remembers; None is a fresh one."""
    on_output: OnOutput | None = None


class Opening(Job[list[Binding]]):
    """Sessions that wait for a slot each, all at the same time."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        live: bool = False,
        at_once: bool = False,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Of `members`.

        Args:
            members: each gets a slot when all can.
            live: a thread of the scheduler's own drives as long as they are open.
            at_once: refuse where the slots are not free now.
            on_done: see `Job`.
        """
        super().__init__(lambda: [], on_done)
        self.members, self.live, self.at_once = members, live, at_once
        self.thread = threading.get_ident()
        self.cancelled = False

    @property
    def given(self) -> list[Binding]:
        """The slots, if it got them."""
        return self._value or []

    def settle_with(self, bindings: list[Binding]) -> None:
        """They have their slots."""
        self._value = bindings
        self.settle()


class Scheduler:
    """All sessions of an engine, and who steps them."""

    def __init__(self, engine: SlotEngine, max_block: int | None = None) -> None:
        """No session yet; a step takes at most `max_block` frames of each."""
        self.engine = engine
        self.max_block = min(engine.max_block, max_block or engine.max_block)
        self._changed = threading.Condition()
        self._version = 0  # grows with whatever may give the leader something to do
        self._leader: int | None = None
        self._worker: threading.Thread | None = None
        self._bindings: dict[int, Binding] = {}  # by slot
        self._awake: deque[Binding] = deque()  # in which something may be pending
        self._num_live = 0
        self._num_pieces = 0  # of work, ever
        self._openings: deque[Opening] = deque()
        self._jobs: deque[Job[Any]] = deque()
        self._leaving: deque[tuple[Binding, bool]] = deque()
        self._ending = False
        self._pid = process()
        _SCHEDULERS.add(self)

    # For clients.

    @property
    def free_slots(self) -> int:
        """Slots that no session holds."""
        self._nudge()
        return self.engine.free_slots

    def open(self, opening: Opening, timeout: float | None = 0.0) -> list[Binding]:
        """Give sessions their slots.

        Args:
            opening: who wants them.
            timeout: seconds to wait for free slots; None waits as long as others hold them, but
                not for sessions that this very thread would have to end.

        Raises:
            NoFreeSlot: they stayed held.
            StreamError: see `SlotEngine.restore`; or the process was forked.
        """
        opening.at_once = timeout is not None and timeout <= 0
        self.request(opening)
        try:
            self.drive(
                lambda: opening.done or (timeout is None and self.is_stuck(opening)),
                None if opening.at_once else timeout,
            )
        except BaseException:
            self.give_up(opening)
            raise
        if not self.cancel(opening):
            raise self.no_free_slot()
        return opening.result()

    def request(self, opening: Opening) -> None:
        """Ask for slots; whoever drives gives them when they are free."""
        self._check_process()
        self._openings.append(opening)
        self.wake()

    def cancel(self, opening: Opening) -> bool:
        """The slots are not wanted any more; gives whether they had been given (or refused)
        already."""
        with self._changed:
            if opening.done:
                return True
            opening.cancelled = True
        self.wake()
        return False

    def give_up(self, opening: Opening) -> None:
        """The slots are not wanted any more, whether they have been given or not."""
        if self.cancel(opening):
            for binding in opening.given:
                self.release(binding)

    def is_stuck(self, opening: Opening) -> bool:
        """Whether all slots are held by sessions that only the thread which asks could end."""
        holders = list(self._bindings.values())
        return len(holders) == self.engine.num_slots and all(
            one.thread == opening.thread and not one.session.is_closing for one in holders
        )

    def no_free_slot(self) -> NoFreeSlot:
        """The error of who finds no slot."""
        return NoFreeSlot(
            f"all {self.engine.num_slots} slots are held; close a stream, wait with `timeout`, or "
            "load the model with more slots"
        )

    def run(self, members: Sequence[Member]) -> None:
        """Bring sessions to their end, side by side in the slots that are free.

        Raises:
            NoFreeSlot: all slots are held by sessions of this thread.
            Exception: what the first session that failed failed with.
        """
        waiting = deque(members)
        running: list[Binding] = []
        opening: Opening | None = None
        try:
            while waiting or running or opening is not None:
                if opening is None and waiting:
                    count = max(1, min(len(waiting), self.free_slots))
                    opening = Opening([waiting.popleft() for _ in range(count)])
                    self.request(opening)
                self._wait_for(opening, running)
                if opening is not None and opening.done:
                    running += opening.result()
                    opening = None
                elif opening is not None and self.is_stuck(opening):
                    raise self.no_free_slot()
                running = [one for one in running if not self._has_ended(one)]
        finally:
            if opening is not None:
                self.give_up(opening)
            for one in running:
                self.release(one)

    def _wait_for(self, opening: Opening | None, running: Sequence[Binding]) -> None:
        def news() -> bool:
            if opening is not None and (opening.done or self.is_stuck(opening)):
                return True
            return any(one.session.done for one in running)

        self.drive(news)

    def _has_ended(self, binding: Binding) -> bool:
        failure: Exception | None = getattr(binding.session, "failure", None)
        if failure is not None:
            raise failure
        return binding.session.done

    def submit(self, call: Callable[[], T], on_done: Callable[[], None] | None = None) -> Job[T]:
        """Have `call` called between two steps, by whoever drives."""
        self._check_process()
        job = Job(call, on_done)
        self._jobs.append(job)
        self.wake()
        return job

    def call(self, call: Callable[[], T]) -> T:
        """`call` between two steps, and what it gave."""
        if self._leader == threading.get_ident():
            return call()
        job = self.submit(call)
        self.drive(lambda: job.done)
        return job.result()

    def check(self, binding: Binding) -> None:
        """Raise StreamError unless the session still holds its slot; for jobs."""
        if self._bindings.get(binding.slot) is not binding:
            raise StreamError("the stream has ended: its slot has been given back")

    def settle(self, binding: Binding) -> None:
        """Do all that is to be done before the session's next frame; for jobs."""
        self.check(binding)
        while (work := binding.session.work) is not None:
            self._run_work(binding, work, None)
            self.check(binding)

    def release(self, binding: Binding, *, cut: bool = False) -> None:
        """Give up a session before its end: its slot is free at once, or after the step that is
        under way. Twice does no harm, and it never waits: the garbage collector may call it at any
        moment.

        Args:
            binding: of the session.
            cut: let it say its last word and its end.
        """
        self._leaving.append((binding, cut))
        self._nudge()

    def wake(self) -> None:
        """There may be something to do."""
        self._check_process()
        with self._changed:
            self._version += 1
            self._care_for_worker()
            self._changed.notify_all()

    def drive(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """Step all sessions until `until()` holds, or wait for who does; whether it holds.

        Args:
            until: is asked often, with the condition held: it must be quick and take no lock.
            timeout: seconds at most; None is as long as it takes.

        Raises:
            StreamError: the process was forked, or the program ends.
        """
        self.wake()  # who drives may have brought sound
        me = threading.get_ident()
        if self._leader == me:
            raise StreamError(
                "a callback of a stream cannot wait for the driver that calls it: hand it to "
                "another thread"
            )
        ends = None if timeout is None else time.monotonic() + timeout
        idle_since = -1  # the version at which there was nothing to do
        while True:
            with self._changed:
                if until():
                    return True
                self._check_ending()
                left = _LOOK_S if ends is None else min(_LOOK_S, ends - time.monotonic())
                if left <= 0:
                    return False
                idle = self._version == idle_since and not (self._leaving or self._awake)
                if self._leader is not None or idle or not self._may_lead(me):
                    self._changed.wait(left)
                    continue
                version = self._version
                self._leader = me
            idle_since = -1 if self._lead() else version

    def step(self) -> int:
        """One round: a step of all sessions that have frames, a piece of work, what was asked for.

        For who drives a scheduler himself; `drive` repeats it.

        Returns:
            How much there was to do; 0 means that all wait.

        Raises:
            StreamError: as `drive`.
        """
        self._check_process()
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._leader is None and self._may_lead(me))
            self._check_ending()
            self._leader = me
        return self._lead()

    def _lead(self) -> int:
        """A round, and then it is another's turn."""
        try:
            return self._round()
        finally:
            self._leader = None
            with self._changed:
                self._changed.notify_all()

    # Who leads.

    def _may_lead(self, me: int) -> bool:
        worker = self._worker
        return worker is None or worker.ident == me or not worker.is_alive()

    def _needs_worker(self) -> bool:
        return not self._ending and (
            self._num_live > 0 or any(opening.live for opening in list(self._openings))
        )

    def _care_for_worker(self) -> None:
        """Start the thread that drives live streams if it is needed and not alive."""
        worker = self._worker
        if (worker is None or not worker.is_alive()) and self._needs_worker():
            self._worker = threading.Thread(target=self._work, name="kiku-driver", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        """The thread that drives while there are live streams."""
        while True:
            try:
                self.drive(lambda: not self._needs_worker())
            except BaseException as error:
                if not self._ending:  # a mistake of kiku's own: whoever waits must learn of it
                    _LOG.exception("the driver failed; all streams end")
                    self._fail_all(error)
            with self._changed:
                if not self._needs_worker():
                    self._worker = None
                    self._changed.notify_all()
                    return

    def _fail_all(self, error: BaseException) -> None:
        for binding in list(self._bindings.values()):
            self._contain(binding, error)

    def _check_process(self) -> None:
        check_process(self._pid)

    def _check_ending(self) -> None:
        """Go on unless the program ends; the condition is held.

        By then only daemon threads are left besides the main one. They would be stopped at the next
        moment, and an error would be the last that the program says: so they wait here.
        """
        while self._ending and threading.current_thread().daemon:
            self._changed.wait()
        if self._ending:
            raise StreamError("the program is ending: nothing is transcribed any more")

    def _nudge(self) -> None:
        """As `wake`, without ever waiting; frees slots where nobody is at work."""
        if self._pid != process() or not self._changed.acquire(blocking=False):
            return  # whoever holds it looks again by himself
        try:
            self._version += 1
            if self._leader is None and not self._ending:
                self._leader = -1  # nobody leads while slots are freed, nor frees them twice
                try:
                    self._sweep()
                finally:
                    self._leader = None
            self._care_for_worker()
            self._changed.notify_all()
        finally:
            self._changed.release()

    def end(self) -> None:
        """The program ends: wait for the step under way, and let no other begin."""
        if self._pid != process():
            return
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._leader is None, _END_S)

    # What whoever drives does.

    def _round(self) -> int:
        """Do what there is to do, once; how much it was (0: all wait)."""
        moved = self._sweep() + self._run_jobs() + self._admit()
        waiting: list[tuple[Binding, int]] = []
        works: list[tuple[Binding, Work]] = []
        for binding in self._awake_now():
            try:
                pending = binding.session.pending()
            except BaseException as error:
                moved += self._contain(binding, error)
                continue
            if isinstance(pending, int):
                if pending:
                    waiting.append((binding, pending))
            elif pending is None:
                moved += self._finish(binding)
            else:
                works.append((binding, pending))
        moved += self._work_for_some(works) if works else 0
        return moved + (self._step(waiting) if waiting else 0)

    def _work_for_some(self, works: Sequence[tuple[Binding, Work]]) -> int:
        """A piece of work for few sessions at a time, in turn: others must not wait for long."""
        pieces = 1 + len(self._bindings) // STREAMS_PER_PIECE
        most = SHARED_PIECE if len(self._bindings) > 1 else None
        for binding, work in sorted(works, key=lambda one: one[0].worked_at)[:pieces]:
            self._num_pieces += 1
            binding.worked_at = self._num_pieces
            self._run_work(binding, work, most)
        for binding, _ in works:
            self._rouse(binding)
        return 1

    def _awake_now(self) -> list[Binding]:
        """The sessions in which something may be pending, each once; they sleep from now on."""
        found: dict[int, Binding] = {}
        for _ in range(len(self._awake)):
            binding = self._awake.popleft()
            binding.is_awake = False  # what comes from now on wakes it again
            if self._bindings.get(binding.slot) is binding:
                found[binding.slot] = binding  # two threads may have woken it at once
        return list(found.values())

    def _rouse(self, binding: Binding) -> None:
        """Have a session looked at in the next round. Takes no lock: any thread may call it."""
        if not binding.is_awake:
            binding.is_awake = True
            self._awake.append(binding)

    def _sweep(self) -> int:
        """Free the slots of those that leave."""
        swept = 0
        while self._leaving:
            try:
                binding, cut = self._leaving.popleft()
            except IndexError:  # the garbage collector may have come here in between
                break
            if self._bindings.get(binding.slot) is not binding:
                continue
            swept += 1
            if cut:
                try:
                    binding.session.cut()
                except BaseException as error:
                    self._contain(binding, error)
                    continue
            self._free(binding)
        return swept

    def _run_jobs(self) -> int:
        ran = 0
        for _ in range(len(self._jobs)):
            self._jobs.popleft().run()
            ran += 1
        return ran

    def _admit(self) -> int:
        """Give slots to those that wait for them, in the order in which they came."""
        admitted, full = 0, False
        for opening in list(self._openings):
            if opening.cancelled:
                pass
            elif not full and len(opening.members) <= self.engine.free_slots:
                self._give_slots(opening)
            elif opening.at_once or len(opening.members) > self.engine.num_slots:
                opening.settle(self.no_free_slot())
            else:
                full = True
                continue
            # Not before: as long as it stands there, somebody drives for it.
            self._openings.remove(opening)
            admitted += 1
        return admitted

    def _give_slots(self, opening: Opening) -> None:
        bindings: list[Binding] = []
        try:
            for member in opening.members:
                bindings.append(self._bind(member, opening))
        except BaseException as error:  # an opener's own mistake is his alone
            for binding in bindings:
                self._free(binding)
            opening.settle(error)
            return
        with self._changed:
            if not opening.cancelled:
                opening.settle_with(bindings)
                return
        for binding in bindings:
            self._free(binding)

    def _bind(self, member: Member, opening: Opening) -> Binding:
        engine, options, saved = self.engine, member.options, member.saved
        # What the first frame's token costs a picker that goes on, it has spent already.
        picker = copy.deepcopy(options.picker) if saved is not None else options.picker
        slot, first = engine.open(picker, num_codebooks=options.num_codebooks)
        binding = Binding(engine, member.session, slot, options, live=opening.live)
        binding.on_output, binding.thread = member.on_output, opening.thread
        try:
            if saved is not None:
                engine.restore(slot, saved)
                binding.set_decoding(options)
            else:
                member.session.begin(int(first.tokens[0]), float(first.logprobs[0]))
                if binding.on_output is not None:
                    binding.on_output(first)
        except BaseException:
            engine.close(slot)
            raise
        self._bindings[slot] = binding
        self._num_live += binding.live
        member.session.on_input = lambda: self._rouse(binding)
        self._rouse(binding)
        return binding

    def _run_work(self, binding: Binding, work: Work, most: int | None) -> None:
        try:
            work.run(binding, binding.session, most)  # pyright: ignore[reportArgumentType]
        except BaseException as error:
            self._contain(binding, error)

    def _step(self, waiting: Sequence[tuple[Binding, int]]) -> int:
        """Frames of all sessions that have some go through the engine, and what it says goes
        back."""
        # A block must not hold up who speaks, nor who may speak at the next moment.
        live = self._num_live or any(ready <= LIVE_FRAMES for _, ready in waiting)
        most = min(self.max_block, max(1, _STEP_FRAMES // len(waiting)))
        if live and len(self._bindings) > 1:
            most = min(most, SHARED_BLOCK)
        frames, moving, counts = self._taken(waiting, most)
        if not moving:
            return 1
        try:
            out = self.engine.step([binding.slot for binding in moving], frames, counts)
        except BaseException as error:
            for binding in moving:
                self._contain(binding, error, reraise=False)
            if isinstance(error, KeyboardInterrupt):  # the frames that were under way are gone
                raise
            return 1
        self._deliver(moving, counts, out, levels_of(frames))
        return len(frames)

    def _taken(
        self, waiting: Sequence[tuple[Binding, int]], most: int
    ) -> tuple[NDArray[np.float32], list[Binding], list[int]]:
        """Frames [N, S] of all sessions, whose they are, and how many each has."""
        size = self.engine.frame_size
        total = sum(min(ready, most) for _, ready in waiting)
        frames = np.empty((total, size), np.float32)
        moving: list[Binding] = []
        counts: list[int] = []
        at = 0
        for binding, ready in waiting:
            count = ready if ready < most else most
            try:
                binding.session.take_into(frames[at : at + count])
            except BaseException as error:
                self._contain(binding, error)
                continue
            moving.append(binding)
            counts.append(count)
            at += count
        return frames[:at], moving, counts

    def _deliver(
        self, moving: Sequence[Binding], counts: Sequence[int], out: StepOutput, levels: list[float]
    ) -> None:
        tokens, logprobs = out.tokens.tolist(), out.logprobs.tolist()
        pauses = None if out.pauses is None else out.pauses.tolist()
        interrupt: BaseException | None = None
        at = 0
        for i, (binding, count) in enumerate(zip(moving, counts, strict=True)):
            part = slice(at, at + count)
            at += count
            try:
                if i in out.failures:
                    raise out.failures[i]
                binding.session.accept(
                    tokens[part], logprobs[part], levels[part],
                    None if pauses is None else pauses[part],
                )  # fmt: skip
                if binding.on_output is not None:
                    binding.on_output(out.row(i))
                self._rouse(binding)
            except BaseException as error:
                interrupt = error if isinstance(error, KeyboardInterrupt) else interrupt
                self._contain(binding, error, reraise=False)
        if interrupt is not None and _in_main_thread():  # what the engine said was not lost
            raise interrupt

    def _finish(self, binding: Binding) -> int:
        try:
            binding.session.finish()
        except BaseException as error:
            return self._contain(binding, error)
        self._free(binding)
        return 1

    def _contain(self, binding: Binding, error: BaseException, *, reraise: bool = True) -> int:
        """A failure ends its own session, which is told, and no other."""
        if isinstance(error, KeyboardInterrupt):
            told: BaseException = StreamError("the stream was interrupted in the middle of a step")
        else:
            told = error
        try:
            binding.session.fail(told)
        except BaseException:
            _LOG.exception("a session could not be told of its failure")
        self._free(binding)
        if reraise and isinstance(error, KeyboardInterrupt) and _in_main_thread():
            raise error
        return 1

    def _free(self, binding: Binding) -> None:
        """Give a slot back, and tell its session."""
        if self._bindings.get(binding.slot) is binding:
            del self._bindings[binding.slot]
            self._num_live -= binding.live
        self.engine.close(binding.slot)
        try:
            binding.session.released()
        except BaseException:  # a listener's mistake is his own
            _LOG.exception("a callback at the end of a stream failed")


def levels_of(frames: NDArray[np.float32]) -> list[float]:
    """[T, frame_size] -> loudness of each frame, dBFS; silence is -100."""
    power = np.einsum("ts,ts->t", frames, frames) / frames.shape[1]
    return (10 * np.log10(np.maximum(power, 1e-10))).tolist()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


_SCHEDULERS: "weakref.WeakSet[Scheduler]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A step that is under way when the interpreter goes would bring the process down."""
    for scheduler in list(_SCHEDULERS):
        scheduler.end()
