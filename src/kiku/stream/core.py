"""One client's sound in, events out. No network, no device, no clock: whoever has those drives it.

A stream owns what concerns one client: the silence before and after its sound, the delay of its
text, its time, its words and turns, and what is to be done to its slot. `Recognizer.step` takes its
frames, does what is `due`, and gives back what the engine said.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kiku.audio import Ear, Framer
from kiku.config import TAIL_S, ModelConfig
from kiku.errors import KikuError, StreamClosed, StreamError
from kiku.stream.care import Care, Carer, Refresh, Reread
from kiku.stream.events import (
    End,
    Event,
    Finalized,
    Pause,
    Warning,
    WordEnd,
    event_from_dict,
    event_to_dict,
)
from kiku.stream.flush import Flush
from kiku.stream.telling import Teller, words_to_lists
from kiku.text import (
    Timing,
    TurnFrame,
    TurnPolicy,
    Turns,
    Vocabulary,
    Word,
    WordBuilder,
)

_LEVELS = 64
"""Frames whose loudness is kept for a flush: 5 s."""

PAUSE_HEAD = 2
"""The head of a pause of 2 s, which Kyutai's own services go by."""


Due = Refresh | Reread | Flush
"""What may have to be done in a stream's slot before its next frame."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a stream is to say, and how it is to be kept."""

    turns: TurnPolicy | None = None
    """When a pause ends a turn; None says nothing of turns."""
    partials: bool = False
    """Say also what has been written of a word that is still open."""
    pauses: bool = False
    """Say after every frame what the pause heads say, where the model has them."""
    care: Care = field(default_factory=Care)


