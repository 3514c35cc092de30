"""Turns: their grammar on any frames, and each rule on frames made for it."""

import gzip
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import ConfigError, InputError, StreamError
from kiku.text import (
    Eagerness,
    Endpointer,
    TurnEnd,
    TurnEndEager,
    TurnEvent,
    TurnPolicy,
    TurnResumed,
    TurnStart,
    Word,
)
from tests.text.record_turn_events import RECORD, SEEDS, recorded

Frame = tuple[float, list[float] | None, float, list[Word], bool]
"""What `Endpointer.push` takes."""

FRAME_S = 0.08
DELAY_S = 0.5
LEVELS: tuple[Eagerness, ...] = get_args(Eagerness)
LETTER = {TurnStart: "S", TurnEndEager: "e", TurnResumed: "r", TurnEnd: "E"}

SPOKEN = ["right", "left", "and", "five", "le", "555", "double", "go."]
FRAMES = st.lists(
    st.tuples(
        st.none() | st.lists(st.floats(0, 1), min_size=4, max_size=4),
        st.sampled_from([-math.inf, -70.0, -50.0, -20.0]),
        st.none() | st.sampled_from(SPOKEN),
        st.booleans(),
        st.integers(1, 30),  # how often it comes
    ),
    max_size=12,
)


def turns_of(policy: TurnPolicy | Eagerness = "medium") -> Endpointer:
    policy = policy if isinstance(policy, TurnPolicy) else TurnPolicy.of(policy)
    return Endpointer(policy, frame_rate=1 / FRAME_S, delay_s=DELAY_S)


def frames_of(drawn: Iterable[tuple[list[float] | None, float, str | None, bool, int]]):
    """Frames whose words come in the first of the frames that are alike."""
    frames: list[Frame] = []
    for pauses, level, text, word_open, count in drawn:
        for i in range(count):
            time = (len(frames) + 1) * FRAME_S
            spoken_s = max(0.0, time - DELAY_S)
            words = [Word(text, max(0.0, spoken_s - 0.2), spoken_s, 0.9)] if text and not i else []
            frames.append((time, pauses, level, words, word_open and not i))
    return frames


def spelled(events: Iterable[TurnEvent]) -> str:
    return "".join(LETTER[type(event)] for event in events)


@settings(max_examples=300)
@given(FRAMES, st.sampled_from(LEVELS), st.sets(st.integers(0, 200), max_size=3))
def test_the_grammar_holds_on_any_frames(drawn, level: Eagerness, finalized: set[int]) -> None:
    turns = turns_of(level)
    events: list[TurnEvent] = []
    text_at_eager: tuple[Word, ...] = ()
    frames = frames_of(drawn)
    for i, frame in enumerate(frames):
        new = turns.push(*frame)
        if i in finalized:
            new += turns.finalized(frame[0])
        for event in new:
            if isinstance(event, TurnEndEager):
                text_at_eager = turns.words
            if isinstance(event, TurnEnd) and events and isinstance(events[-1], TurnEndEager):
                assert turns.words == text_at_eager
            events.append(event)
        assert turns.in_turn == (spelled(events)[-1:] not in ("", "E"))
    events += turns.finish(frames[-1][0] if frames else 0.0)
    assert re.fullmatch("(S(er)*e?E)*", spelled(events))
    times = [event.time for event in events]
    assert times == sorted(times)
    assert all(0 <= getattr(event, "probability", 0) <= 1 for event in events)


@settings(max_examples=200)
@given(FRAMES, st.sampled_from(LEVELS), st.integers(0, 200))
def test_saved_and_restored_they_go_on_the_same(drawn, level: Eagerness, at: int) -> None:
    frames = frames_of(drawn)
    turns = turns_of(level)
    for frame in frames[:at]:
        turns.push(*frame)
    other = turns_of(level)
    other.restore(json.loads(json.dumps(turns.save(), allow_nan=False)))
    assert (other.in_turn, other.words) == (turns.in_turn, turns.words)
    assert [turns.push(*f) for f in frames[at:]] == [other.push(*f) for f in frames[at:]]
    assert other.save() == turns.save()


@settings(max_examples=300)
@given(FRAMES, st.booleans())
def test_who_is_more_eager_is_never_later(drawn, with_heads: bool) -> None:
    """Whatever is a turn for a level is one for the less eager ones."""
    plain = [(p, level, "go" if text else None, o, n) for p, level, text, o, n in drawn]
    levels = [turns_of(level) for level in ("high", "medium", "low")]
    for frame in frames_of(plain):
        if not with_heads:
            frame = (frame[0], None, *frame[2:])
        for turns in levels:
            turns.push(*frame)
        in_turn = [turns.in_turn for turns in levels]
        assert in_turn == sorted(in_turn)


