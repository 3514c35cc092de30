"""Tokens drawn by the backend: the noise of numpy, the tokens of `Sampler`, and engines that say
the same whoever draws."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kiku.decoding import DRAW, Picker, Sampler, SamplingParams, TokenPicker, token_picker
from kiku.engine import SlotEngine
from kiku.engine.backend import Said
from kiku.engine.cuda import CudaBackend, GpuOptions, cuda_engine
from kiku.engine.gpu import draws
from kiku.engine.gpu.ahead import Ahead
from kiku.engine.gpu.draws import draw_numbers, draw_plainly, pick_draw, uniform
from kiku.engine.gpu.kernel_choice import KernelChoice
from kiku.errors import ConfigError
from kiku.options import DecodingOptions
from tests import tiny
from tests.engine.engines import device_of_tests, make_engine, said, sound, step

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
V = tiny.lm_config().text_vocab_size


def rows_of(samplers: Sequence[Sampler | None]) -> torch.Tensor:
    rows = np.zeros(len(samplers), DRAW)
    for i, one in enumerate(samplers):
        if one is not None:
            rows[i] = one.row
    return torch.from_numpy(draw_numbers(rows))


def drawn(logits: NDArray[np.float32], samplers: Sequence[Sampler | None]) -> list[list[int]]:
    """[R, T, V] -> tokens [R, T]."""
    given = torch.from_numpy(logits)
    return draw_plainly(given, given.argmax(-1), rows_of(samplers)).tolist()


# The numbers.


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**62),
    st.integers(0, 2**62) | st.integers(0, 99),
    st.integers(1, 40),
    st.integers(1, 3),
)
def test_the_noise_is_that_of_numpy_bit_for_bit(seed: int, used: int, size: int, T: int) -> None:
    sampler = Sampler(seed=seed)
    sampler.skip(used)
    (row,) = rows_of([sampler])
    start = row[5] + size * torch.arange(T)[None]
    found = uniform(row[3:4], row[4:5], start, size)
    assert found.shape == (1, T, size)
    for t in range(T):
        np.testing.assert_array_equal(found[0, t].numpy(), sampler.draw(size))


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**62 - 9),
    size=st.integers(1, 60),
    ways=st.lists(
        st.none()
        | st.tuples(st.floats(0.02, 30), st.integers(0, 70), st.floats(0.01, 1) | st.just(1.0)),
        min_size=1, max_size=4,
    ),
    coarse=st.booleans(),
)  # fmt: skip
def test_tokens_are_those_of_a_sampler(
    seed: int, size: int, ways: list[tuple[float, int, float] | None], coarse: bool
) -> None:
    """In rows of every sort side by side; where logits are coarse, many are equal."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, (len(ways), 3, size)).astype(np.float32)
    logits[random.random(logits.shape) < 0.1] = -np.inf
    logits[..., 0] = 1.0
    if coarse:
        logits = np.round(logits)
    samplers = [
        way and Sampler(way[0], top_k=way[1], top_p=way[2], seed=seed + i)
        for i, way in enumerate(ways)
    ]
    for number, one in enumerate(samplers):
        if one is not None:
            one.skip(5 * number)
    got = drawn(logits, samplers)
    for i, one in enumerate(samplers):
        wanted = [int(row.argmax()) if one is None else one(row) for row in logits[i]]
        assert got[i] == wanted


@pytest.mark.parametrize(
    ("cut", "stays"),
    [
        ({"top_k": 1}, {3}), ({"top_k": 2}, {3, 1, 2}), ({"top_k": 3}, {3, 1, 2}),
        ({"top_k": 4}, {3, 1, 2, 0}), ({"top_k": 5}, {0, 1, 2, 3, 4}),
        ({"top_k": 9}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.5}, {3}), ({"top_p": 0.6}, {3, 1}), ({"top_p": 0.8}, {3, 1, 2}),
        ({"top_k": 2, "top_p": 0.7}, {3, 1}),
    ],
)  # fmt: skip
def test_what_is_cut_is_never_drawn(cut: dict[str, Any], stays: set[int]) -> None:
    """Of equal scores `top_k` keeps all, and `top_p` the first; what is kept is drawn."""
    logits = np.log(np.array([0.08, 0.16, 0.16, 0.5, 0.04], np.float32))
    rows = np.broadcast_to(logits, (1, 300, 5)).copy()
    assert set(drawn(rows, [Sampler(1.0, **cut, seed=1)])[0]) == stays


