"""Kyutai's two scripts and Unmute's client, unchanged, each in a process of its own.

They are in no package: CLIENT_SCRIPTS names a folder with clones of
kyutai-labs/delayed-streams-modeling and kyutai-labs/unmute.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kiku
from tests.serve.running import Running
from tests.serve_clients.spoken import (
    PATIENCE_S,
    RECORDINGS,
    ROOT,
    plain,
    spoken,
    without_errors,
)

if not os.environ.get("CLIENT_SCRIPTS"):
    pytest.skip(
        "CLIENT_SCRIPTS names no folder with clones of Kyutai's repositories",
        allow_module_level=True,
    )

HERE = Path(__file__).parent
STAND_INS = HERE / "stand_ins"
SCRIPTS = ("delayed-streams-modeling", "scripts")


def cloned(*parts: str) -> Path:
    """A path in a clone; without the clone the test is skipped."""
    path = Path(os.environ["CLIENT_SCRIPTS"], *parts).resolve()
    if not path.exists():
        pytest.skip(f"there is no {path}: clone kyutai-labs/{parts[0]} there")
    return path


def environment(*python_path: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, python_path)), **more}


@pytest.mark.parametrize("rtf", ["1000", "4"])
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_script_for_files(service: Running, demo: kiku.Recognizer, name: str, rtf: str) -> None:
    sphn = pytest.importorskip("sphn", reason="sphn is not installed: make clients does that")
    script, path = cloned(*SCRIPTS, "stt_from_file_rust_server.py"), ROOT / "examples" / name
    # It reads the file so, and sends silence around it.
    samples = sphn.read(path, sample_rate=24_000)[0][0]
    whole = np.concatenate([np.zeros(24_000), samples, np.zeros(5 * 24_000)]).astype(np.float32)
    expected = demo.transcribe(whole, rate=24_000)
    with without_errors(service):
        result = subprocess.run(
            [sys.executable, str(script), str(path), "--url", service.ws, "--rtf", rtf],
            capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    line, _, *table = result.stdout.splitlines()
    assert line.split() == expected.text.split()
    times = [row.replace("-", " ").split() for row in table]
    told = [(round(word.start, 2), round(word.end, 2), word.text) for word in expected.words]
    assert [(float(start), float(end), text) for start, end, text in times] == told


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_script_for_microphones(
    service: Running, demo: kiku.Recognizer, name: str, tmp_path: Path
) -> None:
    script, sound = cloned(*SCRIPTS, "stt_from_mic_rust_server.py"), spoken(demo, name, 24_000)
    microphone = tmp_path / "microphone"
    with (
        without_errors(service),
        subprocess.Popen(
            [sys.executable, str(script), "--url", service.ws, "--show-vad"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
            env=environment(STAND_INS, KIKU_MICROPHONE=str(microphone), PYTHONUNBUFFERED="1"),
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while "Starting the transcription" not in (line := process.stdout.readline()):
                assert line, process.stderr.read()
            samples = sound.samples.astype(np.float32) / 32_768
            samples.tofile(tmp_path / "part")
            (tmp_path / "part").rename(microphone)
            told = ""
            while len(plain(told)) < len(sound.words) or not told[-1].isspace():
                letter = process.stdout.read(1)
                assert letter, process.stderr.read()
                told += letter
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert plain(told) == sound.words
    assert plain(rest) == ["interrupted", "by", "user"]
    assert process.returncode == 0, errors


@pytest.mark.parametrize("name", RECORDINGS)
def test_unmutes_client(service: Running, demo: kiku.Recognizer, name: str, tmp_path: Path) -> None:
    unmute, sound = cloned("unmute"), spoken(demo, name, 24_000)
    (sound.samples.astype(np.float32) / 32_768).tofile(tmp_path / "sound")
    with without_errors(service):
        result = subprocess.run(
            [sys.executable, str(HERE / "unmute_talk.py"), str(tmp_path / "sound")],
            capture_output=True, text=True, timeout=PATIENCE_S,
            env=environment(unmute, STAND_INS, KYUTAI_STT_URL=service.ws),
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert [word for text in told["words"] for word in plain(text)] == sound.words
    assert told["state"] == "closed"