@settings(max_examples=200)
@given(FRAMES)
def test_the_first_turn_ends_in_the_order_of_eagerness_whatever_is_said(drawn) -> None:
    ends: list[float] = []
    for level in ("high", "medium", "low"):
        turns = turns_of(level)
        told = [event for frame in frames_of(drawn) for event in turns.push(*frame)]
        ends.append(next((e.time for e in told if isinstance(e, TurnEnd)), math.inf))
    assert ends == sorted(ends)


@pytest.mark.parametrize("remainder", range(12))
def test_random_frames_are_told_as_they_were_recorded(remainder: int) -> None:
    """`record_turn_events.py` says what these are; each remainder is one kind of policy."""
    expected = json.loads(gzip.decompress(RECORD.read_bytes()))
    for seed in SEEDS[remainder::12]:
        told = recorded(seed)
        assert [event[:2] for event in told] == [event[:2] for event in expected[str(seed)]]
        said, whole = told.pop()[2], expected[str(seed)].pop()[2]
        assert whole.endswith(said), "the last words of a turn"
        assert said == whole or len(said.split()) >= 40
        for one, other in zip(told, expected[str(seed)], strict=True):
            assert one[2:] == pytest.approx(other[2:], abs=1e-12) or one == other


SPEECH: tuple[list[float], float] = ([0.1, 0.05, 0.02, 0.01], -25.0)
PAUSE: tuple[list[float], float] = ([0.9, 0.9, 0.9, 0.5], -70.0)
HESITATION: tuple[list[float], float] = ([0.9, 0.7, 0.3, 0.1], -70.0)


def played(
    turns: Endpointer,
    sounds: Sequence[tuple[tuple[list[float], float], float]],
    words: Sequence[tuple[str, float, float]],
    *,
    heads: bool = True,
) -> list[TurnEvent]:
    """Sounds of some seconds each; words come as late as the model gives them."""
    events: list[TurnEvent] = []
    i = 0
    for (pauses, level), seconds in sounds:
        for _ in range(round(seconds / FRAME_S)):
            i += 1
            heard_s = i * FRAME_S
            new = [Word(*w, 0.9) for w in words if 0 <= heard_s - DELAY_S - w[2] < FRAME_S - 1e-9]
            is_open = any(w[1] <= heard_s - DELAY_S < w[2] for w in words)
            frame = (heard_s, pauses if heads else None, level, new, is_open)
            events += turns.push(*frame)
    return events


SAID = [("go", 1.2, 1.6), ("left", 1.7, 2.0)]
ONE_TURN = [(PAUSE, 1.2), (SPEECH, 0.8), (PAUSE, 4.0)]


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_a_turn(level: Eagerness, heads: bool) -> None:
    turns = turns_of(level)
    events = played(turns, ONE_TURN, SAID, heads=heads)
    assert spelled(events) in ("SE", "SeE")
    assert events[0].time == pytest.approx(1.2, abs=FRAME_S)
    # Not before the text of the last sound can have come, and not for ever after.
    assert 2.0 + DELAY_S < events[-1].time < 2.0 + 2.5
    assert [word.text for word in turns.words] == ["go", "left"]


def test_an_eager_end_is_taken_back_when_the_speaker_goes_on() -> None:
    said = [*SAID, ("right", 3.4, 3.8)]
    sounds = [(PAUSE, 1.2), (SPEECH, 0.8), (HESITATION, 1.2), (SPEECH, 0.8), (PAUSE, 3.0)]
    events = played(turns_of(), sounds, said)
    assert spelled(events) in ("SerE", "SereE")
    # The heads hear it before the word is written.
    assert events[2].time < 3.4 + DELAY_S


