"""Programs that were written for faster-whisper, with another import and another model."""

import dataclasses
import io
import json
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiku
from kiku.compat import faster_whisper
from kiku.compat.faster_whisper import (
    BatchedInferencePipeline,
    WhisperModel,
    available_models,
    decode_audio,
    format_timestamp,
)
from kiku.errors import AudioError, ConfigError, InputError, UnsupportedConfig
from kiku.text import segments as segments_of
from tests.cli.simple import SimpleBackend, simple_recognizer

RATE = 24_000


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the model was loaded with, each time; it is a simple one."""
    calls: list[dict[str, Any]] = []

    def load(model: str, **settings: Any) -> kiku.Recognizer:
        calls.append({"model": model, **settings})
        return simple_recognizer(SimpleBackend(settings["slots"]), model)

    monkeypatch.setattr(faster_whisper, "load", load)
    return calls


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Twelve words, with a silence of three seconds after the sixth or so."""
    sound = np.random.default_rng(0).integers(-9000, 9000, 13 * RATE)
    sound[5 * RATE : 8 * RATE] = 0
    with wave.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(sound.astype("<i2").tobytes())
    return tmp_path / "talk.wav"


def test_the_first_program_of_everybody(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = WhisperModel("demo", device="cpu", compute_type="int8")
    segments, info = model.transcribe(str(talk), beam_size=5)
    print(f"Detected language '{info.language}' with probability {info.language_probability:f}")
    for segment in segments:
        print(f"[{segment.start:.2f}s -> {segment.end:.2f}s] {segment.text}")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "Detected language 'en' with probability 1.000000"
    assert len(lines) == 2
    assert lines[0] == "[0.16s -> 5.04s]  zero one two three four five zero"
    assert info.duration == info.duration_after_vad == pytest.approx(13.0)


def test_words_of_segments(talk: Path) -> None:
    model = WhisperModel("demo")
    segments, _ = model.transcribe(str(talk), word_timestamps=True, language="en")
    segments = list(segments)
    spoken = [word for segment in segments for word in segment.words or []]
    wanted = list(model.recognizer.transcription(str(talk)))
    assert [(w.start, w.end, w.word, w.probability) for w in spoken] == [
        (w.start, w.end, f" {w.text}", w.probability) for w in wanted
    ]
    # Cut as they come, and as if all had been there.
    assert [(one.start, one.text) for one in segments] == [
        (one.start, f" {one.text}") for one in segments_of(wanted)
    ]
    assert [one.id for one in segments] == [1, 2]
    assert "".join("".join(w.word for w in one.words or []) for one in segments) == "".join(
        one.text for one in segments
    )


def test_what_programs_ask_of_a_segment(talk: Path) -> None:
    segments, _ = WhisperModel("demo").transcribe(str(talk))
    kept = [one for one in segments if one.no_speech_prob < 0.6 and one.avg_logprob > -1.0]
    assert len(kept) == 2
    first = kept[0]
    assert first.words is None
    assert first.temperature == 0.0
    assert first.seek == round(first.start * 100)
    assert 0 < first.compression_ratio < 2.4
    assert math.exp(first.avg_logprob) == pytest.approx(0.9, abs=0.1)
    assert len(first.tokens) == 7
    for as_dict in (first._asdict(), dataclasses.asdict(first)):
        assert json.loads(json.dumps(as_dict))["text"] == first.text


def test_segments_come_while_the_recording_is_heard(talk: Path) -> None:
    long = np.tile(np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.3, 600)
    model = WhisperModel("demo")
    segments, info = model.transcribe(long)
    assert info.duration == 600.0
    assert model.recognizer.free_slots == 1  # nothing is done before somebody asks
    assert next(segments).text.startswith(" zero one")
    assert model.recognizer.free_slots == 0
    segments.close()
    assert model.recognizer.free_slots == 1


def test_an_open_file_and_samples_are_heard_as_a_path_is(talk: Path) -> None:
    model = WhisperModel("demo")

    def text(audio: Any) -> str:
        segments, info = model.transcribe(audio)
        assert info.duration == pytest.approx(13.0, abs=0.1)
        return "".join(segment.text for segment in segments)

    with wave.open(str(talk)) as file:
        sound = np.frombuffer(file.readframes(13 * RATE), "<i2").astype(np.float32) / 32768
    at_16k = np.interp(np.arange(13 * 16_000) * 1.5, np.arange(len(sound)), sound)
    assert text(io.BytesIO(talk.read_bytes())) == text(talk) == text(str(talk))
    assert text(at_16k.astype(np.float32)).startswith(" zero one")


def test_a_recording_that_cannot_be_read_is_told_at_the_call(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound in here")
    model = WhisperModel("demo")
    for name in ("missing.mp3", "notes.txt", ".", "a" * 5000):
        with pytest.raises(AudioError):
            model.transcribe(str(tmp_path / name))


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {"device": None, "dtype": None, "threads": None, "slots": 1}),
        ({"device": "cpu", "compute_type": "int8_float32", "cpu_threads": 4},
         {"device": "cpu", "dtype": "int8", "threads": 4}),
        ({"device": "cuda", "compute_type": "float16"}, {"device": "cuda", "dtype": "float16"}),
        ({"device": "cuda", "device_index": 1}, {"device": "cuda:1"}),
        ({"device": "cuda", "device_index": [2]}, {"device": "cuda:2"}),
        ({"num_workers": 3, "revision": "main"}, {"slots": 3, "revision": "main"}),
        ({"local_files_only": True}, {"model": "demo"}),
    ],
)  # fmt: skip
def test_a_model_is_loaded_as_it_was_asked_for(
    given: dict[str, Any], settings: dict[str, Any], loads: list[dict[str, Any]]
) -> None:
    WhisperModel("demo", **given)
    assert settings.items() <= loads[0].items()


