"""How a stream's tokens are picked: what is checked, what is remembered, what a change leaves."""

import json
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kiku.decoding import Sampler, TokenPicker, plain_sampler, token_picker
from kiku.errors import ConfigError, StreamError
from kiku.options import DecodingOptions, Hotword
from tests import tiny

CONFIG, VOCABULARY = tiny.model_config(), tiny.vocabulary()
TOKEN = {piece: number for number, piece in enumerate(tiny.PIECES)}
PAD, WORD_START = CONFIG.pad_id, CONFIG.word_start_id
PRIOR = np.linspace(-1, 1, len(tiny.PIECES)).astype(np.float32)
MIXED = DecodingOptions(
    temperature=0.8, top_k=12, top_p=0.95, seed=5, language_prior=PRIOR, cooldown_s=1.0,
    hotwords=["one two", Hotword("three", 3.0), "go"],
)  # fmt: skip


def picker(options: DecodingOptions) -> TokenPicker:
    made = token_picker(options, VOCABULARY, CONFIG)
    assert made is not None
    return made


def logits(**values: float) -> NDArray[np.float32]:
    """By piece without its "▁", where that is clear; the others have -9."""
    row = np.full(len(tiny.PIECES), -9.0, np.float32)
    for name, value in values.items():
        row[{"pad": PAD, "word": WORD_START}.get(name, TOKEN.get("▁" + name, 0))] = value
    return row


def course(n: int, seed: int = 1) -> list[NDArray[np.float32]]:
    """Logits as they might come: often no text."""
    rows = np.random.default_rng(seed).normal(0, 2, (n, len(tiny.PIECES))).astype(np.float32)
    rows[:, PAD] += 2.5
    return list(rows)


def test_by_default_the_engine_picks_by_itself() -> None:
    assert token_picker(DecodingOptions(), VOCABULARY, CONFIG) is None
    assert (
        token_picker(DecodingOptions(num_codebooks=2, seed=3, cooldown_s=1), VOCABULARY, CONFIG)
        is None
    )


def test_an_expected_word_wins_within_its_strength() -> None:
    pick = picker(DecodingOptions(hotwords=[Hotword("two", 2.0)]))
    assert pick(logits(one=1.0, two=-1.5)) == TOKEN["▁one"]
    assert pick(logits(one=1.0, two=-0.5)) == TOKEN["▁two"]
    assert pick(logits(one=1.0, two=-0.5)) == TOKEN["▁one"], "just written: not expected at once"
    for _ in range(40):
        assert pick(logits(pad=1.0)) == PAD
    assert pick(logits(one=1.0, two=-0.5)) == TOKEN["▁two"]


def test_what_the_first_piece_of_a_word_needed_the_second_gains_no_more() -> None:
    def second(two: float) -> int:
        pick = picker(DecodingOptions(hotwords=[Hotword("going", 3.0)]))
        assert pick(logits(one=3.0, go=2.0)) == TOKEN["▁go"], "it needed 1 of 3 nats"
        row = logits(two=two)
        row[TOKEN["ing"]] = 0.0
        return pick(row)

    assert second(1.9) == TOKEN["ing"]
    assert second(2.1) == TOKEN["▁two"]


def test_whether_there_is_text_the_model_says_alone() -> None:
    pick = picker(DecodingOptions(hotwords=[Hotword("two", 20.0)]))
    assert pick(logits(pad=0.1, two=0.0, one=-1.0)) == PAD
    assert pick(logits(word=0.1, two=0.0)) == WORD_START
    assert pick(logits(two=0.1, pad=0.0)) == TOKEN["▁two"]


def test_no_word_is_begun_in_the_middle_of_another() -> None:
    pick = picker(DecodingOptions(hotwords=[Hotword("two", 20.0)]))
    row = logits(two=0.0)
    row[TOKEN["ing"]] = 1.0
    assert pick(row) == TOKEN["ing"]