def test_noise_and_clicks_begin_no_turn() -> None:
    sounds = [(PAUSE, 1.2), (SPEECH, 0.4), (PAUSE, 1.2), (SPEECH, 3.0), (PAUSE, 3.0)]
    for heads in (True, False):
        assert played(turns_of(), sounds, [], heads=heads) == []


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("last", "kind"), [("and", "word_s"), ("555 12", "number_s")])
@pytest.mark.parametrize("heads", [True, False])
def test_unfinished_text_waits_longer_but_not_for_ever(
    level: Eagerness, last: str, kind: str, heads: bool
) -> None:
    said = [*SAID[:1], (last, 1.7, 2.0)]
    plain = played(turns_of(level), ONE_TURN, SAID, heads=heads)[-1].time
    guarded = played(turns_of(level), ONE_TURN, said, heads=heads)[-1].time
    policy = TurnPolicy.of(level)
    assert plain < guarded
    assert 2.0 + getattr(policy, kind) == pytest.approx(guarded, abs=2 * FRAME_S)


@pytest.mark.parametrize("heads", [True, False])
def test_a_turn_ends_even_if_it_is_never_quiet(heads: bool) -> None:
    policy = TurnPolicy.of("medium")
    sounds = [(PAUSE, 1.2), (SPEECH, 9.0)]
    end = played(turns_of(policy), sounds, SAID, heads=heads)[-1]
    assert isinstance(end, TurnEnd)
    wait_s = policy.longest_s if heads else policy.text_silence_s
    assert end.time == pytest.approx(2.0 + DELAY_S + wait_s, abs=2 * FRAME_S)


def test_a_word_that_stays_open_does_not_keep_the_turn_open() -> None:
    turns = turns_of()
    told = [e for i in range(1, 99) for e in turns.push(i * FRAME_S, None, -70, [], True)]
    assert spelled(told) == "SE"


def test_who_forces_the_text_out_has_the_end_sooner() -> None:
    late = played(turns_of("high"), ONE_TURN, SAID)[-1].time
    turns = turns_of("high")
    played(turns, [(PAUSE, 1.2), (SPEECH, 0.8), (PAUSE, 0.16)], SAID)
    assert turns.wants_text
    events = turns.finalized(2.16, [Word(*SAID[-1], 0.9)])
    assert spelled(events) == "E"
    assert events[0].time == pytest.approx(2.16)
    assert events[0].time < late - 0.3
    assert not turns.wants_text
    assert [word.text for word in turns.words] == ["go", "left"]


def test_silence_that_forced_the_text_out_has_passed() -> None:
    turns = turns_of("high")
    played(turns, [(PAUSE, 1.2), (SPEECH, 0.8), (PAUSE, 0.16)], SAID[:1])
    (end,) = turns.finalized(2.4, [Word(*SAID[-1], 0.9)])
    assert (type(end), end.time) == (TurnEnd, 2.4)
    with pytest.raises(InputError, match=r"follows 2\.4 s"):
        turns.push(2.2, *PAUSE)


def test_a_pause_begins_above_one_evidence_and_is_over_below_another() -> None:
    """At just these two, all stays as it was."""
    policy = TurnPolicy(on=0.75, off=0.25, half_life_s=1e-4, hold_s=0.4, eager_head=0, head=0)
    for between, told in ((0.5, "e"), (0.25, "e"), (0.125, "er")):
        turns = turns_of(policy)
        events = played(turns, [(([0.0], -20.0), 2.0)], [("go.", 1.0, 1.2)])
        assert spelled(events) == "S"
        events = []
        at = 2.0
        for evidence in [0.75] * 20 + [0.875] * 2 + [between] * 2:
            at += FRAME_S
            events += turns.push(at, [evidence], -20.0)
        assert spelled(events) == told
        assert events[0].time == pytest.approx(2.0 + 21 * FRAME_S)
        events = [e for i in range(6) for e in turns.push(at + (i + 1) * FRAME_S, [0.5], -20.0)]
        assert spelled(events) == ("E" if told == "e" else "")


def test_quiet_of_just_the_length_that_is_asked_for_is_enough() -> None:
    policy = TurnPolicy(eager_silence_s=0.5, silence_s=1.0)
    turns = Endpointer(policy, frame_rate=8, delay_s=0.0)  # times without rounding
    told: list[TurnEvent] = []
    for i in range(1, 20):
        words = [Word("go.", 0.5, 1.0, 0.9)] if i == 8 else []
        told += turns.push(i / 8, None, -20.0 if i <= 8 else -90.0, words)
    assert spelled(told) == "SeE"
    assert [event.time for event in told] == [0.5, 1.5, 2.0]


def test_a_closed_stream_ends_the_turn() -> None:
    turns = turns_of()
    played(turns, [(PAUSE, 1.2), (SPEECH, 0.8)], SAID)
    assert turns.finish(2.0) == [TurnEnd(2.0, 1.0)]
    assert turns.finish(2.0) == []


