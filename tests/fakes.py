"""An engine without a network: the sound itself says which token comes after it; and a session that
is driven by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kiku import Event, Recognizer, StreamOptions
from kiku.engine import Picker, Said, SamplingParams, SlotEngine, StepOutput
from kiku.engine.backend import Arrays
from kiku.scheduler import Member, OnOutput, Opening, SlotOptions
from kiku.stream import FinalizeRequest, WordSession, Work
from tests import tiny

SCALE = 256
PAD = 3


def spoken(tokens: Sequence[int], frame_size: int) -> NDArray[np.float32]:
    """Sound that makes `EchoEngine` say `tokens`, one a frame; PAD is silence."""
    values = np.array([0 if t == PAD else t + 1 for t in tokens], np.float32) / SCALE
    return np.repeat(values, frame_size)


class EchoBackend:
    """The code of a frame is its token, and the decoder says what it reads."""

    codec_config = tiny.codec_config()
    lm_config = replace(tiny.lm_config(), codebook_size=SCALE)
    max_block = width = 8
    reads_alike = True
    can_draw = False
    description = signature = "echo"

    def __init__(self, slots: int) -> None:
        self.num_slots = slots
        initial = np.full((1, 1, 1 + self.lm_config.num_codebooks), self.lm_config.initial_code)
        self.first = self.read(np.zeros(1, np.int64), initial, np.ones(1, np.int64), logits=True)

    def encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        values = np.round(frames.mean(-1) * SCALE).astype(np.int64)
        tokens = np.where(values == 0, PAD, values - 1)
        return np.repeat(tokens[:, :, None], self.lm_config.num_codebooks, axis=2)

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        codes = columns[:, :, 1]
        tokens = np.where(codes == self.lm_config.initial_code, PAD, codes)
        sure = np.full(tokens.shape, -0.1, np.float32)
        known = np.eye(SCALE, self.lm_config.text_vocab_size, dtype=np.float32)
        return Said(tokens, sure, None, 20 * known[tokens] if logits else None)

    def forget(self, slot: int) -> None: ...

    def begin(self, slot: int) -> None: ...

    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None: ...

    def mark(self, slot: int) -> Any: ...

    def go_back(self, slot: int, mark: Any) -> None: ...

    def copy(self, slot: int) -> Callable[[], Arrays]:
        return dict

    def check(self, saved: Arrays) -> Any:
        assert not saved

    def put(self, slot: int, checked: Any) -> None: ...


class EchoEngine(SlotEngine):
    """Says after each frame the token that `spoken` put into it, and notes what it was asked."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(EchoBackend(slots))
        self.steps: list[dict[int, int]] = []
        """Of each step: how many frames of which slot."""
        self.heard: dict[int, int] = {}
        """Frames of each slot, without those of steps that were taken back."""
        self.decoding: dict[int, tuple[Picker | SamplingParams | None, int | None]] = {}
        self.truncations: list[tuple[int, int]] = []
        self.num_marks = 0
        self._before: dict[int, int] = {}

    @property
    def held(self) -> set[int]:
        """Slots that somebody holds."""
        return set(self._held)

    def open(
        self, picker: Picker | SamplingParams | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        slot, out = super().open(picker, num_codebooks=num_codebooks)
        self.decoding[slot], self.heard[slot] = (picker, num_codebooks), 0
        return slot, out

    def set_decoding(
        self,
        slot: int,
        picker: Picker | SamplingParams | None = None,
        *,
        num_codebooks: int | None = None,
    ) -> None:
        super().set_decoding(slot, picker, num_codebooks=num_codebooks)
        self.decoding[slot] = (picker, num_codebooks)

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        counts = [1] * len(slots) if counts is None else counts
        self.steps.append(dict(zip(slots, counts, strict=True)))
        out = super().step(slots, frames, counts)
        for slot, count in self.steps[-1].items():
            self.heard[slot] += count
        return out

    def mark(self, slot: int) -> object:
        self.num_marks += 1
        self._before[slot] = self.heard[slot]
        return super().mark(slot)

    def go_back(self, slot: int, mark: object) -> None:
        super().go_back(slot, mark)
        self.heard[slot] = self._before[slot]

    def truncate(self, slot: int, frames: int, *, most: int | None = None) -> int:
        self.truncations.append((slot, frames))
        return super().truncate(slot, frames, most=most)


class Driven:
    """A session that this thread steps, and nobody else."""

    def __init__(
        self,
        rec: Recognizer,
        options: StreamOptions | None = None,
        *,
        padded: bool = True,
        picker: Picker | None = None,
        on_output: OnOutput | None = None,
    ) -> None:
        self.session = WordSession(rec.config, rec.vocabulary, options, padded=padded)
        self.scheduler = rec.scheduler
        member = Member(self.session, SlotOptions(picker), on_output=on_output)
        (self.binding,) = self.scheduler.open(Opening([member]))

    def push(self, samples: ArrayLike, rate: int | None = None) -> None:
        self.session.check_open()
        self.session.push(self.session.input.check(samples, rate))

    def finalize(self, tag: str | None = None, *, cut: bool = False) -> None:
        self.session.check_open()
        self.session.finalize(FinalizeRequest(tag, cut))

    def close(self) -> None:
        self.session.close()

    def run(self) -> list[Event]:
        """Step until it waits for sound or has ended, and fetch what came."""
        session = self.session
        self.scheduler.drive(lambda: session.done or session.pending() == 0)
        return self.events()

    def events(self) -> list[Event]:
        found: list[Event] = []
        while self.session.events or not found:
            event = self.session.next_event()
            if event is None:
                break
            found.append(event)
        return found

    def release(self) -> None:
        self.scheduler.release(self.binding)


def hold_back(session: WordSession, until_done: WordSession) -> None:
    """Have a session say that nothing is pending until another is done. Whoever says so is not
    looked at again by himself, so it also asks to be."""
    pending = session.pending

    def held(most: int) -> int | Work | None:
        if until_done.done:
            return pending(most)
        assert session.on_input is not None
        session.on_input()
        return 0

    session.pending = held
