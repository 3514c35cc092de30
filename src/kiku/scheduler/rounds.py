"""A round: everything that there is to do for all sessions, done once and in order.

sweep    free the slots of the sessions that leave
jobs     make calls that must come between two steps (`save`), one or a few of those that wait
admit    give slots to the openings for which some are free
pending  ask each session that was woken: has it frames, or work, or has it come to its end
work     do a piece of work (finalize, truncate, ...) for one session, or for a few
step     run the frames of all sessions through the engine, and give each its output
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from kiku.scheduler.binding import Binding, Job
from kiku.scheduler.open_sessions import OpenSessions
from kiku.scheduler.opening_queue import OpeningQueue
from kiku.scheduler.steps import Steps
from kiku.stream import Work

SHARED_PIECE = 8
"""Frames of one piece of work. The other sessions wait for it: about as long as for a step of their
own where eight frames of one stream are one pass (the 1B), three times as long with the demo."""

STREAMS_PER_PIECE = 16
"""For each 16 sessions one more piece of work is done between two steps, besides the first, and one
more call is made. As many sessions make a step longer by about one piece."""

GATHER_FROM = 16
GATHER_S = 0.004
"""With at least `GATHER_FROM` live streams the driver's thread waits `GATHER_S` seconds before a
round, so that more frames share a step: frames come at any moment, and to wake up for each costs
more than all the rest. Where a step takes longer than that, frames gather by themselves."""


class Rounds:
    """Makes the rounds, one after the other. `Driver` says in which thread."""

    def __init__(self, sessions: OpenSessions, openings: OpeningQueue, steps: Steps) -> None:
        """No round was made yet."""
        self.sessions = sessions
        self.jobs: deque[Job[Any]] = deque()
        """Calls to be made between two steps. Any thread adds to them."""
        self.again_at = math.inf
        """When to make another round though nothing has changed (`time.monotonic`)."""
        self._openings, self._steps = openings, steps
        self._num_pieces = 0  # of work, ever

    # What the driver asks.

    @property
    def needs_thread(self) -> bool:
        """Whether there are sessions that no client drives, or some that wait for slots."""
        return self.sessions.num_driven > 0 or self._openings.needs_thread

    @property
    def gather_s(self) -> float:
        """Seconds to wait before a round, so that more frames come together in it."""
        many_live = self.sessions.num_live >= GATHER_FROM
        return GATHER_S if many_live and self._steps.seconds < GATHER_S else 0.0

    def make(self) -> int:
        """Make one round; how much it did (0: there was nothing to do)."""
        self.again_at = math.inf
        try:
            return self._make()
        except BaseException:
            # It may have come between any two lines. Sessions that were taken from the queue, but
            # not asked yet, would sleep for ever.
            self.sessions.rouse_all()
            raise

    def _make(self) -> int:
        sessions, pacing = self.sessions, self._steps.pacing
        moved = sessions.sweep() + self._run_jobs() + self._openings.admit()
        most_live = pacing.most_live(len(sessions.bindings))
        waiting: list[tuple[Binding, int]] = []
        works: list[tuple[Binding, Work]] = []
        for binding in sessions.take_awake():
            try:
                pending = binding.session.pending(most_live if binding.live else pacing.max_block)
            except BaseException as error:
                sessions.fail(binding, error)
                moved += 1
                continue
            if isinstance(pending, int):
                if pending:
                    waiting.append((binding, pending))
            elif pending is None:
                sessions.finish(binding)
                moved += 1
            else:
                works.append((binding, pending))
        if works:
            self._do_some(works)
            moved += 1
            if any(binding.live for binding, _ in works):
                waiting = self._beside_work(waiting)
        if waiting:
            moved += self._steps.make(waiting)
            self.again_at = pacing.again_at
        return moved

    def _run_jobs(self) -> int:
        """Make some of the calls that wait, in their order; how many."""
        num_jobs = min(len(self.jobs), self._num_at_once) if self.jobs else 0
        for _ in range(num_jobs):
            self.jobs.popleft().run()
        return num_jobs

    @property
    def _num_at_once(self) -> int:
        """How many pieces of work, and how many calls, come between two steps."""
        return 1 + len(self.sessions.bindings) // STREAMS_PER_PIECE

    def _do_some(self, works: Sequence[tuple[Binding, Work]]) -> None:
        """Do a piece of work for a few sessions, in turn and live ones first, so that the others do
        not wait long."""
        most = SHARED_PIECE if len(self.sessions.bindings) > 1 else None
        by_turn = sorted(works, key=lambda one: (not one[0].live, one[0].worked_at))
        for binding, work in by_turn[: self._num_at_once]:
            self._num_pieces += 1
            binding.worked_at = self._num_pieces
            self.sessions.run_work(binding, work, most)
        for binding, _ in works:
            self.sessions.rouse(binding)

    def _beside_work(self, waiting: list[tuple[Binding, int]]) -> list[tuple[Binding, int]]:
        """What a step may take while live sessions have work left: nothing if only recordings wait,
        as they would hold the work up. Next to live frames recordings take little, and in a large
        service some stream always has work."""
        if any(binding.live for binding, _ in waiting):
            return waiting
        for binding, _ in waiting:
            self.sessions.rouse(binding)
        return []