def test_the_first_frames_of_the_heads_are_ignored() -> None:
    turns = turns_of()
    turns.push(0.0, [1.0] * 4, -70, [Word("go", 0, 0, 1)])
    for i in range(1, TurnPolicy().ignored_frames):
        assert turns.push(i * FRAME_S, [1.0] * 4, -70) == []
    assert spelled(turns.push(12 * FRAME_S, [1.0] * 4, -70)) == "E"


def test_strange_values_do_no_harm() -> None:
    turns = turns_of()
    for i, level in enumerate([math.nan, math.inf, -math.inf, math.nan] * 20):
        turns.push(i * FRAME_S, [math.nan] * 4, level, [], i == 20)
    assert not turns.in_turn
    json.dumps(turns.save(), allow_nan=False)


def test_time_does_not_run_backwards() -> None:
    turns = turns_of()
    turns.push(-0.5, None, -70)  # the silence before the sound
    turns.push(1.0, None, -70)
    for time in (0.9, math.nan, math.inf):
        with pytest.raises(InputError, match="in order"):
            turns.push(time, None, -70)
    for time in (math.nan, math.inf, -math.inf):
        with pytest.raises(InputError, match="complete until"):
            turns.finalized(time)
    for time in (math.nan, math.inf):
        with pytest.raises(InputError, match="in order"):
            turns.finish(time)


def test_what_was_not_saved_here_is_not_restored() -> None:
    saved = turns_of().save()
    del saved["noise_db"]
    with pytest.raises(StreamError, match="noise_db"):
        turns_of().restore(saved)


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": 1.0},
        {"off": 0.7},
        {"head": -1, "eager_head": -1},
        {"eager_head": 3},
        {"silence_s": 0.1},
        {"longest_s": 0.0},
        {"half_life_s": 0.0},
        {"number_s": math.nan},
        {"hold_s": math.inf},
    ],
)
def test_policies_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TurnPolicy(**wrong)  # pyright: ignore[reportArgumentType]


def test_levels_and_rates_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="low, medium, high"):
        TurnPolicy.of("keen")  # pyright: ignore[reportArgumentType]
    for rate, delay_s in ((0, 0.5), (math.nan, 0.5), (math.inf, 0.5), (12.5, -1), (12.5, math.inf)):
        with pytest.raises(ConfigError):
            Endpointer(TurnPolicy(), frame_rate=rate, delay_s=delay_s)
    assert not Endpointer(TurnPolicy(), frame_rate=0.5, delay_s=0.0).in_turn


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_frames": -1},
        {"num_frames": 2**41},
        {"num_frames": "1"},
        {"event_time": -0.5},
        {"event_time": 1e9},
        {"sound_at": 1e9},
        {"text_at": 1e9},
        {"complete_to": 1e9},
        {"eager_since": 1e9},
        {"since": 1e9},
        {"pause_at": 1e9},
        {"signal": math.nan},
        {"in_turn": False, "is_eager": True},
        {"words": "go"},
        {"words": [["go", 0.0, 1.0, 1.0]]},
        {"more": 1},
    ],
)
def test_damaged_turns_are_not_restored(wrong: dict[str, object]) -> None:
    turns = turns_of()
    played(turns, ONE_TURN[:2], SAID)
    before = turns.save()
    with pytest.raises(StreamError, match="the saved turns cannot be read"):
        turns.restore(before | wrong)
    assert turns.save() == before
    turns.restore(before | {"num_frames": 2**40})


def test_what_is_no_object_is_not_restored() -> None:
    for wrong in (None, [], 1, "turns"):
        with pytest.raises(StreamError, match="must be an object"):
            turns_of().restore(wrong)  # pyright: ignore[reportArgumentType]


def test_events_name_the_channel() -> None:
    turns = Endpointer(TurnPolicy(), frame_rate=1 / FRAME_S, delay_s=DELAY_S, channel=1)
    said = [*SAID, ("right", 3.4, 3.8)]
    sounds = [(PAUSE, 1.2), (SPEECH, 0.8), (HESITATION, 1.2), (SPEECH, 0.8), (PAUSE, 3.0)]
    events = played(turns, sounds, said)
    assert {type(event) for event in events} == {TurnStart, TurnEndEager, TurnResumed, TurnEnd}
    assert {event.channel for event in events} == {1}


