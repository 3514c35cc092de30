"""What every live protocol is: a client's messages and a stream's events in, actions out.

    socket --bytes--> received() --> [Open, Push, Finalize, Close, Send, Hangup ...] --> the talk
    stream --event--> event()    --> [Send, Hangup ...]                              --> the talk

A protocol object belongs to one connection and keeps what that connection has said. Its methods are
called one at a time, never wait, and know no socket, task or clock: whoever runs it (`kiku.serve.
talk`) does what the actions say, in their order.
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
class Request:
    """How a client knocked: the request line and headers of an HTTP request or a WebSocket."""

    path: str
    query: tuple[tuple[str, str], ...] = ()
    """Names and values, decoded, in order; a name may come several times."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """By lower-case name."""
    subprotocols: tuple[str, ...] = ()
    id: str = ""
    """Of this request, a UUID: the same in answers and in the log."""
    at: float = 0.0
    """When it came, in seconds since 1970: protocols look at no clock."""

    def first(self, name: str, default: str | None = None) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of a query parameter."""
        return [value for key, value in self.query if key == name]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What protocols say of the model that listens."""

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
    """Of kiku."""
    created: int = 0
    """When it was loaded, in seconds since 1970."""

    def answers_to(self, name: str) -> bool:
        """Whether a client that asks for `name` means this model."""
        return name == self.name or any(fnmatchcase(name, alias) for alias in self.aliases)


class Refusal(Exception):
    """A client that asks for what cannot be: its connection is not opened.

    `status`, `body` and `headers` are those of the HTTP answer to its request, as its protocol
    wants them.
    """

    def __init__(
        self,
        status: int,
        body: Mapping[str, Any] | str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body, self.headers = status, body, dict(headers or {})


MAX_NAME = 256
"""Characters of a name of a session or a finalize that a client gives: it is kept, and told
again."""

_BEGINNING, _END = 400, 200
"""Characters of a long message that are told."""


def brief(message: str) -> str:
    """A message to a client, without the middle of a long one: what it quotes may be of any
    length, and what to do stands at its end."""
    if len(message) <= _BEGINNING + _END:
        return message
    return f"{message[:_BEGINNING]} ... {message[-_END:]}"


def session_of(request: Request) -> str | None:
    """The name under which a client may come back; None where it gives none.

    Raises:
        Refusal: it is too long.
    """
    name = request.first("session")
    if name is not None and len(name) > MAX_NAME:
        error = f"the name of a session may have {MAX_NAME} characters, not {len(name)}: shorten it"
        raise Refusal(400, {"error": error})
    return name


def in_a_header(message: str) -> str:
    """A message as one line of ASCII."""
    plain = message.encode("ascii", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())[:1000]


class ServerEnds(Exception):
    """The service is going down: the connection ends with close code 1012 after its last
    messages."""


# What a protocol wants done.


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a new stream. One that was open before is given up: what it has not said is dropped.

    The answer comes as `opened()` or `failed(error)`.
    """

    options: StreamOptions
    container: bool = False
    """Pushed bytes are those of a recording (ogg, webm, mp3, wav ...), not of samples."""


@dataclass(slots=True)  # frozen ones take three times as long to make
class Push:
    """Sound, as `LiveStream.push` takes it; what cannot be sound comes back as `rejected(error)`.

    Without a stream that is open it is dropped.
    """

    samples: NDArray[np.generic] | bytes
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Sound is missing: silence of this length takes its place."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finalize:
    """See `LiveStream.finalize`; `Finalized(tag)` is the answer, behind the words. Where the stream
    has too many to answer, this one waits, and what is asked behind it."""

    tag: str | None = None
    cut: bool = True


@dataclass(frozen=True, slots=True)
class Decode:
    """Pick text so from now on (hotwords, temperature). The answer comes as `decoded()`, or as
    `rejected(error)` for what the model cannot do."""

    options: DecodingOptions


@dataclass(frozen=True, slots=True)
class Close:
    """No more sound comes: the last words and `End` follow as events."""


@dataclass(slots=True)
class Send:
    """A message to the client: text or bytes, as a frame of that kind."""

    data: str | bytes
    counted: bool = True
    """Whether it is sent again to a client that comes back and has not had it; greetings are
    not."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the connection, after all that was sent before. The stream is given up."""

    code: int = 1000
    reason: str = ""


Action = Open | Push | Gap | Finalize | Decode | Close | Send | Hangup
Actions = Sequence[Action]


