"""The interface of live protocols: a client's messages and a stream's events in, actions out.

    socket --bytes--> received() --> [Open, Push, FinalizeStream, Send, Hangup ...] --> the talk
    stream --event--> event()    --> [Send, Hangup ...]                             --> the talk

A protocol object belongs to one connection and keeps that connection's state. Its methods are
called one at a time, never wait, and know no socket, task or clock: the talk (`kiku.serve.talk`),
which runs it, does what the actions say, in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kiku.options import DecodingOptions, StreamOptions
from kiku.stream import Event


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A client's request: the request line and headers of an HTTP request or a WebSocket."""

    path: str
    query: tuple[tuple[str, str], ...] = ()
    """Names and values, decoded, in order; a name may come several times."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """By lower-case name."""
    subprotocols: tuple[str, ...] = ()
    id: str = ""
    """UUID of this request, which stands in answers and in the log."""
    at: float = 0.0
    """When the request came, in seconds since 1970: protocols look at no clock."""

    def first(self, name: str, default: str | None = None) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of a query parameter."""
        return [value for key, value in self.query if key == name]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What protocols need to know of the model that listens."""

    name: str
    """Its real name."""
    aliases: tuple[str, ...] = ()
    """Shell patterns of names that stand for it too, like "whisper-1" and "nova-*"."""
    languages: tuple[str, ...] = ("en",)
    delay_s: float = 0.5
    """Seconds by which its text lags the sound."""
    num_pause_heads: int = 0
    sample_rate: int = 24_000
    version: str = ""
    """Version of kiku."""
    created: int = 0
    """When the model was loaded, in seconds since 1970."""

    def answers_to(self, name: str) -> bool:
        """Whether a client that asks for `name` means this model."""
        return name == self.name or any(fnmatchcase(name, alias) for alias in self.aliases)


class Refusal(Exception):
    """A client asks for what it cannot have: its connection is not opened.

    `status`, `body` and `headers` are those of the HTTP answer to its request, in the form of its
    protocol.
    """

    def __init__(
        self, status: int, body: Mapping[str, Any] | str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body, self.headers = status, body, dict(headers or {})


MAX_NAME = 256
"""Characters that a client's name of a session, or tag of a finalize, may have: names are kept, and
sent back."""

_BEGINNING, _END = 400, 200
"""Characters of a long message that are sent, from its beginning and its end."""


def brief(message: str) -> str:
    """A message to a client, without its middle if it is long: what it quotes may be of any length,
    and what to do stands at its end."""
    if len(message) <= _BEGINNING + _END:
        return message
    return f"{message[:_BEGINNING]} ... {message[-_END:]}"


def session_of(request: ClientRequest) -> str | None:
    """The name under which a client may come back; None if it gives none.

    Raises:
        Refusal: the name is too long.
    """
    name = request.first("session")
    if name is not None and len(name) > MAX_NAME:
        error = f"the name of a session may have {MAX_NAME} characters, not {len(name)}: shorten it"
        raise Refusal(400, {"error": error})
    return name


def in_a_header(message: str) -> str:
    """A message as one line of ASCII of at most 1,000 characters, for a header."""
    plain = message.encode("ascii", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())[:1000]


class ServerEnds(Exception):
    """The service is going down: the connection ends with close code 1012 after its last
    messages."""


# What a protocol wants done.


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a new stream. One that is open is given up: what it has not said yet is dropped. The
    answer comes as `opened()` or `failed(error)`."""

    options: StreamOptions
    container: bool = False
    """Whether pushed bytes are those of a recording (ogg, webm, mp3, wav ...), not of samples."""


@dataclass(slots=True)  # frozen ones take three times as long to make
class Push:
    """Sound, as `LiveStream.push` takes it; if it cannot be sound, `rejected(error)` is called.
    While no stream is open it is dropped."""

    samples: NDArray[np.generic] | bytes
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class PushGap:
    """Sound is missing: silence of `seconds` takes its place."""

    seconds: float


@dataclass(frozen=True, slots=True)
class FinalizeStream:
    """See `LiveStream.finalize`; the answer is `Finalized(tag)`, after the words. While the stream
    has too many to answer, this one waits, and with it all actions after it."""

    tag: str | None = None
    cut: bool = True


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode with these options from now on (hotwords, temperature). The answer comes as
    `decoded()`, or as `rejected(error)` if the model cannot do that."""

    options: DecodingOptions


@dataclass(frozen=True, slots=True)
class Close:
    """No more sound comes: the last words and `End` follow as events."""


@dataclass(slots=True)
class Send:
    """A message to the client: text or bytes, as a frame of that kind."""

    data: str | bytes
    counted: bool = True
    """Whether the message is sent again to a client that comes back and has not had it; greetings
    are not."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the connection, after all that was sent before. The stream is given up."""

    code: int = 1000
    reason: str = ""


Action = Open | Push | PushGap | FinalizeStream | Decode | Close | Send | Hangup
Actions = Sequence[Action]