def test_an_end_waits_for_text_that_is_two_frames_late() -> None:
    """The last sound is at 2.06 s, as the last word says: 0.5 s of delay and two frames later."""
    for heads in (True, False):
        policy = TurnPolicy(eager_silence_s=0.1, silence_s=0.1)
        end = played(turns_of(policy), ONE_TURN, SAID, heads=heads)[-1]
        assert end.time == pytest.approx(2.72, abs=1e-6)


def test_text_moves_the_evidence_behind_what_it_speaks_of() -> None:
    """The heads are sure of a pause from 1.04 s on; the word that comes at 2.4 s was said at 1.9 s,
    so the pause is no older than that."""
    ends: list[float] = []
    for hold_s in (0.0, 2.0):
        turns = turns_of(TurnPolicy(hold_s=hold_s))
        told = played(turns, [(PAUSE, 2.32)], [])
        word = Word("go.", 1.7, 1.85, 0.9)
        for i in range(30, 99):
            told += turns.push(i * FRAME_S, PAUSE[0], PAUSE[1], [word] if i == 30 else [])
        assert spelled(told) in ("SE", "SeE")
        ends.append(told[-1].time)
    assert ends == [pytest.approx(2.56), pytest.approx(3.92)]


def end_after(texts: Sequence[str], turns: Endpointer) -> float:
    """When a turn of these words ends, which come together."""
    told: list[TurnEvent] = []
    for i in range(1, 99):
        words = [Word(text, 1.5, 1.6, 0.9) for text in texts] if i == 26 else []
        pauses, level = SPEECH if 13 <= i <= 20 else PAUSE
        told += turns.push(i * FRAME_S, pauses, level, words)
    return told[-1].time


def test_the_whole_number_is_read() -> None:
    assert end_after(["five"] * 15, turns_of()) > end_after(["go."], turns_of())
    assert end_after(["five"] * 16, turns_of()) == end_after(["go."], turns_of())


def test_a_new_turn_has_new_words() -> None:
    turns = turns_of()
    said = [*SAID, ("right", 6.4, 6.8)]
    events = played(turns, [*ONE_TURN, (SPEECH, 0.8), (PAUSE, 3.0)], said)
    assert re.fullmatch("Se?ESe?E", spelled(events))
    assert [word.text for word in turns.words] == ["right"]


def test_no_more_words_of_a_long_turn_are_kept_than_are_read() -> None:
    turns, restored = turns_of(), turns_of()
    sizes: list[int] = []
    for i in range(1, 401):
        turns.push(i * FRAME_S, *SPEECH, [Word(f"word{i}", i * FRAME_S, i * FRAME_S, 0.9)])
        sizes.append(len(str(turns.save())))
    assert [word.text for word in turns.words] == [f"word{i}" for i in range(361, 401)]
    assert max(sizes[300:]) < 1.1 * sizes[100]
    # What was saved when all of them were kept is taken.
    saved = turns.save()
    saved["words"] = [saved["words"][0]] * 300 + saved["words"]
    restored.restore(saved)
    assert restored.words == turns.words


def test_a_word_that_was_forced_out_is_open_no_more() -> None:
    turns = turns_of()
    told = [e for i in range(1, 21) for e in turns.push(i * FRAME_S, *SPEECH, [], i > 18)]
    assert spelled(told) == "S"
    told = [e for i in range(21, 24) for e in turns.push(i * FRAME_S, *PAUSE, [], True)]
    assert told == []
    assert spelled(turns.finalized(23 * FRAME_S, [Word("go.", 1.5, 1.6, 0.9)])) == "E"


def test_restored_it_knows_which_text_is_unfinished() -> None:
    one, other = turns_of(), turns_of()
    for i in range(1, 32):
        pauses, level = SPEECH if 13 <= i <= 20 else PAUSE
        for turns, text in ((one, "go."), (other, "and")):
            words = [Word(text, 1.5, 1.6, 0.9)] if i == 24 else []
            turns.push(i * FRAME_S, pauses, level, words)
    assert (one.in_turn, other.in_turn) == (False, True)
    one.restore(other.save())
    for i in range(32, 60):
        assert one.push(i * FRAME_S, *PAUSE) == other.push(i * FRAME_S, *PAUSE)
    assert not one.in_turn


def test_words_of_the_future_are_of_now() -> None:
    turns = turns_of()
    assert turns.push(2.0, None, -70.0, [Word("go", 7.0, 8.0, 0.9)]) == [TurnStart(2.0)]
    turns_of().restore(turns.save())
    assert turns.push(2.0 + 1.0, None, -70.0) == [TurnEnd(3.0, 1.0)]
