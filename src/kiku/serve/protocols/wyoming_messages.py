"""Wyoming's messages <-> bytes: a line of JSON, then data (JSON too), then a payload (sound).

    {"type": "audio-chunk", "data_length": 40, "payload_length": 2048}\n  <data>  <payload>

Memory grows only with the bytes that have come, and not by the lengths that a line announces. A
message that announces more than the limits is refused as soon as its line is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

MAX_LINE_BYTES = 2**16
MAX_DATA_BYTES = 2**20
"""Enough for some ten thousand names as hotwords."""
MAX_PAYLOAD_BYTES = 2**24
"""Enough for eight minutes of sound at 16 kHz."""

_Length = Annotated[int, msgspec.Meta(ge=0)] | None


class Malformed(ValueError):
    """The bytes are no message of Wyoming's, so that it is not known where the next begins."""


@dataclass(frozen=True, slots=True)
class WyomingMessage:
    """One message, whole."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    payload: bytes = b""
    size: int = field(default=0, compare=False)
    """Bytes of data and payload together, after the line."""


class _Line(msgspec.Struct):
    type: str
    data: dict[str, Any] | None = None
    data_length: _Length = None
    payload_length: _Length = None


_LINES = msgspec.json.Decoder(_Line)
_DATA = msgspec.json.Decoder(dict[str, Any])
_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class MessageReader:
    """Takes bytes as a connection happens to bring them, and gives whole messages."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._buffer = bytearray()
        self._looked_to = 0  # no line ends before this place
        self._line: _Line | None = None  # of a message whose rest is still to come

    def feed(self, data: bytes) -> None:
        """Take bytes that have come."""
        self._buffer += data

    @property
    def num_waiting(self) -> int:
        """Number of bytes that wait for the rest of their message."""
        return len(self._buffer)

    def next(self) -> WyomingMessage | None:
        """The next message; None while it is not whole.

        Raises:
            Malformed: what has come is no message, or too long; the reader can give no other.
        """
        line = self._line
        if line is None:
            line = self._line = self._next_line()
        if line is None:
            return None
        num_data, num_payload = line.data_length or 0, line.payload_length or 0
        if len(self._buffer) < num_data + num_payload:
            return None
        data = line.data or {}
        if num_data:
            data = data | self._data(bytes(self._buffer[:num_data]), line.type)
        payload = bytes(self._buffer[num_data : num_data + num_payload])
        del self._buffer[: num_data + num_payload]
        self._line = None
        return WyomingMessage(line.type, data, payload, num_data + num_payload)

    def _next_line(self) -> _Line | None:
        end = self._buffer.find(b"\n", self._looked_to, MAX_LINE_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_LINE_BYTES:
                raise Malformed(
                    f"no line ends within {MAX_LINE_BYTES} bytes: a message begins with a line of "
                    "JSON; longer data follows it, with its length in data_length"
                )
            self._looked_to = len(self._buffer)
            return None
        text = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._looked_to = 0
        try:
            line = _LINES.decode(text)
        except _ERRORS as error:
            raise Malformed(
                f"the line that begins a message cannot be understood ({error}): it is "
                '{"type": ..., "data_length": ..., "payload_length": ...}'
            ) from None
        for what, length, max_length in (
            ("data_length", line.data_length, MAX_DATA_BYTES),
            ("payload_length", line.payload_length, MAX_PAYLOAD_BYTES),
        ):
            if length is not None and length > max_length:
                raise Malformed(
                    f"{what} is {length}, but at most {max_length} is allowed: send it in parts"
                )
        return line

    def _data(self, data: bytes, type: str) -> dict[str, Any]:
        try:
            return _DATA.decode(data)
        except _ERRORS as error:
            raise Malformed(
                f"the data of {type[:40]!r} cannot be understood ({error}): it is a JSON object of "
                "data_length bytes"
            ) from None


def message_bytes(type: str, data: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a message without payload."""
    if not data:
        return msgspec.json.encode({"type": type}) + b"\n"
    encoded = msgspec.json.encode(data)
    return msgspec.json.encode({"type": type, "data_length": len(encoded)}) + b"\n" + encoded
