"""Batches of rows of one or several sentences, with about the same amount of sound in each batch.

The sound is changed in another way each time it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kiku.text import Vocabulary
from kiku.text.extension import trained
from kiku.train.augment import Augmentation, Augmenter
from kiku.train.sounds import SpokenPiece
from kiku.writing import in_place_of
from recipes.demo.corpus import SAMPLE_RATE, Corpus, Recording
from recipes.english.trunk import STATE

Source = tuple[Corpus, Recording]
Row = tuple[int, ...]
"""Numbers of the recordings that are joined one after the other."""

TAIL = 15
"""States of silence after the last word (0.6 s): a network that cannot look ahead writes late."""
_SECONDS = (0.4, 20.0)
_ROW_S = 6.0
"""Seconds of a row in which shorter recordings are joined: real speech is rarely single words."""
_SPREAD = 0.15
"""Spread of the random factors of rows' lengths by which rows are sorted into batches: rows of a
batch have similar lengths, so there is little padding, but batches are not the same every time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sound and its text.

    Attributes:
        pcm: float32 [B, S], S a multiple of 960.
        lengths: int64 [B], number of states (of 40 ms) of each row.
        pieces: int64 [all pieces of all rows], never 0.
        counts: int64 [B], number of pieces of each row.
    """

    pcm: Tensor
    lengths: Tensor
    pieces: Tensor
    counts: Tensor


def make_vocabulary(texts: Sequence[str], size: int, folder: Path) -> Vocabulary:
    """The vocabulary, trained once on `texts` and kept in `folder`."""
    path = folder / f"vocabulary-{size}.model"
    if not path.exists():
        with in_place_of(path) as part:
            part.write_bytes(trained(texts, size=size, kind="unigram").source)
    return Vocabulary.load(path)


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
    ) -> None:
        """Use those recordings that have words and last 0.4 to 20 s.

        Args:
            sources: recordings to choose from.
            vocabulary: see `make_vocabulary`; its id 0 is in no text, and is CTC's blank.
            batch_s: seconds of a batch, including padding.
            noise: a folder of recordings; None for white noise.
            rooms: a folder of impulse responses; None for none.
            seed: another one gives other batches.
        """
        low, high = _SECONDS
        self.sources = [one for one in sources if low <= one[1].seconds <= high and one[1].words]
        self.vocabulary, self.batch_s, self.seed = vocabulary, batch_s, seed
        self.augmenter = Augmenter(
            Augmentation(
                speed=(0.88, 1.12), gain_db=(-14.0, 6.0), noisy=0.5, snr_db=(5.0, 35.0),
                noise=str(noise or ""), rooms=str(rooms or ""), in_rooms=0.2, telephone=0.05,
                silence_s=(0.02, 0.3),
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
        """Rows of all recordings once, short ones joined, in random order."""
        rows: list[Row] = []
        open_row: list[int] = []
        for index in rng.permutation(len(self.sources)).tolist():
            if open_row and self.row_s((*open_row, index)) > _ROW_S:
                rows.append(tuple(open_row))
                open_row = []
            open_row.append(index)
        return [*rows, tuple(open_row)] if open_row else rows

    def row_s(self, row: Row) -> float:
        """Seconds of a row, before silences and changes of speed."""
        return sum(self.sources[index][1].seconds for index in row) + TAIL * STATE / SAMPLE_RATE

    def _made(self, rows: Sequence[Row], rng: np.random.Generator) -> Batch:
        sounds: list[np.ndarray] = []
        spelled: list[list[int]] = []
        for row in rows:
            sources = [self.sources[index] for index in row]
            pieces = [
                self.augmenter.changed(SpokenPiece(corpus.audio(recording), ()), rng)
                for corpus, recording in sources
            ]
            whole = self.augmenter.joined(pieces, rng)
            late = SpokenPiece(with_tail(whole.samples), ())
            sounds.append(self.augmenter.surrounded(late, rng).samples)
            words = [word for _, recording in sources for word in recording.words]
            spelled.append(self.vocabulary.encode(" ".join(words)))
        pcm, lengths = side_by_side(sounds)
        counts = torch.tensor([len(one) for one in spelled])
        return Batch(pcm, lengths, torch.tensor([p for one in spelled for p in one]), counts)


def with_tail(samples: np.ndarray) -> np.ndarray:
    """Samples [S] and the silence after them, in which the last word is written."""
    return np.concatenate([samples, np.zeros(TAIL * STATE, np.float32)])


def side_by_side(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Samples [S] of several rows -> [B, S], padded with silence, and the states of each [B]."""
    lengths = [-(-len(row) // STATE) for row in rows]
    pcm = np.zeros((len(rows), max(lengths) * STATE), np.float32)
    for place, row in zip(pcm, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(pcm), torch.tensor(lengths)
