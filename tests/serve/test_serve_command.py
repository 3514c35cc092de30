"""`kiku serve` as a process: what it says, how it ends, and what it leaves out of its log."""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kiku.cli import main
from kiku.errors import ConfigError
from kiku.serve import server
from kiku.serve.settings import Settings
from tests.serve.clients import FRAME, PATIENCE_S, kyutai, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.wyoming_sdk import AsyncTcpClient, AudioStart, AudioStop, chunk

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGTERM")


class Process:
    """A service in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process, self.http = process, address
        self.ws = address.replace("http", "ws", 1)
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.errors += self.process.stderr

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal: the exit code and the log."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code, "".join(self.errors)


@contextlib.contextmanager
def served(*options: str, **environment: str) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "kiku", "serve", "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", line)
        assert found is not None, process.stderr.read() if process.stderr else line
        one = Process(process, found[0])
        ends = time.monotonic() + PATIENCE_S
        while httpx.get(f"{one.http}/ready").status_code != 200:
            assert time.monotonic() < ends
            time.sleep(0.05)
        yield one
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def test_sigterm_finishes_what_is_open_and_refuses_what_is_new():
    sound = samples_of(EXAMPLES / "answers.mp3")
    with served("--drain-s", "60") as service:
        with kyutai(service.ws) as client:
            client.speak(sound[: len(sound) // 2])
            client.until("Word")
            service.process.send_signal(signal.SIGTERM)
            ends = time.monotonic() + PATIENCE_S
            while httpx.get(f"{service.http}/ready").status_code != 503:
                assert time.monotonic() < ends
            assert httpx.get(f"{service.http}/ready").json()["reason"] == "draining"
            with pytest.raises(InvalidStatus) as late, kyutai(service.ws):
                pass
            assert late.value.response.status_code == 503
            assert b"the service is shutting down" in late.value.response.body
            client.speak(sound[len(sound) // 2 :])
            text = client.finish()
        code, log = service.wait()
    assert text.split()[0] == "yes"
    assert len(text.split()) > 5
    assert code == 0
    assert "Traceback" not in log


def test_who_is_left_at_the_deadline_is_told_and_closed_with_1012():
    with served("--drain-s", "0.2") as service, kyutai(service.ws) as client:
        client.until("Ready")
        client.speak(np.zeros(FRAME * 3, np.float32))
        service.process.send_signal(signal.SIGTERM)
        assert "shutting down" in client.until("Error")["message"]
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        code, log = service.wait()
    assert code == 0
    assert "Traceback" not in log


def test_wyomings_clients_are_answered_and_finished_too():
    port = free_port()
    with served("--wyoming-port", str(port), "--drain-s", "60") as service:
        wait_until(lambda: "Wyoming at port" in "".join(service.errors))
        pcm = (samples_of(EXAMPLES / "digits.wav") * 32_000).astype("<i2").tobytes()

        async def speak() -> list[str]:
            async with AsyncTcpClient("127.0.0.1", port) as client:
                await client.write_event(AudioStart(24_000, 2, 1).event())
                await client.write_event(chunk(pcm[:48_000], 24_000).event())
                first = await client.read_event()
                assert first is not None
                service.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(
                    wait_until, lambda: httpx.get(f"{service.http}/ready").status_code == 503
                )
                await client.write_event(chunk(pcm[48_000:], 24_000).event())
                await client.write_event(AudioStop().event())
                kinds = [first.type]
                while (event := await client.read_event()) is not None:
                    kinds.append(event.type)
                    if event.type == "transcript":
                        texts.append(event.data["text"])
                        break
                return kinds

        texts: list[str] = []
        kinds = asyncio.run(speak())
        code, log = service.wait()
    assert kinds[0] == "transcript-start"
    assert texts == ["seven three zero one nine four"]
    assert code == 0
    assert "Traceback" not in log
    assert "protocol=wyoming" in log


def free_port() -> int:
    """One that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "it did not come to it"
        time.sleep(0.05)


def test_a_second_ctrl_c_ends_it_at_once():
    with served("--drain-s", "600") as service, kyutai(service.ws) as client:
        client.until("Ready")
        service.process.send_signal(signal.SIGINT)
        ends = time.monotonic() + PATIENCE_S
        while httpx.get(f"{service.http}/ready").status_code != 503:
            assert time.monotonic() < ends
        service.process.send_signal(signal.SIGINT)
        service.wait()


_EARLY = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `&` makes it ignored
class Ask:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))
sys.meta_path.insert(0, Ask())
from kiku.cli import main
sys.exit(main([*sys.argv[3:], "serve", "--port", "0"]))
"""


@pytest.mark.parametrize(
    ("module", "number", "options"),
    [("kiku.cli.app", signal.SIGINT, ()), ("uvicorn", signal.SIGTERM, ("--debug",))],
)
def test_a_signal_while_it_starts_ends_it_in_order(
    module: str, number: int, options: tuple[str, ...]
):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("KIKU_")}
    ran = subprocess.run(
        [sys.executable, "-c", _EARLY, module, str(int(number)), *options],
        capture_output=True, text=True, timeout=PATIENCE_S, env=plain,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "shutting down before the model is loaded\n"


def test_neither_keys_nor_text_come_into_the_log():
    with served(KIKU_API_KEY="sesame-open", KIKU_LOG_LEVEL="debug") as service:
        with kyutai(service.ws, "?auth_id=sesame-open") as client:
            client.speak(samples_of(EXAMPLES / "answers.mp3"))
            text = client.finish()
        with contextlib.suppress(InvalidStatus), kyutai(service.ws, "?auth_id=sesame-wrong"):
            pass
        httpx.get(f"{service.http}/health?auth_id=sesame-open")
        code, log = service.end(signal.SIGTERM)
    assert code == 0
    assert "sesame" not in log
    assert "protocol=kyutai" in log
    assert f"words={len(text.split())}" in log
    assert " ".join(text.split()[:2]) not in log


def test_what_is_wrong_with_the_sound_is_counted_and_logged():
    """Kyutai's protocol has no message for it."""
    with served() as service:
        with kyutai(service.ws) as client:
            sound = samples_of(EXAMPLES / "answers.mp3")
            sound[24_000:24_100] = np.nan
            client.speak(sound)
            client.finish()
        metrics = httpx.get(f"{service.http}/metrics").text
        code, log = service.end(signal.SIGTERM)
    assert code == 0
    assert 'kiku_warnings_total{kind="not_finite",protocol="kyutai"} 1.0' in metrics
    assert "warnings=not_finite" in log


