"""How many frames each session takes in a step, so that recordings do not hold up live streams.

A live frame should be heard at once; a recording could use the whole machine. Both share the steps.
Next to live frames a recording takes one frame or a few. While no live frame waits, it takes as
many as the machine can do until the next live frame is expected, which is a frame's length after
the last. If that is too soon even for one frame, the recording waits. This module knows times and
counts, and no sound.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence

from kiku.scheduler.binding import Binding

LIVE_FRAMES = 2
"""A live session keeps up if at most this many of its frames wait."""

BEHIND_FRAMES = 4
"""Frames of a step that a live session takes at most: more than one if it has fallen behind. That
costs the others little more than a step of their own."""

LIVE_PER_SHARED = 8
"""A step takes one frame of recordings for every 8 live sessions in it, and at least one."""

BUSY = 0.5
"""If the last step took a longer part of a frame than this, live frames wait for steps, and the
next step takes one frame of recordings at most."""

STEP_FRAMES = 1_024
"""Frames of all sessions that one step takes at most: 8 MB of sound, far more than help."""

_LATE_S = 0.01
"""Seconds after its expected time for which recordings wait for a live frame."""

_SILENT_S = 0.25
"""Seconds by which a frame may be late before its stream counts as silent. Until then the frame may
still come at any moment."""

_MARGIN = 0.75
"""Share of the time until the next live frame that recordings may use, as steps differ."""

_CREEP_S = 0.002
"""Seconds by which the expected time of a stream's frames may move later with each frame: it
follows the earliest frames."""

_COST_FADES = 0.95
"""Factor by which a remembered cost falls after a step that was cheaper, or that was not made
because of it: one standstill of the machine must not hold up recordings for good."""

WaitingFrames = Sequence[tuple[Binding, int]]


class StepCosts:
    """How many seconds a step of recordings takes by its number of frames, learned from the steps.
    Cost is not in proportion to frames: one costs more than a tenth of ten. Numbers of frames are
    grouped by powers of two."""

    def __init__(self, frame_s: float) -> None:
        """Nothing is known yet: a frame is assumed to cost `frame_s` seconds."""
        self._frame_s = frame_s
        self._known: dict[int, float] = {}

    def learn(self, num_frames: int, seconds: float) -> None:
        """Learn from a step of `num_frames` frames that took `seconds`."""
        size = 1 << (num_frames - 1).bit_length()
        self._known[size] = max(seconds, _COST_FADES * self._known.get(size, 0.0))

    def room(self, seconds: float, most: int) -> int:
        """How many frames a step of at most `seconds` can have, at most `most`: a power of two, or
        0 for none."""
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
        """Lower all costs a little: no step was made, because it seemed to cost too much."""
        for size in self._known:
            self._known[size] *= _COST_FADES


class Pacing:
    """Chooses the frames of each step, and learns what steps of recordings cost."""

    def __init__(
        self, frame_s: float, max_block: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """A frame is `frame_s` seconds long; a step takes at most `max_block` of one session."""
        self.max_block = max_block
        self.again_at = math.inf
        """When to choose again, by the clock, if nothing was chosen; otherwise infinity."""
        self._frame_s, self._clock = frame_s, clock
        self._costs = StepCosts(frame_s / 4)
        self._num_moved = 0
        self._started = 0.0
        self._of_recordings = False  # the step that was chosen last has their frames alone
        self._last_s = 0.0  # how long the last step took

    def most_live(self, num_open: int) -> int:
        """Frames that a step takes of a live session at most, if `num_open` sessions are open."""
        return min(self.max_block, BEHIND_FRAMES) if num_open > 1 else self.max_block

    def choose(
        self, waiting: WaitingFrames, bindings: Collection[Binding], num_live: int
    ) -> WaitingFrames:
        """Choose the frames that the next step takes.

        Args:
            waiting: sessions with frames, and how many frames each has.
            bindings: all sessions that hold a slot.
            num_live: how many of these are live.

        Returns:
            Some of `waiting`, each with at most as many frames as it has. If there are none,
            `again_at` says when to choose again.
        """
        self.again_at, self._started, self._of_recordings = math.inf, self._clock(), False
        most = min(self.max_block, max(1, STEP_FRAMES // len(waiting)))
        if num_live and len(bindings) > 1:
            return self._beside_live(waiting, bindings, most)
        return [(one, min(ready, most)) for one, ready in waiting]

    def _beside_live(
        self, waiting: WaitingFrames, bindings: Collection[Binding], most: int
    ) -> list[tuple[Binding, int]]:
        now = self._started
        silent = now - self._frame_s  # a stream that was due before has been silent for a while
        chosen: list[tuple[Binding, int]] = []
        recordings: list[tuple[Binding, int]] = []
        for binding, ready in waiting:
            if not binding.live:
                recordings.append((binding, ready))
                continue
            if ready <= LIVE_FRAMES:
                came = now if binding.due_at < silent else min(now, binding.due_at + _CREEP_S)
                binding.due_at = came + self._frame_s
            chosen.append((binding, min(ready, self.most_live(len(bindings)))))
        if not recordings:
            return chosen
        if chosen:
            is_busy = self._last_s > BUSY * self._frame_s
            room = 1 if is_busy else max(1, len(chosen) // LIVE_PER_SHARED)
        else:
            room = self._room(bindings, now, most * len(recordings))
            self._of_recordings = room > 0
        each = max(1, min(most, room // len(recordings)))
        recordings.sort(key=lambda one: one[0].moved_at)
        for binding, ready in recordings[: room // each]:
            self._num_moved += 1
            binding.moved_at = self._num_moved
            chosen.append((binding, min(ready, each)))
        return chosen

    def _room(self, bindings: Collection[Binding], now: float, most: int) -> int:
        """How many frames can be done until a live frame is expected, at most `most`."""
        due = [one.due_at for one in bindings if one.live and one.due_at > now - _SILENT_S]
        if not due:  # all live streams are silent, and a frame may come at any moment
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
        """Take note that the step which was chosen last has been made, with `num_frames` frames."""
        self._last_s = self._clock() - self._started
        if self._of_recordings:
            self._costs.learn(num_frames, self._last_s)
