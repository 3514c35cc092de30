"""How the command starts: from a shell, fast, and without what it does not need."""

import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

import kiku
from kiku.cli import main
from kiku.cli.interrupts import all_like_ctrl_c
from kiku.errors import MissingExtra, OutputError
from tests.cli.simple import SimpleBackend

_HEAVY = ("torch", "onnxruntime", "transformers", "huggingface_hub")


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


_IMPORTS = f"""
import sys
import time
def tell(use):
    print(use, *(name for name in {_HEAVY} if name in sys.modules), file=sys.stderr)
import kiku
tell("kiku")
from kiku.cli import main
for command in ("--help", "transcribe --help", "models list", "models info", "models verify"):
    main(command.split())
    tell(command)
"""


def test_what_needs_no_model_imports_no_engine() -> None:
    *free, info, verify = _python("-c", _IMPORTS).stderr.splitlines()
    assert free == ["kiku", "--help", "transcribe --help", "models list"]
    for line, command in ((info, "models info"), (verify, "models verify")):
        assert line.startswith(command)
        assert "torch" not in line


_LIGHT = """
import sys
import time
import kiku
from kiku.cli import main
print(*(name for name in ("numpy", "av", "typer", "rich", "asyncio") if name in sys.modules))
print(kiku.errors.AudioError.__name__, kiku.audio.__name__)
"""


def test_to_import_kiku_and_its_command_takes_no_time() -> None:
    ran = _python("-c", _LIGHT)
    assert ran.stdout.splitlines() == ["", "AudioError kiku.audio"], ran.stderr


_INTERRUPTED = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000):
                    pass
            except KeyboardInterrupt:
                raise ImportError("half of it is there") from None
