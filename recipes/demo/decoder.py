"""The decoder: columns of cached codes and text, and its losses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.config import LMConfig
from kiku.lm.model import LM
from kiku.train.training_module import columns_of
from kiku.writing import in_place_of
from recipes.demo.bank import WordSpan
from recipes.demo.columns import PAD, UNKNOWN, pause_targets, text_column, words_of
from recipes.demo.corpus import VOCABULARY
from recipes.demo.encoder import Encoder
from recipes.demo.mix import FRAME_SIZE, Mixer, frame_targets
from recipes.demo.precision import compute_dtype, lowered

HINT_DELAY = 5
"""Frames: the hidden state of a frame must also tell the word of this many frames ago. This gives
more frequent targets than text.
"""


ONSET_S = 0.08
"""Seconds added to the start of each word for its text.

A frame's text is timed by the frame's beginning, so reported starts would be 45 ms early; with this
they are 35 ms late, and the decoder sees one frame more of a word before it must write it.
"""


class LongStrings:
    """Long strings of words and the decoder's targets for them: the batch of any step."""

    def __init__(
        self,
        mixer: Mixer,
        pieces: list[list[int]],
        *,
        size: int,
        num_frames: int,
        delay_s: float,
        seed: int,
    ) -> None:
        """`pieces` are the text tokens of each word of the vocabulary."""
        self.mixer, self.pieces, self.size, self.num_frames = mixer, pieces, size, num_frames
        self.delay_s, self.seed = delay_s, seed

    def __call__(self, step: int) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
        """(pcm [B, 1, S], text [B, T], pauses [B, T, 4], word of each frame [B, T])"""
        rng = np.random.default_rng([self.seed, step])
        made = [self.mixer.string(rng, self.num_frames * FRAME_SIZE) for _ in range(self.size)]
        pcm = torch.from_numpy(np.stack([m.samples for m in made])).unsqueeze(1)
        text = np.stack([self.text(m.spans) for m in made])
        pauses = np.stack([pause_targets(m.voices, self.num_frames) for m in made])
        hints = np.stack(
            [frame_targets(m.spans, self.num_frames, HINT_DELAY).numpy() for m in made]
        )
        return pcm, text.astype(np.int16), pauses.astype(np.int16), hints.astype(np.int16)

    def text(self, spans: list[WordSpan]) -> np.ndarray:
        """Text tokens int64 [T] of the words at `spans`."""
        words = words_of([span.moved(ONSET_S) for span in spans], self.pieces)
        return text_column(words, self.num_frames, self.delay_s)


@dataclass(frozen=True, slots=True)
class CodeCache:
    """Codes [N, K, T], text [N, T], pauses [N, T, 4] and words of frames [N, T], all int16."""

    codes: np.ndarray
    text: np.ndarray
    pauses: np.ndarray
    hints: np.ndarray

    def save(self, path: Path) -> None:
        """Write one npz file."""
        held = {"codes": self.codes, "text": self.text, "pauses": self.pauses, "hints": self.hints}
        # Opened here, because numpy adds .npz to a name.
        with in_place_of(path) as part, part.open("wb") as file:
            np.savez(file, **held)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, path: Path) -> "CodeCache":
        """Read what `save` wrote."""
        with np.load(path) as held:
            return cls(held["codes"], held["text"], held["pauses"], held["hints"])


@torch.no_grad()
def encode(model: Encoder, features: Tensor, noises: tuple[float, ...] = (0.0,)) -> np.ndarray:
    """Codes int16 [N B, K, T] of whole strings, once for each of N `noises`.

    Args:
        model: the encoder.
        features: [B, L, D] outputs of its convolutions.
        noises: root mean squares of noise that is added to the latents (theirs is about 1). The
            decoder then also sees codes less clean than those of speakers in the encoder's
            training.
    """
    with lowered():
        latents = model.trunk(features)[1].float()
    told = torch.cat([latents + noise * torch.randn_like(latents) for noise in noises])
    return model.mimi.quantizer.encode(told).numpy().astype(np.int16)


