"""All sessions of an engine, whoever opened them: what one round does for them.

    clients                 | a round (see `driver` for who makes it)
    ------------------------+--------------------------------------------------
    push, requests, close   | sweep: free the slots of those that leave
      -> inbox of a session | jobs: save and other calls between two steps
    open, save, ...         | admit: openings that found a free slot
      -> jobs, openings     | work: one piece for one session (finalize, truncate, ...)
    stop, forgotten         | step: frames of all sessions through the engine, and their output back
      -> leaving            |

Order of locks: the driver's condition is never held while the engine, a session or a callback runs,
except for `released` of a session that is freed while no thread leads. So no thread asks for it
while it holds a client's lock (see `live`).
"""

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kiku.engine import SlotEngine, StepOutput
from kiku.errors import NoFreeSlot, StreamError
from kiku.scheduler.binding import Binding, Job, Member, Opening, interrupted, is_ctrl_c, told_of
from kiku.scheduler.driver import Driver
from kiku.scheduler.pacing import Pacing, WaitingFrames
from kiku.stream import Work

_LOG = logging.getLogger(__name__)

SHARED_PIECE = 8
"""Frames of one piece of work; the other sessions wait for it about as long as for a step."""

STREAMS_PER_PIECE = 16
"""Streams for which one more piece of work is done between two steps, besides the first: as many
make a step longer by about one piece."""

GATHER_FROM = 16
GATHER_S = 0.004
"""With at least `GATHER_FROM` live streams the driver's thread waits `GATHER_S` seconds before a
round, so that more frames share a step: frames come at any moment, and to wake up for each costs
more than all the rest. Where a step takes longer than that, frames gather by themselves."""

T = TypeVar("T")

OnStep = Callable[[int, float], None]


