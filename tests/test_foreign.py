"""Who writes what he knows of other packages is told how it is written here."""

import inspect
from typing import Any

import numpy as np
import pytest

import kiku
from kiku.errors import InputError
from kiku.transcription import Transcript
from tests.cli.simple import SimpleBackend, simple_recognizer

SOUND = np.zeros(16_000, np.float32)


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ({"compute_type": "int8"}, "load has no argument compute_type: write dtype='int8'"),
        ({"cpu_threads": 4}, "write threads=4"),
        ({"device_index": 1}, "write device='cuda:1'"),
        ({"language": "fr"}, "write the language that is spoken"),
        ({"local_files_only": True}, "HF_HUB_OFFLINE"),
    ],
)
def test_a_model_is_loaded_in_our_words(given: dict[str, Any], way: str) -> None:
    with pytest.raises(InputError, match=way):
        kiku.load("demo", **given)


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ({"language": "en"}, "transcribe has no argument language: leave it out"),
        ({"task": "translate"}, "do not translate"),
        ({"vad_filter": True}, "silence gives no text"),
        ({"beam_size": 5}, "the likeliest token is taken"),
        ({"initial_prompt": "Kyutai"}, r"hotwords=\[...\]"),
        ({"sampling_rate": 16_000}, "write rate=16000"),
        ({"compute_type": "int8"}, "load the model with dtype='int8'"),
        ({"hotwords": ["a"]}, r"StreamOptions\(decoding=DecodingOptions\(hotwords=\['a'\]\)\)"),
        ({"temperature": 0.2}, r"StreamOptions\(decoding=DecodingOptions\(temperature=0.2\)\)"),
        ({"channel": "each"}, r"write options=StreamOptions\(channel='each'\)"),
        ({"channel": None, "rate": 16_000}, "channel"),
    ],
)
def test_a_recording_is_transcribed_in_our_words(given: dict[str, Any], way: str) -> None:
    rec = simple_recognizer(SimpleBackend())
    with pytest.raises(InputError, match=way):
        rec.transcribe(SOUND, **given)
    for call in (rec.transcription, rec.transcriptions):
        with pytest.raises(InputError, match=way.replace("transcribe", call.__name__)):
            call([SOUND], **given)  # pyright: ignore[reportArgumentType]


def test_what_asks_for_nothing_is_taken() -> None:
    neutral: dict[str, Any] = {
        "language": None, "word_timestamps": True, "vad_filter": False, "task": "transcribe",
        "beam_size": 1, "initial_prompt": None,
    }  # fmt: skip
    assert len(simple_recognizer(SimpleBackend()).transcribe(SOUND, rate=16_000, **neutral)) == 0


def test_names_that_nobody_uses_are_pythons_to_refuse() -> None:
    call: Any = simple_recognizer(SimpleBackend()).transcribe
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        call(SOUND, rate=16_000, colour="red")


def test_help_shows_our_own_arguments() -> None:
    assert "dtype" in inspect.signature(kiku.load).parameters
    names = inspect.signature(kiku.Recognizer.transcribe).parameters
    assert list(names) == ["self", "source", "options", "rate", "timeout", "progress"]


def test_a_transcript_is_no_dictionary_and_says_so() -> None:
    result: Any = Transcript((), 1.0)
    with pytest.raises(InputError, match=r"write transcript\.text"):
        result["text"]
    with pytest.raises(InputError, match=r"to_dict\(\) gives a dictionary"):
        result["language"]