class LiveProtocol(Protocol):
    """One client's side of a live connection.

    A protocol is made from `(Request, ModelCard)` before the connection is accepted, and raises
    `Refusal` for what its client asks for and cannot have.
    """

    @property
    def name(self) -> str:
        """For logs and metrics, like "kyutai"."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """Which of the client's subprotocols is accepted."""
        ...

    @property
    def first(self) -> Open | None:
        """The stream to open before the connection is accepted; where no slot is free the client is
        told `busy()` then. None takes a connection without a slot, and `Open`s later."""
        ...

    @property
    def quiet_after_s(self) -> tuple[float, ...]:
        """`quiet(seconds)` is called when so long nothing has come from the client, once each until
        something comes again; ascending."""
        ...

    @property
    def wants_progress(self) -> bool:
        """Whether `heard` is called."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether it keeps so much of what came that no more is read until some of that is done."""
        ...

    @property
    def session(self) -> str | None:
        """A name under which its client may come back after its connection was cut; None ends the
        stream with the connection."""
        ...

    def busy(self, retry_after_s: int) -> Refusal | None:
        """The answer before the upgrade where no slot is free. None accepts the connection all the
        same, tells `failed(NoFreeSlot)` and does what that wants."""
        ...

    def unfit(self, error: Exception) -> Refusal:
        """The answer before the upgrade where the model cannot do what the client wants."""
        ...

    def begin(self) -> Actions:
        """The connection is accepted, and the stream of `first` open."""
        ...

    def received(self, message: str | bytes) -> Actions:
        """A message of the client: text is `str`, binary is `bytes`."""
        ...

    def said_all(self) -> Actions | None:
        """The client has ended its side of the connection, and may still listen: finish what it
        asked for, and hang up behind that. None takes it for gone."""
        ...

    def opened(self) -> Actions:
        """The stream that a later `Open` asked for is there."""
        ...

    def decoded(self) -> Actions:
        """The stream picks its text as the last `Decode` wants."""
        ...

    def event(self, event: Event, waiting_s: float) -> Actions:
        """The stream says something; `waiting_s` seconds of sound wait to be heard meanwhile."""
        ...

    def heard(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """The stream has heard so many seconds of its sound, whether it says anything or not, and
        so many wait."""
        ...

    def quiet(self, seconds: float) -> Actions:
        """Nothing came from the client for so long: one of `quiet_after_s`. Not while sound that
        came before still waits to be heard."""
        ...

    def idle(self, reason: str) -> Actions:
        """Nothing came from the client for so long that its connection ends: finish what was heard.
        It is hung up on, with this reason, at the stream's `End` or a few seconds later."""
        ...

    def resumed(self, taken_s: float) -> Actions:
        """The client of a `session` is back. So many seconds of its sound were taken: it sends what
        follows. After these messages those are sent again that it has not had."""
        ...

    def save(self) -> Mapping[str, int]:
        """What it has counted, where its client has a `session`: another process may go on."""
        ...

    def restore(self, counts: Mapping[str, int], options: StreamOptions, num_bytes: int) -> None:
        """Go on where another process was: with what `save` gave there, with its stream's options,
        and with so many bytes of sound taken. Before `resumed`."""
        ...

    def rejected(self, error: Exception) -> Actions:
        """What the last message wanted cannot be (`AudioError`, `QueueFull`, `ConfigError`,
        `StreamClosed`); nothing of it was done, and the stream goes on."""
        ...

    def failed(self, error: Exception) -> Actions:
        """The stream cannot go on or could not be opened: `NoFreeSlot`, `ServerEnds`, or what it
        failed with. Unless the actions hang up, the connection goes on without a stream."""
        ...


class Base:
    """What most protocols leave as it is."""

    name = ""
    subprotocol: str | None = None
    first: Open | None = None
    quiet_after_s: tuple[float, ...] = ()
    wants_progress = False
    is_full = False
    session: str | None = None

    def unfit(self, error: Exception) -> Refusal:
        """See `LiveProtocol`."""
        return Refusal(400, {"error": str(error)})

    def begin(self) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def said_all(self) -> Actions | None:
        """See `LiveProtocol`."""
        return None

    def opened(self) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def decoded(self) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def heard(self, seconds: float, waiting_s: float = 0.0) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def quiet(self, seconds: float) -> Actions:
        """See `LiveProtocol`."""
        return ()

    def idle(self, reason: str) -> Actions:
        """See `LiveProtocol`."""
        return [Close()]

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
