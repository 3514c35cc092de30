"""Frames with timestamps -> chunks and silence, each at the time at which a player plays it.

Where sound is missing, silence takes its place. Where timestamps and sound only drift apart (an
inexact clock, packets that overlap), the sound itself is not touched: pauses are made longer or
shorter until both agree. A difference that remains is reported. Does not know containers.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from kiku.audio.checks import StreamWarning
from kiku.audio.chunk import Chunk

# If a frame begins more than this after the end of the frame before, sound is missing there.
_HOLE_S = 0.05
# Seconds and frames after a possible hole that are checked before it is accepted as a hole, since a
# single timestamp may be late by chance.
_LOOK_S, _MIN_LOOK = 0.5, 4
# If sound and clock differ by more than this, pauses are made longer or shorter.
_NEAR_S = 0.04
# A difference above this is reported.
_REPORTED_S = 0.1
# A clock that jumps back by more than the first, or ahead by more than the second (longer than any
# recording), has restarted.
_BACK_S, _AHEAD_S = 2.0, 86_400.0
# Where clocks may restart anywhere, a jump ahead by more than this is a restart, unless another
# track fills the time.
_JUMP_S = 10.0
# A clock that restarts this often, where none should restart, is ignored.
_MAX_RESTARTS = 3
# The length of the pieces in which pauses are searched.
_PIECE_S = 0.02
# Silence is given in parts of this length, so that hours of it never take memory at once.
_PART_S = 5.0
# A pause is quieter than this share of the loudest recent level, which halves every `_LOUD_S`
# seconds; a level below the last number is always a pause.
_PAUSE, _LOUD_S, _NO_SOUND = 0.1, 5.0, 1e-3


@dataclass(slots=True)
class _Loudness:
    """Tells pauses from words by comparing them with the loudest recent level."""

    loudest: float = 0.0

    def is_pause(self, chunk: Chunk) -> bool:
        """Whether nobody speaks in the chunk, as far as loudness shows."""
        data = chunk.data
        if data is None or isinstance(data, bytes):
            return data is None
        values = data.astype(np.float32)
        if data.dtype.kind != "f":
            values = (values - 128 * (data.dtype.kind == "u")) / 2.0 ** (8 * data.itemsize - 1)
        level = float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
        self.loudest = max(level, self.loudest * 0.5 ** (chunk.seconds / _LOUD_S))
        return level < max(_NO_SOUND, _PAUSE * self.loudest)


@dataclass(slots=True)
class PlayerClock:
    """Gives the frames of one track, with silence wherever a player would be silent."""

    warn: Callable[[StreamWarning], None]
    given_s: float = 0.0
    """Seconds of sound and silence given out."""
    silence_s: float = 0.0
    """Seconds of silence given out for sound that is missing in the middle."""
    end_s: float = 0.0
    """Second at which the last frame ends, by its own timestamp."""

    _may_restart: bool = False
    _is_filled: Callable[[float], bool] = lambda start_s: False
    _origin_s: float = 0.0
    """Timestamp, in seconds, that corresponds to a `given_s` of 0."""
    _late_s: float = 0.0
    """Seconds by which the last frame should have come later."""
    _held: list[tuple[Chunk, float]] = field(default_factory=list[tuple[Chunk, float]])
    """Frames after a possible hole, with their timestamps."""
    _recent: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])
    """For each of the last frames: the second at which it was given out, and by how many seconds
    it should have come later."""
    _loudness: _Loudness = field(default_factory=_Loudness)
    _was_pause: bool = False
    _is_fast: bool = False
    _worst: tuple[float, float] = (0.0, 0.0)
    """Largest difference between a frame that is no pause and its timestamp, and its time."""
    _restarts: int = 0
    _shift_s: float = 0.0
    """Seconds by which timestamps jumped at restarts; no silence was given for them."""

    def begin(self, *, may_restart: bool, is_filled: Callable[[float], bool]) -> None:
        """Go on with another track, whose clock begins at 0.

        Args:
            may_restart: whether its timestamps may restart anywhere, as in broadcasts.
            is_filled: takes the time of a frame; whether other tracks went on before it while this
                one was silent.
        """
        self._may_restart, self._is_filled = may_restart, is_filled
        self._origin_s, self._late_s = -self.given_s, 0.0
        self._restarts, self._is_fast = 0, False
        self._recent.clear()

    def place(self, chunk: Chunk, start_s: float | None) -> Iterator[Chunk]:
        """Take the next frame; give out all chunks that are settled by then.

        Args:
            chunk: the next frame.
            start_s: its timestamp, in seconds; None means right after the frame before.
        """
        if self._held:
            self._held.append((chunk, self._after_held() if start_s is None else start_s))
            held_s = sum(held.seconds for held, _ in self._held)
            if held_s >= _LOOK_S and len(self._held) >= _MIN_LOOK:
                yield from self._decide()
            return
        late_s = self._late_s if start_s is None else self._late_by(start_s)
        if late_s - self._late_s > _HOLE_S and start_s is not None and self._is_trusted:
            self._held.append((chunk, start_s))
            return
        yield from self._give(chunk, late_s)

    def rest(self) -> Iterator[Chunk]:
        """Give out the frames that are still held, at the end of the track."""
        while self._held:
            yield from self._decide()

    def report(self) -> None:
        """At the end of all tracks, warn of the largest difference that remained."""
        worst_s, time = self._worst
        if worst_s > _REPORTED_S:
            self.warn(
                StreamWarning(
                    "times",
                    f"sound and timestamps differ by up to {worst_s:.2f} s (at {time:.1f} s): "
                    "there, times may differ from a player's by as much",
                    time,
                )
            )

    @property
    def _is_trusted(self) -> bool:
        return self._may_restart or self._restarts < _MAX_RESTARTS

    def _late_by(self, start_s: float) -> float:
        return start_s - self._origin_s - self.given_s

    def _after_held(self) -> float:
        chunk, start_s = self._held[-1]
        return start_s + chunk.seconds

    def _decide(self) -> Iterator[Chunk]:
        """Decide whether sound is missing before the first frame that is held. Give this frame out,
        and place the other frames once more."""
        held, self._held = self._held, []
        late: list[float] = []
        before_s = 0.0
        for chunk, start_s in held:
            late.append(self._late_by(start_s) - before_s)
            before_s += chunk.seconds
        hole_s = min(late)
        if hole_s - self._late_s > _HOLE_S and hole_s > 0 and not self._is_pace(late):
            if self._is_restart(held[0][1], hole_s):
                self._restart(hole_s)
            else:
                # If the sound only begins late, nothing is missing.
                self.silence_s += hole_s if self.given_s else 0.0
                yield from self._silence(hole_s, held[0][0])
        yield from self._give(held[0][0], self._late_by(held[0][1]))
        for chunk, start_s in held[1:]:
            yield from self.place(chunk, start_s)

    def _is_pace(self, late: list[float]) -> bool:
        """Whether the timestamps simply run faster than the sound, at every frame. If there are too
        few frames to see it, the last answer is kept."""
        steps = [after - before for before, after in pairwise(late)]
        least = (late[0] - self._late_s) / 4
        if len(steps) > 1:
            self._is_fast = 2 * sum(step > least for step in steps) > len(steps)
        return self._is_fast

    def _is_restart(self, start_s: float, hole_s: float) -> bool:
        if hole_s > _AHEAD_S:
            return True
        jumps = self._may_restart and self.given_s > 0 and hole_s > _JUMP_S
        return jumps and not self._is_filled(start_s)

    def _restart(self, late_s: float) -> None:
        """Note that the clock restarts here."""
        self._origin_s += late_s
        self._shift_s += late_s
        self._recent.clear()
        self._restarts += 1
        if self._restarts <= _MAX_RESTARTS:
            way = "ahead" if late_s > 0 else "back"
            self.warn(
                StreamWarning(
                    "times",
                    f"the timestamps jump {way} by {abs(late_s):.2f} s: times continue without a "
                    "break, and from here on may differ from a player's by "
                    f"{abs(self._shift_s):.2f} s",
                    self.given_s,
                )
            )

    def _give(self, chunk: Chunk, late_s: float) -> Iterator[Chunk]:
        """Give a frame out; if it is a pause, make it longer or shorter as the clock demands."""
        if late_s < -_BACK_S and self._is_trusted:
            self._restart(late_s)
            late_s = 0.0
        if abs(late_s) > _NEAR_S and chunk.seconds > 2 * _PIECE_S:
            for part in chunk.split(_PIECE_S):
                yield from self._give(part, late_s)
                late_s = self._late_s
            return
        self.end_s = max(self.end_s, self.given_s + late_s + chunk.seconds)
        is_pause = False
        if not self._is_trusted:
            late_s = 0.0
        elif abs(late_s) > _NEAR_S:
            is_pause = self._loudness.is_pause(chunk)
            change_s = self._change(late_s) if is_pause else 0.0
            if change_s > 0:
                yield from self._silence(change_s, chunk)
            elif change_s < 0 and self._was_pause:
                chunk, change_s = _without(chunk, -change_s)
            else:
                change_s = 0.0
            late_s -= change_s
            self._recent = deque((at, late - change_s) for at, late in self._recent)
            if not is_pause and abs(late_s) > self._worst[0]:
                self._worst = abs(late_s), self.given_s
        self._recent.append((self.given_s, late_s))
        while self._recent[0][0] < self.given_s - _LOOK_S:
            self._recent.popleft()
        self._was_pause, self._late_s = is_pause, late_s
        if chunk.num_samples:
            self.given_s += chunk.seconds
            yield chunk

    def _change(self, late_s: float) -> float:
        """Seconds by which a pause has to become longer, below 0 for shorter: the least difference
        of all the last frames, since a single one may be off by chance."""
        late = [late_s, *(late for _, late in self._recent)]
        change_s = min(late) if late_s > 0 else max(late)
        return change_s if change_s * late_s > 0 and abs(change_s) > _NEAR_S else 0.0

    def _silence(self, seconds: float, like: Chunk) -> Iterator[Chunk]:
        """Give silence that comes before `like` and has its rate and channels."""
        left = round(seconds * like.rate)
        self.given_s += left / like.rate
        while left > 0:
            size = min(left, round(_PART_S * like.rate))
            yield Chunk(None, like.rate, size, like.num_channels)
            left -= size


def _without(chunk: Chunk, seconds: float) -> tuple[Chunk, float]:
    """A chunk without its first `seconds`, and how much was taken away, in seconds below 0."""
    first = min(round(seconds * chunk.rate), chunk.num_samples)
    data = chunk.data
    assert isinstance(data, np.ndarray), "only samples have pauses"
    rest = Chunk(
        data[first:], chunk.rate, chunk.num_samples - first, chunk.num_channels, None, chunk.peak
    )
    return rest, -first / chunk.rate
