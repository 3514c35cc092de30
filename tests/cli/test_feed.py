"""Sound on its way into a stream: its pace, its level, its gaps."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kiku.audio import Chunk
from kiku.audio.microphone import Gap, Piece
from kiku.cli import feed
from kiku.cli.feed import Feed, Level, Played
from kiku.options import StreamOptions
from kiku.stream import End
from tests.cli.simple import SimpleBackend, simple_recognizer

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
    played = Played(str(speech(tmp_path / "a.wav", 2.0)), speed, clock=clock, wait=clock.wait)
    pieces, at = [], []
    for piece in played.pieces():
        assert isinstance(piece, Piece)
        pieces.append(len(piece.samples))
        at.append(clock.now - 50.0)
    assert max(pieces) == 1920
    assert sum(pieces) == 48_000
    # A wait that takes too long does not make the next ones later.
    late = np.array(at) - np.cumsum(pieces) / 24_000 / speed
    assert late.min() > -1e-9
    assert late.max() == pytest.approx(0.003)


def test_a_speed_near_zero_waits_in_parts(speech: Speech, tmp_path: Path) -> None:
    waited: list[float] = []

    def wait(stopped: threading.Event, seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            played.stop()

    played = Played(str(speech(tmp_path / "a.wav")), 1e-300, clock=lambda: 0.0, wait=wait)
    assert list(played.pieces()) == []
    assert len(waited) == 3
    assert max(waited) < threading.TIMEOUT_MAX


def test_as_fast_as_possible_never_waits(speech: Speech, tmp_path: Path) -> None:
    clock = Clock()
    played = Played(str(speech(tmp_path / "a.wav")), 0.0, clock=clock, wait=clock.wait)
    pieces = [piece for piece in played.pieces() if isinstance(piece, Piece)]
    assert sum(len(piece.samples) for piece in pieces) == 48_000
    assert clock.now == 50.0


def test_what_comes_before_the_start_is_not_waited_for_nor_what_is_behind_the_end_given(
    speech: Speech, tmp_path: Path
) -> None:
    clock = Clock()
    played = Played(
        str(speech(tmp_path / "a.wav", 4.0)), 1.0, StreamOptions(start_s=2.0, end_s=3.0),
        clock=clock, wait=clock.wait,
    )  # fmt: skip
    given = sum(len(piece.samples) for piece in played.pieces() if isinstance(piece, Piece))
    assert 3.0 <= given / 24_000 <= 3.08
    assert clock.now == pytest.approx(50.0 + given / 24_000 - 2.0)


def test_nothing_is_read_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def chunks(*_: object, **__: object) -> Iterator[Chunk]:
        yield Chunk(np.zeros(24_000, np.float32), 24_000, 24_000, 1, None, 0.0)
        pytest.fail("a pipe that gives nothing more would be waited for")

    monkeypatch.setattr(feed, "read_file", chunks)
    given = sum(
        len(piece.samples)
        for piece in Played("a.wav", 0.0, StreamOptions(end_s=1.0)).pieces()
        if isinstance(piece, Piece)
    )
    assert given == 24_000


def test_a_reader_that_is_behind_does_not_wait(speech: Speech, tmp_path: Path) -> None:
    clock = Clock()
    played = Played(str(speech(tmp_path / "a.wav")), 1.0, clock=clock, wait=clock.wait)
    pieces = played.pieces()
    next(pieces)
    clock.now += 1.0
    for _ in range(12):
        next(pieces)
    assert clock.now == pytest.approx(51.08)


def test_a_stop_ends_it(speech: Speech, tmp_path: Path) -> None:
    played = Played(str(speech(tmp_path / "a.wav")), 0.0)
    pieces = played.pieces()
    next(pieces)
    played.stop()
    assert list(pieces) == []


def test_the_level() -> None:
    level = Level()
    assert level.mean_db == level.peak_db == -np.inf
    level.add(np.zeros(0, np.float32), 24_000)
    level.add(np.full((1920, 2), 0.1, np.float32), 24_000)
    assert (level.mean_db, level.peak_db) == pytest.approx((-20.0, -20.0), abs=1e-4)
    for _ in range(18):  # the loudest sample stands for 1.5 s
        level.add(np.full(1920, 0.01, np.float32), 24_000)
        assert (level.mean_db, level.peak_db) == pytest.approx((-40.0, -20.0), abs=1e-4)
    level.add(np.full(1920, 0.01, np.float32), 24_000)
    assert level.peak_db == pytest.approx(-40.0, abs=1e-4)
    level.silence()
    assert level.mean_db == -np.inf


@pytest.mark.parametrize(
    ("half", "dtype"), [(0.5, "f4"), (2**14, "i2"), (2**30, "i4"), (128 + 64, "u1")]
)
def test_the_level_knows_how_samples_are_kept(half: float, dtype: str) -> None:
    level = Level()
    level.add(np.full(1920, half, dtype), 24_000)
    assert (level.mean_db, level.peak_db) == pytest.approx((-6.02, -6.02), abs=0.01)


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
    stream = simple_recognizer(SimpleBackend(), "demo").stream()
    piece = Piece(np.full((3840, 2), 0.2, np.float32), 48_000)
    feed = Feed(Sound(piece, Gap(3.5), piece), stream, deque())
    feed.start()
    *_, last = stream.events()
    assert last == End(pytest.approx(3.66))
    assert feed.lag_s == pytest.approx(1.5)
    assert feed.problem is None


def test_what_ends_the_sound_is_kept() -> None:
    stream = simple_recognizer(SimpleBackend(), "demo").stream()
    feed = Feed(Sound(Gap(0.5), OSError("gone")), stream, deque())
    feed.start()
    *_, last = stream.events()
    assert last == End(pytest.approx(0.5))
    assert isinstance(feed.problem, OSError)


def test_a_stream_that_fails_ends_the_sound_in_peace() -> None:
    backend = SimpleBackend()
    backend.break_at = 3
    piece = Piece(np.full(1920, 0.2, np.float32), 24_000)
    stream = simple_recognizer(backend, "demo").stream()
    feed = Feed(Sound(*[piece] * 400), stream, deque())
    feed.start()
    with pytest.raises(RuntimeError, match="fell off"):
        list(stream.events())
    feed.stop()
    assert feed.problem in (None, backend.broken)


def test_a_full_stream_does_not_hold_up_a_stop() -> None:
    backend = SimpleBackend(pace_s=0.5)
    piece = Piece(np.full(1920, 0.2, np.float32), 24_000)
    for pieces in ((piece,) * 4, (piece, Gap(1.0), Gap(1.0))):
        with simple_recognizer(backend, "demo").stream(StreamOptions(max_queue_s=0.2)) as stream:
            feed = Feed(Sound(*pieces), stream, deque())
            feed.start()
            feed.stop()
            assert feed.problem is None
        backend = SimpleBackend(pace_s=0.5)
