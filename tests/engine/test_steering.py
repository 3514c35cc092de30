"""How a stream's tokens are picked: what is checked, what is remembered, what a change leaves."""

import json
import subprocess
import sys
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku.engine import Engine
from kiku.engine.bias import Phrase
from kiku.engine.decoding import logprob_of
from kiku.engine.language import language_prior
from kiku.engine.sampling import Sampler
from kiku.engine.steering import Chooser, Steering
from kiku.errors import ConfigError, StreamError
from kiku.text import Vocabulary
from tests import tiny
from tests.conftest import without_torch
from tests.engine.engines import KINDS, make_engine
from tests.engine.test_engines import sound

CONFIG, VOCABULARY = tiny.model_config(), tiny.vocabulary()
TOKEN = {piece: number for number, piece in enumerate(tiny.PIECES)}
PAD, WORD_START = CONFIG.pad_id, CONFIG.word_start_id
PRIOR = np.linspace(-1, 1, len(tiny.PIECES)).astype(np.float32)
MIXED = Steering(
    temperature=0.8, top_k=12, top_p=0.95, seed=5, prior=PRIOR, recovery_s=1.0,
    bias=["one two", Phrase("three", 3.0), "go"],
)  # fmt: skip


def chooser(steering: Steering) -> Chooser:
    made = steering.chooser(VOCABULARY, CONFIG)
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
    assert Steering().chooser(VOCABULARY, CONFIG) is None
    assert Steering(num_codebooks=2, seed=3, recovery_s=1).chooser(VOCABULARY, CONFIG) is None


def test_an_expected_word_wins_within_its_strength() -> None:
    pick = chooser(Steering(bias=[Phrase("two", 2.0)]))
    assert pick(logits(one=1.0, two=-1.5)) == TOKEN["▁one"]
    assert pick(logits(one=1.0, two=-0.5)) == TOKEN["▁two"]
    assert pick(logits(one=1.0, two=-0.5)) == TOKEN["▁one"], "just written: not expected at once"
    for _ in range(40):
        assert pick(logits(pad=1.0)) == PAD
    assert pick(logits(one=1.0, two=-0.5)) == TOKEN["▁two"]


def test_whether_there_is_text_the_model_says_alone() -> None:
    pick = chooser(Steering(bias=[Phrase("two", 20.0)]))
    assert pick(logits(pad=0.1, two=0.0, one=-1.0)) == PAD
    assert pick(logits(word=0.1, two=0.0)) == WORD_START
    assert pick(logits(two=0.1, pad=0.0)) == TOKEN["▁two"]


def test_no_word_is_begun_in_the_middle_of_another() -> None:
    pick = chooser(Steering(bias=[Phrase("two", 20.0)]))
    row = logits(two=0.0)
    row[TOKEN["ing"]] = 1.0
    assert pick(row) == TOKEN["ing"]


@pytest.mark.parametrize("temperature", [0.0, 0.25])
def test_on_silence_nothing_is_written_however_much_is_expected(temperature: float) -> None:
    bias = [Phrase(word, 20.0) for word in ("one", "two", "three", "four", "go", "on")]
    pick = chooser(Steering(bias=bias, temperature=temperature))
    assert {pick(logits(pad=4.0, one=-3.0)) for _ in range(200)} == {PAD}


def test_boosts_do_not_touch_what_is_not_expected() -> None:
    """As plain sampling, wherever no expected piece comes in."""
    alone = Sampler(0.7, seed=2)
    pick = chooser(Steering(temperature=0.7, seed=2, bias=[Phrase("go", 1e-9)]))
    rows = course(200)
    assert [pick(row) for row in rows] == [alone(row) for row in rows]


def test_a_prior_weighs_text_against_text_and_no_text_against_text() -> None:
    prior = np.zeros(len(tiny.PIECES), np.float32)
    prior[TOKEN["▁one"]] = -3.0
    pick = chooser(Steering(prior=prior))
    assert pick(logits(one=1.0, two=0.0)) == TOKEN["▁two"]
    assert pick(logits(one=1.0, two=-2.5, pad=0.9)) == TOKEN["▁one"], "there is text all the same"
    prior[PAD] = 1.0
    assert chooser(Steering(prior=prior))(logits(one=1.0, pad=0.5)) == PAD
    assert pick(logits(one=1.0, pad=0.5)) == TOKEN["▁one"], "a prior is copied"


