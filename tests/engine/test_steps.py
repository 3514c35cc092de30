"""Steps of a `SlotEngine`: ragged counts, pickers that fail, wrong numbers, the fast path."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kiku.decoding import Picker, Sampler, SamplingParams, token_picker
from kiku.engine import SlotEngine, StepOutput
from kiku.errors import ConfigError, FrameError, KikuError, StreamError
from kiku.options import DecodingOptions
from tests import tiny
from tests.engine.engines import KINDS, SIZE, advance, make_engine, said, sound, step

NUM_SLOTS = 3


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def shared(kind: str, num_slots: int = NUM_SLOTS) -> SlotEngine:
    """One engine for many examples; each example begins with free slots."""
    return make_engine(kind, slots=num_slots)


def emptied(engine: SlotEngine) -> SlotEngine:
    for slot in range(engine.num_slots):
        engine.close(slot)
    return engine


def picker_of(name: str, seed: int) -> Picker | SamplingParams | None:
    if name == "sampled":
        return SamplingParams(temperature=0.8, seed=seed)
    if name == "hotwords":
        options = DecodingOptions(hotwords=["one two", "go"], temperature=0.5, seed=seed)
        return token_picker(options, tiny.vocabulary(), tiny.model_config())
    return None


@cache
def frame_by_frame(
    kind: str, name: str, seed: int, num_codebooks: int | None, num_frames: int
) -> tuple[list[int], list[float], list[list[float]]]:
    """Tokens, log-probabilities and pauses of a slot alone in its engine, in lone steps."""
    engine = emptied(shared(kind, 1))
    slot, first = engine.open(picker_of(name, seed), num_codebooks=num_codebooks)
    return rows([first, *(engine.step([slot], frame[None]) for frame in sound(num_frames, seed))])


def rows(outs: Sequence[StepOutput]) -> tuple[list[int], list[float], list[list[float]]]:
    tokens: list[int] = []
    logprobs: list[float] = []
    pauses: list[list[float]] = []
    for out in outs:
        assert not out.failures
        assert out.pauses is not None
        tokens += out.tokens.tolist()
        logprobs += out.logprobs.tolist()
        pauses += out.pauses.tolist()
    return tokens, logprobs, pauses


names = st.sampled_from(["plain", "plain", "sampled", "hotwords"])


@settings(max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    slots=st.lists(
        st.tuples(names, st.sampled_from([None, None, 2])), min_size=1, max_size=NUM_SLOTS
    ),
    data=st.data(),
)
def test_ragged_steps_equal_lone_ones(
    kind: str, slots: list[tuple[str, int | None]], data: st.DataObject
) -> None:
    engine = emptied(shared(kind))
    outs: list[list[StepOutput]] = []
    for seed, (name, number) in enumerate(slots):
        slot, first = engine.open(picker_of(name, seed), num_codebooks=number)
        assert slot == seed
        outs.append([first])
    at = [0] * len(slots)
    for _ in range(data.draw(st.integers(1, 2))):
        order = data.draw(st.lists(st.sampled_from(range(len(slots))), unique=True, min_size=1))
        counts = [data.draw(st.sampled_from([1, 1, 2, 3, 16, 17])) for _ in order]
        parts = [
            sound(34, slot)[at[slot] :][:count] for slot, count in zip(order, counts, strict=True)
        ]
        out = engine.step(order, np.concatenate(parts), counts)
        assert list(out.counts) == counts
        for i, slot in enumerate(order):
            outs[slot].append(out.row(i))
            at[slot] += counts[i]
    for seed, (name, number) in enumerate(slots):
        tokens, logprobs, pauses = rows(outs[seed])
        wanted = frame_by_frame(kind, name, seed, number, 34)
        assert tokens == wanted[0][: len(tokens)]
        np.testing.assert_allclose(logprobs, wanted[1][: len(tokens)], atol=2e-4)
        np.testing.assert_allclose(pauses, wanted[2][: len(tokens)], atol=2e-4)


def test_all_backends_say_the_same_to_ragged_counts() -> None:
    got = []
    for kind in KINDS:
        engine = make_engine(kind, slots=3)
        for seed in range(3):
            engine.open(picker_of("sampled", seed) if seed else None)
        out = engine.step([2, 0, 1], sound(30), [5, 24, 1])
        got.append((out.tokens.tolist(), [out.row(i).tokens.tolist() for i in range(3)]))
    assert got == [got[0]] * len(KINDS)
    assert [token for row in got[0][1] for token in row] == got[0][0]
    assert [len(row) for row in got[0][1]] == [5, 24, 1]


def state(engine: SlotEngine) -> list[bytes]:
    return [engine.save(slot) for slot in range(engine.num_slots)]


WRONG: list[tuple[list[int], tuple[int, ...], list[int] | None]] = [
    ([0, 1], (3, SIZE), [1, 1]), ([0, 1], (3, SIZE), [2, 2]), ([0, 1], (3, SIZE), [3]),
    ([0, 1], (3, SIZE), [1, 1, 1]), ([0, 1], (3, SIZE), [3, 0]), ([0, 1], (3, SIZE), [4, -1]),
    ([0, 1], (65, SIZE), [65, 0]), ([0, 1], (66, SIZE), [1, 65]), ([0, 1], (3, SIZE), None),
    ([0, 1], (2, SIZE + 1), None), ([0, 1], (2, 1, SIZE), None), ([0, 1], (2 * SIZE,), None),
    ([0, 1], (0, SIZE), [0, 0]), ([0], (1,), [1]), ([0], (0, SIZE), [0]), ([0], (0, SIZE), []),
]  # fmt: skip


def test_wrong_counts_are_told_and_nothing_is_changed(kind: str) -> None:
    engine = make_engine(kind, slots=2)
    engine.open()
    engine.open(SamplingParams(temperature=1.0))
    step(engine, [0, 1], np.stack([sound(3, 1), sound(3, 2)]))
    before, passes = state(engine), engine.num_passes
    for slots, shape, counts in WRONG:
        frames = np.zeros(shape, np.float32)
        with pytest.raises(FrameError, match="1 to 64 frames of 80 samples for each of its"):
            engine.step(slots, frames, counts)
        with pytest.raises(FrameError):
            engine.encode(slots, frames, counts)
    for slots in ([], [0, 0], [1, 0, 1]):
        with pytest.raises(StreamError, match="each may occur only once"):
            engine.step(slots, sound(len(slots)))
    for slots in ([0, 2], [-1], [99]):
        with pytest.raises(StreamError, match="not open: open it first"):
            engine.step(slots, sound(len(slots)))
    assert state(engine) == before
    assert engine.num_passes == passes


def test_wrong_codes_are_told_and_nothing_is_changed(kind: str) -> None:
    engine = make_engine(kind, slots=2)
    engine.open()
    engine.open()
    codes = engine.encode([0, 1], sound(4), [3, 1])
    assert codes.shape == (4, 4)
    before = state(engine)
    for slots, counts in (([0, 1], [1, 1]), ([0, 1], [4, 0]), ([0, 1], [4]), ([0, 1], [2, 3])):
        with pytest.raises(FrameError, match="frames of 4 codes"):
            engine.decode(slots, codes, counts)
    with pytest.raises(FrameError, match="frames of 4 codes"):
        engine.decode([0], codes[:1, :3])
    with pytest.raises(StreamError, match="once"):
        engine.decode([0, 0], codes, [3, 1])
    assert state(engine) == before
    assert len(engine.decode([0, 1], codes, [3, 1]).tokens) == 4


def test_the_halves_of_a_step_are_the_step(kind: str) -> None:
    whole, halves = make_engine(kind, slots=2), make_engine(kind, slots=2)
    for engine in (whole, halves):
        engine.open()
        engine.open()
    expected = whole.step([1, 0], sound(9), [2, 7])
    codes = halves.encode([1, 0], sound(9), [2, 7])
    assert halves.decode([1, 0], codes, [2, 7]).tokens.tolist() == expected.tokens.tolist()
    assert state(whole) == state(halves)


class Broken(BaseException):
    """What a picker may raise, too."""


def failing(after: int, error: BaseException) -> Picker:
    """Picks the likeliest `after` times, then fails."""
    calls = iter(range(10**6))

    def pick(logits: NDArray[np.float32]) -> int:
        if next(calls) >= after:
            raise error
        return int(logits.argmax())

    return pick


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        *((kind, ValueError("x")) for kind in KINDS),
        # What is made of them is the same for all kinds.
        *(("onnx", one) for one in (Broken(), SystemExit(3), GeneratorExit(), StopIteration())),
    ],
)
@pytest.mark.parametrize("others", ["plain", "sampled"])
def test_a_picker_that_fails_fails_alone(kind: str, error: BaseException, others: str) -> None:
    engine = make_engine(kind, slots=3)
    opened = [engine.open(failing(4, error) if i == 1 else picker_of(others, i)) for i in range(3)]
    outs = [[first] for _, first in opened]
    for at in range(0, 30, 10):
        out = engine.step([0, 1, 2], np.concatenate([sound(30, i)[at : at + 10] for i in range(3)]),
                          [10] * 3)  # fmt: skip
        assert dict(out.failures) == {1: error}
        assert dict(out.row(1).failures) == {0: error}
        for i in (0, 2):
            outs[i].append(out.row(i).raise_failure())
        with pytest.raises(type(error)):
            out.row(1).raise_failure()
    for i in (0, 2):
        assert rows(outs[i])[0] == frame_by_frame(kind, others, i, None, 30)[0]
    engine.set_decoding(1)
    assert not step(engine, [1], sound(3)[None]).min() < 0
    engine.close(1)
    slot, first = engine.open()
    assert slot == 1
    assert [*first.tokens, *said(engine, slot, sound(30, 7))] == frame_by_frame(
        kind, "plain", 7, None, 30
    )[0]


def test_only_an_interrupt_of_the_keyboard_stops_a_step(kind: str) -> None:
    engine = make_engine(kind)
    slot, _ = engine.open(failing(1, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        advance(engine, [slot], sound(3)[None])


@pytest.mark.parametrize("wrong", [-1, -19, 19, 10**9, "x", None, 2**70])
def test_a_token_that_there_is_not_is_a_failure(kind: str, wrong: object) -> None:
    engine = make_engine(kind, slots=2)
    engine.open()
    tokens = iter([3, wrong])
    engine.open(lambda _: next(tokens))  # pyright: ignore[reportArgumentType]
    out = advance(engine, [0, 1], sound(6).reshape(2, 3, SIZE))
    assert list(out.failures) == [1]
    assert isinstance(out.failures[1], ValueError | TypeError)
    assert (out.tokens >= 0).all()
    assert engine.save(1)
    engine.restore(1, engine.save(1))


@pytest.mark.parametrize("error", [ValueError("x"), Broken(), KeyboardInterrupt()])
def test_opening_with_a_picker_that_fails_holds_no_slot(kind: str, error: BaseException) -> None:
    engine = make_engine(kind)
    for number in (None, 2):
        with pytest.raises(type(error)):
            engine.open(failing(0, error), num_codebooks=number)
        assert engine.free_slots == 1
    for wrong in ({"temperature": 0.0}, {"top_p": 2.0}):
        with pytest.raises(ConfigError, match="sampling needs"):
            engine.open(SamplingParams(**wrong))
        assert engine.free_slots == 1
    slot, first = engine.open()
    tokens = [*first.tokens, *said(engine, slot, sound(30, 7))]
    assert tokens == frame_by_frame(kind, "plain", 7, None, 30)[0]


def test_a_picker_gets_logits_that_it_may_change(kind: str) -> None:
    def spoiling(logits: NDArray[np.float32]) -> int:
        token = int(logits.argmax())
        logits[:] = np.nan
        return token

    engine = make_engine(kind, keep_logits=True)
    slot, first = engine.open(spoiling)
    again = make_engine(kind).open()[1]
    assert first.tokens.tolist() == again.tokens.tolist()
    out = advance(engine, [slot], sound(30, 7)[None])
    assert out.logits is not None
    assert np.isfinite(out.logits).all()
    assert [*first.tokens, *out.tokens] == frame_by_frame(kind, "plain", 7, None, 30)[0]
    engine.close(slot)
    assert engine.open()[1].tokens.tolist() == first.tokens.tolist()


@settings(max_examples=15)
@given(
    kind=st.sampled_from(KINDS),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 25),
    top_p=st.floats(0.1, 1),
    seed=st.integers(0, 2**62),
)
def test_sampling_params_are_a_sampler(
    kind: str, temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    sampler = Sampler(temperature, top_k=top_k, top_p=top_p, seed=seed)
    engine = emptied(shared(kind))
    a, first = engine.open(params)
    b, same = engine.open(sampler)
    assert first.tokens.tolist() == same.tokens.tolist()
    tokens = step(engine, [a, b], np.stack([sound(20)] * 2))
    assert tokens[0].tolist() == tokens[1].tolist()
    engine.set_decoding(a, params)
    engine.set_decoding(b, Sampler.of(params))
    tokens = step(engine, [a, b], np.stack([sound(20)] * 2))
    assert tokens[0].tolist() == tokens[1].tolist()


def test_params_that_open_two_slots_draw_for_each_by_itself(kind: str) -> None:
    engine = emptied(shared(kind))
    params = SamplingParams(temperature=1.0, seed=3)
    for _ in range(2):
        engine.open(params)
    tokens = step(engine, [0, 1], np.stack([sound(20)] * 2))
    assert tokens[0].tolist() == tokens[1].tolist()


def argmax(logits: NDArray[np.float32]) -> int:
    return int(logits.argmax())


def test_the_single_frame_path_is_the_block_path(kind: str) -> None:
    """A picker that takes the likeliest sends the same frames through the blocks."""
    fast, slow = make_engine(kind, slots=3), make_engine(kind, slots=3)
    outs: list[list[StepOutput]] = []
    for engine, picker in ((fast, None), (slow, argmax)):
        for _ in range(3):
            engine.open(picker)
        got: list[StepOutput] = []
        for at in range(24):
            slots = [[2, 0, 1], [1], [0, 2]][at % 3]
            frames = np.concatenate([sound(24, slot)[at : at + 1] for slot in slots])
            got.append(engine.step(slots, frames))
        outs.append(got)
    for ours, theirs in zip(*outs, strict=True):
        assert list(ours.counts) == list(theirs.counts)
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        assert ours.logits is theirs.logits is None
        for name in ("logprobs", "pauses"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5)
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype == np.float32
        assert not ours.failures
    assert fast.num_passes == slow.num_passes == 24
    for slot in range(3):
        again = [engine.redecode(slot, 20)[0].tokens.tolist() for engine in (fast, slow)]
        assert again[0] == again[1]


class Counting:
    """What is asked of a backend."""

    def __init__(self, engine: SlotEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        self.logits = 0
        read: Callable[..., object] = engine.backend.read

        def counted(*args: object, logits: bool, draws: object) -> object:
            self.reads += 1
            self.logits += logits
            return read(*args, logits=logits, draws=draws)

        monkeypatch.setattr(engine.backend, "read", counted)


def test_passes_are_counted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(kind, slots=2)
    counting = Counting(engine, monkeypatch)
    engine.open()
    assert engine.num_passes == counting.reads == 0, "a fresh slot is a copy"
    engine.open(num_codebooks=2)
    assert engine.num_passes == counting.reads == 1
    engine.set_decoding(1)
    engine.step([0, 1], sound(2))
    assert engine.num_passes == counting.reads == 2
    assert counting.logits == 1, "the likeliest tokens need no logits"
    engine.step([0, 1], sound(40), [39, 1])
    engine.step([1], sound(16), [16])
    assert counting.reads == engine.num_passes > 5
    before = engine.num_passes
    engine.truncate(0, 32)
    assert counting.reads == engine.num_passes == before + 2, "16 columns a pass"
    engine.redecode(1, 18, most=3)
    assert counting.reads == engine.num_passes > before + 2


def test_blocks_are_read_in_fewer_passes_than_frames(kind: str) -> None:
    engine = make_engine(kind)
    engine.open(lambda _: 3)  # PAD, as guessed
    with engine.widths.holding(16):
        engine.step([0], sound(64), [64])
        assert engine.num_passes == 4, "16 columns a pass"
        engine.set_decoding(0, lambda _: 5)  # never as guessed
        engine.step([0], sound(10), [10])
    assert engine.num_passes == 14


def test_anything_else_is_told(kind: str) -> None:
    engine = make_engine(kind)
    for call in (
        lambda: engine.set_decoding(0), lambda: engine.mark(0), lambda: engine.save(0),
        lambda: engine.restore(0, b""), lambda: engine.truncate(0, 1),
        lambda: engine.redecode(0, 1), lambda: engine.decode([0], np.zeros((1, 4), np.int64)),
    ):  # fmt: skip
        with pytest.raises(StreamError, match="slot 0 is not open: open it first"):
            call()
    with suppress(KikuError):
        engine.close(5)
    assert engine.free_slots == engine.num_slots == 1
