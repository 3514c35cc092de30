"""Outputs of the codec's convolutions for hours of strings, computed once.

The convolutions are most of the work of a step, forwards and even more backwards. Once they are
trained well enough, the layers after them are trained on these outputs, several times over, at many
times the speed. The codes for the decoder are made from the same outputs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recipes.demo.columns import UNKNOWN
from recipes.demo.decoder import HINT_DELAY
from recipes.demo.encoder import Encoder
from recipes.demo.precision import lowered

PER_FRAME = 2
"""Outputs of the convolutions in a frame."""
_BLIND_FRAMES = 6
"""Frames that are ignored after a cut into the middle of a string: their words may have begun
before the cut.
"""


@dataclass(frozen=True, slots=True)
class ConvFeatures:
    """Rows of strings: features float16 [N, L, D]; text [N, T], pauses [N, T, 4] and words of
    frames [N, T], all int16; L = 2 T.
    """

    features: np.ndarray
    text: np.ndarray
    pauses: np.ndarray
    hints: np.ndarray

    @classmethod
    @torch.no_grad()
    def compute(cls, model: Encoder, strings: Iterable[tuple[Tensor, ...]]) -> "ConvFeatures":
        """The outputs of the convolutions of `model` for batches of `LongStrings`."""
        rows: list[list[np.ndarray]] = []
        for pcm, *wanted in strings:
            with lowered():
                features = model.front(pcm)
            rows.append([features.float().numpy().astype(np.float16), *map(np.asarray, wanted)])
        return cls(*(np.concatenate(part) for part in zip(*rows, strict=True)))

    def save(self, folder: Path) -> None:
        """Write four files; a folder that exists is complete."""
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(part / f"{field.name}.npy", getattr(self, field.name))
        part.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> "ConvFeatures":
        """Read what `save` wrote; the features stay on disk."""
        text, pauses, hints = (
            np.load(folder / f"{name}.npy") for name in ("text", "pauses", "hints")
        )
        return cls(np.load(folder / "features.npy", mmap_mode="r"), text, pauses, hints)


def delayed(hints: np.ndarray, delay: int) -> np.ndarray:
    """Words of frames [..., T], moved to `delay` frames after they began, from `HINT_DELAY`."""
    by = delay - HINT_DELAY
    moved = np.roll(hints, by, axis=-1)
    if by > 0:
        moved[..., :by] = 0
    elif by < 0:
        moved[..., by:] = UNKNOWN
    return moved


class ConvFeatureBatches:
    """Stretches of `ConvFeatures` with frame targets at several delays: the batch of any step."""

    def __init__(
        self,
        shards: list[ConvFeatures],
        *,
        size: int,
        seconds: float,
        delays: tuple[int, ...],
        seed: int,
    ) -> None:
        """`size` stretches of `seconds` a batch, one in three from the beginning of its string."""
        self.shards, self.size, self.delays, self.seed = shards, size, delays, seed
        self.num_frames = int(seconds * 12.5)
        self.ends = np.cumsum([len(shard.text) for shard in shards])

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """(features float32 [B, L, D], int64 [B, delays, T])"""
        rng = np.random.default_rng([self.seed, step])
        features: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        for row in np.sort(rng.integers(0, self.ends[-1], self.size)):
            number = int(np.searchsorted(self.ends, row, side="right"))
            shard = self.shards[number]
            row -= self.ends[number] - len(shard.text)
            spare = shard.text.shape[1] - self.num_frames
            first = int(rng.integers(0, spare + 1)) if spare and rng.random() < 0.67 else 0
            last = first + self.num_frames
            features.append(shard.features[row, PER_FRAME * first : PER_FRAME * last])
            wanted = np.stack([delayed(shard.hints[row], d)[first:last] for d in self.delays])
            if first:
                wanted[:, :_BLIND_FRAMES] = UNKNOWN
            targets.append(wanted)
        return (
            torch.from_numpy(np.stack(features).astype(np.float32)),
            torch.from_numpy(np.stack(targets).astype(np.int64)),
        )


def roughened(features: Tensor, *, noise: float = 0.1) -> Tensor:
    """Features [B, L, D] with up to two short stretches of time per row set to the row's mean.

    Noise is added as well: `noise` times the features' standard deviation.
    """
    B, L, _ = features.shape
    keep = torch.ones(B, L, dtype=torch.bool)
    for _ in range(2):
        first, length = torch.randint(0, L, (B, 1)), torch.randint(0, 4, (B, 1))
        times = torch.arange(L)
        keep &= ~((times >= first) & (times < first + length))
    mean = features.mean(1, keepdim=True)
    hidden = torch.where(keep.unsqueeze(-1), features, mean)
    return hidden + noise * features.std() * torch.randn_like(features)
