"""Deepgram's parameters: every one that the SDK knows, and what becomes of it."""

import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kiku
from kiku.errors import ConfigError, StreamError
from kiku.options import AudioFormat, Hotword
from kiku.serve.protocols import deepgram, deepgram_flux, deepgram_rest
from kiku.serve.protocols.deepgram_parameters import (
    FILE_PARAMETERS,
    FLUX_PARAMETERS,
    LISTEN_PARAMETERS,
)
from kiku.serve.protocols.deepgram_query import (
    busy,
    file_query,
    flux_query,
    listen_query,
    pause_policy,
    unsupported,
)
from kiku.serve.protocols.interface import ClientRequest, ModelCard, Refusal
from kiku.serve.protocols.parameters import Parameter
from tests.serve.deepgram_sdk import MediaClient, V1Client, V2Client

CARD = ModelCard("demo", ("nova-*", "flux-*"), ("en", "fr"))
OWN = {"authorization", "request_options", "self", "url", "request"}
RAW = {"encoding": "linear16", "sample_rate": "16000"}

Read = Callable[[ClientRequest, ModelCard], Any]
DOORS: list[tuple[Read, tuple[Parameter, ...]]] = [
    (listen_query, LISTEN_PARAMETERS),
    (flux_query, FLUX_PARAMETERS),
    (file_query, FILE_PARAMETERS),
]


def asked(**query: str | list[str]) -> ClientRequest:
    """A request with these parameters."""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        pairs += [(name, one) for one in ([value] if isinstance(value, str) else value)]
    return ClientRequest("/v1/listen", tuple(pairs), id="an id")


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        (V1Client.connect, LISTEN_PARAMETERS),
        (V2Client.connect, FLUX_PARAMETERS),
        (MediaClient.transcribe_file, FILE_PARAMETERS),
        (MediaClient.transcribe_url, FILE_PARAMETERS),
    ],
)
def test_every_parameter_of_the_sdk_is_in_the_table(
    call: Callable[..., Any], parameters: tuple[Parameter, ...]
) -> None:
    known = [one.name for one in parameters]
    assert len(known) == len(set(known))
    assert set(inspect.signature(call).parameters) - OWN <= set(known)


def test_the_protocols_have_their_tables() -> None:
    assert deepgram.PARAMETERS is LISTEN_PARAMETERS
    assert deepgram_flux.PARAMETERS is FLUX_PARAMETERS
    assert deepgram_rest.PARAMETERS is FILE_PARAMETERS


@pytest.mark.parametrize(("read", "parameters"), DOORS)
def test_what_is_refused_is_refused_by_its_name_and_only_if_it_is_wanted(
    read: Read, parameters: tuple[Parameter, ...]
) -> None:
    refused = [one.name for one in parameters if one.fate == "refused"]
    assert refused
    for name in refused:
        read(asked(**{**RAW, name: "false"}), CARD)
        read(asked(**{**RAW, name: ""}), CARD)
        with pytest.raises(Refusal) as told:
            read(asked(**{**RAW, name: ["false", "true"]}), CARD)
        assert told.value.status == 400
        assert name in told.value.headers["dg-error"]
        assert told.value.headers["dg-request-id"] == "an id"
        assert isinstance(told.value.body, dict)
        assert told.value.body["request_id"] == "an id"
        assert told.value.body["err_msg"] == told.value.headers["dg-error"]


@pytest.mark.parametrize(("read", "parameters"), DOORS)
def test_hints_change_nothing(read: Read, parameters: tuple[Parameter, ...]) -> None:
    plain = read(asked(**RAW), CARD)
    for one in parameters:
        if one.fate == "ignored":
            hinted = read(asked(**{**RAW, one.name: "true"}), CARD)
            assert hinted.options.to_dict() == plain.options.to_dict(), one.name
    assert read(asked(**RAW, nobody_knows="this"), CARD).options.to_dict() == (
        plain.options.to_dict()
    )


@pytest.mark.parametrize(("read", "_"), DOORS)
def test_models_and_languages(read: Read, _: Any) -> None:
    for model in ("demo", "nova-3", "flux-general-en"):
        read(asked(**RAW, model=model), CARD)
    with pytest.raises(Refusal, match="'whisper'"):
        read(asked(**RAW, model="whisper"), CARD)
    if read is flux_query:
        return
    for language in ("en", "en-US", "FR", "multi"):
        read(asked(**RAW, language=language), CARD)
    with pytest.raises(Refusal, match="language=de"):
        read(asked(**RAW, language="de"), CARD)