class Stream:
    """Push sound of any length at any time; pull events when there are some.

    Words come in the order they were spoken, each once, never revised. After `close` the remaining
    words come, then one `End`. It is not for several threads at once.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        wishes: Wishes | None = None,
        *,
        padded: bool = True,
    ) -> None:
        """A stream that nobody has stepped yet; `Recognizer.open` makes one that is.

        Args:
            config: of the model that will listen.
            vocabulary: its text tokens.
            wishes: what it is to say; None is words alone.
            padded: put the model's silence before the sound and let its delay run out after it.
                Without, the model hears exactly what is pushed (whole frames of it).
        """
        self._config, self._vocabulary = config, vocabulary
        self._wishes = wishes = wishes or Wishes()
        self._padded = padded
        self.ear = Ear(config.sample_rate)
        """Its `hear`, `silence` and `duration` may be used by one thread while another steps."""
        self._framer = Framer(config.frame_size)
        self._prefix_s = config.silence_prefix_s if padded else 0.0
        timing = Timing(config.frame_rate, config.text_delay_s, self._prefix_s)
        self._words = Teller(
            WordBuilder(
                vocabulary, timing, pad_id=config.pad_id, word_start_id=config.word_start_id
            )
        )
        self._care = Carer(
            wishes.care,
            frame_rate=config.frame_rate,
            delay_s=config.text_delay_s,
            window=config.lm.transformer.window,
        )
        self._turns = (
            None
            if wishes.turns is None
            else Turns(wishes.turns, frame_rate=config.frame_rate, delay_s=config.text_delay_s)
        )
        self._events: deque[Event] = deque()
        self._flushes: deque[Flush] = deque()
        self._action: Refresh | Reread | None = None
        self._num_frames = 0  # taken, of which all but those of the step under way were heard
        self._levels: deque[float] = deque(maxlen=_LEVELS)  # dBFS of the last frames taken
        self._turn_time = self._warned_at = 0.0
        self._late: list[Word] = []  # given out since the last frame, which turns do not know yet
        self._complaints: deque[Warning] = deque()  # of sound that has not been heard yet
        self._trace: TracebackType | None = None
        self._closed = self._done = False
        self._failure: Exception | None = None
        self._silence(self._prefix_s)

    def _silence(self, seconds: float) -> None:
        self._framer.push(np.zeros(int(seconds * self._config.sample_rate), np.float32))

    # What a client does.

    def push(
        self,
        samples: ArrayLike | bytes,
        *,
        rate: int | None = None,
        encoding: str | None = None,
        channel: int | None = None,
        channels: int = 1,
        channels_axis: int | None = None,
    ) -> None:
        """Give the stream some sound.

        Args:
            samples: [S] mono, any length, or [S, C] or [C, S], as `kiku.audio.as_mono` takes them;
                or bytes.
            rate: samples per second; None means the model's (24,000).
            encoding: of bytes; see `kiku.audio.Ear.hear`.
            channel: listen to this one alone; None mixes them.
            channels: in bytes, how many are interleaved.
            channels_axis: where the channels lie in an array; None guesses it from the shape, which
                needs more than eight samples.

        Raises:
            StreamClosed: after `close`.
            AudioError: the rate, the encoding or the samples cannot be. Nothing of them is taken.
        """
        self.check_open()
        self.add(
            self.ear.hear(
                samples,
                rate=rate,
                encoding=encoding,
                channel=channel,
                channels=channels,
                channels_axis=channels_axis,
            )
        )

    def push_silence(self, seconds: float) -> None:
        """Sound is missing: a packet was lost, or the client was muted.

        Raises:
            StreamClosed: after `close`.
            AudioError: no time that can be.
        """
        self.check_open()
        self.add(self.ear.silence(seconds))

    def finalize(self, *, cut: bool = False) -> None:
        """Have all words that were begun until now, without ending the talk.

        The delay of the text is let run out at full speed, with silence in the place of the sound
        that has not come, and then taken back. `Finalized` comes after the words.

        Args:
            cut: give out the last word as well if it seems to be still spoken. It is then not given
                out again, however it goes on.

        Raises:
            StreamClosed: after `close`.
        """
        self.check_open()
        self.add_flush(self.ear.tail(), self.ear.duration, cut=cut)

    def close(self) -> None:
        """Say that no more sound comes. What is still inside becomes words; calling it again
        changes nothing."""
        if not self._closed:
            self.add_end(self.ear.flush())

    def cut(self) -> None:
        """End at once: what waits to be stepped is dropped; the open word and `End` come out."""
        self._closed = True
        self._framer.take(self._framer.num_ready)
        self._flushes.clear()
        self._action = None
        self.settle()

    def events(self) -> list[Event]:
        """What has come since the last call, oldest first.

        Raises:
            Exception: what the engine failed with, once all events before have been given out.
        """
        if not self._events:
            self.check_alive()
        events = list(self._events)
        self._events.clear()
        return events

    def next_event(self) -> Event | None:
        """The oldest of them alone; None if there is none. Raises as `events`."""
        if not self._events:
            self.check_alive()
        return self._events.popleft() if self._events else None

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        return self.ear.duration

    @property
    def num_events(self) -> int:
        """Events that wait to be fetched."""
        return len(self._events)

    @property
    def done(self) -> bool:
        """Whether nothing more will come: the last frame was stepped and `End` is out, or the
        engine failed."""
        return self._done

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait to be stepped, in whole frames."""
        return self._framer.num_ready / self._config.frame_rate

    # The halves of the above for who converts sound in one thread and steps in another.

    def check_open(self) -> None:
        """Raise StreamClosed if no more sound may come, or the engine's failure if it failed."""
        self.check_alive()
        if self._closed:
            raise StreamClosed("sound was pushed after close(); open another stream")

    def check_alive(self) -> None:
        """Raise the engine's failure if it failed."""
        if self._failure is not None:
            raise self._failure.with_traceback(self._trace)

    def add(self, mono: NDArray[np.float32]) -> None:
        """Take what the ear gave."""
        self._framer.push(mono)
        # They are told when the decoder has come so far, however the sound was cut.
        self._complaints += [Warning(c.kind, c.message, c.at) for c in self.ear.complaints()]

    def _warn(self, warning: Warning) -> None:
        self._warned_at = max(self._warned_at, warning.time)
        self._events.append(replace(warning, time=self._warned_at))

    def add_flush(self, tail: NDArray[np.float32], time: float, *, cut: bool) -> None:
        """Take a request to finalize: what the ear still holds, and where the sound is."""
        waiting, num_ready = self._framer.peek(), self._framer.num_ready
        rest = np.concatenate([waiting[num_ready * self._config.frame_size :], tail])
        at = self._num_frames + num_ready
        self._flushes.append(Flush(at, rest, time, cut=cut, config=self._config))

    def add_end(self, tail: NDArray[np.float32]) -> None:
        """Take the last of the sound."""
        self._closed = True
        self.add(tail)
        if self._padded:
            self._framer.pad()
            frames = math.ceil((self._config.text_delay_s + TAIL_S) * self._config.frame_rate)
            self._framer.push(np.zeros(frames * self._config.frame_size, np.float32))

    # What the recognizer does.

    @property
    def due(self) -> Due | None:
        """What is to be done in the slot before the next frame; see `refreshed`, `reread` and
        `flushed`."""
        if self._action is not None:
            return self._action
        if self._flushes and self._flushes[0].at == self._num_frames:
            return self._flushes[0]
        return None

    @property
    def num_waiting(self) -> int:
        """Whole frames that wait to be stepped."""
        return self._framer.num_ready

    @property
    def num_ready(self) -> int:
        """Whole frames that wait to be stepped, and may be in one step."""
        if self._action is not None:
            return 0
        limits = [self._framer.num_ready]
        if self._flushes:
            limits.append(self._flushes[0].at - self._num_frames)
        if (to_check := self._care.frames_to_check) is not None:
            limits.append(to_check)
        return min(limits)

    def take(self, num_frames: int) -> NDArray[np.float32]:
        """The next `num_frames` frames, [T, frame_size]: for the recognizer."""
        frames = self._framer.take(num_frames)
        self._num_frames += num_frames
        self._levels.extend(levels_of(frames))
        return frames

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        pauses: NDArray[np.float32] | None = None,
    ) -> None:
        """What the engine said after the frames taken last.

        Args:
            tokens: [T] one for each frame; the one that an engine gives before any frame is taken
                by `begin`.
            logprobs: [T] theirs.
            pauses: [T, E] where the model has pause heads.
        """
        if self._done:  # it was cut while the engine was at work
            return
        first = len(self._levels) - len(tokens)
        for i, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            heads = None if pauses is None else tuple(pauses[i].tolist())
            self._hear(int(token), float(logprob), self._levels[first + i], heads)
        self._action = self._care.decide(word_open=self._words.undecided, seconds=self._now)

    def begin(self, token: int, logprob: float) -> None:
        """What the engine said before the first frame."""
        self._give(self._words.read(token, logprob, latest=math.inf))

    def _hear(
        self, token: int, logprob: float, level: float, heads: tuple[float, ...] | None
    ) -> None:
        """Take what was said after one frame."""
        told = self._give(self._words.read(token, logprob, latest=self._latest))
        is_text = self._vocabulary.is_text(token)
        partial = self._words.partial
        if self._wishes.partials and is_text and partial is not None:
            self._events.append(partial)
        pause = None if heads is None else heads[min(PAUSE_HEAD, len(heads) - 1)]
        self._care.hear(text=is_text, level_db=level, pause=pause)
        now = self._now
        if now <= 0:
            return  # the silence before the sound
        while self._complaints and self._complaints[0].time <= now:
            self._warn(self._complaints.popleft())
        if self._wishes.pauses and heads is not None:
            self._events.append(Pause(now, heads))
        if self._turns is not None:
            self._turn_time = max(self._turn_time, now)  # a flush may have been ahead
            self._events += self._turns.push(
                TurnFrame(self._turn_time, heads, level, [*self._late, *told], partial is not None)
            )
        self._late = []

    @property
    def _now(self) -> float:
        """Seconds of sound of which the engine has spoken."""
        heard = self._words.num_tokens - 1
        now = heard / self._config.frame_rate - self._prefix_s
        return min(now, self.duration) if self._closed else now

    @property
    def _latest(self) -> float:
        """Where a word may end: the text of the last ones may lag past the end of the sound."""
        return self.duration if self._closed else math.inf

    def _give(self, words: list[Word]) -> list[Word]:
        """Say these words."""
        for word in words:
            self._events += [word, WordEnd(word.end)]
            self._care.told(word.text, word.start)
        return words

    def refreshed(self, action: Refresh) -> None:
        """The decoder has forgotten what it was to forget."""
        if self._action is action:
            self._care.done(action, action.frames)
            self._action = None

    def reread(self, action: Reread, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """The decoder has listened again, and said this to the last frames.

        What had been given out stands: it is not given out again.
        """
        if self._action is not action:
            return
        self._action = None
        self._warn(Warning(action.kind, action.message, max(0.0, self._now)))
        self._late += self._give(self._words.read_again(tokens, logprobs))
        self._care.done(action, len(tokens))

    def flushed(self, flush: Flush) -> None:
        """The flush that was due has been read to its end, and the slot is back where it stood."""
        if not self._flushes or self._flushes[0] is not flush:
            return
        self._flushes.popleft()
        words, open_word = flush.result(self._levels)
        told, open_word = self._words.looked_ahead(words, open_word, latest=flush.time)
        self._give(told)
        if self._turns is not None:
            self._turn_time = max(self._turn_time, flush.time)
            self._events += self._turns.finalized(flush.time, told)
        self._events.append(Finalized(flush.time, open_word))

    def begin_flush(self, flush: Flush) -> None:
        """The flush that is due begins now."""
        flush.begin(self._words.fork())

    def settle(self) -> None:
        """Give out the last word and `End` once the stream is closed and all its frames are
        stepped."""
        if self._closed and not self._done and not self._framer.num_ready and self.due is None:
            told = [*self._late, *self._give(self._words.finish(latest=self._latest))]
            while self._complaints:
                self._warn(self._complaints.popleft())
            if self._turns is not None:
                if told:
                    self._events += self._turns.finalized(self._now, told)
                self._events += self._turns.finish(max(0.0, self._now))
            self._events.append(End(self.duration))
            self._done = True

    def save(self) -> dict[str, Any]:
        """All that it remembers but its slot, in plain values, arrays and bytes (see `pack`);
        nothing may be `due`."""
        return {
            "config": self._config.to_dict(),
            "padded": self._padded,
            "ear": self.ear.save(),
            "waiting": self._framer.peek(),
            "words": self._words.save(),
            "care": self._care.save(),
            "turns": None if self._turns is None else self._turns.save(),
            "flushes": [flush.save() for flush in self._flushes],
            "num_frames": self._num_frames,
            "levels": list(self._levels),
            "times": [self._turn_time, self._warned_at],
            "late": words_to_lists(self._late),
            "complaints": [event_to_dict(complaint) for complaint in self._complaints],
            "closed": self._closed,
            "events": [event_to_dict(event) for event in self._events],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `save` was called; on a fresh stream for the same model.

        Turns are taken up where they were if both streams tell them.

        Raises:
            StreamError: the state is of another model, or damaged.
        """
        try:
            if ModelConfig.from_dict(saved["config"]) != self._config:
                raise StreamError(
                    "the stream was saved with another model: load the one that it was saved with"
                )
            self._padded = bool(saved["padded"])
            self.ear = Ear.restore(saved["ear"])
            self._framer = Framer(self._config.frame_size)
            self._framer.push(np.asarray(saved["waiting"], np.float32))
            self._words.restore(saved["words"])
            self._care.restore(saved["care"])
            if self._turns is not None and saved["turns"] is not None:
                self._turns.restore(saved["turns"])
            self._flushes = deque(Flush.restored(one, self._config) for one in saved["flushes"])
            self._num_frames = int(saved["num_frames"])
            self._levels = deque(map(float, saved["levels"]), _LEVELS)
            self._turn_time, self._warned_at = map(float, saved["times"])
            self._late = [Word(*word) for word in saved["late"]]
            for complaint in saved["complaints"]:
                warning = event_from_dict(complaint)
                assert isinstance(warning, Warning)
                self._complaints.append(warning)
            self._closed = bool(saved["closed"])
            self._events = deque(map(event_from_dict, saved["events"]))
        except (KeyError, TypeError, ValueError, KikuError) as error:
            if isinstance(error, StreamError):
                raise
            raise StreamError(
                f"the saved stream is damaged ({error!r}); open a fresh stream"
            ) from error

    def fail(self, error: Exception) -> None:
        """The engine has failed: nothing more will come. `events` gives out what has, then raises
        `error`."""
        if not self._done:
            self._give(self._words.finish(latest=self._latest))  # what was heard is not lost
            self._failure, self._trace, self._done = error, error.__traceback__, True

    @property
    def failure(self) -> Exception | None:
        """What the engine failed with."""
        return self._failure


def levels_of(frames: NDArray[np.float32]) -> list[float]:
    """[T, frame_size] -> loudness of each frame, dBFS; silence is -100."""
    power = np.einsum("ts,ts->t", frames, frames) / frames.shape[1]
    return (10 * np.log10(np.maximum(power, 1e-10))).tolist()
