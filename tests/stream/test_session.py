"""A session by itself: silence around the sound, times, any chunks, the last word."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from kiku import (
    AudioFormat,
    DecodingOptions,
    End,
    Finalized,
    Partial,
    Pause,
    Prompt,
    Recovery,
    StreamOptions,
    StreamWarning,
    TurnEnd,
    TurnPolicy,
    TurnStart,
    Word,
    WordEnd,
)
from kiku.audio import AudioInput, Chunk
from kiku.config import ModelConfig
from kiku.errors import AudioError, QueueFull, StreamClosed, StreamError
from kiku.stream import FinalizeRequest, Redecode, StreamStats, WordSession
from tests import tiny
from tests.fakes import PAD

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
FRAME_S = 1 / CONFIG.frame_rate
ONE, TWO, ED = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "ed"))
PLAIN = StreamOptions(recovery=None)


def session(
    options: StreamOptions = PLAIN, *, channel: int | None = None, **changes: float
) -> WordSession:
    config = ModelConfig.from_dict({**CONFIG.to_dict(), **changes})
    return WordSession(config, tiny.vocabulary(), options, channel=channel)


def push(s: WordSession, samples: ArrayLike, rate: int | None = None) -> None:
    s.check_open()
    s.push(s.input.check(samples, rate))


def events(s: WordSession) -> list[object]:
    found = list(s.events)
    s.events.clear()
    return found


def drained(s: WordSession) -> NDArray[np.float32]:
    """All frames that wait, as an engine takes them."""
    taken = [np.zeros((0, SIZE), np.float32)]
    while isinstance(ready := s.pending(), int) and ready:
        taken.append(np.concatenate(s.take(ready)).reshape(ready, SIZE))
    return np.concatenate(taken)


def accept(
    s: WordSession,
    tokens: Sequence[int],
    logprobs: Sequence[float] | None = None,
    level: float = -100.0,
    pauses: Sequence[Sequence[float]] | None = None,
) -> None:
    """What the engine said to as many frames."""
    s.accept(tokens, logprobs or [0.0] * len(tokens), [level] * len(tokens), pauses)


def said(s: WordSession, tokens: list[int], logprobs: list[float] | None = None) -> None:
    """What an engine does: token 0 before any frame, then one after each."""
    logprobs = logprobs or [0.0] * len(tokens)
    s.begin(tokens[0], logprobs[0])
    hear(s, tokens[1:], logprobs[1:])


def hear(s: WordSession, tokens: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
    """As many frames of silence, and what is said to them."""
    push(s, np.zeros(len(tokens) * SIZE, np.float32))
    assert len(drained(s)) == len(tokens)
    accept(s, tokens, logprobs)


def hear_all(s: WordSession) -> NDArray[np.float32]:
    """All that waits, with nothing to say to it."""
    s.begin(PAD, 0.0)
    frames = drained(s)
    accept(s, [PAD] * len(frames))
    return frames


def test_frames_are_the_silence_the_sound_and_the_silence() -> None:
    s = session(silence_prefix_s=0.2)
    sound = np.random.default_rng(0).uniform(-1, 1, 100).astype(np.float32)
    push(s, sound)
    s.close()
    frames = drained(s).ravel()
    prefix = int(0.2 * CONFIG.sample_rate)
    assert not frames[:prefix].any()
    np.testing.assert_array_equal(frames[prefix : prefix + 100], sound)
    assert not frames[prefix + 100 :].any()
    tail_s = (frames.size - prefix - 100) / CONFIG.sample_rate
    assert CONFIG.text_delay_s + 1.0 <= tail_s < CONFIG.text_delay_s + 1.0 + 2 * 0.08
    assert s.pending() is None


def test_an_unpadded_session_hears_exactly_what_is_pushed() -> None:
    s = WordSession(CONFIG, tiny.vocabulary(), PLAIN, padded=False)
    push(s, np.ones(3 * SIZE + 5, np.float32))
    s.close()
    assert drained(s).shape == (3, SIZE)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 200), max_size=12), st.sampled_from([None, 1000, 8000, 16000]))
def test_any_chunks_give_the_same_frames(lengths: list[int], rate: int | None) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, sum(lengths)).astype(np.float32)
    whole, cut = session(), session()
    push(whole, sound, rate)
    at = 0
    for length in lengths:
        push(cut, sound[at : at + length], rate)
        at += length
    whole.close()
    cut.close()
    np.testing.assert_allclose(drained(cut), drained(whole), atol=1e-6)
    assert cut.duration == pytest.approx(whole.duration, abs=1e-9)


def test_words_come_as_decided_with_the_delay_removed() -> None:
    s = session()
    said(s, [3] * 20 + [0, ONE], [0.0] * 21 + [-0.5])
    assert events(s) == []
    hear(s, [ED, 3], [-0.25, 0.0])
    word, ended = events(s)
    assert isinstance(word, Word)
    assert ended == WordEnd(word.end)
    assert word.text == "oneed"
    assert word.start == pytest.approx(21 * 0.08 - 0.5)
    assert word.end == pytest.approx(23 * 0.08 - 0.5)
    assert word.probability == pytest.approx(np.exp(-0.75))


def test_the_last_word_is_never_lost() -> None:
    s = session()
    push(s, np.zeros(2 * SIZE, np.float32))
    s.close()
    s.begin(3, 0.0)
    n = len(drained(s))
    accept(s, [3] * (n - 1) + [TWO])
    assert s.pending() is None
    s.finish()
    word, _, end = events(s)
    assert isinstance(word, Word)
    assert word.text == "two"
    assert word.start <= word.end <= s.duration, "it was never said behind the end of the sound"
    assert end == End(2 * 0.08)
    assert s.has_ended
    assert not s.done, "its slot is still held"
    s.released()
    assert s.done
    s.finish()
    assert events(s) == []


def test_nothing_is_pushed_after_the_end() -> None:
    s = session()
    s.close()
    s.close()
    assert s.is_closing
    assert len(s._inbox.items) == 1
    with pytest.raises(StreamClosed, match="open another stream"):
        push(s, np.zeros(10, np.float32))


def test_a_change_of_rate_is_forgiven_and_told() -> None:
    s = session()
    push(s, np.zeros(1600, np.float32), rate=16000)
    push(s, np.zeros(16_000, np.float32), rate=8000)
    assert events(s) == [], "it is told when it has been heard"
    hear_all(s)
    (warning,) = events(s)
    assert isinstance(warning, StreamWarning)
    assert warning.kind == "rate_changed"
    assert warning.time == pytest.approx(0.1)
    assert s.duration == pytest.approx(2.1)


def test_a_warning_comes_when_the_decoder_has_come_so_far() -> None:
    s = session()
    s.begin(PAD, 0.0)
    push(s, np.zeros(1600, np.float32), rate=16000)
    push(s, np.zeros(16_000, np.float32), rate=8000)
    frames = drained(s)
    accept(s, [PAD])
    assert events(s) == [], "that lies at 0.1 s"
    accept(s, [PAD])
    assert [type(event) for event in events(s)] == [StreamWarning]
    accept(s, [PAD] * (len(frames) - 2))
    assert events(s) == []


@pytest.mark.parametrize("num_frames", [4, 5])
def test_a_warning_stands_in_the_same_place_however_the_sound_was_cut(num_frames: int) -> None:
    told: list[list[str]] = []
    for waits in (False, True):
        s = session(StreamOptions(recovery=None, pauses=True))
        s.begin(PAD, 0.0)
        pushes = ((num_frames * SIZE, None), (3 * 8 * SIZE, 8_000), (SIZE, None))
        for size, rate in pushes:
            push(s, np.full(size, 0.1, np.float32), rate)
            if waits:  # until it has been heard
                n = len(drained(s))
                accept(s, [PAD] * n, pauses=[[0.0] * 4] * n)
        s.close()
        n = len(drained(s))
        accept(s, [PAD] * n, pauses=[[0.0] * 4] * n)
        s.finish()
        told.append([getattr(event, "kind", type(event).__name__) for event in events(s)])
    assert told[0].count("rate_changed") == 2
    assert told[0] == told[1]


def test_a_rate_that_cannot_be_leaves_no_trace() -> None:
    s = session()
    with pytest.raises(AudioError, match="0 Hz"):
        push(s, np.zeros(10, np.float32), rate=0)
    assert s.duration == 0.0
    push(s, np.zeros(SIZE, np.float32))
    assert s.pending() == 1


def test_the_length_is_right_in_the_midst_of_a_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver converts in a thread of its own, and the client may ask at any moment."""
    s, seen = session(), list[float]()
    feed = AudioInput.feed

    def asked_meanwhile(self: AudioInput, chunk: Chunk) -> NDArray[np.float32]:
        found = feed(self, chunk)
        seen.append(s.duration)
        return found

    monkeypatch.setattr(AudioInput, "feed", asked_meanwhile)
    for _ in range(2):
        push(s, np.zeros(2 * SIZE, np.float32))
        s.pending()
    assert seen == pytest.approx([2 * FRAME_S, 4 * FRAME_S])
    assert s.duration == pytest.approx(4 * FRAME_S)