def test_a_share_that_is_reached_exactly_is_enough() -> None:
    rows = np.zeros((1, 200, 4), np.float32)
    assert set(drawn(rows, [Sampler(top_p=0.5, seed=1)])[0]) == {0, 1}


def test_the_whole_share_cuts_nothing() -> None:
    """Though sums of shares may be rounded up to it before the last token."""
    none, whole = torch.zeros(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1, dtype=torch.float64)
    for equal in range(1, 80):
        scores = torch.zeros(1, 1, equal + 1, dtype=torch.float64)
        scores[..., -1] = -40.0
        assert draws._cut(scores, none, whole).isfinite().all()


def test_a_random_number_of_0_is_not_an_infinite_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.tensor([[[0.5, 0.0]]], dtype=torch.float64)
    monkeypatch.setattr(draws, "uniform", lambda *_: numbers)
    for below, token in ((40.0, 0), (36.0, 1)):
        logits = np.array([[[0.0, -below]]], np.float32)
        assert drawn(logits, [Sampler()]) == [[token]]
        sampler = Sampler()
        assert sampler.pick(logits[0, 0], numbers[0, 0].numpy()) == token


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_no_numbers_give_the_likeliest(wrong: float) -> None:
    logits = np.zeros((2, 1, 9), np.float32)
    logits[:, 0, 4] = wrong
    logits[:, 0, 7] = 1.0
    given = torch.from_numpy(logits)
    likeliest = torch.tensor([[2], [7]])
    got = draw_plainly(given, likeliest, rows_of([Sampler(2.0, seed=3)] * 2))
    assert got.tolist() == likeliest.tolist()


def test_many_rows_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (7, 2, 30)).astype(np.float32)
    samplers = [Sampler(1.5, seed=i) if i % 3 else None for i in range(7)]
    whole = drawn(logits, samplers)
    monkeypatch.setattr(draws, "_AT_ONCE", 150)
    assert drawn(logits, samplers) == whole


# Engines.


WAYS = [
    SamplingParams(0.25, seed=1),
    SamplingParams(1.0, seed=2**62 - 1),
    SamplingParams(3.0, top_k=4, seed=3),
    SamplingParams(2.0, top_p=0.8, seed=4),
    SamplingParams(1.5, top_k=6, top_p=0.9, seed=5),
]


def device(slots: int = 1, **options: Any) -> tuple[SlotEngine, CudaBackend]:
    made = cuda_engine(
        tiny.codec(),
        tiny.lm(),
        slots=slots,
        device=device_of_tests(),
        options=GpuOptions(**options),
    )
    assert isinstance(made.backend, CudaBackend)
    return made, made.backend


def on_the_host(sampler: Sampler) -> Picker:
    """The same sampler, as something that a backend does not know."""
    return lambda logits: sampler(logits)


