"""OpenAI's transcription without a socket: fields -> request, words -> answers."""

import inspect
import json
import math
import zlib
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.resources.audio.transcriptions import Transcriptions
from openai.types import Model
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)
from openai.types.audio.transcription_create_params import (
    ChunkingStrategyVadConfig,
    TranscriptionCreateParamsBase,
)

from kiku.options import DecodingOptions
from kiku.serve.protocols import openai_rest
from kiku.serve.protocols.interface import ModelCard, Refusal
from kiku.serve.protocols.openai_rest import PARAMETERS, TranscriptEvents, TranscriptionRequest
from kiku.serve.settings import DEFAULT_ALIASES
from kiku.text import Word
from kiku.transcription import Transcript
from tests.serve.openai_strict import strictly

MODEL = ModelCard("demo", DEFAULT_ALIASES, ("en",), created=1_700_000_000)
BOTH = ModelCard("stt-1b-en_fr", (), ("en", "fr"))
WORDS = (
    Word("Hello", 0.1234, 0.4, 0.5),
    Word("wörld.", 0.5, 0.9, 0.25),
    Word("Again", 3.0, 3.5004, 1.0),
)
TRANSCRIPT = Transcript(WORDS, 4.00049, model="demo")
SILENCE = Transcript((), 2.0, model="demo")


def encode(text: str) -> list[int]:
    """A token for each letter."""
    return list(text.encode())


def asked(*fields: tuple[str, str], model: ModelCard = MODEL) -> TranscriptionRequest:
    return TranscriptionRequest.of([("model", model.name), *fields], model)


def refused(*fields: tuple[str, str], model: ModelCard = MODEL) -> tuple[int, dict[str, Any]]:
    with pytest.raises(Refusal) as caught:
        asked(*fields, model=model)
    body: Any = caught.value.body
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return caught.value.status, body["error"]


def answer(transcript: Transcript, *fields: tuple[str, str]) -> bytes:
    return openai_rest.document(asked(*fields), transcript, encode)[0]


# Parameters.


def test_every_parameter_of_the_sdk_has_its_fate() -> None:
    known = {one.name for one in PARAMETERS}
    assert len(known) == len(PARAMETERS)
    signature = inspect.signature(Transcriptions.create).parameters
    own = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
    assert known == signature.keys() - own
    assert known == TranscriptionCreateParamsBase.__annotations__.keys() | {"stream"}
    keys = ChunkingStrategyVadConfig.__annotations__.keys()
    assert set(openai_rest._STRATEGY_KEYS) == keys  # pyright: ignore[reportPrivateUsage]


def test_what_is_not_asked_is_as_openai_has_it() -> None:
    request = asked()
    assert (request.format, request.stream, request.logprobs) == ("json", False, False)
    assert (request.words, request.segments) == (False, True)
    assert request.options.decoding.temperature == 0
    assert not request.options.decoding.hotwords


@pytest.mark.parametrize("name", ["demo", "whisper-1", "gpt-4o-transcribe",
                                  "gpt-4o-mini-transcribe-2025-12-15"])  # fmt: skip
def test_a_model_may_be_called_by_its_aliases(name: str) -> None:
    TranscriptionRequest.of([("model", name)], MODEL)


