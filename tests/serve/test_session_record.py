"""What is stored of a session: what is kept, how it is read, and that nothing else is taken."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kiku
from kiku.audio import StreamWarning
from kiku.options import AudioFormat, DecodingOptions, StreamOptions
from kiku.serve import session_sound
from kiku.serve.client_progress import ClientProgress, OpenFinalize, Overlap
from kiku.serve.message_history import MessageHistory
from kiku.serve.protocols.interface import Base, Send
from kiku.serve.session_record import HEAD, VERSION, Identity, RecordError, StoredSession, read
from kiku.serve.session_recorder import SessionRecorder
from kiku.serve.session_sound import StoredFormat, first_quiet_after
from kiku.serve.session_store import Claim
from kiku.serve.takeover import ReturningClient, Takeover, plan_takeover
from kiku.stream import End, Event, Finalized, Pause, WordEnd
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word
from tests.serve.clients import samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.own_client import bytes_of

RATE, FRAME = 24_000, 1_920
WHO = Identity("demo", "kiku", "me", "one")


def hot(word: str) -> DecodingOptions:
    return DecodingOptions(hotwords=[word])


class Kept:
    """A talk's part of a store, without talk and store."""

    def __init__(self, options: StreamOptions | None = None, who: Identity = WHO) -> None:
        self.history = MessageHistory()
        self.keeping = SessionRecorder(who, RATE, self.history)
        self.options = options or StreamOptions(format=AudioFormat(encoding="s16le"))
        self.keeping.opened(self.options, False)
        self.values: dict[str, bytes] = {}
        self.now = 0.0

    def push(self, seconds: float, value: int = 0) -> bytes:
        data = np.full(round(seconds * RATE), value, "<i2").tobytes()
        self.keeping.pushed(data)
        return data

    def say(self, text: str, end: float) -> None:
        self.keeping.note_event(Word(text, max(0.0, end - 0.3), end, 1.0))
        self.history.add(Send(f"word {text}"))

    def write(self, heard_s: float = 0.0, state: bytes | None = None) -> dict[str, bytes]:
        self.now += 1.0
        snapshot = self.keeping.snapshot(Base(), self.now, heard_s, 60.0, state)
        if snapshot is not None:
            for name in snapshot.drop:
                self.values.pop(name, None)
            self.values |= snapshot.values()
            self.keeping.committed(7)
        return self.values

    def read(self, who: Identity = WHO) -> StoredSession:
        return read(self.values, who, RATE)

    def move(self, received: int, told_s: float | None = None) -> Takeover | None:
        return plan_takeover(
            Claim(8, self.values), self.read(), ReturningClient(received, told_s), RATE, FRAME
        )


def test_a_second_is_written_at_a_time_and_what_is_told_is_dropped():
    kept = Kept()
    for i in range(30):
        kept.push(1.0, i)
        if i % 2:
            kept.say(str(i), i + 0.5)
        kept.write(heard_s=float(i))
    stored = kept.read()
    assert [piece.start_s for piece in stored.pieces] == [28.0, 29.0]
    assert stored.end_s == 30.0
    assert stored.head.from_s == 29.5
    assert stored.head.num_bytes == 30 * RATE * 2
    assert stored.head.count == 15
    assert list(stored.messages) == [f"word {i}" for i in range(1, 30, 2)]
    assert stored.options.to_dict() == kept.options.to_dict()
    assert len(kept.values) < 25


def test_of_silence_the_last_ten_seconds_are_kept():
    kept = Kept()
    for i in range(60):
        kept.push(1.0)
        kept.write(heard_s=i + 1.0)
    stored = kept.read()
    assert stored.end_s - stored.pieces[0].start_s <= 12
    assert stored.head.from_s == 50.0


