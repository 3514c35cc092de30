"""Find where the words of a sentence are: a small network that sees both directions, and a forced
alignment by CTC.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kiku.train.forced import force
from kiku.writing import in_place_of
from recipes.demo.corpus import Corpus, Recording
from recipes.demo.features import LogMel
from recipes.demo.fit import Fit, Plan
from recipes.demo.precision import lowered
from recipes.demo.voices import espeak

__all__ = [
    "LATENT_S", "Aligner", "Phones", "SentenceBatches", "ctc", "fit_aligner", "force",
]  # fmt: skip

LATENT_S = 0.04
"""Seconds per row of spectra, and so per row of phone scores."""


@dataclass(frozen=True)
class Phones:
    """The phones of every word of a corpus, as numbers (0 is CTC's blank)."""

    symbols: tuple[str, ...]
    words: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, recordings: list[Recording], path: Path) -> "Phones":
        """Ask espeak-ng for the phones of every word once; they are kept in `path`."""
        if not path.exists():
            spoken = {word: espeak().phones(word) for r in recordings for word in r.words}
            with in_place_of(path) as part:
                part.write_text(json.dumps(spoken))
        spoken = json.loads(path.read_text())
        symbols = sorted({phone for phones in spoken.values() for phone in phones})
        numbers = {symbol: i + 1 for i, symbol in enumerate(symbols)}
        return cls(
            tuple(symbols),
            {word: tuple(numbers[p] for p in phones) for word, phones in spoken.items()},
        )

    def of_words(self, words: tuple[str, ...]) -> list[int]:
        """The phones of a sentence, one after the other."""
        return [phone for word in words for phone in self.words[word]]


class SentenceBatches:
    """Batches of whole sentences of about the same length: sound, phones and their lengths."""

    def __init__(
        self,
        corpus: Corpus,
        recordings: list[Recording],
        phones: Phones,
        *,
        seconds: float = 120.0,
        longest_s: float = 12.0,
        seed: int = 1,
    ) -> None:
        """About `seconds` of sound a batch; sentences longer than `longest_s` are left out."""
        self.corpus, self.phones, self.seconds, self.seed = corpus, phones, seconds, seed
        kept = [r for r in recordings if 0.6 < r.seconds < longest_s and r.words]
        self.recordings = sorted(kept, key=lambda r: r.seconds)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(pcm [B, 1, S], phones [sum], number of latents of each [B], of phones of each [B])"""
        rng = np.random.default_rng([self.seed, step])
        centre = int(rng.integers(len(self.recordings)))
        count = max(2, int(self.seconds / self.recordings[centre].seconds))
        first = max(0, min(centre - count // 2, len(self.recordings) - count))
        chosen = self.recordings[first : first + count]
        length = -(-max(r.end - r.begin for r in chosen) // 1920) * 1920
        pcm = np.zeros((len(chosen), 1, length), np.float32)
        labels: list[int] = []
        sizes: list[int] = []
        for row, recording in zip(pcm, chosen, strict=True):
            sound = self.corpus.audio(recording)
            sound *= 10 ** rng.uniform(-1.7, -0.7) / (np.sqrt(np.mean(sound**2)) + 1e-4)
            row[0, : len(sound)] = sound
            row[0] += rng.standard_normal(length, dtype=np.float32) * np.float32(
                10 ** rng.uniform(-5, -2.3)
            )
            ids = self.phones.of_words(recording.words)
            labels.extend(ids)
            sizes.append(len(ids))
        latents = torch.tensor([(r.end - r.begin) // 960 for r in chosen])
        return (
            torch.from_numpy(np.clip(pcm, -1, 1)),
            torch.tensor(labels),
            latents,
            torch.tensor(sizes),
        )


class Aligner(nn.Module):
    """Turns spectra into phones, seeing about a third of a second to both sides."""

    def __init__(self, num_phones: int, width: int = 192) -> None:
        """`num_phones` without the blank."""
        super().__init__()
        self.mel = LogMel()
        self.first = nn.Conv1d(256, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 5, padding=2 * dilation, dilation=dilation)
            for dilation in (1, 2, 1, 2, 1)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(6))
        self.head = nn.Linear(width, num_phones + 1)

    def forward(self, pcm: Tensor) -> Tensor:
        """[B, 1, S] -> [B, S / 960, 1 + phones] logits"""
        x = self.first(self.mel(pcm).transpose(1, 2)).transpose(1, 2)
        for norm, block in zip(self.norms, self.blocks, strict=False):
            x = x + nn.functional.glu(block(norm(x).transpose(1, 2)).transpose(1, 2), dim=-1)
        return self.head(self.norms[-1](x))


def ctc(logits: Tensor, phones: Tensor, latents: Tensor, sizes: Tensor) -> Tensor:
    """CTC loss per phone."""
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    return (
        nn.functional.ctc_loss(
            log_probs, phones, latents, sizes, zero_infinity=True, reduction="sum"
        )
        / sizes.sum()
    )


def fit_aligner(source: SentenceBatches, folder: Path, plan: Plan) -> Aligner:
    """Train on sentences. Overfitting does no harm: the aligner will align these sentences."""

    def loss(
        model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor], progress: float
    ) -> dict[str, Tensor]:
        with lowered():
            logits = model(batch[0])
        return {"loss": ctc(logits, *batch[1:])}

    torch.manual_seed(0)
    averaged = Fit(plan, Aligner(len(source.phones.symbols)), folder).run(source, loss)
    assert isinstance(averaged, Aligner)
    return averaged
