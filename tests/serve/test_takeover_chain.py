"""Chains of processes that go on with one session: each hears for a while and is killed, most often
some time after its last write. The demo model hears; what was told must be the words of the whole.
"""

import random
from functools import cache

import numpy as np
import pytest

import kiku
from kiku.options import AudioFormat, StreamOptions
from kiku.serve.client_progress import Overlap
from kiku.serve.protocols.interface import Send
from kiku.serve.session_recorder import SessionRecorder
from kiku.serve.session_store import Claim
from kiku.text import Word
from tests.serve.clients import samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.own_client import bytes_of
from tests.serve.test_session_record import RATE, WHO, Kept, decoded

DELAY_S, FRAME_S = 0.56, 0.08
FORMAT = AudioFormat(encoding="s16le", sample_rate=RATE)


class Chain:
    """One session, and its client, who keeps the sound and says what it was told."""

    def __init__(self, demo: kiku.Recognizer, name: str, seed: int) -> None:
        samples = samples_of(EXAMPLES / name)
        self._data = bytes_of(np.tile(samples, 1 + round(14 * RATE / len(samples))))
        self._end_s, self._dice = len(self._data) / 2 / RATE, random.Random(seed)
        self.words_from = cache(
            lambda num_before: decoded(demo, FORMAT, self._data[num_before:], num_before / 2 / RATE)
        )
        self.num_takeovers = 0
        self.log: list[str] = []
        self._begin()

    def _begin(self) -> None:
        """Begin, or begin anew where nothing is known of the session."""
        self._kept = Kept(StreamOptions(format=FORMAT))
        self._num_pushed = 0
        self._heard, self._overlap = self.words_from(0), Overlap(self._kept.keeping.progress, 4.0)
        self.told: list[Word] = []

    def go(self) -> None:
        """Live and die, up to the end of the sound."""
        now = 0.0
        while now < self._end_s:
            until = min(self._end_s, now + self._dice.choice((0.3, 2.0, 5.0)) * self._dice.random())
            if self.num_takeovers == 8:
                until = self._end_s
            self._live(now, until)
            if until < self._end_s:
                self._take_over()
            now = until

    def _live(self, start_s: float, until: float) -> None:
        """Tell what is heard until then, and write about once a second."""
        is_last = until >= self._end_s
        writes = [start_s + self._dice.uniform(0.0, 0.3)]
        while writes[-1] < until:
            writes.append(writes[-1] + self._dice.choice((0.5, 1.0, 3.0)))
        for word in self._heard:
            told_at = max(start_s, word.end + DELAY_S)
            while writes[0] < min(told_at, until):
                self._write(writes.pop(0))
            if told_at > until and not is_last:
                break
            for one in self._overlap.of([word], 0.0):
                assert isinstance(one, Word)
                self._kept.keeping.note_event(one)
                self._kept.history.add(Send(one.text))
                self.told.append(one)
        while writes[0] < until:
            self._write(writes.pop(0))

    def _write(self, now: float) -> None:
        upto = 2 * round(min(now, self._end_s) / FRAME_S) * round(FRAME_S * RATE)
        if upto > self._num_pushed:
            self._kept.keeping.pushed(self._data[self._num_pushed : upto])
            self._num_pushed = upto
        self._kept.write(heard_s=now - FRAME_S)

    def _take_over(self) -> None:
        told_s = round(self.told[-1].end, 3) if self.told else 0.0
        kept = self._kept
        one = kept.move(len(self.told), told_s) if kept.values else None
        if one is None:  # nothing was stored yet of the sound
            return self._begin()
        overlap = one.overlap
        assert overlap is not None
        recorder = SessionRecorder(WHO, RATE, one.history)
        recorder.resumed(
            Claim(8, kept.values), one.progress, one.options, one.stored.decoding, one.start_s,
            one.num_before,
        )  # fmt: skip
        for _, data in one.parts:
            recorder.pushed(data)
        kept.keeping, kept.history = recorder, one.history
        self._num_pushed, self._overlap = one.num_bytes, overlap
        self._heard = self.words_from(one.num_before)
        self.num_takeovers += 1
        self.log.append(f"told {told_s}, begins {one.start_s:.2f}, taken {one.num_bytes / 48000}")


def check(demo: kiku.Recognizer, name: str, seeds: range) -> None:
    num_takeovers = 0
    for seed in seeds:
        chain = Chain(demo, name, seed)
        chain.go()
        wanted = [word.text for word in chain.words_from(0)]
        assert [word.text for word in chain.told] == wanted, (seed, chain.log)
        num_takeovers += chain.num_takeovers
    assert num_takeovers > 2 * len(seeds)


NAMES = ["answers.mp3", "directions.flac", "digits.wav"]


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_of_processes_tells_every_word_once(demo: kiku.Recognizer, name: str):
    check(demo, name, range(2))


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_many_chains_of_processes_tell_every_word_once(demo: kiku.Recognizer, name: str):
    check(demo, name, range(2, 60))
