"""A client of kiku's own protocol for tests: keeps its sound, counts messages, and comes back."""

import contextlib
import json
import socket as system
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import numpy as np
from websockets.sync.client import ClientConnection, connect

from tests.serve.clients import PATIENCE_S, RATE

CHUNK = 1_920


def bytes_of(samples: np.ndarray) -> bytes:
    """[S] float32 as 16 bits."""
    return (samples * 32767).astype("<i2").tobytes()


class OwnClient:
    """Sends sound and collects messages; `count` and `told_s` are of all its connections."""

    def __init__(self, session: str, samples: np.ndarray) -> None:
        self.session, self.sound = session, bytes_of(samples)
        self.messages: list[dict[str, Any]] = []
        self.count, self.told_s = 0, 0.0
        self.generation: int | None = None
        self.socket: ClientConnection

    @contextlib.contextmanager
    def at(self, address: str, *, says_told: bool = True, **query: Any) -> Iterator[dict[str, Any]]:
        """A connection to a service; gives its `ready`."""
        given = {"session": self.session, **query}
        if self.count:
            given["after"] = self.count
            if says_told:
                given["told"] = self.told_s
            if self.generation is not None:
                given["generation"] = self.generation
        address = f"{address}/api/stream?{urlencode(given, doseq=True)}"
        with connect(address, compression=None, max_queue=None) as self.socket:
            ready = json.loads(self.socket.recv(PATIENCE_S))
            assert ready["type"] == "ready", ready
            self.generation = ready.get("generation")
            yield ready

    def speak(self, start_s: float, end_s: float) -> None:
        """Send a part of the sound."""
        first, last = round(start_s * RATE) * 2, round(end_s * RATE) * 2
        for at in range(first, last, 2 * CHUNK):
            self.socket.send(self.sound[at : min(at + 2 * CHUNK, last)])

    def tell(self, **command: Any) -> None:
        self.socket.send(json.dumps(command))

    def receive(self, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next message that counts."""
        while True:
            message = json.loads(self.socket.recv(patience_s))
            if message["type"] != "lag":
                break
        self.messages.append(message)
        self.count += 1
        if message["type"] == "word":
            self.told_s = message["end"]
        return message

    def words_until(self, count: int) -> None:
        """Receive up to so many words."""
        while len(self.words) < count:
            self.receive()

    def finish(self, start_s: float) -> str:
        """Send the rest, say that it was all, and receive to the end."""
        self.speak(start_s, self.seconds)
        self.tell(type="close")
        while self.receive()["type"] != "end":
            pass
        return " ".join(self.words)

    def cut(self) -> None:
        """Cut the connection without a word."""
        self.socket.socket.shutdown(system.SHUT_RDWR)

    @property
    def seconds(self) -> float:
        return len(self.sound) / 2 / RATE

    @property
    def words(self) -> list[str]:
        return [one["text"] for one in self.messages if one["type"] == "word"]