@pytest.mark.parametrize(
    ("query", "format", "container"),
    [
        ({}, AudioFormat(), True),
        ({"encoding": ""}, AudioFormat(), True),
        ({"encoding": "ogg-opus", "sample_rate": "16000"}, AudioFormat(), True),
        ({"encoding": "flac"}, AudioFormat(), True),
        (RAW, AudioFormat(encoding="s16le", sample_rate=16_000), False),
        (
            {"encoding": "linear32", "sample_rate": "48000", "channels": "2"},
            AudioFormat(encoding="f32le", sample_rate=48_000, channels=2),
            False,
        ),
        ({"encoding": "mulaw"}, AudioFormat(encoding="mulaw", sample_rate=8_000), False),
        (
            {"encoding": "alaw", "sample_rate": "16000"},
            AudioFormat(encoding="alaw", sample_rate=16_000),
            False,
        ),
        ({"encoding": "opus", "sample_rate": "16000"}, AudioFormat(encoding="opus"), False),
    ],
)
def test_encodings(query: dict[str, str], format: AudioFormat, container: bool) -> None:
    read = listen_query(asked(**query), CARD)
    assert (read.options.format, read.container) == (format, container)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"encoding": "amr-nb"}, "encoding"),
        ({"encoding": "linear16"}, "encoding=linear16 needs sample_rate"),
        ({"encoding": "linear16", "sample_rate": "1000"}, "sample_rate"),
        ({"encoding": "linear16", "sample_rate": "many"}, "sample_rate"),
        ({**RAW, "channels": "0"}, "channels"),
        ({**RAW, "channels": "65"}, "channels"),
        ({**RAW, "channels": "2.5"}, "channels"),
        ({"multichannel": "true"}, "multichannel"),
        ({"encoding": "opus", "multichannel": "true"}, "multichannel"),
        ({**RAW, "utterance_end_ms": "soon"}, "utterance_end_ms"),
        ({**RAW, "endpointing": "-1"}, "endpointing"),
        ({**RAW, "endpointing": "nan"}, "endpointing"),
        ({**RAW, "keywords": "kiku:-2"}, "keywords"),
        ({**RAW, "keywords": "kiku:0"}, "keywords"),
        ({**RAW, "keywords": "kiku:nan"}, "keywords"),
        ({**RAW, "keywords": "x" * 300}, "keywords"),
        ({**RAW, "keywords": ["x"] * 1_001}, "keywords"),
        ({**RAW, "keyterm": "x" * 300, "keywords": "kiku"}, "keyterm"),
        ({**RAW, "keyterm": ["x"] * 1_001}, "keyterm"),
        ({**RAW, "keyterm": ["x"] * 500, "keywords": ["x"] * 501}, "keyterm or keywords"),
    ],
)
def test_what_cannot_be_is_refused(query: dict[str, Any], name: str) -> None:
    with pytest.raises(Refusal) as told:
        listen_query(asked(**query), CARD)
    assert told.value.status == 400
    assert told.value.headers["dg-error"].startswith(name)


@pytest.mark.parametrize(("read", "_"), DOORS)
def test_a_term_that_cannot_be_is_refused_by_its_parameter(read: Read, _: Any) -> None:
    with pytest.raises(Refusal) as told:
        read(asked(**RAW, keyterm="x" * 300), CARD)
    assert told.value.headers["dg-error"].startswith("keyterm: a hotword")


def test_hotwords() -> None:
    read = listen_query(
        asked(**RAW, keyterm=["Kyutai", "speech to text", ""],
              keywords=["Moshi:2", "Mimi", "12:30:1.5", "a:b", ":", "loud:1000"]), CARD
    )  # fmt: skip
    assert read.keywords == (
        Hotword("Moshi", 4.0), Hotword("Mimi", 2.0), Hotword("12:30", 3.0), Hotword("a:b", 2.0),
        Hotword(":", 2.0), Hotword("loud", 20.0),
    )  # fmt: skip
    assert read.options.decoding.phrases[6:] == (Hotword("Kyutai"), Hotword("speech to text"))


def test_pieces_of_words_are_asked_for_where_they_are_needed() -> None:
    for query, wanted in [({}, False), ({"interim_results": "true"}, True),
                          ({"utterance_end_ms": "1000"}, True)]:  # fmt: skip
        assert listen_query(asked(**RAW, **query), CARD).options.partials is wanted


def test_channels() -> None:
    mixed = listen_query(asked(**RAW, channels="2"), CARD)
    assert (mixed.options.channel, mixed.channels, mixed.options.format.channels) == ("mix", 1, 2)
    apart = listen_query(asked(**RAW, channels="2", multichannel="true"), CARD)
    assert (apart.options.channel, apart.channels, apart.options.format.channels) == ("each", 2, 2)


def test_endpointing_chooses_how_soon_a_pause_is_an_end() -> None:
    quiet = listen_query(asked(**RAW, endpointing="false"), CARD)
    assert (quiet.ends, quiet.options.turns) == (False, None)
    started = listen_query(asked(**RAW, endpointing="false", vad_events="true"), CARD)
    assert (started.ends, started.starts) == (False, True)
    assert started.options.turns is not None
    for plain in ({}, {"endpointing": "true"}):
        assert listen_query(asked(**RAW, **plain), CARD).ends
    policies = [pause_policy(ms / 1000) for ms in (0, 25, 300, 800, 1_500, 3_000, 60_000)]
    for one, other in pairwise(policies):
        for name in ("head", "hold_s", "silence_s", "number_s", "word_s", "longest_s"):
            assert getattr(one, name) <= getattr(other, name), name
    assert listen_query(asked(**RAW, endpointing="3000"), CARD).options.turns == pause_policy(3.0)