def test_the_length_is_right_where_bytes_ended_within_a_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks then seem to be longer than they are together, also while the next is converted."""
    rate, seen = CONFIG.sample_rate, list[float]()
    format = AudioFormat(encoding="s16le", sample_rate=rate)
    s = session(StreamOptions(recovery=None, format=format))
    push(s, bytes(3))
    s.pending()
    assert s.duration == pytest.approx(1 / rate)
    feed = AudioInput.feed

    def asked_meanwhile(self: AudioInput, chunk: Chunk) -> NDArray[np.float32]:
        seen.append(s.duration)
        return feed(self, chunk)

    monkeypatch.setattr(AudioInput, "feed", asked_meanwhile)
    push(s, bytes(2 * SIZE - 1))
    s.pending()
    assert [*seen, s.duration] == pytest.approx([(SIZE + 1) / rate] * 2)


@pytest.mark.parametrize("is_before", [False, True])
def test_the_length_is_right_where_a_chunk_is_converted_while_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    s = session()
    push(s, np.zeros(2 * SIZE, np.float32))
    taken = AudioInput.duration.fget
    assert taken is not None

    def duration(self: AudioInput) -> float:
        seconds = taken(self)
        with monkeypatch.context() as patch:
            patch.setattr(AudioInput, "duration", property(taken))
            s.pending()  # as the driver would just then
        return taken(self) if is_before else seconds

    monkeypatch.setattr(AudioInput, "duration", property(duration))
    assert s.duration == pytest.approx(2 * FRAME_S)


def test_samples_that_are_not_finite_become_silence_and_are_told() -> None:
    s = session()
    push(s, np.full(2 * CONFIG.sample_rate, np.nan, np.float32))
    assert not hear_all(s).any()
    (warning,) = events(s)
    assert isinstance(warning, StreamWarning)
    assert warning.kind == "not_finite"


def test_what_is_no_sound_is_refused_and_the_session_lives() -> None:
    s = session()
    with pytest.raises(AudioError):
        push(s, np.array(["a"]))
    push(s, np.zeros(SIZE, np.float32))
    assert s.pending() == 1
    assert s.duration == pytest.approx(0.08)


def too_large() -> Chunk:
    """A chunk of a recording, which nobody has checked, that cannot be converted."""
    return Chunk(np.full(SIZE, 100.0, np.float32), CONFIG.sample_rate, SIZE, 1)


def test_sound_before_a_place_that_cannot_be_converted_is_heard() -> None:
    s, whole = session(), session()
    sound = np.full(3 * SIZE + 7, 0.5, np.float32)
    for one in (s, whole):
        one.begin(PAD, 0.0)
        push(one, sound)
    s.finalize(FinalizeRequest("t"))
    s.push(too_large())
    push(s, np.full(3 * SIZE, 0.7, np.float32))
    whole.close()
    frames = drained(s)
    assert [event.tag for event in finalize_all(s)] == ["t"]
    rest: list[NDArray[np.float32]] = []

    def hear_on() -> None:
        while ready := s.pending():
            assert isinstance(ready, int)
            rest.append(np.concatenate(s.take(ready)).reshape(ready, SIZE))

    with pytest.raises(AudioError, match="samples reach 100"):
        hear_on()
    np.testing.assert_array_equal(np.concatenate([frames, *rest]), drained(whole))
    assert len(s._inbox.items) == 1, "what comes behind is not looked at"
    assert s.duration == pytest.approx(7 * FRAME_S + 7 / CONFIG.sample_rate)
    with pytest.raises(AudioError, match="samples reach 100"):
        s.save(0)


def test_a_beginning_that_cannot_be_converted_is_told_with_no_sound_heard() -> None:
    s = session()
    s.push(too_large())
    with pytest.raises(AudioError, match="samples reach 100"):
        s.save(1)
    with pytest.raises(AudioError, match="samples reach 100"):
        assert not drained(s).any()
    assert s._source.num_frames < CONFIG.text_delay_s * CONFIG.frame_rate + 1


def test_what_was_wrong_with_the_last_second_is_told_at_the_end() -> None:
    s = session()
    s.begin(3, 0.0)
    push(s, np.full(CONFIG.sample_rate // 2, np.nan, np.float32))
    s.close()
    frames = drained(s)
    accept(s, [3] * len(frames))
    s.finish()
    *warnings, end = events(s)
    assert [one.kind for one in warnings if isinstance(one, StreamWarning)] == [
        "not_finite", "silent",
    ]  # fmt: skip
    assert isinstance(end, End)


class Seen:
    """A recovery policy that wants nothing, and notes what it saw."""

    def __init__(self) -> None:
        self.stats: list[StreamStats] = []

    def decide(self, stats: StreamStats) -> object:
        self.stats.append(stats)
        return None


@pytest.mark.parametrize(
    ("heads", "speech"),
    [((0.9, 0.9, 0.1, 0.9), True), ((0.1, 0.1, 0.9, 0.1), False), ((0.9, 0.1), True),
     ((0.1, 0.9), False)],
)  # fmt: skip
def test_the_head_of_two_seconds_tells_recovery_of_a_pause(
    heads: tuple[float, ...], speech: bool
) -> None:
    seen = Seen()
    s = session(StreamOptions(recovery=Recovery([seen])))
    s.begin(PAD, 0.0)
    push(s, np.zeros(16 * SIZE, np.float32))
    assert len(drained(s)) == 16
    tokens = [PAD] * 8 + [0, ONE] + [PAD] * 6
    s.accept(tokens, [0.0] * 16, [-70.0] + [-20.0] * 15, [heads] * 16)
    (stats,) = seen.stats
    assert list(stats.speech[1:]) == [speech] * 15
    assert list(stats.texts) == [token == ONE for token in tokens]
    assert [text for text, _ in stats.words] == ["one"]


def test_policies_are_asked_every_sixteen_frames_however_many_wait() -> None:
    seen = Seen()
    s = session(StreamOptions(recovery=Recovery([seen])))
    s.begin(PAD, 0.0)
    push(s, np.zeros(40 * SIZE, np.float32))
    assert s.pending() == 16
    s.take(10)
    accept(s, [PAD] * 9 + [ONE])
    assert s.pending() == 6
    s.take(6)
    accept(s, [ED] * 6)
    assert [stats.num_frames for stats in seen.stats] == [16]
    assert seen.stats[0].word_open
    assert seen.stats[0].seconds == pytest.approx(16 * FRAME_S)
    assert s.pending() == 16


def test_words_that_were_decoded_again_are_shown_to_turns() -> None:
    for heard_on in (True, False):
        s = session(StreamOptions(recovery=None, turns=TurnPolicy.of("high")))
        said(s, [PAD] * 41)
        s.redecoded(
            Redecode(20, "frozen", "it froze"), ([PAD] * 10 + [0, ONE] + [PAD] * 8, [0.0] * 20)
        )
        found = events(s)
        assert [type(event) for event in found] == [StreamWarning, Word, WordEnd]
        assert isinstance(found[0], StreamWarning)
        assert (found[0].kind, found[0].message) == ("frozen", "it froze")
        assert found[0].time == pytest.approx(40 * FRAME_S)
        if heard_on:
            hear(s, [PAD])
            assert TurnStart in [type(event) for event in events(s)]
            hear(s, [PAD] * 60)
            assert TurnEnd in [type(event) for event in events(s)], "they are shown once"
            s.finish()
            assert [type(event) for event in events(s)] == [End]
        else:
            s.close()
            s.finish()
            assert [type(event) for event in events(s)] == [TurnStart, TurnEnd, End]


def test_an_open_word_that_is_not_decoded_again_comes_as_no_word() -> None:
    s = session(StreamOptions(recovery=None, partials=True, signal_checks=False))
    said(s, [PAD] * 10 + [0, ONE])
    assert [type(event) for event in events(s)] == [Partial]
    s.redecoded(Redecode(8, "frozen", "once more"), ([PAD] * 8, [0.0] * 8))
    hear(s, [PAD] * 10)
    s.finish()
    assert [type(event) for event in events(s)] == [StreamWarning, End]


def test_a_turn_begins_where_a_word_does_and_not_where_it_ends() -> None:
    s = session(StreamOptions(recovery=None, turns=TurnPolicy.of("high")))
    said(s, [PAD] * 20 + [0, ONE])
    assert [type(event) for event in events(s)] == [TurnStart]


def test_a_session_with_a_prompt_has_heard_its_first_token() -> None:
    s = session(StreamOptions(recovery=None, prompt=Prompt("one", b"")))
    hear(s, [PAD] * 20 + [0, ONE, PAD])
    word, _ = events(s)
    assert isinstance(word, Word)
    assert word.start == pytest.approx(22 * FRAME_S - 0.5)


def test_words_behind_the_end_of_the_sound_are_put_at_its_end() -> None:
    s = session()
    push(s, np.full(10 * SIZE, 0.1, np.float32))
    s.close()
    s.begin(PAD, 0.0)
    n = len(drained(s))
    accept(s, [PAD] * (n - 3) + [0, ONE, PAD])
    word, ended = (one for one in events(s) if not isinstance(one, StreamWarning))
    assert isinstance(word, Word)
    assert (word.start, word.end) == (s.duration, s.duration)
    assert ended == WordEnd(s.duration)


def test_where_the_sound_is_cut_off_words_end_there() -> None:
    s = session(StreamOptions(recovery=None, start_s=0.4, end_s=0.8))
    push(s, np.zeros(20 * SIZE, np.float32))
    s.close()
    s.begin(PAD, 0.0)
    n = len(drained(s))
    accept(s, [PAD] * 6 + [0, ONE] + [PAD] * (n - 11) + [0, TWO, PAD])
    first, _, last, _ = events(s)
    assert isinstance(first, Word)
    assert isinstance(last, Word)
    assert first.start == pytest.approx(0.4 + 8 * FRAME_S - 0.5)
    assert (last.start, last.end) == pytest.approx((0.8, 0.8))


def test_what_each_frame_tells_is_told_from_the_first_sound_on() -> None:
    options = StreamOptions(recovery=None, pauses=True, partials=True)
    s = session(options, silence_prefix_s=0.16)
    s.begin(PAD, 0.0)
    push(s, np.zeros(3 * SIZE, np.float32))
    assert len(drained(s)) == 5
    accept(s, [PAD, PAD, 0, ONE, ED], pauses=[[i / 10, 0.5] for i in range(5)])
    pauses = [event for event in events(s) if isinstance(event, Pause)]
    assert [(round(p.time, 6), p.probabilities) for p in pauses] == [
        (0.08, (0.2, 0.5)),
        (0.16, (0.3, 0.5)),
        (0.24, (0.4, 0.5)),
    ]


def test_pieces_are_told_as_they_are_written() -> None:
    s = session(StreamOptions(recovery=None, partials=True))
    said(s, [PAD] * 10 + [0, ONE])
    (one,) = events(s)
    assert one == Partial("one", pytest.approx(11 * FRAME_S - 0.5))
    hear(s, [ED])
    assert [event.text for event in events(s)] == ["oneed"]
    hear(s, [PAD])
    assert Partial not in [type(event) for event in events(s)]


def test_a_channel_stands_in_all_that_is_said_of_it() -> None:
    options = StreamOptions(recovery=None, turns=True, pauses=True, partials=True, channel="each")
    s = session(options, channel=1)
    s.begin(PAD, 0.0)
    both = np.zeros((40 * SIZE, 2), np.float32)
    both[:, 1] = np.nan
    push(s, both)
    s.finalize(FinalizeRequest("t"))
    n = len(drained(s))
    accept(s, [PAD] * 7 + [0, ONE] + [PAD] * (n - 10) + [TWO], pauses=[[0.0] * 4] * n)
    work = s.pending()
    assert work is s.work is not None
    found = events(s)
    warnings = [event for event in found if isinstance(event, StreamWarning)]
    assert [warning.kind for warning in warnings] == ["not_finite"]
    others = [event for event in found if not isinstance(event, StreamWarning)]
    assert {type(event) for event in others} >= {Word, WordEnd, Partial, Pause, TurnStart}
    assert {event.channel for event in others} == {1}


class Slot:
    """A slot in which a finalize hears nothing, or what it is told."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = list(tokens)

    def look_ahead(self, frames: NDArray[np.float32]) -> tuple[list[int], list[float]]:
        said = [*self.tokens, *[PAD] * len(frames)][: len(frames)]
        self.tokens = self.tokens[len(frames) :]
        return said, [0.0] * len(frames)

    def end_look_ahead(self) -> None: ...


