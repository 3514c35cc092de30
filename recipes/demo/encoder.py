"""The encoder without its quantiser: latents from which the spoken word can be read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.codec.mimi import MimiEncoder
from kiku.config import CodecConfig
from kiku.evaluate.aligning import word_errors
from recipes.demo.align import ctc
from recipes.demo.bank import WordSpan
from recipes.demo.corpus import VOCABULARY
from recipes.demo.features import LogMel, stripes
from recipes.demo.initial_weights import he_init
from recipes.demo.precision import lowered
from recipes.demo.quick import seanet_whole

DELAYS = (4, 7)
"""Frames after a word's beginning at which the latents must tell the word: the decoder writes it
6.25 frames after its beginning.
"""


_ROWS = 2


class Heads(nn.Module):
    """Heads on the latents: the word of each frame, at each delay, and the phones twice a frame."""

    def __init__(self, dim: int, num_phones: int) -> None:
        """`num_phones` without CTC's blank."""
        super().__init__()
        self.words = nn.ModuleList(nn.Linear(dim, 1 + len(VOCABULARY)) for _ in DELAYS)
        self.phones = nn.Linear(dim, 1 + num_phones)

    def word_logits(self, latents: Tensor) -> Tensor:
        """[B, D, T] -> [B, delays, T, 1 + words]"""
        normed = F.layer_norm(latents.transpose(1, 2), latents.shape[1:2])
        return torch.stack([head(normed) for head in self.words], dim=1)

    def phone_logits(self, positions: Tensor) -> Tensor:
        """[B, L, D] of the transformer -> [B, L, 1 + phones]"""
        return self.phones(F.layer_norm(positions, positions.shape[-1:]))


class SpectraFront(nn.Module):
    """The model for SEANet's output: two short causal convolutions over log-mel spectra."""

    def __init__(self, dim: int) -> None:
        """Random weights; an output sees four latents (160 ms) back."""
        super().__init__()
        self.wide = nn.Conv1d(256, 384, 3)
        self.narrow = nn.Conv1d(384, dim, 2)
        self.straight = nn.Linear(256, dim)

    def forward(self, spectra: Tensor) -> Tensor:
        """[B, L, 256] -> [B, L, D]"""
        x = F.elu(self.wide(F.pad(spectra.transpose(1, 2), (2, 0))))
        x = self.narrow(F.pad(x, (1, 0))).transpose(1, 2)
        return x + self.straight(spectra)


class Encoder(nn.Module):
    """Mimi's encoder up to its quantiser, with the heads that train it."""

    def __init__(self, config: CodecConfig, num_phones: int) -> None:
        """Random weights; layer scales begin at 0.5, as training is too short to grow from 0.01."""
        super().__init__()
        self.mimi = MimiEncoder(config)
        self.heads = Heads(config.latent_dim, num_phones)
        self.mel = LogMel()
        self.from_mel = SpectraFront(config.latent_dim)
        he_init(self.mimi.seanet)
        with torch.no_grad():
            self.mimi.seanet.first.conv.weight.mul_(6.0)
            for name, parameter in self.mimi.transformer.named_parameters():
                if name.endswith(("scale1", "scale2")):
                    parameter.fill_(0.5)

    def front(self, pcm: Tensor) -> Tensor:
        """SEANet: [B, 1, S] -> [B, L, D]"""
        # A few rows at a time fit into the processor's cache: a fifth faster, forwards and
        # backwards.
        rows = [seanet_whole(self.mimi.seanet, part) for part in pcm.split(_ROWS)]
        return torch.cat(rows).transpose(1, 2)

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L, D] -> positions [B, L, D], latents [B, D, L / 2]"""
        transformer, downsample = self.mimi.transformer, self.mimi.downsample
        state = transformer.init_state(len(x), "cpu", x.dtype, remember=False)
        x = transformer(x, state, _all(x))
        # Whole strings from their beginning need no state, only copies of the first position before
        # them.
        rows = x.transpose(1, 2)
        return x, downsample.conv(F.pad(rows, (downsample.past_size, 0), mode="replicate"))

    def word_logits(self, pcm: Tensor, *, spectra: bool = False) -> Tensor:
        """[B, 1, S] -> [B, delays, T, 1 + words]; `spectra` bypasses SEANet."""
        with lowered():
            x = self.spectra_in(pcm, masked=False) if spectra else self.front(pcm)
            return self.heads.word_logits(self.trunk(x)[1])

    def spectra_in(self, pcm: Tensor, *, masked: bool) -> Tensor:
        """Bypass SEANet: [B, 1, S] -> [B, L, D]; `masked` hides stripes of time and frequency."""
        spectra = self.mel(pcm)
        if masked:
            spectra = hide_stripes(spectra)
        return self.from_mel(spectra)


def _all(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.bool)


def hide_stripes(spectra: Tensor) -> Tensor:
    """[B, L, 4 x 64] with up to two bands of mels and two short stretches of time per row hidden.

    Hidden values are set to the mean of their row.
    """
    B, L, _ = spectra.shape
    grid = spectra.unflatten(-1, (4, 64))
    hidden = stripes((B, L, 64), (2, 10), (2, 4)).unsqueeze(2)
    return torch.where(hidden, grid.mean((1, 2, 3), keepdim=True), grid).flatten(2)


@dataclass(frozen=True, slots=True)
class Lessons:
    """The batch of a step: strings of words, or in every `phones_every`-th step sentences for
    their phones.
    """

    strings: Callable[[int], Any]
    sentences: Callable[[int], Any]
    phones_every: int = 4
    strings_are: str = "words"

    def __call__(self, step: int) -> tuple[str, Any]:
        """("phones" or what the strings are, the batch)"""
        if step % self.phones_every == self.phones_every - 1:
            return "phones", self.sentences(step)
        return self.strings_are, self.strings(step)


def front_loss(model: nn.Module, lesson: tuple[str, Any]) -> dict[str, Tensor]:
    """Squared distance of SEANet's output from that of `SpectraFront`, in units of its variance."""
    assert isinstance(model, Encoder)
    pcm: Tensor = lesson[1][0]
    with torch.no_grad(), lowered():
        wanted = model.spectra_in(pcm, masked=False).float()
    with lowered():
        given = model.front(pcm)
    return {"loss": F.mse_loss(given.float(), wanted) / wanted.var()}


