"""Deepgram's protocol of turns: their order, their text, and what clients send."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kiku
from kiku.audio import StreamWarning
from kiku.errors import (
    AudioError,
    ConfigError,
    QueueFull,
    StreamClosed,
    StreamError,
    TruncatedAudio,
)
from kiku.options import AudioFormat, Hotword
from kiku.serve.protocols.deepgram_flux import IDLE_S, MAX_TURN_WORDS
from kiku.serve.protocols.deepgram_sound import written_header
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
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word
from tests.serve.conftest import EXAMPLES
from tests.serve.deepgram_talk import (
    CLOSE,
    FORCE,
    Conversation,
    LiveConversation,
    flux,
    heard,
    pcm,
)

LETTERS = {"StartOfTurn": "S", "Update": "U", "EagerEndOfTurn": "E", "TurnResumed": "R",
           "EndOfTurn": "T"}  # fmt: skip


def word(text: str, start: float, sure: float = 0.5) -> Word:
    """A word of 0.3 s."""
    return Word(text, start, start + 0.3, sure)


def turns(talk: Conversation) -> list[dict[str, Any]]:
    """What was told of turns."""
    return [one for one in talk.messages if one["type"] == "TurnInfo"]


def order(messages: Sequence[dict[str, Any]]) -> str:
    """The events, a letter each."""
    return "".join(LETTERS[one["event"]] for one in messages if one["type"] == "TurnInfo")


def check_laws(talk: Conversation, ended: bool) -> None:
    """What holds of every conversation."""
    assert [one["sequence_id"] for one in talk.messages] == list(range(len(talk.messages)))
    assert talk.messages[0]["type"] == "Connected"
    told = turns(talk)
    whole = r"(S(U|ER)*E?T)*"
    assert re.fullmatch(whole if ended else whole + r"(S(U|ER)*E?)?", order(told)), order(told)
    start = end = 0.0
    eager: str | None = None
    index = 0
    for one in told:
        assert one["turn_index"] == index
        assert one["audio_window_start"] == pytest.approx(start, abs=1e-9)
        assert one["audio_window_end"] >= end
        end = one["audio_window_end"]
        assert one["transcript"] == " ".join(word["word"] for word in one["words"])
        assert ("trigger" in one) == (one["event"] == "EndOfTurn")
        if one["event"] == "EagerEndOfTurn":
            assert one["transcript"]
            eager = one["transcript"]
        elif one["event"] == "EndOfTurn":
            assert one["trigger"] in ("model", "manual", "timeout")
            assert eager is None or one["transcript"] == eager
            index, start, eager = index + 1, end, None
        else:
            eager = None


def test_connected_comes_first() -> None:
    talk = Conversation(flux())
    assert talk.messages == [{"type": "Connected", "request_id": "4b6c", "sequence_id": 0}]


def test_a_turn_is_whole() -> None:
    talk = Conversation(flux(eager_eot_threshold="0.5"))
    talk.tell(Partial("he", 0.5), TurnStart(0.5), word("Hello,", 0.5), word("you", 1.0, 0.25),
              TurnEndEager(2.0, 0.61), TurnEnd(2.4, 0.72))  # fmt: skip
    assert order(talk.messages) == "SUUET"
    start, *_, eager, end = turns(talk)
    assert start["transcript"] == "he"
    assert end == {
        "type": "TurnInfo",
        "request_id": "4b6c",
        "sequence_id": 5,
        "event": "EndOfTurn",
        "turn_index": 0,
        "audio_window_start": 0.0,
        "audio_window_end": 1.9,
        "transcript": "Hello, you",
        "words": [
            {"word": "Hello,", "confidence": 0.5, "start": 0.5, "end": 0.8},
            {"word": "you", "confidence": 0.25, "start": 1.0, "end": 1.3},
        ],
        "end_of_turn_confidence": 0.72,
        "trigger": "model",
    }
    assert (eager["words"], eager["end_of_turn_confidence"]) == (end["words"], 0.61)
    check_laws(talk, ended=True)


def test_eager_ends_come_only_if_they_are_asked_for() -> None:
    events: list[Event] = [word("hello", 0.5), TurnEndEager(1.5, 0.6), TurnResumed(1.7),
                           word("you", 2.0), TurnEnd(3.5, 0.8)]  # fmt: skip
    plain = Conversation(flux())
    plain.tell(*events)
    assert order(plain.messages) == "SUT"
    eager = Conversation(flux(eager_eot_threshold="0.4"))
    eager.tell(*events)
    assert order(eager.messages) == "SERUT"


def test_text_takes_an_eager_end_back_before_the_stream_says_so() -> None:
    talk = Conversation(flux(eager_eot_threshold="0.4"))
    talk.tell(word("hello", 0.5), TurnEndEager(1.5, 0.6), Partial("y", 1.2), TurnResumed(1.8),
              word("you", 1.2))  # fmt: skip
    assert order(talk.messages) == "SERU"
    assert [one["transcript"] for one in turns(talk)] == ["hello", "hello", "hello", "hello you"]


def test_an_eager_end_comes_once_and_with_words_that_are_certain() -> None:
    talk = Conversation(flux(eager_eot_threshold="0.4"))
    assert talk.tell(TurnEndEager(0.4, 0.6)) == []
    talk.tell(word("hello", 0.5), Partial("y", 1.0), TurnEndEager(1.4, 0.6))
    assert order(talk.messages) == "S"
    talk.tell(word("you", 1.0), TurnEndEager(2.4, 0.6), TurnEndEager(2.6, 0.7), TurnEnd(2.8, 0.8))
    assert order(talk.messages) == "SUET"


def test_a_turn_can_be_ended_by_the_client() -> None:
    talk = Conversation(flux())
    assert talk.receive(FORCE) == []
    assert talk.asks == [FinalizeStream(talk.tag, cut=True)]
    assert talk.tell(Finalized(0.5, None, talk.tag)) == []  # there is no turn
    talk.tell(word("hello", 0.5))
    talk.receive(FORCE)
    [end] = talk.tell(Finalized(1.5, None, talk.tag))
    assert (end["event"], end["trigger"], end["audio_window_end"]) == ("EndOfTurn", "manual", 1.5)
    # The stream's own turn goes on, and ends without a turn of the client's.
    assert talk.tell(TurnEndEager(2.0, 0.7), TurnEnd(2.4, 0.8)) == []
    talk.tell(word("you", 3.0), TurnEnd(5.0, 0.8))
    assert order(talk.messages) == "STST"
    assert turns(talk)[-1]["trigger"] == "model"
    check_laws(talk, ended=True)


def test_an_end_that_a_force_brings_about_is_manual() -> None:
    talk = Conversation(flux())
    talk.tell(word("hello", 0.5))
    talk.receive(FORCE)
    told = talk.tell(word("you", 0.9), TurnEnd(1.5, 0.8), Finalized(1.5, None, talk.tag))
    assert [(one["event"], one.get("trigger")) for one in told] == [
        ("Update", None), ("EndOfTurn", "manual"),
    ]  # fmt: skip


@pytest.mark.parametrize("error", [QueueFull("too many"), StreamClosed("the end")])
def test_a_force_that_is_rejected_is_forgotten(error: Exception) -> None:
    talk = Conversation(flux())
    talk.receive(FORCE)
    [warning] = talk.do(talk.protocol.rejected(error))
    assert (warning["type"], warning["description"]) == ("Warning", str(error))
    talk.tell(word("hello", 0.5), TurnEnd(2.0, 0.8))
    assert turns(talk)[-1]["trigger"] == "model"


def test_a_force_of_a_stream_that_is_given_up_is_forgotten() -> None:
    talk = Conversation(flux())
    talk.receive(FORCE, written_header(AudioFormat(encoding="mulaw", sample_rate=8_000), 0))
    assert isinstance(talk.asks[-1], Open)
    talk.tell(word("hello", 0.5), TurnEnd(2.0, 0.8))
    assert turns(talk)[-1]["trigger"] == "model"


def test_turns_after_two_forces_at_one_place_end_by_themselves(demo: kiku.Recognizer) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    pause = int(2.8 * rate) * 2
    talk = LiveConversation(demo, flux(sample_rate=str(rate)))
    talk.hear(sound[:pause], 3_200)
    talk.receive(FORCE, FORCE)
    talk.hear(sound[pause:] + bytes(6 * rate), 3_200)
    ends = [one for one in turns(talk) if one["event"] == "EndOfTurn"]
    assert [one["trigger"] for one in ends] == ["manual", "model"]


def test_a_force_waits_for_a_word_that_is_certain() -> None:
    talk = Conversation(flux())
    talk.tell(Partial("hel", 0.5))
    talk.receive(FORCE)
    assert talk.tell(Finalized(0.7, Partial("hel", 0.5), talk.tag)) == []
    talk.tell(word("hello", 0.5), TurnEnd(2.0, 0.8))
    assert order(talk.messages) == "SUT"


def test_a_turn_ends_after_a_while_without_words() -> None:
    talk = Conversation(flux(eot_timeout_ms="700"))
    assert talk.protocol.wants_progress
    talk.tell(word("hello", 0.5))
    assert talk.do(talk.protocol.progress(1.9)) == []
    assert talk.do(talk.protocol.progress(2.1)) == []  # its text may still be on its way
    [end] = talk.do(talk.protocol.progress(2.25))
    assert (end["event"], end["trigger"]) == ("EndOfTurn", "timeout")
    assert talk.do(talk.protocol.progress(9.0)) == []
    assert talk.tell(TurnEnd(9.0, 0.9)) == []
    talk.tell(Partial("y", 9.0))
    assert talk.do(talk.protocol.progress(20.0)) == []  # somebody speaks


def test_a_threshold_of_one_leaves_ends_to_the_client() -> None:
    talk = Conversation(flux(eot_threshold="1.0"))
    talk.tell(word("hello", 0.5))
    assert talk.tell(TurnEnd(2.0, 0.99)) == []
    [update] = talk.tell(word("you", 2.5))
    assert (update["event"], update["transcript"]) == ("Update", "hello you")
    talk.receive(FORCE)
    assert [one["trigger"] for one in talk.tell(Finalized(3.5, None, talk.tag))] == ["manual"]


def test_a_turn_does_not_grow_without_bound() -> None:
    protocol = flux()
    for index in range(MAX_TURN_WORDS - 1):
        protocol.event(word("on", 0.4 * index), 0.0)
    talk = Conversation(protocol)
    assert order(talk.tell(word("on", 0.4 * MAX_TURN_WORDS))) == "UT"
    assert order(talk.tell(word("on", 0.4 * MAX_TURN_WORDS))) == "S"


def test_close_stream_ends_the_turn_and_the_connection() -> None:
    talk = Conversation(flux())
    talk.tell(word("hello", 0.5))
    talk.receive(b"ab", CLOSE, b"cd", FORCE, "nonsense")
    assert talk.asks == [Push(b"ab"), Close()]
    talk.tell(word("you", 1.0), TurnEnd(1.5, 1.0), End(1.5))
    assert order(talk.messages) == "SUT"
    assert talk.hangup == Hangup(1000)
    check_laws(talk, ended=True)


def test_settings_are_changed() -> None:
    talk = Conversation(flux(keyterm="old"))
    wanted = {"type": "Configure", "keyterms": ["Kyutai"], "language_hints": None,
              "numerals": None, "thresholds": {"eager_eot_threshold": 0.5, "eot_threshold": 1.0,
                                               "eot_timeout_ms": 900}}  # fmt: skip
    assert talk.receive(json.dumps(wanted)) == []
    [asked] = talk.asks
    assert isinstance(asked, Decode)
    assert asked.options.phrases == (Hotword("Kyutai"),)
    [pending] = talk.receive('{"type":"Configure","keyterms":"x"}')
    assert pending["type"] == "ConfigureFailure"
    [done] = talk.do(talk.protocol.decoded())
    assert done == {
        "type": "ConfigureSuccess", "request_id": "4b6c", "sequence_id": 2, "keyterms": ["Kyutai"],
        "thresholds": {"eager_eot_threshold": 0.5, "eot_threshold": 1.0, "eot_timeout_ms": 900},
    }  # fmt: skip
    talk.tell(word("hello", 0.5), TurnEndEager(1.5, 0.7), TurnEnd(2.0, 0.9))
    assert order(talk.messages) == "SE"
    assert [one["trigger"] for one in talk.do(talk.protocol.progress(2.5))] == ["timeout"]
    [back] = talk.receive('{"type":"Configure","thresholds":{"eot_threshold":0.7}}')
    assert back["thresholds"]["eot_threshold"] == 0.7
    talk.tell(word("hello", 3.0), TurnEnd(4.0, 0.9))
    assert order(talk.messages) == "SETST"


def configure(**thresholds: float) -> str:
    return json.dumps({"type": "Configure", "thresholds": thresholds})


SECOND = bytes(32_000)


def test_settings_hold_for_the_sound_behind_them() -> None:
    talk = Conversation(flux())
    [told] = talk.receive(SECOND, SECOND, configure(eot_threshold=1.0, eager_eot_threshold=0.5))[:1]
    assert told["thresholds"]["eot_threshold"] == 1.0
    talk.tell(word("hello", 0.5), TurnEndEager(1.0, 0.6), TurnEnd(2.0, 0.8))
    assert order(talk.messages) == "ST"
    talk.tell(word("you", 2.0), TurnEndEager(2.9, 0.6), TurnEnd(3.5, 0.8))
    assert order(talk.messages) == "STSE"
    check_laws(talk, ended=False)


def test_each_time_out_holds_for_its_own_sound() -> None:
    talk = Conversation(flux(eot_timeout_ms="1000"))
    told = talk.receive(
        *[SECOND] * 5, configure(eot_timeout_ms=60_000), configure(eot_timeout_ms=50e3),
        *[SECOND] * 5, configure(eot_timeout_ms=1_000),
    )  # fmt: skip
    assert [one["thresholds"]["eot_timeout_ms"] for one in told] == [60_000, 50_000, 1_000]
    talk.tell(word("hello", 0.5))
    [first] = talk.do(talk.protocol.progress(9.0))  # many seconds at once
    assert (first["trigger"], first["audio_window_end"]) == ("timeout", 1.8)
    talk.tell(word("you", 6.0))
    assert talk.do(talk.protocol.progress(10.0)) == []
    [second] = talk.do(talk.protocol.progress(10.1))
    assert (second["trigger"], second["transcript"]) == ("timeout", "you")


def test_settings_of_a_recording_hold_at_once() -> None:
    talk = Conversation(flux(encoding="ogg-opus"))
    talk.receive(b"OggS", configure(eot_threshold=1.0))
    talk.tell(word("hello", 0.5), TurnEnd(0.9, 0.8))
    assert order(talk.messages) == "S"


def test_settings_among_sound_that_comes_at_once_hold_as_if_it_were_spoken(
    demo: kiku.Recognizer,
) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    silence = bytes(3 * rate * 2)
    pieces = [sound + silence, configure(eot_threshold=1.0), sound + silence, sound]
    ends: list[list[str]] = []
    for at_once in (False, True):
        talk = LiveConversation(demo, flux(sample_rate=str(rate)))
        for one in pieces:
            if isinstance(one, str) or at_once:
                talk.receive(one)
            else:
                talk.hear(one, 3_200)
        talk.end(CLOSE)
        ends.append([one["transcript"] for one in turns(talk) if one["event"] == "EndOfTurn"])
    digits = "seven three zero one nine four"
    assert ends == [[digits, f"{digits} {digits}"]] * 2


def test_damaged_sound_is_no_answer_to_configure() -> None:
    talk = Conversation(flux())
    talk.receive('{"type":"Configure","keyterms":"Kyutai"}')
    [warning] = talk.do(talk.protocol.rejected(AudioError("damaged")))
    assert warning["type"] == "Warning"
    [done] = talk.do(talk.protocol.decoded())
    assert (done["type"], done["keyterms"]) == ("ConfigureSuccess", ["Kyutai"])


def test_what_a_client_writes_is_not_told_again_at_length() -> None:
    talk = Conversation(flux())
    talk.receive(json.dumps({"type": "Configure", "keyterms": [" " * 10**6, "Kyutai ", "\t"]}))
    [done] = talk.do(talk.protocol.decoded())
    assert done["keyterms"] == ["Kyutai"]
    [error] = talk.receive(json.dumps({"type": "x" * 10**6}))
    assert len(json.dumps(error)) < 2_500


def test_key_terms_that_the_model_cannot_expect_are_taken_back() -> None:
    talk = Conversation(flux(keyterm="old"))
    talk.receive('{"type":"Configure","keyterms":"new"}')
    [failure] = talk.do(talk.protocol.rejected(ConfigError("this model expects nothing")))
    assert (failure["type"], failure["description"]) == (
        "ConfigureFailure", "this model expects nothing",
    )  # fmt: skip
    [told] = talk.receive('{"type":"Configure"}')
    assert told["keyterms"] == ["old"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"thresholds": {"eot_threshold": 0.8}},
        {"thresholds": {"eot_timeout_ms": 10}},
        {"thresholds": {"eager_eot_threshold": 0.6}},
        {"numerals": True},
        {"keyterms": ["x"] * 1_001},
    ],
)
def test_settings_that_cannot_be_changed_change_nothing(wanted: dict[str, Any]) -> None:
    talk = Conversation(flux(eager_eot_threshold="0.5"))
    [failure] = talk.receive(json.dumps({"type": "Configure", **wanted}))
    assert failure["type"] == "ConfigureFailure"
    assert failure["description"]
    assert talk.asks == []
    [told] = talk.receive('{"type":"Configure"}')
    assert told["thresholds"] == {
        "eot_threshold": 0.7, "eot_timeout_ms": 5_000, "eager_eot_threshold": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "x", "{}", '{"type":"KeepAlive"}', "[" * 5_000])
def test_text_that_is_no_message_is_a_warning(text: str) -> None:
    talk = Conversation(flux())
    [warning] = talk.receive(text)
    assert (warning["type"], warning["code"]) == ("Warning", "UNPARSABLE_CLIENT_MESSAGE")
    assert warning["description"].endswith(text[:1000])
    assert talk.hangup is None


def test_what_is_wrong_with_the_sound_is_a_warning() -> None:
    talk = Conversation(flux())
    [warning] = talk.tell(StreamWarning("clipped", "flat tops", 2.0))
    assert (warning["type"], warning["code"]) == ("Warning", "AUDIO_CLIPPED")
    assert warning["description"] == "flat tops"
    check_laws(talk, ended=False)


def test_sound_that_is_none_is_a_warning() -> None:
    talk = Conversation(flux(encoding="ogg-opus"))
    [warning] = talk.do(talk.protocol.rejected(AudioError("no ogg")))
    assert (warning["type"], warning["code"]) == ("Warning", "UNREADABLE_AUDIO")
    [warning] = talk.do(talk.protocol.rejected(StreamError("no")))
    assert warning["code"] == "REJECTED"
    talk.receive(b"no sound", CLOSE)
    assert talk.do(talk.protocol.rejected(TruncatedAudio("cut"))) == []
    assert len(talk.do(talk.protocol.rejected(AudioError("no ogg")))) == 1


def test_a_client_may_close_without_any_sound() -> None:
    talk = Conversation(flux(encoding="ogg-opus"))
    talk.receive(CLOSE)
    assert talk.do(talk.protocol.rejected(AudioError("it is empty"))) == []
    talk.tell(End(0.0))
    assert talk.hangup == Hangup(1000)


def test_a_client_that_sends_nothing_is_told_why_it_is_left() -> None:
    talk = Conversation(flux())
    assert talk.protocol.quiet_after_s == (IDLE_S,)
    talk.tell(word("hello", 0.5))
    assert talk.do(talk.protocol.quiet(IDLE_S)) == []
    assert talk.asks == [Close()]
    told = talk.tell(End(1.0))
    assert [one["type"] for one in told] == ["TurnInfo", "Error"]
    assert told[1]["code"] == "NET-0001"
    assert talk.hangup is not None
    assert talk.hangup.code == 1011
    check_laws(talk, ended=True)


def test_a_failure_ends_the_turn_and_is_fatal() -> None:
    for error, code, kinds in [(StreamError("broken"), 1011, ["TurnInfo", "Error"]),
                               (ServerEnds("later"), 1012, ["TurnInfo"])]:  # fmt: skip
        talk = Conversation(flux())
        talk.tell(word("hello", 0.5))
        assert [one["type"] for one in talk.do(talk.protocol.failed(error))] == kinds
        assert talk.hangup is not None
        assert (talk.hangup.code, str(error) in talk.hangup.reason) == (code, True)
        check_laws(talk, ended=True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
fields = {
    "thresholds": st.dictionaries(
        st.sampled_from(["eot_threshold", "eager_eot_threshold", "eot_timeout_ms"]),
        st.floats() | st.integers() | st.none() | st.sampled_from([0.7, 1.0, 0.5]),
    ),
    "keyterms": st.lists(st.text(max_size=5), max_size=3) | st.text(max_size=5),
}
sent = (
    st.binary(max_size=64)
    | st.text()
    | json_values.map(json.dumps)
    | st.fixed_dictionaries({}, optional=fields).map(
        lambda more: json.dumps({"type": "Configure", **more})
    )
    | st.sampled_from([FORCE, CLOSE])
)


@given(messages=st.lists(sent, max_size=12))
def test_any_message_is_done_or_told(messages: list[str | bytes]) -> None:
    talk = Conversation(flux())
    for one in messages:
        before = len(talk.asks)
        talk.receive(one)
        if any(isinstance(ask, Decode) for ask in talk.asks[before:]):
            talk.do(talk.protocol.decoded())
    assert talk.hangup is None
    assert sum(isinstance(one, Close) for one in talk.asks) <= 1
    talk.tell(End(0.0))
    check_laws(talk, ended=True)


@given(data=st.data(), query=st.sampled_from([{}, {"eager_eot_threshold": "0.5"},
                                              {"eot_threshold": "1.0"}]))  # fmt: skip
def test_turns_come_in_order_whatever_the_stream_says(
    data: st.DataObject, query: dict[str, str]
) -> None:
    talk = Conversation(flux(eot_timeout_ms="500", **query))
    said: list[tuple[str, float, float]] = []
    now, open_at = 0.0, 0.0
    for kind in data.draw(st.lists(st.sampled_from("wwwpserthf"), max_size=40)):
        now += data.draw(st.sampled_from([0.0, 0.08, 0.4, 1.6]))
        start = max(open_at, now - 0.5)
        match kind:
            case "w":
                one = Word("on", start, start + 0.1, 0.5)
                open_at, now = one.end, max(now, one.end + 0.5)
                said += heard([one])
                talk.tell(one)
            case "p":
                talk.tell(Partial("o", start))
            case "s":
                talk.tell(TurnStart(now))
            case "e":
                talk.tell(TurnEndEager(now, 0.6))
            case "r":
                talk.tell(TurnResumed(now))
            case "t":
                talk.tell(TurnEnd(now, 0.8))
            case "h":
                talk.do(talk.protocol.progress(now))
            case _:
                talk.receive(FORCE)
                talk.tell(Finalized(now, None, talk.tag))
        check_laws(talk, ended=False)
    talk.receive(CLOSE)
    talk.tell(End(now))
    check_laws(talk, ended=True)
    assert said == words_of(talk)


def words_of(talk: Conversation) -> list[tuple[str, float, float]]:
    """Words and times of the turns that have ended."""
    return [
        (word["word"], word["start"], word["end"])
        for one in turns(talk)
        if one["event"] == "EndOfTurn"
        for word in one["words"]
    ]


@pytest.mark.parametrize("recording", ["answers.mp3", "digits.wav"])
def test_the_words_of_recordings(demo: kiku.Recognizer, recording: str) -> None:
    sound, rate = pcm(EXAMPLES / recording)
    twice = sound + bytes(int(2.5 * rate) * 2) + sound
    expected = [word[0] for word in heard(demo.transcribe(EXAMPLES / recording).words)]
    for step, query in [(3_200, {"eager_eot_threshold": "0.4"}), (6_401, {})]:
        talk = LiveConversation(demo, flux(sample_rate=str(rate), **query))
        talk.hear(twice, step)
        talk.end(CLOSE)
        check_laws(talk, ended=True)
        assert [word[0] for word in words_of(talk)] == expected * 2
        assert order(talk.messages).count("T") >= 2
        assert talk.hangup == Hangup(1000)


def test_a_client_can_end_turns_itself(demo: kiku.Recognizer) -> None:
    sound, rate = pcm(EXAMPLES / "digits.wav")
    pause = int(2.8 * rate) * 2  # after "zero", of which the text is still to come
    talk = LiveConversation(demo, flux(sample_rate=str(rate), eot_threshold="1.0"))
    talk.hear(sound[:pause], 3_200)
    talk.receive(FORCE)
    talk.hear(sound[pause:], 3_200)
    talk.end(CLOSE)
    check_laws(talk, ended=True)
    ends = [one for one in turns(talk) if one["event"] == "EndOfTurn"]
    assert [one["transcript"] for one in ends] == ["seven three zero", "one nine four"]
    assert ends[0]["trigger"] == "manual"
