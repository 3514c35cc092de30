"""The instrumented engine, which notes how long its parts take, and scripts for its text."""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kiku.engine import Picker, SamplingParams, SlotEngine, StepOutput
from kiku.measure.times import Clock
from kiku.recognizer import Recognizer


class Script:
    """A picker that picks the tokens of a script, and else silence: for random weights."""

    def __init__(self, pad_id: int) -> None:
        """The script is empty: all is silence."""
        self._pad_id = pad_id
        self.next: deque[int] = deque()
        """The tokens of the next frames."""

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """See `Picker`."""
        return self.next.popleft() if self.next else self._pad_id

    def __deepcopy__(self, memo: Any) -> "Script":
        """The same script: a slot shares it with its finalize work."""
        return self


class InstrumentedEngine:
    """Notes how long the calls of an engine take; otherwise it behaves as that engine."""

    def __init__(
        self, engine: SlotEngine, *, script: Script | None = None, clock: Clock = perf_counter
    ) -> None:
        """Wrap `engine`; with a script, every slot follows it."""
        self._engine, self._script, self._clock = engine, script, clock
        self.codec: list[float] = []
        """Seconds that the codec took in each step; the lists below are of the decoder in each
        step, and of each call that truncates or re-decodes."""
        self.decoder: list[float] = []
        self.truncations: list[float] = []
        self.redecodes: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property
    def engine(self) -> SlotEngine:
        """This object, typed as the engine that it wraps."""
        return cast(SlotEngine, self)

    @property
    def passes(self) -> int:
        """How many passes the decoder has made."""
        return self._engine.num_passes

    def clear(self) -> None:
        """Forget what was noted."""
        for noted in (self.codec, self.decoder, self.truncations, self.redecodes):
            noted.clear()

    def open(
        self, picker: Picker | SamplingParams | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        """See `SlotEngine.open`."""
        return self._engine.open(self._script or picker, num_codebooks=num_codebooks)

    def set_decoding(
        self,
        slot: int,
        picker: Picker | SamplingParams | None = None,
        *,
        num_codebooks: int | None = None,
    ) -> None:
        """See `SlotEngine.set_decoding`."""
        self._engine.set_decoding(slot, self._script or picker, num_codebooks=num_codebooks)

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        """See `SlotEngine.step`."""
        started = self._clock()
        codes = self._engine.encode(slots, frames, counts)
        between = self._clock()
        out = self._engine.decode(slots, codes, counts)
        self.codec.append(between - started)
        self.decoder.append(self._clock() - between)
        return out

    def truncate(self, slot: int, frames: int, *, most: int | None = None) -> int:
        """See `SlotEngine.truncate`. Each call is noted by itself, as other streams wait for it."""
        with self._noted(self.truncations):
            return self._engine.truncate(slot, frames, most=most)

    def redecode(
        self, slot: int, frames: int, *, most: int | None = None
    ) -> tuple[StepOutput, int]:
        """See `SlotEngine.redecode`; as `truncate`."""
        with self._noted(self.redecodes):
            return self._engine.redecode(slot, frames, most=most)

    @contextmanager
    def _noted(self, seconds: list[float]) -> Generator[None]:
        started = self._clock()
        yield
        seconds.append(self._clock() - started)


def instrumented(
    recognizer: Recognizer, *, script: Script | None = None, clock: Clock = perf_counter
) -> tuple[Recognizer, InstrumentedEngine]:
    """The same model with a scheduler of its own, and the engine that notes its times. All slots
    must be free."""
    notes = InstrumentedEngine(recognizer.scheduler.engine, script=script, clock=clock)
    same = Recognizer(notes.engine, recognizer.config, recognizer.vocabulary, name=recognizer.name)
    return same, notes
