"""One recording on its way through its slots: `RecordingTask`, and what has come of it so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kiku.audio import ChannelChanges, Chunk, StreamWarning
from kiku.errors import AudioError
from kiku.scheduler import Member, Opening
from kiku.stream import End, WordSession
from kiku.text import Word
from kiku.transcription.sound import RecordingSound
from kiku.transcription.transcript import Transcript, by_time

MakeMembers = Callable[[int], Sequence[Member]]
"""Makes the sessions for a recording with this number of channels, and what their slots need."""

_ENOUGH_S = 5.0
"""Seconds of sound that are kept waiting for the engine: as many as one step takes."""


@dataclass(eq=False)
class PartialTranscript:
    """What was said in a recording so far; it grows while the recording is transcribed."""

    words: list[Word] = field(default_factory=list[Word])
    """In the order in which they were decided."""
    warnings: list[StreamWarning] = field(default_factory=list[StreamWarning])
    duration: float = 0.0
    """Seconds of sound heard."""
    problem: AudioError | None = None
    """Why the sound stopped before its end."""
    failure: BaseException | None = None
    """What ended the transcription before the sound did."""
    done: bool = False
    """Whether nothing more will come."""

    def take_events(self, sessions: Sequence[WordSession], end_s: float) -> None:
        """Take over the events and the state of a recording's sessions.

        Args:
            sessions: one, or one for each channel.
            end_s: second of the sound at which transcription ends.
        """
        self.duration = min(sessions[0].duration, end_s)
        found: list[Word] = []
        for session in sessions:
            while session.events:
                match session.next_event():
                    case Word() as word:
                        found.append(word)
                    case StreamWarning() as warning:
                        self.warnings.append(warning)
                    case End(duration):
                        self.duration = min(duration, end_s)
                    case _:
                        pass
        if len(sessions) > 1:  # in the order of time, as far as they came together
            found.sort(key=lambda word: word.start)
        self.words += found
        self.failure = self.failure or next(
            (one.failure for one in sessions if one.failure is not None), None
        )
        self.done = self.failure is not None or all(one.done for one in sessions)

    def fail(self, error: BaseException) -> None:
        """End here: nothing more will come, because of this error."""
        self.failure, self.done = error, True

    def transcript(self, model: str) -> Transcript:
        """All this as a `Transcript`, by the model of this name."""
        words = sorted(self.words, key=by_time)
        problem = self.failure if isinstance(self.failure, Exception) else self.problem
        found = sorted(self.warnings, key=lambda warning: warning.time)
        return Transcript(tuple(words), self.duration, tuple(found), problem, model)


@dataclass(eq=False)
class RecordingTask:
    """One recording on its way through its slots: its sound goes in as it is needed, its words come
    out as they are decided."""

    sound: RecordingSound
    make_members: MakeMembers
    so_far: PartialTranscript = field(default_factory=PartialTranscript)
    sessions: list[WordSession] = field(default_factory=list[WordSession], init=False)
    """One, or one for each channel; none before `begin`."""
    opening: Opening | None = field(default=None, init=False)
    """The request for slots; None before `begin`."""
    num_channels: int = field(default=0, init=False)
    """Channels of the sound; 0 before any of it was read."""
    _first: Chunk | None = field(default=None, init=False)
    _changes: ChannelChanges | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)

    def begin(self) -> Opening:
        """Read the first chunk, make the sessions, and ask for their slots. How long these may wait
        is for the caller to say; here there is no limit."""
        self._first = self._next()
        self.num_channels = 0 if self._first is None else self._first.num_channels
        num_channels = self.num_channels or 1
        members = self.make_members(num_channels)
        self.sessions = [member.session for member in members]  # pyright: ignore[reportAttributeAccessIssue]
        # A channel that is missing from the beginning is refused when its session converts it.
        channels = [one.input.channel for one in self.sessions]
        if all(isinstance(channel, int) and channel < num_channels for channel in channels):
            self._changes = ChannelChanges(num_channels)
        self.opening = Opening(members, timeout=None)
        return self.opening

    def _next(self) -> Chunk | None:
        """The next chunk; None at the end of the sound, or where it breaks off."""
        try:
            return self.sound.next()
        except AudioError as error:
            if not self.sessions or self.sessions[0].duration == 0:
                raise
            self.so_far.problem = error
            return None

    @property
    def needs_sound(self) -> bool:
        """Whether less sound waits than one step takes, and there may be more."""
        first = self.sessions[0]
        return not (self._ended or first.has_ended) and first.waiting_s < _ENOUGH_S

    def feed(self) -> None:
        """Push sound until enough waits or it ends."""
        while self.needs_sound:
            chunk, self._first = self._first or self._next(), None
            for session in self.sessions:
                if chunk is None:
                    session.close()
                else:
                    session.push(self._for(session, chunk))
            self._ended = chunk is None

    def _for(self, session: WordSession, chunk: Chunk) -> Chunk:
        """What a session is to hear of the next chunk: all of it, or its own channel."""
        channel = session.input.channel
        if self._changes is None or channel == "mix":
            return chunk
        hears_all = len(self.sessions) == self._changes.num_channels
        is_missing = channel >= chunk.num_channels
        if session is self.sessions[0] and (is_missing or hears_all):
            warning = self._changes.look(chunk, self.sound.read_s - chunk.seconds)
            self.so_far.warnings += [] if warning is None else [warning]
        return chunk.of_channel(channel)

    @property
    def has_news(self) -> bool:
        """Whether `collect` would find something, or more sound is needed."""
        sessions = self.sessions
        has_events = any(one.events or one.failure is not None for one in sessions)
        # One channel may be done while others still have to be stepped.
        return has_events or self.needs_sound or all(one.done for one in sessions)

    def collect(self) -> None:
        """Take over what the sessions have given out."""
        self.so_far.take_events(self.sessions, self.sound.end_s)
