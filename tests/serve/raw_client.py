"""A client that says whatever it is told to, byte by byte: what no library would send."""

import socket as system
import struct

from tests.serve.clients import PATIENCE_S

SOCKETS = (
    "/api/asr-streaming",
    "/api/stream?encoding=s16le&rate=24000",
    "/v1/realtime?intent=transcription",
    "/v1/listen?encoding=linear16&sample_rate=16000",
    "/v2/listen?model=flux-general-en&encoding=linear16&sample_rate=16000",
)

TEXT, BINARY, CONTINUED, PING, PONG, CLOSE = 1, 2, 0, 9, 10, 8


class Raw:
    """A connection that says whatever it is told to."""

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        self.socket = system.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(system.SOL_SOCKET, system.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        self._rest = b""

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, first_line: str, *headers: str) -> None:
        self.send("\r\n".join([first_line, "Host: 127.0.0.1", *headers, "", ""]).encode("latin-1"))

    def ask_socket(self, path: str, *headers: str) -> None:
        self.ask(
            f"GET {path} HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", *headers,
        )  # fmt: skip

    def head(self) -> bytes:
        """The head of the answer."""
        while b"\r\n\r\n" not in self._rest:
            data = self.socket.recv(2**16)
            if not data:
                return self._rest
            self._rest += data
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        return head

    def rest(self) -> bytes:
        """All that comes until the service hangs up."""
        while data := self.socket.recv(2**16):
            self._rest += data
        return self._rest

    def take(self, count: int) -> bytes:
        while len(self._rest) < count:
            data = self.socket.recv(2**16)
            assert data, "the service hung up"
            self._rest += data
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def frame(self) -> tuple[int, bytes]:
        """The next frame of a socket: its kind, and what is in it."""
        first, size = self.take(2)
        if size == 126:
            (size,) = struct.unpack(">H", self.take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.take(8))
        return first & 15, self.take(size)


def frame(kind: int, data: bytes = b"", *, last: bool = True) -> bytes:
    size = len(data)
    length = bytes([128 | size]) if size < 126 else b"\xff" + size.to_bytes(8)
    return bytes([last << 7 | kind]) + length + bytes(4) + data
