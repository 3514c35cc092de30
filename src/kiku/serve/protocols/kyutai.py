"""Kyutai's own protocol, as moshi-server speaks it: msgpack maps over a WebSocket.

A client sends `Audio` (24 kHz mono), `OggOpus`, `Marker` and `Init`, and gets `Ready`, a `Step` for
each frame of a model with pause heads, `Word`, `EndWord`, `Marker` and `Error`. Its clients know no
other message, so there is none.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]
import msgspec
import numpy as np
from numpy.typing import NDArray

from kiku.errors import NoFreeSlot
from kiku.options import StreamOptions
from kiku.serve.protocols.interface import (
    Actions,
    Base,
    ClientRequest,
    FinalizeStream,
    Hangup,
    ModelCard,
    Open,
    Push,
    Send,
    ServerEnds,
    brief,
    round_s,
    session_of,
)
from kiku.stream import End, Event, Finalized, Pause, WordEnd
from kiku.text import Word

SAMPLE_RATE = 24_000

TELL_AFTER_S = 1.0
"""Seconds without sound after which the client is sent the word that is open: some clients
never send a `Marker`."""

IDLE_S = 120.0
"""Seconds without sound after which a connection is closed, as moshi-server does."""

_QUIET = "quiet"
_MARKER = re.compile(r"[0-9]+ (-?[0-9]{1,20})")
"""The tag of a marker's finalize: the marker's number, and its id."""

_ERROR_CODE = 1003
_FULL = "no free channels"
"""The message that Kyutai's clients know."""

_AUDIO = b"\x82\xa4type\xa5Audio\xa3pcm"
_NUMBERS = {
    b"\xca": np.dtype([("kind", "u1"), ("value", ">f4")]),
    b"\xcb": np.dtype([("kind", "u1"), ("value", ">f8")]),
}  # fmt: skip
"""How numbers are written, by the byte before each."""

MAX_LIST_BYTES = 2**20
"""Bytes of a message whose numbers are read one by one: longer ones would hold up other clients."""


class Audio(msgspec.Struct, tag_field="type", tag="Audio"):
    """Samples at 24 kHz."""

    pcm: list[float]


class OggOpus(msgspec.Struct, tag_field="type", tag="OggOpus"):
    """The next bytes of an Ogg Opus recording; Rust's serde writes them as a list."""

    data: bytes | list[int]


class _LongOggOpus(msgspec.Struct, tag_field="type", tag="OggOpus"):
    """An `OggOpus` of any length."""

    data: bytes


class Marker(msgspec.Struct, tag_field="type", tag="Marker"):
    """A place in the sound: it is sent back after all words before it."""

    id: int


class Init(msgspec.Struct, tag_field="type", tag="Init"):
    """Begin again, with a new stream."""


Message = Audio | OggOpus | Marker | Init

_Pack = Callable[[Any], bytes]
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_LONG_DECODER = msgspec.msgpack.Decoder(_LongOggOpus)
_MSGPACK: Any = msgpack  # it has no type annotations
_PACK = cast("_Pack", _MSGPACK.Packer(use_single_float=True).pack)  # as Rust writes probabilities
_PACK_TIMES = cast("_Pack", _MSGPACK.Packer().pack)


def floats_of(message: bytes) -> NDArray[np.float32] | None:
    """The samples of an `Audio` message if all its numbers are float32, or all float64; else None.

    Reading them as one array takes 2 us; as a list of 1,920 numbers it takes 60 and more.
    """
    if not message.startswith(_AUDIO):
        return None
    at = len(_AUDIO)
    kind = message[at] if at < len(message) else 0
    if kind == 0xDC:
        first = at + 3
        count = int.from_bytes(message[at + 1 : first])
    elif kind == 0xDD:
        first = at + 5
        count = int.from_bytes(message[at + 1 : first])
    elif 0x90 <= kind <= 0x9F:
        first, count = at + 1, kind & 0x0F
    else:
        return None
    mark = message[first : first + 1] or b"\xca"
    numbers = _NUMBERS.get(mark)
    if numbers is None or len(message) != first + numbers.itemsize * count:
        return None
    # Compared as bytes: numpy would let other threads in, for longer than this takes.
    if message[first :: numbers.itemsize] != mark * count:
        return None
    values = np.frombuffer(message, numbers, count, first)["value"]
    return values.astype(np.float32) if values.itemsize == 4 else samples_of(values)