class CachedColumns:
    """Rows of a `CodeCache` in random order, cut at random: the batch of any step."""

    def __init__(self, cache: CodeCache, *, size: int, num_frames: int, seed: int = 5) -> None:
        """`size` rows of `num_frames` frames a batch."""
        self.cache, self.size, self.num_frames, self.seed = cache, size, num_frames, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(codes [B, K, T], text [B, T], pauses [B, T, 4], hints [B, T]), all int64"""
        rng = np.random.default_rng([self.seed, step])
        rows = np.sort(rng.integers(0, len(self.cache.codes), self.size))
        parts = (self.cache.codes, self.cache.text, self.cache.pauses, self.cache.hints)
        codes, text, pauses, hints = (
            torch.from_numpy(part[rows].astype(np.int64)) for part in parts
        )
        n = self.num_frames
        return codes[..., :n], text[:, :n], pauses[:, :n], hints[:, :n]


class Decoder(nn.Module):
    """The language model and, for training only, a head that names the word of each frame."""

    def __init__(self, config: LMConfig) -> None:
        """Embeddings start small: nine of them are summed."""
        super().__init__()
        self.lm = LM(config)
        self.hint = nn.Linear(config.transformer.dim, 1 + len(VOCABULARY))
        for table in [self.lm.text_embedding, *self.lm.code_embeddings]:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.3)


def corrupt(text: Tensor, vocab_size: int, share: float) -> Tensor:
    """The text as an erring decoder would feed it back: some tokens replaced, some by PAD."""
    wrong = torch.randint_like(text, vocab_size)
    wrong = torch.where(torch.rand(text.shape) < 0.5, wrong, torch.full_like(text, PAD))
    # Tokens are few among PADs: they are replaced more often, or the decoder would trust them
    # blindly.
    odds = torch.where(text == PAD, share * 0.2, share)
    return torch.where(torch.rand(text.shape) < odds, wrong, text)


def decoder_loss(
    model: nn.Module, batch: Any, *, progress: float, corrupted: float = 0.12, dropped: float = 0.1
) -> dict[str, Tensor]:
    """Losses of text, pauses and words of frames.

    Args:
        model: a `Decoder`.
        batch: a batch of `CachedColumns`.
        progress: 0 to 1; the weight of the words of frames falls with it from a half to a tenth.
        corrupted: share of text tokens replaced in the decoder's input.
        dropped: share of codes hidden one by one; half as often all codes of a frame are.
    """
    assert isinstance(model, Decoder)
    codes, text, pauses, hints = batch
    config = model.lm.config
    hidden = torch.rand(codes.shape) < dropped
    hidden |= torch.rand(len(codes), 1, codes.shape[-1]) < dropped / 2
    hidden_codes = torch.where(hidden, torch.full_like(codes, -1), codes)
    columns = columns_of(corrupt(text, config.text_vocab_size, corrupted), hidden_codes, config)
    active = torch.ones(len(text), dtype=torch.bool)
    with lowered():
        state = model.lm.init_state(len(text), "cpu", compute_dtype(), remember=False)
        out = model.lm(columns, state, active)
        pause_logits = model.lm.pause_logits(out.hidden)
        hint_logits = model.hint(out.hidden)
    weight = torch.full((config.text_vocab_size,), 1.0)
    weight[PAD] = 0.8
    wanted = F.cross_entropy(out.logits.float().flatten(0, 1), text.flatten(), weight=weight)
    pause = F.cross_entropy(pause_logits.flatten(0, 2), pauses.flatten(), ignore_index=UNKNOWN)
    hint = F.cross_entropy(hint_logits.float().flatten(0, 1), hints.flatten())
    spoken = text != PAD
    right = (out.logits.argmax(-1) == text)[spoken].float().mean()
    total = wanted + 0.1 * pause + (0.5 - 0.4 * progress) * hint
    return {"loss": total, "text": wanted, "pause": pause, "hint": hint, "right": right}
