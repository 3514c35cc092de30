"""Options check themselves, and come back from JSON as they were."""

import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from kiku.calibration import Calibration
from kiku.errors import ConfigError, InputError, KikuError
from kiku.evaluate.hearing import HearingOptions
from kiku.options import (
    MAX_HOTWORDS,
    AudioFormat,
    DecodingOptions,
    Hotword,
    Prompt,
    Recovery,
    StreamOptions,
    TurnPolicy,
    checked_decoding_options,
    checked_stream_options,
)
from kiku.stream.recovery import StallPolicy
from kiku.text import CaptionOptions


def test_options_come_back_from_json() -> None:
    options = StreamOptions(
        format=AudioFormat(encoding="mulaw", channels=2),
        channel="each",
        start_s=1.5,
        decoding=DecodingOptions(
            temperature=0.25, hotwords=["Kyutai", Hotword("Mimi", 4.0)], seed=3,
            language_prior=np.array([0.0, -1.0], np.float32),
        ),
        recovery=None,
        turns="high",
        partials=True,
    )  # fmt: skip
    again = StreamOptions.from_dict(json.loads(json.dumps(options.to_dict())))
    assert again.to_dict() == options.to_dict()
    assert again.turns == TurnPolicy.of("high")
    assert again.recovery is None
    assert again.decoding.phrases == (Hotword("Kyutai"), Hotword("Mimi", 4.0))
    assert again.decoding.language_prior is not None
    assert StreamOptions.from_dict({}).to_dict() == StreamOptions().to_dict()
    assert StreamOptions.from_dict({"turns": True}).turn_policy == TurnPolicy()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"turn": True}, "'turns'"),
        ({"turns": "eager"}, "turns"),
        ({"channel": -1}, "channel"),
        ({"channel": "left"}, "channel"),
        ({"format": {"encoding": "flac"}}, "format.encoding"),
        ({"format": {"encoding": "opus", "channels": 2}}, "one channel"),
        ({"decoding": {"temperature": 11}}, "temperature"),
        ({"decoding": {"hotwords": "Kyutai"}}, "hotwords"),
        ({"decoding": {"hotwords": [{"text": " "}]}}, "letters"),
        ({"decoding": {"hotwords": ["x"] * (MAX_HOTWORDS + 1)}}, "hotwords"),
        ({"decoding": {"language_prior": [1, "x"]}}, "language_prior"),
        ({"max_queue_s": 0.1}, "max_queue_s"),
        ({"max_queue_s": float("nan")}, "max_queue_s"),
        ({"start_s": 3, "end_s": 2}, "end_s"),
        ({"recovery": "yes"}, "recovery"),
        ({"when_full": "wait"}, "when_full"),
        ([], "object"),
    ],
)
def test_what_cannot_be_is_named(values: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        StreamOptions.from_dict(values)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("rate", [44_100.0, np.int64(44_100), np.float32(44_100)])
def test_numbers_of_numpy_and_whole_floats_are_taken_as_they_are_meant(rate: Any) -> None:
    """sounddevice and PyAudio give the rate of a device as a float."""
    made = AudioFormat(sample_rate=rate, channels=np.uint8(2), channels_axis=np.int64(1))  # pyright: ignore
    assert made == AudioFormat(sample_rate=44_100, channels=2, channels_axis=1)
    assert AudioFormat.from_dict({"sample_rate": rate}).sample_rate == 44_100
    read = StreamOptions.from_dict({"format": {"sample_rate": rate}, "start_s": np.float32(0.5)})
    options = StreamOptions(
        format=AudioFormat(sample_rate=rate), start_s=np.float32(0.5), end_s=np.int64(3),  # pyright: ignore
        channel=np.int64(0), track=1.0, partials=np.True_, max_events=1e3,  # pyright: ignore
        decoding=DecodingOptions(temperature=np.float16(0.5), top_k=np.int32(3)),  # pyright: ignore
        turns=TurnPolicy(head=np.int64(1), on=np.float32(0.5)),  # pyright: ignore
    )  # fmt: skip
    plain = json.loads(json.dumps(options.to_dict()))  # which no number of numpy would be
    assert plain["format"]["sample_rate"] == read.format.sample_rate == 44_100
    assert (plain["start_s"], plain["end_s"], plain["track"]) == (0.5, 3, 1)
    assert Hotword("Ada", np.float32(2.5)) == Hotword("Ada", 2.5)  # pyright: ignore
    assert CaptionOptions(max_line_width=np.int64(30)).max_line_width == 30  # pyright: ignore
    scale = Calibration(kind="temperature", temperature=np.float32(1.5))  # pyright: ignore
    assert json.dumps(scale.to_dict())


@pytest.mark.parametrize("wrong", [True, np.True_, 44_100.5, np.float64(0.5), float("nan"), "2"])
def test_what_is_no_whole_number_is_refused_however_it_is_written(wrong: Any) -> None:
    for name in ("sample_rate", "channels", "channels_axis"):
        with pytest.raises(ConfigError, match=name):
            AudioFormat(**{name: wrong})
        with pytest.raises(ConfigError, match=name):
            AudioFormat.from_dict({name: wrong})


@pytest.mark.parametrize(
    ("options", "name"),
    [(DecodingOptions, "seed"), (DecodingOptions, "top_k"), (DecodingOptions, "num_codebooks"),
     (StreamOptions, "max_events"), (StreamOptions, "channel"), (StreamOptions, "track"),
     (AudioFormat, "sample_rate")],
)  # fmt: skip
def test_no_whole_number_is_taken_that_a_saved_state_could_not_hold(
    options: Any, name: str
) -> None:
    assert options.from_dict(options(**{name: 2**62}).to_dict()) == options(**{name: 2**62})
    with pytest.raises(ConfigError, match=rf"{name} must be .* below 2\^62, not .* 63 bits"):
        options(**{name: 2**62 + 1})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"channel": "left"}, "channel must be a whole number or one of mix, each, not 'left'"),
        ({"channel": 1.5}, "channel must be a whole number or one of mix, each, not 1.5"),
        ({"turns": 3}, "turns must be true or false or one of low, medium, high or an object"),
        ({"turns": {"hed": 1}}, "there is no 'turns.hed'; did you mean 'head'"),
        ({"end_s": "x"}, "end_s must be a finite number, not 'x'"),
        ({"decoding": {"hotwords": [{"text": "a", "boost": "x"}]}}, r"hotwords\[0\].boost must be"),
    ],
)
def test_what_a_field_of_several_kinds_may_be_is_told_whole(values: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        StreamOptions.from_dict(values)


def test_policies_of_ones_own_cannot_be_written_down() -> None:
    with pytest.raises(ConfigError, match="recovery"):
        StreamOptions(recovery=Recovery(())).to_dict()


def test_an_eagerness_that_there_is_not_is_told_by_the_name_of_its_option() -> None:
    with pytest.raises(ConfigError, match=r"turns must be .*\(low, medium, high\).*'fast'"):
        StreamOptions(turns="fast")  # pyright: ignore
    with pytest.raises(ConfigError, match="eagerness must be one of low"):
        TurnPolicy.of("fast")  # pyright: ignore


NEEDED: dict[type, dict[str, object]] = {
    AudioFormat: {},
    Hotword: {"text": "Ada"},
    DecodingOptions: {},
    TurnPolicy: {},
    Recovery: {},
    Prompt: {"text": "Ada", "slot": b""},
    StreamOptions: {},
    Calibration: {"kind": "temperature"},
    CaptionOptions: {},
    HearingOptions: {},
}
"""All objects of options, with what has no default."""

WRONG: Mapping[str, object] = {
    "object": object(),
    "class": StallPolicy,
    "text": "hello",
    "bytes": b"hello",
    "number": 3.5,
    "complex": 3j,
    "true": True,
    "list": ["a", 1],
    "nested": [[1, 2], [3]],
    "dict": {"a": 1},
    "set": {1},
    "array": np.zeros(3),
    "another": TurnPolicy(),
}
"""Values of every type: of each field nearly all are wrong."""


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, one.name) for kind in NEEDED for one in fields(kind)]
)
def test_a_value_of_another_type_is_refused_at_once(kind: type[Any], name: str) -> None:
    taken: list[str] = []
    for what, wrong in WRONG.items():
        try:
            options = kind(**{**NEEDED[kind], name: wrong})
        except KikuError:
            continue
        taken.append(what)
        assert isinstance(options, kind)
    assert len(taken) <= 3, taken
    for what in ("object", "complex", "dict", "set"):
        assert what not in taken
    numbers = {"number", "true"} & set(taken)
    assert numbers in (set(), {"number"}, {"true"}), "a truth value is no number"


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_true_and_one_are_two_things(wrong: object) -> None:
    for values in ({"rate_check": 1}, {"partials": 1}, {"format": wrong}, {"decoding": wrong}):
        with pytest.raises(ConfigError):
            StreamOptions(**values)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="channels_axis"):
        AudioFormat(channels_axis=True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "not None: leave them out for none"),
        ("seven", r"write \['seven'\]"),
        ({"seven": 3}, r"write \[Hotword\(text, boost\), ...\]"),
        ({"seven"}, r"write list\(...\) around it"),
        ((x for x in ["seven"]), r"write list\(...\) around it"),
        (7, r"write \['Kyutai', ...\]"),
        ([("seven", 3)], r"not \('seven', 3\): write 'Kyutai', or Hotword\('Kyutai', boost=3.0\)"),
        ([None], "not None: write 'Kyutai'"),
    ],
)
def test_hotwords_of_another_form_are_told_how_to_be_written(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DecodingOptions(hotwords=given)


def test_none_is_the_default_of_what_holds_options() -> None:
    """As it is to `set_decoding` and where streams are opened."""
    assert StreamOptions(decoding=None, format=None) == StreamOptions()  # pyright: ignore


def test_recovery_may_be_yes_or_no_as_in_json() -> None:
    for given, kept in ((True, Recovery()), (False, None)):
        options = StreamOptions(recovery=given)
        assert options.recovery == kept
        assert StreamOptions.from_dict(options.to_dict()).recovery == kept


def test_a_stream_takes_a_slot_or_one_for_each_channel() -> None:
    stereo = AudioFormat(channels=2)
    assert StreamOptions(format=stereo).num_sessions() == 1
    assert StreamOptions(format=stereo, channel=1).num_sessions(5) == 1
    assert StreamOptions(format=stereo, channel="each").num_sessions() == 2
    assert StreamOptions(format=stereo, channel="each").num_sessions(5) == 5


def test_what_is_given_as_options_must_be_options() -> None:
    assert checked_stream_options(None).to_dict() == StreamOptions().to_dict()
    options = StreamOptions(end_s=3.0)
    assert checked_stream_options(options) is options
    decoding = DecodingOptions(seed=1)
    assert checked_decoding_options(decoding) is decoding
    assert checked_decoding_options(None).is_plain
    for wrong in (*WRONG.values(), "", {}, 0, False):
        with pytest.raises(InputError, match=r"StreamOptions\("):
            checked_stream_options(wrong)
        with pytest.raises(InputError, match=r"DecodingOptions\("):
            checked_decoding_options(wrong)
    with pytest.raises(InputError, match=r"StreamOptions\(decoding="):
        checked_stream_options(decoding)


def test_options_are_compared_by_their_values() -> None:
    prior = np.array([0.0, -1.5], np.float32)

    def made() -> list[StreamOptions]:
        decodings = [
            DecodingOptions(),
            DecodingOptions(temperature=0.25),
            DecodingOptions(hotwords=["Ada"]),
            DecodingOptions(language_prior=prior),
            DecodingOptions(language_prior=2 * prior),
            DecodingOptions(language_prior=np.zeros(3)),
            DecodingOptions(language_prior=prior, seed=1),
        ]
        whole = [StreamOptions(), StreamOptions(turns=True), StreamOptions(recovery=None)]
        return [*whole, *(StreamOptions(decoding=one) for one in decodings[1:])]

    for i, one in enumerate(made()):
        for j, other in enumerate(made()):
            assert (one == other) == (i == j)
            assert i != j or hash(one) == hash(other)
        again = StreamOptions.from_dict(json.loads(json.dumps(one.to_dict())))
        assert again == one == pickle.loads(pickle.dumps(one))
    assert DecodingOptions(hotwords=[Hotword("Ada")]) == DecodingOptions(hotwords=("Ada",))
    assert DecodingOptions() != StreamOptions()
    policy = StallPolicy()
    assert Recovery([policy]) == Recovery((policy,))
    assert hash(Recovery([policy])) == hash(Recovery((policy,)))


def test_numbers_of_numpy_are_numbers() -> None:
    given = AudioFormat(sample_rate=np.int64(44_100), channels=np.uint8(2))
    options = StreamOptions(start_s=np.float32(1.5), format=given)
    same = StreamOptions(start_s=1.5, format=AudioFormat(sample_rate=44_100, channels=2))
    assert options == same
    assert options.to_dict() == same.to_dict()
    assert type(options.start_s) is float
    assert type(options.format.sample_rate) is int


def test_a_rate_may_be_a_whole_float_as_microphones_give_it() -> None:
    rate: Any = 44_100.0
    assert AudioFormat(sample_rate=rate) == AudioFormat(sample_rate=44_100)
    for wrong in (44_100.5, True, np.nan):
        with pytest.raises(ConfigError, match="sample_rate"):
            AudioFormat(sample_rate=wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "wrong", [{"time": "soon"}, {"time": None}, {"time": math.inf}, {"message": 1}, {"kind": None}]
)
def test_a_warning_of_captions_can_be_written(wrong: dict[str, Any]) -> None:
    right = {"kind": "quiet", "message": "it is quiet", "time": 1.0}
    assert CaptionOptions(warnings=[right]).warnings == [right]
    with pytest.raises(ConfigError, match="warnings must be"):
        CaptionOptions(warnings=[right, {**right, **wrong}])
