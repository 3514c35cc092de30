"""One client's sound in, words out. No network, no device, no clock: whoever has those drives it.

A stream owns what concerns one client: the silence before and after its sound, the delay of its
text, its time and its words. Its frames are taken by `Recognizer.step`, which gives back the
tokens.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kiku.audio import Framer, Resampler, as_mono
from kiku.config import TAIL_S, ModelConfig
from kiku.errors import AudioError, StreamClosed
from kiku.text import Timing, Vocabulary, Word, WordBuilder


@dataclass(frozen=True, slots=True)
class End:
    """Nothing will come after this."""

    duration: float
    """Seconds of sound that were pushed."""


Event = Word | End


class Stream:
    """Push sound of any length at any time; pull events when there are some.

    Words come in the order they were spoken, each once, never revised. After `close` the remaining
    words come, then one `End`.
    """

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, *, padded: bool = True) -> None:
        """A stream that nobody has stepped yet; `Recognizer.stream` makes one that is.

        Args:
            config: of the model that will listen.
            vocabulary: its text tokens.
            padded: put the model's silence before the sound and let its delay run out after it.
                Without, the model hears exactly what is pushed (whole frames of it).
        """
        self._config = config
        self._padded = padded
        self._framer = Framer(config.frame_size)
        self._resampler: Resampler | None = None
        self._rate = config.sample_rate
        prefix_s = config.silence_prefix_s if padded else 0.0
        timing = Timing(config.frame_rate, config.text_delay_s, prefix_s)
        self._words = WordBuilder(
            vocabulary, timing, pad_id=config.pad_id, word_start_id=config.word_start_id
        )
        self._events: deque[Event] = deque()
        self._num_samples = 0
        self._closed = False
        self._done = False
        self._silence(prefix_s)

    def _silence(self, seconds: float) -> None:
        self._framer.push(np.zeros(int(seconds * self._config.sample_rate), np.float32))

    def push(
        self, samples: ArrayLike, *, rate: int | None = None, channels_axis: int | None = None
    ) -> None:
        """Give the stream some sound.

        Args:
            samples: [S] mono, any length; or [S, C] or [C, S], down-mixed. Float in [-1, 1], or
                integers of full scale.
            rate: samples per second; None means the model's (24,000). One stream keeps one rate.
            channels_axis: where the channels lie; None guesses it from the shape, which needs more
                than eight samples.

        Raises:
            StreamClosed: after `close`.
            AudioError: the rate cannot be or changed, or the samples are not finite numbers.
                Nothing of them is taken.
        """
        if self._closed:
            raise StreamClosed("sound was pushed after close(); open another stream")
        mono = as_mono(samples, channels_axis=channels_axis)
        rate = self._config.sample_rate if rate is None else rate
        if self._num_samples == 0 and mono.size:
            if rate != self._config.sample_rate:
                self._resampler = Resampler(rate, self._config.sample_rate)
            self._rate = rate
        elif rate != self._rate and mono.size:
            raise AudioError(
                f"the stream's rate is {self._rate} Hz, now {rate} Hz came; "
                "open one stream per rate"
            )
        self._num_samples += mono.size
        self._framer.push(mono if self._resampler is None else self._resampler.push(mono))

    def close(self) -> None:
        """Say that no more sound comes. What is still inside becomes words; calling it again
        changes nothing."""
        if self._closed:
            return
        self._closed = True
        if self._resampler is not None:
            self._framer.push(self._resampler.flush())
        if self._padded:
            self._framer.pad()
            frames = math.ceil((self._config.text_delay_s + TAIL_S) * self._config.frame_rate)
            self._framer.push(np.zeros(frames * self._config.frame_size, np.float32))

    @property
    def duration(self) -> float:
        """Seconds of sound pushed so far."""
        return self._num_samples / self._rate

    @property
    def num_ready(self) -> int:
        """Whole frames that wait to be stepped."""
        return self._framer.num_ready

    @property
    def done(self) -> bool:
        """Whether the last frame was stepped and `End` is out."""
        return self._done

    def take(self, num_frames: int) -> NDArray[np.float32]:
        """The next `num_frames` frames, [T, frame_size]: for the recognizer."""
        return self._framer.take(num_frames)

    def accept(self, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """The tokens that follow the frames taken, and their log-probabilities: for the
        recognizer."""
        for token, logprob in zip(tokens, logprobs, strict=True):
            self._emit(self._words.push(int(token), float(logprob)))

    def settle(self) -> None:
        """Give out the last word and `End` once the stream is closed and all its frames are
        stepped."""
        if self._closed and not self._done and self.num_ready == 0:
            self._emit(self._words.finish())
            self._events.append(End(self.duration))
            self._done = True

    def cut(self) -> None:
        """End at once: what waits to be stepped is dropped; the open word and `End` come out."""
        self._closed = True
        self._framer.take(self._framer.num_ready)
        self.settle()

    def _emit(self, words: list[Word]) -> None:
        for word in words:
            if self._closed:  # the text of the last words may lag past the end of the sound
                word = replace(
                    word, start=min(word.start, self.duration), end=min(word.end, self.duration)
                )
            self._events.append(word)

    def events(self) -> list[Event]:
        """What has come since the last call, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events