def test_flux_thresholds() -> None:
    read = flux_query(asked(**RAW), CARD)
    assert (read.threshold, read.eager_threshold, read.timeout_ms) == (0.7, None, 5_000)
    eager = flux_query(
        asked(**RAW, eager_eot_threshold="0.4", eot_threshold="0.8", eot_timeout_ms="700"), CARD
    )
    assert (eager.threshold, eager.eager_threshold, eager.timeout_ms) == (0.8, 0.4, 700)
    policies = [
        flux_query(asked(**RAW, eot_threshold=str(one)), CARD).options.turn_policy
        for one in (0.5, 0.7, 0.9, 1.0)
    ]
    sureness = [one.on for one in policies if one is not None]
    assert sureness == sorted(set(sureness))
    for wrong in (
        {"eot_threshold": "0.4"},
        {"eager_eot_threshold": "0.2"},
        {"eager_eot_threshold": "0.8"},
        {"eot_timeout_ms": "100"},
    ):
        with pytest.raises(Refusal, match=next(iter(wrong))):
            flux_query(asked(**RAW, **wrong), CARD)


def test_recordings() -> None:
    read = file_query(
        asked(utterances="true", utt_split="1.5", paragraphs="true", tag=["a", "b"],
              multichannel="true"), CARD
    )  # fmt: skip
    assert (read.utterances, read.utt_split_s, read.paragraphs) == (True, 1.5, True)
    assert (read.tags, read.raw, read.options.channel) == (("a", "b"), None, "each")
    assert file_query(asked(encoding="flac"), CARD).raw is None
    raw = file_query(asked(**RAW, channels="2"), CARD).raw
    assert raw == AudioFormat(encoding="s16le", sample_rate=16_000, channels=2)
    with pytest.raises(Refusal, match="opus"):
        file_query(asked(encoding="opus"), CARD)


def test_what_pipecat_asks_for_by_default_is_not_refused() -> None:
    read = listen_query(
        asked(**RAW, model="nova-3-general", language="en", interim_results="true",
              numerals="false", profanity_filter="true", punctuate="true", smart_format="false",
              channels="1",
              detect_entities="false", diarize="false", dictation="false", multichannel="false"),
        CARD,
    )  # fmt: skip
    assert (read.interim, read.starts, read.container, read.channels) == (True, False, False, 1)
    assert read.options.format == AudioFormat(encoding="s16le", sample_rate=16_000)


def test_what_livekit_asks_for_by_default_is_not_refused() -> None:
    read = listen_query(
        asked(**RAW, model="nova-3", language="en-US", punctuate="true", smart_format="false",
              no_delay="true", interim_results="true", vad_events="true", channels="1",
              endpointing="25", filler_words="true", profanity_filter="false", numerals="false",
              mip_opt_out="false"),
        CARD,
    )  # fmt: skip
    assert (read.interim, read.starts, read.ends, read.container) == (True, True, True, False)
    assert read.options.format == AudioFormat(encoding="s16le", sample_rate=16_000)


def test_busy_is_no_mistake_of_the_clients() -> None:
    told = busy(asked(), 7)
    assert (told.status, told.headers["Retry-After"]) == (503, "7")


texts = st.text(max_size=8) | st.sampled_from(["true", "false", "1", "0", "-1", "nan", "inf", "7"])
names = st.sampled_from(sorted({one.name for _, table in DOORS for one in table}))


@given(query=st.lists(st.tuples(names, texts), max_size=6))
def test_any_query_is_read_or_refused(query: list[tuple[str, str]]) -> None:
    for read, _ in DOORS:
        told: Refusal | None = None
        try:
            read(ClientRequest("/v1/listen", tuple(query), id="an id"), CARD)
        except Refusal as refusal:
            told = refusal
        if told is not None:
            assert told.status == 400
            assert told.headers["dg-error"].isascii()
            assert told.headers["dg-error"].isprintable()


def test_what_the_model_cannot_do_is_refused_by_its_parameter(demo: kiku.Recognizer) -> None:
    channels = asked(**RAW, channels="8", multichannel="true", keyterm="kiku")
    words = asked(**RAW, keyterm="日本")
    for request, name in [(channels, "multichannel"), (words, "keyterm")]:
        with pytest.raises(ConfigError) as told, demo.stream(listen_query(request, CARD).options):
            pass
        assert unsupported(request, told.value).headers["dg-error"].startswith(f"{name}: ")
    assert unsupported(words, StreamError("broken")).headers["dg-error"] == "broken"