def word_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy with label smoothing, and the share of word frames right at the last delay.

    Args:
        logits: [B, delays, T, 1 + words].
        targets: int64 [B, delays, T].
    """
    loss = F.cross_entropy(logits.float().flatten(0, 2), targets.flatten(), label_smoothing=0.05)
    spoken = targets[:, -1] > 0
    right = (logits[:, -1].argmax(-1) == targets[:, -1])[spoken].float().mean()
    return loss, right


def even_norm(latents: Tensor) -> Tensor:
    """Squared distance of the latents from normalised ones.

    The quantiser measures distances, so all frames should have about the same norm.
    """
    wanted = F.layer_norm(latents.float().transpose(1, 2), latents.shape[1:2]).detach()
    return F.mse_loss(latents.float().transpose(1, 2), wanted)


def encoder_loss(
    model: nn.Module, lesson: tuple[str, Any], *, spectra: bool, mel_weight: float = 0.0
) -> dict[str, Tensor]:
    """The losses of one batch.

    Args:
        model: an `Encoder`.
        lesson: kind and batch, from `Lessons`.
        spectra: whether spectra take SEANet's place.
        mel_weight: weight of the distance between SEANet's output and that from spectra.
    """
    assert isinstance(model, Encoder)
    kind, batch = lesson
    pcm: Tensor = batch[0]
    with lowered():
        x = model.spectra_in(pcm, masked=True) if spectra else model.front(pcm)
        positions, latents = model.trunk(x)
        noisy = latents + 0.1 * torch.randn_like(latents)
        values: dict[str, Tensor] = {}
        if kind == "phones":
            values["phones"] = ctc(model.heads.phone_logits(positions), *batch[1:])
            total = 0.3 * values["phones"]
        else:
            values["words"], values["right"] = word_loss(model.heads.word_logits(noisy), batch[1])
            total = values["words"] + 0.02 * even_norm(latents)
    if mel_weight > 0 and not spectra:
        with torch.no_grad():
            wanted = model.spectra_in(pcm, masked=False)
        values["mel"] = F.mse_loss(x.float(), wanted.float())
        total = total + mel_weight * values["mel"]
    return {"loss": total, **values}


def spoken_words(logits: np.ndarray) -> list[int]:
    """The words by the frame heads alone: runs of at least two frames of the same word.

    This is a quick measure.

    Args:
        logits: [T, 1 + words].
    """
    best = logits.argmax(-1)
    words: list[int] = []
    run, last = 0, 0
    for value in [*best.tolist(), 0]:
        if value == last:
            run += 1
            continue
        if last and run >= 2:
            words.append(last - 1)
        run, last = 1, value
    return words


@torch.no_grad()
def frame_errors(
    logits_of: Callable[[Tensor], Tensor], tests: list[tuple[np.ndarray, list[WordSpan]]]
) -> float:
    """Word error rate of frame heads on strings [S] with known words.

    Args:
        logits_of: turns sound [B, 1, S] into word logits [B, delays, T, 1 + words].
        tests: the sound and the words of each string.
    """
    wrong = total = 0
    for first in range(0, len(tests), 8):
        group = tests[first : first + 8]
        length = -(-max(len(s) for s, _ in group) // 1920) * 1920
        pcm = torch.stack(
            [F.pad(torch.from_numpy(s), (0, length - len(s))) for s, _ in group]
        ).unsqueeze(1)
        logits = logits_of(pcm)[:, -1].float().numpy()
        for row, (_, spans) in zip(logits, group, strict=True):
            wanted = [str(p.word) for p in spans]
            wrong += word_errors(wanted, [str(word) for word in spoken_words(row)])
            total += len(wanted)
    return wrong / max(1, total)
