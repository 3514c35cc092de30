"""Batches of rows of one or several sentences, with about the same amount of sound in each batch.

The sound is changed in another way each time it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kiku.text import Vocabulary
from kiku.text.extension import trained
from kiku.train.augment import Augmentation, Augmenter
from kiku.train.sounds import SpokenPiece
from kiku.writing import in_place_of
from recipes.demo.corpus import SAMPLE_RATE, Corpus, Recording
from recipes.english.rows import SECONDS, TAIL, side_by_side, with_tail
from recipes.english.states import TeacherStates
from recipes.english.trunk import STATE

Row = tuple[int, ...]
"""Numbers of the recordings that are joined one after the other."""

_ROW_S = 6.0
"""Seconds of a row in which shorter recordings are joined: real speech is rarely single words."""
_GAP = (1, 8)
"""Least number, and limit, of the states of silence between recordings that keep their speed."""
_SPREAD = 0.15
"""Spread of the random factors of rows' lengths by which rows are sorted into batches: rows of a
batch have similar lengths, so there is little padding, but batches are not the same every time."""


class Source(NamedTuple):
    """A recording, and the teacher's states of its corpus, if there are any."""

    corpus: Corpus
    recording: Recording
    teacher: TeacherStates | None = None

    @property
    def known(self) -> bool:
        """Whether there are states of this recording."""
        return self.teacher is not None and self.recording.begin in self.teacher.spans


@dataclass(frozen=True, slots=True)
class Batch:
    """Sound and its text.

    Attributes:
        pcm: float32 [B, S], S a multiple of 960.
        lengths: int64 [B], number of states (of 40 ms) of each row.
        pieces: int64 [all pieces of all rows], never 0.
        counts: int64 [B], number of pieces of each row; 0 for a row without text.
        taught: bool [B, L], where the teacher's states are known.
        wanted: bfloat16 [as many as there are in `taught`, layers, D], these states.
    """

    pcm: Tensor
    lengths: Tensor
    pieces: Tensor
    counts: Tensor
    taught: Tensor
    wanted: Tensor


def make_vocabulary(texts: Sequence[str], size: int, folder: Path) -> Vocabulary:
    """The vocabulary, trained once on `texts` and kept in `folder`."""
    path = _vocabulary(folder, size)
    if not path.exists():
        with in_place_of(path) as part:
            part.write_bytes(trained(texts, size=size, kind="unigram").source)
    return Vocabulary.load(path)


def bring_vocabulary(origin: Path, folder: Path, size: int) -> None:
    """Copy the vocabulary that lies in another folder, if there is one: weights that learned its
    pieces are of no use with others."""
    found, path = _vocabulary(origin, size), _vocabulary(folder, size)
    if found.exists() and found != path:
        folder.mkdir(parents=True, exist_ok=True)
        with in_place_of(path) as part:
            part.write_bytes(found.read_bytes())


def _vocabulary(folder: Path, size: int) -> Path:
    return folder / f"vocabulary-{size}.model"


