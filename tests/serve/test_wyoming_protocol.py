"""Wyoming's bytes and what becomes of them, without a socket and without a model."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.errors import AudioError, ConfigError, NoFreeSlot
from kiku.options import MAX_HOTWORDS, Eagerness, TurnPolicy
from kiku.serve.protocols.interface import (
    Action,
    ClientRequest,
    Close,
    Hangup,
    ModelCard,
    Open,
    Push,
    Send,
    ServerEnds,
)
from kiku.serve.protocols.wyoming import (
    GIVE_UP_S,
    HELD_BYTES,
    NOTHING_S,
    PARAMETERS,
    PATIENT_PROGRAM,
    PROGRAM,
    SILENT_S,
    WyomingProtocol,
)
from kiku.serve.protocols.wyoming_messages import (
    MAX_LINE_BYTES,
    MAX_PAYLOAD_BYTES,
    Malformed,
    MessageReader,
    WyomingMessage,
)
from kiku.serve.protocols.wyoming_sound import widened
from kiku.stream import End
from kiku.text import TurnEnd, TurnStart, Word
from tests.serve.wyoming_sdk import (
    AudioChunk,
    AudioStart,
    AudioStop,
    Describe,
    Info,
    Ping,
    Pong,
    SdkEvent,
    SelectProgram,
    Transcribe,
    VadSensitivity,
    checked,
    chunk,
    wire,
)

CARD = ModelCard("demo", ("whisper-*",), version="1.2.3")
START = AudioStart(16_000, 2, 1)


def sent(actions: Sequence[Action]) -> list[SdkEvent]:
    data = b""
    for action in actions:
        if isinstance(action, Send):
            assert isinstance(action.data, bytes)
            data += action.data
    return checked(data)


def kinds(actions: Sequence[Action]) -> list[str]:
    """What is done, in order; of messages their type."""
    told: list[str] = []
    for action in actions:
        if isinstance(action, Send):
            told += [event.type for event in sent([action])]
        else:
            told.append(type(action).__name__)
    return told


def new(**card: Any) -> WyomingProtocol:
    return WyomingProtocol(ClientRequest("wyoming"), dataclasses.replace(CARD, **card))


def hearing(protocol: WyomingProtocol | None = None) -> WyomingProtocol:
    """A protocol in the middle of an utterance."""
    protocol = protocol or new()
    assert isinstance(protocol.received(wire(START))[-1], Open)
    assert kinds(protocol.opened()) == ["transcript-start"]
    return protocol


def word(text: str) -> Word:
    return Word(text, 0.5, 0.8, 0.9)


# Bytes.

MESSAGES = st.lists(
    st.builds(
        lambda type, data, payload: SdkEvent(type, data, payload),
        st.text(min_size=1, max_size=8),
        st.dictionaries(
            st.text(max_size=5),
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
            max_size=3,
        ),
        st.binary(max_size=40) | st.none(),
    ),
    max_size=5,
)


@given(MESSAGES, st.data())
def test_however_the_bytes_are_cut_the_messages_are_the_same(
    events: list[SdkEvent], data: st.DataObject
) -> None:
    whole = wire(*events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    reader, found = MessageReader(), list[WyomingMessage]()
    for first, last in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        reader.feed(whole[first:last])
        while (one := reader.next()) is not None:
            found.append(one)
    assert [(m.type, dict(m.data), m.payload) for m in found] == [
        (e.type, e.data, e.payload or b"") for e in events
    ]
    assert reader.num_waiting == 0


def test_data_may_stand_in_the_line_too() -> None:
    reader = MessageReader()
    reader.feed(b'{"type":"x","data":{"a":1,"b":2},"data_length":7,"version":"9"}\n{"b":3}')
    assert reader.next() == WyomingMessage("x", {"a": 1, "b": 3})


@pytest.mark.parametrize("name", ["data_length", "payload_length"])
@pytest.mark.parametrize("length", [2**62, 2**64 + 1, 2**200, MAX_PAYLOAD_BYTES + 1])
def test_lengths_that_lie_are_refused_at_once_and_cost_nothing(name: str, length: int) -> None:
    reader = MessageReader()
    reader.feed(json.dumps({"type": "audio-chunk", name: length}).encode() + b"\n" + b"x" * 100)
    with pytest.raises(Malformed):
        reader.next()
    assert reader.num_waiting <= 100


def test_a_length_within_the_limits_takes_no_room_before_its_bytes_come() -> None:
    reader = MessageReader()
    reader.feed(b'{"type":"audio-chunk","payload_length":%d}\n' % MAX_PAYLOAD_BYTES)
    assert reader.next() is None
    assert reader.num_waiting == 0


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{}",
        b'{"type": 3}',
        b'{"type": "x", "data_length": -1}',
        b'{"type": "x", "data_length": 1.5}',
        b'{"type": "x", "data_length": true}',
        b'{"type": "x", "payload_length": "7"}',
        b'{"type": "x", "data": []}',
        b'{"type": "x", "data": ' + b"[" * 20_000,
        b'{"type": "\xff"}',
        b"GET / HTTP/1.1\r",
        b'{"type": "x", "data_length": 2}\n[]',
        b'{"type": "x", "data_length": 1}\n{',
    ],
)
def test_what_is_no_message_is_told_and_hung_up_on(line: bytes) -> None:
    protocol = new()
    assert kinds(protocol.received(wire(Ping("a")) + line + b"\n")) == ["pong", "error", "Hangup"]


def test_a_line_that_never_ends_is_given_up() -> None:
    reader = MessageReader()
    for _ in range(MAX_LINE_BYTES // 1024 - 1):
        reader.feed(b"x" * 1024)
        assert reader.next() is None
    reader.feed(b"x" * 1024)
    with pytest.raises(Malformed, match="no line ends"):
        reader.next()


@given(st.binary(max_size=300))
def test_random_bytes_do_no_harm(data: bytes) -> None:
    for action in new().received(data):
        assert isinstance(action, Send | Hangup)


_BITS = st.sampled_from(
    [
        wire(START),
        wire(AudioStop()),
        wire(Transcribe()),
        wire(Transcribe(name="nobody")),
        wire(SdkEvent("transcribe", {"transcript_names": 3})),
        wire(chunk(b"\1\2\3")),
        wire(chunk(b"abc", width=3)),
        wire(SdkEvent("audio-chunk", {"rate": "x"}, b"1")),
        wire(AudioStart(7, 2, 1)),
        wire(Describe()),
        wire(SelectProgram(PATIENT_PROGRAM)),
        wire(SdkEvent("voice-started")),
    ]
)
_STEPS = st.lists(
    _BITS | st.sampled_from(["opened", "word", "turn", "end", "busy", "reject", "heard", "quiet"]),
    max_size=25,
)


@given(_STEPS)
def test_in_whatever_order_things_happen_each_utterance_has_one_answer(
    steps: list[bytes | str],
) -> None:
    """A transcript follows a Close only, with what was said since its Open; and after an end there
    is an answer, or there was an error."""
    protocol = new()
    is_open = is_closed = False
    num_errors = 0
    for step in steps:
        actions: Sequence[Action] = ()
        if isinstance(step, bytes):
            actions = protocol.received(step)
        elif step == "opened" and is_open:
            actions = protocol.opened()
        elif step == "word" and is_open:
            actions = protocol.event(word("so"), 0.0)
        elif step == "turn" and is_open:
            actions = protocol.event(TurnEnd(1.0, 1.0), 0.0)
        elif step == "heard" and is_open:
            actions = protocol.progress(60.0)
        elif step == "reject" and is_open:
            actions = protocol.rejected(AudioError("no"))
        elif step == "busy" and is_open:
            is_open = is_closed = False
            actions = protocol.failed(NoFreeSlot("full"))
            assert "error" in kinds(actions)
        elif step == "quiet":
            actions = [*protocol.quiet(GIVE_UP_S), *protocol.quiet(SILENT_S)]
        elif step == "end" and is_closed:
            protocol.opened()
            is_open = is_closed = False
            actions = protocol.event(End(1.0), 0.0)
            assert "transcript" in kinds(actions) or num_errors
        num_errors += kinds(actions).count("error")
        for action in actions:
            if isinstance(action, Open):
                assert not is_closed, "an utterance was given up that was being finished"
                is_open, is_closed = True, False
            elif isinstance(action, Close):
                assert is_open
                assert not is_closed
                is_closed = True
            elif isinstance(action, Push):
                assert is_open
                assert not is_closed
            elif isinstance(action, Hangup):
                return


# One utterance.


def test_an_utterance_has_a_stream_from_its_start_to_its_end() -> None:
    protocol = new()
    assert protocol.initial_open is None
    assert not protocol.begin()
    (opened,) = protocol.received(wire(Transcribe(language="en"), START))
    assert isinstance(opened, Open)
    assert opened.options.format.sample_rate == 16_000
    assert opened.options.format.encoding == "s16le"
    assert opened.options.format.channels == 1
    assert kinds(protocol.opened()) == ["transcript-start"]
    assert protocol.received(wire(chunk(b"abcd"))) == [Push(b"abcd")]
    first, second = (sent(protocol.event(word(text), 0.0)) for text in ("seven", "three"))
    assert [event.data["text"] for event in (*first, *second)] == ["seven", " three"]
    assert protocol.received(wire(AudioStop())) == [Close()]
    whole, stop = sent(protocol.event(End(2.0), 0.0))
    assert whole.data == {"text": "seven three", "language": "en"}
    assert whole.type == "transcript"
    assert stop.type == "transcript-stop"
    assert not protocol.received(wire(AudioStop()))  # once more has no meaning


def test_a_model_of_two_languages_does_not_guess_which_it_was() -> None:
    protocol = hearing(new(languages=("en", "fr")))
    protocol.received(wire(AudioStop()))
    assert sent(protocol.event(End(1.0), 0.0))[0].data == {"text": ""}


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_heard_as_it_is_said(width: int, rate: int, channels: int) -> None:
    (opened,) = new().received(wire(AudioStart(rate, width, channels)))
    assert isinstance(opened, Open)
    assert opened.options.format.sample_rate == rate
    assert opened.options.format.channels == channels
    assert opened.options.format.encoding == ("s16le" if width < 3 else "s32le")


@pytest.mark.parametrize(
    "start", [(7_999, 2, 1), (192_001, 2, 1), (16_000, 0, 1), (16_000, 5, 1), (16_000, 2, 0),
              (16_000, 2, 65), ("16000", 2, 1), (None, 2, 1)],
)  # fmt: skip
def test_a_format_that_cannot_be_is_an_error_in_the_place_of_a_transcript(start: Any) -> None:
    protocol = new()
    data: dict[str, Any] = dict(zip(("rate", "width", "channels"), start, strict=True))
    assert kinds(protocol.received(wire(SdkEvent("audio-start", data)))) == ["error"]
    assert not protocol.received(wire(chunk(b"ab"), AudioStop()))
    assert kinds(protocol.received(wire(START))) == ["Open"]


def test_narrow_and_odd_samples_are_widened_across_any_cut() -> None:
    assert widened(bytes([0, 128, 255]), 1) == (b"\x00\x80\x00\x00\x00\x7f", b"")
    first, rest = widened(b"\x01\x02\x83\x04", 3)
    assert (first, rest) == (b"\x00\x01\x02\x83", b"\x04")
    protocol = new()
    protocol.received(wire(AudioStart(16_000, 3, 1)))
    pushes = [
        *protocol.received(wire(chunk(b"\x01\x02\x83\x04", width=3))),
        *protocol.received(wire(chunk(b"\x05\x06", width=3))),
    ]
    assert pushes == [Push(b"\x00\x01\x02\x83"), Push(b"\x00\x04\x05\x06")]


def test_the_start_may_be_left_out() -> None:
    assert kinds(new().received(wire(chunk(b"ab", rate=8_000)))) == ["Open", "Push"]


def test_sound_that_changes_within_an_utterance_is_an_error() -> None:
    protocol = hearing()
    assert kinds(protocol.received(wire(chunk(b"ab", rate=8_000)))) == ["error", "Close"]
    assert not protocol.received(wire(chunk(b"ab"), AudioStop()))
    assert not protocol.event(word("lost"), 0.0)
    assert not protocol.event(End(1.0), 0.0)
    assert kinds(protocol.received(wire(START))) == ["Open"]


def test_a_request_without_sound_has_an_empty_transcript() -> None:
    told = new().received(wire(Transcribe(), AudioStop()))
    assert kinds(told) == ["transcript-start", "transcript", "transcript-stop"]
    assert sent(told)[1].data["text"] == ""


def test_a_second_start_begins_anew() -> None:
    protocol = hearing()
    protocol.event(word("old"), 0.0)
    assert kinds(protocol.received(wire(START))) == ["Open"]
    assert not protocol.event(word("late"), 0.0)  # of the one before
    protocol.opened()
    protocol.event(word("new"), 0.0)
    protocol.received(wire(AudioStop()))
    assert sent(protocol.event(End(1.0), 0.0))[0].data["text"] == "new"


def test_the_next_utterance_waits_for_the_transcript_of_the_one_before() -> None:
    protocol = hearing()
    again = wire(Transcribe(transcript_names=["Ada"]), START, chunk(b"cd"), AudioStop())
    assert protocol.received(wire(AudioStop()) + again + wire(Ping("x")))[1:] == [
        Send(b'{"type":"pong","data_length":12}\n{"text":"x"}')
    ]
    told = protocol.event(End(1.0), 0.0)
    assert kinds(told) == ["transcript", "transcript-stop", "Open", "Push", "Close"]
    opened = told[2]
    assert isinstance(opened, Open)
    assert opened.options.decoding.phrases[0].text == "Ada"


@pytest.mark.parametrize(
    "part", [chunk(b"\0" * 2**20), Transcribe(transcript_terms=["x" * (2**20 - 100)])]
)
def test_not_everything_is_kept_for_later(part: Any) -> None:
    protocol = hearing()
    protocol.received(wire(AudioStop(), START))
    for _ in range(HELD_BYTES // 2**20 - 1):
        assert not protocol.received(wire(part))
        assert not protocol.is_full
    assert not protocol.received(wire(part))
    assert protocol.is_full  # so that no more is read
    told = kinds(protocol.event(End(1.0), 0.0))
    assert told[:3] == ["transcript", "transcript-stop", "Open"]
    assert told.count("Push") == (HELD_BYTES // 2**20 if isinstance(part, AudioChunk) else 0)
    assert not protocol.is_full


def test_small_messages_are_not_kept_without_end() -> None:
    protocol, stops = hearing(), wire(AudioStop()) * 1000
    protocol.received(wire(AudioStop()))
    for _ in range(HELD_BYTES // 2**10 // 1000 + 1):
        assert not protocol.is_full
        assert not protocol.received(stops)
    assert protocol.is_full


def test_a_program_holds_for_the_utterances_behind_it() -> None:
    protocol = hearing()
    protocol.received(wire(AudioStop(), START, AudioStop(), SelectProgram(PATIENT_PROGRAM), START,
                           AudioStop()))  # fmt: skip
    turns: list[bool] = []
    for _ in range(2):
        (opened,) = [one for one in protocol.event(End(1.0), 0.0) if isinstance(one, Open)]
        turns.append(opened.options.turns is not None)
        protocol.opened()
    assert turns == [True, False]


# What is wished.


def test_names_and_terms_are_expected_names_more() -> None:
    asked = Transcribe(
        name="whisper-1", language="de", context={"a": 1},
        transcript_names=["Ada  Lovelace", " ", "x" * 300], transcript_terms=["engine", "engine"],
    )  # fmt: skip
    protocol = new()
    (opened,) = protocol.received(wire(asked, START))
    assert isinstance(opened, Open)
    assert [(word.text, word.boost) for word in opened.options.decoding.phrases] == [
        ("Ada Lovelace", 3.0), ("engine", 2.0),
    ]  # fmt: skip
    hearing(protocol)
    protocol.received(wire(AudioStop()))
    protocol.event(End(1.0), 0.0)
    (opened,) = protocol.received(wire(START))  # the wish was for one utterance
    assert isinstance(opened, Open)
    assert not opened.options.decoding.phrases


def test_as_many_are_expected_as_can_be_names_first() -> None:
    asked = Transcribe(
        transcript_terms=["term"], transcript_names=[f"name {i}" for i in range(MAX_HOTWORDS)]
    )
    (opened,) = new().received(wire(asked, START))
    assert isinstance(opened, Open)
    assert len(opened.options.decoding.phrases) == MAX_HOTWORDS
    assert "term" not in {word.text for word in opened.options.decoding.phrases}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"name": "other"}, "transcribe.name"),
        ({"transcript_names": "Ada"}, "transcript_names"),
        ({"transcript_terms": [1]}, "transcript_terms"),
        ({"vad_sensitivity": "soon"}, "vad_sensitivity"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_it(data: dict[str, Any], named: str) -> None:
    protocol = new()
    (error,) = sent(protocol.received(wire(SdkEvent("transcribe", data))))
    assert named in error.data["text"]
    assert not protocol.received(wire(START, chunk(b"ab"), AudioStop()))
    assert kinds(protocol.quiet(GIVE_UP_S)) == ["Hangup"]
    assert kinds(protocol.received(wire(START))) == ["Open"]
    assert not protocol.quiet(GIVE_UP_S)


# The end of an utterance, where the client does not tell it.


def test_the_turn_ends_the_utterance_and_the_rest_of_its_sound_is_dropped() -> None:
    protocol = hearing()
    protocol.received(wire(chunk(b"\0" * 64_000)))
    protocol.event(TurnStart(0.1), 0.0)
    protocol.event(word("stop"), 0.0)
    assert not protocol.progress(2.0)
    protocol.event(TurnEnd(2.0, 0.9), 0.0)
    assert protocol.progress(2.0) == [Close()]
    assert not protocol.received(wire(chunk(b"ab")))
    assert kinds(protocol.event(End(2.0), 0.0)) == ["transcript", "transcript-stop"]
    assert not protocol.received(wire(chunk(b"ab"), AudioStop()))
    assert kinds(protocol.received(wire(START))) == ["Open"]


def test_a_recording_sent_at_once_is_heard_to_its_end() -> None:
    protocol = hearing()
    protocol.received(wire(chunk(b"\0" * 320_000)))  # 10 s
    protocol.event(TurnEnd(2.0, 0.9), 0.0)
    assert not protocol.progress(2.0)
    protocol.event(TurnStart(3.0), 0.0)
    assert not protocol.progress(9.9)  # somebody speaks again
    protocol.event(TurnEnd(9.9, 0.9), 0.0)
    assert protocol.progress(9.9) == [Close()]


def test_who_never_speaks_is_not_waited_for() -> None:
    protocol = hearing()
    protocol.received(wire(chunk(b"\0" * int(32_000 * NOTHING_S))))
    assert not protocol.progress(NOTHING_S - 0.5)
    assert protocol.progress(NOTHING_S) == [Close()]


def test_the_other_program_waits_for_audio_stop() -> None:
    protocol = new()
    protocol.received(wire(SelectProgram(PATIENT_PROGRAM)))
    (opened,) = protocol.received(wire(START))
    assert isinstance(opened, Open)
    assert opened.options.turns is None
    protocol.opened()
    protocol.received(wire(chunk(b"\0" * 640_000)))
    assert not protocol.progress(20.0)
    assert kinds(protocol.received(wire(SelectProgram("piper")))) == ["error"]
    assert not protocol.received(wire(SelectProgram(PROGRAM)))


@pytest.mark.parametrize(
    ("sensitivity", "eagerness"),
    [
        (None, "low"),
        (VadSensitivity.RELAXED, "low"),
        (VadSensitivity.DEFAULT, "medium"),
        (VadSensitivity.AGGRESSIVE, "high"),
    ],
)
def test_how_soon_a_turn_ends(sensitivity: Any, eagerness: Eagerness) -> None:
    (opened,) = new().received(wire(Transcribe(vad_sensitivity=sensitivity), START))
    assert isinstance(opened, Open)
    assert opened.options.turns == TurnPolicy.of(eagerness)


def test_sound_that_stays_away_ends_the_utterance() -> None:
    protocol = hearing()
    assert not protocol.quiet(GIVE_UP_S)
    assert protocol.quiet(SILENT_S) == [Close()]
    assert kinds(protocol.event(End(1.0), 0.0)) == ["transcript", "transcript-stop"]
    assert not protocol.quiet(SILENT_S)


# Errors.


def test_a_client_for_whom_there_is_no_slot_is_told_and_let_go() -> None:
    protocol = new()
    protocol.received(wire(START))
    (error,) = sent(protocol.failed(NoFreeSlot("all slots are taken")))
    assert error.data == {"text": "all slots are taken", "code": "busy"}
    assert not protocol.received(wire(chunk(b"ab"), AudioStop()))
    assert kinds(protocol.quiet(GIVE_UP_S)) == ["Hangup"]  # it may wait for a transcript


def test_after_busy_the_next_utterance_is_tried() -> None:
    protocol = new()
    protocol.received(wire(START, AudioStop(), START, AudioStop()))
    assert kinds(protocol.failed(NoFreeSlot("full"))) == ["error", "Open", "Close"]


def test_a_stream_that_fails_is_told() -> None:
    protocol = hearing()
    (error,) = sent(protocol.failed(RuntimeError("lost")))
    assert error.data["code"] == "failed"
    (error,) = sent(hearing().failed(ConfigError("'bird' cannot be spelt")))
    assert error.data == {"text": "'bird' cannot be spelt", "code": "invalid"}
    assert kinds(protocol.failed(ServerEnds("bye"))) == ["error", "Hangup"]


def test_what_is_not_known_is_dropped() -> None:
    unknown = [SdkEvent("voice-started", {"timestamp": 1}), SdkEvent("run-pipeline", {}, b"xyz")]
    assert not new().received(wire(*unknown))


# Who is there.


def test_the_service_says_what_it_is() -> None:
    (told,) = sent(
        new(name="kyutai/stt-1b-en_fr", languages=("en", "fr")).received(wire(Describe()))
    )
    programs = Info.from_event(told).asr
    assert [program.name for program in programs] == [PROGRAM, PATIENT_PROGRAM]
    ours = programs[0]
    assert ours.installed
    assert ours.supports_transcript_streaming
    assert not ours.requires_external_vad
    assert programs[1].requires_external_vad
    (model,) = ours.models
    assert model.installed
    assert model.languages == ["en", "fr"]
    assert model.name == "kyutai/stt-1b-en_fr"
    assert model.attribution.name == "kyutai"


def test_a_ping_is_answered_with_its_text() -> None:
    (pong,) = sent(new().received(wire(Ping("so"))))
    assert Pong.from_event(pong).text == "so"
    (pong,) = sent(new().received(wire(Ping())))
    assert Pong.from_event(pong).text is None


def test_every_parameter_of_the_sdk_is_spoken_of() -> None:
    known = {
        f"{door}.{one.name}"
        for door, kind in (
            ("transcribe", Transcribe), ("audio", AudioStart), ("audio", AudioChunk),
            ("audio", AudioStop), ("select-program", SelectProgram), ("ping", Ping),
        )
        for one in dataclasses.fields(kind)
    }  # fmt: skip
    assert {one.name for one in PARAMETERS} == known - {"audio.audio"}


def test_messages_are_json_that_others_read() -> None:
    (told,) = new().received(wire(Ping("ü")))
    assert isinstance(told, Send)
    assert isinstance(told.data, bytes)
    line, data = told.data.split(b"\n", 1)
    assert msgspec.json.decode(line) == {"type": "pong", "data_length": len(data)}
    assert json.loads(data) == {"text": "ü"}


def test_an_error_does_not_quote_at_length() -> None:
    wish = json.dumps({"type": "transcribe", "data": {"vad_sensitivity": "x" * 50_000}}) + "\n"
    (error,) = new().received(wish.encode())
    assert isinstance(error, Send)
    assert b"transcribe is not possible" in error.data
    assert len(error.data) < 1_000
