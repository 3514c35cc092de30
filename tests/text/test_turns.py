"""Turns: their grammar on any frames, each rule on frames made for it, and real speech."""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import kiku
from kiku import Recognizer
from kiku.audio import read_chunks
from kiku.errors import ConfigError, InputError
from kiku.text import (
    Eagerness,
    Timing,
    TurnEnd,
    TurnEndEager,
    TurnEvent,
    TurnFrame,
    TurnPolicy,
    TurnResumed,
    Turns,
    TurnStart,
    Word,
    WordBuilder,
)

FRAME_S = 0.08
DELAY_S = 0.5
RATE = 24_000
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


def turns_of(policy: TurnPolicy | Eagerness = "medium") -> Turns:
    policy = policy if isinstance(policy, TurnPolicy) else TurnPolicy.of(policy)
    return Turns(policy, frame_rate=1 / FRAME_S, delay_s=DELAY_S)


def frames_of(drawn: Iterable[tuple[list[float] | None, float, str | None, bool, int]]):
    """Frames whose words come in the first of the frames that are alike."""
    frames: list[TurnFrame] = []
    for pauses, level, text, word_open, count in drawn:
        for i in range(count):
            time = (len(frames) + 1) * FRAME_S
            spoken_s = max(0.0, time - DELAY_S)
            words = [Word(text, max(0.0, spoken_s - 0.2), spoken_s, 0.9)] if text and not i else []
            frames.append(TurnFrame(time, pauses, level, words, word_open and not i))
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
        new = turns.push(frame)
        if i in finalized:
            new += turns.finalized(frame.time)
        for event in new:
            if isinstance(event, TurnEndEager):
                text_at_eager = turns.words
            if isinstance(event, TurnEnd) and events and isinstance(events[-1], TurnEndEager):
                assert turns.words == text_at_eager
            events.append(event)
        assert turns.in_turn == (spelled(events)[-1:] not in ("", "E"))
    events += turns.finish(frames[-1].time if frames else 0.0)
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
        turns.push(frame)
    other = turns_of(level)
    other.restore(json.loads(json.dumps(turns.save(), allow_nan=False)))
    assert (other.in_turn, other.words) == (turns.in_turn, turns.words)
    assert [turns.push(f) for f in frames[at:]] == [other.push(f) for f in frames[at:]]
    assert other.save() == turns.save()


@settings(max_examples=300)
@given(FRAMES, st.booleans())
def test_who_is_more_eager_is_never_later(drawn, with_heads: bool) -> None:
    """Whatever is a turn for a level is one for the less eager ones."""
    plain = [(p, level, "go" if text else None, o, n) for p, level, text, o, n in drawn]
    levels = [turns_of(level) for level in ("high", "medium", "low")]
    for frame in frames_of(plain):
        if not with_heads:
            frame = dataclasses.replace(frame, pauses=None)
        for turns in levels:
            turns.push(frame)
        in_turn = [turns.in_turn for turns in levels]
        assert in_turn == sorted(in_turn)


@settings(max_examples=200)
@given(FRAMES)
def test_the_first_turn_ends_in_the_order_of_eagerness_whatever_is_said(drawn) -> None:
    ends: list[float] = []
    for level in ("high", "medium", "low"):
        turns = turns_of(level)
        told = [event for frame in frames_of(drawn) for event in turns.push(frame)]
        ends.append(next((e.time for e in told if isinstance(e, TurnEnd)), math.inf))
    assert ends == sorted(ends)


SPEECH: tuple[list[float], float] = ([0.1, 0.05, 0.02, 0.01], -25.0)
PAUSE: tuple[list[float], float] = ([0.9, 0.9, 0.9, 0.5], -70.0)
HESITATION: tuple[list[float], float] = ([0.9, 0.7, 0.3, 0.1], -70.0)


