"""What is heard of a recording, and how its text is picked: the same at both commands."""

import json
import wave
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kiku
from kiku.audio import StreamWarning
from kiku.cli.options import SoundOptions, TextOptions, heard
from kiku.options import DecodingOptions, Hotword, StreamOptions
from tests.audio.sounds import voice
from tests.cli.conftest import Ran
from tests.cli.simple import SimpleBackend, simple_recognizer

Run = Callable[..., Ran]
Speech = Callable[..., Path]

TRANSCRIBE = ("transcribe",)
LISTEN = ("listen", "--speed", "0", "--from")
BOTH = pytest.mark.parametrize("command", [TRANSCRIBE, LISTEN], ids=["transcribe", "listen"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Kyutai", Hotword("Kyutai")),
        ("Kyutai:4.5", Hotword("Kyutai", 4.5)),
        ("speech to text:3", Hotword("speech to text", 3.0)),
        ("ratio:", Hotword("ratio:")),
        ("a:b", Hotword("a:b")),
        (":5", Hotword(":5")),
        ("10:30:2", Hotword("10:30", 2.0)),
    ],
)
def test_a_hotword_may_have_a_boost(typed: str, meant: Hotword) -> None:
    options = heard(SoundOptions(), TextOptions(hotwords=[typed]))
    assert options.decoding.phrases == (meant,)


def test_nothing_typed_is_the_default() -> None:
    options = heard(SoundOptions(), TextOptions())
    assert options.to_dict() == StreamOptions().to_dict()


def test_a_file_has_all_options_of_python_and_what_is_typed_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    further = {
        "decoding": {"num_codebooks": 4, "seed": 3, "temperature": 0.5, "hotwords": ["six"]},
        "recovery": False, "channel": "each", "track": 1, "start_s": 1.0, "end_s": 2.0,
        "max_duration_s": 50.0,
    }  # fmt: skip
    file.write_text(json.dumps(further))
    options = heard(SoundOptions(), TextOptions(options=file))
    assert options.to_dict() == StreamOptions.from_dict(further).to_dict()
    sound = SoundOptions(channel="1", track=0, start=0.0, end=9.0)
    text = TextOptions(options=file, temperature=0.0, hotwords=["one"])
    options = heard(sound, text, 60.0)
    decoding = options.decoding
    assert (options.channel, options.track, options.start_s, options.end_s) == (1, 0, 0.0, 9.0)
    assert (options.max_duration_s, decoding.temperature, decoding.seed) == (60.0, 0.0, 3)
    assert [one.text for one in decoding.phrases] == ["one"]


@BOTH
@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "no such file"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "must be an object"),
        ('{"decodin": {}}', "did you mean 'decoding'"),
        ('{"start_s": -1}', "start_s"),
    ],
)
@pytest.mark.usefixtures("backend")
def test_a_file_of_options_that_cannot_be_is_told(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str], written: str | None,
    said: str,
) -> None:  # fmt: skip
    file = tmp_path / "options.json"
    if written is not None:
        file.write_text(written)
    ran = run(*command, speech(tmp_path / "talk.wav"), "--options", file)
    assert (ran.code, ran.out) == (2, "")
    assert "--options" in ran.err
    assert said in ran.err


@BOTH
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hotword", "word:21"), "--hotword: the boost of 'word'"),
        (("--hotword", "word:nan"), "--hotword: the boost of 'word'"),
        (("--hotword", "  "), "--hotword: a hotword must be text"),
        (("--temperature", "11"), "--temperature: temperature must be"),
        (("--temperature", "-1"), "--temperature"),
        (("--channel", "left"), "--channel: 'left' is not a channel; give mix, each, or a number"),
        (("--channel", "-1"), "--channel: '-1' is not a channel"),
        (("--channel", "1" * 5000), "is not a channel"),
        (("--track", "-1"), "--track"),
        (("--start", "-1"), "--start"),
        (("--start", "nan"), "--start"),
        (("--start", "2", "--end", "2"), "--end: 2 is not after --start 2"),
        (("--end", "inf"), "--end: end_s must be"),
    ],
)
@pytest.mark.usefixtures("backend")
def test_what_cannot_be_is_told_of_its_option(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str], arguments: Sequence[str],
    said: str,
) -> None:  # fmt: skip
    ran = run(*command, speech(tmp_path / "talk.wav"), *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


@BOTH
@pytest.mark.usefixtures("backend")
def test_a_track_that_is_not_there_is_answered_with_those_that_are(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str]
) -> None:
    ran = run(*command, speech(tmp_path / "talk.wav"), "--track", 1)
    assert ran.code == 1
    assert "has no audio track 1: it has 0 (pcm_s16le, 1 channel)" in ran.err
    assert ran.err.count("\n") == 1


