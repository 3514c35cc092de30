"""A step: frames of several sessions go through the engine in one call, and each session takes what
the model gave for its own."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.engine import SlotEngine, StepOutput
from kiku.errors import StreamError
from kiku.scheduler.binding import Binding, is_ctrl_c
from kiku.scheduler.open_sessions import OpenSessions
from kiku.scheduler.pacing import Pacing, WaitingFrames

_LOG = logging.getLogger(__name__)

OnStep = Callable[[int, float], None]


class Steps:
    """Makes the steps: chooses the frames, takes them from their sessions, runs the engine and
    gives the output back."""

    def __init__(self, engine: SlotEngine, sessions: OpenSessions, max_block: int | None) -> None:
        """No step yet; each takes at most `max_block` frames of a session (None: as many as the
        engine does)."""
        self.pacing = Pacing(engine.frame_s, min(engine.max_block, max_block or engine.max_block))
        self.on_step: OnStep | None = None
        """Called after each step, by the thread that makes the round, with the number of its frames
        and the seconds that it took."""
        self.num_failed = 0
        """Steps that failed in a row: a session's fault makes one fail, a broken engine all."""
        self.seconds = 0.0
        """How long the last step took."""
        self._engine, self._sessions = engine, sessions

    def make(self, waiting: WaitingFrames) -> int:
        """Make one step of those that wait, or of some of them.

        Args:
            waiting: sessions with frames, and how many frames each has.

        Returns:
            How many frames the step took; 0 if pacing chose none, 1 if it failed.

        Raises:
            KeyboardInterrupt: Ctrl-C came; sessions whose frames were lost have been ended.
        """
        chosen = self.pacing.choose(waiting, self._sessions.bindings, self._sessions.num_live)
        if len(chosen) < len(waiting):
            self._put_off(waiting, chosen)
            if not chosen:
                return 0
        moving: list[tuple[Binding, int]] = []
        ctrl_c: BaseException | None = None
        try:
            frames = self._frames_of(chosen, moving)
            if not moving:
                return 1
            started = time.perf_counter()
            out = self._engine.step(
                [binding.slot for binding, _ in moving], frames, [count for _, count in moving]
            )
            self.num_failed, self.seconds = 0, time.perf_counter() - started
            if self.on_step is not None:
                self._report_step(self.on_step, len(frames))
            ctrl_c = self._deliver(moving, out, levels_of(frames))
        except BaseException as error:  # the frames of this step are lost
            for binding, _ in moving:
                self._sessions.fail(binding, error, reraise=False)
            if isinstance(error, KeyboardInterrupt):
                raise
            self.num_failed += 1
            return 1
        if ctrl_c is not None:  # no output of the engine was lost
            raise ctrl_c
        self.pacing.stepped(len(frames))
        return len(frames)

    def _put_off(self, waiting: WaitingFrames, chosen: WaitingFrames) -> None:
        """Have the sessions that were not chosen asked again: in the next round, or, if none was
        chosen, when there is room for them."""
        if not chosen:
            self._sessions.hold_back(binding for binding, _ in waiting)
            return
        taken = {binding.slot for binding, _ in chosen}
        for binding, _ in waiting:
            if binding.slot not in taken:
                self._sessions.rouse(binding)

    def _frames_of(
        self, chosen: WaitingFrames, moving: list[tuple[Binding, int]]
    ) -> NDArray[np.float32]:
        """Take the next frames [n, frame_size] of some sessions. Each is added to `moving` before
        anything is taken of it, so whatever is lost is known to be."""
        pieces: list[NDArray[np.float32]] = []
        for binding, count in chosen:
            moving.append((binding, count))
            try:
                pieces += self._take(binding, count)
            except BaseException as error:  # a session's own mistake harms no other
                if is_ctrl_c(error):
                    raise
                moving.pop()
                self._sessions.fail(binding, error)
        return np.concatenate(pieces or [np.zeros(0, np.float32)]).reshape(
            -1, self._engine.frame_size
        )

    def _take(self, binding: Binding, count: int) -> Sequence[NDArray[np.float32]]:
        """Take the samples of a session's next `count` frames."""
        pieces, size = binding.session.take(count), count * self._engine.frame_size
        if pieces[0].size != size and sum(piece.size for piece in pieces) != size:
            raise StreamError(f"a session did not give {count} frames: it belongs to another model")
        return pieces

    def _report_step(self, listener: OnStep, num_frames: int) -> None:
        try:
            listener(num_frames, self.seconds)
        except Exception:  # a listener's mistake must not harm others
            _LOG.exception("a callback after a step failed")

    def _deliver(
        self, moving: WaitingFrames, out: StepOutput, levels: list[float]
    ) -> BaseException | None:
        """Give each session its part of the engine's output; return a Ctrl-C that came
        meanwhile."""
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
                    self._sessions.rouse(binding)
            except BaseException as error:
                ctrl_c = error if is_ctrl_c(error) else ctrl_c
                self._sessions.fail(binding, error, reraise=False)
        return ctrl_c


def levels_of(frames: NDArray[np.float32]) -> list[float]:
    """[T, frame_size] -> loudness of each frame, dBFS; silence is -100."""
    power = np.einsum("ts,ts->t", frames, frames) / frames.shape[1]
    return (10 * np.log10(np.maximum(power, 1e-10))).tolist()
