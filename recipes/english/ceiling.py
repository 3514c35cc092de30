"""The best word errors to expect of a reader that is trained on the recordings here.

The reader gets the states of the whole teacher, which sees all of the sound, and only learns to
spell them. A causal trunk of the gate has less information, so it cannot be expected to do better.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.evaluate.aligning import word_errors
from kiku.text import Vocabulary
from recipes.demo.corpus import SAMPLE_RATE, Corpus, Recording
from recipes.demo.precision import lowered
from recipes.english.gate import text_of
from recipes.english.rows import together
from recipes.english.states import TeacherStates

_BATCH = 5_000
"""States of a batch, 40 ms each, including the padding of short rows."""
_LR = 1.5e-3
_WARMUP = 100
"""Steps of the warm-up."""
_HIDDEN = 8
"""States that one mask hides at most; there is one mask for every 100 states, and one more."""


@dataclass(frozen=True, slots=True)
class States:
    """The teacher's states of one recording.

    Attributes:
        states: bfloat16 [L, D], the last ones, 25 a second, in units of their spread.
        words: the words that are spoken.
        speaker: who speaks.
    """

    states: Tensor
    words: tuple[str, ...]
    speaker: str = ""


class Reader(nn.Module):
    """Scores of pieces for states: two convolutions, which see seven of them (0.28 s), and a linear
    map."""

    def __init__(self, dim: int, vocab_size: int, width: int = 512) -> None:
        """Random weights; `dim` is that of a state, `width` that of the layers in between."""
        super().__init__()
        self.near = nn.Conv1d(dim, width, 5, padding=2)
        self.next = nn.Conv1d(width, width, 3, padding=1)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, states: Tensor) -> Tensor:
        """[B, L, D] -> scores [B, L, vocabulary]"""
        near = F.dropout(F.gelu(self.near(states.transpose(1, 2))), 0.2, self.training)
        near = near + F.gelu(self.next(near))
        return self.head(F.dropout(near.transpose(1, 2), 0.3, self.training))


def examples_of(kept: TeacherStates, recordings: Sequence[Recording]) -> list[States]:
    """Those recordings that have words and states, sorted by length."""
    known = [one for one in recordings if one.words and one.begin in kept.spans]
    return [
        States((kept.of(one)[:, -1] / kept.spread[-1]).bfloat16(), one.words, one.speaker)
        for one in sorted(known, key=lambda one: one.seconds)
    ]


def first_hours(corpus: Corpus, hours: float) -> list[Recording]:
    """The recordings within the first `hours` of a corpus."""
    return [one for one in corpus.recordings if one.end <= hours * 3600 * SAMPLE_RATE]


def learn(
    reader: Reader, examples: Sequence[States], vocabulary: Vocabulary, *, rounds: int
) -> Iterator[float]:
    """Train a reader on the teacher's states; gives the CTC loss per piece after each round.

    A round goes once through all recordings.
    """
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=_LR, weight_decay=0.01)
    step, steps = 0, 0
    for _ in range(rounds):
        reader.train()
        batches = _batches(examples, rng)
        steps = steps or rounds * len(batches)
        total, count = 0.0, 0
        for batch in batches:
            warm = min(1.0, (step + 1) / _WARMUP)
            share = min(1.0, step / steps)
            optimizer.param_groups[0]["lr"] = _LR * warm * 0.5 * (1 + math.cos(math.pi * share))
            loss, pieces = _loss(reader, batch, vocabulary, rng)
            optimizer.zero_grad()
            (loss / pieces).backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            step, total, count = step + 1, total + float(loss.detach()), count + pieces
        yield total / count


def _batches(examples: Sequence[States], rng: np.random.Generator) -> list[list[States]]:
    """Batches of all recordings once, of similar length each, in random order."""
    lengths = np.array([len(one.states) for one in examples])
    order = np.argsort(lengths * np.exp(0.1 * rng.standard_normal(len(examples))))
    ordered = [examples[index] for index in order.tolist()]
    batches = list(together(ordered, lengths[order].tolist(), _BATCH))
    return [batches[index] for index in rng.permutation(len(batches)).tolist()]


def _loss(
    reader: Reader, batch: Sequence[States], vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[Tensor, int]:
    """The summed CTC loss of a batch, and its number of pieces."""
    states = F.dropout(_rows(batch), 0.1)
    for row, one in enumerate(batch):
        for _ in range(1 + len(one.states) // 100):
            begin = int(rng.integers(max(1, len(one.states) - _HIDDEN)))
            states[row, begin : begin + int(rng.integers(_HIDDEN + 1))] = 0.0
    spelled = [vocabulary.encode(" ".join(one.words)) for one in batch]
    counts = torch.tensor([len(one) for one in spelled])
    with lowered():
        scores = reader(states)
    loss = F.ctc_loss(
        scores.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([piece for one in spelled for piece in one]),
        torch.tensor([len(one.states) for one in batch]),
        counts, reduction="sum", zero_infinity=True,
    )  # fmt: skip
    return loss, int(counts.sum())


def _rows(batch: Sequence[States]) -> Tensor:
    """The states of a batch, [B, L, D] float32, padded with zeros."""
    return nn.utils.rnn.pad_sequence([one.states.float() for one in batch], batch_first=True)


@torch.no_grad()
def scores_of(reader: Reader, examples: Sequence[States]) -> Iterator[tuple[States, Tensor]]:
    """Each recording with its scores [L, vocabulary]."""
    reader.eval()
    for some in together(examples, [len(one.states) for one in examples], _BATCH):
        with lowered():
            every = reader(_rows(some))
        for row, one in zip(every, some, strict=True):
            yield one, row[: len(one.states)]


def word_errors_of(
    reader: Reader, groups: Mapping[str, Sequence[States]], vocabulary: Vocabulary
) -> dict[str, float]:
    """Word error rates by group, decoded from the best piece of each state."""
    found: dict[str, float] = {}
    for name, examples in groups.items():
        wrong = total = 0
        for one, scores in scores_of(reader, examples):
            text = text_of(scores.argmax(-1), vocabulary)
            wrong += word_errors(one.words, text.split())
            total += len(one.words)
        found[name] = wrong / total
    return found
