"""Ctrl-C and SIGTERM while `kiku serve` starts."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from kiku.cli.end_request import first_is_noted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGTERM")


@pytest.fixture(autouse=True)
def _usual_ctrl_c() -> Iterator[None]:
    """What starts the tests may have made Ctrl-C ignored, as `nohup` and `&` in a script do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_one_is_noted_and_nothing_stays_changed(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with first_is_noted() as request:
        assert not request.has_come
        signal.raise_signal(number)
        assert request.has_come
        assert request.take()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_nothing_is_noted_and_nothing_fails() -> None:
    done: list[bool] = []

    def work() -> None:
        with first_is_noted() as request:
            done.append(request.take())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [False]


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with first_is_noted() as request:
            signal.raise_signal(signal.SIGINT)
            assert not request.has_come
    finally:
        signal.signal(signal.SIGINT, before)


_SECOND = """
import signal, sys
from kiku.cli.end_request import first_is_noted
with first_is_noted() as request:
    if sys.argv[2] == "taken":
        request.take()
    else:
        signal.raise_signal(signal.SIGTERM)
    print("goes on", flush=True)
    signal.raise_signal(int(sys.argv[1]))
    print("still goes on", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("state", ["taken", "noted"])
def test_another_one_ends_the_program_at_once(number: signal.Signals, state: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SECOND, str(int(number)), state], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (-number, "goes on\n", "")
