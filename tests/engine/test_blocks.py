"""Exact block decoding: whatever the block, the cut and the neighbours, the tokens of single
frames."""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kiku.decoding import Picker, Sampler
from kiku.engine import Said, StepOutput
from kiku.engine.blocks import Block, decode_blocks, logprob_of
from kiku.engine.onnx import onnx_engine
from kiku.engine.widths import Widths
from tests import tiny
from tests.engine.engines import KINDS, graphs, make_engine, own_kernels, sound, step

VOCABULARY = 7
PAD, START = 3, 0


@cache
def logits_after(past: int) -> NDArray[np.float32]:
    """[V] of `Arithmetic`; PAD is likely."""
    row = np.random.default_rng(past).standard_normal(VOCABULARY).astype(np.float32)
    row[PAD] += 1.5
    return row


class Arithmetic:
    """A decoder whose token depends on the codes and on all text before, in plain numbers.

    Every slot has a number for its past; a column changes it, so that a wrong token anywhere
    changes all that comes. How far it may be rewound is not bounded.
    """

    def __init__(self, num_slots: int) -> None:
        self.pasts: list[list[int]] = [[1] for _ in range(num_slots)]
        self.num_passes = 0

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        self.num_passes += 1
        n, T, _ = columns.shape
        assert counts.max() == T
        assert counts.min() > 0
        out = Said(
            np.full((n, T), -7),
            np.full((n, T), np.nan, np.float32),
            np.full((n, T, 2), np.nan, np.float32),
            np.full((n, T, VOCABULARY), np.nan, np.float32) if logits else None,
        )
        for i, (slot, count) in enumerate(zip(slots.tolist(), counts.tolist(), strict=True)):
            one = self._read(slot, columns[i, :count], logits)
            out.tokens[i, :count], out.logprobs[i, :count] = one.tokens, one.logprobs
            for whole, part in ((out.pauses, one.pauses), (out.logits, one.logits)):
                if whole is not None and part is not None:
                    whole[i, :count] = part
        return out

    def _read(self, slot: int, columns: NDArray[np.int64], logits: bool) -> Said:
        rows: list[NDArray[np.float32]] = []
        for column in columns.tolist():
            past = (self.pasts[slot][-1] * 31 + hash(tuple(column))) % 1_000_003
            self.pasts[slot].append(past)
            rows.append(logits_after(past))
        all_logits = np.stack(rows)
        tokens = all_logits.argmax(-1)
        logprobs = [logprob_of(row, token) for row, token in zip(rows, tokens, strict=True)]
        return Said(
            tokens,
            np.array(logprobs, np.float32),
            all_logits[:, :2],
            all_logits if logits else None,
        )

    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        for slot, count in zip(slots.tolist(), columns.tolist(), strict=True):
            assert count > 0
            del self.pasts[slot][-count:]


def codes(num_frames: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 50, (num_frames, 2))


def held(width: int) -> Widths:
    """Always this width."""
    return Widths(width, is_held=True)


def run(
    num_frames: int, cuts: Sequence[int], widths: Widths, pickers: Sequence[Picker | None]
) -> list[tuple[list[int], list[float], list[list[float]]]]:
    """Tokens, log-probabilities and pauses of every slot, in blocks of the lengths `cuts`."""
    reader = Arithmetic(len(pickers))
    said: list[tuple[list[int], list[float], list[list[float]]]] = [([], [], []) for _ in pickers]
    tokens = [0] * len(pickers)
    at = 0
    for cut in cuts:
        blocks = [
            Block(slot, codes(num_frames, slot)[at : at + cut], tokens[slot], picker,
                  guess=PAD, word_start=START, keep_logits=False)
            for slot, picker in enumerate(pickers)
        ]  # fmt: skip
        out = decode_blocks(reader.read, reader.rewind, blocks, widths)
        assert out.pauses is not None
        for slot, (those, logprobs, pauses) in enumerate(said):
            row = out.row(slot)
            assert row.pauses is not None
            those += row.tokens.tolist()
            logprobs += row.logprobs.tolist()
            pauses += row.pauses.tolist()
            tokens[slot] = those[-1]
        at += cut
    assert at == num_frames
    assert all(len(past) == num_frames + 1 for past in reader.pasts)
    return said


@settings(max_examples=100, deadline=None)
@given(
    num_frames=st.integers(1, 40),
    width=st.integers(1, 20),
    num_slots=st.integers(1, 4),
    sampled=st.booleans(),
    data=st.data(),
)
def test_any_cut_and_width_give_the_tokens_of_single_frames(
    num_frames: int, width: int, num_slots: int, sampled: bool, data: st.DataObject
) -> None:
    cuts: list[int] = []
    while sum(cuts) < num_frames:
        cuts.append(data.draw(st.integers(1, num_frames - sum(cuts))))

    def pickers() -> list[Picker | None]:
        return [Sampler(0.7, seed=i) if sampled else None for i in range(num_slots)]

    singly = run(num_frames, [1] * num_frames, held(1), pickers())
    assert run(num_frames, cuts, held(width), pickers()) == singly
    moments = accumulate(data.draw(st.lists(st.floats(0, 9), min_size=8, max_size=8)) * 99)
    changing = Widths(width, clock=lambda: next(moments))
    assert run(num_frames, cuts, changing, pickers()) == singly


