"""A recognizer whose ears are simple: commands can be tried on real files without a network."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.engine import Choose, StepOutput
from kiku.recognizer import Recognizer
from kiku.text import Vocabulary

PIECES = ["<unk>", "<s>", "</s>", "<pad>", "▁zero", "▁one", "▁two", "▁three", "▁four", "▁five"]
WORD_S = 0.8
"""One word is heard in so many seconds of sound that is not silent."""


class SimpleEngine:
    """Hears "zero", "one", "two" ... in anything that is not silent, one word in ten frames."""

    num_slots = 1
    max_block = 4

    def __init__(self, *, pace_s: float = 0.0) -> None:
        self._pace_s = pace_s
        self.interrupt_at: int | None = None
        self.break_at: int | None = None
        self.broken = RuntimeError("the device fell off the table")
        self.num_heard = 0
        self._held = False

    @property
    def free_slots(self) -> int:
        return 0 if self._held else 1

    def open(
        self, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        assert not self._held, "a slot was not given back"
        self._held = True
        self.num_heard = 0
        return 0, self._out([3])

    def steer(
        self, slot: int, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> None:
        raise NotImplementedError

    def close(self, slot: int) -> None:
        self._held = False

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        tokens: list[int] = []
        for frame in frames[0]:
            time.sleep(self._pace_s)
            if self.num_heard == self.interrupt_at:
                raise KeyboardInterrupt
            if self.num_heard == self.break_at:
                raise self.broken
            loud = float(np.abs(frame).max()) > 0.01
            place = self.num_heard % 10
            tokens.append(4 + self.num_heard // 10 % 6 if loud and place == 1 else 3)
            self.num_heard += loud
        return self._out(tokens)

    def refresh(self, slot: int, frames: int, *, most: int | None = None) -> int:
        assert self._held
        return 0

    def mark(self, slot: int) -> object:
        raise NotImplementedError

    def go_back(self, slot: int, mark: object) -> None:
        raise NotImplementedError

    def reread(self, slot: int, frames: int) -> StepOutput:
        raise NotImplementedError

    def save(self, slot: int) -> bytes:
        raise NotImplementedError

    def restore(self, slot: int, saved: bytes) -> None:
        raise NotImplementedError

    def _out(self, tokens: list[int]) -> StepOutput:
        return StepOutput(
            np.array([tokens]), np.full((1, len(tokens)), np.log(0.9), np.float32), None
        )


def simple_recognizer(engine: SimpleEngine, name: str) -> Recognizer:
    """What `kiku.load` would give, with simple ears."""
    decoder = TransformerConfig(
        dim=8, num_layers=1, num_heads=1, ffn_dim=8, window=10, rope_theta=1e4, norm="rms",
        norm_eps=1e-6, gated=True, layer_scale=False,
    )  # fmt: skip
    config = ModelConfig(CodecConfig(), LMConfig(decoder, len(PIECES)), text_delay_s=0.0)
    return Recognizer(engine, config, Vocabulary.from_pieces(PIECES), name=name)