def finalize(s: WordSession, slot: Slot, request: FinalizeRequest) -> list[object]:
    """Ask, hear what lies before, and do the work."""
    s.finalize(request)
    frames = drained(s)
    accept(s, [PAD] * len(frames))
    work = s.pending()
    assert not isinstance(work, int | None)
    while work.run(slot, s, None):  # pyright: ignore[reportArgumentType]
        pass
    assert s.work is None
    return events(s)


def test_a_finalize_of_a_channel_says_which() -> None:
    s = session(replace(PLAIN, channel="each"), channel=0)
    s.begin(PAD, 0.0)
    push(s, np.full((20 * SIZE, 2), 0.5, np.float32))
    s.finalize(FinalizeRequest())
    frames = drained(s)
    accept(s, [PAD] * (len(frames) - 1) + [ONE], level=-6.0)
    work = s.pending()
    assert not isinstance(work, int | None)
    while work.run(Slot(), s, None):  # pyright: ignore[reportArgumentType]
        pass
    (final,) = events(s)
    assert isinstance(final, Finalized)
    assert final.channel == 0
    assert final.open_word is not None
    assert final.open_word.channel == 0


def test_turns_learn_of_the_words_of_a_finalize() -> None:
    s = session(StreamOptions(recovery=None, turns=TurnPolicy.of("high")))
    s.begin(PAD, 0.0)
    push(s, np.zeros(20 * SIZE + 30, np.float32))
    found = finalize(s, Slot([0, ONE]), FinalizeRequest("a"))
    kinds = [type(event) for event in found]
    assert kinds[:3] == [Word, WordEnd, TurnStart]
    assert kinds[-1] is Finalized
    push(s, np.zeros(SIZE, np.float32))  # the next frame lies before what the turns know
    assert len(drained(s)) == 1
    accept(s, [PAD])


