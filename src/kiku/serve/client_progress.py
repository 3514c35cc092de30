"""What the client of a stream has been told, and which events of a second stream of the same sound
it therefore knows already."""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from kiku.audio import StreamWarning
from kiku.stream import (
    End,
    Event,
    Finalized,
    Pause,
    WordEnd,
)
from kiku.stream.emitter import EmittedWords
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word

Channel = int | None

_SAME_S = 1e-3
"""Seconds; times that differ by less are the same."""

_SLACK_S = 0.02
"""Seconds by which the middle of a known word may lie behind the last told end: a quarter of a
frame. A word of two frames that is heard again one frame later has its middle at that end, give or
take a rounding; of a new word, which begins there, the middle is half a frame later at least."""

_AGAIN_S = 0.1
"""Seconds by which a word that is heard again may end earlier than it did: a frame, and a
rounding."""

_NUM_RECENT = 32
"""Words of a channel that are kept, at most: those that a second stream may hear again."""

ToldWord = tuple[str, float, float]
"""Text, start and end."""


class OpenFinalize(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A finalize that was asked for and not answered, or not by all channels."""

    tag: str | None
    cut: bool
    time: float = math.inf
    """Where in the sound it was asked for, if that is known."""
    answered: tuple[int, ...] = ()
    """Channels that have answered, where they are heard one by one."""


class ClientProgress(msgspec.Struct, forbid_unknown_fields=True):
    """How far the client has been told what was heard; times are the session's."""

    words: dict[str, float] = {}
    """The end of each channel's last word; "" is the one channel of a mix."""
    paused_s: float = 0.0
    """The time of the last `Pause`."""
    warned_s: float = 0.0
    """The time of the last warning."""
    turns: dict[str, str] = {}
    """Of each channel whose turn is open: "open", or "eager" after a `TurnEndEager`."""
    finalizes: list[OpenFinalize] = []
    """Finalizes that were asked for and not answered, in order."""
    has_ended: bool = False
    """Whether the session's last message exists."""
    recent: dict[str, list[ToldWord]] = {}
    """The last words of each channel."""
    confirmed_s: float = 0.0
    """The client says that it had all events up to here; 0 if it did not say so."""
    open_end_s: float = 0.0
    """Where a word ends that the client says it has had, and whose `WordEnd` was not told since: it
    may have been lost. 0 if there is none."""
    again_from_s: float | None = None
    """Where the stream begins that hears the sound of such a word again, for what comes with it:
    the beginning of a turn. None once that has been heard, or if there is no such word."""

    def add(self, event: Event, num_channels: int = 0) -> None:
        """Note an event that the client is told; `num_channels` is 0 for a mix."""
        match event:
            case Word():
                key = _key(event.channel)
                if event.end > self.words.get(key, 0.0):
                    self.words[key], self.again_from_s = event.end, None
                recent = [*self.recent.get(key, ()), (event.text, event.start, event.end)]
                self.recent[key] = recent[-_NUM_RECENT:]
            case WordEnd():
                self.open_end_s = 0.0
            case Pause():
                self.paused_s = event.time
            case StreamWarning():
                self.warned_s = event.time
            case TurnStart() | TurnResumed():
                self.turns[_key(event.channel)] = "open"
            case TurnEndEager():
                self.turns[_key(event.channel)] = "eager"
            case TurnEnd():
                self.turns.pop(_key(event.channel), None)
                if event.time > self.confirmed_s:
                    self.again_from_s = None
            case Finalized():
                self._answer(event, num_channels)
            case _:
                pass

    def _answer(self, event: Finalized, num_channels: int) -> None:
        """Note the answer to a finalize. Several may have the same tag, and each channel answers
        them in order."""
        for i, one in enumerate(self.finalizes):
            if one.tag != event.tag or event.channel in one.answered:
                continue
            channel = () if event.channel is None else (event.channel,)
            answered = (*one.answered, *channel)
            is_open = len(answered) < num_channels
            left = [msgspec.structs.replace(one, answered=answered)] if is_open else []
            self.finalizes[i : i + 1] = left
            return

    def confirm(self, word_end_s: float, *, knows_events: bool) -> None:
        """Note that the client of a mix says that it has had a word that ends there: then it has
        had what came before that word, too.

        Args:
            word_end_s: seconds.
            knows_events: whether events other than words have times in its protocol, and are
                left out by them.
        """
        if word_end_s > self.words.get("", 0.0):
            self.words[""] = self.open_end_s = word_end_s
        # A word that ends after the place of a finalize is told after its answer.
        self.finalizes = [one for one in self.finalizes if not one.time < word_end_s - _SAME_S]
        if knows_events:
            self.confirmed_s = max(self.confirmed_s, word_end_s)

    def until_s(self, num_channels: int) -> float:
        """The time up to which every channel's words were told, with what comes with them;
        `num_channels` is 0 for a mix."""
        if self.again_from_s is not None:
            return self.again_from_s
        keys = [_key(i) for i in range(num_channels)] or [_key(None)]
        return min(self.words.get(key, 0.0) for key in keys)

    def copy(self) -> "ClientProgress":
        """A copy, which does not change with this."""
        return ClientProgress(
            dict(self.words), self.paused_s, self.warned_s, dict(self.turns), list(self.finalizes),
            self.has_ended, dict(self.recent), self.confirmed_s, self.open_end_s,
            self.again_from_s,
        )  # fmt: skip


class Overlap:
    """Leaves out of a stream's events those that an earlier stream of the same sound gave already.

    The second stream begins a little before or after the last word that was told. It may hear that
    word again, or its end, and it knows nothing of a turn that is open. A word that is known by its
    text is recognised a little earlier or later, too, as a finalize's words are; one that was told
    after the last write is known only by the time up to which the client was told.
    """

    def __init__(
        self, progress: ClientProgress, longest_s: float, start_s: float = 0.0,
        first: Sequence[Event] = (),
    ) -> None:  # fmt: skip
        """Leave out what `progress` has.

        Args:
            progress: the client's.
            longest_s: a turn ends at the latest so long after its last word.
            start_s: where the second stream begins: of words before that it can hear the end alone.
            first: events to tell before all others, whatever is known.
        """
        self._progress, self._longest_s, self._first = progress.copy(), longest_s, list(first)
        self._known = {
            key: EmittedWords(
                Word(text, start, end, 1.0)
                for text, start, end in words if (start + end) / 2 >= start_s
            )
            for key, words in progress.recent.items()
        }  # fmt: skip
        self._answers = [  # of channels whose answers are known
            (one.tag, channel) for one in progress.finalizes for channel in one.answered
        ]
        self._skips_end = False  # whether the last word was left out
        self._word_end_s = 0.0  # where the second stream's last word ends
        self._turns = dict(progress.turns)  # those that this stream has not heard begin

    @property
    def rest(self) -> ClientProgress:
        """What a stream that goes on exactly from the second one has still to leave out."""
        rest = self._progress.copy()
        rest.turns = dict(self._turns)
        rest.finalizes = [
            OpenFinalize(tag, True, answered=(channel,)) for tag, channel in self._answers
        ]
        rest.recent = {
            key: [(word.text, word.start, word.end) for word in known.words]
            for key, known in self._known.items()
        }
        return rest

    def of(
        self, events: Iterable[Event], heard_s: float, note: Callable[[Event], None] | None = None
    ) -> list[Event]:
        """Those of these events that are to be told.

        Args:
            events: of the second stream.
            heard_s: how many seconds were heard.
            note: is called with each event that the client says it has had, though nothing says
                that it was told: a third stream must know of a turn that is open.
        """
        found, self._first = self._first, []
        for event in events:
            for one in self._of(event):
                if not self._is_confirmed(one):
                    found.append(one)
                elif note is not None:
                    note(one)
        for key in list(self._turns):
            if heard_s > self._progress.words.get(key, 0.0) + self._longest_s:
                found.append(self._end_turn(key, heard_s))
        return found

    def _of(self, event: Event) -> Sequence[Event]:
        progress = self._progress
        match event:
            case Word():
                self._word_end_s = event.end
                self._skips_end = self._is_known(event)
                return [] if self._skips_end else [event]
            case WordEnd():
                return [] if self._skips_end else [event]
            case Partial():
                return [] if event.start < self._end(event.channel) else [event]
            case Pause():
                return [] if event.time <= progress.paused_s + _SAME_S else [event]
            case StreamWarning():
                return [] if event.time <= progress.warned_s + _SAME_S else [event]
            case TurnStart():
                known = self._turns.pop(_key(event.channel), None)
                if known == "eager":
                    return [TurnResumed(event.time, event.channel)]
                return [] if known == "open" else [event]
            case Finalized(_, _, tag, int(channel)) if (tag, channel) in self._answers:
                self._answers.remove((tag, channel))
                return []
            case End():
                return [*(self._end_turn(key, event.duration) for key in list(self._turns)), event]
            case _:
                return [event]

    def _is_confirmed(self, event: Event) -> bool:
        """Whether the client has had this event, as it has had a later word. A turn usually begins
        in a message before its first word, as the word is still being written, but it may begin in
        one behind it: if that word is the last that the client has had, the message may have been
        lost."""
        confirmed_s = self._progress.confirmed_s
        match event:
            case TurnStart() | TurnResumed() if self._word_end_s > confirmed_s - _AGAIN_S:
                return False
            case (
                Pause() | StreamWarning() | TurnStart() | TurnEndEager() | TurnResumed() | TurnEnd()
            ):
                return event.time < confirmed_s - _SAME_S
            case _:
                return False

    def _is_known(self, word: Word) -> bool:
        known = self._known.get(_key(word.channel))
        if known and known.take(word):
            return True
        return (word.start + word.end) / 2 <= self._end(word.channel) + _SLACK_S

    def _end(self, channel: Channel) -> float:
        return self._progress.words.get(_key(channel), 0.0)

    def _end_turn(self, key: str, time: float) -> TurnEnd:
        """The end of a turn in which nothing more was said."""
        self._turns.pop(key)
        return TurnEnd(time, 1.0, int(key) if key else None)


def _key(channel: Channel) -> str:
    return "" if channel is None else str(channel)
