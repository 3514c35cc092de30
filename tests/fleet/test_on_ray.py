"""On a Ray of this machine, two actors of one processor: the same words, nothing lost or twice.

Each test starts a Ray, which takes some 20 s.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import kiku
from kiku.fleet.resources import why_no_gpu
from kiku.fleet.store import RowStore
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray, of the extra fleet, is not there"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc"),
    pytest.mark.usefixtures("nothing_stays"),
]

TOKEN = secrets.token_hex(8)
"""Processes of these tests have it in their environment."""


def _processes(name: str = "") -> list[int]:
    """Of these tests, and whose command begins so."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = TOKEN.encode() in (folder / "environ").read_bytes()
            if mine and (folder / "cmdline").read_bytes().startswith(name.encode()):
                found.append(int(folder.name))
    return found


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """Whatever a test leaves behind is ended: the driver that it killed leaves a Ray."""
    yield
    for _ in range(50):
        left = [pid for pid in _processes() if pid != os.getpid()]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


@pytest.fixture
def recordings(shared_data: Path) -> list[dict[str, Any]]:
    """Sixty short ones of people."""
    rows = map(json.loads, (shared_data / "dev.jsonl").read_text().splitlines())
    short = [row for row in rows if row["seconds"] < 6][:60]
    return [{"path": str(shared_data / row["file"]), "duration": row["seconds"]} for row in short]


def _start(sources: list[dict[str, Any]], output: Path, **more: Any) -> Any:
    """A driver, under way; see ray_driver.py."""
    job = output.with_suffix(".json")
    job.write_text(json.dumps({"sources": sources, **more}))
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("ray_driver.py")), str(job), str(output)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path, "KIKU_TEST": TOKEN},
    )  # fmt: skip


def _until(driver: Any, files: int) -> None:
    """Until so many recordings are done."""
    for line in driver.stdout:
        if line.strip() == str(files):
            return
    raise AssertionError("it ended before")


def _report(driver: Any) -> dict[str, Any]:
    """What it says at its end."""
    with driver:
        lines = list(driver.stdout)
    assert driver.returncode == 0
    return json.loads(lines[-1])


def _rows(output: Path) -> dict[str, dict[str, Any]]:
    """By path; each once."""
    with RowStore(str(output)) as store:
        rows = list(store.rows())
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def _plain(sources: list[dict[str, Any]]) -> dict[str, str]:
    """What is heard in them without Ray."""
    paths = [row["path"] for row in sources]
    heard = kiku.load("demo", slots=4, threads=1).transcribe(paths)
    return {path: one.text for path, one in zip(paths, heard, strict=True)}


def test_an_actor_is_killed(recordings: list[dict[str, Any]], tmp_path: Path) -> None:
    driver = _start(recordings, tmp_path / "out")
    _until(driver, 10)
    actors = _processes("ray::MapWorker")
    assert actors  # the second may still load its model
    os.kill(actors[0], signal.SIGKILL)
    assert _report(driver) == {"files": 60, "killed": []}
    rows = _rows(tmp_path / "out")
    assert {path: row["text"] for path, row in rows.items()} == _plain(recordings)
    assert {row["problem"] for row in rows.values()} == {None}


def test_a_machine_is_gone(recordings: list[dict[str, Any]], tmp_path: Path) -> None:
    driver = _start(recordings, tmp_path / "out", machines=2)
    _until(driver, 15)
    driver.stdin.write("remove\n")
    driver.stdin.flush()
    assert _report(driver) == {"files": 60, "killed": []}
    rows = _rows(tmp_path / "out")
    assert {path: row["text"] for path, row in rows.items()} == _plain(recordings)
    assert {row["problem"] for row in rows.values()} == {None}


def test_the_driver_is_killed_and_started_again(
    recordings: list[dict[str, Any]], tmp_path: Path
) -> None:
    driver = _start(recordings, tmp_path / "out", rows=1)
    _until(driver, 25)
    with driver:
        driver.kill()
    before = _rows(tmp_path / "out")
    assert 25 <= len(before) < 60
    again = _start(recordings, tmp_path / "out")
    assert _report(again) == {"files": 60 - len(before), "killed": []}
    rows = _rows(tmp_path / "out")
    assert {path: row["text"] for path, row in rows.items()} == _plain(recordings)
    assert {path: rows[path] for path in before} == before


def test_a_recording_that_kills_its_process(
    recordings: list[dict[str, Any]], tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly.ogg"
    deadly.write_bytes(Path(recordings[0]["path"]).read_bytes())
    sources = [*recordings[:20], {"path": str(deadly), "duration": 3.0}, *recordings[20:40]]
    report = _report(_start(sources, tmp_path / "out"))
    assert report == {"files": 41, "killed": [str(deadly)]}
    rows = _rows(tmp_path / "out")
    assert "the process died each time" in rows.pop(str(deadly))["problem"]
    assert {path: row["text"] for path, row in rows.items()} == _plain(recordings[:40])


def test_machines_with_gpus_are_asked_whether_they_can_use_them(tmp_path: Path) -> None:
    why = why_no_gpu()
    if not why:
        pytest.skip("PyTorch here is built for GPUs")
    program = (
        "import ray, sys; from kiku import fleet; from kiku.errors import InputError\n"
        "ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)\n"
        "try: fleet.transcribe(*sys.argv[1:], model=fleet.ModelSettings(device='cuda'))\n"
        "except InputError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "examples"), str(tmp_path / "out")],
        stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "KIKU_TEST": TOKEN},
    )  # fmt: skip
    assert ran.stdout.startswith("device='cuda' needs a GPU: on ")
    assert why in ran.stdout


def test_what_others_hold_is_told_and_waited_for(
    recordings: list[dict[str, Any]], tmp_path: Path
) -> None:
    """What holds the only processor ends when the line comes: without it nothing would be heard."""
    program = (
        "import logging, ray, sys; from kiku import fleet\n"
        "ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "class Holder:\n    def is_there(self): return True\n"
        "holder = ray.remote(num_cpus=1)(Holder).remote(); ray.get(holder.is_there.remote())\n"
        "class End(logging.Handler):\n"
        "    def emit(self, record): print(record.getMessage()); ray.kill(holder)\n"
        "logging.getLogger('kiku.fleet.resources').addHandler(End())\n"
        "done = fleet.transcribe(*sys.argv[1:], model=fleet.ModelSettings(threads=1))\n"
        "print(done.progress.files)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, recordings[0]["path"], str(tmp_path / "out")],
        stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "KIKU_TEST": TOKEN},
    )  # fmt: skip
    line, files = ran.stdout.splitlines()
    assert line.startswith(
        "1 of 1 actors are waiting for room (each needs CPU: 1; free are CPU: 0): "
    )
    assert files == "1"