def test_a_full_inbox_of_requests_is_told_and_answers_make_room() -> None:
    s = session()
    s.begin(PAD, 0.0)
    for i in range(32):
        s.finalize(FinalizeRequest(str(i)))
    with pytest.raises(QueueFull, match="32 finalizes are waiting"):
        s.check_finalize(FinalizeRequest())
    found = finalize_all(s)
    assert [event.tag for event in found] == [str(i) for i in range(32)]
    for i in range(32):
        s.finalize(FinalizeRequest(str(i)))
    with pytest.raises(QueueFull):
        s.check_finalize(FinalizeRequest())


def test_requests_that_are_saved_again_and_again_can_be_restored() -> None:
    s = session()
    s.begin(PAD, 0.0)
    push(s, np.zeros(3 * SIZE, np.float32))
    for i in range(3):
        for j in range(20):
            s.check_finalize(FinalizeRequest(f"{i} {j}"))
            s.finalize(FinalizeRequest(f"{i} {j}"))
        saved = s.save(s.num_given)
        session().restore(saved)
    assert sum(len(one["finalize"]["requests"]) for one in saved["due"]) == 60


def test_finalizes_that_were_saved_count_among_those_that_wait() -> None:
    s = session()
    s.begin(PAD, 0.0)
    push(s, np.zeros(3 * SIZE, np.float32))
    s.finalize(FinalizeRequest("saved"))
    other = session()
    other.restore(s.save(2))
    for i in range(31):
        other.finalize(FinalizeRequest(str(i)))
    with pytest.raises(QueueFull, match="32 finalizes are waiting"):
        other.check_finalize(FinalizeRequest())


