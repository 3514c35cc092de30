"""Kyutai's protocol without a socket: every way to write sound, every mistake, every answer."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import kiku
from kiku.errors import AudioError, NoFreeSlot
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    ClientRequest,
    Close,
    FinalizeStream,
    Hangup,
    ModelCard,
    Open,
    Push,
    Refusal,
    Send,
    ServerEnds,
)
from kiku.serve.protocols.kyutai import MAX_LIST_BYTES, KyutaiProtocol, floats_of, samples_of
from kiku.stream import Finalized, Pause, WordEnd
from kiku.text import Word
from tests.serve.clients import samples_of as sound_of
from tests.serve.conftest import EXAMPLES
from tests.serve.kyutai_types import checked

CARD = ModelCard("m", num_pause_heads=4)

ODD = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-40, 3.4028235e38, math.inf, -math.inf, math.nan, 1 / 3)


def protocol() -> KyutaiProtocol:
    return KyutaiProtocol(ClientRequest("/api/asr-streaming"), CARD)


def pack(value: Any, *, single: bool = False) -> bytes:
    """As Kyutai's clients write it."""
    data: Any = msgpack.packb(value, use_single_float=single)
    return data


def packed(**message: Any) -> bytes:
    return pack(message, single=True)


def pushed(actions: Actions) -> np.ndarray:
    """The sound of the only action; of no samples nothing is made."""
    if not actions:
        return np.zeros(0, np.float32)
    (action,) = actions
    assert isinstance(action, Push)
    assert isinstance(action.samples, np.ndarray)
    assert action.samples.dtype == np.float32
    return action.samples


