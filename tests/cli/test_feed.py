"""Sound on its way into a stream: its pace, its level, its gaps."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kiku.audio.microphone import Gap, Piece
from kiku.cli.feed import Feed, Level, Played
from kiku.stream import End
from tests.cli.simple import SimpleEngine, simple_recognizer

Speech = Callable[..., Path]


class Clock:
    """Moves only while it is waited for, and a little more than asked."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now, self.late_s = 50.0, late_s

    def __call__(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self.late_s


@pytest.mark.parametrize("speed", [1.0, 4.0, 0.5])
def test_each_chunk_comes_when_it_would_have_been_spoken(
    speech: Speech, tmp_path: Path, speed: float
) -> None:
    clock = Clock(late_s=0.003)
    played = Played(
        str(speech(tmp_path / "a.wav", 2.0)), 24_000, speed, clock=clock, wait=clock.wait
    )
    pieces, at = [], []
    for piece in played.pieces():
        assert isinstance(piece, Piece)
        pieces.append(len(piece.samples))
        at.append(clock.now - 50.0)
    assert pieces == [1920] * 25
    # A wait that takes too long does not make the next ones later.
    np.testing.assert_allclose(at, np.arange(1, 26) * 0.08 / speed + 0.003)


def test_as_fast_as_possible_never_waits(speech: Speech, tmp_path: Path) -> None:
    clock = Clock()
    played = Played(str(speech(tmp_path / "a.wav")), 24_000, 0.0, clock=clock, wait=clock.wait)
    assert len(list(played.pieces())) == 25
    assert clock.now == 50.0


def test_a_reader_that_is_behind_does_not_wait(speech: Speech, tmp_path: Path) -> None:
    clock = Clock()
    played = Played(str(speech(tmp_path / "a.wav")), 24_000, 1.0, clock=clock, wait=clock.wait)
    pieces = played.pieces()
    next(pieces)
    clock.now += 1.0
    for _ in range(12):
        next(pieces)
    assert clock.now == pytest.approx(51.08)


def test_a_stop_ends_it(speech: Speech, tmp_path: Path) -> None:
    played = Played(str(speech(tmp_path / "a.wav")), 24_000, 0.0)
    pieces = played.pieces()
    next(pieces)
    played.stop()
    assert list(pieces) == []


def test_the_level() -> None:
    level = Level()
    assert level.mean_db == level.peak_db == -np.inf
    level.hear(np.zeros(0, np.float32), 24_000)
    level.hear(np.full((1920, 2), 0.1, np.float32), 24_000)
    assert (level.mean_db, level.peak_db) == pytest.approx((-20.0, -20.0), abs=1e-4)
    for _ in range(18):  # the loudest sample stands for 1.5 s
        level.hear(np.full(1920, 0.01, np.float32), 24_000)
        assert (level.mean_db, level.peak_db) == pytest.approx((-40.0, -20.0), abs=1e-4)
    level.hear(np.full(1920, 0.01, np.float32), 24_000)
    assert level.peak_db == pytest.approx(-40.0, abs=1e-4)
    level.silence()
    assert level.mean_db == -np.inf


class Sound:
    """What it is told to be."""

    waiting_s = 1.5

    def __init__(self, *pieces: Piece | Gap | Exception) -> None:
        self._pieces = pieces

    def stop(self) -> None:
        pass

    def pieces(self) -> Iterator[Piece | Gap]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def test_sound_and_gaps_are_pushed_and_the_stream_is_closed() -> None:
    stream = simple_recognizer(SimpleEngine(), "demo").stream()
    piece = Piece(np.full((3840, 2), 0.2, np.float32), 48_000)
    feed = Feed(Sound(piece, Gap(3.5), piece), stream, deque())
    feed.start()
    *_, last = stream.events()
    assert last == End(pytest.approx(3.66))
    assert feed.lag_s == pytest.approx(1.5)
    assert feed.problem is None


def test_what_ends_the_sound_is_kept() -> None:
    stream = simple_recognizer(SimpleEngine(), "demo").stream()
    feed = Feed(Sound(Gap(0.5), OSError("gone")), stream, deque())
    feed.start()
    *_, last = stream.events()
    assert last == End(pytest.approx(0.5))
    assert isinstance(feed.problem, OSError)


def test_a_full_stream_does_not_hold_up_a_stop() -> None:
    engine = SimpleEngine(pace_s=0.5)
    piece = Piece(np.full(1920, 0.2, np.float32), 24_000)
    for pieces in ((piece,) * 4, (piece, Gap(1.0), Gap(1.0))):
        with simple_recognizer(engine, "demo").stream(max_queue_s=0.2) as stream:
            feed = Feed(Sound(*pieces), stream, deque())
            feed.start()
            feed.stop()
            assert feed.problem is None
        engine = SimpleEngine(pace_s=0.5)