@pytest.mark.parametrize("temperature", [0.0, 0.25])
def test_on_silence_nothing_is_written_however_much_is_expected(temperature: float) -> None:
    bias = [Hotword(word, 20.0) for word in ("one", "two", "three", "four", "go", "on")]
    pick = picker(DecodingOptions(hotwords=bias, temperature=temperature))
    assert {pick(logits(pad=4.0, one=-3.0)) for _ in range(200)} == {PAD}


def test_boosts_do_not_touch_what_is_not_expected() -> None:
    """As plain sampling, wherever no expected piece comes in."""
    alone = Sampler(0.7, seed=2)
    pick = picker(DecodingOptions(temperature=0.7, seed=2, hotwords=[Hotword("go", 1e-9)]))
    rows = course(200)
    assert [pick(row) for row in rows] == [alone(row) for row in rows]


def test_a_prior_weighs_text_against_text_and_no_text_against_text() -> None:
    prior = np.zeros(len(tiny.PIECES), np.float32)
    prior[TOKEN["▁one"]] = -3.0
    pick = picker(DecodingOptions(language_prior=prior))
    assert pick(logits(one=1.0, two=0.0)) == TOKEN["▁two"]
    assert pick(logits(one=1.0, two=-2.5, pad=0.9)) == TOKEN["▁one"], "there is text all the same"
    prior[PAD] = 1.0
    assert picker(DecodingOptions(language_prior=prior))(logits(one=1.0, pad=0.5)) == PAD
    assert pick(logits(one=1.0, pad=0.5)) == TOKEN["▁one"], "a prior is copied"


def test_logits_are_not_changed() -> None:
    pick = picker(MIXED)
    for row in course(30):
        before = row.copy()
        pick(row)
        np.testing.assert_array_equal(row, before)


def test_a_copy_goes_on_by_itself() -> None:
    one = picker(MIXED)
    for row in course(40):
        one(row)
    other = deepcopy(one)
    saved = one.save()
    rest = [one(row) for row in course(100, seed=2)]
    assert other.save() == saved
    assert [other(row) for row in course(100, seed=2)] == rest
    assert other.save() == one.save()


@pytest.mark.parametrize("before", [0, 1, 7, 50])
def test_a_saved_one_goes_on(before: int) -> None:
    one = picker(MIXED)
    for row in course(before):
        one(row)
    saved = json.loads(json.dumps(one.save()))
    steering = DecodingOptions.from_dict(json.loads(json.dumps(MIXED.to_dict())))
    other = picker(steering)
    other.restore(saved)
    rows = course(100, seed=2)
    assert [other(row) for row in rows] == [one(row) for row in rows]


def test_steered_anew_chance_goes_on() -> None:
    rows = course(80)
    one = picker(DecodingOptions(temperature=0.7, seed=2))
    expected = [one(row) for row in rows]
    pick = picker(DecodingOptions(temperature=0.7, seed=2))
    said = [pick(row) for row in rows[:40]]
    anew = DecodingOptions(temperature=0.7, seed=2, hotwords=[Hotword("go", 1e-9)])
    after = picker(anew)
    after.go_on(pick.state())
    assert said + [after(row) for row in rows[40:]] == expected
    other = picker(DecodingOptions(temperature=0.7, seed=3))
    other.go_on(after.state())
    fresh = Sampler(0.7, seed=3)
    assert [other(row) for row in rows] == [fresh(row) for row in rows], "another seed: from anew"


def test_steered_anew_a_written_phrase_is_not_expected_at_once() -> None:
    pick = picker(DecodingOptions(hotwords=[Hotword("two", 2.0)]))
    row = logits(one=1.0, two=-0.5)
    assert pick(row) == TOKEN["▁two"]
    anew = DecodingOptions(hotwords=["go", Hotword("two", 2.0)])
    after = picker(anew)
    after.go_on(pick.state())
    assert after(row) == TOKEN["▁one"]
    assert picker(anew)(row) == TOKEN["▁two"]


