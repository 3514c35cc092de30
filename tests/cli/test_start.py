"""How the command starts: from a shell, fast, and without what it does not need."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kiku

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


def test_python_m_kiku_is_kiku() -> None:
    assert _python("-m", "kiku", "--version").stdout == f"kiku {kiku.__version__}\n"
    ran = _python("-m", "kiku", "transcribe", "/no/such/file.wav")
    assert ran.returncode == 1
    assert ran.stderr.startswith("kiku: /no/such/file.wav")


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
