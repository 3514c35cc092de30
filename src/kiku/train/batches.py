# pyright: basic
# What torch gives is only partly typed.
"""Batches by number: which examples a batch holds depends only on the seed and its number."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.errors import TrainingError
from kiku.train.columns import NOTHING, UNKNOWN
from kiku.train.shards import PackReader

_BUCKET = 32
"""Number of batches whose examples are sorted by length together: a batch then has little padding,
and each epoch still has other batches."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Several examples; padding after a shorter one has no effect on the losses."""

    codes: Tensor  # [B, K, T] int64
    text: Tensor  # [B, T] int64
    pauses: Tensor  # [B, T, 4] int64
    numbers: tuple[int, ...]
    """Numbers of the examples in the pack."""
    keep: Tensor | None = None  # [B] bool
    """Which examples are marked "keep"; None if none is."""
    sound: Tensor | None = None  # [B, T * frame_size] float32
    """The sound that the codes were made of, then silence; None if it was not asked for."""

    @property
    def num_frames(self) -> int:
        """Number of frames without padding."""
        return int((self.codes[:, 0] != NOTHING).sum())

    def to(self, device: str | torch.device) -> "TrainingBatch":
        """The same batch on another device."""
        codes, text, pauses = (one.to(device) for one in (self.codes, self.text, self.pauses))
        keep, sound = (None if one is None else one.to(device) for one in (self.keep, self.sound))
        return TrainingBatch(codes, text, pauses, self.numbers, keep, sound)


class Batches:
    """Batches of a pack, by number."""

    def __init__(self, reader: PackReader, size: int, seed: int, *, sound: bool = False) -> None:
        """Give each batch `size` examples, with their sound if `sound` is True.

        Raises:
            TrainingError: the pack holds no example of the reader's split.
        """
        if not len(reader):
            raise TrainingError(
                f"{reader.folder} has no examples of the split {reader.split!r}: give rows this "
                "split in the manifest"
            )
        self.reader, self.size, self.seed, self.sound = reader, size, seed, sound
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    @cached_property
    def per_epoch(self) -> int:
        """How many batches hold every example once; the last may be smaller."""
        return -(-len(self.reader) // self.size)

    def numbers(self, batch: int) -> NDArray[np.int64]:
        """Which examples the batch with this number holds."""
        epoch, at = divmod(batch, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._shuffled(epoch)
        return self._epoch[1][at]

    def __getitem__(self, batch: int) -> TrainingBatch:
        """The batch with this number: 0, 1, 2 ... without end."""
        return collate(self.reader, self.numbers(batch).tolist(), sound=self.sound)

    def _shuffled(self, epoch: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.reader))
        bucket = _BUCKET * self.size
        batches: list[NDArray[np.int64]] = []
        for first in range(0, len(order), bucket):
            part = order[first : first + bucket]
            part = part[np.argsort(self.reader.lengths[part], kind="stable")]
            batches += [part[i : i + self.size] for i in range(0, len(part), self.size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def collate(reader: PackReader, numbers: Sequence[int], *, sound: bool = False) -> TrainingBatch:
    """A batch of these examples, with their sound if `sound` is True."""
    found = [reader.arrays(number) for number in numbers]
    longest = max(len(text) for _, text, _ in found)
    num_codebooks = found[0][0].shape[0]
    codes = np.full((len(found), num_codebooks, longest), NOTHING, np.int64)
    text = np.full((len(found), longest), NOTHING, np.int64)
    pauses = np.full((len(found), longest, found[0][2].shape[1]), UNKNOWN, np.int64)
    for row, (c, t, p) in enumerate(found):
        codes[row, :, : c.shape[1]] = c
        text[row, : len(t)] = t
        pauses[row, : len(p)] = p
    keep = torch.from_numpy(reader.keep[list(numbers)])
    return TrainingBatch(
        torch.from_numpy(codes), torch.from_numpy(text), torch.from_numpy(pauses), tuple(numbers),
        keep if bool(keep.any()) else None, _sounds(reader, numbers) if sound else None,
    )  # fmt: skip


def _sounds(reader: PackReader, numbers: Sequence[int]) -> Tensor:
    found = [torch.from_numpy(reader.sound(number)) for number in numbers]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