def test_a_picker_is_made_where_one_is_needed_and_the_model_can_do_it() -> None:
    assert token_picker(DecodingOptions(num_codebooks=1), VOCABULARY, CONFIG) is None
    assert token_picker(DecodingOptions(temperature=0.1), VOCABULARY, CONFIG) is not None
    most = CONFIG.lm.num_codebooks
    assert token_picker(DecodingOptions(num_codebooks=most), VOCABULARY, CONFIG) is None
    with pytest.raises(ConfigError, match=f"in 1..{most} for this model, not {most + 1}"):
        token_picker(DecodingOptions(num_codebooks=most + 1), VOCABULARY, CONFIG)


NOISE: dict[str, Any] = {"seed": 5, "drawn": 0}
COURSE: dict[str, Any] = {"num_tokens": 0, "paths": [], "written": {}}


@pytest.mark.parametrize(
    "wrong",
    [
        {}, None, {"sampler": {}, "hotwords": None}, {"sampler": None, "hotwords": {"x": 1}},
        {"sampler": NOISE}, {"sampler": {**NOISE, "drawn": -1}, "hotwords": COURSE},
        {"sampler": {**NOISE, "drawn": 7}, "hotwords": {**COURSE, "num_tokens": "x"}},
        {"sampler": {**NOISE, "seed": 10**4000}, "hotwords": COURSE},
        {"sampler": NOISE, "hotwords": {**COURSE, "written": {"go": 1}}},
    ],
)  # fmt: skip
def test_a_damaged_one_is_told_and_nothing_changes(wrong: Any) -> None:
    pick = picker(MIXED)
    pick(course(1)[0])
    before = pick.save()
    with pytest.raises(StreamError, match="saved picker cannot be read"):
        pick.restore(wrong)
    assert pick.save() == before


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_saved_one_with_one_value_replaced_is_read_or_refused(data: st.DataObject) -> None:
    pick = picker(MIXED)
    for row in course(30):
        pick(row)
    saved = json.loads(json.dumps(pick.save()))
    wrong = st.one_of(
        st.none(), st.booleans(), st.integers(), st.just(10**4000), st.floats(), st.text(),
        st.lists(st.integers()), st.just({}),
    )  # fmt: skip
    at: Any = saved
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
            at = at[key]
            continue
        at[key] = data.draw(wrong)
        break
    with suppress(StreamError):
        pick.restore(saved)
    for row in course(10):
        pick(row)


def test_what_the_model_cannot_do_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot spell 'zebra'"):
        token_picker(DecodingOptions(hotwords=["zebra"]), VOCABULARY, CONFIG)
    with pytest.raises(
        ConfigError, match="the prior has 3 numbers, but the model has 19 text tokens"
    ):
        token_picker(DecodingOptions(language_prior=np.zeros(3, np.float32)), VOCABULARY, CONFIG)


def test_only_what_does_nothing_but_draw_is_a_plain_sampler() -> None:
    """What weighs anything else, or may do something else, is not."""
    plain = DecodingOptions(temperature=0.5, top_k=3, top_p=0.9, seed=4)
    drawing = picker(plain)
    found = plain_sampler(drawing)
    assert found is not None
    twin = deepcopy(drawing)
    rows = course(40)
    assert [drawing(row) for row in rows[:20]] == [twin(row) for row in rows[:20]]
    found.skip(rows[0].size)  # of the picker's own noise
    twin(rows[20])
    assert [drawing(row) for row in rows[21:]] == [twin(row) for row in rows[21:]]
    one = Sampler(0.5)
    assert plain_sampler(one) is one
    zero = picker(replace(plain, language_prior=np.zeros_like(PRIOR)))
    assert plain_sampler(zero) is not None

    class Other(Sampler):
        pass

    besides = np.where(np.arange(len(PRIOR)) == PAD, PRIOR, np.float32(0))
    among = np.where(np.arange(len(PRIOR)) == TOKEN["▁one"], np.float32(1), np.float32(0))
    for other in (
        None, Other(0.5), lambda _: 3, picker(DecodingOptions(hotwords=["go"])),
        picker(replace(plain, hotwords=["go"])), picker(replace(plain, language_prior=besides)),
        picker(replace(plain, language_prior=among)),
    ):  # fmt: skip
        assert plain_sampler(other) is None