def test_right_guesses_save_passes() -> None:
    reader = Arithmetic(1)
    block = Block(0, codes(64, 0), 0, None, guess=PAD, word_start=0, keep_logits=False)
    out = decode_blocks(reader.read, reader.rewind, [block], held(16))
    assert (out.tokens == PAD).mean() > 0.3
    assert 0 < reader.num_passes < 50


class Impatient:
    """A decoder that wants a word at columns that say so, and asks for its start until it has
    read it; the word is what the column's code says."""

    WORD = 5

    def __init__(self) -> None:
        self.num_passes = 0

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        self.num_passes += 1
        (part,) = columns
        assert counts.tolist() == [len(part)]
        rows = np.zeros((len(part), VOCABULARY), np.float32)
        for row, (text, wanted) in zip(rows, part.tolist(), strict=True):
            row[PAD] = 1.0
            if wanted:
                row[self.WORD] = 2.0
                row[START] = 0.0 if text == START else 3.0
        top = rows.max(-1)
        return Said(rows.argmax(-1)[None], top[None], None, rows[None] if logits else None)

    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        pass


def test_what_follows_a_word_start_is_guessed_too() -> None:
    wanted = np.zeros((16, 1), np.int64)
    wanted[4:6] = 1
    passes = {}
    for start in (None, START):
        reader = Impatient()
        block = Block(0, wanted, PAD, None, guess=PAD, word_start=start, keep_logits=False)
        said = decode_blocks(reader.read, reader.rewind, [block], held(16)).tokens.tolist()
        assert said == [PAD] * 4 + [START, Impatient.WORD] + [PAD] * 10
        passes[start] = reader.num_passes
    assert passes == {None: 3, START: 2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampled", [False, True])
def test_all_engines_decode_ragged_blocks_exactly(kind: str, sampled: bool) -> None:
    # Past both windows, slots at different positions, blocks of every size.
    frames = [sound(45, seed) for seed in range(3)]

    def picker(slot: int) -> Picker | None:
        return Sampler(0.8, seed=slot) if sampled else None

    expected: list[list[int]] = []
    for number, those in enumerate(frames):
        one = make_engine(kind)
        slot, first = one.open(picker(number))
        tokens = first.tokens.tolist()
        for frame in those:
            tokens += one.step([slot], frame[None]).tokens.tolist()
        expected.append(tokens)
    many = make_engine(kind, slots=3)
    got = [many.open(picker(number))[1].tokens.tolist() for number in range(3)]
    at = [0, 0, 0]
    random = np.random.default_rng(5)
    while min(at) < 45:
        size = int(random.choice([1, 2, 5, 16, 40]))
        ready = [i for i in range(3) if random.random() < 0.7 and at[i] + size <= 45]
        if not ready:
            ready, size = [i for i in range(3) if at[i] < 45][:1], 1
        out = step(many, ready, np.stack([frames[i][at[i] : at[i] + size] for i in ready]))
        for row, i in enumerate(ready):
            got[i] += out[row].tolist()
            at[i] += size
    assert got == expected


@pytest.mark.parametrize("precision", ["float32", "int8", "int4", "int8_kv8"])
def test_what_reads_alike_says_the_same_bit_for_bit_whatever_the_width(precision: str) -> None:
    engine = onnx_engine(
        graphs(precision), tiny.model_config(), threads=1, keep_logits=True, used=own_kernels()
    )
    assert engine.backend.reads_alike
    outs: list[StepOutput] = []
    for width in (1, 3, 8, 16):
        slot, _ = engine.open()
        with engine.widths.holding(width):
            outs += [engine.step([slot], sound(48, 1), [48])]
        engine.close(slot)
    for out in outs[1:]:
        assert out.tokens.tolist() == outs[0].tokens.tolist()
        assert out.logits is not None
        assert outs[0].logits is not None
        assert np.array_equal(out.logits, outs[0].logits)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_reads_alike_chooses_widths(kind: str) -> None:
    engine = make_engine(kind)
    for _ in range(12):  # no guess is right, and single columns cost next to nothing
        engine.widths.note([16], [15], 1.0)
        engine.widths.note([1], [0], 0.001)
    assert engine.widths.choose([99]) == (1 if engine.backend.reads_alike else 16)
    assert engine.backend.reads_alike == (kind == "onnx")
