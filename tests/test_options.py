"""Options check themselves, and come back from JSON as they were."""

import json

import numpy as np
import pytest

from kiku.errors import ConfigError
from kiku.options import (
    MAX_HOTWORDS,
    AudioFormat,
    DecodingOptions,
    Hotword,
    Recovery,
    StreamOptions,
    TurnPolicy,
)


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


def test_policies_of_ones_own_cannot_be_written_down() -> None:
    with pytest.raises(ConfigError, match="recovery"):
        StreamOptions(recovery=Recovery(())).to_dict()
