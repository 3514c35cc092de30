"""Spectra as another speaker might have given them, with parts hidden: what training hears."""

import torch
from torch import Tensor

from recipes.demo.features import stripes
from recipes.english.trunk import NUM_MELS, TOP_HERTZ, hertz_of, mels_of

_WIDEST_BAND = 20
"""Limit of the mels of a hidden band; a row has two."""
_LONGEST = 35
"""Limit of a hidden stretch of time, in spectra of 10 ms."""
_STRETCH_EVERY = 250
"""A row has one hidden stretch of time, and one more for so many spectra."""
_TALLER = 0.12
"""How much higher or lower resonances may become, as a natural logarithm: voices of train are few,
and a throat an eighth shorter is that of another person."""


def disguised(spectra: Tensor) -> Tensor:
    """[B, 80, N] with the voice of another throat, and with parts hidden."""
    factors = torch.exp(_TALLER * (2.0 * torch.rand(len(spectra)) - 1.0))
    return hidden_stripes(warped(spectra, factors))


def warped(spectra: Tensor, factors: Tensor) -> Tensor:
    """Spectra [B, 80, N], each row's resonances at `factors` [B] times their frequencies.

    A mel's new value lies between those of the two mels next to its frequency divided by the
    factor; above the top mel and below the lowest the outermost ones are used.
    """
    step = mels_of(torch.tensor(TOP_HERTZ)) / (NUM_MELS + 1)
    centres = hertz_of(step * torch.arange(1, NUM_MELS + 1))
    places = mels_of(centres / factors[:, None]) / step - 1.0  # [B, 80], in units of mels
    places = places.clamp(0.0, NUM_MELS - 1.0)[..., None]
    near = (1.0 - (places - torch.arange(NUM_MELS)).abs()).clamp(min=0.0)  # [B, 80 new, 80 old]
    return near @ spectra


def hidden_stripes(spectra: Tensor) -> Tensor:
    """[B, 80, N] with two bands of mels and some stretches of time set to the mean of their row."""
    B, mels, count = spectra.shape
    times = (1 + count // _STRETCH_EVERY, _LONGEST)
    hidden = stripes((B, count, mels), (2, _WIDEST_BAND), times).transpose(1, 2)
    return torch.where(hidden, spectra.mean((1, 2), keepdim=True), spectra)