@pytest.mark.parametrize("size", [0.08, 1.0, 200.0])
def test_of_sound_that_waits_so_much_is_kept_that_the_rest_can_be_sent_again(size: float):
    kept = Kept()
    for _ in range(round(200 / size)):
        kept.push(size)
    kept.write(heard_s=0.0)
    stored = kept.read()
    assert 29.9 < stored.end_s <= 31
    assert stored.head.num_bytes == round(stored.end_s * RATE) * 2
    # It goes on with it as it is heard; where too much waited, there is a hole.
    for heard in range(10, 201, 10):
        kept.write(heard_s=float(heard))
        one = kept.move(0)
        assert one is None or one.start_s <= max(0.0, heard - 9.0)
    kept.push(1.0, 5)
    kept.write(heard_s=200.5)
    one = kept.move(0)
    assert one is not None
    assert one.start_s == pytest.approx(189.5 if size < 200 else one.start_s, abs=1.1)


def test_a_store_that_was_down_is_written_to_as_if_new():
    kept = Kept()
    for i in range(5):
        kept.push(1.0)
        kept.say(str(i), i + 0.5)
        if i == 2:
            snapshot = kept.keeping.snapshot(Base(), 50.0, 0.0, 60.0)
            assert snapshot is not None
            kept.keeping.invalidate(snapshot.drop)
        else:
            kept.write()
    stored = kept.read()
    assert [piece.start_s for piece in stored.pieces] == [3.0, 4.0]
    assert len(stored.messages) == 5
    kept.keeping.restart()
    kept.values = {}
    kept.push(1.0)
    kept.write()
    assert len(kept.read().messages) == 5
    one = kept.move(5)
    assert one is not None
    assert one.parts == []  # that sound is gone: the client sends it again
    assert one.start_s <= 4.5


def test_nothing_is_written_where_nothing_has_changed():
    kept = Kept()
    kept.push(1.0)
    kept.write()
    kept.now -= 1.0
    assert kept.keeping.snapshot(Base(), kept.now, 0.0, 60.0) is None
    assert kept.keeping.snapshot(Base(), kept.now + 10, 0.0, 60.0) is not None
    kept.keeping.opened(kept.options, True)  # a recording's bytes cannot be cut
    assert kept.keeping.snapshot(Base(), kept.now + 20, 0.0, 60.0) is None


def test_text_is_picked_as_it_was():
    kept = Kept()
    kept.push(1.0)
    kept.keeping.decoding(DecodingOptions(hotwords=["seven"]))
    kept.write()
    assert kept.read().options.decoding.phrases[0].text == "seven"


def test_a_change_of_decoding_has_its_place_as_far_as_the_sound_reaches_back():
    def words(options: DecodingOptions) -> list[str]:
        return [one.text for one in options.phrases]

    kept = Kept(StreamOptions(format=AudioFormat(encoding="s16le"), decoding=hot("a")))
    for i, mark in enumerate("bcde"):
        kept.push(1.0, 1)
        kept.keeping.decoding(hot(mark))
        if i == 2:
            kept.say("x", 2.5)
    kept.write()
    one = kept.move(1)
    assert one is not None
    assert 2 < one.start_s < 3
    assert words(one.options.decoding) == ["c"]
    assert [(time, words(options)) for time, options in one.changes] == [(3.0, ["d"]), (4.0, ["e"])]
    assert words(one.session_options.decoding) == ["e"]
    assert replace(one, state=b"state").changes == []  # the saved stream knows them
    kept.keeping, kept.values = SessionRecorder(WHO, RATE, one.history), {}
    kept.keeping.resumed(
        one.claim, one.progress, one.session_options, one.stored.decoding, one.start_s, 0
    )
    kept.push(1.0)
    kept.write(heard_s=4.0)
    assert [one.until_s for one in kept.read().head.earlier] == [1.0, 2.0, 3.0, 4.0]
    for _ in range(30):
        kept.push(1.0)
        kept.write(heard_s=32.0)
    assert kept.read().head.earlier == []
    assert words(kept.read().options.decoding) == ["e"]
    kept.keeping.decoding(hot("f"))
    kept.keeping.opened(kept.options, False)
    kept.push(1.0)
    kept.write()
    assert kept.read().head.earlier == []