class Scheduler:
    """All sessions of an engine, and who steps them."""

    def __init__(self, engine: SlotEngine, max_block: int | None = None) -> None:
        """No session yet; a step takes at most `max_block` frames of each."""
        self.engine = engine
        self.pacing = Pacing(engine.frame_s, min(engine.max_block, max_block or engine.max_block))
        self._bindings: dict[int, Binding] = {}  # by slot
        self._awake: deque[Binding] = deque()  # in which something may be pending
        self._held: list[Binding] = []  # recordings, until there is room beside live sessions
        self._num_live = self._num_driven = 0
        self._num_pieces = 0  # of work, ever
        self._openings: deque[Opening] = deque()
        self._jobs: deque[Job[Any]] = deque()
        self._leaving: deque[tuple[Binding, bool]] = deque()
        self.on_step: OnStep | None = None
        """Is told, by whoever drives, the frames of each step and the seconds that it took."""
        self.num_failed = 0
        """Steps that failed in a row: a session's fault makes one fail, a broken engine all."""
        self._step_s = 0.0  # that the last step took
        self._driver = Driver(self)

    # Who drives: see `Driver`. Methods, for what is bound and kept on the object holds it for ever.

    def wake(self) -> None:
        """See `Driver.wake`."""
        self._driver.wake()

    def drive(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """See `Driver.drive`."""
        return self._driver.drive(until, timeout)

    def step(self) -> int:
        """See `Driver.step`."""
        return self._driver.step()

    def check_may_wait(self) -> None:
        """See `Driver.check_may_wait`."""
        self._driver.check_may_wait()

    # For clients.

    @property
    def max_block(self) -> int:
        """Frames of one session that a step takes at most."""
        return self.pacing.max_block

    @property
    def round_began(self) -> float | None:
        """When the round that is under way began (`time.perf_counter`); None in between."""
        return self._driver.round_began

    @property
    def free_slots(self) -> int:
        """Slots that no session holds."""
        self._driver.nudge()
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
            raise self.no_free_slot(opening)
        return opening.result()

    def request(self, opening: Opening) -> None:
        """Ask for slots; whoever drives gives them when they are free."""
        self._driver.check()
        self._openings.append(opening)
        self.wake()

    def cancel(self, opening: Opening) -> bool:
        """The slots are not wanted any more; gives whether they had been given (or refused)
        already."""
        with self._driver.changed:
            if opening.done:
                return True
            opening.cancelled = True
        self.wake()
        return False

    def give_up(self, opening: Opening) -> None:
        """The slots are not wanted any more, whether they have been given or not. As `release`, it
        never waits: the garbage collector may call it, of a task whose event loop is gone."""
        opening.cancelled = True  # who is about to give the slots looks again afterwards
        for binding in opening.given:
            self.release(binding)
        self._driver.nudge()

    def is_stuck(self, opening: Opening) -> bool:
        """Whether too many slots are held by sessions that only the thread which asks could end."""
        # It may be about to be told of its own.
        own = [member.session for member in opening.members]
        held_here = sum(
            one.thread == opening.thread and not one.session.is_closing and one.session not in own
            for one in list(self._bindings.values())
        )
        return self.engine.num_slots - held_here < len(opening.members)

    def no_free_slot(self, opening: Opening) -> NoFreeSlot:
        """The error of who finds no slot, or too few."""
        wanted, num_slots = len(opening.members), self.engine.num_slots
        seen = f"all {num_slots} slots are held"
        if wanted > 1:
            free = self.engine.free_slots
            seen = f"{wanted} slots are wanted at once, and {free} of {num_slots} are free"
        return NoFreeSlot(
            f"{seen}; close a stream, wait with `timeout`, or load the model with more slots"
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
                    raise self.no_free_slot(opening)
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
        if binding.session.failure is not None:
            raise binding.session.failure
        return binding.session.done

    def submit(self, call: Callable[[], T], on_done: Callable[[], None] | None = None) -> Job[T]:
        """Have `call` called between two steps, by whoever drives."""
        self._driver.check()
        job = Job(call, on_done)
        self._jobs.append(job)
        self.wake()
        return job

    def call(self, call: Callable[[], T]) -> T:
        """`call` between two steps, and what it gave.

        Raises:
            StreamError: this is called in a round, as callbacks are: of the streams that were in a
                step, some have been told by then and others not.
        """
        self.check_may_wait()
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
        self._driver.nudge()

    # What the driver asks.

    @property
    def has_more(self) -> bool:
        """Whether another round would find something."""
        return bool(self._awake or self._leaving)

    @property
    def needs_thread(self) -> bool:
        """Whether there are streams that nobody else drives, or such that wait for slots."""
        return self._num_driven > 0 or any(opening.driven for opening in list(self._openings))

    @property
    def gather_s(self) -> float:
        """Seconds to wait before a round, so that more comes together in it."""
        return GATHER_S if self._num_live >= GATHER_FROM and self._step_s < GATHER_S else 0.0

    def fail_all(self, error: BaseException) -> None:
        """A round itself failed, by a mistake of kiku's own: all sessions end."""
        for binding in list(self._bindings.values()):
            self._contain(binding, error)

    def round(self) -> int:
        """Do what there is to do, once; how much it was (0: all wait)."""
        self._driver.again_at = math.inf
        try:
            return self._round()
        except BaseException:
            # It may have come anywhere. Those whose turn had not come yet would sleep for ever.
            self._held.clear()
            for binding in list(self._bindings.values()):
                binding.is_awake = True
                self._awake.append(binding)
            raise

    def _round(self) -> int:
        moved = self.sweep() + self._run_jobs() + self._admit()
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
        if works:
            moved += self._work_for_some(works)
            if any(binding.live for binding, _ in works):
                waiting = self._after_work(waiting)
        return moved + (self._step(waiting) if waiting else 0)

    def _after_work(self, waiting: list[tuple[Binding, int]]) -> list[tuple[Binding, int]]:
        """What a step may take while live sessions have work left: nothing where only recordings
        wait, which would hold them up. Beside live frames recordings take little, and in a large
        service some stream always has work."""
        if any(binding.live for binding, _ in waiting):
            return waiting
        for binding, _ in waiting:
            self._rouse(binding)
        return []

    def _work_for_some(self, works: Sequence[tuple[Binding, Work]]) -> int:
        """A piece of work for few sessions at a time, in turn and live ones first: others must not
        wait for long."""
        pieces = 1 + len(self._bindings) // STREAMS_PER_PIECE
        most = SHARED_PIECE if len(self._bindings) > 1 else None
        by_turn = sorted(works, key=lambda one: (not one[0].live, one[0].worked_at))
        for binding, work in by_turn[:pieces]:
            self._num_pieces += 1
            binding.worked_at = self._num_pieces
            self._run_work(binding, work, most)
        for binding, _ in works:
            self._rouse(binding)
        return 1

    def _awake_now(self) -> list[Binding]:
        """The sessions in which something may be pending, each once; they sleep from now on."""
        found = {one.slot: one for one in self._held if self._bindings.get(one.slot) is one}
        self._held.clear()
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

    def sweep(self) -> int:
        """Free the slots of those that leave; how many."""
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
            if opening.cancelled or opening.done:
                pass
            elif not full and len(opening.members) <= self.engine.free_slots:
                self._give_slots(opening)
            elif opening.at_once or len(opening.members) > self.engine.num_slots:
                opening.settle(error=self.no_free_slot(opening))
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
            opening.settle(error=interrupted() if is_ctrl_c(error) else error)
            if is_ctrl_c(error):
                raise
            return
        with self._driver.changed:
            if is_wanted := not opening.cancelled:
                opening.settle(bindings)
        if not is_wanted:
            for binding in bindings:
                self._free(binding)
        elif opening.cancelled:  # by `give_up`, which takes no lock
            for binding in bindings:
                self.release(binding)

    def _bind(self, member: Member, opening: Opening) -> Binding:
        engine, options, saved = self.engine, member.options, member.saved
        # What the first frame's token costs a picker that goes on, it has spent already.
        picker = copy.deepcopy(options.picker) if saved is not None else options.picker
        slot, first = engine.open(picker, num_codebooks=options.num_codebooks)
        binding = Binding(engine, slot, member, opening)
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
        self._num_driven += binding.driven
        member.session.on_input = partial(self._rouse, binding)
        self._rouse(binding)
        return binding

    def _run_work(self, binding: Binding, work: Work, most: int | None) -> None:
        try:
            work.run(binding, binding.session, most)  # pyright: ignore[reportArgumentType]
        except BaseException as error:
            self._contain(binding, error)

    def _step(self, waiting: WaitingFrames) -> int:
        """Frames of all sessions that have some go through the engine, and what it says goes
        back; how many frames."""
        chosen = self.pacing.choose(waiting, self._bindings.values(), self._num_live)
        if len(chosen) < len(waiting):
            self._hold_back(waiting, chosen)
            if not chosen:
                return 0
        moving: list[tuple[Binding, int]] = []
        ctrl_c: BaseException | None = None
        try:
            frames = self._frames_of(chosen, moving)
            if not moving:
                return 1
            started = time.perf_counter()
            out = self.engine.step(
                [binding.slot for binding, _ in moving], frames, [count for _, count in moving]
            )
            self.num_failed, self._step_s = 0, time.perf_counter() - started
            if self.on_step is not None:
                self._tell_step(self.on_step, len(frames))
            ctrl_c = self._deliver(moving, out, levels_of(frames))
        except BaseException as error:  # the frames that were under way are gone
            for binding, _ in moving:
                self._contain(binding, error, reraise=False)
            if isinstance(error, KeyboardInterrupt):
                raise
            self.num_failed += 1
            return 1
        if ctrl_c is not None:  # what the engine said was not lost
            raise ctrl_c
        self.pacing.stepped(len(frames))
        return len(frames)

    def _tell_step(self, listener: OnStep, num_frames: int) -> None:
        try:
            listener(num_frames, self._step_s)
        except Exception:  # a listener's mistake is his own
            _LOG.exception("a callback after a step failed")

    def _frames_of(
        self, chosen: WaitingFrames, moving: list[tuple[Binding, int]]
    ) -> NDArray[np.float32]:
        """The next frames [n, frame_size] of some sessions, which are `moving` from then on, before
        anything of them is taken."""
        pieces: list[NDArray[np.float32]] = []
        for binding, count in chosen:
            moving.append((binding, count))
            try:
                pieces += self._taken(binding, count)
            except BaseException as error:  # a session's own mistake is its alone
                if is_ctrl_c(error):
                    raise
                moving.pop()
                self._contain(binding, error)
        return np.concatenate(pieces or [np.zeros(0, np.float32)]).reshape(
            -1, self.engine.frame_size
        )

    def _hold_back(self, waiting: WaitingFrames, chosen: WaitingFrames) -> None:
        """Have those that were not chosen looked at again, when there is room for them."""
        if not chosen:
            self._held += [binding for binding, _ in waiting]
            self._driver.again_at = self.pacing.again_at
            return
        taken = {binding.slot for binding, _ in chosen}
        for binding, _ in waiting:
            if binding.slot not in taken:
                self._rouse(binding)

    def _taken(self, binding: Binding, count: int) -> Sequence[NDArray[np.float32]]:
        """The samples of a session's next frames."""
        pieces, size = binding.session.take(count), count * self.engine.frame_size
        if pieces[0].size != size and sum(piece.size for piece in pieces) != size:
            raise StreamError(f"a session gave other than {count} frames: it is of another model")
        return pieces

    def _deliver(
        self, moving: WaitingFrames, out: StepOutput, levels: list[float]
    ) -> BaseException | None:
        """Give each session what the engine said to it; gives a Ctrl-C that came meanwhile."""
        tokens, logprobs = out.tokens.tolist(), out.logprobs.tolist()
        pauses = None if out.pauses is None else out.pauses.tolist()
        ctrl_c: BaseException | None = None
        at = 0
        for i, (binding, count) in enumerate(moving):
            part = slice(at, at + count)
            at += count
            try:
                if i in out.failures:
                    raise out.failures[i]
                session = binding.session
                session.accept(
                    tokens[part], logprobs[part], levels[part],
                    None if pauses is None else pauses[part],
                )  # fmt: skip
                if binding.on_output is not None:
                    binding.on_output(out.row(i))
                if session.may_go_on:
                    self._rouse(binding)
            except BaseException as error:
                ctrl_c = error if is_ctrl_c(error) else ctrl_c
                self._contain(binding, error, reraise=False)
        return ctrl_c

    def _finish(self, binding: Binding) -> int:
        try:
            binding.session.finish()
        except BaseException as error:
            return self._contain(binding, error)
        self._free(binding)
        return 1

    def _contain(self, binding: Binding, error: BaseException, *, reraise: bool = True) -> int:
        """A failure ends its own session, which is told, and no other."""
        try:
            binding.session.fail(told_of(error))
        except BaseException:
            _LOG.exception("a session could not be told of its failure")
        self._free(binding)
        if reraise and is_ctrl_c(error):
            raise error
        return 1

    def _free(self, binding: Binding) -> None:
        """Give a slot back, and tell its session."""
        if self._bindings.get(binding.slot) is binding:
            del self._bindings[binding.slot]
            self._num_live -= binding.live
            self._num_driven -= binding.driven
        self.engine.close(binding.slot)
        # Else the two would hold each other, and all that they heard, until the collector comes.
        binding.session.on_input = _nobody
        try:
            binding.session.released()
        except BaseException:  # a listener's mistake is his own
            _LOG.exception("a callback at the end of a stream failed")


def _nobody() -> None:
    """Looks at a session no more: in place of None, as a push may be about to call it."""


def levels_of(frames: NDArray[np.float32]) -> list[float]:
    """[T, frame_size] -> loudness of each frame, dBFS; silence is -100."""
    power = np.einsum("ts,ts->t", frames, frames) / frames.shape[1]
    return (10 * np.log10(np.maximum(power, 1e-10))).tolist()
