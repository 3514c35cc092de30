"""Sound from a microphone, which may go away and come back.

The only module that knows sounddevice, which is an extra and is imported when a microphone is
wanted. Does not know what the sound is used for.
"""

import importlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kiku.errors import AudioError, MissingExtra

_BLOCK_S = 0.08
_MAX_WAITING_S = 10.0
_LOOK_S = 0.25  # between two checks of a device that delivers nothing
_GONE_S = 2.0  # a device that delivers nothing for this long has gone
_START_S = 3.0  # added to that for a device that was just opened: Bluetooth takes a while
_BACK_OFF_S = (0.5, 1.0, 2.0, 4.0)  # before each try to open it again; the last is repeated
_GAP_S = 0.5  # while sound is missing, a gap of about this length is given again and again


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of sound, [S] or [S, C] float32, and its rate."""

    samples: npt.NDArray[np.float32]
    rate: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A length of time, in seconds, of which the sound is missing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Device:
    """A microphone, or another device that gives sound."""

    index: int
    name: str
    host: str
    """The sound system that offers the device; several may offer the same one."""
    num_channels: int
    rate: int
    is_default: bool

    @property
    def full_name(self) -> str:
        """The name by which sounddevice finds this device and no other."""
        return f"{self.name}, {self.host}"


def list_devices() -> list[Device]:
    """All microphones of this machine.

    Raises:
        MissingExtra: sounddevice or its library is not installed.
        AudioError: there is no microphone.
    """
    return _devices(_sounddevice())


@dataclass(frozen=True, slots=True)
class _Block:
    """The sound that one callback of the sound system brought."""

    at: float
    """Clock time at which the block ends, in seconds."""
    piece: Piece
    lost_s: float
    """Seconds of sound just before the block that were dropped, as there was no room for them."""


class Microphone:
    """One microphone as a stream of pieces; where sound is missing, gaps keep the time right.

    `pieces` belongs to one thread; everything else may be used from any thread.
    """

    def __init__(
        self,
        device: str | int | None = None,
        *,
        tell: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        """Find the microphone; `pieces` opens it.

        Args:
            device: its number, or a part of its name; None is the system's default.
            tell: called with a sentence when something happens to the microphone.
            clock: gives the time in seconds, which never decreases.
            wait: waits for an event, for the given seconds at most.

        Raises:
            MissingExtra: sounddevice or its library is not installed.
            AudioError: there is no such microphone.
        """
        self._sd = _sounddevice()
        self._tell, self._clock, self._wait = tell, clock, wait
        self._device = _find(self._sd, device)
        # Numbers change when devices come and go: a device is found again by its name.
        self._wanted = self._device.full_name if isinstance(device, int) else device
        self._stream: Any = None
        self._stopped, self._arrived = threading.Event(), threading.Event()
        self._blocks: deque[_Block] = deque()
        self._lost_s = 0.0
        self._overflowed = False
        self._reported: set[str] = set()
        self._called_at = self._given_to = 0.0  # clock times: last callback, end of the last piece
        self._away = False
        self._missed = ""
        self._num_tries = 0

    @property
    def name(self) -> str:
        """The name of the device."""
        return self._device.name

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that `pieces` has not given out yet."""
        return len(self._blocks) * _BLOCK_S

    def stop(self) -> None:
        """Make `pieces` end soon."""
        self._stopped.set()
        self._arrived.set()

    def pieces(self) -> Iterator[Piece | Gap]:
        """The sound as it comes, until `stop`.

        A device that disappears is looked for until it is back. Meanwhile gaps are given: all
        pieces and gaps together are as long as the time that has passed.

        Raises:
            AudioError: the microphone cannot be opened at the beginning.
        """
        self._open()
        self._given_to = self._clock()
        try:
            while not self._stopped.is_set():
                self._arrived.clear()
                if self._blocks:
                    yield from self._take(self._blocks.popleft())
                elif self._is_gone():
                    yield from self._look_for_it()
                else:
                    self._wait(self._arrived, _LOOK_S)
        finally:
            self._close()

    def _take(self, block: _Block) -> Iterator[Piece | Gap]:
        if self._away:
            self._away, self._num_tries = False, 0
            how = "again" if self.name == self._missed else "instead"
            self._tell(f"{self.name} is recorded {how}")
            seconds = len(block.piece.samples) / block.piece.rate
            missing_s = block.at - seconds - self._given_to
            if missing_s > 0:
                yield Gap(missing_s)
        if block.lost_s:
            self._tell_once(
                "sound comes faster than it is processed, and some is left out: use a smaller "
                "model, a smaller dtype or a faster machine"
            )
            yield Gap(block.lost_s)
        if self._overflowed:
            self._tell_once(
                "the system lost some sound, because this machine is too busy: close other programs"
            )
        self._given_to = block.at
        yield block.piece

    def _tell_once(self, text: str) -> None:
        if text not in self._reported:
            self._reported.add(text)
            self._tell(text)

    def _is_gone(self) -> bool:
        if self._stream is None:
            return True
        try:
            active = bool(self._stream.active)
        except self._sd.PortAudioError:
            return True
        return not active or self._clock() - self._called_at > _GONE_S

    def _look_for_it(self) -> Iterator[Gap]:
        """Wait while giving gaps, and then try once to open the device again."""
        if not self._away:
            self._away, self._missed = True, self.name
            self._tell(f"{self.name} was disconnected; kiku continues when it is back")
        self._close()
        ends = self._clock() + _BACK_OFF_S[min(self._num_tries, len(_BACK_OFF_S) - 1)]
        self._num_tries += 1
        while not self._stopped.is_set() and (left_s := ends - self._clock()) > 0:
            self._wait(self._stopped, min(left_s, _GAP_S))
            now = self._clock()
            yield Gap(max(0.0, now - self._given_to))
            self._given_to = max(now, self._given_to)
        if self._stopped.is_set():
            return
        with suppress(AudioError):
            _look_again(self._sd)
            self._open()

    def _open(self) -> None:
        self._device = device = _find(self._sd, self._wanted)
        problem: Exception | None = None
        # Some devices do not offer one channel alone.
        for channels in dict.fromkeys((1, device.num_channels)):
            stream: Any = None
            try:
                stream = self._sd.InputStream(
                    device=device.index,
                    channels=channels,
                    samplerate=device.rate,
                    blocksize=round(device.rate * _BLOCK_S),
                    dtype="float32",
                    callback=self._callback(device.rate),
                )
                self._called_at = self._clock() + _START_S
                stream.start()
            except self._sd.PortAudioError as error:
                problem = error
                _end(stream)
                continue
            self._stream = stream
            return
        raise AudioError(
            f"{device.name} cannot be opened ({_reason(problem)}): check whether another program "
            "uses it, and whether this program may use it"
        ) from problem

    def _callback(self, rate: int) -> Callable[[Any, int, Any, Any], None]:
        """The function that the sound system calls with every block, in a thread of its own."""

        def take(samples: npt.NDArray[np.float32], num: int, _time: Any, status: Any) -> None:
            self._called_at = self._clock()
            self._overflowed |= bool(getattr(status, "input_overflow", False))
            if self.waiting_s >= _MAX_WAITING_S:
                self._lost_s += num / rate
            else:
                piece = Piece(samples.copy(), rate)  # the system uses its array again
                self._blocks.append(_Block(self._called_at, piece, self._lost_s))
                self._lost_s = 0.0
            self._arrived.set()

        return take

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        _end(stream)


