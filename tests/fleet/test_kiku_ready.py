"""deploy/nginx/kiku-ready.sh: which replicas nginx gets, and when it is reloaded."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "deploy" / "nginx" / "kiku-ready.sh"
PATIENCE_S = 60.0

# Answers for replicas whose name begins with "ready", and only when all have been asked.
CURL = """#!/bin/sh
for last; do :; done
last=${last#http://} last=${last%/ready}
touch "$FOLDER/asked-$last"
while [ "$(ls "$FOLDER" | grep -c '^asked-')" -lt "$COUNT" ]; do /bin/sleep 0.01; done
case "$last" in ready*) exit 0 ;; *) exit 22 ;; esac
"""

# The pause behind the first round is long, and its beginning can be seen.
SLEEP = """#!/bin/sh
touch "$FOLDER/paused"
exec /bin/sleep 600
"""


def after_a_round(folder: Path, replicas: list[str]) -> tuple[list[str], bool]:
    """The lines that nginx has after the first round, and whether it was reloaded."""
    for name, text in (("curl", CURL), ("sleep", SLEEP)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    given = (SCRIPT.with_name("kiku-replicas.conf")).read_text()
    listed = folder / "kiku-replicas.conf"
    lines = [f"server {one} max_fails=0;\n" for one in replicas]
    listed.write_text("".join([*(one for one in given.splitlines(True) if "#" in one), *lines]))
    process = subprocess.Popen(
        ["sh", str(SCRIPT), str(listed), *replicas], start_new_session=True,
        env={
            **os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "FOLDER": str(folder), "COUNT": str(len(replicas)),
            "RELOAD": f"touch {folder}/reloaded",
        },
    )  # fmt: skip
    try:
        ends = time.monotonic() + PATIENCE_S
        while not (folder / "paused").exists():
            assert process.poll() is None
            assert time.monotonic() < ends, "replicas are asked one by one"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    found = [one for one in listed.read_text().splitlines() if not one.startswith("#")]
    return found, (folder / "reloaded").exists()


pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell")


def test_nginx_is_not_reloaded_if_nothing_has_changed(tmp_path: Path):
    lines, is_reloaded = after_a_round(tmp_path, ["ready-1:8080", "ready-2:8080"])
    assert lines == ["server ready-1:8080 max_fails=0;", "server ready-2:8080 max_fails=0;"]
    assert not is_reloaded


def test_a_replica_that_is_not_ready_is_taken_out(tmp_path: Path):
    lines, is_reloaded = after_a_round(tmp_path, ["ready:80", "gone:80", "ready:8"])
    assert lines == [
        "server ready:80 max_fails=0;", "server gone:80 max_fails=0 down;",
        "server ready:8 max_fails=0;",
    ]  # fmt: skip
    assert is_reloaded


def test_without_a_replica_that_is_ready_all_stay_in(tmp_path: Path):
    lines, is_reloaded = after_a_round(tmp_path, ["gone-1:80", "gone-2:80"])
    assert lines == ["server gone-1:80 max_fails=0;", "server gone-2:80 max_fails=0;"]
    assert not is_reloaded