@pytest.mark.parametrize("name", ["large-v3", "small.en", "Systran/faster-whisper-small", "turbo"])
def test_the_models_of_whisper_are_others(name: str, loads: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="is a Whisper model, which kiku does not run: name one"):
        WhisperModel(name)
    assert not loads


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device_index": [0, 1]}, "one device"),
        ({"download_root": "/models"}, "HF_HOME"),
        ({"files": {}}, "name a folder"),
        ({"use_auth_token": True}, "HF_TOKEN"),
        ({"compute_type": "int3"}, "compute_type must be one of default"),
    ],
)
def test_what_a_model_cannot_be_loaded_with(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WhisperModel("demo", **given)
    for elsewhere in ("kyutai/stt-2.6b-en", "a" * 5000):
        with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
            WhisperModel(elsewhere, local_files_only=True)


def test_int8_on_a_gpu_is_half_precision_and_said(loads: list[dict[str, Any]]) -> None:
    with pytest.warns(UserWarning, match="int8_bfloat16' is for processors: cuda runs in bfloat16"):
        WhisperModel("demo", device="cuda", compute_type="int8_bfloat16", flash_attention=True)
    assert loads[0]["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "translate"}, "task='translate' is not possible here: the models write"),
        ({"initial_prompt": "Kyutai, Moshi."}, "name words in hotwords"),
        ({"prefix": "So"}, "name words in hotwords"),
        ({"suppress_tokens": [1, 2]}, "other tokens"),
        ({"language": "de"}, "this model only understands en; leave language out"),
        ({"clip_timestamps": "0,1,2,3"}, "one clip"),
        ({"clip_timestamps": "soon"}, "clip_timestamps must be start and end in seconds"),
        ({"beam": 3}, "no argument 'beam'"),
    ],
)
def test_what_the_models_cannot_do_is_refused(
    given: dict[str, Any], message: str, talk: Path
) -> None:
    with pytest.raises((UnsupportedConfig, ConfigError, InputError), match=message):
        WhisperModel("demo").transcribe(str(talk), **given)


NEUTRAL: dict[str, Any] = {
    "language": None, "task": "transcribe", "beam_size": 1, "best_of": 5, "patience": 1.0,
    "length_penalty": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "temperature": [0.0, 0.2, 0.4], "compression_ratio_threshold": 2.4, "log_prob_threshold": -1.0,
    "no_speech_threshold": 0.6, "condition_on_previous_text": False,
    "prompt_reset_on_temperature": 0.5, "initial_prompt": None, "prefix": None,
    "suppress_blank": True, "suppress_tokens": [-1], "without_timestamps": False,
    "max_initial_timestamp": 1.0, "word_timestamps": False,
    "prepend_punctuations": "\"'“¿([{-", "multilingual": False, "vad_filter": False,
    "append_punctuations": "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a”)]}\u3001",
    "vad_parameters": None, "max_new_tokens": None, "chunk_length": None, "clip_timestamps": "0",
    "hallucination_silence_threshold": None, "hotwords": None, "log_progress": False,
    "language_detection_threshold": 0.5, "language_detection_segments": 1,
}  # fmt: skip