def finalize_all(s: WordSession) -> list[Finalized]:
    while not isinstance(work := s.pending(), int | None):
        while work.run(Slot(), s, None):  # pyright: ignore[reportArgumentType]
            pass
    return [event for event in events(s) if isinstance(event, Finalized)]


def test_events_that_nobody_fetches_hold_it_back() -> None:
    s = session(StreamOptions(recovery=None, max_events=2))
    said(s, [PAD] * 10 + [0, ONE])
    push(s, np.zeros(SIZE, np.float32))
    assert s.pending() == 1
    s.take(1)
    accept(s, [PAD])
    push(s, np.zeros(SIZE, np.float32))
    s.finalize(FinalizeRequest())
    calls: list[str] = []
    s.on_input, s.on_room = lambda: calls.append("input"), lambda: calls.append("room")
    assert s.pending() == 0, "a word and its end wait"
    assert isinstance(s.next_event(), Word)
    assert calls == ["input", "room"], "the session is to be asked before the driver wakes up"
    assert s.pending() == 1
    assert isinstance(s.next_event(), WordEnd)
    assert len(calls) == 2, "nothing was held back"


def test_who_makes_room_while_a_session_looks_is_not_told_to_do_so_again() -> None:
    """An event is taken after the session saw too many, and before it says that it is held back."""
    s = session(StreamOptions(recovery=None, max_events=2))
    said(s, [PAD] * 10 + [0, ONE, 0])
    push(s, np.zeros(SIZE, np.float32))
    assert len(s.events) == 2

    class Watched(deque):  # pyright: ignore
        def __len__(self) -> int:
            found = super().__len__()
            if found == 2:
                self.popleft()
            return found

    s.events = Watched(s.events)
    assert s.pending() == 1


