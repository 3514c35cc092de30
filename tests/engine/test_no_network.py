"""What `kiku transcribe` and `kiku serve` leave behind and whom they ask for: nothing and nobody.

ONNX Runtime's telemetry writes an id of the device at once and asks for its server some seconds
later, in compiled code. So the C library's own functions are watched.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or shutil.which("cc") is None,
        reason="compiles a library that Linux loads before others",
    ),
]

ROOT = Path(__file__).parents[2]
_WATCH_S = 20  # the telemetry asks for its server within 15 s

_LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static void note(const char *what, const char *name) {
    FILE *out = fopen(getenv("WATCHED"), "a");
    if (out) {
        fprintf(out, "%s %s\n", what, name ? name : "");
        fclose(out);
    }
}

int connect(int socket, const struct sockaddr *address, socklen_t size) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    if (address->sa_family == AF_INET || address->sa_family == AF_INET6)
        note("connect", "");
    return real(socket, address, size);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    note("look up", name);
    return real(name, service, hints, found);
}
"""


class Watched:
    """Python in a home of its own, with a library that notes whom it asks for."""

    def __init__(self, folder: Path) -> None:
        (folder / "watch.c").write_text(_LIBRARY)
        library, self._notes, self.home = folder / "watch.so", folder / "notes", folder / "home"
        self.home.mkdir()
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", library, folder / "watch.c", "-ldl"], check=True
        )
        places = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")
        self.environment = {
            **os.environ,
            **dict.fromkeys(places, str(self.home)),
            "KIKU_CACHE": str(folder / "models"),
            "LD_PRELOAD": str(library),
            "WATCHED": str(self._notes),
        }
        self.environment.pop("ORT_DISABLE_TELEMETRY", None)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-B", *arguments],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def seen(self) -> list[str]:
        """Whom it asked for, but for this machine, and the files that it left in its home."""
        asked = self._notes.read_text().splitlines() if self._notes.exists() else []
        left = [str(path) for path in self.home.rglob("*") if path.is_file()]
        return [one for one in asked if one != "look up 127.0.0.1"] + left


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_what_is_asked_for_is_seen(watched: Watched) -> None:
    program = """
import pathlib, socket, tempfile
try:
    socket.create_connection(("localhost", 1), timeout=5)
except OSError:
    pathlib.Path(tempfile.gettempdir(), "left").touch()
"""
    process = watched.start("-c", program)
    process.communicate(timeout=60)
    assert watched.seen()[:2] == ["look up localhost", "connect "]
    assert watched.seen()[-1].endswith("left")


def test_a_command_asks_for_nobody(watched: Watched) -> None:
    process = watched.start("-m", "kiku", "transcribe", str(ROOT / "examples" / "digits.wav"))
    said, _ = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "seven three zero one nine four\n")
    assert watched.seen() == []


def test_a_server_asks_for_nobody(watched: Watched) -> None:
    process = watched.start("-m", "kiku", "serve", "--port", "0")
    try:
        time.sleep(_WATCH_S)
        assert process.poll() is None
        assert watched.seen() == []
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert "demo" in said