def test_every_default_asks_for_nothing(talk: Path) -> None:
    """pytest makes warnings errors."""
    model = WhisperModel("demo")
    plain, _ = model.transcribe(str(talk))
    plain = list(plain)
    segments, info = model.transcribe(str(talk), **NEUTRAL)
    assert list(segments) == plain
    assert info.transcription_options.beam_size == 1


DEFAULTS: dict[str, Any] = {
    "beam_size": 5, "best_of": 5, "patience": 1, "length_penalty": 1, "repetition_penalty": 1,
    "no_repeat_ngram_size": 0, "log_prob_threshold": -1.0, "no_speech_threshold": 0.6,
    "compression_ratio_threshold": 2.4, "condition_on_previous_text": True,
    "prompt_reset_on_temperature": 0.5, "temperatures": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "initial_prompt": None, "prefix": None, "suppress_blank": True, "suppress_tokens": (-1,),
    "without_timestamps": False, "max_initial_timestamp": 1.0, "word_timestamps": False,
    "prepend_punctuations": NEUTRAL["prepend_punctuations"],
    "append_punctuations": NEUTRAL["append_punctuations"], "multilingual": False,
    "max_new_tokens": None, "clip_timestamps": "0", "hallucination_silence_threshold": None,
    "hotwords": None,
}  # fmt: skip


def test_the_options_of_a_call_are_told_with_the_defaults_of_the_others(talk: Path) -> None:
    model = WhisperModel("demo")
    _, info = model.transcribe(str(talk))
    assert dataclasses.asdict(info.transcription_options) == DEFAULTS
    assert json.loads(json.dumps(info._asdict()))["transcription_options"]["beam_size"] == 5
    _, info = model.transcribe(str(talk), temperature=0.5, best_of=5, vad_filter=False)
    assert info.transcription_options.temperatures == [0.5]
    assert info.transcription_options._asdict()["word_timestamps"] is False
    with pytest.raises(AttributeError):
        _ = info.transcription_options.vad_filter  # pyright: ignore


@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_a_recording_is_decoded_as_it_is_heard(rate: int, talk: Path) -> None:
    sound = decode_audio(str(talk), sampling_rate=rate)
    assert (sound.dtype, sound.shape) == (np.float32, (13 * rate,))
    assert np.array_equal(decode_audio(io.BytesIO(talk.read_bytes()), rate), sound)
    left, right = decode_audio(talk, rate, split_stereo=True)
    assert np.array_equal(left, right)
    assert np.allclose(left, sound, atol=1e-6)
    with pytest.raises(AudioError, match=r"missing\.wav: no such file"):
        decode_audio("missing.wav")


def test_what_was_decoded_is_transcribed(talk: Path) -> None:
    segments, _ = WhisperModel("demo").transcribe(decode_audio(str(talk)))
    assert next(segments).text.startswith(" zero one")


