"""The values of a session in a store, by name, as msgpack: how they are written and read.

    head            whose it is, how far its client was told, which other values belong to it
    G.sN            the sound of about a second, as it came (G is the generation that wrote it)
    G.mN            the messages of about a second
    state           a saved stream, of a process that ended in an orderly way

Stored values come from outside: whatever is wrong with them raises `RecordError`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from kiku.errors import ConfigError
from kiku.options import StreamOptions
from kiku.serve.client_progress import ClientProgress
from kiku.serve.decoding_history import DecodingHistory, EarlierDecoding
from kiku.serve.message_history import MAX_MESSAGES
from kiku.serve.session_sound import Part, StoredFormat
from kiku.serve.session_store import MAX_VALUE_BYTES

VERSION = 3
"""That of records that are written. Those of versions 1 and 2 lack what has a default, and are
read."""

HEAD, STATE = "head", "state"

_MAX_S = 1e9
_MAX_COUNT = 2**53

T = TypeVar("T")


class RecordError(Exception):
    """The record of a session is damaged, or of something else; the message says which."""


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose session it is, and of which model and protocol; one of another is not gone on with."""

    model: str
    """The model's name, and a digest of its configuration."""
    protocol: str
    owner: str
    session: str


class Head(msgspec.Struct, forbid_unknown_fields=True):
    """Everything about a session except its sound, messages and saved stream."""

    version: int
    identity: Identity
    options: dict[str, Any]
    """Options of its stream."""
    counts: dict[str, int]
    """What its protocol has counted."""
    count: int
    """Number of messages that were counted."""
    progress: ClientProgress = msgspec.field(name="told")
    from_s: float
    """Sound before this time need not be heard again: its words were told, or nothing was said."""
    num_bytes: int
    """Bytes of the client's sound that were taken, up to the end of what is stored."""
    is_closed: bool
    """Whether no sound comes after that."""
    sounds: list[str]
    messages: list[str]
    """Names of the other values, in order."""
    has_state: bool = False
    known: ClientProgress | None = None
    """What the saved stream may tell again: it had not come to all that was told before it."""
    earlier: list[EarlierDecoding] = []
    """The decoding options that held before those of `options`, as far back as the sound goes."""


class SoundPiece(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Some sound, as the client sent it."""

    start_s: float
    num_before: int
    """Bytes of the client's sound before it."""
    parts: list[Part]


class MessagePiece(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Some counted messages."""

    first: int
    """The number of the first of them."""
    messages: list[tuple[bool, bytes]]
    """Of each message: whether it is text, and its bytes."""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session that was read and checked."""

    head: Head
    options: StreamOptions
    decoding: DecodingHistory
    pieces: Sequence[SoundPiece]
    """Pieces of sound, without holes between them."""
    end_s: float
    """Where their sound ends; 0 without any."""
    messages: Sequence[str | bytes]
    """The last messages, up to number `head.count`."""
    state: bytes | None


_ENCODE = msgspec.msgpack.Encoder().encode
_HEAD = msgspec.msgpack.Decoder(Head).decode
_SOUND = msgspec.msgpack.Decoder(SoundPiece).decode
_MESSAGES = msgspec.msgpack.Decoder(MessagePiece).decode


def message_piece(first: int, messages: Iterable[str | bytes]) -> MessagePiece:
    """A piece of these messages, of which the first has number `first`."""
    return MessagePiece(
        first,
        [(True, one.encode()) if isinstance(one, str) else (False, one) for one in messages],
    )


def encoded(value: Head | SoundPiece | MessagePiece) -> bytes:
    """The bytes of a value, to be stored."""
    return _ENCODE(value)


def read(values: Mapping[str, bytes], identity: Identity, model_rate: int) -> StoredSession:
    """A session from its values.

    Args:
        values: as a store gave them.
        identity: the one that the session must have.
        model_rate: samples a second.

    Raises:
        RecordError: it has another identity, or is damaged.
    """
    try:
        head = _HEAD(values[HEAD])
        _check(head, identity)
        options = StreamOptions.from_dict(head.options)
        decoding = DecodingHistory(options.decoding, head.earlier)
        pieces = [_SOUND(values[name]) for name in head.sounds]
        messages = _joined([_MESSAGES(values[name]) for name in head.messages], head.count)
        state = values[STATE] if head.has_state else None
        end_s = _end_of(pieces, StoredFormat(options.format, model_rate))
    except KeyError as error:
        raise RecordError(f"the part {error} is missing") from error
    except (msgspec.MsgspecError, RecursionError, ValueError, ConfigError) as error:
        raise RecordError(f"it cannot be read: {error}") from error
    return StoredSession(head, options, decoding, pieces, end_s, messages, state)


def _check(head: Head, identity: Identity) -> None:
    if not 1 <= head.version <= VERSION:
        raise RecordError("it was written by another version of kiku")
    for name in ("model", "protocol", "owner", "session"):
        if getattr(head.identity, name) != getattr(identity, name):
            raise RecordError(f"it belongs to another {name}")
    for progress in (head.progress, head.known):
        if progress is not None:
            _check_progress(progress)
    if not 0 <= head.from_s < _MAX_S:  # NaN is not
        raise ValueError("an impossible time")
    counts = [head.count, head.num_bytes, *head.counts.values()]
    if not all(0 <= count < _MAX_COUNT for count in counts):
        raise ValueError("an impossible count")


def _check_progress(progress: ClientProgress) -> None:
    told = [time for words in progress.recent.values() for _, *times in words for time in times]
    times = [
        progress.paused_s,
        progress.warned_s,
        progress.confirmed_s,
        progress.open_end_s,
        progress.again_from_s or 0.0,
        *progress.words.values(),
        *told,
    ]
    if not all(0 <= time < _MAX_S for time in times):
        raise ValueError("an impossible time")
    if not all(key == "" or (key.isascii() and key.isdigit() and len(key) < 4)
               for key in [*progress.words, *progress.turns, *progress.recent]):  # fmt: skip
        raise ValueError("an impossible channel")


def _joined(pieces: Sequence[MessagePiece], count: int) -> list[str | bytes]:
    """The messages of all pieces, which follow one another up to number `count`."""
    found: list[str | bytes] = []
    count_behind = 0
    for piece in pieces:
        if found and piece.first != count_behind:
            raise ValueError("messages are missing")
        found += [data.decode() if is_text else data for is_text, data in piece.messages]
        count_behind = piece.first + len(piece.messages)
    if found and count_behind != count + 1:
        raise ValueError("the last messages are missing")
    if len(found) > min(count, MAX_MESSAGES):
        raise ValueError("more messages than are possible")
    return found


def _end_of(pieces: Sequence[SoundPiece], sound: StoredFormat) -> float:
    """Where the sound of the pieces ends, which must follow one another."""
    end_s = 0.0
    size = 0
    for i, piece in enumerate(pieces):
        if not 0 <= piece.start_s < _MAX_S or not 0 <= piece.num_before < _MAX_COUNT:
            raise ValueError("an impossible piece of sound")
        if i and abs(piece.start_s - end_s) > 1e-3:
            raise ValueError("sound is missing")
        end_s = piece.start_s
        for gap_s, data in piece.parts:
            if not 0 <= gap_s < _MAX_S or (gap_s and data):
                raise ValueError("an impossible silence")
            end_s += gap_s or sound.seconds(data)
            size += len(data)
    if size > MAX_VALUE_BYTES or not math.isfinite(end_s):
        raise ValueError("more sound than is possible")
    return end_s
