"""A recognizer whose backend is simple: commands can be tried on real files without a network."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.engine import Said, SlotEngine
from kiku.engine.backend import Arrays
from kiku.recognizer import Recognizer
from kiku.text import Vocabulary

PIECES = ["<unk>", "<s>", "</s>", "<pad>", "▁zero", "▁one", "▁two", "▁three", "▁four", "▁five"]
WORD_S = 0.8
"""One word is heard in so many seconds of sound that is not silent."""
PAD = 3
PROBABILITY = 0.9

DECODER = TransformerConfig(
    dim=8, num_layers=1, num_heads=1, ffn_dim=8, window=10, rope_theta=1e4, norm="rms",
    norm_eps=1e-6, gated=True, layer_scale=False,
)  # fmt: skip
CONFIG = ModelConfig(
    CodecConfig(), LMConfig(DECODER, len(PIECES), num_codebooks=2), text_delay_s=0.0
)


class SimpleBackend:
    """Hears "zero", "one", "two" ... in anything that is not silent, one word in ten frames. The
    first code of a frame is its token."""

    max_block = width = 4
    reads_alike = True
    can_draw = False
    description, signature = "simple", "simple"
    codec_config, lm_config = CONFIG.codec, CONFIG.lm

    def __init__(self, slots: int = 1, *, pace_s: float = 0.0) -> None:
        self.num_slots = slots
        self._pace_s = pace_s
        self.interrupt_at: int | None = None
        self.break_at: int | None = None
        self.broken: BaseException = RuntimeError("the device fell off the table")
        self._heard: dict[int, int] = {}
        self.first = _said(np.full((1, 1), PAD))

    @property
    def num_heard(self) -> int:
        """Frames with sound that the first slot has heard."""
        return self._heard.get(0, 0)

    def forget(self, slot: int) -> None:
        self._heard[slot] = 0

    def begin(self, slot: int) -> None:
        pass

    def encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        codes = np.zeros((*frames.shape[:2], self.lm_config.num_codebooks), np.int64)
        for slot, row, sounds in zip(slots.tolist(), codes, frames, strict=True):
            for code, sound in zip(row, sounds, strict=True):
                code[0] = self._token(slot, bool(np.abs(sound).max() > 0.01))
        return codes

    def _token(self, slot: int, loud: bool) -> int:
        time.sleep(self._pace_s)
        heard = self._heard[slot]
        if heard == self.interrupt_at:
            raise KeyboardInterrupt
        if heard == self.break_at:
            raise self.broken
        self._heard[slot] += loud
        return 4 + heard // 10 % 6 if loud and heard % 10 == 1 else PAD

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        return _said(np.minimum(columns[:, :, 1], len(PIECES) - 1))

    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        pass

    def mark(self, slot: int) -> int:
        return self._heard[slot]

    def go_back(self, slot: int, mark: Any) -> None:
        self._heard[slot] = mark

    def copy(self, slot: int) -> Callable[[], Arrays]:
        raise NotImplementedError

    def check(self, saved: Arrays) -> Any:
        raise NotImplementedError

    def put(self, slot: int, checked: Any) -> None:
        raise NotImplementedError


def _said(tokens: NDArray[np.int64]) -> Said:
    """That these [n, T] are likely, and all others equally unlikely."""
    rest = (1 - PROBABILITY) / (len(PIECES) - 1)
    logits = np.full((*tokens.shape, len(PIECES)), np.log(rest), np.float32)
    np.put_along_axis(logits, tokens[..., None], np.log(PROBABILITY), axis=-1)
    return Said(tokens, np.full(tokens.shape, np.log(PROBABILITY), np.float32), None, logits)


def simple_recognizer(backend: SimpleBackend, name: str = "simple") -> Recognizer:
    """What `kiku.load` would give."""
    return Recognizer(SlotEngine(backend), CONFIG, Vocabulary.from_pieces(PIECES), name=name)