def test_messages_are_counted_on():
    kept = Kept()
    kept.push(3.0)
    for i in range(4):
        kept.say(str(i), 0.5 + i / 2)
    kept.write()
    one = kept.move(2)
    assert one is not None
    assert [send.data for send in one.history.after(2)] == ["word 2", "word 3"]
    ahead = kept.move(6)
    assert ahead is not None
    assert ahead.history.count == 4  # the next two are not sent
    knows = kept.move(6, 2.5)
    assert knows is not None
    assert (knows.history.count, knows.progress.words) == (6, {"": 2.5})
    assert kept.move(4 + 20_001) is None
    kept.values.pop(kept.read().head.messages[0])
    with pytest.raises(RecordError, match="missing"):
        kept.read()


@pytest.mark.parametrize("field", ["model", "protocol", "owner", "session"])
def test_a_session_of_something_else_is_refused(field: str):
    kept = Kept()
    kept.push(1.0)
    kept.write()
    with pytest.raises(RecordError, match=f"another {field}"):
        kept.read(msgspec.structs.replace(WHO, **{field: "other"}))


SAVED = Kept()
SAVED.push(2.0, 3)
SAVED.say("a", 0.5)
SAVED.write()
SAVED.keeping.decoding(hot("a"))
SAVED.push(1.0, 4)
SAVED.say("b", 1.5)
SAVED.write(state=b"state")


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_whatever_is_stored_is_read_or_refused(data: Any):
    values = dict(SAVED.values)
    name = data.draw(st.sampled_from(sorted(values)))
    raw = values[name]
    kind = data.draw(st.sampled_from(["cut", "flip", "random", "gone", "tree"]))
    if kind == "cut":
        values[name] = raw[: data.draw(st.integers(0, len(raw)))]
    elif kind == "flip":
        at = data.draw(st.integers(0, len(raw) - 1))
        values[name] = raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :]
    elif kind == "random":
        values[name] = data.draw(st.binary(max_size=100))
    elif kind == "gone":
        del values[name]
    else:
        head: Any = msgspec.msgpack.decode(values[HEAD])
        key = data.draw(st.sampled_from(sorted(head)))
        odd = [-1, 2**63, 1e300, float("nan"), float("inf"), "", None, [], {}, {"x": [[]]}, True]
        head[key] = data.draw(st.sampled_from(odd))
        values[HEAD] = msgspec.msgpack.encode(head)
    try:
        stored = read(values, WHO, RATE)
    except RecordError:
        return
    one = plan_takeover(
        Claim(1, values), stored, ReturningClient(data.draw(st.integers(0, 5))), RATE, FRAME
    )
    assert one is None or (one.start_s >= 0 and one.num_bytes >= 0)


