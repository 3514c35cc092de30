"""What is kept of one talk, so that another process could go on with it.

The talk reports what it does. About once a second the `SessionKeeper` takes a `Snapshot` and has it
written. All of this runs in the event loop: nothing is encoded or copied here.

    talk --pushed, asked, ...--> SessionRecorder --snapshot--> Snapshot --(a thread)--> store
                                SessionRecorder <--committed--
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.options import DecodingOptions, StreamOptions
from kiku.serve.client_progress import ClientProgress, OpenFinalize, Overlap
from kiku.serve.decoding_history import DecodingHistory
from kiku.serve.message_history import MessageHistory
from kiku.serve.protocols.interface import LiveProtocol
from kiku.serve.session_record import (
    HEAD,
    STATE,
    VERSION,
    Head,
    Identity,
    SoundPiece,
    encoded,
    message_piece,
)
from kiku.serve.session_sound import Part, StoredFormat, keep_from
from kiku.serve.session_store import MAX_VALUE_BYTES, Claim, name_of
from kiku.stream import Event

MAX_HEARD_S = 10.0
"""Seconds of heard and told sound that are kept, at most: the words in older sound are among the
messages."""

_MAX_UNHEARD_S = 30.0
"""Seconds of unheard sound that are kept; a client who sends more at once has to keep the rest."""

_HEARTBEAT_S = 3.0
"""Seconds between writes of a talk in which nothing changes: they keep it alive in the store, and
show whether another process has taken it."""

_MAX_WAITING_S = 60.0
"""Seconds of sound that may wait to be written; more is dropped."""

_TCP_GIVE_UP_S = 60.0
"""Seconds after which the system gives up a connection whose client does not take a message."""

SoundData = bytes | NDArray[np.generic]


@dataclass(slots=True)
class _PendingPart:
    """A part of the sound that is to be written; `data` is None if too much waited to keep it."""

    start_s: float
    end_s: float
    num_before: int
    data: SoundData | None
    is_gap: bool = False


@dataclass(slots=True)
class Snapshot:
    """What is to be written now."""

    name: str
    generation: int | None
    head: Head
    sound: tuple[str, float, int, list[tuple[float, SoundData]]] | None
    """Name, start, bytes before, and parts."""
    messages: tuple[str, int, list[str | bytes]] | None
    """Name, number of the first, and messages."""
    drop: list[str]
    format: StoredFormat
    state: bytes | None

    def values(self) -> dict[str, bytes]:
        """The values to store, encoded, which takes a while."""
        found: dict[str, bytes] = {}
        if self.sound is not None:
            name, start_s, num_before, given = self.sound
            parts: list[Part] = [
                (gap_s, b"" if gap_s else self.format.kept(data)) for gap_s, data in given
            ]
            found[name] = encoded(SoundPiece(start_s, num_before, parts))
        if self.messages is not None:
            name, first, messages = self.messages
            found[name] = encoded(message_piece(first, messages))
        if self.state is not None:
            found[STATE] = self.state
        found[HEAD] = encoded(self.head)
        return found


class SessionRecorder:
    """One talk's part of the store."""

    def __init__(self, identity: Identity, model_rate: int, history: MessageHistory) -> None:
        """Begin with a new session, of which nothing is known yet."""
        self.identity, self._history, self._rate = identity, history, model_rate
        self.name = name_of(identity.owner, identity.session)
        self.generation: int | None = None
        """Generation under which this process owns the session; None before the store has it."""
        self.newest_generation = 0
        """The newest under which this process has owned the session."""
        self.progress = ClientProgress()
        self.overlap: Overlap | None = None
        """Leaves out what the stream tells again, if another process began the talk."""
        self._plain: dict[str, Any] = {}  # the options, as they are written
        self._set_options(StreamOptions())
        self._decoding = DecodingHistory(self._options.decoding)
        self._can_move = False
        self._is_closed = False
        self._waiting: deque[_PendingPart] = deque()
        self._waiting_s = 0.0
        self._end_s, self._num_bytes = 0.0, 0  # of what was pushed
        # In the store: the sound's pieces (name, start, end), the end of the last one, and the
        # messages' (name, when).
        self._sounds: deque[tuple[str, float, float]] = deque()
        self._stored_s, self._stored_bytes = 0.0, 0
        self._messages: deque[tuple[str, float]] = deque()
        self._num_stored = history.count  # messages that need not be written any more
        self._left: list[str] = []  # names to be dropped
        self._num_names = 0
        self._written_at = 0.0
        self._is_changed = True

    # What the talk does.

    def opened(self, options: StreamOptions, container: bool) -> None:
        """Begin again: the talk has another stream, which has taken nothing yet."""
        self._can_move = not container
        self._set_options(options)
        self._decoding = DecodingHistory(options.decoding)
        self._begin_at(0.0, 0)
        self.progress, self._is_closed = ClientProgress(), False
        self.overlap = None

    def _begin_at(self, time: float, num_bytes: int) -> None:
        self._waiting.clear()
        self._waiting_s = 0.0
        self._end_s = self._stored_s = time
        self._num_bytes = self._stored_bytes = num_bytes
        self._left += [name for name, _, _ in self._sounds]
        self._sounds.clear()
        self._is_changed = True

    def resumed(
        self,
        claim: Claim,
        progress: ClientProgress,
        options: StreamOptions,
        decoding: DecodingHistory,
        start_s: float,
        num_bytes: int,
    ) -> None:
        """Go on with what another process has kept.

        Args:
            claim: of the session, with what was stored of it.
            progress: what its client has been told.
            options: of the session.
            decoding: how its sound was decoded.
            start_s: where the stream's sound begins, in the session's time.
            num_bytes: of the client's sound before `start_s`.
        """
        self._can_move, self.progress = True, progress.copy()
        self.committed(claim.generation)
        self._set_options(options)
        self._decoding = decoding.copy()
        self._num_stored = self._history.count - len(self._history.after(0))
        self._begin_at(start_s, num_bytes)
        self._left = list(claim.values)

    def pushed(self, sound: SoundData) -> None:
        """Note sound that the stream has taken."""
        if not self._can_move:
            return
        size = len(sound) if isinstance(sound, bytes) else sound.size * 4
        if self._format.width:
            seconds = size / (self._format.width * self._format.rate)
        else:
            seconds = self._format.seconds(self._format.kept(sound))
        data = sound if self._waiting_s < _MAX_WAITING_S else None
        self._add(_PendingPart(self._end_s, self._end_s + seconds, self._num_bytes, data))
        self._num_bytes += size

    def gap(self, seconds: float) -> None:
        """Note silence that the stream has taken."""
        if self._can_move:
            end_s = self._end_s + seconds
            self._add(_PendingPart(self._end_s, end_s, self._num_bytes, b"", is_gap=True))

    def skip_to(self, end_s: float, num_bytes: int) -> None:
        """Note that the stream has taken sound up to `end_s` that is not here."""
        if end_s > self._end_s + 1e-6:
            self._add(_PendingPart(self._end_s, end_s, self._num_bytes, None))
        self._num_bytes = num_bytes

    def _add(self, part: _PendingPart) -> None:
        last = self._waiting[-1] if self._waiting else None
        if part.data is None and last is not None and last.data is None:
            last.end_s = part.end_s
        else:
            self._waiting.append(part)
        if part.data is not None and not part.is_gap:
            self._waiting_s += part.end_s - part.start_s
        self._end_s, self._is_changed = part.end_s, True

    def asked(self, tag: str | None, cut: bool) -> None:
        """Note that a finalize was asked for."""
        self.progress.finalizes.append(OpenFinalize(tag, cut, self._end_s))
        self._is_changed = True

    def decoding(self, options: DecodingOptions) -> None:
        """Note that the stream decodes the sound from here on with other options."""
        self._decoding.change(self._end_s, options)
        self._set_options(replace(self._options, decoding=options))
        self._is_changed = True

    def _set_options(self, options: StreamOptions) -> None:
        self._options, self._plain = options, options.to_dict()
        self._format = StoredFormat(options.format, self._rate)

    @property
    def _num_channels(self) -> int:
        """Channels that are heard one by one; 0 for a mix."""
        options = self._options
        return options.format.channels if options.channel == "each" else 0

    def closed(self) -> None:
        """Note that no more sound comes."""
        self._is_closed = self._is_changed = True

    def note_event(self, event: Event) -> None:
        """Note an event that the client is told."""
        self.progress.add(event, self._num_channels)
        self._is_changed = True

    def ended(self) -> None:
        """Note that the last message exists: a process that goes on with it has nothing to hear."""
        self.progress.has_ended = self._is_changed = True

    def mark_changed(self) -> None:
        """Have the talk written again, even if nothing has changed."""
        self._is_changed = True

    # What is written.

    def snapshot(
        self, protocol: LiveProtocol, now: float, told_s: float, resume_s: float,
        state: bytes | None = None,
    ) -> Snapshot | None:  # fmt: skip
        """What there is to write now; None if nothing has changed, or the session cannot move.

        Args:
            protocol: of the talk.
            now: a clock in seconds.
            told_s: how much of the sound was heard and is told, or among the messages.
            resume_s: how long a client may stay away.
            state: of the stream, saved; if given, the stream does not go on here.
        """
        is_due = now - self._written_at > min(_HEARTBEAT_S, resume_s / 4)
        if not self._can_move or not (self._is_changed or is_due):
            return None
        if state is not None and len(state) > MAX_VALUE_BYTES:
            state = None
        from_s = max(self.progress.until_s(self._num_channels), told_s - MAX_HEARD_S, 0.0)
        first_s = keep_from(from_s)
        drop = self._left + self._drop_sound(first_s) + self._drop_messages(
            now - _TCP_GIVE_UP_S - resume_s
        )  # fmt: skip
        self._decoding.forget(keep_from(first_s))  # a stream may begin a little before its sound
        sound = self._take_sound(from_s)
        messages = self._take_messages(now)
        is_whole = self._is_closed and self._stored_s >= self._end_s - 1e-6
        head = Head(
            VERSION, self.identity, self._plain, dict(protocol.save()), self._history.count,
            self.progress.copy(), from_s, self._num_bytes if state else self._stored_bytes,
            is_whole, [name for name, _, _ in self._sounds], [name for name, _ in self._messages],
            state is not None,
            self.overlap.rest if state is not None and self.overlap is not None else None,
            self._decoding.earlier(),
        )  # fmt: skip
        self._left, self._is_changed, self._written_at = [], False, now
        return Snapshot(
            self.name, self.generation, head, sound, messages, drop, self._format, state
        )

    def committed(self, generation: int) -> None:
        """Note that the last snapshot is in the store, under this generation."""
        self.generation = generation
        self.newest_generation = max(generation, self.newest_generation)

    def invalidate(self, dropped: Iterable[str] = ()) -> None:
        """Note that the last snapshot may not be in the store, whose content is then unknown: what
        is written from now on needs nothing of it. Sound of that snapshot is let go.

        Args:
            dropped: names that the snapshot would have removed.
        """
        self._left += dropped
        self._left += [name for name, _, _ in self._sounds] + [name for name, _ in self._messages]
        self._sounds.clear()
        self._messages.clear()
        self._num_stored = max(0, self._history.count - len(self._history.after(0)))
        self._is_changed = True

    def restart(self) -> None:
        """Note that the store does not know the session: it is begun there again."""
        self.invalidate()
        self.generation, self._left = None, []

    def _new_name(self, kind: str) -> str:
        self._num_names += 1
        return f"{self.generation or 0:x}.{kind}{self._num_names}"

    def _drop_sound(self, until_s: float) -> list[str]:
        dropped: list[str] = []
        while self._sounds and self._sounds[0][2] <= until_s:
            dropped.append(self._sounds.popleft()[0])
        return dropped

    def _drop_messages(self, until: float) -> list[str]:
        dropped: list[str] = []
        while self._messages and self._messages[0][1] < until:
            dropped.append(self._messages.popleft()[0])
        return dropped

    def _take_messages(self, now: float) -> tuple[str, int, list[str | bytes]] | None:
        fresh = self._history.after(self._num_stored)
        if not fresh:
            return None
        name = self._new_name("m")
        first = self._history.count - len(fresh) + 1
        self._messages.append((name, now))
        self._num_stored = self._history.count
        return name, first, [one.data for one in fresh]

    def _take_sound(
        self, from_s: float
    ) -> tuple[str, float, int, list[tuple[float, SoundData]]] | None:
        """Take the sound that waits to be written, as far as it is to be kept."""
        waiting, limit_s = self._waiting, from_s + _MAX_UNHEARD_S
        while waiting and waiting[0].end_s <= keep_from(from_s):
            self._pop()
        parts: list[tuple[float, SoundData]] = []
        start_s, num_before = 0.0, 0
        while waiting and waiting[0].data is not None and waiting[0].start_s < limit_s:
            part = self._pop(limit_s)
            if part is None:
                break
            if not parts:
                start_s, num_before = part.start_s, part.num_before
            data = part.data
            assert data is not None
            parts.append((part.end_s - part.start_s, b"") if part.is_gap else (0.0, data))
            self._stored_s = part.end_s
            size = 0 if part.is_gap else len(data) * (1 if isinstance(data, bytes) else 4)
            self._stored_bytes = part.num_before + size
        if not parts:
            return None
        name = self._new_name("s")
        if self._sounds and abs(self._sounds[-1][2] - start_s) > 1e-6:  # sound was let go
            self._left += [one for one, _, _ in self._sounds]
            self._sounds.clear()
        self._sounds.append((name, start_s, self._stored_s))
        return name, start_s, num_before, parts

    def _pop(self, limit_s: float = float("inf")) -> _PendingPart | None:
        """Take the next part that waits, up to `limit_s` if it can be cut; None if that is none."""
        part, sound = self._waiting[0], self._format
        data = part.data
        if part.end_s <= limit_s or data is None or part.is_gap or not sound.width:
            return self._take_whole()
        unit = 1 if isinstance(data, bytes) else sound.width
        at = sound.cut(len(data) * unit, limit_s - part.start_s, part.num_before) // unit
        if not 0 < at < len(data):
            return self._take_whole() if at else None
        middle_s = part.start_s + at * unit / (sound.width * sound.rate)
        self._waiting[0] = _PendingPart(
            middle_s, part.end_s, part.num_before + at * unit, data[at:]
        )
        self._waiting_s -= middle_s - part.start_s
        return _PendingPart(part.start_s, middle_s, part.num_before, data[:at])

    def _take_whole(self) -> _PendingPart:
        part = self._waiting.popleft()
        if part.data is not None and not part.is_gap:
            self._waiting_s -= part.end_s - part.start_s
        return part