def samples_of(pcm: list[float] | NDArray[Any]) -> NDArray[np.float32]:
    """Numbers of any kind as [S] float32; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):  # a NaN may be of any kind
        return np.array(pcm, np.float64).astype(np.float32)


class KyutaiProtocol(Base):
    """One client that speaks moshi-server's protocol."""

    name = "kyutai"
    quiet_after_s = (TELL_AFTER_S, IDLE_S)
    awaits_sound = True
    accepts_when_full = True

    def __init__(self, request: ClientRequest, model: ModelCard) -> None:
        """Accept any request, as the key was checked before. Raises `Refusal` for a session whose
        name is too long."""
        self._options = StreamOptions(pauses=model.num_pause_heads > 0)
        self.session = session_of(request)
        self.initial_open = Open(self._options)
        self._container: bool | None = None  # not known before the first sound
        self._num_steps = self._num_markers = 0
        self._has_new_sound = False  # whether sound has come since the last finalize

    def begin(self) -> Actions:
        """Send `Ready`, the first message of a connection."""
        return self.resumed(0.0)

    def resumed(self, taken_s: float) -> Actions:
        """Send `Ready`; if the client asked for a session, with the number of samples taken."""
        ready: dict[str, Any] = {"type": "Ready"}
        if self.session is not None:
            ready |= {"session": self.session, "taken": round(taken_s * SAMPLE_RATE)}
        return [Send(_PACK_TIMES(ready), counted=False)]

    def save(self) -> Mapping[str, int]:
        """See `LiveProtocol`."""
        return {
            "steps": self._num_steps, "markers": self._num_markers,
            "untold": int(self._has_new_sound), "sound": int(self._container is False),
        }  # fmt: skip

    def restore(self, counts: Mapping[str, int], options: StreamOptions, num_bytes: int) -> None:
        """See `LiveProtocol`."""
        self._num_steps, self._num_markers = counts.get("steps", 0), counts.get("markers", 0)
        self._has_new_sound = bool(counts.get("untold", 0))
        self._container = False if counts.get("sound", 0) else None

    def opened(self) -> Actions:
        """Send `Ready` again after `Init`."""
        return self.begin() if self._container is None else ()

    def received(self, message: str | bytes) -> Actions:
        """Sound, a marker or a reset."""
        if isinstance(message, str):
            return ()  # as moshi-server does
        samples = floats_of(message)
        if samples is not None:
            return self._sound(samples)
        if len(message) > MAX_LIST_BYTES:
            return self._long(message)
        try:
            given = _DECODER.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _error(f"the message cannot be understood ({error}): send a msgpack map whose "
                          "type is Audio, OggOpus, Marker or Init")  # fmt: skip
        match given:
            case Audio(pcm):
                return self._sound(samples_of(pcm))
            case OggOpus(data):
                return self._recording(data)
            case Marker(id):
                self._num_markers += 1
                self._has_new_sound = False
                return [FinalizeStream(f"{self._num_markers} {id}")]
            case Init():
                self._container, self._num_steps, self._has_new_sound = None, 0, False
                return [Open(self._options)]

    def _long(self, message: bytes) -> Actions:
        """A message that is too long to be read number by number."""
        try:
            return self._recording(_LONG_DECODER.decode(message).data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _error(f"a message of more than {MAX_LIST_BYTES} bytes must be Audio with "
                          "numbers of one kind, float32 or float64, or OggOpus whose data are "
                          f"bytes, and this one of {len(message)} is neither: send shorter "
                          "ones")  # fmt: skip

    def _sound(self, samples: NDArray[np.float32]) -> Actions:
        if self._container:
            return _error("Audio came after OggOpus: send Init before another kind of sound")
        if not len(samples):  # it does not keep its client connected
            return ()
        self._container, self._has_new_sound = False, True
        return [Push(samples)]

    def _recording(self, data: bytes | list[int]) -> Actions:
        try:
            data = bytes(data)
        except ValueError:
            return _error("the data of OggOpus must be bytes, or numbers from 0 to 255")
        if self._container is False:
            return _error("OggOpus came after Audio: send Init before another kind of sound")
        first, self._container, self._has_new_sound = self._container is None, True, True
        return [Open(self._options, container=True), Push(data)] if first else [Push(data)]

    def event(self, event: Event, waiting_s: float) -> Actions:
        """Send one message for each event, in the stream's order."""
        match event:
            case Pause(_, probabilities):
                self._num_steps += 1
                buffered = int(waiting_s * SAMPLE_RATE)
                step = {"type": "Step", "step_idx": self._num_steps, "prs": probabilities,
                        "buffered_pcm": buffered}  # fmt: skip
                # Not counted: how many there are depends on the sound, and a client who comes back
                # counts words.
                return [Send(_PACK(step), counted=False)]
            case Word():
                return [_send(_word(event))]
            case WordEnd():
                return [_send(_end_word(event.end))]
            case Finalized(tag=str(tag)) if (id := _marker_of(tag)) is not None:
                return [_send({"type": "Marker", "id": id})]
            case End():
                return [Hangup(1000)]
            case _:
                return ()

    def quiet(self, seconds: float) -> Actions:
        """Finalize the last word after a short silence, and hang up after a long one."""
        if seconds >= IDLE_S:
            return [Hangup(1000, "no sound for two minutes")]
        if not self._has_new_sound:
            return ()
        self._has_new_sound = False
        return [FinalizeStream(_QUIET)]

    def rejected(self, error: Exception) -> Actions:
        """Say why, and close: the protocol has no milder way."""
        return _error(str(error))

    def failed(self, error: Exception) -> Actions:
        """Say why, and close."""
        if isinstance(error, NoFreeSlot):
            return [_send({"type": "Error", "message": _FULL}), Hangup(1000)]
        if isinstance(error, ServerEnds):
            return _error(str(error), 1012)
        return _error(str(error), 1011)


def word_messages(word: Word) -> list[dict[str, Any]]:
    """A word of a recording, and its end."""
    return [_word(word), _end_word(word.end)]


def _marker_of(tag: str) -> int | None:
    """The id of the marker whose finalize had this tag; None for another tag, as a stored session
    may have any."""
    found = _MARKER.fullmatch(tag)
    id = None if found is None else int(found[1])
    return id if id is not None and -(2**63) <= id < 2**64 else None


def _word(word: Word) -> dict[str, Any]:
    return {"type": "Word", "text": word.text, "start_time": round_s(word.start)}


def _end_word(end: float) -> dict[str, Any]:
    return {"type": "EndWord", "stop_time": round_s(end)}


def _send(message: dict[str, Any]) -> Send:
    return Send(_PACK_TIMES(message))


def _error(message: str, code: int = _ERROR_CODE) -> Actions:
    return [_send({"type": "Error", "message": brief(message)}), Hangup(code, message[:100])]