# Sound.


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=12),
    encoding=st.sampled_from(["s16le", "f32le", "mulaw"]),
    told=st.floats(0, 2),
)
def test_what_is_gone_on_with_is_the_sound_as_it_was(sizes: list[int], encoding: Any, told: float):
    kept = Kept(StreamOptions(format=AudioFormat(encoding=encoding)))
    whole = np.random.default_rng(1).bytes(sum(sizes))
    if encoding == "f32le":
        whole = np.zeros(len(whole) // 4 + 1, "<f4").tobytes()[: len(whole)]
    at = 0
    for size in sizes:
        kept.keeping.pushed(whole[at : at + size])
        at += size
    kept.say("x", told)
    kept.write()
    one = kept.move(1)
    sound = StoredFormat(kept.options.format, RATE)
    if one is None or not one.parts:
        return
    assert b"".join(data for _, data in one.parts) == whole[one.num_before :]
    assert one.num_before % sound.width == 0
    assert one.start_s == pytest.approx(one.num_before / sound.width / sound.rate)
    assert one.num_bytes == len(whole)


@pytest.mark.parametrize("window_s", [0.5, 1.0, 3.0])
def test_where_no_place_is_quiet_as_much_is_kept_as_is_heard_again(
    monkeypatch: pytest.MonkeyPatch, window_s: float
):
    monkeypatch.setattr(session_sound, "LEVEL_WINDOW_S", window_s)
    for is_written_late in (False, True):
        kept = Kept()
        for i in range(40):
            kept.push(0.5, 9_000)
            if i == 30:
                kept.say("x", 14.6)
            if not is_written_late:
                kept.write(heard_s=15.0)
        kept.write(heard_s=20.0)
        one = kept.move(1)
        assert one is not None
        assert one.start_s == pytest.approx(14.6 - window_s, abs=FRAME / RATE)
        assert one.start_s + sum(len(data) for _, data in one.parts) / RATE / 2 == 20.0
        # Nor is much more kept.
        assert kept.read().pieces[0].start_s >= 14.0 - window_s


def test_a_quiet_place_is_found_behind_a_word():
    loud = np.tile(np.linspace(-0.5, 0.5, 100, dtype=np.float32), RATE * 3 // 100)
    loud[round(1.3 * RATE) : 2 * RATE] = 0.001
    for time, first_s, earliest, latest in (
        (1.0, 0.0, 1.3, 1.45), (1.5, 0.0, 1.5, 1.6), (11.0, 10.0, 11.3, 11.45),
    ):  # fmt: skip
        found = first_quiet_after(loud, RATE, first_s, time)
        assert found is not None
        assert earliest <= found <= latest
    assert first_quiet_after(loud, RATE, 0.0, 2.2) is None
    assert first_quiet_after(loud[: round(1.35 * RATE)], RATE, 0.0, 1.0) is None
    assert first_quiet_after(loud[:100], RATE, 0.0, 5.0) is None


@pytest.mark.parametrize("behind_s", [0.02, 0.1, 0.16, 0.24, 0.32])
def test_the_rest_of_a_told_word_is_no_word_where_the_stored_sound_ends_behind_it(
    demo: kiku.Recognizer, behind_s: float
):
    rate = demo.config.sample_rate
    format = AudioFormat(encoding="s16le", sample_rate=rate)
    data = bytes_of(samples_of(EXAMPLES / "answers.mp3"))
    wanted = decoded(demo, format, data, 0.0)
    for i in range(2, len(wanted) - 1):
        kept, told_s = Kept(StreamOptions(format=format)), wanted[i].end
        num_stored = 2 * round((told_s + behind_s) * rate)
        kept.keeping.pushed(data[:num_stored])
        for word in wanted[: i + 1]:
            kept.keeping.note_event(word)
        kept.write(heard_s=told_s)
        one = kept.move(0)
        assert one is not None
        assert one.overlap is not None
        assert one.num_bytes == num_stored
        again = decoded(demo, format, data[one.num_before :], one.start_s)
        told = [event.text for event in one.overlap.of(again, 0.0) if isinstance(event, Word)]
        assert told == [word.text for word in wanted[i + 1 :]], (i, wanted[i], one.start_s)


def decoded(demo: kiku.Recognizer, format: AudioFormat, data: bytes, start_s: float) -> list[Word]:
    """What a stream hears in sound that begins at `start_s`."""
    options = StreamOptions(format=format, start_s=start_s, max_queue_s=3600.0)
    with demo.stream(options) as stream:
        if start_s:
            stream.push_silence(start_s)
        stream.push(data)
        stream.close()
        return [event for event in stream.events() if isinstance(event, Word)]


# What the client knows.


def told_of(*events: Event) -> ClientProgress:
    told = ClientProgress()
    for event in events:
        told.add(event)
    return told


def test_what_was_told_is_left_out():
    told = told_of(Word("one", 1.0, 1.4, 1.0), Pause(1.6, (0.5,)))
    overlap = Overlap(told, 4.0)
    tail, new = Word("on", 1.3, 1.42, 1.0), Word("two", 1.38, 1.9, 1.0)
    events = [Partial("o", 1.2), tail, WordEnd(1.42), Pause(1.6, (0.1,)), Pause(1.68, (0.1,)),
              Partial("tw", 1.5), new, WordEnd(1.9), End(3.0)]  # fmt: skip
    assert overlap.of(events, 2.0) == events[4:]


def test_a_finalize_is_open_until_it_is_answered():
    told = ClientProgress(finalizes=[OpenFinalize(tag, True) for tag in ("x", "y", "x")])
    told.add(Finalized(1.0, None, "x"))
    assert [one.tag for one in told.finalizes] == ["y", "x"]
    told.add(Finalized(1.0, None, "z"))
    told.add(Finalized(1.0, None, "x"))
    assert [one.tag for one in told.finalizes] == ["y"]


def test_a_finalize_of_channels_is_open_until_each_has_answered():
    kept = Kept(StreamOptions(format=AudioFormat(encoding="s16le", channels=2), channel="each"))
    kept.push(4.0)
    kept.keeping.asked("x", True)
    kept.keeping.asked("x", False)
    for channel in (0, 0, 1):
        kept.keeping.note_event(Finalized(2.0, None, "x", channel))
    kept.write()
    one = kept.move(0)
    assert one is not None
    assert one.finalizes == [OpenFinalize("x", False, 2.0, (0,))]
    overlap = one.overlap
    assert overlap is not None
    assert overlap.rest.finalizes == [OpenFinalize("x", True, answered=(0,))]
    answers = [Finalized(2.0, None, "x", channel) for channel in (0, 1, 0)]
    assert overlap.of(answers, 2.0) == answers[1:]
    assert overlap.rest.finalizes == []
    kept.keeping.note_event(answers[1])
    assert kept.keeping.progress.finalizes == []


def test_every_channel_is_told_by_itself():
    told = told_of(Word("a", 0.0, 5.0, 1.0, 0), Word("b", 0.0, 2.0, 1.0, 1))
    assert told.until_s(2) == 2.0
    assert told.until_s(3) == 0.0
    again, new = Word("a", 4.0, 5.0, 1.0, 0), Word("c", 4.0, 5.0, 1.0, 1)
    assert Overlap(told, 4.0).of([again, new], 5.0) == [new]


def test_a_turn_that_is_open_is_not_begun_again_and_ends():
    start = TurnStart(2.0)
    assert Overlap(told_of(TurnStart(1.0)), 4.0).of([start], 2.0) == []
    assert Overlap(told_of(TurnStart(1.0), TurnEnd(1.5, 1.0)), 4.0).of([start], 2.0) == [start]
    eager = told_of(TurnStart(1.0), TurnEndEager(1.5, 0.7))
    assert Overlap(eager, 4.0).of([start], 2.0) == [TurnResumed(2.0)]
    silent = Overlap(told_of(TurnStart(1.0), Word("a", 1.0, 1.5, 1.0)), 4.0)
    assert silent.of([], 5.4) == []
    assert silent.of([], 5.6) == [TurnEnd(5.6, 1.0)]
    assert silent.of([], 9.9) == []
    ends = Overlap(told_of(TurnStart(1.0)), 4.0)
    assert ends.of([End(3.0)], 3.0) == [TurnEnd(3.0, 1.0), End(3.0)]


@pytest.mark.parametrize("shift_s", [-0.08, 0.0, 0.08])
@pytest.mark.parametrize("is_written", [True, False])
def test_a_word_that_is_heard_again_a_frame_earlier_or_later_is_known(
    shift_s: float, is_written: bool
):
    for i in range(10, 100):
        # A frame later its middle is where it ended, but for a rounding.
        on = Word("on", i / 12.5 - 0.5, (i + 2) / 12.5 - 0.5, 1.0)
        told = told_of(on) if is_written else ClientProgress({"": round(on.end, 3)})
        again = Word("on", on.start + shift_s, on.end + shift_s, 1.0)
        new = Word("in", on.end, on.end + 0.08, 1.0)
        assert Overlap(told, 4.0).of([again, new], 9.9) == [new]


def test_a_word_of_the_record_is_known_by_its_text_or_its_place():
    told = told_of(Word("seven", 1.0, 1.1, 1.0))
    for again in (Word("seven", 1.3, 1.7, 1.0), Word("eleven", 1.1, 1.6, 1.0)):
        assert Overlap(told, 4.0).of([again, WordEnd(again.end)], 2.0) == []
    for new in (Word("seven", 1.5, 1.7, 1.0), Word("eleven", 1.2, 1.7, 1.0)):
        assert Overlap(told, 4.0).of([new, WordEnd(new.end)], 2.0) == [new, WordEnd(new.end)]


def test_the_same_word_once_more_is_another_one():
    told = told_of(Word("go", 1.0, 1.16, 1.0))
    once_more = Word("go", 1.3, 1.46, 1.0)
    for heard in ([Word("go", 1.0, 1.16, 1.0), once_more], [once_more]):
        starts_s = heard[0].start - 0.04  # before it, or behind it
        assert Overlap(told, 4.0, starts_s).of(heard, 2.0) == [once_more]


def test_of_what_was_told_the_last_words_are_kept():
    told = told_of(*(Word(str(i), i, i + 0.5, 1.0, i % 2) for i in range(100)))
    assert [text for text, _, _ in told.recent["1"]] == [str(i) for i in range(37, 100, 2)]
    copy = told.copy()
    told.add(Word("100", 100.0, 100.5, 1.0, 1))
    assert copy.recent["1"][-1] == ("99", 99, 99.5)


def test_a_saved_stream_that_had_not_come_to_all_that_was_told_leaves_out_the_rest():
    told = told_of(TurnStart(0.5), Word("a", 0.6, 1.0, 1.0), Word("b", 1.5, 1.9, 1.0))
    kept = Kept()
    kept.push(3.0)
    kept.keeping.overlap = overlap = Overlap(told, 4.0)
    assert overlap.of([Word("a", 0.6, 1.0, 1.0), WordEnd(1.0)], 1.2) == []
    kept.write(state=b"state")
    one = kept.move(0)
    assert one is not None
    rest = one.overlap
    assert rest is not None
    assert rest.rest.recent == {"": [("b", 1.5, 1.9)]}
    new = Word("c", 2.1, 2.5, 1.0)
    assert rest.of([TurnStart(0.5), Word("b", 1.5, 1.9, 1.0), TurnEnd(2.0, 1.0), new], 2.6) == [
        TurnEnd(2.0, 1.0), new,
    ]  # fmt: skip
    assert rest.rest.recent == {"": []}
    assert rest.rest.turns == {}
    kept.keeping.opened(kept.options, False)  # another stream, which tells nothing again
    kept.push(1.0)
    kept.write(state=b"state")
    one = kept.move(0)
    assert one is not None
    assert one.overlap is None


def confirmed(*events: Event, until_s: float) -> ClientProgress:
    told = told_of(*events)
    told.confirm(until_s, knows_events=True)
    return told


@pytest.mark.parametrize("shift_s", [-0.08, 0.0, 0.08])
@pytest.mark.parametrize("is_eager", [False, True])
def test_a_turn_that_begins_behind_the_last_word_that_the_client_has_had_may_have_been_lost(
    shift_s: float, is_eager: bool
):
    known = [TurnStart(0.2), TurnEndEager(0.4, 0.6)] if is_eager else []
    one, two = Word("a", 0.6, 1.0, 1.0), Word("b", 1.1, 1.5, 1.0)
    heard = [
        replace(word, start=word.start + shift_s, end=word.end + shift_s) for word in (one, two)
    ]
    start = TurnStart(heard[0].start)
    begun: Event = TurnResumed(start.time) if is_eager else start
    noted: list[Event] = []
    for until_s, told in ((one.end, [begun]), (two.end, [])):
        overlap = Overlap(confirmed(*known, until_s=until_s), 4.0)
        assert overlap.of([heard[0], WordEnd(heard[0].end), start], 1.1, noted.append) == told
    assert noted == [begun]
    # It is no question if it begins before its word is told.
    assert Overlap(confirmed(*known, until_s=one.end), 4.0).of([start, heard[0]], 1.1) == []


def test_a_turn_that_begins_before_its_first_word_may_have_been_lost_if_that_was_not_had():
    one, two = Word("a", 0.6, 1.0, 1.0), Word("b", 3.1, 3.5, 1.0)
    heard = [one, WordEnd(one.end), TurnEnd(2.0, 1.0), TurnStart(3.1), two]
    for until_s, told in ((one.end, heard[2:]), (two.end, [])):
        assert Overlap(confirmed(until_s=until_s), 4.0).of(heard, 3.5) == told


def test_a_stream_that_is_to_hear_a_word_again_begins_where_the_one_before_did():
    kept = Kept()
    kept.push(4.0, 9_000)
    kept.say("a", 2.5)
    kept.keeping.progress.again_from_s = 2.0
    kept.write()
    one = kept.move(1)
    assert one is not None
    assert (one.start_s, one.progress.again_from_s) == (2.0, 2.0)
    kept.push(11.0, 9_000)
    kept.write(heard_s=14.0)  # no word came for too long: it begins later
    later_on = kept.move(1)
    assert later_on is not None
    assert later_on.progress.again_from_s == later_on.start_s > 2.0
    for later in (Word("b", 2.6, 3.0, 1.0), TurnEnd(2.9, 1.0)):
        progress = one.progress.copy()
        progress.add(later)
        assert progress.again_from_s is None


def test_events_before_a_word_that_the_client_has_had_are_left_out():
    told = confirmed(TurnStart(0.5), Word("a", 0.5, 0.9, 1.0), until_s=3.0)
    before = [
        Pause(1.0, (0.1,)), TurnEndEager(1.1, 0.6), TurnResumed(1.2), TurnEnd(1.4, 1.0),
        StreamWarning("clipped", "x", 1.5), TurnStart(2.5), Word("b", 2.5, 3.0, 1.0),
        WordEnd(3.0), Pause(2.96, (0.1,)),
    ]  # fmt: skip
    after = [
        Pause(3.04, (0.1,)), TurnEnd(3.1, 1.0), TurnStart(3.5), Word("c", 3.5, 3.9, 1.0),
        WordEnd(3.9), StreamWarning("clipped", "x", 4.0), End(5.0),
    ]  # fmt: skip
    assert Overlap(told, 4.0).of([*before, *after], 3.0) == after
    assert Overlap(told_of(), 4.0).of([*before, *after], 3.0) == [*before, *after]


def test_a_finalize_before_a_word_that_the_client_has_had_was_answered():
    told = ClientProgress(finalizes=[OpenFinalize("x", True, time) for time in (2.0, 3.0, 4.0)])
    told.finalizes.append(OpenFinalize("old", True))  # of a record that does not say when
    told.confirm(3.0, knows_events=False)
    assert [one.time for one in told.finalizes] == [3.0, 4.0, float("inf")]
    assert told.confirmed_s == 0.0


@pytest.mark.parametrize("told_s", [3_603.5, 9e8, float("inf")])
def test_no_word_ends_an_hour_after_all_that_is_stored(told_s: float):
    kept = Kept()
    kept.push(3.0)
    kept.say("a", 1.0)
    kept.write()
    assert kept.move(3, told_s) is None  # silence up to there would be pushed
    assert kept.move(3, 3_600.0) is not None


@pytest.mark.parametrize("knows_events", [True, False])
def test_the_end_of_the_last_word_that_the_client_has_had_is_told_again(knows_events: bool):
    kept = Kept()
    kept.push(3.0)
    kept.say("a", 1.0)
    kept.write()
    for count, told_s, ends in ((3, 2.0, [2.0]), (3, 1.0, []), (1, 1.0, []), (3, None, [])):
        one = plan_takeover(
            Claim(8, kept.values), kept.read(), ReturningClient(count, told_s, knows_events),
            RATE, FRAME,
        )  # fmt: skip
        assert one is not None
        overlap = one.overlap
        assert overlap is not None
        wanted = [WordEnd(end_s) for end_s in ends if knows_events]
        assert overlap.of([], 0.0) == wanted
        assert overlap.of([Word("b", 1.6, 2.0, 1.0), WordEnd(2.0)], 2.0) == (
            [] if told_s == 2.0 else [Word("b", 1.6, 2.0, 1.0), WordEnd(2.0)]
        )


def taken_over(kept: Kept, received: int, told_s: float) -> Overlap:
    """What leaves events out after a process that wrote last what `kept` has was killed."""
    client = ReturningClient(received, told_s, knows_events=True)
    one = plan_takeover(Claim(8, kept.values), kept.read(), client, RATE, FRAME)
    assert one is not None
    kept.keeping = SessionRecorder(WHO, RATE, one.history)
    kept.keeping.resumed(
        Claim(8, kept.values), one.progress, one.options, one.stored.decoding, one.start_s,
        one.num_before,
    )  # fmt: skip
    for _, data in one.parts:
        kept.keeping.pushed(data)
    kept.keeping.overlap = overlap = one.overlap
    assert overlap is not None
    return overlap


def test_a_turn_that_the_client_knows_of_is_known_after_a_second_kill():
    kept, turn = Kept(), [TurnStart(1.0), Word("one", 1.0, 1.5, 1.0), WordEnd(1.5)]
    kept.push(2.0)
    kept.write(heard_s=0.5)  # the client is told all of the turn, and the process is killed
    told = taken_over(kept, 3, 1.5).of(turn, 2.0, kept.keeping.note_event)
    assert told == [WordEnd(1.5)]
    for event in told:
        kept.keeping.note_event(event)
    kept.push(1.0)
    kept.write(heard_s=2.5)  # and so is the second
    more = [TurnStart(3.0), Word("two", 3.0, 3.4, 1.0)]
    assert taken_over(kept, 4, 1.5).of(more, 4.0) == more[1:]
    assert taken_over(kept, 4, 1.5).of([], 60.0) == [TurnEnd(60.0, 1.0)]


@pytest.mark.parametrize("state", [None, b"state"])
def test_the_end_of_a_word_is_owed_by_who_comes_after_who_told_nothing(state: bytes | None):
    kept, word = Kept(), [Word("one", 1.0, 1.5, 1.0), WordEnd(1.5)]
    kept.push(2.0)
    kept.write(heard_s=0.5)
    taken_over(kept, 1, 1.5)  # the second process ends before it has heard anything
    kept.write(heard_s=0.0, state=state)
    assert taken_over(kept, 1, 1.5).of(word, 2.0) == [WordEnd(1.5)]
    kept.keeping.note_event(WordEnd(1.5))
    kept.push(1.0)
    kept.write(heard_s=2.0)
    assert taken_over(kept, 2, 1.5).of(word, 2.0) == []


def test_generations_of_before_stay_known_where_the_store_forgets():
    kept = Kept()
    kept.push(1.0)
    kept.write()
    kept.keeping.restart()
    assert kept.keeping.generation is None
    assert kept.keeping.newest_generation == 7
    kept.keeping.committed(5)
    assert kept.keeping.newest_generation == 7


def test_records_of_earlier_versions_are_read():
    kept = Kept()
    kept.push(3.0)
    kept.say("a", 1.0)
    kept.write()
    head: Any = msgspec.msgpack.decode(kept.values[HEAD])
    head["version"] = 1
    for name in ("recent", "confirmed_s", "open_end_s", "again_from_s"):
        del head["told"][name]
    del head["known"], head["earlier"]
    head["told"]["finalizes"] = [["x", True]]
    kept.values[HEAD] = msgspec.msgpack.encode(head)
    one = kept.move(1)
    assert one is not None
    assert one.progress.words == {"": 1.0}
    assert one.finalizes == [OpenFinalize("x", True)]
    head["version"] = VERSION + 1
    kept.values[HEAD] = msgspec.msgpack.encode(head)
    with pytest.raises(RecordError, match="another version"):
        kept.read()