def test_the_channels_of_a_recording_come_apart(tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(-9000, 9000, (16_000, 2)).astype("<i2")
    with wave.open(str(tmp_path / "two.wav"), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(planes.tobytes())
    sides = decode_audio(tmp_path / "two.wav", split_stereo=True)
    assert np.allclose(np.stack(sides, axis=1), planes / 32_768, atol=1e-6)
    assert np.allclose(decode_audio(tmp_path / "two.wav"), planes.mean(1) / 32_768, atol=1e-6)


def test_faults_of_the_sound_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = np.random.default_rng(0).integers(-9000, 9000, RATE).astype("<i2")
    with wave.open(str(tmp_path / "two.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.stack([one, -one], axis=1).tobytes())
    segments, _ = WhisperModel("demo").transcribe(tmp_path / "two.wav")
    assert not caplog.records
    list(segments)
    decode_audio(tmp_path / "two.wav")
    assert [one.name.partition(".")[0] for one in caplog.records] == ["kiku"] * 2
    for message in caplog.messages:
        assert "the channels cancel each other" in message


def test_a_recording_that_is_cut_off_is_decoded_as_far_as_it_goes(talk: Path) -> None:
    data = io.BytesIO(talk.read_bytes()[: 44 + 2 * RATE])
    for split in (False, True):
        data.seek(0)
        with pytest.warns(UserWarning, match="ends early, after 1.00 s") as told:
            found = decode_audio(data, split_stereo=split)  # pyright: ignore
        assert told[0].filename == __file__
        assert np.shape(found) == ((2, 16_000) if split else (16_000,))


@pytest.mark.parametrize(
    ("seconds", "how", "written"),
    [
        (0, {}, "00:00.000"),
        (61.2345, {}, "01:01.234"),
        (3599.9996, {}, "01:00:00.000"),
        (5.5, {"always_include_hours": True, "decimal_marker": ","}, "00:00:05,500"),
    ],
)
def test_times_are_written_as_there(seconds: float, how: dict[str, Any], written: str) -> None:
    assert format_timestamp(seconds, **how) == written
    with pytest.raises(InputError, match="at least 0 seconds, not -1"):
        format_timestamp(-1)


def test_the_models_that_there_are_can_be_loaded_by_name(loads: list[dict[str, Any]]) -> None:
    names = available_models()
    assert {"demo", "kyutai/stt-1b-en_fr"} <= set(names)
    for name in names:
        assert WhisperModel(name).recognizer.name == name


def test_what_there_is_not_says_what_to_do_instead() -> None:
    with pytest.raises(ImportError, match="kiku models pull"):
        from kiku.compat.faster_whisper import download_model  # noqa: F401  # pyright: ignore
    assert not hasattr(faster_whisper, "nothing_of_the_kind")


def test_the_duration_of_an_array_is_that_of_its_longer_axis() -> None:
    samples = np.zeros((2, 3 * 16_000), np.float32)
    for audio in (samples[0], samples, samples.T):
        segments, info = WhisperModel("demo").transcribe(audio)
        assert info.duration == info.duration_after_vad == 3.0
        assert list(segments) == []


def test_a_recording_that_is_cut_off_gives_all_its_segments(talk: Path) -> None:
    """Before the warning, which is an error here."""
    cut = io.BytesIO(talk.read_bytes()[: 44 + 2 * 11 * RATE])
    whole, _ = WhisperModel("demo").transcribe(talk)
    given: list[str] = []
    segments, _ = WhisperModel("demo").transcribe(cut)
    with pytest.raises(kiku.IncompleteTranscript, match="ends early, after 11") as caught:
        given.extend(segment.text for segment in segments)
    assert len(given) == 2
    assert "".join(given).strip() == caught.value.transcript.text
    assert given[0] == next(whole).text
    cut.seek(0)
    with pytest.warns(kiku.IncompleteTranscript) as told:
        list(WhisperModel("demo").transcribe(cut)[0])
    assert told[0].filename == __file__


def test_what_changes_nothing_is_said_in_one_warning_of_the_callers(talk: Path) -> None:
    with pytest.warns(UserWarning, match="changes nothing") as told:
        WhisperModel("demo").transcribe(
            str(talk), vad_filter=True, vad_parameters={"min_silence_duration_ms": 500}, beam_size=8
        )
    (warning,) = told
    assert warning.filename == __file__
    assert "beam_size=8 changes nothing (the likeliest token is taken)" in str(warning.message)
    assert "vad_filter=True changes nothing" in str(warning.message)


def test_what_the_models_can_do_is_done(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = WhisperModel("demo")
    segments, _ = model.transcribe(str(talk), clip_timestamps=[2.0, 4.0])
    starts = [segment.start for segment in segments]
    assert starts
    assert all(2.0 <= start < 4.0 for start in starts)
    asked: list[kiku.StreamOptions] = []
    monkeypatch.setattr(
        model.recognizer, "transcription", lambda _, options, **__: asked.append(options)
    )
    model.transcribe(str(talk), temperature=(0.4, 0.6), hotwords="Kyutai Moshi")
    model.transcribe(str(talk), hotwords="New York, Moshi")
    first, second = (one.decoding for one in asked)
    assert first.temperature == 0.4
    assert [one.text for one in first.phrases] == ["Kyutai", "Moshi"]
    assert [one.text for one in second.phrases] == ["New York", "Moshi"]


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [("demo", None, "en"), ("kyutai/stt-2.6b-en", None, "en"), ("kyutai/stt-1b-en_fr", "fr", "fr"),
     ("kyutai/stt-1b-en_fr", None, None), ("of/mine", "de", "de"), ("of/mine", None, None)],
)  # fmt: skip
def test_no_language_is_made_up(name: str, asked: str | None, told: str | None, talk: Path) -> None:
    model = WhisperModel(name)
    _, info = model.transcribe(str(talk), language=asked)
    assert info.language == told
    assert math.isnan(info.language_probability) == (told is None)
    with pytest.raises(UnsupportedConfig, match="do not report its language"):
        model.detect_language(str(talk))


def test_the_batched_pipeline_gives_the_same(talk: Path) -> None:
    model = WhisperModel("demo")
    plain, _ = model.transcribe(str(talk))
    plain = list(plain)
    segments, _ = BatchedInferencePipeline(model=model).transcribe(str(talk), batch_size=16)
    assert list(segments) == plain
