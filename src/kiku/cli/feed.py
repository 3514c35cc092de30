"""Sound -> a live stream, in a thread of its own: a microphone, or a recording at its own speed."""

import math
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt

from kiku.audio import Chunk, read_file
from kiku.audio.microphone import Gap, Piece
from kiku.cli.inputs import STDIN
from kiku.cli.raw import RawFormat, opened
from kiku.errors import QueueFull, StreamClosed
from kiku.live import LiveStream
from kiku.options import StreamOptions

_CHUNK_S = 0.08
_WAIT_S = 0.2  # until a stop is noticed
_LONGEST_WAIT_S = 3600.0  # of one wait: a lock refuses a timeout of centuries
_SILENCE_S = 1.0  # a gap is pushed in parts of this length, each when there is room

FLOOR_DB = -60.0
"""Loudness up to which sound counts as silence, in dBFS."""
_HOLD_S = 1.5
"""Seconds for which the loudest sample is shown."""


class Sound(Protocol):
    """Where sound comes from."""

    @property
    def waiting_s(self) -> float:
        """Seconds of the sound that have come and were not taken yet."""
        ...

    def pieces(self) -> Iterator[Piece | Gap]:
        """The sound in pieces, each at its time."""
        ...

    def stop(self) -> None:
        """End `pieces` soon."""
        ...