def singly(kind: str, picker: Picker | SamplingParams | None, frames: NDArray[Any]) -> list[int]:
    engine = make_engine(kind)
    slot, first = engine.open(picker)
    return first.tokens.tolist() + said(engine, slot, frames, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_other_engines_say_the_same(way: SamplingParams, kind: str) -> None:
    frames = sound(45, way.seed % 9)
    wanted = singly(kind, way, frames)
    assert len(set(wanted)) > 5
    assert singly("cuda", way, frames) == wanted
    for block in (2, 5, 16, 40):
        engine, backend = device()
        assert backend.can_draw
        slot, first = engine.open(way)
        assert first.tokens.tolist() + said(engine, slot, frames, block) == wanted


@pytest.mark.parametrize("seed", range(12))
def test_rows_of_every_sort_side_by_side(seed: int) -> None:
    """Greedy, drawn on the device, with hotwords, by a picker of one's own, with fewer codebooks;
    in blocks of any lengths. Each slot says what it says alone on another engine."""
    boosted = DecodingOptions(temperature=0.9, seed=seed, hotwords=["four"])

    def pickers() -> list[Picker | SamplingParams | None]:
        return [
            None,
            SamplingParams(1.2, seed=seed),
            token_picker(boosted, tiny.vocabulary(), tiny.model_config()),
            on_the_host(Sampler(0.8, seed=seed + 1)),
            Sampler(2.0, top_k=5, seed=seed + 2),
            SamplingParams(0.7, top_p=0.9, seed=seed + 3),
        ]

    books = [None, None, None, None, 2, None]
    frames = [sound(30, 10 * seed + i) for i in range(6)]
    wanted: list[list[int]] = []
    for picker, limit, those in zip(pickers(), books, frames, strict=True):
        engine = make_engine("torch")
        slot, first = engine.open(picker, num_codebooks=limit)
        wanted.append(first.tokens.tolist() + said(engine, slot, those, 1))
    engine, _ = device(slots=6)
    got = [
        engine.open(picker, num_codebooks=limit)[1].tokens.tolist()
        for picker, limit in zip(pickers(), books, strict=True)
    ]
    random, at = np.random.default_rng(seed), [0] * 6
    while min(at) < 30:
        ready = [i for i in range(6) if at[i] < 30 and random.random() < 0.8]
        counts = [min(int(random.choice([1, 1, 2, 7, 16])), 30 - at[i]) for i in ready]
        if not ready:
            continue
        parts = [frames[i][at[i] : at[i] + count] for i, count in zip(ready, counts, strict=True)]
        out = engine.step(ready, np.concatenate(parts), counts)
        for place, (i, count) in enumerate(zip(ready, counts, strict=True)):
            got[i] += out.row(place).tokens.tolist()
            at[i] += count
    assert got == wanted


def test_probabilities_are_those_of_the_model() -> None:
    """At temperature 1, whatever it is drawn with."""
    way = SamplingParams(4.0, seed=6)
    both = [make_engine(kind) for kind in ("torch", "cuda")]
    for engine in both:
        engine.open(way)
    for count in (1, 16):
        here, there = (e.step([0], sound(count, 2), [count]) for e in both)
        assert here.tokens.tolist() == there.tokens.tolist()
        np.testing.assert_allclose(here.logprobs, there.logprobs, atol=1e-4)
    assert there.logprobs.min() < -3


def test_a_wrong_guess_spends_no_noise() -> None:
    engine, backend = device()
    sampler = Sampler(3.0, seed=7)
    slot, _ = engine.open(sampler)
    assert sampler.state.drawn == V
    passes = engine.num_passes
    said(engine, slot, sound(32), 16)
    assert engine.num_passes - passes > 4, "some guesses were wrong"
    assert sampler.state.drawn == 33 * V
    before = backend.num_launches
    step(engine, [slot], sound(1)[None])
    assert backend.num_launches - before == 1, "and the next token is drawn ahead"
    assert sampler.state.drawn == 34 * V


def test_a_slot_that_draws_is_one_launch_a_step() -> None:
    engine, backend = device(slots=3)
    engine.open()
    engine.open(SamplingParams(2.0, seed=1))
    engine.open(SamplingParams(3.0, top_k=5, seed=2), num_codebooks=2)

    def launches() -> int:
        before = backend.num_launches
        step(engine, [2, 0, 1], np.stack([sound(1, before + i) for i in range(3)]))
        return backend.num_launches - before

    launches()
    assert [launches() for _ in range(12)] == [1] * 12


def test_a_mark_knows_how_the_next_token_is_drawn() -> None:
    """As when a stream is finalized: what is taken back is drawn with a copy of the sampler."""
    engine, backend = device()
    straight, _ = device()
    sampler = Sampler(2.0, seed=5)
    for one, picker in ((engine, sampler), (straight, Sampler(2.0, seed=5))):
        one.open(picker)
        said(one, 0, sound(6), 1)
    mark = engine.mark(0)
    engine.set_decoding(0, deepcopy(sampler))
    ahead = said(engine, 0, sound(9, 1), 4)
    engine.go_back(0, mark)
    engine.set_decoding(0, sampler)
    before = backend.num_launches
    again = said(engine, 0, sound(9, 1), 1)
    assert backend.num_launches - before == 9
    assert again == ahead == said(straight, 0, sound(9, 1), 9)


@pytest.mark.parametrize("block", [1, 5])
def test_who_draws_may_change_in_mid_stream(block: int) -> None:
    """Device, host, greedy, with other parameters, and back; the noise goes on where it was."""
    frames = sound(60, 3)
    told: list[list[int]] = []
    for sampling in ("plain", "host"):
        engine, backend = device(sampling=sampling)
        assert backend.can_draw is (sampling == "plain")
        sampler = Sampler(1.5, seed=8)
        other = Sampler(4.0, top_k=9, seed=8)
        ways = [sampler, on_the_host(sampler), sampler, None, sampler, other, Sampler(4.0, seed=9)]
        engine.open(sampler)
        row: list[int] = []
        for at, way in zip(range(0, 56, 8), ways, strict=True):
            if way is other:
                other.go_on(sampler.state)
            engine.set_decoding(0, way)
            row += said(engine, 0, frames[at : at + 8], block)
        told.append(row)
        assert sampler.state.drawn == (1 + 40) * V
    assert told[0] == told[1]


def test_a_saved_slot_goes_on_with_its_noise() -> None:
    options = DecodingOptions(temperature=1.3, top_p=0.9, seed=4)

    def picker() -> TokenPicker:
        made = token_picker(options, tiny.vocabulary(), tiny.model_config())
        assert made is not None
        return made

    here, there, host = device()[0], device(slots=2)[0], device(sampling="host")[0]
    before, after = picker(), picker()
    here.open(before)
    there.open()
    there.open()
    said(here, 0, sound(11), 3)
    there.restore(1, here.save(0))
    after.restore(before.save())
    there.set_decoding(1, after)
    host.open(by_host := picker())
    said(host, 0, sound(11), 3)
    rest = said(host, 0, sound(20, 2), 1)
    assert said(there, 1, sound(20, 2), 7) == said(here, 0, sound(20, 2), 1) == rest
    assert before.save() == after.save() == by_host.save()


@pytest.mark.parametrize("most", [None, 4])
def test_what_is_decoded_again_is_drawn_too(most: int | None) -> None:
    told: list[list[int]] = []
    for sampling in ("plain", "host"):
        engine, _ = device(sampling=sampling)
        sampler = Sampler(1.5, seed=8)
        slot, _ = engine.open(sampler)
        row, left = said(engine, slot, sound(30), 6), 1
        while left:
            out, left = engine.redecode(slot, 12, most=most)
            row += out.tokens.tolist()
        engine.truncate(slot, 5)
        told.append(row + said(engine, slot, sound(9, 2), 1) + [sampler.state.drawn])
    assert told[0] == told[1]


def test_more_rows_than_a_call_takes_are_each_told_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kiku.engine.gpu import launches

    monkeypatch.setattr(launches, "MAX_FRAMES", 2)
    frames = np.stack([sound(12, seed) for seed in range(5)])
    told: list[list[list[int]]] = []
    for sampling in ("plain", "host"):
        engine, _ = device(slots=5, sampling=sampling)
        for i in range(5):
            engine.open(SamplingParams(1.0 + i, seed=i) if i != 2 else None)
        told.append([step(engine, range(5), frames[:, at : at + 4]).tolist() for at in (0, 4, 8)])
    assert told[0] == told[1]


def test_what_is_taken_back_is_drawn_again_with_the_same_numbers() -> None:
    ahead = Ahead(2, 16, tiny.lm_config())
    slots, columns = np.arange(2), np.zeros((2, 3, 5), np.int64)
    rows = np.zeros(2, DRAW)
    rows[1] = Sampler(0.5, seed=3).row
    said = Said(columns[..., 0], np.zeros((2, 3), np.float32), None, None)
    ahead.note(slots, columns, rows, said, np.array([3, 2]))
    assert ahead.next_draws(slots)["drawn"].tolist() == [0, 2 * V]
    ahead.note_back(slots, np.array([1, 1]))
    rows["drawn"] = [0, V]
    assert (draw_numbers(ahead.next_draws(slots)) == draw_numbers(rows)).all()


@pytest.mark.parametrize("kind", ["torch", "onnx", "plain"])
def test_who_cannot_draw_is_not_asked_to(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(kind)
    assert not engine.backend.can_draw
    read: Any = engine.backend.read

    def asked(*given: Any, draws: Any, **more: Any) -> Any:
        assert draws is None
        return read(*given, **more)

    monkeypatch.setattr(engine.backend, "read", asked)
    engine.open(SamplingParams(1.0))
    said(engine, 0, sound(9), 4)


# Which form is taken.


def test_the_processor_draws_plainly() -> None:
    assert pick_draw("auto", V, CPU) is draw_plainly
    assert pick_draw("plain", V, CUDA) is draw_plainly
    assert pick_draw("host", V, CUDA) is None
    with pytest.raises(ConfigError, match=r"'triton' does not work here: .* CUDA devices; 'host'"):
        pick_draw("triton", V, CPU)
    with pytest.raises(
        ConfigError, match="sampling must be one of auto, triton, plain, host, not 'x'"
    ):
        GpuOptions(sampling="x").check(CPU)


def standing_in(wrong: int) -> SimpleNamespace:
    """In place of the kernels: draws plainly, the last row so much off."""

    class Kernel:
        def __getitem__(self, grid: tuple[int, int]) -> Any:
            def run(logits: Any, rows: Any, tokens: Any, vocab: int, width: int, **_: Any) -> None:
                assert grid == logits.shape[:2]
                assert vocab + 3 <= width < 2 * (vocab + 3)
                assert width & (width - 1) == 0
                tokens.copy_(draw_plainly(logits, tokens, rows))
                tokens[-1] += wrong

            return run

    return SimpleNamespace(draw_kernel=Kernel())


@pytest.mark.parametrize("size", [5, 13, 14, 8000])
def test_a_kernel_that_agrees_is_taken(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(draws, "_kernels", lambda: standing_in(0))
    assert pick_draw("triton", size, CPU) is draws.draw_by_kernel


@pytest.mark.parametrize(
    ("kernels", "why"),
    [
        (standing_in(1), "draws 3 tokens otherwise than plain PyTorch"),
        (SimpleNamespace(), r"the kernel fails \(AttributeError"),
    ],
)
def test_a_kernel_that_fails_is_not(
    kernels: Any, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(draws, "_kernels", lambda: kernels)
    with pytest.raises(ConfigError, match=why):
        pick_draw("triton", V, CPU)
    monkeypatch.setattr(
        KernelChoice, "fault", lambda choice, _, fault=KernelChoice.fault: fault(choice, CPU)
    )
    with caplog.at_level(logging.WARNING):
        assert pick_draw("auto", V, CUDA) is None
    assert "tokens are drawn on the host" in caplog.text


def test_a_trial_has_rows_of_every_sort() -> None:
    logits, likeliest, rows = draws.trial(100, CPU)
    got = draw_plainly(logits, likeliest, rows)
    assert (got[0] == likeliest[0]).all()
    assert ((got != likeliest)[2:].float().mean(-1) > 0).sum() >= 3
    assert set(rows[:, 5].remainder(4).tolist()) == {0, 1, 2, 3}
