"""`kiku listen`: lines on standard output, files that grow, a microphone, Ctrl-C."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kiku
from kiku.audio.microphone import Gap, Piece
from kiku.cli import listen, terminal
from kiku.cli.live_results import TEXTS, Srt
from kiku.errors import AudioError, MissingExtra, OutputError
from kiku.options import DecodingOptions, Hotword, StreamOptions, TurnPolicy
from kiku.stream import End, Event, StreamWarning, event_from_dict
from kiku.text import Partial, TurnEnd, Word, write_srt, write_txt, write_vtt
from tests.cli.conftest import Ran
from tests.cli.simple import SimpleBackend, simple_recognizer

Run = Callable[..., Ran]
Speech = Callable[..., Path]

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (1920, 1)).astype(np.float32)


def listen_to(run: Run, source: object, *arguments: object) -> Ran:
    return run("listen", "--from", source, "--speed", 0, *arguments)


@pytest.mark.usefixtures("backend")
def test_a_turn_is_a_line(run: Run, speech: Speech, tmp_path: Path) -> None:
    ran = listen_to(run, speech(tmp_path / "talk.wav"))
    assert (ran.code, ran.out, ran.err) == (0, "zero one two\n", "")


@pytest.mark.usefixtures("backend")
def test_files_are_written(run: Run, speech: Speech, tmp_path: Path) -> None:
    ran = listen_to(run, speech(tmp_path / "talk.wav"), "-o", tmp_path / "out")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert sorted(files) == [f"talk.{name}" for name in ("json", "jsonl", "srt", "txt", "vtt")]
    events = [event_from_dict(json.loads(line)) for line in files["talk.jsonl"].splitlines()]
    words = [event for event in events if isinstance(event, Word)]
    assert [word.text for word in words] == ["zero", "one", "two"]
    assert isinstance(events[-1], End)
    assert not any(isinstance(event, Partial) for event in events)
    assert files["talk.txt"] == write_txt(words)
    assert files["talk.srt"] == write_srt(words)
    assert files["talk.vtt"] == write_vtt(words)
    run("transcribe", tmp_path / "talk.wav", "-f", "json", "-o", tmp_path)
    assert files["talk.json"] == (tmp_path / "talk.json").read_text()


@pytest.mark.usefixtures("backend")
def test_one_format_goes_to_standard_output(run: Run, speech: Speech, tmp_path: Path) -> None:
    talk = speech(tmp_path / "talk.wav")
    assert listen_to(run, talk, "-f", "srt").out.startswith("1\n00:00:00,160 --> ")
    lines = listen_to(run, talk, "-f", "jsonl", "-q").out.splitlines()
    assert json.loads(lines[-1]) == {"type": "end", "duration": 2.0}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("formats", [("-f", "txt", "-f", "srt"), ("-f", "txt,SRT")])
def test_some_formats_alone(
    run: Run, speech: Speech, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    talk = speech(tmp_path / "talk.wav")
    assert listen_to(run, talk, *formats, "--output", tmp_path / "out").code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["talk.srt", "talk.txt"]


@pytest.mark.usefixtures("backend")
def test_one_file_has_the_name_that_was_given(run: Run, speech: Speech, tmp_path: Path) -> None:
    talk = speech(tmp_path / "talk.wav")
    assert listen_to(run, talk, "-o", tmp_path / "new" / "words.vtt").code == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["words.vtt"]
    assert (tmp_path / "new" / "words.vtt").read_text().startswith("WEBVTT\n\n00:00:00.160")
    ran = listen_to(run, talk, "-f", "srt,txt", "-o", tmp_path / "new" / "more.vtt")
    assert ran.code == 2
    assert "is one vtt file; name a folder for srt, txt" in ran.err


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", "txt", "-f", "srt"), "several formats need a folder; add -o DIR"),
        (("-f", "all"), "several formats need a folder; add -o DIR"),
        (("--mic", "USB"), "--mic: it cannot be used together with --from"),
        (("--speed", "-1"), "--speed"),
        (("--force",), "--force: it needs files to write to; add -o DIR"),
        (("--highlight-words",), "--highlight-words: it needs the format srt or vtt; add -f srt"),
        (
            ("--max-line-count", "3", "-f", "json"),
            "--max-line-count: it needs the format srt or vtt",
        ),
        (("--turns", "soon"), "--turns"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Run, speech: Speech, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = listen_to(run, speech(tmp_path / "talk.wav"), *arguments)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.usefixtures("backend")
def test_a_microphones_number_is_no_device(run: Run) -> None:
    ran = run("listen", "--device", "1")
    assert ran.code == 2
    assert "--device: the model cannot run on 1; for a microphone write --mic 1;" in ran.err


@pytest.mark.usefixtures("backend")
def test_sound_that_is_not_there(run: Run, tmp_path: Path) -> None:
    assert "name one recording" in listen_to(run, tmp_path).err
    ran = listen_to(run, tmp_path / "gone.wav", "-o", tmp_path / "out")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert not (tmp_path / "out").exists()
    (tmp_path / "bad.wav").write_text("this is no sound")
    ran = listen_to(run, tmp_path / "bad.wav")
    assert ran.code == 1
    assert "is not a recording that can be read" in ran.err


@pytest.mark.usefixtures("backend")
def test_a_pattern_may_stand_for_one_recording(run: Run, speech: Speech, tmp_path: Path) -> None:
    speech(tmp_path / "one.wav")
    assert listen_to(run, tmp_path / "*.wav").out.startswith("zero one")
    (tmp_path / "folder").mkdir()
    for name in ("two.wav", "folder/three.wav", "folder/four.wav"):
        speech(tmp_path / name)
    for pattern in ("*.wav", "fold*"):
        ran = listen_to(run, tmp_path / pattern)
        assert ran.code == 2
        assert "--from: it matches 2 recordings; name one" in ran.err


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("command", ["transcribe", "listen --speed 0 --from"])
def test_a_start_behind_the_end_is_told(
    run: Run, speech: Speech, tmp_path: Path, command: str
) -> None:
    talk = speech(tmp_path / "talk.wav")
    ran = run(*command.split(), talk, "--start", "100")
    assert (ran.code, ran.out.strip()) == (0, "")
    assert "talk.wav" in ran.err
    assert "ends after 2.00 s, before " in ran.err
    assert ran.err.count("\n") == 1
    assert run(*command.split(), talk, "--start", "100", "--quiet").err == ""
    assert run(*command.split(), talk, "--start", "1").err == ""


@pytest.mark.usefixtures("backend")
def test_what_is_there_of_a_file_that_ends_too_early(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    cut = speech(tmp_path / "cut.wav", 2.0)
    cut.write_bytes(cut.read_bytes()[:-24_000])
    ran = listen_to(run, cut)
    assert (ran.code, ran.out) == (1, "zero one\n")
    assert ran.err.startswith(f"kiku: {cut}")


@pytest.mark.usefixtures("backend")
def test_files_that_exist_are_kept_unless_forced(run: Run, speech: Speech, tmp_path: Path) -> None:
    talk, text = speech(tmp_path / "talk.wav"), tmp_path / "talk.txt"
    text.write_text("precious\n")
    ran = listen_to(run, talk, "-o", tmp_path)
    assert ran.code == 1
    assert ran.err == f"kiku: {text} already exists; overwrite it with --force\n"
    assert text.read_text() == "precious\n"
    assert listen_to(run, talk, "-o", tmp_path, "--force").code == 0
    assert text.read_text() == "zero one two\n"


def test_an_engine_that_breaks_keeps_what_was_heard(
    run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
) -> None:
    backend.break_at = 15
    ran = listen_to(run, speech(tmp_path / "talk.wav"), "-f", "txt")
    assert (ran.code, ran.out) == (1, "zero one\n")
    assert "the device fell off the table" in ran.err
    assert ran.err.count("\n") == 1


def test_files_of_a_recording_are_partial_unless_it_is_heard_to_its_end(
    run: Run, speech: Speech, tmp_path: Path, backend: SimpleBackend
) -> None:
    talk = speech(tmp_path / "talk.wav")
    backend.break_at = 15
    assert listen_to(run, talk, "-o", tmp_path / "out").code == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"talk.partial.{ending}" for ending in TEXTS}
    backend.break_at = None
    assert listen_to(run, talk, "-o", tmp_path / "out").code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"talk.{ending}" for ending in TEXTS}


@pytest.mark.usefixtures("backend")
def test_a_file_that_cannot_be_begun_leaves_no_other(
    run: Run, speech: Speech, tmp_path: Path
) -> None:
    name_max = os.pathconf(tmp_path, "PC_NAME_MAX")
    talk = speech(tmp_path / ("t" * (name_max - len(".partial.txt")) + ".wav"))
    ran = listen_to(run, talk, "-o", tmp_path / "out")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("backend")
def test_standard_input(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = speech(tmp_path / "talk.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert listen_to(run, "-", "-f", "txt", "-o", tmp_path).code == 0
    assert (tmp_path / "stdin.txt").read_text() == "zero one two\n"


def test_what_is_said_of_the_engine_is_passed_on(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def load(model: str, **values: object) -> kiku.Recognizer:
        asked.update(values, model=model)
        return simple_recognizer(SimpleBackend(), model)

    monkeypatch.setattr(kiku, "load", load)
    talk = speech(tmp_path / "talk.wav", 0.8)
    how = "--engine", "torch", "--device", "cpu", "--dtype", "float32", "--threads", 3
    assert listen_to(run, talk, *how).code == 0
    assert asked == {
        "model": "demo", "engine": "torch", "dtype": "float32", "threads": 3, "revision": None,
        "device": "cpu", "slots": 1,
    }  # fmt: skip


@pytest.mark.parametrize("turns", ["low", "medium", "high", "off"])
def test_what_is_asked_of_the_text_reaches_the_stream(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: str
) -> None:
    asked: list[StreamOptions] = []
    recognizer = simple_recognizer(SimpleBackend())
    stream = recognizer.stream

    def open_stream(options: StreamOptions) -> kiku.LiveStream:
        asked.append(options)
        return stream(replace(options, decoding=DecodingOptions()))

    monkeypatch.setattr(recognizer, "stream", open_stream)
    monkeypatch.setattr(kiku, "load", lambda *_, **__: recognizer)
    ran = listen_to(
        run, speech(tmp_path / "talk.wav"), "--turns", turns, "--hotword", "two", "--hotword",
        "Kyutai:6.5", "--temperature", 0.5, "--channel", 0,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "zero one two\n")
    (options,) = asked
    assert options.decoding.temperature == 0.5
    assert options.decoding.phrases == (Hotword("two"), Hotword("Kyutai", 6.5))
    assert options.turn_policy == (None if turns == "off" else TurnPolicy.of(turns))  # type: ignore
    assert (options.channel, options.partials) == (0, True)


class FakeMicrophone:
    """Hears noise, is away for a while, and hears noise again."""

    name, waiting_s = "USB Mic", 0.0

    def __init__(self, device: object = None, *, tell: Callable[[str], None]) -> None:
        self.device, self.tell = device, tell
        self.stopped = threading.Event()
        self.endless = False

    def stop(self) -> None:
        self.stopped.set()

    def pieces(self) -> Iterator[Piece | Gap]:
        for _ in range(10):
            yield Piece(np.repeat(NOISE, 2, axis=1), 24_000)
        self.tell("USB Mic was disconnected; kiku continues when it is back")
        yield Gap(4.0)
        self.tell("USB Mic is heard again")
        for _ in range(10):
            yield Piece(NOISE, 24_000)
        if self.endless:
            self.stopped.wait(20)
            raise AudioError("what comes of a sound that was stopped")


@pytest.fixture
def mics(monkeypatch: pytest.MonkeyPatch) -> list[FakeMicrophone]:
    made: list[FakeMicrophone] = []

    def make(*how: object, **more: Callable[[str], None]) -> FakeMicrophone:
        made.append(FakeMicrophone(*how, **more))
        return made[-1]

    monkeypatch.setattr(listen, "Microphone", make)
    return made


@pytest.mark.usefixtures("backend")
def test_a_number_that_is_too_long_is_a_microphones_name(
    run: Run, tmp_path: Path, mics: list[FakeMicrophone]
) -> None:
    assert run("listen", "--mic", "1" * 5000, "-o", tmp_path).code == 0
    assert mics[0].device == "1" * 5000


@pytest.mark.usefixtures("backend")
def test_a_microphone_that_goes_and_comes_keeps_the_time(
    run: Run, tmp_path: Path, mics: list[FakeMicrophone]
) -> None:
    ran = run("listen", "--mic", "3", "-o", tmp_path)
    assert ran.code == 0
    assert mics[0].device == 3
    assert ran.err == (
        "kiku: warning: USB Mic was disconnected; kiku continues when it is back\n"
        "kiku: warning: USB Mic is heard again\n"
    )
    (written,) = tmp_path.glob("heard-*.jsonl")
    events = [event_from_dict(json.loads(line)) for line in written.read_text().splitlines()]
    words = [event for event in events if isinstance(event, Word)]
    assert [(word.text, round(word.start, 2)) for word in words] == [("zero", 0.16), ("one", 4.96)]
    assert [event.kind for event in events if isinstance(event, StreamWarning)] == [
        "device",
        "device",
    ]
    # The silence has ended the first turn.
    assert sum(isinstance(event, TurnEnd) for event in events) == 2
    (text,) = tmp_path.glob("heard-*.txt")
    assert text.read_text() == "zero\none\n"


@pytest.mark.usefixtures("backend")
def test_ctrl_c_ends_it_with_the_last_words(
    run: Run, tmp_path: Path, mics: list[FakeMicrophone], monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(text: str) -> None:
        print(text, end="")
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(terminal, "echo", echo)
    monkeypatch.setattr(FakeMicrophone, "__init__", _endless(FakeMicrophone.__init__))
    before = signal.getsignal(signal.SIGINT)
    ran = run("listen", "--turns", "high")
    assert ran.code == 130
    assert ran.out == "zero\none\n"
    last = ran.err.splitlines()[-1]
    assert last.startswith("kiku: interrupted after ")
    assert last.endswith(" s of USB Mic; the words until then are printed above")
    assert mics[0].stopped.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def _endless(init: Callable[..., None]) -> Callable[..., None]:
    def make(self: FakeMicrophone, *how: object, **more: object) -> None:
        init(self, *how, **more)
        self.endless = True

    return make


@pytest.mark.usefixtures("backend")
def test_a_third_ctrl_c_breaks_in(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(text: str) -> None:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(terminal, "echo", echo)
    ran = listen_to(run, speech(tmp_path / "talk.wav"))
    assert ran.code == 130


@pytest.mark.usefixtures("backend")
def test_ctrl_c_while_loading(run: Run, tmp_path: Path, speech: Speech) -> None:
    def load(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kiku, "load", load)
        ran = listen_to(run, speech(tmp_path / "talk.wav"), "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (130, "kiku: interrupted while loading demo\n")
    assert list((tmp_path / "out").iterdir()) == []  # which would be refused the next time


def test_the_devices_are_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from kiku.audio.microphone import Device

    devices = [
        Device(0, "USB Mic", "ALSA", 1, 48_000, is_default=True),
        Device(12, "Inner Mic", "ALSA", 2, 44_100, is_default=False),
    ]
    monkeypatch.setattr(listen, "list_devices", lambda: devices)
    ran = run("listen", "--list-mics")
    assert (ran.code, ran.out) == (
        0,
        "   NUMBER  NAME       BY    CHANNELS  RATE\n"
        "*  0       USB Mic    ALSA  1         48000 Hz\n"
        "   12      Inner Mic  ALSA  2         44100 Hz\n",
    )


@pytest.mark.parametrize("error", [MissingExtra("the microphone", "mic"), AudioError("no mic")])
def test_no_microphone_is_one_sentence_before_a_model_is_loaded(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(listen, "Microphone", fail)
    monkeypatch.setattr(kiku, "load", fail)
    ran = run("listen")
    assert (ran.code, ran.out, ran.err) == (1, "", f"kiku: {error}\n")


@pytest.mark.usefixtures("backend")
def test_a_warning_of_the_sound_is_told_once(run: Run, tmp_path: Path) -> None:
    import wave

    square = np.tile(np.repeat([32767, -32768], 60), 24_000 * 90 // 120).astype("<i2")
    square = np.concatenate([square[: 24_000 * 3], np.zeros(24_000 * 70, "<i2"), square[:96_000]])
    with wave.open(str(tmp_path / "loud.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(square.tobytes())
    ran = listen_to(run, tmp_path / "loud.wav")
    assert ran.code == 0
    assert ran.err.count("clipped at full scale") == 1
    assert "cut off" not in listen_to(run, tmp_path / "loud.wav", "-q").err


def test_the_demo_hears_live_what_it_transcribes(run: Run, repo_root: Path, tmp_path: Path) -> None:
    digits = repo_root / "examples" / "digits.wav"
    assert listen_to(run, digits, "--threads", 1, "-o", tmp_path).code == 0
    run("transcribe", digits, "--threads", 1, "-f", "json", "-o", tmp_path)
    whole = json.loads((tmp_path / "digits.json").read_text())
    lines = (tmp_path / "digits.jsonl").read_text().splitlines()
    words = [values for values in map(json.loads, lines) if values.pop("type") == "word"]
    for word, other in zip(words, whole["words"], strict=True):
        assert word["text"] == other["text"]
        assert [word["start"], word["end"]] == pytest.approx([other["start"], other["end"]])
        assert word["probability"] == pytest.approx(other["probability"], abs=2e-4)
    assert (tmp_path / "digits.txt").read_text() == f"{whole['text']}\n"


def test_the_help_imports_no_engine_and_no_sound_system() -> None:
    heavy = ("torch", "onnxruntime", "sounddevice")
    use = "from kiku.cli import main; main(['listen', '--help'])"
    loaded = f"import sys; print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", f"{use}; {loaded}"], capture_output=True, text=True, check=True
    )
    assert ran.stderr.strip() == "[]"


def test_a_pipe_that_never_ends_is_left_behind(repo_root: Path) -> None:
    """As `ffmpeg -i rtsp://... -f wav - | kiku listen --from -`, and Ctrl-C."""
    program = """
import sys, kiku
from kiku.cli import main
from tests.cli.simple import SimpleBackend, simple_recognizer
kiku.load = lambda model, **_: simple_recognizer(SimpleBackend(), model)
sys.exit(main(["listen", "--from", "-", "--speed", "0"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=repo_root,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write((repo_root / "examples" / "digits.wav").read_bytes()[:200_000])
        process.stdin.flush()
        assert process.stdout.read(8) == b"zero one"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        told = process.stderr.read().decode()
    assert told.startswith("kiku: interrupted after ")
    assert told.count("\n") == 1


@pytest.mark.usefixtures("backend")
def test_a_file_that_takes_no_more_does_not_stop_the_others(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Srt, event: Event) -> str:
        raise OutputError("talk.srt cannot be written (no space left on device)")

    monkeypatch.setattr(Srt, "take", full)
    ran = listen_to(run, speech(tmp_path / "talk.wav"), "-o", tmp_path)
    assert ran.code == 1
    assert ran.err == "kiku: talk.srt cannot be written (no space left on device)\n"
    assert (tmp_path / "talk.txt").read_text() == "zero one two\n"