class Sentences:
    """The batch of every step; it depends only on the seed and the step."""

    def __init__(
        self,
        sources: Sequence[Source],
        vocabulary: Vocabulary,
        *,
        batch_s: float,
        noise: Path | None,
        rooms: Path | None,
        seed: int = 0,
        still: float = 0.5,
    ) -> None:
        """Use those recordings that last 0.4 to 20 s and have words or states of the teacher.

        Args:
            sources: recordings to choose from.
            vocabulary: see `make_vocabulary`; its id 0 is in no text, and is CTC's blank.
            batch_s: seconds of a batch, including padding.
            noise: a folder of recordings; None for white noise.
            rooms: a folder of impulse responses; None for none.
            seed: another one gives other batches.
            still: share of the rows with words that keep their speed, if the teacher's states are
                known. Rows without words always do.
        """
        low, high = SECONDS
        self.sources = [
            one for one in sources
            if low <= one.recording.seconds <= high and (one.recording.words or one.known)
        ]  # fmt: skip
        self.vocabulary, self.batch_s, self.seed, self.still = vocabulary, batch_s, seed, still
        self.augmenter = Augmenter(
            Augmentation(
                speed=(0.88, 1.12), gain_db=(-14.0, 6.0), noisy=0.5, snr_db=(5.0, 35.0),
                noise=str(noise or ""), rooms=str(rooms or ""), in_rooms=0.2, telephone=0.05,
                coded=0.0, silence_s=(0.02, 0.3),
            ),
            SAMPLE_RATE,
        )  # fmt: skip
        self._round: tuple[int, list[list[Row]]] = (-1, [])
        self.per_round = len(self._batches(0))

    def __call__(self, step: int) -> Batch:
        """The batch of a step.

        Rounds differ by a batch or two: the last batch of a round may be left out, or its first
        batch may come again.
        """
        number, place = divmod(step, self.per_round)
        batches = self._batches(number)
        rng = np.random.default_rng([self.seed, 2, step])
        return self._made(batches[place % len(batches)], rng)

    def _batches(self, number: int) -> list[list[Row]]:
        """Batches of a round, once through all recordings: rows of similar length, random order."""
        if self._round[0] == number:
            return self._round[1]
        rng = np.random.default_rng([self.seed, 1, number])
        rows = self._rows(rng)
        seconds = np.array([self.row_s(row) for row in rows])
        order = np.argsort(seconds * np.exp(_SPREAD * rng.standard_normal(len(seconds))))
        batches: list[list[Row]] = [[]]
        longest = 0.0
        for index in order.tolist():
            longest = max(longest, seconds[index])
            if longest * (len(batches[-1]) + 1) > self.batch_s and batches[-1]:
                batches.append([])
                longest = seconds[index]
            batches[-1].append(rows[index])
        batches = [batches[i] for i in rng.permutation(len(batches))]
        self._round = (number, batches)
        return batches

    def _rows(self, rng: np.random.Generator) -> list[Row]:
        """Rows of all recordings once, short ones joined, in random order.

        Recordings with words and without words do not share a row.
        """
        rows: list[Row] = []
        for told in (True, False):
            open_row: list[int] = []
            for index in rng.permutation(len(self.sources)).tolist():
                if bool(self.sources[index].recording.words) is not told:
                    continue
                if open_row and self.row_s((*open_row, index)) > _ROW_S:
                    rows.append(tuple(open_row))
                    open_row = []
                open_row.append(index)
            if open_row:
                rows.append(tuple(open_row))
        return rows

    def row_s(self, row: Row) -> float:
        """Seconds of a row, before silences and changes of speed."""
        return (
            sum(self.sources[index].recording.seconds for index in row) + TAIL * STATE / SAMPLE_RATE
        )

    def _made(self, rows: Sequence[Row], rng: np.random.Generator) -> Batch:
        sounds: list[np.ndarray] = []
        spelled: list[list[int]] = []
        taught: list[Taught] = []
        for number, row in enumerate(rows):
            sources = [self.sources[index] for index in row]
            words = [word for one in sources for word in one.recording.words]
            spelled.append(self.vocabulary.encode(" ".join(words)))
            keeps = rng.random() < self.still or not words
            if keeps and any(one.known for one in sources):
                samples, states = _unhurried(sources, rng)
                taught += [(number, at, some) for at, some in states]
            else:
                samples = self._hurried(sources, rng)
            sounds.append(self.augmenter.surrounded(SpokenPiece(samples, ()), rng).samples)
        pcm, lengths = side_by_side(sounds)
        counts = torch.tensor([len(one) for one in spelled])
        pieces = torch.tensor([p for one in spelled for p in one])
        known = torch.zeros(len(rows), pcm.shape[1] // STATE, dtype=torch.bool)
        for number, at, some in taught:
            known[number, at : at + len(some)] = True
        wanted = torch.cat([some for _, _, some in taught]) if taught else torch.zeros(0)
        return Batch(pcm, lengths, pieces, counts, known, wanted.bfloat16())

    def _hurried(self, sources: Sequence[Source], rng: np.random.Generator) -> np.ndarray:
        """Recordings one after the other, each at another speed; samples [S]."""
        pieces = [
            self.augmenter.changed(SpokenPiece(one.corpus.audio(one.recording), ()), rng)
            for one in sources
        ]
        return with_tail(self.augmenter.joined(pieces, rng).samples)


Taught = tuple[int, int, Tensor]
"""Number of a row, a place in it, and the states [N, layers, D] that are wanted from there on."""


def _unhurried(
    sources: Sequence[Source], rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, Tensor]]]:
    """Recordings one after the other, each from a whole state on; and where states are wanted."""
    at = int(rng.integers(*_GAP))
    parts = [np.zeros(at * STATE, np.float32)]
    wanted: list[tuple[int, Tensor]] = []
    for number, one in enumerate(sources, start=1):
        samples = one.corpus.audio(one.recording)
        gap = TAIL if number == len(sources) else int(rng.integers(*_GAP))
        length = -(-len(samples) // STATE) + gap
        parts.append(np.pad(samples, (0, length * STATE - len(samples))))
        if one.teacher is not None and one.known:
            wanted.append((at, one.teacher.of(one.recording)[:length]))
        at += length
    return np.concatenate(parts), wanted
