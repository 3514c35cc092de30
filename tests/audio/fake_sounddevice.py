"""A sounddevice whose devices come and go as told, and a clock that moves only while it is waited
for."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

STEP_S = 0.08


class PortAudioError(Exception):
    pass


def device(
    name: str, *, channels: int = 1, rate: float = 48_000.0, host: int = 0
) -> dict[str, Any]:
    return {
        "name": name,
        "hostapi": host,
        "max_input_channels": channels,
        "max_output_channels": 0,
        "default_samplerate": rate,
    }


class InputStream:
    def __init__(
        self,
        sd: "FakeSounddevice",
        *,
        device: int,
        channels: int,
        samplerate: int,
        blocksize: int,
        dtype: str,
        callback: Callable[..., None],
    ) -> None:
        self.sd, self.device = sd, sd.known[device]
        if channels in sd.refused_channels:
            raise PortAudioError("Error opening InputStream: Invalid number of channels", -9998)
        assert dtype == "float32"
        self.shape, self.rate = (blocksize, channels), samplerate
        self.callback = callback
        self.started = self.closed = False

    def start(self) -> None:
        if self.sd.busy:
            raise PortAudioError("Error starting stream: Device unavailable", -9985)
        self.started = True
        self.sd.streams.append(self)

    @property
    def active(self) -> bool:
        if self.device not in self.sd.plugged:
            if self.sd.raises_when_gone:
                raise PortAudioError("Stream is stopped")
            return self.sd.seems_active
        return self.started and not self.closed

    def close(self) -> None:
        self.closed = True
        if self.device not in self.sd.plugged:
            raise PortAudioError("the device has gone")

    def move(self) -> None:
        """One block, if the device is there."""
        if self.closed or self.device not in self.sd.plugged or self.sd.mute:
            return
        block = np.full(self.shape, self.sd.amplitude, np.float32)
        status = SimpleNamespace(input_overflow=self.sd.overflows)
        self.callback(block, len(block), None, status)
        block[:] = np.nan  # the system uses its array again


class FakeSounddevice:
    """Stands in for the module."""

    PortAudioError = PortAudioError

    def __init__(self, *devices: dict[str, Any]) -> None:
        self.plugged = list(devices)
        self.known = list(devices)
        self.default = 0
        self.refused_channels: set[int] = set()
        self.busy = self.mute = self.overflows = False
        self.seems_active = self.raises_when_gone = False
        self.amplitude = 0.25
        self.streams: list[InputStream] = []
        self.num_looks = 0
        self.now = 100.0
        self.plan: list[tuple[float, Callable[[], None]]] = []

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "ALSA"}, {"name": "JACK"}]

    def query_devices(self, kind: str | None = None) -> Any:
        numbered = [{**entry, "index": i} for i, entry in enumerate(self.known)]
        if kind is None:
            return numbered
        if not 0 <= self.default < len(numbered):
            raise PortAudioError("Error querying device -1")
        return numbered[self.default]

    def InputStream(self, **how: Any) -> InputStream:
        return InputStream(self, **how)

    def _terminate(self) -> None:
        self.known = []

    def _initialize(self) -> None:
        self.num_looks += 1
        self.known = list(self.plugged)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do it so many seconds after the beginning."""
        self.plan.append((100.0 + seconds, action))
        self.plan.sort(key=lambda entry: entry[0])

    def clock(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> None:
        """Let time go by, in steps of a block."""
        ends = self.now + seconds
        while self.now < ends and not event.is_set():
            self.now = min(self.now + STEP_S, ends)
            while self.plan and self.plan[0][0] <= self.now:
                self.plan.pop(0)[1]()
            for stream in list(self.streams):
                stream.move()