def _end(stream: Any) -> None:
    """Close a stream whose device may no longer be there."""
    if stream is not None:
        # The sound system may raise anything for a device that has gone.
        with suppress(Exception):
            stream.close()


def _sounddevice() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except ModuleNotFoundError:
        raise MissingExtra("the microphone", "mic") from None
    except OSError:
        missing = MissingExtra("the microphone", "mic")
        missing.msg = (
            "the microphone needs PortAudio, a library of the system that is not installed: "
            "on Debian or Ubuntu run  apt install libportaudio2"
        )
        raise missing from None


def _look_again(sd: Any) -> None:
    """Restart the sound system, since it looks for devices only when it starts."""
    with suppress(sd.PortAudioError):
        sd._terminate()
    with suppress(sd.PortAudioError):
        sd._initialize()


def _devices(sd: Any) -> list[Device]:
    try:
        hosts = [str(host["name"]) for host in sd.query_hostapis()]
        found = [entry for entry in sd.query_devices() if entry["max_input_channels"] > 0]
    except sd.PortAudioError as error:
        raise AudioError(
            f"the sound system does not answer ({_reason(error)}): check whether it runs"
        ) from error
    if not found:
        raise AudioError(
            "the sound system knows no microphone: plug one in, or transcribe a recording"
        )
    try:
        default = int(sd.query_devices(kind="input")["index"])
    except (sd.PortAudioError, ValueError):
        default = -1
    return [_device(entry, hosts, default) for entry in found]


def _device(entry: Any, hosts: list[str], default: int) -> Device:
    index = int(entry["index"])
    return Device(
        index=index,
        name=" ".join(str(entry["name"]).split()),
        host=hosts[int(entry["hostapi"])],
        num_channels=int(entry["max_input_channels"]),
        rate=round(float(entry["default_samplerate"])),
        is_default=index == default,
    )


def _find(sd: Any, wanted: str | int | None) -> Device:
    """The device with this number or name; AudioError if no device has it, or several do."""
    found = _devices(sd)
    if wanted is None:
        return next((device for device in found if device.is_default), found[0])
    fitting = [device for device in found if _fits(device, wanted)]
    if isinstance(wanted, str) and len(fitting) > 1:
        whole = [
            d for d in fitting if wanted.casefold() in (d.name.casefold(), d.full_name.casefold())
        ]
        # Several sound systems may offer one device: the first is the one that the system prefers.
        same_name = len({device.name for device in fitting}) == 1
        fitting = whole[:1] or (fitting[:1] if same_name else fitting)
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(f"{device.index} {device.name}" for device in fitting or found)
    if fitting:
        raise AudioError(f"{wanted!r} matches several microphones: give the number of one: {names}")
    raise AudioError(f"there is no microphone {wanted!r}: choose one of: {names}")


def _fits(device: Device, wanted: str | int) -> bool:
    if isinstance(wanted, int):
        return device.index == wanted
    return wanted.casefold() in device.full_name.casefold()


def _reason(error: Exception | None) -> str:
    return str(error.args[0] if error is not None and error.args else error).lower()
