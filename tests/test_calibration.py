"""A stored calibration: what it does to probabilities, and to those of streams."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku import Recognizer, StreamOptions
from kiku.calibration import Calibration
from kiku.errors import ConfigError, OutputError
from tests import tiny
from tests.fakes import PAD, EchoEngine, spoken

CURVE = Calibration(kind="isotonic", points=((0.2, 0.1), (0.6, 0.5), (0.8, 0.5)), words=300)
SOFTER = Calibration(kind="temperature", temperature=2.0, model="demo")
RISING = st.lists(st.floats(0, 1), min_size=1, max_size=8, unique=True).map(sorted)


@pytest.mark.parametrize(
    ("said", "right"),
    [(0.0, 0.1), (0.2, 0.1), (0.4, 0.3), (0.6, 0.5), (0.7, 0.5), (0.8, 0.5), (1.0, 0.5)],
)
def test_a_curve_goes_straight_from_point_to_point(said: float, right: float) -> None:
    assert CURVE(said) == pytest.approx(right)


def test_a_temperature_divides_the_log_odds() -> None:
    assert SOFTER(0.9) == pytest.approx(0.75)  # odds of 9 to 1 become 3 to 1
    assert SOFTER(0.5) == pytest.approx(0.5)
    assert 0.99 < SOFTER(1.0) < 1
    assert 0 < SOFTER(0.0) < 0.01


def test_another_model_is_warned_of() -> None:
    assert SOFTER.warning_for("demo") is None
    assert SOFTER.warning_for("/copies/demo") is None
    assert CURVE.warning_for("demo") is None  # nobody knows whose it is
    warning = SOFTER.warning_for("kyutai/stt-1b-en_fr") or ""
    assert "measured with the model demo, and says nothing about kyutai/stt-1b-en_fr" in warning


@given(RISING, RISING, st.floats(0.05, 20), st.floats(0, 1), st.floats(0, 1))
def test_who_was_surer_stays_at_least_as_sure(
    xs: list[float], ys: list[float], temperature: float, one: float, other: float
) -> None:
    points = tuple(zip(xs, ys, strict=False))
    low, high = sorted((one, other))
    for calibration in (
        Calibration(kind="isotonic", points=points),
        Calibration(kind="temperature", temperature=temperature),
    ):
        assert 0 <= calibration(low) <= calibration(high) + 1e-12 <= 1 + 1e-9


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "other"}, "kind must be one of isotonic, temperature"),
        ({"kind": "isotonic"}, "needs points"),
        ({"kind": "temperature", "points": [[0, 0]]}, "needs points"),
        ({"kind": "temperature", "temperature": 0}, "temperature must be from"),
        ({"kind": "isotonic", "points": [[0.5, 0.5], [0.5, 0.6]]}, "points must rise"),
        ({"kind": "isotonic", "points": [[0.4, 0.5], [0.5, 0.4]]}, "points must rise"),
        ({"kind": "isotonic", "points": [[0.4, 1.5]]}, "from 0 to 1"),
        ({"kind": "isotonic", "points": [[0.4]]}, "must have 2 items"),
        ({"kind": "isotonic", "points": [[i / 2000, 0.5] for i in range(1500)]}, "at most 1000"),
        ({"kind": "temperature", "words": -1}, "words must be"),
        ({"kind": "temperature", "wrods": 1}, "did you mean 'words'"),
        ([], "must be an object"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path: Path, values: object, told: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=told):
        Calibration.load(path)


@pytest.mark.parametrize("calibration", [CURVE, SOFTER])
def test_it_is_written_and_read(tmp_path: Path, calibration: Calibration) -> None:
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration


def test_one_that_an_editor_of_windows_has_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(CURVE.to_dict()), encoding="utf-8-sig")
    assert Calibration.load(path) == CURVE


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Calibration.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="is not a calibration"):
        Calibration.load(tmp_path / "bad.json")
    with pytest.raises(OutputError, match="cannot be written"):
        CURVE.save(tmp_path / "no" / "c.json")


def test_options_take_one_and_write_it_down() -> None:
    options = StreamOptions(calibration=CURVE)
    read = StreamOptions.from_dict(json.loads(json.dumps(options.to_dict())))
    assert read.calibration == CURVE
    assert StreamOptions.from_dict(StreamOptions().to_dict()).calibration is None
    with pytest.raises(ConfigError, match="must be a Calibration"):
        StreamOptions(calibration="c.json")  # pyright: ignore[reportArgumentType]


def probabilities(options: StreamOptions | None) -> list[float]:
    config = tiny.model_config()
    one, two = (tiny.PIECES.index(piece) for piece in ("▁one", "▁two"))
    sound = spoken([PAD, one, PAD, PAD, two, PAD], config.frame_size)
    recognizer = Recognizer(EchoEngine(1), config, tiny.vocabulary(), name="echo")
    words = recognizer.transcribe(sound, options, rate=config.sample_rate).words
    with recognizer.stream(options) as live:
        live.push(sound)
        live.finalize()
        live.close()
        heard = [event.probability for event in live.events() if hasattr(event, "probability")]
    assert heard == [word.probability for word in words]
    return heard


def test_streams_and_recordings_give_out_what_it_makes_of_their_words() -> None:
    said = math.exp(float(np.float32(-0.1)))
    assert probabilities(None) == pytest.approx([said, said])
    assert probabilities(StreamOptions(calibration=SOFTER)) == pytest.approx([SOFTER(said)] * 2)


def test_a_saved_stream_goes_on_with_the_one_it_is_given() -> None:
    config = tiny.model_config()
    one = tiny.PIECES.index("▁one")
    recognizer = Recognizer(EchoEngine(2), config, tiny.vocabulary(), name="echo")
    options = StreamOptions(calibration=SOFTER, recovery=None)
    with recognizer.stream(options) as live:
        live.push(spoken([PAD, one], config.frame_size))
        state = live.save()
    with recognizer.stream(options, state=state) as later:
        later.push(spoken([PAD, PAD], config.frame_size))
        later.close()
        (word,) = [event for event in later.events() if hasattr(event, "probability")]
    assert word.probability == pytest.approx(SOFTER(math.exp(-0.1)))  # pyright: ignore
