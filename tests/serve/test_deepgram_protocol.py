"""Deepgram's live protocol: results, what else is told, and what clients send."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kiku
from kiku.errors import (
    AudioError,
    ConfigError,
    NoFreeSlot,
    QueueFull,
    StreamClosed,
    StreamError,
    TruncatedAudio,
)
from kiku.options import AudioFormat, Hotword
from kiku.serve.protocols.deepgram import IDLE_S
from kiku.serve.protocols.deepgram_sound import written_header
from kiku.serve.protocols.deepgram_words import bare
from kiku.serve.protocols.interface import (
    Close,
    Decode,
    FinalizeStream,
    Hangup,
    Open,
    Push,
    ServerEnds,
)
from kiku.stream import End, Event, Finalized
from kiku.text import Partial, TurnEnd, TurnStart, Word
from tests.serve.conftest import EXAMPLES
from tests.serve.deepgram_talk import (
    CARD,
    CLOSE,
    FINALIZE,
    Conversation,
    LiveConversation,
    heard,
    listen,
    pcm,
    text_of,
    words_of,
)

RECORDINGS = ["answers.mp3", "digits.wav"]


def word(text: str, start: float, channel: int | None = None, sure: float = 0.5) -> Word:
    """A word of 0.3 s."""
    return Word(text, start, start + 0.3, sure, channel)


def test_a_result_is_whole() -> None:
    talk = Conversation(listen())
    [result] = talk.tell(word("Hello,", 0.5, sure=0.5), word("you", 1.0, sure=0.25), TurnEnd(2, 1))
    uuid = result["metadata"].pop("model_uuid")
    assert len(uuid) == 36
    assert result == {
        "type": "Results",
        "channel_index": [0, 1],
        "start": 0.0,
        "duration": 1.5,  # up to where the text is known
        "is_final": True,
        "speech_final": True,
        "from_finalize": False,
        "channel": {
            "alternatives": [
                {
                    "transcript": "Hello, you",
                    "confidence": 0.375,
                    "words": [
                        {"word": "hello", "punctuated_word": "Hello,", "start": 0.5, "end": 0.8,
                         "confidence": 0.5},
                        {"word": "you", "punctuated_word": "you", "start": 1.0, "end": 1.3,
                         "confidence": 0.25},
                    ],
                }
            ]
        },
        "metadata": {
            "request_id": "4b6c",
            "model_info": {"name": "demo", "version": "0.1", "arch": "kyutai-stt"},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "plain"),
    [("Hello,", "hello"), ("don't", "don't"), ("\u201cYes.\u201d", "yes"), ("...", "..."),
     ("A.B.", "a.b"), ("3.5%", "3.5")],
)  # fmt: skip
def test_a_word_is_also_told_without_its_punctuation(written: str, plain: str) -> None:
    assert bare(written) == plain


def test_results_that_are_not_final_come_only_if_they_are_asked_for() -> None:
    events: list[Event] = [Partial("he", 0.5), Partial("hell", 0.5), word("hello", 0.5),
                           Partial("yo", 1.0)]  # fmt: skip
    assert Conversation(listen()).tell(*events) == []
    told = Conversation(listen(interim_results="true")).tell(*events)
    assert [text_of(one) for one in told] == ["he", "hell", "hello", "hello yo"]
    assert not any(one["is_final"] or one["speech_final"] for one in told)
    assert [one["channel"]["alternatives"][0]["confidence"] for one in told] == [0, 0, 0.5, 0.5]


def test_the_same_is_not_said_twice() -> None:
    talk = Conversation(listen(interim_results="true"))
    assert len(talk.tell(Partial("hello", 0.5), word("hello", 0.5))) == 1
    talk.receive(FINALIZE)
    talk.tell(Finalized(0.9, None, talk.tag))
    assert [text_of(one) for one in talk.tell(Partial("hello", 1.0))] == ["hello"]


def test_a_sentence_or_a_gap_or_five_seconds_make_a_result_final() -> None:
    talk = Conversation(listen())
    talk.tell(word("It", 0.5), word("is.", 1.0), word("Yes,", 1.5), word("Mr.", 2.0),
              word("X", 2.4), word("then", 4.0))  # fmt: skip
    assert [text_of(one) for one in talk.finals()] == ["It is.", "Yes, Mr. X"]
    assert [(one["start"], one["duration"]) for one in talk.finals()] == [(0, 1.5), (1.5, 2.5)]
    long = Conversation(listen())
    long.tell(*[word("and", 0.4 * index) for index in range(30)])
    assert [len(words_of([one])) for one in long.finals()] == [13, 13]
    assert not any(one["speech_final"] for one in talk.finals() + long.finals())


def test_without_endpointing_no_turn_ends_and_words_become_final_all_the_same() -> None:
    talk = Conversation(listen(endpointing="false"))
    assert talk.protocol.initial_open is not None
    assert talk.protocol.initial_open.options.turns is None
    assert talk.protocol.wants_progress
    talk.tell(word("hello", 1.0), Partial("y", 2.0))
    assert talk.do(talk.protocol.progress(10.0)) == []  # one is being spoken
    talk.tell(word("you", 2.0))
    assert talk.do(talk.protocol.progress(6.0)) == []
    [final] = talk.do(talk.protocol.progress(6.8))
    assert (text_of(final), final["speech_final"]) == ("hello you", False)
    started = Conversation(listen(endpointing="false", vad_events="true"))
    assert started.tell(word("hello", 1.0), TurnEnd(3.0, 0.9)) == []


def test_a_turn_that_ends_behind_its_last_result_is_told() -> None:
    talk = Conversation(listen())
    talk.tell(word("hello", 0.5))
    talk.receive(FINALIZE)
    talk.tell(Finalized(1.0, None, talk.tag))
    [last] = talk.tell(TurnEnd(2.0, 0.9))
    assert (text_of(last), last["speech_final"], last["is_final"]) == ("", True, True)
    assert (last["start"], last["duration"]) == (1.0, 0.5)


def test_finalize_is_answered_by_one_final_result_even_an_empty_one() -> None:
    talk = Conversation(listen())
    assert talk.receive(FINALIZE) == []
    assert talk.asks == [FinalizeStream(talk.tag, cut=True)]
    [empty] = talk.tell(Finalized(1.0, None, talk.tag))
    assert (text_of(empty), empty["is_final"], empty["from_finalize"]) == ("", True, True)
    [full] = talk.tell(word("hello", 1.2), Finalized(2.0, Partial("y", 1.8), talk.tag))
    assert (text_of(full), full["from_finalize"], full["speech_final"]) == ("hello", True, False)
    assert full["start"] + full["duration"] == 1.8  # where the next word begins
    assert talk.tell(Finalized(3.0, None, None)) == []


def test_a_turn_that_finalize_ends_is_told_with_its_answer() -> None:
    talk = Conversation(listen())
    talk.receive(FINALIZE)
    [both] = talk.tell(word("hello", 0.5), TurnEnd(1.0, 0.9), Finalized(1.0, None, talk.tag))
    assert (text_of(both), both["speech_final"], both["from_finalize"]) == ("hello", True, True)
    talk.receive(FINALIZE)
    ended, early = talk.tell(word("you", 1.5), TurnEnd(2.5, 0.9), word("there", 2.6),
                             Finalized(3.0, None, talk.tag))  # fmt: skip
    assert (text_of(ended), ended["speech_final"], ended["from_finalize"]) == ("you", True, False)
    assert (text_of(early), early["speech_final"], early["from_finalize"]) == ("there", False, True)
    talk.receive(FINALIZE, CLOSE)
    last, _ = talk.tell(word("now", 4.0), TurnEnd(5.0, 1.0), End(5.0))
    assert (text_of(last), last["speech_final"]) == ("now", True)


def test_a_turn_does_not_wait_for_a_stream_that_was_given_up() -> None:
    talk = Conversation(listen())
    talk.receive(FINALIZE, written_header(AudioFormat(encoding="mulaw", sample_rate=8_000), 0))
    assert isinstance(talk.asks[-1], Open)
    assert [one["speech_final"] for one in talk.tell(TurnEnd(1.0, 0.8))] == [True]


def test_each_finalize_has_an_answer_and_later_turns_end_at_once(demo: kiku.Recognizer) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    pause = int(2.8 * rate) * 2
    talk = LiveConversation(demo, listen(sample_rate=str(rate)))
    talk.hear(sound[:pause], 3_200)
    talk.receive(FINALIZE, FINALIZE)
    talk.hear(sound[pause:] + bytes(6 * rate), 3_200)
    told = [(text_of(one), one["from_finalize"]) for one in talk.finals()
            if one["from_finalize"] or one["speech_final"]]  # fmt: skip
    assert told == [("seven three zero", True), ("", True), ("one nine four", False)]


def test_close_stream_tells_the_rest_and_the_metadata_last() -> None:
    talk = Conversation(listen())
    sound = [bytes(range(100)), b"xyz"]
    talk.receive(*sound, CLOSE, b"more", FINALIZE, CLOSE, "nonsense")
    assert talk.asks == [Push(sound[0]), Push(sound[1]), Close()]
    rest, metadata = talk.tell(word("hello", 0.5), End(1.25))
    assert (text_of(rest), rest["duration"], rest["is_final"]) == ("hello", 1.25, True)
    assert metadata == {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": "4b6c",
        "sha256": hashlib.sha256(b"".join(sound)).hexdigest(),
        "created": "2026-09-21T14:13:20.250Z",
        "duration": 1.25,
        "channels": 1,
    }
    assert talk.hangup == Hangup(1000)


def test_an_empty_message_is_the_older_way_to_close() -> None:
    talk = Conversation(listen())
    talk.receive(b"")
    assert talk.asks == [Close()]
    talk.tell(End(0.0))
    assert [one["type"] for one in talk.messages] == ["Metadata"]


def test_a_client_that_sends_nothing_is_told_why_it_is_left() -> None:
    talk = Conversation(listen())
    assert talk.protocol.quiet_after_s == (IDLE_S,)
    talk.receive('{"type":"KeepAlive"}')
    assert talk.asks == []
    assert talk.do(talk.protocol.quiet(IDLE_S)) == []
    assert talk.asks == [Close()]
    last, error = talk.tell(word("hello", 0.5), End(1.0))
    assert text_of(last) == "hello"
    assert (error["type"], error["variant"]) == ("Error", "NET-0001")
    assert talk.hangup is not None
    assert (talk.hangup.code, talk.hangup.reason[:8]) == (1011, "NET-0001")


def test_a_client_that_has_closed_may_be_quiet() -> None:
    talk = Conversation(listen())
    talk.receive(CLOSE)
    assert talk.do(talk.protocol.quiet(IDLE_S)) == []
    assert talk.tell(End(1.0))[-1]["type"] == "Metadata"


def test_an_utterance_ends_after_a_gap() -> None:
    talk = Conversation(listen(utterance_end_ms="1000", endpointing="false"))
    assert talk.protocol.wants_progress
    talk.tell(word("hello", 1.0))
    assert talk.do(talk.protocol.progress(2.9)) == []  # text is 0.5 s late
    told = talk.do(talk.protocol.progress(3.1))
    assert [one["type"] for one in told] == ["Results", "UtteranceEnd"]
    assert (text_of(told[0]), told[0]["is_final"]) == ("hello", True)
    assert told[1] == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.3}
    assert talk.do(talk.protocol.progress(9.0)) == []
    talk.tell(Partial("y", 9.0))
    assert talk.do(talk.protocol.progress(20.0)) == []
    assert not Conversation(listen()).protocol.wants_progress


def test_speech_started_comes_with_vad_events_alone() -> None:
    assert Conversation(listen()).tell(TurnStart(0.5)) == []
    [told] = Conversation(listen(vad_events="true")).tell(TurnStart(0.5))
    assert told == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.5}


def test_each_channel_has_results_of_its_own() -> None:
    talk = Conversation(listen(channels="2", multichannel="true", vad_events="true"))
    assert talk.protocol.initial_open is not None
    assert talk.protocol.initial_open.options.channel == "each"
    talk.tell(word("left", 0.5, 0), word("right", 0.6, 1), TurnStart(0.6, 1), TurnEnd(3.0, 0.9, 1))
    assert [one["channel"] for one in talk.messages if one["type"] == "SpeechStarted"] == [[1, 2]]
    assert [text_of(one) for one in talk.finals(1)] == ["right"]
    assert talk.finals(1)[0]["channel_index"] == [1, 2]
    talk.receive('{"type":"Finalize","channel":1}')  # means all of them
    told = talk.tell(Finalized(4.0, None, talk.tag, 0), Finalized(4.0, None, talk.tag, 1))
    assert [(one["channel_index"], text_of(one)) for one in told] == [
        ([0, 2], "left"),
        ([1, 2], ""),
    ]
    talk.receive(CLOSE)
    assert talk.tell(End(4.0))[-1]["channels"] == 2


def test_a_wav_header_may_count_more_channels() -> None:
    talk = Conversation(listen(channels="2", multichannel="true"))
    three = AudioFormat(encoding="s16le", sample_rate=16_000, channels=3)
    talk.receive(written_header(three, 600) + bytes(600))
    opened, _ = talk.asks
    assert isinstance(opened, Open)
    assert (opened.options.format, opened.options.channel) == (three, "each")
    [last] = talk.tell(word("third", 0.5, 2), TurnEnd(2.0, 0.9, 2))
    assert last["channel_index"] == [2, 3]


def test_key_terms_are_changed() -> None:
    talk = Conversation(listen(keywords="Moshi:2", keyterm="old"))
    assert talk.receive('{"type":"Configure","keyterms":["Kyutai"],"features":null}') == []
    [asked] = talk.asks
    assert isinstance(asked, Decode)
    assert asked.options.phrases == (Hotword("Moshi", 4.0), Hotword("Kyutai"))
    [pending] = talk.receive('{"type":"Configure","keyterms":[]}')
    assert pending["code"] == "CONFIGURE_ALREADY_PENDING"
    [done] = talk.do(talk.protocol.decoded())
    assert done == {"type": "ConfigureSuccess", "request_id": "4b6c", "keyterms": ["Kyutai"]}
    talk.receive('{"type":"Configure","keyterms":["x"]}')
    [failure] = talk.do(talk.protocol.rejected(ConfigError("this model expects nothing")))
    assert failure["code"] == "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
    assert failure["description"] == "this model expects nothing"
    [done] = talk.receive('{"type":"Configure"}')
    assert done["type"] == "ConfigureSuccess"


def test_damaged_sound_is_no_answer_to_configure() -> None:
    talk = Conversation(listen())
    talk.receive('{"type":"Configure","keyterms":["Kyutai"]}')
    [error] = talk.do(talk.protocol.rejected(AudioError("damaged")))
    assert error["type"] == "Error"
    [done] = talk.do(talk.protocol.decoded())
    assert (done["type"], done["keyterms"]) == ("ConfigureSuccess", ["Kyutai"])


def test_what_a_client_writes_is_not_told_again_at_length() -> None:
    talk = Conversation(listen())
    talk.receive(json.dumps({"type": "Configure", "keyterms": [" " * 10**6, "Kyutai " * 2, "\t"]}))
    [done] = talk.do(talk.protocol.decoded())
    assert done["keyterms"] == ["Kyutai Kyutai"]
    [error] = talk.receive(json.dumps({"type": "x" * 10**6}))
    assert len(json.dumps(error)) < 2_500


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"keyterms": ["x"] * 1_001}, "CONFIGURE_KEYTERM_LIMIT_EXCEEDED"),
        ({"features": {"numerals": True}}, "CONFIGURE_INTERNAL_ERROR"),
        ({"features": {"numerals": False, "punctuate": True}}, None),
        ({}, None),
    ],
)
def test_what_configure_can_do(wanted: dict[str, Any], code: str | None) -> None:
    talk = Conversation(listen())
    [told] = talk.receive(json.dumps({"type": "Configure", **wanted}))
    assert told.get("code") == code
    assert told["type"] == ("ConfigureSuccess" if code is None else "ConfigureFailure")
    assert "keyterms" not in told
    assert talk.asks == []


@pytest.mark.parametrize(
    "text", ["", "x", "{}", "[]", "7", '{"type":7}', '{"type":"Nothing"}', "[" * 5_000,
             '{"type":"Configure","keyterms":[1]}', '{"type":"Configure","keyterms":["\\ud800"]}']
)  # fmt: skip
def test_text_that_is_no_message_is_told(text: str) -> None:
    talk = Conversation(listen())
    [error] = talk.receive(text)
    assert (error["type"], error["variant"]) == ("Error", "SchemaError")
    assert error["description"]
    assert error["message"] == text[:1000]
    assert (talk.asks, talk.hangup) == ([], None)


@pytest.mark.parametrize("refusal", [QueueFull("too many"), StreamClosed("the end")])
def test_sound_that_is_none_is_told_and_the_talk_goes_on(refusal: Exception) -> None:
    talk = Conversation(listen(encoding="opus"))
    talk.receive(b"packet")
    [error] = talk.do(talk.protocol.rejected(AudioError("no packet")))
    assert (error["variant"], error["description"]) == ("DATA-0000", "no packet")
    talk.receive(FINALIZE)
    [error] = talk.do(talk.protocol.rejected(refusal))
    assert error["variant"] == type(refusal).__name__
    assert talk.hangup is None
    # A turn does not wait for the answer that will not come.
    assert [one["speech_final"] for one in talk.tell(TurnEnd(1.0, 0.8))] == [True]


def test_a_recording_that_cannot_be_read_ends_the_talk() -> None:
    talk = Conversation(listen(encoding="flac"))
    assert talk.protocol.initial_open is not None
    assert talk.protocol.initial_open.container
    assert [one["variant"] for one in talk.do(talk.protocol.rejected(AudioError("no flac")))] == [
        "DATA-0000"
    ]
    assert talk.tell(End(0.0)) == []
    assert talk.hangup == Hangup(1008, "DATA-0000: no flac")


def test_a_recording_may_end_in_its_middle_if_the_client_says_so() -> None:
    talk = Conversation(listen(encoding="ogg-opus"))
    talk.receive(CLOSE)
    assert talk.do(talk.protocol.rejected(TruncatedAudio("cut"))) == []
    talk.tell(End(1.0))
    assert talk.hangup == Hangup(1000)


@pytest.mark.parametrize("close", [CLOSE, b""])
def test_a_client_may_close_without_any_sound(close: str | bytes) -> None:
    talk = Conversation(listen(encoding="flac"))
    talk.receive(close)
    assert talk.do(talk.protocol.rejected(AudioError("it is empty"))) == []
    assert [one["type"] for one in talk.tell(End(0.0))] == ["Metadata"]
    assert talk.hangup == Hangup(1000)


def test_a_client_that_never_sends_its_recording_is_told_that_it_was_silent() -> None:
    talk = Conversation(listen(encoding="flac"))
    talk.do(talk.protocol.quiet(IDLE_S))
    assert talk.do(talk.protocol.rejected(AudioError("it is empty"))) == []
    assert [one["variant"] for one in talk.tell(End(0.0))] == ["NET-0001"]


def test_what_came_before_the_end_and_is_no_sound_is_told() -> None:
    talk = Conversation(listen(encoding="flac"))
    talk.receive(b"no sound", CLOSE)
    assert len(talk.do(talk.protocol.rejected(AudioError("no flac")))) == 1


def test_words_are_told_where_the_stream_or_the_service_ends() -> None:
    for error, code in [(StreamError("broken"), 1011), (ServerEnds("later"), 1012),
                        (NoFreeSlot("full"), 1011)]:  # fmt: skip
        talk = Conversation(listen())
        talk.tell(word("hello", 0.5))
        told = talk.do(talk.protocol.failed(error))
        assert text_of(told[0]) == "hello"
        assert [one["type"] for one in told[1:]] == ([] if code == 1012 else ["Error"])
        assert talk.hangup is not None
        assert (talk.hangup.code, talk.hangup.reason) == (code, str(error))


def test_keys_in_subprotocols() -> None:
    request = listen()._request
    browser = type(request)(request.path, request.query, {}, ("token", "a key"), "4b6c")
    assert type(listen())(browser, CARD).subprotocol == "token"
    assert listen().subprotocol is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
kinds = st.sampled_from(["KeepAlive", "Finalize", "CloseStream", "Configure", "Results"])
messages = (
    st.binary(max_size=64)
    | st.text()
    | json_values.map(json.dumps)
    | st.builds(
        lambda kind, more: json.dumps({**more, "type": kind}), kinds,
        st.dictionaries(st.sampled_from(["keyterms", "features", "channel"]), json_values),
    )
)  # fmt: skip


@given(sent=st.lists(messages, max_size=12))
def test_any_message_is_done_or_told(sent: list[str | bytes]) -> None:
    talk = Conversation(listen())
    for one in sent:
        talk.receive(one)
        if talk.asks and isinstance(talk.asks[-1], Decode):
            talk.do(talk.protocol.decoded())
    assert talk.hangup is None
    assert sum(isinstance(one, Close) for one in talk.asks) <= 1
    talk.tell(End(0.0))
    assert talk.messages[-1]["type"] == "Metadata"


TEXTS = st.sampled_from(["Yes", "no.", "Mr.", "don't", "…", "ok?", "twenty", "-"])


@given(data=st.data(), channels=st.integers(1, 3), interim=st.booleans())
def test_each_word_is_in_one_final_result_and_results_follow_each_other(
    data: st.DataObject, channels: int, interim: bool
) -> None:
    query = {"interim_results": "true"} if interim else {}
    if channels > 1:
        query |= {"channels": str(channels), "multichannel": "true"}
    talk = Conversation(listen(utterance_end_ms="500", vad_events="true", **query))
    said: list[list[tuple[str, float, float]]] = [[] for _ in range(channels)]
    now, open_at = 0.0, [0.0] * channels
    for kind in data.draw(st.lists(st.sampled_from("wwwpterfh"), max_size=40)):
        channel = data.draw(st.integers(0, channels - 1))
        marked = channel if channels > 1 else None
        now += data.draw(st.sampled_from([0.0, 0.08, 0.4, 1.6]))
        start = max(open_at[channel], now - CARD.delay_s)
        if kind == "w":
            end = start + data.draw(st.sampled_from([0.0, 0.1, 0.3]))
            now = max(now, end + CARD.delay_s)
            one = Word(data.draw(TEXTS), start, end, 0.5, marked)
            said[channel] += heard([one])
            open_at[channel] = end
            talk.tell(one)
        elif kind == "p":
            talk.tell(Partial(data.draw(TEXTS), start, marked))
        elif kind == "t":
            talk.tell(TurnStart(now, marked))
        elif kind == "e":
            talk.tell(TurnEnd(now, 0.9, marked))
        elif kind == "f":
            talk.receive(FINALIZE)
            for index in range(channels):
                talk.tell(Finalized(now, None, talk.tag, index if channels > 1 else None))
                open_at[index] = max(open_at[index], now)
        elif kind == "h":
            talk.do(talk.protocol.progress(now))
    talk.receive(CLOSE)
    talk.tell(End(now))
    assert talk.messages[-1]["type"] == "Metadata"
    for channel in range(channels):
        finals = talk.finals(channel)
        assert words_of(finals) == said[channel]
        end = 0.0
        for one in finals:
            assert one["duration"] >= 0
            assert one["start"] == pytest.approx(end, abs=2e-3)
            end = one["start"] + one["duration"]
            for _, begins, ends in words_of([one]):
                assert one["start"] - 2e-3 <= begins <= ends <= end + 2e-3


@pytest.mark.parametrize("recording", RECORDINGS)
def test_the_words_of_recordings(demo: kiku.Recognizer, recording: str) -> None:
    sound, rate = pcm(EXAMPLES / recording)
    array = np.frombuffer(sound, np.int16)
    expected = demo.transcribe(array, rate=rate)
    for step, more in [(3_201, {}), (640, {"interim_results": "true", "utterance_end_ms": "1000"}),
                       (9_999, {"endpointing": "false"})]:  # fmt: skip
        talk = LiveConversation(demo, listen(sample_rate=str(rate), **more))
        talk.hear(sound, step)
        talk.end(CLOSE)
        assert words_of(talk.finals()) == heard(expected.words)
        assert talk.messages[-1]["duration"] == pytest.approx(len(array) / rate, abs=2e-3)
        assert talk.hangup == Hangup(1000)


def test_finalize_in_the_middle_tells_all_that_was_said(demo: kiku.Recognizer) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    talk = LiveConversation(demo, listen(sample_rate=str(rate)))
    pause = int(2.8 * rate) * 2  # after "zero", of which the text is still to come
    talk.hear(sound[:pause], 3_200)
    talk.receive(FINALIZE)
    talk.hear(sound[pause:], 3_200)
    talk.end(CLOSE)
    answers = [one for one in talk.finals() if one["from_finalize"]]
    assert len(answers) == 1
    before = talk.finals()[: talk.finals().index(answers[0]) + 1]
    assert [one[0] for one in words_of(before)] == ["seven", "three", "zero"]
    assert [one[0] for one in words_of(talk.finals())] == [
        "seven", "three", "zero", "one", "nine", "four",
    ]  # fmt: skip


def test_two_channels_of_a_recording(demo: kiku.Recognizer) -> None:
    left, rate = pcm(EXAMPLES / "digits.wav")
    right, _ = pcm(EXAMPLES / "answers.mp3")
    size = max(len(left), len(right)) // 2
    both = np.zeros((size, 2), np.int16)
    for index, one in enumerate((left, right)):
        samples = np.frombuffer(one, np.int16)
        both[: len(samples), index] = samples
    expected = demo.transcribe(both, kiku.StreamOptions(channel="each"), rate=rate)
    talk = LiveConversation(demo, listen(sample_rate=str(rate), channels="2", multichannel="true"))
    talk.hear(both.tobytes(), 6_400)
    talk.end(CLOSE)
    for channel in (0, 1):
        assert words_of(talk.finals(channel)) == heard(expected.words, channel)
        assert words_of(talk.finals(channel))
