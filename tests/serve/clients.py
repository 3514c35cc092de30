"""A client of Kyutai's protocol for tests, as small as it can be."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from websockets.sync.client import ClientConnection, connect

from kiku.audio import read_chunks

PATIENCE_S = 60.0
RATE, FRAME = 24_000, 1_920


def samples_of(path: Path) -> np.ndarray:
    """[S] float32 of a recording."""
    return np.concatenate(list(read_chunks(path, RATE)))


class KyutaiClient:
    """Sends sound and collects messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []

    def send(self, **message: Any) -> None:
        self.socket.send(msgpack.packb(message, use_single_float=True))

    def speak(self, samples: np.ndarray) -> None:
        for first in range(0, len(samples), FRAME):
            self.send(type="Audio", pcm=samples[first : first + FRAME].tolist())

    def receive(self, timeout: float = PATIENCE_S) -> dict[str, Any]:
        message = msgpack.unpackb(self.socket.recv(timeout))
        self.messages.append(message)
        return message

    def until(self, kind: str) -> dict[str, Any]:
        """Receive up to the next message of a kind."""
        while (message := self.receive())["type"] != kind:
            pass
        return message

    def finish(self) -> str:
        """Ask for all words until now, and give their text."""
        self.send(type="Marker", id=7)
        assert self.until("Marker") == {"type": "Marker", "id": 7}
        return self.text

    @property
    def count(self) -> int:
        """How many messages it has had, as one who comes back counts them."""
        return sum(one["type"] not in ("Ready", "Step") for one in self.messages)

    @property
    def text(self) -> str:
        return " ".join(one["text"] for one in self.messages if one["type"] == "Word")


def patient_connect(address: str, **options: Any) -> ClientConnection:
    """A socket. Over TLS this client of threads hangs in some of a thousand handshakes, on Python
    3.11 at least, and is tried again."""
    for _ in range(2):
        with contextlib.suppress(TimeoutError):
            return connect(address, **options)
    return connect(address, **options)


@contextlib.contextmanager
def kyutai(address: str, query: str = "", **options: Any) -> Iterator[KyutaiClient]:
    """A connection to a service; `Ready` is not received yet."""
    place = f"{address}/api/asr-streaming{query}"
    with patient_connect(place, compression=None, **options) as socket:
        yield KyutaiClient(socket)
