"""What tests know of a talk beyond its doors: whether it is connected, and a reader kept busy."""

import time
from typing import Any

from kiku.live import AsyncStream
from kiku.serve.talk import Talk
from tests.serve.clients import PATIENCE_S
from tests.serve.own_client import OwnClient
from tests.serve.running import Running


def wait_for(condition: Any, seconds: float = PATIENCE_S) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to it"
        time.sleep(0.02)


def is_connected(talk: Talk) -> bool:
    """Whether it has a connection to send over."""
    return talk._outbox.is_connected


def stream_of(talk: Talk) -> AsyncStream | None:
    """The stream that it has at the moment."""
    return talk._stream._stream


class BusyReader:
    """A client of a session who was cut off while its sound could not be taken: the talk's reader
    waits until `goes_on` is called."""

    def __init__(self, service: Running, client: OwnClient) -> None:
        self._service = service
        with client.at(service.ws):
            client.speak(0, 2.0)
            client.words_until(1)
            (self.talk,) = service.app.sockets.talks
            self._stream = self.talk._stream
            service.call(self._stream._asking.acquire)
            client.speak(2.0, 3.0)
            wait_for(lambda: bool(self._stream._asks))
            client.cut()

    @property
    def newcomer(self) -> Any:
        """Who has come back last, and waits until the reader has left."""
        return self.talk._next_wire

    def goes_on(self) -> None:
        self._service.loop.call_soon_threadsafe(self._stream._asking.release)
