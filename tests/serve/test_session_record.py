"""What is stored of a session: what is kept, how it is read, and that nothing else is taken."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.options import AudioFormat, DecodingOptions, StreamOptions
from kiku.serve.client_progress import ClientProgress, Overlap
from kiku.serve.message_history import MessageHistory
from kiku.serve.protocols.interface import Base, Send
from kiku.serve.session_record import HEAD, Identity, RecordError, StoredSession, read
from kiku.serve.session_recorder import SessionRecorder
from kiku.serve.session_sound import StoredFormat, first_quiet_after
from kiku.serve.session_store import Claim
from kiku.serve.takeover import ReturningClient, Takeover, plan_takeover
from kiku.stream import End, Event, Pause, WordEnd
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word

RATE, FRAME = 24_000, 1_920
WHO = Identity("demo", "kiku", "me", "one")


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
        self.keeping.note_event(Word(text, end - 0.3, end, 1.0))
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


def test_a_quiet_place_is_found_behind_a_word():
    loud = np.tile(np.linspace(-0.5, 0.5, 100, dtype=np.float32), RATE * 3 // 100)
    loud[round(1.3 * RATE) : 2 * RATE] = 0.001
    assert 1.3 <= first_quiet_after(loud, RATE, 0.0, 1.0) <= 1.45
    assert 1.5 <= first_quiet_after(loud, RATE, 0.0, 1.5) <= 1.6
    assert first_quiet_after(loud, RATE, 0.0, 2.2) == 2.2
    assert 11.3 <= first_quiet_after(loud, RATE, 10.0, 11.0) <= 11.45
    assert first_quiet_after(loud[:100], RATE, 0.0, 5.0) == 5.0


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