def played(
    turns: Turns,
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
            frame = TurnFrame(heard_s, pauses if heads else None, level, new, is_open)
            events += turns.push(frame)
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
    told = [
        e for i in range(1, 99) for e in turns.push(TurnFrame(i * FRAME_S, None, -70, [], True))
    ]
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


def test_a_closed_stream_ends_the_turn() -> None:
    turns = turns_of()
    played(turns, [(PAUSE, 1.2), (SPEECH, 0.8)], SAID)
    assert turns.finish(2.0) == [TurnEnd(2.0, 1.0)]
    assert turns.finish(2.0) == []


def test_the_first_frames_of_the_heads_are_ignored() -> None:
    turns = turns_of()
    turns.push(TurnFrame(0.0, [1.0] * 4, -70, [Word("go", 0, 0, 1)]))
    for i in range(1, TurnPolicy().ignored_frames):
        assert turns.push(TurnFrame(i * FRAME_S, [1.0] * 4, -70)) == []
    assert spelled(turns.push(TurnFrame(12 * FRAME_S, [1.0] * 4, -70))) == "E"


def test_strange_values_do_no_harm() -> None:
    turns = turns_of()
    for i, level in enumerate([math.nan, math.inf, -math.inf, math.nan] * 20):
        turns.push(TurnFrame(i * FRAME_S, [math.nan] * 4, level, [], i == 20))
    assert not turns.in_turn
    json.dumps(turns.save(), allow_nan=False)


def test_time_does_not_run_backwards() -> None:
    turns = turns_of()
    turns.push(TurnFrame(-0.5, None, -70))  # the silence before the sound
    turns.push(TurnFrame(1.0, None, -70))
    for time in (0.9, math.nan, math.inf):
        with pytest.raises(InputError, match="in order"):
            turns.push(TurnFrame(time, None, -70))


def test_what_was_not_saved_here_is_not_restored() -> None:
    saved = turns_of().save()
    del saved["noise_db"]
    with pytest.raises(InputError, match="noise_db"):
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
    for rate, delay_s in ((0, 0.5), (math.nan, 0.5), (12.5, -1), (12.5, math.inf)):
        with pytest.raises(ConfigError):
            Turns(TurnPolicy(), frame_rate=rate, delay_s=delay_s)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return kiku.load("demo", device="cpu")


def frames_of_sound(recognizer: Recognizer, sound: NDArray[np.float32]) -> list[TurnFrame]:
    """What the model says of a sound."""
    config = recognizer.config
    timing = Timing(config.frame_rate, config.text_delay_s, 0.0)
    builder = WordBuilder(
        recognizer.vocabulary, timing, pad_id=config.pad_id, word_start_id=config.word_start_id
    )
    count = len(sound) // config.frame_size
    pcm = sound[: count * config.frame_size].reshape(count, config.frame_size)
    slot, first = recognizer.engine.open()
    builder.push(int(first.tokens[0, 0]), 0.0)
    frames: list[TurnFrame] = []
    for at in range(0, count, 32):
        out = recognizer.engine.step([slot], pcm[None, at : at + 32])
        assert out.pauses is not None
        for i, token in enumerate(out.tokens[0].tolist()):
            words = builder.push(token, float(out.logprobs[0, i]))
            level_db = 10 * math.log10(float(np.mean(pcm[at + i] ** 2)) + 1e-12)
            time = (at + i + 1) / config.frame_rate
            is_open = builder.partial is not None
            frames.append(TurnFrame(time, out.pauses[0, i].tolist(), level_db, words, is_open))
    recognizer.engine.close(slot)
    return frames


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(int(seconds * RATE), np.float32)


def without_heads(frames: Iterable[TurnFrame]) -> list[TurnFrame]:
    return [dataclasses.replace(frame, pauses=None) for frame in frames]


def sound_of(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(read_chunks(path, RATE)))


def test_two_examples_are_two_turns(recognizer: Recognizer, repo_root: Path) -> None:
    files = [repo_root / "examples" / name for name in ("digits.wav", "answers.mp3")]
    sound = np.concatenate([part for f in files for part in (sound_of(f), silence(3))])
    frames = frames_of_sound(recognizer, sound)
    expected = [result.text for result in recognizer.transcribe(files)]
    for heads in (True, False):
        turns = turns_of()
        texts: list[str] = []
        for frame in frames if heads else without_heads(frames):
            if any(isinstance(event, TurnEnd) for event in turns.push(frame)):
                texts.append(" ".join(word.text for word in turns.words))
        assert texts == expected


def test_turns_of_people_that_it_never_heard(recognizer: Recognizer, shared_data: Path) -> None:
    """As the policy says, with room for so small a sample."""
    said: dict[str, list[str]] = {}
    for line in (shared_data / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["group"] == "en-words":
            said.setdefault(row["speaker"], []).append(row["file"])
    random = np.random.default_rng(11)
    speakers = sorted(speaker for speaker, files in said.items() if len(files) >= 6)
    cuts, ends = {True: 0, False: 0}, {True: 0, False: 0}
    for speaker in random.permutation(speakers)[:8]:
        files = [said[speaker][i] for i in random.permutation(len(said[speaker]))[:6]]
        parts, bounds = [silence(1)], list[tuple[float, float]]()
        for turn in (files[:3], files[3:]):
            begin = sum(map(len, parts)) / RATE
            for file in turn:
                parts += [sound_of(shared_data / file), silence(0.1)]
            bounds.append((begin, sum(map(len, parts)) / RATE))
            parts.append(silence(2.5))
        frames = frames_of_sound(recognizer, np.concatenate(parts))
        for heads in (True, False):
            turns = turns_of()
            heard = frames if heads else without_heads(frames)
            told = [e.time for f in heard for e in turns.push(f) if isinstance(e, TurnEnd)]
            cuts[heads] += sum(any(a < time < b - 0.1 for a, b in bounds) for time in told)
            ends[heads] += sum(any(0 < time - b < 2.6 for time in told) for _, b in bounds)
    assert max(cuts.values()) <= 2, f"of 16 turns, by heads: {cuts}"
    assert min(ends.values()) >= 13, f"of 16 turns, by heads: {ends}"
