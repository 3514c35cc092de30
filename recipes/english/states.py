"""The teacher's states of recordings, computed once and kept in a file: a second target."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kiku.writing import in_place_of
from recipes.demo.corpus import Corpus, Recording
from recipes.demo.precision import lowered
from recipes.english.ablation import TeacherEncoder, Without
from recipes.english.rows import SECONDS, side_by_side, together, with_tail
from recipes.english.trunk import READER_LAYERS, WhisperMel, trunk_config

LAYERS = tuple(trunk_config().num_layers + more for more in (READER_LAYERS // 2, READER_LAYERS))
"""The states that are kept: those after so many of the teacher's layers, from which a trunk's
reader is half-way, and at its end."""
_BATCH_S = 80.0
"""Seconds of sound that the teacher encodes at once."""
_FEWEST = 200
"""Recordings that a mean over recordings at one place needs; later places get the mean of the last
one that has them."""


class TeacherStates:
    """The states of a corpus, 25 a second; recordings without any are not in `spans`."""

    def __init__(self, folder: Path, means: Path | None = None) -> None:
        """Open the files that `build_states` wrote to `folder`; with the means of another, larger
        corpus if its folder is given."""
        self.spans: dict[int, tuple[int, int]] = {
            begin: (first, count) for begin, first, count in np.load(folder / "spans.npy").tolist()
        }
        """The first state and their number, by a recording's first sample."""
        kept = torch.load((means or folder) / "means.pt", weights_only=True)
        self.offsets: Tensor = kept["offsets"]
        """float32 [places, layers, D]: what is only due to the place in the recording."""
        self.centre: Tensor = kept["centre"]
        """float32 [layers, D], the mean of all states."""
        self.spread: Tensor = kept["spread"]
        """float32 [layers, D], the root mean square of what is left around the means."""
        layers, dim = self.centre.shape
        flat = np.memmap(folder / "states.bf16", dtype=np.int16, mode="r")
        self._states = flat.reshape(-1, layers, dim)

    def of(self, recording: Recording) -> Tensor:
        """float32 [L, layers, D], without what is only due to the place in the recording."""
        first, count = self.spans[recording.begin]
        kept = torch.from_numpy(self._states[first : first + count].copy()).view(torch.bfloat16)
        at = torch.arange(count).clamp(max=len(self.offsets) - 1)
        return kept.float() - self.offsets[at]


@torch.no_grad()
def build_states(
    teacher: TeacherEncoder,
    corpus: Corpus,
    recordings: Sequence[Recording],
    folder: Path,
    means: Path | None = None,
) -> TeacherStates:
    """Encode recordings of a suitable length into `folder`, once; `means` as in `TeacherStates`."""
    if (folder / "spans.npy").exists():
        return TeacherStates(folder, means)
    folder.mkdir(parents=True, exist_ok=True)
    spans: list[tuple[int, int, int]] = []
    first = 0
    found = _Means()
    with in_place_of(folder / "states.bf16") as part, part.open("wb") as out:
        for recording, states in _encoded(teacher, corpus, recordings):
            out.write(states.bfloat16().view(torch.int16).numpy().tobytes())
            spans.append((recording.begin, first, len(states)))
            first += len(states)
            found.add(states)
    torch.save(found.means(), folder / "means.pt")
    with in_place_of(folder / "spans.npy") as part, part.open("wb") as out:
        np.save(out, np.array(spans, np.int64))
    return TeacherStates(folder, means)


def _encoded(
    teacher: TeacherEncoder, corpus: Corpus, recordings: Sequence[Recording]
) -> Iterator[tuple[Recording, Tensor]]:
    """Recordings and their states [L, layers, D], short ones first."""
    low, high = SECONDS
    fitting = sorted((one for one in recordings if low <= one.seconds <= high),
                     key=lambda one: one.seconds)  # fmt: skip
    mel = WhisperMel()
    for some in together(fitting, [one.seconds for one in fitting], _BATCH_S):
        pcm, lengths = side_by_side([with_tail(corpus.audio(one)) for one in some])
        with lowered():
            every = teacher.every(mel(pcm), lengths, Without(pairs=False))
        kept = torch.stack([every[layer - 1].float() for layer in LAYERS], 2)
        pairs = kept[:, : kept.shape[1] // 2 * 2].unflatten(1, (-1, 2)).mean(2)
        for one, row, length in zip(some, pairs, lengths.tolist(), strict=True):
            yield one, row[:length]


class _Means:
    """Means over recordings at each place, and what is left around them."""

    def __init__(self) -> None:
        self.counts = self.sums = self.squares = torch.zeros(0)

    def add(self, states: Tensor) -> None:
        """Count one recording's states [L, layers, D] in."""
        more = len(states) - len(self.counts)
        if more > 0:
            shape = (more, *states.shape[1:])
            self.counts = torch.cat([self.counts, torch.zeros(more)])
            self.sums, self.squares = (
                torch.cat([one, torch.zeros(shape)]) if len(one) else torch.zeros(shape)
                for one in (self.sums, self.squares)
            )
        self.counts[: len(states)] += 1
        self.sums[: len(states)] += states
        self.squares[: len(states)] += states.square()

    def means(self) -> dict[str, Tensor]:
        """See `TeacherStates`."""
        enough = max(1, int((self.counts >= min(_FEWEST, self.counts.max())).sum()))
        each = self.counts[:, None, None]
        means = (self.sums / each)[:enough]
        at = torch.arange(len(self.counts)).clamp(max=enough - 1)
        left = self.squares - 2 * self.sums * means[at] + each * means[at].square()
        centre = self.sums.sum(0) / self.counts.sum()
        spread = (left.sum(0) / self.counts.sum()).sqrt()
        return {"offsets": means - centre, "centre": centre, "spread": spread}