class Played:
    """A recording at its own speed, or faster or slower."""

    waiting_s = 0.0

    def __init__(
        self,
        source: str,
        speed: float,
        options: StreamOptions | None = None,
        *,
        raw: RawFormat | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        """Note what is played; the recording is opened by `pieces`.

        Args:
            source: a path, or "-" for standard input.
            speed: seconds of sound in a second; 0 is as fast as possible.
            options: of the stream. Sound before their `start_s` comes without waiting, sound after
                their `end_s` is left out, and `track` says which of several audio tracks is read.
            raw: how the samples are written, if there is no header.
            clock: seconds that only grow.
            wait: waits for an event, for a number of seconds at most.
        """
        options = options or StreamOptions()
        self._source, self._speed, self._raw = source, speed, raw
        self._track, self._start_s = options.track, options.start_s
        self._end_s = math.inf if options.end_s is None else options.end_s
        self._clock, self._wait = clock, wait
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End `pieces` soon."""
        self._stopped.set()

    def pieces(self) -> Iterator[Piece | Gap]:
        """Pieces of 80 ms at most, each when its last sample would have been spoken.

        Raises:
            AudioError: the recording cannot be read.
            TruncatedAudio: it ends too early; raised after all pieces that are there.
        """
        begun, given_s = self._clock(), 0.0
        for part in self._parts():
            given_s += part.seconds
            if self._speed:
                self._wait_until(begun + (given_s - self._start_s) / self._speed)
            if self._stopped.is_set():
                return
            yield _piece(part)
            if given_s >= self._end_s - 1e-9:  # a pipe may give nothing more, and not end
                return

    def _parts(self) -> Iterator[Chunk]:
        """The sound in pieces of 80 ms at most."""
        source = self._standard_input() if self._source == STDIN else self._source
        with opened(source, self._raw) as readable:
            for chunk in read_file(readable, track=self._track):
                yield from chunk.split(_CHUNK_S)

    def _wait_until(self, due: float) -> None:
        """Wait until `due`, counted from the beginning, so that delays of single waits do not add
        up."""
        while not self._stopped.is_set() and (left_s := due - self._clock()) > 0:
            self._wait(self._stopped, min(left_s, _LONGEST_WAIT_S))

    def _standard_input(self) -> str | BinaryIO:
        try:
            # A file does not keep a reader waiting, and some formats are read from the end.
            if not sys.stdin.seekable():
                return cast("BinaryIO", _Pipe(sys.stdin.fileno(), self._stopped))
        except (AttributeError, OSError, ValueError):  # closed, or replaced
            pass
        return STDIN


def _piece(chunk: Chunk) -> Piece | Gap:
    if chunk.data is None or isinstance(chunk.data, bytes):  # files give arrays
        return Gap(chunk.seconds)
    return Piece(chunk.data, chunk.rate)


class _Pipe:
    """A pipe whose reader can be stopped while it waits: a thread that still reads would disturb
    the end of the program."""

    name = "standard input"

    def __init__(self, number: int, stopped: threading.Event) -> None:
        self._number, self._stopped = number, stopped

    def read(self, num_bytes: int) -> bytes:
        while not self._stopped.is_set():
            try:
                ready = select.select([self._number], [], [], _WAIT_S / 2)[0]
            except OSError:  # Windows can wait for sockets only
                ready = True
            if ready:
                return os.read(self._number, num_bytes)
        return b""


class Level:
    """How loud the sound is. One thread sets it, any thread may read it."""

    def __init__(self) -> None:
        """Begin with silence."""
        self.mean_db = self.peak_db = -math.inf
        self._peak_left_s = 0.0

    def add(self, samples: npt.NDArray[np.generic], rate: int) -> None:
        """Take the next piece, [S] or [S, C]."""
        if not samples.size:
            return
        floats = _floats(samples)
        self.mean_db = _db(float(np.sqrt(np.mean(np.square(floats)))))
        peak_db = _db(float(np.abs(floats).max()))
        self._peak_left_s -= len(samples) / rate
        if peak_db >= self.peak_db or self._peak_left_s <= 0:
            self.peak_db, self._peak_left_s = peak_db, _HOLD_S

    def silence(self) -> None:
        """Note that no sound comes."""
        self.mean_db = self.peak_db = -math.inf


class Feed:
    """Pushes a sound into a stream, and closes the stream after it."""

    def __init__(self, sound: Sound, stream: LiveStream, notices: deque[str]) -> None:
        """Note the sound and the stream; `start` starts the thread.

        Args:
            sound: what is pushed.
            stream: the one to push to; nothing else pushes to it.
            notices: messages about the sound meanwhile.
        """
        self._sound, self._stream = sound, stream
        self.notices = notices
        self.level = Level()
        self.problem: Exception | None = None
        """The error that ended the sound too early; set once the stream is closed."""
        self._stopped = threading.Event()
        # A daemon, because it may be in a read that never ends, which must not keep the program.
        self._thread = threading.Thread(target=self._run, name="kiku-feed", daemon=True)

    @property
    def lag_s(self) -> float:
        """Seconds of sound that have come and are not processed yet."""
        return self._stream.waiting_s + self._sound.waiting_s

    def start(self) -> None:
        """Start to push, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let no more sound in, and close the stream."""
        self._stopped.set()
        self._sound.stop()
        if self._thread.ident is not None:
            self._thread.join(2 * _WAIT_S)
        self._close()

    def _run(self) -> None:
        try:
            for piece in self._sound.pieces():
                if self._stopped.is_set():
                    break
                if isinstance(piece, Gap):
                    self._push_silence(piece.seconds)
                else:
                    self._push(piece)
        except StreamClosed:
            pass  # it was stopped while it waited for sound
        except Exception as error:
            if (
                not self._stopped.is_set()
            ):  # a recording that is stopped looks as if it were cut off
                self.problem = error
        finally:
            self._close()

    def _close(self) -> None:
        with suppress(Exception):  # an error of the stream comes after its events
            self._stream.close()

    def _push(self, piece: Piece) -> None:
        self.level.add(piece.samples, piece.rate)
        while not self._stopped.is_set():
            with suppress(QueueFull):
                self._stream.push(piece.samples, rate=piece.rate, timeout=_WAIT_S)
                return

    def _push_silence(self, seconds: float) -> None:
        self.level.silence()
        while seconds > 0 and not self._stopped.is_set():
            part_s = min(seconds, _SILENCE_S)
            with suppress(QueueFull):
                self._stream.push_silence(part_s, timeout=_WAIT_S)
                seconds -= part_s


def _floats(samples: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Samples of any type as floats in [-1, 1]; NaN and infinity become 0."""
    floats = np.nan_to_num(samples.astype(np.float64), posinf=0.0, neginf=0.0)
    if samples.dtype.kind == "f":
        return floats
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return (floats - half * (samples.dtype.kind == "u")) / half


def _db(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