def same(found: np.ndarray, wanted: Sequence[float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(wanted, np.float64).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


def told_to_leave(actions: Actions) -> str:
    """Why, where a message is refused: an Error, and then the end."""
    told, end = actions
    assert isinstance(told, Send)
    assert isinstance(told.data, bytes)
    message = checked(told.data)
    assert message["type"] == "Error"
    assert isinstance(end, Hangup)
    assert end.code >= 1000
    return message["message"]


FLOAT32 = st.floats(width=32) | st.sampled_from(ODD[:-1])
NUMBER = st.floats() | st.integers(-(2**63), 2**64 - 1) | st.sampled_from(ODD)


class TestSound:
    @given(st.lists(FLOAT32, max_size=40))
    @example(list(ODD[:-1]))
    @example([0.5] * 15)
    @example([0.5] * 16)
    def test_both_ways_to_read_float32_give_the_same(self, values: list[float]):
        message = packed(type="Audio", pcm=values)
        fast = floats_of(message)
        assert fast is not None
        slow = samples_of(msgpack.unpackb(message)["pcm"])
        same(fast, slow.tolist())
        same(pushed(protocol().received(message)), values)

    @given(st.lists(st.floats() | st.sampled_from(ODD), max_size=40))
    @example(list(ODD))
    def test_both_ways_to_read_float64_give_the_same(self, values: list[float]):
        message = pack({"type": "Audio", "pcm": [float(one) for one in values]})
        fast = floats_of(message)
        assert fast is not None
        same(fast, samples_of(values).tolist())

    def test_a_nan_that_signals_is_a_nan(self):
        head = packed(type="Audio", pcm=[])[:-1]
        [found] = pushed(protocol().received(head + b"\x91\xcb" + (0x7FF4 << 48).to_bytes(8)))
        assert math.isnan(found)

    @given(st.lists(NUMBER, max_size=40))
    def test_other_numbers_are_read_too(self, values: list[float]):
        same(pushed(protocol().received(pack({"type": "Audio", "pcm": values}))), values)

    @given(st.lists(NUMBER, min_size=1, max_size=20), st.data())
    def test_kinds_may_be_mixed(self, values: list[float], data: st.DataObject):
        parts: list[bytes] = []
        for value in values:
            single = isinstance(value, float) and data.draw(st.booleans()) and _fits(value)
            parts.append(pack(value, single=single))
        head = pack({"type": "Audio", "pcm": []})[:-1]
        array = b"\xdc" + struct.pack(">H", len(parts))
        same(pushed(protocol().received(head + array + b"".join(parts))), values)

    @pytest.mark.parametrize("kind", ["fix", "16", "32"])
    @pytest.mark.parametrize("double", [False, True])
    def test_every_way_to_say_how_many(self, kind: str, double: bool):
        values = [0.25, -0.5, 1.0]
        start = {"fix": b"\x93", "16": b"\xdc\0\3", "32": b"\xdd\0\0\0\3"}[kind]
        head = packed(type="Audio", pcm=[])[:-1]
        numbers = b"".join(
            struct.pack(">Bd", 0xCB, one) if double else struct.pack(">Bf", 0xCA, one)
            for one in values
        )
        assert floats_of(head + start + numbers) is not None
        same(pushed(protocol().received(head + start + numbers)), values)

    def test_the_order_of_the_fields_does_not_matter(self):
        same(pushed(protocol().received(packed(pcm=[0.5], type="Audio"))), [0.5])

    def test_fields_that_nobody_knows_do_not_matter(self):
        same(pushed(protocol().received(packed(type="Audio", pcm=[0.5], more=1))), [0.5])

    @given(st.lists(FLOAT32, min_size=1, max_size=30), st.data())
    def test_a_message_that_is_cut_is_refused(self, values: list[float], data: st.DataObject):
        message = packed(type="Audio", pcm=values)
        length = data.draw(st.integers(0, len(message) - 1))
        assert "cannot be understood" in told_to_leave(protocol().received(message[:length]))

    @given(st.lists(FLOAT32, max_size=30), st.binary(min_size=1, max_size=20))
    def test_bytes_behind_a_message_are_refused(self, values: list[float], more: bytes):
        message = packed(type="Audio", pcm=values) + more
        assert floats_of(message) is None
        assert "cannot be understood" in told_to_leave(protocol().received(message))

    def test_a_length_that_lies_is_refused_at_once(self):
        head = packed(type="Audio", pcm=[])[:-1]
        for array in (b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\x9f"):
            told_to_leave(protocol().received(head + array))
            told_to_leave(protocol().received(head + array + b"\xca\0\0\0\0" * 3))


def _fits(value: float) -> bool:
    """Whether float32 holds it."""
    with np.errstate(over="ignore"):
        return not math.isfinite(value) or math.isfinite(float(np.float32(value)))


class TestMistakes:
    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes):
        self._answered(protocol(), data)

    ANY = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
        | st.text(max_size=5) | st.binary(max_size=5),
        lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=5), one,
                                                                 max_size=4),
        max_leaves=8,
    )  # fmt: skip
    MAP = st.dictionaries(
        st.sampled_from(["type", "pcm", "data", "id", "x"]),
        ANY | st.sampled_from(["Audio", "OggOpus", "Marker", "Init", "Ready", "Word"]),
    )

    @given(st.lists(MAP | ANY, max_size=8))
    def test_random_messages_in_random_order(self, messages: list[Any]):
        one = protocol()
        for message in messages:
            if self._answered(one, pack(message)):
                return

    def _answered(self, one: KyutaiProtocol, data: bytes) -> bool:
        """Whether the message was refused; if not, something is done with it."""
        actions = one.received(data)
        assert actions
        if any(isinstance(action, Hangup | Send) for action in actions):
            assert len(told_to_leave(actions)) > 10
            return True
        assert all(isinstance(action, Push | Open | FinalizeStream) for action in actions)
        return False

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ({"type": "Audoi", "pcm": []}, "Audoi"),
            ({"type": "Audio"}, "pcm"),
            ({"type": "Audio", "pcm": "loud"}, "pcm"),
            ({"type": "Audio", "pcm": [0.5, None]}, "pcm"),
            ({"type": "Marker"}, "id"),
            ({"type": "Marker", "id": 1.5}, "id"),
            ({"pcm": []}, "type"),
            ({"type": "OggOpus", "data": [256]}, "255"),
            ({"type": "OggOpus", "data": [-1]}, "255"),
            ([], "object"),
            (None, "None"),
        ],
    )
    def test_the_error_says_what_is_wrong(self, message: Any, said: str):
        assert said in told_to_leave(protocol().received(pack(message)))

    @pytest.mark.parametrize(
        "message",
        [b"\x82\xa4type\xa5Audi\xff\xa3pcm\x90", b"\x82\xa4type\xa6Marker\xa2i\xff\x01",
         b"\x82\xa4typ\xff\xa5Audio\xa3pcm\x90", b"\x81\xa4type\xa4\xff\xfe\xfd\xfc"],
    )  # fmt: skip
    def test_text_that_is_no_utf_8_is_refused_like_any_other(self, message: bytes):
        assert "send a msgpack map" in told_to_leave(protocol().received(message))

    def test_what_a_client_writes_is_not_told_again_at_length(self):
        assert len(told_to_leave(protocol().received(packed(type="x" * 10**6)))) < 1_000
        with pytest.raises(Refusal, match="256 characters, not 257"):
            KyutaiProtocol(ClientRequest("/api/asr-streaming", (("session", "x" * 257),)), CARD)

    def test_two_kinds_of_sound_do_not_mix_before_init(self):
        one = protocol()
        one.received(packed(type="Audio", pcm=[0.0]))
        assert "Init" in told_to_leave(one.received(packed(type="OggOpus", data=b"OggS")))
        one = protocol()
        first, second = one.received(packed(type="OggOpus", data=b"OggS"))
        assert isinstance(first, Open)
        assert first.container
        assert second == Push(b"OggS")
        assert one.received(packed(type="OggOpus", data=[79, 103])) == [Push(b"Og")]
        assert "Init" in told_to_leave(one.received(packed(type="Audio", pcm=[0.0])))
        one.received(packed(type="Init"))
        pushed(one.received(packed(type="Audio", pcm=[0.0])))

    @pytest.mark.parametrize("message", [
        packed(type="Audio", pcm=[0.5] * (MAX_LIST_BYTES // 5)),
        pack({"type": "Audio", "pcm": [0.5] * (MAX_LIST_BYTES // 9)}),
        packed(type="OggOpus", data=bytes(MAX_LIST_BYTES)),
    ])  # fmt: skip
    def test_a_message_may_be_long_if_it_is_read_at_once(self, message: bytes):
        assert len(message) > MAX_LIST_BYTES
        assert isinstance(protocol().received(message)[-1], Push)

    @pytest.mark.parametrize("start", [
        packed(type="Audio", pcm=[])[:-1], packed(type="OggOpus", data=[])[:-1],
    ])  # fmt: skip
    def test_a_message_may_not_be_long_if_it_is_read_number_by_number(self, start: bytes):
        message = start + b"\xdd" + struct.pack(">I", MAX_LIST_BYTES) + bytes(MAX_LIST_BYTES)
        assert f"more than {MAX_LIST_BYTES} bytes" in told_to_leave(protocol().received(message))
        short = start + b"\xdc" + struct.pack(">H", 2**15) + bytes(2**15)
        assert isinstance(protocol().received(short)[-1], Push)

    def test_text_is_ignored_as_moshi_server_does(self):
        assert protocol().received("hello") == ()

    @given(st.text(min_size=1, max_size=300))
    def test_every_way_to_fail_is_told(self, text: str):
        for error in (RuntimeError(text), ServerEnds(text), AudioError(text)):
            assert told_to_leave(protocol().failed(error)) == text
        assert told_to_leave(protocol().failed(NoFreeSlot(text))) == "no free channels"
        assert told_to_leave(protocol().rejected(AudioError(text))) == text


class Conversation:
    """A protocol and a real stream, pumped by hand."""

    def __init__(self, demo: kiku.Recognizer, query: tuple[tuple[str, str], ...] = ()) -> None:
        self.protocol = KyutaiProtocol(
            ClientRequest("/x", query), ModelCard("m", num_pause_heads=4)
        )
        assert self.protocol.initial_open is not None
        self._demo = demo
        self.stream = demo.stream(self.protocol.initial_open.options)
        self.messages: list[dict[str, Any]] = []
        self.do(self.protocol.begin())

    def do(self, actions: Actions) -> None:
        for action in actions:
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Send(data):
                assert isinstance(data, bytes)
                self.messages.append(checked(data))
            case Push(samples):
                self.stream.push(samples)
            case FinalizeStream(tag, cut):
                self.stream.finalize(tag, cut=cut)
            case Open(options):
                self.stream.stop()
                self.stream = self._demo.stream(options)
                self.do(self.protocol.opened())
            case Close():
                self.stream.close()
            case _:
                raise AssertionError(action)

    def say(self, **message: Any) -> None:
        self.do(self.protocol.received(packed(**message)))

    def until(self, kind: str) -> list[dict[str, Any]]:
        """Take events up to a message of a kind; everything that was told since the last time."""
        while not any(one["type"] == kind for one in self.messages):
            event = self.stream.next_event(60)
            assert event is not None
            self.do(self.protocol.event(event, self.stream.waiting_s))
        told, self.messages = self.messages, []
        return told


def test_what_a_real_stream_says_is_in_the_clients_own_types(demo: kiku.Recognizer):
    sound = sound_of(EXAMPLES / "digits.wav")
    talk = Conversation(demo)
    try:
        for round in range(2):
            for first in range(0, len(sound), 1_920):
                talk.say(type="Audio", pcm=sound[first : first + 1_920].tolist())
            id = (-(2**63), 2**63 - 1)[round]
            talk.say(type="Marker", id=id)
            told = talk.until("Marker")
            assert told[0]["type"] == "Ready"
            assert told[-1] == {"type": "Marker", "id": id}
            kinds = [one["type"] for one in told if one["type"] in ("Word", "EndWord")]
            assert kinds == ["Word", "EndWord"] * (len(kinds) // 2)
            words = " ".join(one["text"] for one in told if one["type"] == "Word")
            assert words == demo.transcribe(EXAMPLES / "digits.wav").text
            steps = [one["step_idx"] for one in told if one["type"] == "Step"]
            assert steps == list(range(1, len(steps) + 1))
            assert len(steps) >= len(sound) // 1_920
            talk.say(type="Init")
    finally:
        talk.stream.stop()


@pytest.mark.parametrize(
    "tag", ["", "x", "1", "1 x", "1 " + "9" * 5_000, "1 18446744073709551616", "quiet", " 1"]
)
def test_a_tag_of_a_stored_session_that_is_no_markers_is_passed_over(tag: str):
    assert protocol().event(Finalized(1.0, None, tag), 0.0) == ()


def test_who_comes_back_counts_words_and_not_steps():
    """How many frames come before a word is another number after a cut."""
    one = protocol()
    word = Word("one", 0.2, 0.6, 0.9)
    counted: list[str] = []
    for event in (Pause(0.08, (0.1, 0.2, 0.3, 0.4)), word, WordEnd(0.6)):
        (told,) = one.event(event, 0.0)
        assert isinstance(told, Send)
        if told.counted:
            counted.append(msgpack.unpackb(told.data)["type"])
    assert counted == ["Word", "EndWord"]


@pytest.mark.parametrize("id", [0, -1, -(2**63), 2**64 - 1])
def test_a_marker_comes_back(id: int):
    one = protocol()
    (asked,) = one.received(packed(type="Marker", id=id))
    assert isinstance(asked, FinalizeStream)
    (told,) = one.event(Finalized(1.0, None, asked.tag), 0.0)
    assert isinstance(told, Send)
    assert msgpack.unpackb(told.data) == {"type": "Marker", "id": id}


def test_a_session_is_told_where_it_stands():
    one = KyutaiProtocol(ClientRequest("/x", (("session", "a"),)), CARD)
    (ready,) = one.resumed(1.5)
    assert isinstance(ready, Send)
    assert msgpack.unpackb(ready.data) == {"type": "Ready", "session": "a", "taken": 36_000}
    (plain,) = protocol().begin()
    assert isinstance(plain, Send)
    assert isinstance(plain.data, bytes)
    assert checked(plain.data) == {"type": "Ready"}


def test_quiet_tells_the_open_word_once_and_then_ends():
    assert KyutaiProtocol.quiet_after_s == (1.0, 120.0)
    assert KyutaiProtocol.awaits_sound
    one = protocol()
    assert one.quiet(1.0) == ()
    one.received(packed(type="Audio", pcm=[0.0]))
    (asked,) = one.quiet(1.0)
    assert isinstance(asked, FinalizeStream)
    assert one.quiet(1.0) == ()
    (end,) = one.quiet(120.0)
    assert isinstance(end, Hangup)
    assert end.code == 1000