sys.meta_path.insert(0, Interrupt())
from kiku.cli import main
sys.exit(main(["--version"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends a signal as a terminal does")
@pytest.mark.parametrize("module", ["kiku.cli.app", "numpy", "av", "typer"])
def test_ctrl_c_is_quiet_while_modules_are_imported(module: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, module],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "kiku: interrupted\n")


def test_python_m_kiku_is_kiku(capsys: pytest.CaptureFixture[str]) -> None:
    version = f"kiku {kiku.__version__}\n"
    assert _python("-m", "kiku", "--version").stdout == version
    assert main(["-V"]) == 0
    assert capsys.readouterr().out == version
    ran = _python("-m", "kiku", "transcribe", "/no/such/file.wav")
    assert ran.returncode == 1
    assert ran.stderr.startswith("kiku: /no/such/file.wav")


def test_a_shell_can_complete_what_is_typed() -> None:
    ran = _python(
        "-m", "kiku",
        _KIKU_COMPLETE="complete_bash", COMP_WORDS="kiku trans", COMP_CWORD="1",
    )  # fmt: skip
    assert ran.stdout.split() == ["transcribe"]


def test_offline_asks_no_network(tmp_path: Path) -> None:
    ran = _python(
        "-m", "kiku", "transcribe", str(_silence(tmp_path)), "--model", "kyutai/stt-1b-en_fr",
        "--offline", HF_HOME=str(tmp_path),
    )  # fmt: skip
    assert ran.returncode == 1
    assert "is not in the cache, and --offline or HF_HUB_OFFLINE forbids" in ran.stderr
    assert ran.stderr.count("\n") == 1


def _silence(folder: Path) -> Path:
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(bytes(9600))
    return folder / "a.wav"


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m kiku models list | true"
    ran = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("141\n", "")


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_no_reason_to_stop(
    name: str, speech: Callable[..., Path], tmp_path: Path, backend: SimpleBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    talk, out = speech(tmp_path / "a.wav"), tmp_path / "out"
    for command in (
        ["--version"], ["models", "list"], ["transcribe", str(talk)],
        ["transcribe", str(talk), "-o", str(out)],
        ["listen", "--from", str(talk), "--speed", "0", "-o", str(out / "live")],
    ):  # fmt: skip
        monkeypatch.setattr(sys, name, None)
        assert main(command) == 0
        getattr(sys, name).close()
    assert (out / "a.txt").read_text() == "zero one two\n"
    assert (out / "live" / "a.txt").read_text() == "zero one two\n"


def test_closed_streams_keep_their_numbers(tmp_path: Path) -> None:
    """No file that is written gets what is said on standard output."""
    shell = f"exec {sys.executable} -c '{_NUMBERS}' $0 <&- >&- 2>&-"
    subprocess.run(["sh", "-c", shell, tmp_path / "numbers"], check=True, timeout=60)
    assert (tmp_path / "numbers").read_text() == "0 1 2"


_NUMBERS = """
import sys
from kiku.cli import main
main(["--version"])
said = " ".join(str(one.fileno()) for one in (sys.stdin, sys.stdout, sys.stderr))
open(sys.argv[1], "w").write(said)
"""


def test_letters_that_the_output_lacks_do_not_stop_it(tmp_path: Path) -> None:
    ran = _python("-m", "kiku", "transcribe", str(tmp_path / "né.wav"), PYTHONIOENCODING="ascii")
    assert ran.returncode == 1
    assert "n\\xe9.wav" in ran.stderr


_SLOW = """
import sys, time
import kiku
from kiku.cli import main
def load(*_, **__):
    print("loading", flush=True)
    time.sleep(60)
kiku.load = load
sys.exit(main(["transcribe", sys.argv[1]]))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends a signal as a terminal does")
def test_ctrl_c_from_outside(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(tmp_path / "a.wav")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background by a script, this process ignores the signal, and so would its
        # children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "kiku: interrupted while loading demo\n")


@pytest.mark.parametrize("named", [False, True])
def test_ctrl_c_in_the_import_of_a_compiled_module(
    named: bool, run, speech, tmp_path, monkeypatch
) -> None:
    """It makes an ImportError of the interrupt, of which a guard may make an error of ours."""

    def load(*_: object, **__: object) -> None:
        try:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as ctrl_c:
                raise ImportError("initialization failed") from ctrl_c
        except ImportError as error:
            if named:
                raise MissingExtra("the torch engine", "torch") from error
            raise

    monkeypatch.setattr("kiku.load", load)
    ran = run("transcribe", speech(tmp_path / "a.wav", 1.0))
    assert (ran.code, ran.err) == (130, "kiku: interrupted\n")


def test_an_error_while_ctrl_c_is_handled_is_told(run, speech, tmp_path, monkeypatch) -> None:
    def load(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise OutputError("the disk is full")  # noqa: B904  (its context alone)

    monkeypatch.setattr("kiku.load", load)
    ran = run("transcribe", speech(tmp_path / "a.wav", 1.0))
    assert (ran.code, ran.err) == (1, "kiku: the disk is full\n")


_HALF = """
import os, signal, sys, kiku
from kiku.cli import main
from tests.cli.simple import SimpleBackend, simple_recognizer
backend = SimpleBackend()
hear = backend._token
def token(slot, loud):
    if backend.num_heard == 16:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return hear(slot, loud)
backend._token = token
kiku.load = lambda model, **_: simple_recognizer(backend, model)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends signals as Unix does")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_whatever_ends_the_program_keeps_what_was_heard(
    name: str, speech: Callable[..., Path], tmp_path: Path, repo_root: Path
) -> None:
    talk = speech(tmp_path / "a.wav", 40.0)
    ran = subprocess.run(
        [sys.executable, "-c", _HALF, name, "transcribe", str(talk), "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=repo_root,
        # Whoever runs the tests may ignore it, as nohup does.
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),
    )
    assert ran.returncode == 128 + getattr(signal, name)
    assert ran.stderr.startswith("kiku: interrupted after ")
    assert ran.stderr.count("\n") == 1
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == "a.partial.txt"
    assert written.read_text().startswith("zero one")


_PIPED = """
import sys, kiku
from kiku.cli import main
from tests.cli.simple import SimpleBackend, simple_recognizer
kiku.load = lambda model, **_: simple_recognizer(SimpleBackend(), model)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends signals as Unix does")
@pytest.mark.parametrize(
    ("name", "is_group", "raw"),
    [
        ("SIGINT", True, []),
        ("SIGINT", False, ["--raw", "s16le,24000,1"]),
        ("SIGTERM", True, ["--raw", "s16le,24000,1"]),
        ("SIGTERM", False, []),
    ],
)
def test_what_is_read_from_a_pipe_is_ended_by_signals(
    name: str, is_group: bool, raw: list[str], speech: Callable[..., Path], tmp_path: Path,
    repo_root: Path,
) -> None:  # fmt: skip
    """Whether the pipe ends at the same time, as after Ctrl-C, or stays open."""
    import fcntl
    import termios

    number = getattr(signal, name)
    with subprocess.Popen(
        [sys.executable, "-c", _PIPED, "transcribe", "-", *raw, "-o", str(tmp_path / "out")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=repo_root,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(speech(tmp_path / "a.wav", 12.0).read_bytes())
        process.stdin.flush()
        while int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), "little"):
            time.sleep(0.01)
        time.sleep(0.5)  # it has read all, and waits for more
        process.send_signal(number)
        if is_group:
            process.stdin.close()
        assert process.wait(30) == 128 + number
        told = process.stderr.read().decode()
    assert told.startswith("kiku: interrupted after ")
    assert told.count("\n") == 1
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == "stdin.partial.txt"
    assert written.read_text().startswith("zero one")


def test_signals_are_given_back_and_those_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with all_like_ctrl_c() as ending:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert ending.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