def test_a_failure_comes_behind_all_that_was_heard() -> None:
    s = session()
    said(s, [PAD] * 10 + [0, ONE])
    error = RuntimeError("out of memory")
    s.fail(error)
    s.fail(RuntimeError("again"))
    assert s.has_ended
    assert s.is_closing
    assert isinstance(s.next_event(), Word)
    assert isinstance(s.next_event(), WordEnd)
    for call in (s.next_event, s.check_open, s.check_alive):
        with pytest.raises(RuntimeError, match="out of memory"):
            call()
    s.finish()
    assert not s.events
    s.cut()
    assert not s.events


def test_a_push_while_a_session_fails_is_not_told_of_a_close_that_nobody_called() -> None:
    s = session()
    said(s, [PAD] * 10 + [0, ONE])
    opened: list[bool] = []

    class Watched(deque):  # pyright: ignore
        def append(self, event: object) -> None:
            s.check_open()  # as another thread would just then
            opened.append(not s.is_closing)
            super().append(event)

    s._writer.events = Watched()
    s.fail(RuntimeError("x"))
    assert opened == [True, True]
    assert s.is_closing
    with pytest.raises(RuntimeError, match="x"):
        s.check_open()


def test_whoever_fetches_learns_of_the_failure_last() -> None:
    s = session()
    said(s, [PAD] * 10 + [0, ONE])
    seen: list[object] = []

    class Watched(deque):  # pyright: ignore
        def append(self, event: object) -> None:
            seen.append((type(event), s.failure))
            super().append(event)

    s._writer.events = Watched()
    s.fail(RuntimeError("x"))
    assert seen == [(Word, None), (WordEnd, None)]


def test_what_ended_well_does_not_fail_afterwards() -> None:
    s = session()
    s.close()
    s.finish()
    s.fail(RuntimeError("too late"))
    assert s.failure is None
    assert s.events == deque([End(0.0)])


