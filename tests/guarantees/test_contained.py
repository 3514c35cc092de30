"""One session's failure ends that session alone; it and only it is told."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku.errors import StreamError
from kiku.options import DecodingOptions, Recovery, StreamOptions
from kiku.scheduler.driver import Driver
from kiku.scheduler.rounds import Rounds
from kiku.stream import WordSession
from tests.guarantees.conftest import LONG_S, texts

Load = Callable[..., kiku.Recognizer]
DIGITS = ["seven", "three", "zero", "one", "nine", "four"]
FAILURES = [ValueError("mine"), SystemExit(3), GeneratorExit(), KeyboardInterrupt()]


def fail_once(what: BaseException, after: int = 0) -> Callable[..., object]:
    """Raises from the call after `after` on."""
    calls = [0]

    def raising(*_how: object, **_more: object) -> object:
        calls[0] += 1
        if calls[0] > after:
            raise what
        return None

    return raising


def told(stream: kiku.LiveStream) -> BaseException:
    """What a stream failed with."""
    while True:
        try:
            event = stream.next_event(LONG_S)
        except BaseException as error:
            return error
        assert event is not None, "it was told nothing"


def beside(rec: kiku.Recognizer, digits: NDArray[np.float32]) -> kiku.LiveStream:
    """A neighbour in the middle of its talk."""
    good = rec.stream()
    good.push(digits[:60_000])
    return good


def ends_well(good: kiku.LiveStream, digits: NDArray[np.float32]) -> None:
    """The neighbour says what it says alone."""
    good.push(digits[60_000:])
    good.close()
    assert texts(good) == DIGITS
    assert good.done


@pytest.mark.parametrize("error", FAILURES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("method", ["pending", "take", "accept", "finish", "released"])
def test_any_method_may_fail(
    load: Load,
    digits: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    error: BaseException,
) -> None:
    rec = load(2)
    good = beside(rec, digits)
    bad = rec.stream()
    session: WordSession = bad._sessions.first  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(session, method, fail_once(error), raising=True)
    bad.push(digits[:48_000])
    bad.close()
    if method != "released":
        failure = told(bad)
        assert failure is error or isinstance(failure, StreamError)
    ends_well(good, digits)
    deadline = time.monotonic() + LONG_S
    while rec.free_slots < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert rec.free_slots == 2
    assert rec.transcribe(digits[:48_000], rate=24_000).text.split() == DIGITS[:2]


class _Policy:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def decide(self, stats: object) -> object:
        raise self._error


class _Nonsense:
    def decide(self, stats: object) -> object:
        return "truncate"


@pytest.mark.parametrize("error", FAILURES, ids=lambda e: type(e).__name__)
def test_a_policy_may_fail(load: Load, digits: NDArray[np.float32], error: BaseException) -> None:
    rec = load(2)
    good = beside(rec, digits)
    bad = rec.stream(StreamOptions(recovery=Recovery([_Policy(error)])))
    bad.push(digits)
    failure = told(bad)
    assert failure is error or isinstance(failure, StreamError)
    ends_well(good, digits)


def test_what_a_policy_decides_is_looked_at(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load(1)
    bad = rec.stream(StreamOptions(recovery=Recovery([_Nonsense()])))
    bad.push(digits)
    assert "recovery policy" in str(told(bad))


@pytest.mark.parametrize("error", FAILURES[:3], ids=lambda e: type(e).__name__)
def test_a_listener_may_fail(load: Load, digits: NDArray[np.float32], error: BaseException) -> None:
    rec = load(2)
    good = beside(rec, digits)
    bad = rec.stream()
    bad.listen(fail_once(error))  # pyright: ignore[reportArgumentType]
    bad.push(digits)
    bad.close()
    failure = told(bad)
    assert failure is error or isinstance(failure, StreamError)
    ends_well(good, digits)


@pytest.mark.parametrize("error", FAILURES[:3], ids=lambda e: type(e).__name__)
def test_a_picker_may_fail(
    load: Load, digits: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    rec = load(2)
    good = beside(rec, digits)
    bad = rec.stream(StreamOptions(decoding=DecodingOptions(temperature=0.1)))
    picker = bad._setup.bindings[0].options.picker  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(picker, "_pick", fail_once(error), raising=True)
    bad.push(digits)
    bad.close()
    failure = told(bad)
    assert failure is error or isinstance(failure, StreamError)
    ends_well(good, digits)


def test_a_driver_that_died_is_replaced(
    load: Load, digits: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = load(2)
    stream = rec.stream()
    with monkeypatch.context() as patch:
        patch.setattr(
            rec.scheduler._rounds, "make", fail_once(RuntimeError("a mistake of kiku's own"))
        )
        stream.push(digits)
        assert "mistake" in str(told(stream))
    fresh = rec.stream()
    fresh.push(digits)
    fresh.close()
    assert texts(fresh) == DIGITS
    assert rec.free_slots == 2


@pytest.mark.filterwarnings("ignore:Exception in thread kiku-driver")
@pytest.mark.parametrize("in_order", [True, False])
def test_a_driver_that_was_killed_is_replaced(
    load: Load, digits: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    """The thread is gone, if not `in_order` without a word, and a stream is still open."""

    def is_over(_: Driver) -> bool:
        raise SystemExit

    rec = load(1)
    stream = rec.stream()
    stream.push(digits[:48_000])
    driver = next(t for t in threading.enumerate() if t.name == "kiku-driver")
    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "needs_thread", property(lambda _: False))
        if not in_order:
            patch.setattr(Driver, "_is_over", is_over)
        rec.scheduler.wake()
        driver.join(LONG_S)
    assert not driver.is_alive()
    stream.push(digits[48_000:])
    stream.close()
    assert texts(stream) == DIGITS