def test_the_log_can_be_json_and_have_the_text_and_ctrl_c_ends_it_too():
    with served("--log-format", "json", KIKU_LOG_TEXT="1", KIKU_API_KEY="sesame") as service:
        with pytest.raises(InvalidStatus), kyutai(service.ws):
            pass
        with kyutai(service.ws, "?auth_id=sesame") as client:
            client.speak(samples_of(EXAMPLES / "digits.wav"))
            text = client.finish()
        code, log = service.end(signal.SIGINT)  # which ends it as SIGTERM does
    assert code == 0
    lines = [json.loads(line) for line in log.splitlines()]
    (line,) = [one for one in lines if one.get("protocol") == "kyutai"]
    assert line["text"] == text
    assert line["words"] == len(text.split())
    # A socket that is refused is no error.
    assert "error" not in {one["level"] for one in lines}
    assert "handshake" not in log


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """`refused("--port", "80")`: what `kiku serve` says, in this process, before it ends with 1."""
    names = ("kiku", "uvicorn", "websockets", "python_multipart")
    loggers = [logging.getLogger(name) for name in names]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]

    def run(*options: str) -> str:
        assert main(["serve", "--port", "0", *options]) == 1
        return sentence(capsys.readouterr().err)

    yield run
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)
    logging.captureWarnings(False)


def sentence(told: str) -> str:
    """The one that is told, and nothing else of kiku's."""
    assert "Traceback" not in told
    (error,) = [line for line in told.splitlines() if line.startswith("kiku: ")]
    return error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--host", "no.such.host.invalid", "--insecure"], "cannot listen on"),
        (["--config", "/no/such/file"], "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(refused: Refused, options: list[str], said: str):
    assert said in refused(*options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--log-level", "loud"], "--log-level must be debug"),
        (["--slots", "0"], "--slots must be at least 1"),
        (["--port", "99999"], "--port must be at most 65535"),
    ],
)
def test_options_that_cannot_be_make_no_sense(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["serve", *options]) == 2
    assert said in sentence(capsys.readouterr().err)


def test_what_a_file_says_is_no_slip_of_the_command(refused: Refused, tmp_path: Path):
    (tmp_path / "kiku.toml").write_text("slots = 0")
    assert "kiku.toml must be at least 1" in refused("--config", str(tmp_path / "kiku.toml"))


@pytest.mark.parametrize("option", ["--port", "--wyoming-port"])
def test_a_port_that_is_taken_is_told(refused: Refused, option: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"choose another --host or {option}" in refused(option, port)  # the last one counts


def test_a_port_that_cannot_be_had_leaves_no_other_open(monkeypatch: pytest.MonkeyPatch):
    own, opened = server.listening_socket, list[socket.socket]()

    def noted(host: str, port: int, option: str = "--port") -> socket.socket:
        opened.append(own(host, port, option))
        return opened[-1]

    monkeypatch.setattr(server, "listening_socket", noted)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(port=0, wyoming_port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="cannot listen"):
            server.run(settings)
    (sock,) = opened
    assert sock.fileno() == -1


def test_a_model_that_there_is_not_ends_the_process():
    """It is loaded when clients are answered already."""
    result = subprocess.run(
        [sys.executable, "-m", "kiku", "serve", "--port", "0", "--model", "/no/such/model"],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert result.returncode == 1
    assert "/no/such/model" in sentence(result.stderr)


@pytest.mark.usefixtures("refused")  # which puts the loggers back
def test_a_setting_of_the_environment_that_there_is_not_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("KIKU_LANGUAGE", "en")
    monkeypatch.setattr("kiku.serve.server.run", lambda *_: None)
    assert main(["serve"]) == 0
    assert capsys.readouterr().err.count("did you mean KIKU_LANGUAGES?") == 1


def test_without_its_extra_the_command_says_how_to_get_it(tmp_path: Path):
    (tmp_path / "starlette.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'starlette'\", name='starlette')"
    )
    result = subprocess.run(
        [sys.executable, "-m", "kiku", "serve", "--port", "0"],
        capture_output=True, text=True, timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 1
    assert "pip install '.[serve]'" in result.stderr


@pytest.mark.usefixtures("refused")
def test_a_model_that_cannot_be_loaded_is_not_said_to_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--model", "nosuch", "--port", "0"]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(r"loading nosuch; it will answer at http://\S+; .*\n", said.out)
    assert "'nosuch' is neither an existing folder nor a repository" in said.err