def test_cutting_drops_what_waits() -> None:
    s = session()
    said(s, [PAD] * 10 + [0, ONE])
    push(s, np.zeros(5 * SIZE, np.float32))
    s.finalize(FinalizeRequest())
    assert s.pending() == 5
    push(s, np.zeros(5 * SIZE, np.float32))
    s.cut()
    assert s.pending() is None
    assert [type(event) for event in events(s)] == [Word, WordEnd, End]
    assert s.is_closing
    assert s.waiting_s == pytest.approx(5 * FRAME_S), "what was never looked at"


def test_listeners_are_called_when_something_changed() -> None:
    s = session()
    calls: list[str] = []
    s.on_change = lambda: calls.append("")
    said(s, [PAD] * 3)
    assert len(calls) == 1
    s.redecoded(Redecode(2, "frozen", ""), ([PAD] * 2, [0.0] * 2))
    assert len(calls) == 2
    s.finalize(FinalizeRequest())
    finalize_all(s)
    assert len(calls) == 3
    s.released()
    assert len(calls) == 4


def test_no_more_is_converted_ahead_than_a_step_takes() -> None:
    s = session()
    for _ in range(100):
        push(s, np.zeros(SIZE, np.float32))
    assert s.pending() == 64
    assert len(s._inbox.items) == 36
    assert s.waiting_s == pytest.approx(100 * FRAME_S)
    assert s.duration == pytest.approx(100 * FRAME_S)


def test_a_saved_session_is_what_it_was_when_it_was_asked_for() -> None:
    s = session(StreamOptions(recovery=None, turns=True))
    said(s, [PAD] * 10 + [0, ONE])
    push(s, np.zeros(3 * SIZE, np.float32))
    s.finalize(FinalizeRequest("t"))
    given = s.num_given
    push(s, np.zeros(50 * SIZE, np.float32))
    later = s.num_given - given
    saved = s.save(given)
    assert len(s._inbox.items) == later > 0
    other = session(StreamOptions(recovery=None, turns=True))
    other.restore(saved)
    assert other.pending() == 3
    assert other.duration == pytest.approx(14 * FRAME_S)
    assert other.waiting_s == pytest.approx(3 * FRAME_S)
    assert (other.is_closing, other.has_ended) == (False, False)
    for one in (s, other):
        one.take(3)
        accept(one, [ED, PAD, PAD])
        assert not isinstance(one.pending(), int | None)
    assert [f.tag for f in finalize_all(other)] == ["t"]
    s.close()
    another = session()
    another.restore(s.save(s.num_given))
    assert another.is_closing
    with pytest.raises(StreamClosed):
        another.check_open()


def due_finalize(**values: object) -> dict[str, object]:
    finalize = {"at": 2, "rest": np.zeros(0, np.float32), "time": 1.0,
                "requests": [{"tag": None, "cut": False}]}  # fmt: skip
    return {"finalize": finalize | values, "change": None}


def due_change(*without: str, at: int = 2, **values: object) -> dict[str, object]:
    change = {"at": at, "decoding": DecodingOptions().to_dict() | values}
    due = {"finalize": None, "change": change}
    return {name: value for name, value in due.items() if name not in without}


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_frames": -1},
        {"num_frames": 2**41},
        {"num_loud": -1},
        {"num_loud": 4},
        {"waiting": np.zeros((2, 2), np.float32)},
        {"channel": 1},
        {"config": {}},
        {"emitter": None},
        {"due": [due_finalize(at=99)]},
        {"due": [due_finalize(requests=[])]},
        {"due": [due_finalize(rest=np.zeros((0, 2), np.float32))]},
        {"due": [due_finalize(at=1)]},
        {"due": [due_finalize(at=2**63)]},
        {"due": [{"finalize": None, "change": None}]},
        {"due": [due_finalize() | due_change("finalize")]},
        {"due": [due_change(at=1)]},
        {"due": [due_change(at=3)]},
        {"due": [due_change(temperature=-1.0)]},
        {"due": [due_change(temperature="0")]},
        {"due": [due_change(hotwords=["\u2603"])]},
        {"due": [due_change(num_codebooks=2**40)]},
        {"decoding": {}},
        {"decoding": None},
        {"decoding": DecodingOptions().to_dict() | {"hotwords": [" "]}},
    ],
)  # fmt: skip
def test_a_saved_session_that_cannot_be(wrong: dict[str, object]) -> None:
    s = session()
    said(s, [PAD] * 3)
    saved = s.save(0)
    session().restore({**saved, "due": [due_finalize(), due_change()]})
    with pytest.raises(StreamError):
        session().restore({**saved, **wrong})


def test_a_session_of_another_model_is_refused() -> None:
    s = session(silence_prefix_s=0.5)
    s.begin(PAD, 0.0)
    with pytest.raises(StreamError, match="another model"):
        session().restore(s.save(0))


def test_cutting_drops_what_was_to_be_done() -> None:
    s = session()
    said(s, [PAD] * 3)
    s.finalize(FinalizeRequest())
    assert not isinstance(s.pending(), int | None)
    s.finalize(FinalizeRequest(cut=True))
    s.cut()
    assert s.work is None
    assert s.pending() is None
    assert [type(event) for event in events(s)] == [End]


