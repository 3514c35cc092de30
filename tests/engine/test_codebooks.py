"""How many codebooks a slot reads: as a model that has no others, and changed in mid-stream."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from kiku.config import LMConfig
from kiku.decoding import Sampler
from kiku.engine import SlotEngine
from kiku.engine.onnx import onnx_engine
from kiku.engine.torch import torch_engine
from kiku.errors import ConfigError, StreamError
from kiku.lm import LM
from tests import tiny
from tests.engine.engines import KINDS, graphs, make_engine, sound, step

NUM_FRAMES = 40


def tokens(
    engine: SlotEngine, num_codebooks: int | None, cuts: tuple[int, ...] = (16,)
) -> list[int]:
    """What a fresh slot says to the sound, in blocks of the lengths `cuts`, again and again."""
    slot, first = engine.open(num_codebooks=num_codebooks)
    said, at, turn = first.tokens.tolist(), 0, 0
    while at < NUM_FRAMES:
        block = sound(NUM_FRAMES)[at : at + cuts[turn % len(cuts)]]
        said += step(engine, [slot], block[None])[0].tolist()
        at, turn = at + len(block), turn + 1
    engine.close(slot)
    return said


@cache
def without_the_last(num_codebooks: int) -> list[int]:
    """What a model says that never had more codebooks, with the same weights."""
    whole = tiny.lm()
    smaller = LM(replace(tiny.lm_config(), num_codebooks=num_codebooks)).eval()
    kept = smaller.state_dict()
    smaller.load_state_dict({name: whole.state_dict()[name] for name in kept})
    return tokens(torch_engine(tiny.codec(), smaller, device="cpu"), None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_fewer_codebooks_are_as_a_model_without_the_others(kind: str, num_codebooks: int) -> None:
    expected = without_the_last(num_codebooks)
    engine = make_engine(kind)
    assert tokens(engine, num_codebooks) == expected
    assert tokens(engine, num_codebooks, (1, 5, 2)) == expected
    assert tokens(engine, None) != expected


@pytest.mark.parametrize("kind", KINDS)
def test_all_codebooks_are_what_a_slot_reads_anyhow(kind: str) -> None:
    engine = make_engine(kind)
    assert tokens(engine, 4) == tokens(engine, None)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_left_out_codes_add_nothing_in_few_bits_too(precision: str) -> None:
    # Only what the decoder reads differs: with codebooks left out that say the same anyhow.
    engine = onnx_engine(graphs(precision), tiny.model_config(), slots=2, threads=1)
    slots = [engine.open(num_codebooks=2)[0], engine.open(num_codebooks=2)[0]]
    codes = engine.encode(slots, np.concatenate([sound(30)] * 2), [30, 30])
    codes[30:, 2:] = 0
    out = engine.decode(slots, codes, [30, 30])
    assert out.row(0).tokens.tolist() == out.row(1).tokens.tolist()
    np.testing.assert_array_equal(out.row(0).logprobs, out.row(1).logprobs)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_may_read_different_numbers(kind: str) -> None:
    many = make_engine(kind, slots=3)
    numbers = (1, None, 3)
    opened = [many.open(num_codebooks=number) for number in numbers]
    said = [first.tokens.tolist() for _, first in opened]
    for at in range(0, NUM_FRAMES, 10):
        block = np.stack([sound(NUM_FRAMES)[at : at + 10]] * 3)
        for row, new in zip(said, step(many, [0, 1, 2], block), strict=True):
            row += new.tolist()
    assert said == [tokens(make_engine(kind), number) for number in numbers]


def test_all_engines_change_in_mid_stream_alike() -> None:
    said: list[list[int]] = []
    for kind in KINDS:
        engine = make_engine(kind, slots=2)
        engine.open()
        slot, first = engine.open()
        row = first.tokens.tolist()
        for number, picker in ((None, None), (2, None), (None, Sampler(0.8, seed=4)), (3, None)):
            engine.set_decoding(slot, picker, num_codebooks=number)
            row += step(engine, [slot], sound(15)[None])[0].tolist()
        said.append(row)
    assert said == [said[0]] * len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_counts_from_the_next_frame(kind: str) -> None:
    frames = sound(40)
    engine = make_engine(kind, slots=2)
    plain, changed = engine.open()[0], engine.open()[0]
    out = step(engine, [plain, changed], np.stack([frames[:20]] * 2))
    assert out[0].tolist() == out[1].tolist()
    engine.set_decoding(changed, lambda _: 5)
    out = step(engine, [plain, changed], np.stack([frames[20:]] * 2))
    assert out[1].tolist() == [5] * 20 != out[0].tolist()
    engine.close(changed)
    again, _ = engine.open()
    assert again == changed
    assert step(engine, [again], frames[None, :20])[0].tolist() != [5] * 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_cannot_be_is_told(kind: str) -> None:
    engine = make_engine(kind)
    for wrong in (0, 5, -1):
        with pytest.raises(ConfigError, match=rf"in 1\.\.4 for this model, not {wrong}"):
            engine.open(num_codebooks=wrong)
    assert engine.free_slots == 1
    with pytest.raises(StreamError, match="open it first"):
        engine.set_decoding(0)
    slot, _ = engine.open(num_codebooks=2)
    with pytest.raises(ConfigError, match="not 9"):
        engine.set_decoding(slot, num_codebooks=9)


def test_the_sum_of_a_column_by_hand() -> None:
    model = tiny.lm()
    column = torch.tensor([[[5, 1, 2, -1, -1]]])
    expected = model.text_embedding.weight[5]
    for k, code in ((0, 1), (1, 2)):
        expected = expected + model.code_embeddings[k].weight[code]
    assert model.embed(column)[0, 0].tolist() == expected.tolist()
    assert isinstance(model.config, LMConfig)
