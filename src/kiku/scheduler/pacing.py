"""How many frames each session takes in a step, so that recordings hold up nobody who speaks.

A live frame wants to be heard at once; a recording wants the whole machine. Both share the steps:
beside live frames a recording takes a frame or few. While no live frame waits, it takes as many as
the machine can do until the next live frame is expected, which comes a frame's length after the
last; and if that is too soon even for one, it waits. Knows times and counts, and no sound.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence

from kiku.scheduler.binding import Binding

LIVE_FRAMES = 2
"""A live session with at most so many frames waiting keeps up."""

BEHIND_FRAMES = 4
"""One that has fallen behind takes so many frames a step: that costs the others little more than a
step of their own."""

LIVE_PER_SHARED = 8
"""Beside so many live sessions a step takes one frame of a recording, and at least one."""

STEP_FRAMES = 1_024
"""Frames of one step of all sessions together: 8 MB of sound, far more than makes it quicker."""

_LATE_S = 0.01
"""A live frame that is so much later than expected is waited for no longer."""

_SILENT_S = 0.25
"""Seconds by which a frame may be late before its stream counts as silent; until then it may still
come at any moment."""

_MARGIN = 0.75
"""Share of the time until the next live frame that recordings may use: steps are not all alike."""

_CREEP_S = 0.002
"""Seconds by which the expected time of a stream's frames may move later with each frame: it
follows the earliest frames."""

_COST_FADES = 0.95
"""Factor by which a remembered cost falls after a step that was cheaper, or that was not made
because of it: one standstill of the machine must not hold up recordings for good."""

WaitingFrames = Sequence[tuple[Binding, int]]


class StepCosts:
    """Seconds that a step of recordings takes by its number of frames, learnt from the steps. It is
    not in proportion: one frame costs more than a tenth of ten. Numbers are grouped by powers of
    two."""

    def __init__(self, frame_s: float) -> None:
        """Unknown: a frame is taken to cost `frame_s` seconds."""
        self._frame_s = frame_s
        self._known: dict[int, float] = {}

    def learn(self, num_frames: int, seconds: float) -> None:
        """A step of so many frames took so long."""
        size = 1 << (num_frames - 1).bit_length()
        self._known[size] = max(seconds, _COST_FADES * self._known.get(size, 0.0))

    def room(self, seconds: float, most: int) -> int:
        """How many frames a step can have that takes so long: a power of two; 0 is none."""
        size = 1 << (most.bit_length() - 1)
        while size and self._of(size) > seconds:
            size >>= 1
        return size

    def _of(self, size: int) -> float:
        if size in self._known:
            return self._known[size]
        bounds = [cost if known > size else cost * size / known
                  for known, cost in self._known.items()]  # fmt: skip
        return min(bounds, default=size * self._frame_s)

    def fade(self) -> None:
        """No step was made for what they seem to cost."""
        for size in self._known:
            self._known[size] *= _COST_FADES


class Pacing:
    """Chooses what a step takes, and learns what it costs."""

    def __init__(
        self, frame_s: float, max_block: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """For frames of `frame_s` seconds, at most `max_block` of one session in a step."""
        self.max_block = max_block
        self.again_at = math.inf
        """When to choose again, where nothing was chosen."""
        self._frame_s, self._clock = frame_s, clock
        self._costs = StepCosts(frame_s / 4)
        self._num_moved = 0
        self._started: float | None = None

    def choose(
        self, waiting: WaitingFrames, bindings: Collection[Binding], num_live: int
    ) -> WaitingFrames:
        """What the next step takes.

        Args:
            waiting: sessions with frames, and how many.
            bindings: all sessions that hold a slot.
            num_live: how many of these are live.

        Returns:
            Some of `waiting`, each with at most as many frames as it has. None of them: see
            `again_at`.
        """
        self.again_at, self._started = math.inf, None
        most = min(self.max_block, max(1, STEP_FRAMES // len(waiting)))
        if num_live and len(bindings) > 1:
            return self._beside_live(waiting, bindings, most)
        return [(one, min(ready, most)) for one, ready in waiting]

    def _beside_live(
        self, waiting: WaitingFrames, bindings: Collection[Binding], most: int
    ) -> list[tuple[Binding, int]]:
        now = self._clock()
        silent = now - self._frame_s  # who was due before was not heard for a while
        chosen: list[tuple[Binding, int]] = []
        recordings: list[tuple[Binding, int]] = []
        for binding, ready in waiting:
            if not binding.live:
                recordings.append((binding, ready))
                continue
            if ready <= LIVE_FRAMES:
                came = now if binding.due_at < silent else min(now, binding.due_at + _CREEP_S)
                binding.due_at = came + self._frame_s
            chosen.append((binding, min(ready, BEHIND_FRAMES)))
        if not recordings:
            return chosen
        if chosen:
            room = max(1, len(chosen) // LIVE_PER_SHARED)
        else:
            room = self._room(bindings, now, most * len(recordings))
            self._started = now if room else None
        each = max(1, min(most, room // len(recordings)))
        recordings.sort(key=lambda one: one[0].moved_at)
        for binding, ready in recordings[: room // each]:
            self._num_moved += 1
            binding.moved_at = self._num_moved
            chosen.append((binding, min(ready, each)))
        return chosen

    def _room(self, bindings: Collection[Binding], now: float, most: int) -> int:
        """Frames that can be done until a live frame is expected, at most so many."""
        due = [one.due_at for one in bindings if one.live and one.due_at > now - _SILENT_S]
        if not due:  # whoever is live is silent; and may speak at any moment
            return max(1, self._costs.room(self._frame_s / 2, most))
        due_at = min((at for at in due if at > now - _LATE_S), default=0.0)
        if not due_at:
            return 1
        room = self._costs.room(_MARGIN * (due_at - now), most)
        if not room:
            self._costs.fade()
            self.again_at = due_at + _LATE_S
        return room

    def stepped(self, num_frames: int) -> None:
        """The step that was chosen last has been made, with so many frames."""
        if self._started is not None:
            self._costs.learn(num_frames, self._clock() - self._started)