def test_a_finalize_may_be_ahead_of_the_next_frame() -> None:
    """What the resampler still holds counts as sound, and may reach beyond a frame."""
    ahead = 0
    for extra in range(0, 8 * SIZE, 16):
        s = session(StreamOptions(recovery=None, turns=True))
        s.begin(PAD, 0.0)
        push(s, np.zeros(5 * 8 * SIZE + extra, np.float32), rate=8000)
        (final,) = [
            one
            for one in finalize(s, Slot(), FinalizeRequest())
            if not isinstance(one, StreamWarning)
        ]
        assert isinstance(final, Finalized)
        push(s, np.zeros(3 * 8 * SIZE, np.float32), rate=8000)
        heard = s._writer.emitter.builder.num_tokens - 1
        ahead += final.time > (heard + 1) * FRAME_S
        frames = drained(s)
        accept(s, [PAD] * len(frames))
    assert ahead


def test_no_time_goes_beyond_the_end_of_the_sound() -> None:
    s = session(StreamOptions(recovery=None, turns=True, pauses=True))
    s.begin(PAD, 0.0)
    push(s, np.zeros(10 * SIZE + 20, np.float32))
    s.close()
    n = len(drained(s))
    accept(s, [PAD] * 7 + [0, ONE] + [PAD] * (n - 9), pauses=[[0.0] * 4] * n)
    s.finish()
    found = events(s)
    assert found[-1] == End(s.duration)
    assert isinstance(found[-2], TurnEnd)
    times = [event.time for event in found if isinstance(event, Pause | TurnEnd | TurnStart)]
    assert max(times) == pytest.approx(s.duration)


def test_an_open_word_does_not_begin_behind_the_end_of_the_sound() -> None:
    s = session(StreamOptions(recovery=None, partials=True))
    s.begin(PAD, 0.0)
    push(s, np.zeros(10 * SIZE, np.float32))
    s.close()
    n = len(drained(s))
    accept(s, [PAD] * (n - 3) + [0, ONE, ED])
    s.finish()
    starts = [event.start for event in events(s) if isinstance(event, Partial | Word)]
    assert starts == [s.duration] * 3


def wordless(s: WordSession, seconds: float, tokens: Sequence[int], level: float = -49.0) -> None:
    """A sound of so many seconds at `level`, these tokens at its beginning, and its end."""
    num_frames = round(seconds * CONFIG.frame_rate)
    push(s, np.zeros(num_frames * SIZE, np.float32))
    s.begin(PAD, 0.0)
    assert len(drained(s)) == num_frames
    accept(s, [*tokens, *[PAD] * (num_frames - len(tokens))], level=level)


@pytest.mark.parametrize(
    ("seconds", "level", "tokens", "told"),
    [
        (1.04, -49.0, [], ["no_words"]),
        (0.96, -49.0, [], []),
        (9.6, -51.0, [], []),
        (9.6, -49.0, [ONE], []),
    ],
)
def test_loud_sound_in_which_no_word_was_heard_is_told(
    seconds: float, level: float, tokens: list[int], told: list[str]
) -> None:
    s = session(StreamOptions(recovery=None))
    wordless(s, seconds, tokens, level)
    s.close()
    drained(s)
    s.finish()
    found = events(s)
    warnings = [one for one in found if isinstance(one, StreamWarning) and one.kind != "silent"]
    assert [one.kind for one in warnings] == told
    assert isinstance(found[-1], End)
    assert all(one.time <= seconds for one in warnings)


def test_that_no_word_was_heard_is_told_after_going_on() -> None:
    s, other = session(), session()
    wordless(s, 2.08, [])
    other.restore(s.save(0))
    other.close()
    drained(other)
    other.finish()
    assert "no_words" in [one.kind for one in events(other) if isinstance(one, StreamWarning)]


def test_that_no_word_was_heard_is_not_told_of_a_cut_stream_nor_unasked() -> None:
    s = session()
    wordless(s, 2.08, [])
    s.cut()
    assert [type(one) for one in events(s)] == [End]
    s = session(StreamOptions(recovery=None, signal_checks=False))
    wordless(s, 2.08, [])
    s.close()
    drained(s)
    s.finish()
    assert [type(one) for one in events(s)] == [End]


def test_whether_it_is_told_that_no_word_was_heard_goes_on_as_it_was() -> None:
    for saved, resumed in ((True, False), (False, True)):
        s = session(replace(PLAIN, signal_checks=saved))
        wordless(s, 2.08, [])
        other = session(replace(PLAIN, signal_checks=resumed))
        other.restore(s.save(0))
        other.close()
        drained(other)
        other.finish()
        assert ("no_words" in [getattr(one, "kind", "") for one in events(other)]) is saved
