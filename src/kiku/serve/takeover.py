"""How this process goes on with a session that another process has kept.

A saved stream goes on exactly. Without one, a new stream begins at a quiet place after the last
word that the client was told (or before that word, if there is none), and hears the stored sound
from there; its times are the session's, and events that the client knows already are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kiku.audio.chunk import MAX_GAP_S
from kiku.live import AsyncStream
from kiku.options import DecodingOptions, StreamOptions, TurnPolicy
from kiku.serve.client_progress import ClientProgress, OpenFinalize, Overlap
from kiku.serve.message_history import MAX_MESSAGES, MessageHistory
from kiku.serve.session_record import SoundPiece, StoredSession
from kiku.serve.session_sound import Part, StoredFormat, first_quiet_after, keep_from
from kiku.serve.session_store import Claim
from kiku.stream import Event, WordEnd

MAX_AHEAD_S = 3_600.0
"""Seconds by which the last word that a client has had may end after all that is stored: no store
is out of reach for longer while its sessions go on. Silence up to there is pushed."""


@dataclass(frozen=True, slots=True)
class ReturningClient:
    """What a client who comes back says of itself."""

    num_received: int
    """Number of messages that it has had."""
    last_word_end_s: float | None = None
    """Where the last word that it has had ends, in seconds, if it says so."""
    knows_events: bool = False
    """See `LiveProtocol.tells_times`."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """What is to be done to go on with a session."""

    claim: Claim
    stored: StoredSession
    history: MessageHistory
    client: ReturningClient
    progress: ClientProgress
    options: StreamOptions
    """Options of the stream to be opened, which decodes as it was done where its sound begins."""
    state: bytes | None
    """Saved state to open the stream with, if any; the sound below is then only kept, not heard."""
    start_s: float
    num_before: int
    """Bytes of the client's sound before `start_s`."""
    parts: Sequence[Part]
    """The sound from `start_s` on."""
    model_rate: int
    """Samples a second."""
    frame_size: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the client's sound that were taken: the client goes on after them."""
        if self.state is not None:
            return self.stored.head.num_bytes
        return self.num_before + sum(len(data) for _, data in self.parts)

    @property
    def sound(self) -> StoredFormat:
        """The format of the parts."""
        return StoredFormat(self.options.format, self.model_rate)

    @property
    def session_options(self) -> StreamOptions:
        """Options of the session, with the decoding that its client has asked for last."""
        return replace(self.options, decoding=self.stored.decoding.latest)

    @property
    def changes(self) -> Sequence[tuple[float, DecodingOptions]]:
        """Changes of decoding that the new stream is asked for again: where in the sound, and to
        which options. A saved stream knows its own."""
        return [] if self.state is not None else self.stored.decoding.after(self.start_s)

    @property
    def finalizes(self) -> Sequence[OpenFinalize]:
        """Finalizes that the new stream is asked for again; a saved stream knows its own."""
        return [] if self.state is not None else self.progress.finalizes

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to hear: the client is only sent what it has missed."""
        return self.progress.has_ended

    @property
    def end_s(self) -> float:
        """The time up to which sound is stored, or needed no more."""
        return max(self.stored.end_s, self.stored.head.from_s)

    @property
    def is_closed(self) -> bool:
        """Whether the client has said that no more sound comes, and all of it is here."""
        is_whole = bool(self.parts) or self.start_s >= self.stored.end_s
        return self.stored.head.is_closed and self.state is None and is_whole

    @property
    def overlap(self) -> Overlap | None:
        """The filter that leaves out events that the client knows; None if none come again."""
        longest_s = (self.options.turn_policy or TurnPolicy()).longest_s
        if self.state is None:
            return Overlap(self.progress, longest_s, self.start_s, self._first)
        known = self.stored.head.known
        return None if known is None else Overlap(known, longest_s, first=self._first)

    @property
    def _first(self) -> Sequence[Event]:
        """The end of the last word that the client says it has had: it comes in a message of its
        own, which may have been lost. If it was not, it comes twice."""
        end_s = self.progress.open_end_s
        return [WordEnd(end_s)] if end_s > 0 and self.client.knows_events else []

    def without_state(self) -> "Takeover | None":
        """The same with the stored sound alone, without the saved stream."""
        stored = replace(self.stored, state=None)
        return plan_takeover(self.claim, stored, self.client, self.model_rate, self.frame_size)


async def push_gap(stream: AsyncStream, seconds: float) -> None:
    """Push silence of any length."""
    while seconds > 0:
        part_s = min(seconds, MAX_GAP_S)
        await stream.push_silence(part_s)
        seconds -= part_s


def plan_takeover(
    claim: Claim, stored: StoredSession, client: ReturningClient, model_rate: int, frame_size: int
) -> Takeover | None:
    """How to go on with a session; None if that cannot be done.

    Args:
        claim: of the session.
        stored: what the store had of it.
        client: the one who wants to go on.
        model_rate: samples a second.
        frame_size: of the model, in samples.
    """
    head, num_received, word_end_s = stored.head, client.num_received, client.last_word_end_s
    ahead = num_received - head.count
    history = MessageHistory(stored.messages, head.count)
    if ahead > MAX_MESSAGES or not (ahead > 0 or history.has_all_after(num_received)):
        return None
    if word_end_s is not None and word_end_s > max(stored.end_s, head.from_s) + MAX_AHEAD_S:
        return None  # no word can end there
    progress, options = head.progress.copy(), stored.options
    if ahead > 0 and word_end_s is not None and stored.state is None and options.channel != "each":
        # The client was told more than was stored, and says up to which word: go by that then, and
        # not by the number of messages.
        progress.confirm(word_end_s, knows_events=client.knows_events)
        history = MessageHistory((), num_received)
    sound = StoredFormat(options.format, model_rate)
    if stored.state is not None:
        first = stored.pieces[0] if stored.pieces else None
        start_s = stored.end_s if first is None else first.start_s
        parts = [part for piece in stored.pieces for part in piece.parts]
        num_before = head.num_bytes if first is None else first.num_before
    else:
        start_s, num_before, parts = _sound_from_quiet(stored, sound, frame_size / model_rate)
        if progress.open_end_s or progress.again_from_s is not None:
            progress.again_from_s = start_s
        if not parts and start_s <= 0 and not progress.has_ended:
            return None  # there is nothing to go on with
        options = replace(options, start_s=start_s, decoding=stored.decoding.at(start_s))
    return Takeover(
        claim, stored, history, client, progress, options, stored.state, start_s, num_before,
        parts, model_rate, frame_size,
    )  # fmt: skip


def _sound_from_quiet(
    stored: StoredSession, sound: StoredFormat, frame_s: float
) -> tuple[float, int, list[Part]]:
    """The stored sound from a quiet place after `time`, its `from_s`: where it begins, bytes before
    it, and its parts. It begins with a frame of the session, so that the frames stay the same.

    Without a quiet place it begins a second before `time`: the last word is then heard as a whole
    and recognised as known, where its rest alone would be another word. If the stored sound begins
    after `time` or ends before it, there are no parts: the client is to send the sound, from a
    second before `time` for the same reason. Where an earlier stream began at `time`, so does this
    one.
    """
    time = stored.head.from_s
    first_s = stored.pieces[0].start_s if stored.pieces else 0.0
    if not (stored.pieces and first_s <= time + 1e-6 and time < stored.end_s):
        count = round(int(keep_from(time) / frame_s) * frame_s * sound.rate)
        return count / sound.rate, count * sound.width, []
    start_s = time
    if time > 0 and stored.head.progress.again_from_s != time:
        around_s, _, around = _from(stored.pieces, sound, keep_from(time))
        quiet_s = first_quiet_after(sound.heard(around), sound.model_rate, around_s, time)
        start_s = keep_from(time) if quiet_s is None else quiet_s
    return _from(stored.pieces, sound, max(first_s, round(start_s / frame_s) * frame_s))


def _from(
    pieces: Sequence[SoundPiece], sound: StoredFormat, time: float
) -> tuple[float, int, list[Part]]:
    """The sound from `time` on, or a sample later; if all of it is later, from its beginning."""
    found: list[Part] = []
    now, num_bytes = pieces[0].start_s, pieces[0].num_before
    start_s, num_before = now, num_bytes
    for gap_s, data in (part for piece in pieces for part in piece.parts):
        end_s = now + (gap_s or sound.seconds(data))
        if found:
            found.append((gap_s, data))
        elif end_s > time:
            at = 0 if gap_s else sound.cut(len(data), time - now, num_bytes)
            start_s = now + (max(0.0, time - now) if gap_s else sound.seconds(data[:at]))
            num_before = num_bytes + at
            if gap_s or at < len(data):
                found.append((end_s - start_s, b"") if gap_s else (0.0, data[at:]))
        if not found:
            start_s, num_before = end_s, num_bytes + len(data)
        now, num_bytes = end_s, num_bytes + len(data)
    return start_s, num_before, found