@BOTH
@pytest.mark.usefixtures("backend")
def test_a_part_of_a_recording_keeps_its_times(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str]
) -> None:
    talk = speech(tmp_path / "talk.wav", 8.0)
    ran = run(*command, talk, "--start", 4, "--end", 6, "-f", "srt")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("1\n00:00:04,160 --> 00:00:05,")
    assert ran.out.splitlines()[2] == "zero one two"


@BOTH
@pytest.mark.usefixtures("backend")
def test_one_channel_is_heard_or_all_of_them_mixed(
    run: Run, speech: Speech, tmp_path: Path, command: Sequence[str]
) -> None:
    talk = speech(tmp_path / "two.wav", 2.4, silent_s=(0.0, 1.6))
    assert run(*command, talk).out == "zero one two\n"
    assert run(*command, talk, "--channel", 0).out == "zero one two\n"
    assert run(*command, talk, "--channel", 1).out == "zero\n"
    ran = run(*command, talk, "--channel", 2)
    assert ran.code == 1
    assert "channel 2 was asked for, but there are 2" in ran.err


FORMATS = {
    "txt": "[0] zero one two\n[1] zero\n",
    "srt": "1\n00:00:00,160 --> 00:00:01,840\n[0] zero one two\n\n"
    "2\n00:00:01,760 --> 00:00:02,594\n[1] zero\n\n",
    "vtt": "WEBVTT\n\n00:00:00.160 --> 00:00:01.840\n<v Channel 0>zero one two\n\n"
    "00:00:01.760 --> 00:00:02.594\n<v Channel 1>zero\n\n",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("backend")
def test_each_channel_is_marked_in_every_format(
    run: Run, speech: Speech, tmp_path: Path, format: str
) -> None:
    talk = speech(tmp_path / "two.wav", 2.0, silent_s=(0.0, 1.6))
    ran = run("transcribe", talk, "--channel", "each", "-f", format)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == FORMATS[format]
    run("transcribe", talk, "--channel", "each", "-f", "json", "-o", tmp_path)
    words = json.loads((tmp_path / "two.json").read_text())["words"]
    assert [(word["text"], word["channel"]) for word in words] == [
        ("zero", 0), ("one", 0), ("two", 0), ("zero", 1),
    ]  # fmt: skip
    table = run("transcribe", talk, "--channel", "each", "--words").out.splitlines()
    assert sorted(line.split("  ")[-1] for line in table) == [
        "[0] one", "[0] two", "[0] zero", "[1] zero",
    ]  # fmt: skip


def test_each_channel_of_all_recordings_has_a_slot(
    run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
) -> None:
    one = speech(tmp_path / "a.wav", 0.8)
    three = speech(tmp_path / "b.wav", 0.8, silent_s=(0.0, 0.0, 0.8))
    ran = run("transcribe", one, three, "--channel", "each")
    assert ran.code == 0
    assert backend.num_slots == 3
    assert ran.out == f"==> {one} <==\n[0] zero\n\n==> {three} <==\n[0] zero\n[1] zero\n"


@pytest.mark.usefixtures("backend")
def test_listen_marks_channels_too(run: Run, speech: Speech, tmp_path: Path) -> None:
    talk = speech(tmp_path / "two.wav", 2.0, silent_s=(0.0, 1.6))
    ran = run(*LISTEN, talk, "--channel", "each", "-o", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    # Both turns end with the recording, and nobody says which of the channels is asked first.
    lines = (tmp_path / "two.txt").read_text().splitlines()
    assert sorted(lines) == ["[0] zero one two", "[1] zero"]
    events = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    words = {(e["text"], e["channel"]) for e in events if e["type"] == "word"}
    assert words == {("zero", 0), ("one", 0), ("two", 0), ("zero", 1)}
    assert sum(event["type"] == "end" for event in events) == 1


@pytest.mark.parametrize(
    "arguments",
    [("--channel", "each"), ("--track", "0"), ("--start", "1"), ("--end", "1"), ("--speed", "2")],
    ids=lambda one: one[0],
)
def test_a_microphone_has_no_parts(run: Run, arguments: Sequence[str]) -> None:
    ran = run("listen", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "it needs a recording; add --from FILE" in ran.err


def test_what_is_asked_of_the_text_reaches_a_recording(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StreamOptions] = []
    recognizer = simple_recognizer(SimpleBackend())
    transcription = recognizer.transcription

    def begin(source: str, options: StreamOptions) -> kiku.Transcription:
        asked.append(options)
        return transcription(source, replace(options, decoding=DecodingOptions()))

    monkeypatch.setattr(recognizer, "transcription", begin)
    monkeypatch.setattr(kiku, "load", lambda *_, **__: recognizer)
    talk = speech(tmp_path / "talk.wav")
    ran = run("transcribe", talk, "--hotword", "two:3", "--temperature", 0.5)
    assert (ran.code, ran.out) == (0, "zero one two\n")
    (options,) = asked
    assert options.decoding.phrases == (Hotword("two", 3.0),)
    assert options.decoding.temperature == 0.5


def _wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return path


def test_a_header_that_lies_about_the_rate_is_told(
    run: Run, tmp_path: Path, backend: SimpleBackend
) -> None:
    lie = _wav(tmp_path / "lie.wav", voice(16_000, 60), 48_000)
    assert "probably does not have 48000 samples a second" in run("transcribe", lie).err
    assert "probably does not have 48000" in run(*LISTEN, lie).err
    true = _wav(tmp_path / "true.wav", voice(16_000, 20), 16_000)
    assert "warning" not in run("transcribe", true).err
    with simple_recognizer(backend).stream(StreamOptions(max_queue_s=60)) as stream:
        stream.push(voice(16_000, 45), rate=48_000)  # costs too much for every stream of a server
        stream.close()
        assert not [event for event in stream.events() if isinstance(event, StreamWarning)]


def test_what_is_quiet_or_silent_is_told_of_short_recordings_too(run: Run, tmp_path: Path) -> None:
    quiet = _wav(tmp_path / "quiet.wav", 1e-2 * voice(16_000, 2), 16_000)
    silent = _wav(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    told = run("transcribe", quiet, silent).err.splitlines()
    assert [line.split(": ")[2] for line in told if "warning" in line] == [f"{quiet}", f"{silent}"]
    assert "so quiet" in told[0]
    assert "nothing but silence" in told[1]
    assert "so quiet" in run(*LISTEN, quiet).err


def test_a_warning_of_a_recording_is_told_once(
    run: Run, tmp_path: Path, backend: SimpleBackend
) -> None:
    square = np.tile(np.repeat([32767, -32768], 60), 24_000 * 90 // 120).astype("<i2")
    square = np.concatenate([square[: 24_000 * 3], np.zeros(24_000 * 70, "<i2"), square[:96_000]])
    loud = tmp_path / "loud.wav"
    with wave.open(str(loud), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(square.tobytes())
    ran = run("transcribe", loud)
    assert ran.code == 0
    kinds = [line for line in ran.err.splitlines() if "clipped at full scale" in line]
    assert len(kinds) == 1
    assert kinds[0].startswith(f"kiku: warning: {loud}: ")
    assert "warning" not in run("transcribe", loud, "-q").err
    assert run("transcribe", loud, loud, "--channel", "each").err.count("clipped at full") == 1


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("typed", "silence_s"), [((), 1.4), (("--turns", "medium"), 1.0), (("--turns", "off"), None)]
)
def test_turns_that_are_typed_come_before_those_of_the_file(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    typed: Sequence[str], silence_s: float | None,
) -> None:  # fmt: skip
    asked: list[StreamOptions] = []
    own = kiku.Recognizer.stream

    def noted(self: kiku.Recognizer, options: StreamOptions) -> kiku.LiveStream:
        asked.append(options)
        return own(self, options)

    monkeypatch.setattr(kiku.Recognizer, "stream", noted)
    (tmp_path / "options.json").write_text('{"turns": "low"}')
    file = tmp_path / "options.json"
    run(*LISTEN, speech(tmp_path / "talk.wav"), "--options", file, *typed)
    (options,) = asked
    policy = options.turn_policy
    assert (None if policy is None else policy.silence_s) == silence_s