def test_logits_are_not_changed() -> None:
    pick = chooser(MIXED)
    for row in course(30):
        before = row.copy()
        pick(row)
        np.testing.assert_array_equal(row, before)


def test_a_copy_goes_on_by_itself() -> None:
    one = chooser(MIXED)
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
    one = chooser(MIXED)
    for row in course(before):
        one(row)
    saved = json.loads(json.dumps(one.save()))
    steering = Steering.from_dict(json.loads(json.dumps(MIXED.to_dict())))
    other = chooser(steering)
    other.restore(saved)
    rows = course(100, seed=2)
    assert [other(row) for row in rows] == [one(row) for row in rows]


def test_steered_anew_chance_goes_on() -> None:
    rows = course(80)
    one = chooser(Steering(temperature=0.7, seed=2))
    expected = [one(row) for row in rows]
    pick = chooser(Steering(temperature=0.7, seed=2))
    said = [pick(row) for row in rows[:40]]
    anew = Steering(temperature=0.7, seed=2, bias=[Phrase("go", 1e-9)])
    pick = anew.chooser(VOCABULARY, CONFIG, after=pick)
    assert pick is not None
    assert said + [pick(row) for row in rows[40:]] == expected
    other = Steering(temperature=0.7, seed=3).chooser(VOCABULARY, CONFIG, after=pick)
    assert other is not None
    fresh = Sampler(0.7, seed=3)
    assert [other(row) for row in rows] == [fresh(row) for row in rows], "another seed: from anew"


def test_steered_anew_a_written_phrase_is_not_expected_at_once() -> None:
    pick = chooser(Steering(bias=[Phrase("two", 2.0)]))
    row = logits(one=1.0, two=-0.5)
    assert pick(row) == TOKEN["▁two"]
    anew = Steering(bias=["go", Phrase("two", 2.0)])
    after = anew.chooser(VOCABULARY, CONFIG, after=pick)
    assert after is not None
    assert after(row) == TOKEN["▁one"]
    assert chooser(anew)(row) == TOKEN["▁two"]
    assert Steering().chooser(VOCABULARY, CONFIG, after=pick) is None


@pytest.mark.parametrize(
    "wrong",
    [{}, {"seed": 5, "sampler": {}, "bias": None}, {"seed": 5, "sampler": None, "bias": {"x": 1}}],
)
def test_a_damaged_one_is_told_and_nothing_changes(wrong: dict[str, Any]) -> None:
    pick = chooser(MIXED)
    pick(course(1)[0])
    before = pick.save()
    with pytest.raises(StreamError, match="damaged"):
        pick.restore(wrong)
    half = {**before, "bias": {"num_tokens": "x"}}
    pick(course(1)[0])
    after = pick.save()
    with pytest.raises(StreamError, match="damaged"):
        pick.restore(half)
    assert pick.save() == after


def heard(engine: Engine, cuts: tuple[int, ...]) -> list[int]:
    """What a slot says to 60 frames in blocks of the lengths `cuts`, steered anew after 24."""
    pick = chooser(MIXED)
    slot, out = engine.open(pick, num_codebooks=3)
    said, at, turn = out.tokens[0].tolist(), 0, 0
    while at < 60:
        if at == 24:
            anew = Steering(temperature=0.8, seed=5, bias=["one", "go"])
            engine.steer(slot, anew.chooser(VOCABULARY, CONFIG, after=pick), num_codebooks=2)
        end = min(at + cuts[turn % len(cuts)], 24 if at < 24 else 60)
        out = engine.step([slot], sound(60)[None, at:end])
        said += out.tokens[0].tolist()
        at, turn = end, turn + 1
    engine.close(slot)
    return said