@pytest.mark.parametrize("name", ["gpt-5", "gpt-4o-transcribe-diarize"])
def test_another_model_is_not_found(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        TranscriptionRequest.of([("model", name)], MODEL)
    body: Any = caught.value.body
    assert caught.value.status == 404
    assert (body["error"]["code"], body["error"]["param"]) == ("model_not_found", "model")
    assert name in body["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("response_format", "docx")], "response_format"),
        ([("response_format", "diarized_json")], "response_format"),
        ([("temperature", "1.01")], "temperature"),
        ([("temperature", "-0.1")], "temperature"),
        ([("temperature", "nan")], "temperature"),
        ([("temperature", "hot")], "temperature"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities"),
        (
            [("response_format", "verbose_json"), ("timestamp_granularities[]", "letter")],
            "timestamp_granularities",
        ),
        ([("known_speaker_names[]", "Ann")], "known_speaker_names"),
        ([("known_speaker_references[]", "data:")], "known_speaker_references"),
        ([("include[]", "secrets")], "include"),
        ([("include[]", "logprobs"), ("response_format", "text")], "include"),
        ([("stream", "perhaps")], "stream"),
        ([("stream", "true"), ("response_format", "srt")], "response_format"),
        ([("language", "fr")], "language"),
        ([("languages[]", "fr"), ("languages[]", "de")], "languages"),
        ([("keywords[]", " ")], "keywords"),
        ([("keywords[]", "a" * 201)], "keywords"),
        ([("keywords[]", f"w{i}") for i in range(1001)], "keywords"),
        ([("chunking_strategy", "never")], "chunking_strategy"),
        ([("chunking_strategy[type]", "client_vad")], "chunking_strategy"),
        ([("chunking_strategy[threshold]", "0.5")], "chunking_strategy"),
        ([("chunking_strategy", "{broken")], "chunking_strategy"),
        ([("chunking_strategy", '{"type": "server_vad", "x": 1}')], "chunking_strategy"),
        ([("temperature", "0"), ("temperature", "1")], "temperature"),
        ([("vad_filter", "true")], "vad_filter"),
        ([("temperature[]", "0")], "temperature[]"),
        ([("keywords[0]", "a")], "keywords[0]"),
        ([("model", "demo")], "model"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_it(
    fields: list[tuple[str, str]], param: str
) -> None:
    status, error = refused(*fields)
    assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert param.partition("[")[0] in error["message"] or "diarized" in error["message"]


def test_a_missing_model_is_named() -> None:
    with pytest.raises(Refusal) as caught:
        TranscriptionRequest.of([("model", "")], MODEL)
    body: Any = caught.value.body
    assert (caught.value.status, body["error"]["param"]) == (400, "model")


def test_diarized_json_is_named() -> None:
    assert "diarized_json" in refused(("response_format", "diarized_json"))[1]["message"]


def test_keywords_are_hotwords() -> None:
    request = asked(("keywords[]", "Kyutai"), ("keywords", "moshi"))
    expected = DecodingOptions(hotwords=("Kyutai", "moshi"))
    assert request.options.decoding.to_dict() == expected.to_dict()


def test_the_temperature_is_honoured() -> None:
    assert asked(("temperature", "0.25")).options.decoding.temperature == 0.25
    assert asked(("temperature", "1")).options.decoding.temperature == 1
    assert asked(("temperature", "")).options.decoding.temperature == 0


def test_hints_change_nothing() -> None:
    plain, hinted = asked(), asked(
        ("prompt", "Kyutai"), ("language", "en-US"), ("chunking_strategy", "auto"),
    )  # fmt: skip
    assert plain.options.to_dict() == hinted.options.to_dict()
    asked(("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.5"))
    asked(("chunking_strategy", '{"type": "server_vad", "threshold": 0.5}'))


@pytest.mark.parametrize(
    ("fields", "language"),
    [
        ([], ""),
        ([("language", "fr")], "french"),
        ([("language", "EN_us")], "english"),
        ([("language", "French")], "french"),
        ([("languages[]", "fr")], "french"),
        ([("languages[]", "fr"), ("languages[]", "en")], ""),
        ([("languages[]", "de"), ("languages[]", "fr")], "french"),
    ],
)
def test_the_language_is_what_was_asked(fields: list[tuple[str, str]], language: str) -> None:
    assert asked(*fields, model=BOTH).language == language


def test_the_only_language_needs_no_asking() -> None:
    assert asked().language == "english"
    assert asked(model=ModelCard("x", languages=("xx",))).language == "xx"


@given(st.lists(st.tuples(
    st.sampled_from([one.name + end for one in PARAMETERS for end in ("", "[]", "[type]", "[")])
    | st.text(max_size=10),
    st.sampled_from(["true", "json", "verbose_json", "{", "[1]", "word", "en", "0.5"])
    | st.text(max_size=20),
), max_size=8))  # fmt: skip
def test_any_fields_give_a_request_or_a_refusal(fields: list[tuple[str, str]]) -> None:
    try:
        request = TranscriptionRequest.of([("model", "demo"), *fields], MODEL)
    except Refusal as caught:
        refusal = caught
    else:
        openai_rest.document(request, TRANSCRIPT, encode)
        return
    assert refusal.status in (400, 404)
    json.dumps(refusal.body).encode()


# Documents.


def test_json() -> None:
    found = strictly(Transcription, answer(TRANSCRIPT))
    assert found.text == "Hello wörld. Again"
    assert found.usage is not None
    assert found.usage.to_dict() == {"type": "duration", "seconds": 4.0}
    assert found.logprobs is None


def test_json_with_logprobs() -> None:
    found = strictly(Transcription, answer(TRANSCRIPT, ("include[]", "logprobs")))
    assert found.logprobs is not None
    assert "".join(str(one.token) for one in found.logprobs) == found.text
    joined = b"".join(bytes(map(int, one.bytes or [])) for one in found.logprobs)
    assert joined.decode() == found.text
    assert [one.logprob for one in found.logprobs] == [math.log(0.5), math.log(0.25), 0]


def test_logprobs_are_numbers_or_nothing() -> None:
    odd = Transcript((Word("a", 0, 1, 0.0), Word("b", 1, 2, math.nan)), 2.0)
    found = strictly(Transcription, answer(odd, ("include[]", "logprobs")))
    assert found.logprobs is not None
    assert found.logprobs[0].logprob is not None
    assert found.logprobs[0].logprob < -60
    assert found.logprobs[1].logprob is None
    verbose = strictly(TranscriptionVerbose, answer(odd, ("response_format", "verbose_json")))
    assert verbose.segments is not None
    assert math.isfinite(verbose.segments[0].avg_logprob)


@pytest.mark.parametrize(
    ("wanted", "words", "segments"),
    [
        ([], False, True),
        (["word"], True, False),
        (["segment"], False, True),
        (["segment", "word"], True, True),
    ],
)
def test_verbose_json_has_what_was_asked(wanted: list[str], words: bool, segments: bool) -> None:
    fields = [("timestamp_granularities[]", one) for one in wanted]
    raw = answer(TRANSCRIPT, ("response_format", "verbose_json"), *fields)
    found = strictly(TranscriptionVerbose, raw)
    assert (found.words is not None, found.segments is not None) == (words, segments)
    assert ("words" in json.loads(raw), "segments" in json.loads(raw)) == (words, segments)
    assert (found.text, found.duration, found.language) == (TRANSCRIPT.text, 4.0, "english")
    assert found.usage is not None
    assert found.usage.seconds == 4.0


def test_words_and_segments_spell_the_text() -> None:
    fields = [("timestamp_granularities[]", one) for one in ("word", "segment")]
    raw = answer(TRANSCRIPT, ("response_format", "verbose_json"), ("temperature", "0.5"), *fields)
    found = strictly(TranscriptionVerbose, raw)
    assert found.words is not None
    assert found.segments is not None
    assert " ".join(word.word for word in found.words) == found.text
    assert "".join(one.text for one in found.segments) == f" {found.text}"
    assert [(word.start, word.end) for word in found.words] == [(0.123, 0.4), (0.5, 0.9), (3, 3.5)]
    assert [one.id for one in found.segments] == [0, 1]
    first, second = found.segments
    assert (first.start, first.end, first.seek) == (0.123, 0.9, 12)
    assert (second.start, second.end, second.seek) == (3.0, 3.5, 300)
    assert first.tokens == encode("Hello wörld.")
    assert first.temperature == 0.5
    assert first.avg_logprob == pytest.approx(math.log(0.125) / len(first.tokens))
    data = first.text.encode()
    assert first.compression_ratio == pytest.approx(len(data) / len(zlib.compress(data)))


@pytest.mark.parametrize("format", ["text", "srt", "vtt"])
def test_plain_formats_are_text(format: str) -> None:
    body, kind = openai_rest.document(asked(("response_format", format)), TRANSCRIPT, encode)
    assert kind.startswith("text/plain")
    wanted = {
        "text": TRANSCRIPT.text, "srt": TRANSCRIPT.to_srt(), "vtt": TRANSCRIPT.to_vtt(),
    }  # fmt: skip
    assert body.decode() == wanted[format]


def test_silence_gives_an_empty_text() -> None:
    assert answer(SILENCE, ("response_format", "text")) == b""
    assert strictly(Transcription, answer(SILENCE)).text == ""
    found = strictly(TranscriptionVerbose, answer(SILENCE, ("response_format", "verbose_json")))
    assert (found.text, found.segments, found.duration) == ("", [], 2.0)


# Events.


def events(*chunks: bytes) -> list[bytes]:
    """The data of each event."""
    whole = b"".join(chunks)
    assert whole.endswith(b"\n\n")
    lines = whole.removesuffix(b"\n\n").split(b"\n\n")
    assert all(line.startswith(b"data: ") and b"\n" not in line for line in lines)
    return [line.removeprefix(b"data: ") for line in lines]


@pytest.mark.parametrize("logprobs", [False, True])
def test_deltas_joined_are_the_text(logprobs: bool) -> None:
    fields = [("include[]", "logprobs")] if logprobs else []
    told = TranscriptEvents(asked(("stream", "true"), *fields))
    *said, last = events(*map(told.word, WORDS), told.done(50, encode))
    deltas = [strictly(TranscriptionTextDeltaEvent, one) for one in said]
    done = strictly(TranscriptionTextDoneEvent, last)
    assert [one.delta for one in deltas] == ["Hello", " wörld.", " Again"]
    assert "".join(one.delta for one in deltas) == done.text == TRANSCRIPT.text
    assert done.usage is not None
    usage = done.usage
    assert (usage.type, usage.input_tokens) == ("tokens", 50)
    assert usage.output_tokens == len(encode(done.text))
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    if not logprobs:
        assert all(one.logprobs is None for one in [*deltas, done])
        return
    assert done.logprobs is not None
    assert [one.token for one in done.logprobs] == [one.delta for one in deltas]
    in_deltas = [token.to_dict() for one in deltas for token in one.logprobs or []]
    assert in_deltas == [token.to_dict() for token in done.logprobs]
    spelled = b"".join(bytes(token.bytes or []) for token in done.logprobs)
    assert spelled.decode() == done.text


def test_silence_is_told_once() -> None:
    (only,) = events(TranscriptEvents(asked(("stream", "1"))).done(25, encode))
    done = strictly(TranscriptionTextDoneEvent, only)
    assert done.text == ""
    assert done.usage is not None
    assert (done.usage.output_tokens, done.usage.total_tokens) == (0, 25)


def test_a_failure_is_an_error_that_clients_raise() -> None:
    (only,) = events(TranscriptEvents.failed(openai_rest.error(500, "it broke")))
    assert json.loads(only)["error"]["message"] == "it broke"


# Errors and models.


def test_errors_by_status() -> None:
    for refusal, status, kind in [
        (openai_rest.too_slow(), 408, "invalid_request_error"),
        (openai_rest.unknown_url("GET", "/v1/x"), 404, "invalid_request_error"),
        (openai_rest.wrong_method("GET", "/v1/x", ["POST"]), 405, "invalid_request_error"),
        (openai_rest.too_large(10), 413, "invalid_request_error"),
        (openai_rest.busy(7), 503, "server_error"),
    ]:
        body: Any = refusal.body
        assert (refusal.status, body["error"]["type"]) == (status, kind)
        assert body["error"].keys() == {"message", "type", "param", "code"}
    assert openai_rest.busy(7).headers == {"retry-after": "7"}
    assert openai_rest.wrong_method("GET", "/", ["POST", "PUT"]).headers == {"allow": "POST, PUT"}


def test_the_model_has_its_real_name() -> None:
    listed = openai_rest.model_list(MODEL)
    assert listed["object"] == "list"
    (one,) = listed["data"]
    found = strictly(Model, json.dumps(one))
    assert (found.id, found.created, found.object) == ("demo", 1_700_000_000, "model")


def test_the_version_of_the_sdk_is_the_one_that_was_read() -> None:
    assert openai.__version__.startswith("3.")
