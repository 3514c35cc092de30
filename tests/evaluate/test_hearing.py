"""Utterances through a model: words, when they were given out, and what cannot be heard."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from kiku import Recognizer, StreamOptions
from kiku.calibration import Calibration
from kiku.errors import InputError
from kiku.evaluate.hearing import HeardPart, HeardUtterance, HearingOptions, hear, sound_of
from kiku.evaluate.manifest import Span, Utterance
from tests import tiny
from tests.evaluate.conftest import CONFIG, FRAME_S, Say, echo
from tests.fakes import EchoEngine

RECORDED = HearingOptions(chunk_s=None)
LIVE = HearingOptions()


def utterance(path: Path, **changes: object) -> Utterance:
    return replace(Utterance(path.name, path, ""), **changes)  # pyright: ignore[reportArgumentType]


def texts(heard: HeardUtterance) -> list[str]:
    return [word.text for word in heard.words]


def heard_of(
    utterances: list[Utterance],
    options: HearingOptions = LIVE,
    make: Callable[[], Recognizer] = echo,
) -> dict[str, HeardUtterance]:
    return {one.id: one for one in hear(make(), utterances, options)}


def test_words_come_with_what_had_been_heard_then(say: Say) -> None:
    path = say("a.wav", "one two three")
    one = heard_of([utterance(path)])["a.wav"]
    assert texts(one) == ["one", "two", "three"]
    # The echo answers at once where the model's text lags by half a second: so a word is said to
    # lie that much earlier than it was heard.
    assert [word.start for word in one.words] == pytest.approx([0.0, 0.0, 0.22])
    # Written in frames 3, 6 and 9 (from 1), decided by the one that follows.
    assert [word.given for word in one.words] == pytest.approx(
        [4 * FRAME_S, 7 * FRAME_S, 10 * FRAME_S]
    )
    assert one.seconds == pytest.approx(11 * FRAME_S)
    assert one.part == HeardPart.of(utterance(path), StreamOptions())
    assert (one.part.path, one.part.size) == (str(path), path.stat().st_size)
    assert one.problem is None


def test_what_is_given_out_behind_the_end_of_the_sound(say: Say) -> None:
    (word,) = heard_of([utterance(say("a.wav", "go", gap=0))])["a.wav"].words
    assert word.given == pytest.approx(4 * FRAME_S)  # one frame after the sound, which has three


def test_a_recording_has_the_same_words_and_no_latency(say: Say) -> None:
    one = utterance(say("a.wav", "one two go three " * 10))
    live, recorded = heard_of([one])["a.wav"], heard_of([one], RECORDED)["a.wav"]
    assert len(live.words) == 40
    assert [replace(word, given=None) for word in live.words] == list(recorded.words)
    assert all(word.given is not None for word in live.words)


def test_a_larger_chunk_gives_the_same_words_later(say: Say) -> None:
    one = utterance(say("a.wav", "one two three"))
    (first, *_) = heard_of([one], HearingOptions(chunk_s=0.4))["a.wav"].words
    assert first.given == pytest.approx(0.4)


def test_a_live_stream_is_stepped_frame_by_frame(say: Say) -> None:
    engine = EchoEngine(2)
    recognizer = Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")
    rows = [utterance(say(f"{i}.wav", "one two")) for i in range(3)]
    assert len(list(hear(recognizer, rows, LIVE))) == 3
    assert {count for step in engine.steps for count in step.values()} == {1}
    assert max(map(len, engine.steps)) == 2  # side by side
    assert recognizer.free_slots == 2


def test_a_part_of_a_file_has_the_files_times(say: Say) -> None:
    path = say("a.wav", "one two three four")
    whole = heard_of([utterance(path)])["a.wav"]
    # From the frame before "three" to the one behind it.
    part = utterance(path, start_s=7 * FRAME_S, end_s=11 * FRAME_S)
    one = heard_of([part])["a.wav"]
    assert texts(one) == ["three"]
    assert one.seconds == pytest.approx(4 * FRAME_S)
    assert one.words[0].start == pytest.approx(7 * FRAME_S)  # never before the part
    assert one.words[0].given == whole.words[2].given
    assert len(sound_of(part, CONFIG.sample_rate)) == 4 * CONFIG.frame_size


def test_one_that_cannot_be_heard_keeps_no_other_away(say: Say, tmp_path: Path) -> None:
    bad, cut = tmp_path / "bad.wav", tmp_path / "cut.wav"
    bad.write_bytes(b"this is no sound")
    good = say("good.wav", "one")
    cut.write_bytes(say("long.wav", "one " * 200).read_bytes()[:-4000])
    late = utterance(good, id="late", start_s=99.0)
    rows = [utterance(path) for path in (bad, tmp_path / "none.wav", cut, good)]
    found = heard_of([*rows, late])
    assert texts(found["good.wav"]) == ["one"]
    problems = {name: one.problem for name, one in found.items()}
    assert problems.pop("good.wav") is None
    assert "bad.wav" in str(problems["bad.wav"])
    assert "none.wav" in str(problems["none.wav"])
    assert problems["cut.wav"] is not None
    assert "it has no sound" in str(problems["late"])


def test_turns_are_told_where_they_are_marked(say: Say) -> None:
    path = say("a.wav", "one two", gap=60)
    marked = utterance(path, turns=(Span(0.0, 0.3),))
    assert heard_of([utterance(path)])["a.wav"].ends == ()
    ends = heard_of([marked])["a.wav"].ends
    assert ends
    assert 0 < ends[0] <= 121 * FRAME_S


def test_the_machines_time_is_shared_by_those_that_run(say: Say) -> None:
    ticks = count()
    rows = [utterance(say(f"{i}.wav", "one two")) for i in range(2)]
    found = list(hear(echo(2), rows, LIVE, clock=lambda: float(next(ticks))))
    assert sum(one.took_s for one in found) == pytest.approx((next(ticks)) / 2)


def test_a_calibration_is_applied(say: Say) -> None:
    one = utterance(say("a.wav", "one"))
    surer = Calibration(kind="isotonic", points=((0.0, 0.25), (1.0, 0.25)))
    (word,) = heard_of([one], HearingOptions(stream=StreamOptions(calibration=surer)))[
        "a.wav"
    ].words
    assert word.probability == 0.25


def test_who_stops_in_the_middle_gets_the_slots_back(say: Say) -> None:
    recognizer = echo(2)
    rows = [utterance(say("short.wav", "one")), utterance(say("long.wav", "one " * 50))]
    running = hear(recognizer, rows, LIVE)
    assert next(running).id == "short.wav"
    running.close()
    assert recognizer.free_slots == 2


def test_a_recognizer_in_use_is_refused(say: Say) -> None:
    recognizer = echo(2)
    with recognizer.stream(), pytest.raises(InputError, match="has open streams"):
        next(hear(recognizer, [utterance(say("a.wav", "one"))], LIVE))


@pytest.mark.parametrize("chunk_s", [0.0, 11.0, float("nan")])
def test_chunks_that_cannot_be(chunk_s: float) -> None:
    with pytest.raises(InputError, match="chunk_s must be from"):
        HearingOptions(chunk_s=chunk_s)


@pytest.mark.parametrize(
    "stream", [StreamOptions(start_s=1), StreamOptions(end_s=1), StreamOptions(channel="each")]
)
def test_what_the_manifest_says_is_no_option(stream: StreamOptions) -> None:
    with pytest.raises(InputError, match="the manifest says"):
        HearingOptions(stream=stream)