class LiveProtocol(Protocol):
    """One client's side of a live connection.

    A protocol is made from `(ClientRequest, ModelCard)` before the connection is accepted. It
    raises `Refusal` if its client asks for what it cannot have.
    """

    @property
    def name(self) -> str:
        """For logs and metrics, like "kyutai"."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """The one of the client's subprotocols that is accepted, or None."""
        ...

    @property
    def initial_open(self) -> Open | None:
        """The stream to open before the connection is accepted, if a slot is free (see
        `accepts_when_full`). None accepts a connection without a slot, for an `Open` that comes
        later."""
        ...

    @property
    def quiet_after_s(self) -> tuple[float, ...]:
        """Seconds, ascending: when nothing has come from the client for one of these times,
        `quiet(seconds)` is called, once for each until something comes again."""
        ...

    @property
    def awaits_sound(self) -> bool:
        """Whether other messages than sound count as nothing in `quiet_after_s`."""
        ...

    @property
    def wants_progress(self) -> bool:
        """Whether `progress` is called."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether it holds so much unprocessed input that no more is read until some is done."""
        ...

    @property
    def session(self) -> str | None:
        """The name under which the client may come back after its connection was cut; None if the
        stream ends with the connection."""
        ...

    @property
    def tells_times(self) -> bool:
        """Whether its messages are events with their times: then a client that says up to which
        word it was told is not sent again those of before, and the end of that word is."""
        ...

    @property
    def accepts_when_full(self) -> bool:
        """Whether a client is accepted even if no slot is free: `failed(NoFreeSlot)` is called
        then, and its actions are done. All others get 503 before the upgrade: they give up for good
        at any status below 500."""
        ...

    def unsupported(self, error: Exception) -> Refusal:
        """The answer before the upgrade if the model cannot do what the client wants."""
        ...

    def begin(self) -> Actions:
        """The connection is accepted, and the stream of `initial_open` is open."""
        ...

    def received(self, message: str | bytes) -> Actions:
        """A message of the client has come: text is `str`, binary is `bytes`."""
        ...

    def client_finished(self) -> Actions | None:
        """The client has ended its side of the connection, and may still listen: finish what it
        asked for, then hang up. With None the client counts as gone."""
        ...

    def opened(self) -> Actions:
        """The stream that an `Open` other than `initial_open` asked for is open."""
        ...

    def decoded(self) -> Actions:
        """The stream decodes with the options of the last `Decode`."""
        ...

    def event(self, event: Event, waiting_s: float) -> Actions:
        """The stream gives an event; `waiting_s` seconds of its sound wait to be heard."""
        ...

    def progress(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """The stream has heard `seconds` of its sound, whether it gives events or not, and
        `waiting_s` seconds wait."""
        ...

    def quiet(self, seconds: float) -> Actions:
        """Nothing came from the client for `seconds`, one of `quiet_after_s`. Not called while
        earlier sound still waits to be heard."""
        ...

    def idle(self, reason: str) -> Actions:
        """Nothing came from the client for so long that its connection ends: finish what was heard.
        The talk hangs up, with this reason, at the stream's `End` or a few seconds later."""
        ...

    def found(self, num_received: int, generation: int | None) -> None:
        """The session of a client who is back is known. Called before `resumed`, which greets the
        client.

        Args:
            num_received: messages of the session that the client has had.
            generation: under which this process owns the session in a store; None without one.
        """
        ...

    def resumed(self, taken_s: float) -> Actions:
        """The client of a `session` is back. `taken_s` seconds of its sound were taken; it sends
        what follows. The messages that it has not had are sent again after those returned here."""
        ...

    def save(self) -> Mapping[str, int]:
        """What it has counted, for another process that may go on with its client's `session`."""
        ...

    def restore(self, counts: Mapping[str, int], options: StreamOptions, num_bytes: int) -> None:
        """Go on where another process was: with what `save` gave there, with its stream's options,
        and with `num_bytes` of sound taken. Called before `resumed`."""
        ...

    def rejected(self, error: Exception) -> Actions:
        """What the last message asked for cannot be done (`AudioError`, `QueueFull`, `ConfigError`,
        `StreamClosed`). Nothing of it was done, and the stream goes on."""
        ...

    def failed(self, error: Exception) -> Actions:
        """The stream cannot go on, or could not be opened: `NoFreeSlot`, `ServerEnds`, or the error
        that it failed with. Unless the actions hang up, the connection goes on without a stream."""
        ...


class Base:
    """Defaults that most protocols leave as they are."""

    name = ""
    subprotocol: str | None = None
    initial_open: Open | None = None
    quiet_after_s: tuple[float, ...] = ()
    awaits_sound = False
    wants_progress = False
    is_full = False
    session: str | None = None
    tells_times = False
    accepts_when_full = False

    def unsupported(self, error: Exception) -> Refusal:
        """See `LiveProtocol`."""
        return Refusal(400, {"error": str(error)})

    def begin(self) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def client_finished(self) -> Actions | None:
        """See `LiveProtocol`."""
        return None

    def opened(self) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def decoded(self) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def progress(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def quiet(self, seconds: float) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def idle(self, reason: str) -> Actions:
        """See `LiveProtocol`."""
        return [Close()]

    def found(self, num_received: int, generation: int | None) -> None:
        """See `LiveProtocol`."""

    def resumed(self, taken_s: float) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def save(self) -> Mapping[str, int]:
        """See `LiveProtocol`."""
        return {}

    def restore(self, counts: Mapping[str, int], options: StreamOptions, num_bytes: int) -> None:
        """See `LiveProtocol`."""


def round_s(seconds: float) -> float:
    """A time as all protocols write it: to the millisecond, so that they agree."""
    return round(seconds, 3)
