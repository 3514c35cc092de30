"""An engine that notes how long what is asked of it takes, and a text that is written beforehand.

Knows engines by their contract alone, as `speed` does.
"""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kiku.engine import Choose, Engine, StepOutput
from kiku.evaluate.speed import TwoParts
from kiku.evaluate.times import Clock
from kiku.recognizer import Recognizer


class Script:
    """Picks what it is told to, and otherwise silence: for models whose weights are random."""

    def __init__(self, pad_id: int) -> None:
        """Silence."""
        self._pad_id = pad_id
        self.next: deque[int] = deque()
        """The tokens of the next frames."""

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """See `Choose`."""
        return self.next.popleft() if self.next else self._pad_id

    def __deepcopy__(self, memo: Any) -> "Script":
        """There is one script for a slot and for its looks ahead."""
        return self


class Recorder:
    """An engine that notes how long what is asked of it takes; otherwise it is the other one."""

    def __init__(
        self, engine: Engine, *, script: Script | None = None, clock: Clock = perf_counter
    ) -> None:
        """Around `engine`; with a script, every slot follows that."""
        self._engine, self._script, self._clock = engine, script, clock
        self._parts = cast(TwoParts, engine) if isinstance(engine, TwoParts) else None
        self.codec: list[float] = []
        """Seconds of each step; empty where the engine cannot tell."""
        self.decoder: list[float] = []
        self.refreshes: list[float] = []
        self.rereads: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property
    def engine(self) -> Engine:
        """This, as what it stands for."""
        return cast(Engine, self)

    @property
    def passes(self) -> int:
        """That the decoder has made, or 0 where the engine cannot tell."""
        return 0 if self._parts is None else self._parts.num_passes

    def clear(self) -> None:
        """Forget what was noted."""
        for noted in (self.codec, self.decoder, self.refreshes, self.rereads):
            noted.clear()

    def open(
        self, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        """See `Engine.open`."""
        return self._engine.open(self._script or choose, num_codebooks=num_codebooks)

    def steer(
        self, slot: int, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> None:
        """See `Engine.steer`."""
        self._engine.steer(slot, self._script or choose, num_codebooks=num_codebooks)

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        """See `Engine.step`."""
        if self._parts is None:
            return self._engine.step(slots, frames)
        started = self._clock()
        codes = self._parts.encode(slots, frames)
        between = self._clock()
        out = self._parts.decode(slots, codes)
        self.codec.append(between - started)
        self.decoder.append(self._clock() - between)
        return out

    def refresh(self, slot: int, frames: int, *, most: int | None = None) -> int:
        """See `Engine.refresh`. Each call counts: it is what others wait for."""
        with self._noted(self.refreshes):
            return self._engine.refresh(slot, frames, most=most)

    def reread(self, slot: int, frames: int) -> StepOutput:
        """See `Engine.reread`."""
        with self._noted(self.rereads):
            return self._engine.reread(slot, frames)

    @contextmanager
    def _noted(self, seconds: list[float]) -> Generator[None]:
        started = self._clock()
        yield
        seconds.append(self._clock() - started)


def recorded(
    recognizer: Recognizer, *, script: Script | None = None, clock: Clock = perf_counter
) -> tuple[Recognizer, Recorder]:
    """The same model with a loop of its own, and what notes its times. All slots must be free."""
    notes = Recorder(recognizer.engine, script=script, clock=clock)
    same = Recognizer(notes.engine, recognizer.config, recognizer.vocabulary, name=recognizer.name)
    return same, notes