def test_blocks_engines_and_frames_give_the_same_tokens() -> None:
    said = [heard(make_engine(kind), cuts) for kind in KINDS for cuts in ((1,), (16,), (5, 1, 9))]
    assert said == [said[0]] * len(said)
    assert len(set(said[0])) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_how_sure_a_token_is_says_the_model_alone(kind: str) -> None:
    engine = make_engine(kind, keep_logits=True)
    slot, _ = engine.open(chooser(MIXED))
    out = engine.step([slot], sound(30)[None])
    assert out.logits is not None
    for t, token in enumerate(out.tokens[0].tolist()):
        assert out.logprobs[0, t] == pytest.approx(logprob_of(out.logits[0, t], token), abs=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature must be a number from 0 to 10, not -1"),
        ({"temperature": "warm"}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_p": 0}, "top_p must be"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"num_codebooks": 0}, "num_codebooks must be a whole number, at least 1"),
        ({"num_codebooks": True}, "num_codebooks must be"),
        ({"recovery_s": -1}, "recovery_s must be"),
        ({"bias": "go"}, r"a list of phrases, not 'go'; write \['go'\]"),
        ({"bias": 5}, "a list of phrases, not 5"),
        ({"bias": [5]}, "must be text or a Phrase, not 5"),
        ({"prior": [[1.0]]}, "one for each token"),
        ({"prior": [float("inf")]}, "1 are not finite"),
        ({"prior": "no"}, "the prior must be numbers"),
    ],
)
def test_what_cannot_be_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Steering(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heat": 1}, "Steering has no 'heat'; it has bias"),
        ({"bias": "go"}, "bias must be a list"),
        ({"bias": None}, "bias must be a list"),
        ({"bias": [{"word": "go"}]}, "objects with text, strength and any_case"),
        ({"bias": [3]}, "bias must be a list"),
    ],
)
def test_what_cannot_be_read_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Steering.from_dict(values)


def test_values_for_json_and_back() -> None:
    steering = Steering.from_dict(json.loads(json.dumps(MIXED.to_dict())))
    assert steering.to_dict() == MIXED.to_dict()
    assert steering.bias == MIXED.bias
    plain = Steering.from_dict({"bias": ["go"], "temperature": 0.25})
    assert plain.bias == (Phrase("go"),)
    assert Steering.from_dict({}).to_dict() == Steering().to_dict()


def test_what_the_model_cannot_do_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot spell 'zebra'"):
        Steering(bias=["zebra"]).chooser(VOCABULARY, CONFIG)
    with pytest.raises(ConfigError, match="the prior has 3 numbers, the model 19 text tokens"):
        Steering(prior=np.zeros(3, np.float32)).chooser(VOCABULARY, CONFIG)


def test_a_prior_for_one_of_two_languages() -> None:
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "▁the", "▁le", "▁a", "t", "▁", "e", "h", "l", "x"]
    vocabulary = Vocabulary.from_pieces(pieces)
    english, french = ["the a the at"] * 50, ["le a le at le"] * 50
    prior = language_prior(vocabulary, english, french, strength=2.0)
    assert prior.shape == (len(pieces),)
    assert prior.dtype == np.float32
    lost = {piece for piece, loss in zip(pieces, prior, strict=True) if loss < 0}
    assert lost == {"▁le"}
    assert prior.min() == -2.0
    other = language_prior(vocabulary, french, english)
    assert {piece for piece, loss in zip(pieces, other, strict=True) if loss < 0} == {"▁the"}
    # A sentence that cannot be spelled is left out; if all are, that is told.
    same = language_prior(vocabulary, [*english, "zebra"], french, strength=2.0)
    np.testing.assert_array_equal(same, prior)
    with pytest.raises(ConfigError, match="no sentence of the other language"):
        language_prior(vocabulary, english, ["zebra"])
    for strength in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="strength must be"):
            language_prior(vocabulary, english, french, strength=strength)


def test_it_needs_neither_torch_nor_onnxruntime() -> None:
    program = without_torch(
        "from kiku.engine.steering import Steering\n"
        "from kiku.engine.language import language_prior\n"
        "Steering(bias=['go'], temperature=0.25)\n"
        "assert 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
