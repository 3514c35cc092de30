"""Log-mel spectra, which the convolutions of the codec first learn to reproduce.

The trunk of the encoder (its transformer) learns from spectra ten times faster than through
convolutions at 24 kHz; the convolutions meanwhile learn to give those same spectra, and then the
two are joined.
"""

import math

import torch
from torch import Tensor, nn

from recipes.demo.corpus import SAMPLE_RATE

HOP = 240
"""Samples between two spectra (10 ms)."""
NUM_MELS = 64
PER_LATENT = 4
"""Spectra per latent of 40 ms."""
WINDOW = 600
"""Samples of a spectrum (25 ms)."""
_FFT = 768


def _mel(frequency: float) -> float:
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


def mel_filters(lowest: float = 60.0, highest: float = 10_000.0) -> Tensor:
    """[bins, mels] triangles of equal width in mel."""
    marks = torch.linspace(_mel(lowest), _mel(highest), NUM_MELS + 2, dtype=torch.float64)
    return triangles(700.0 * (10 ** (marks / 2595.0) - 1.0), _FFT).float()


def triangles(corners: Tensor, fft: int) -> Tensor:
    """[bins, bands] triangles that rise from a corner to the next and fall to the one after it.

    Args:
        corners: float64 [bands + 2], hertz.
        fft: samples of the Fourier transform that gives the bins.
    """
    bins = torch.arange(fft // 2 + 1, dtype=torch.float64)[:, None] * (SAMPLE_RATE / fft)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0)


class MelPower(nn.Module):
    """Turns sound into its power in bands, every 10 ms."""

    window: Tensor
    filters: Tensor

    def __init__(self, filters: Tensor) -> None:
        """Nothing is learned; `filters` [bins, bands] as `triangles` gives them."""
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def power(self, pcm: Tensor, before: int) -> Tensor:
        """[B, S] samples, `before` samples of silence before them -> [B, windows, bands]"""
        pieces = nn.functional.pad(pcm.float(), (before, 0)).unfold(1, WINDOW, HOP) * self.window
        bins = torch.view_as_real(torch.fft.rfft(pieces, n=2 * len(self.filters) - 2))
        # abs() would guard against overflow, at ten times the cost
        return bins.square().sum(-1) @ self.filters


class LogMel(MelPower):
    """Turns sound into normalised log-mel spectra, four per latent; none sees the future."""

    def __init__(self) -> None:
        """Nothing is learned."""
        super().__init__(mel_filters())

    @torch.no_grad()
    def forward(self, pcm: Tensor) -> Tensor:
        """[B, 1, S] samples -> [B, S / 960, 256]; S a multiple of 960."""
        spectra = torch.log(self.power(pcm[:, 0], WINDOW - HOP) + 1e-4)
        # About zero mean and unit variance over speech at usual levels.
        return ((spectra + 2.0) / 4.0).unflatten(1, (-1, PER_LATENT)).flatten(2)


def stripes(shape: tuple[int, int, int], bands: tuple[int, int], times: tuple[int, int]) -> Tensor:
    """Where spectra are hidden: bool [B, steps, mels], random for each row by torch's generator.

    Args:
        shape: B, steps, mels.
        bands: number of bands of mels, and the upper limit (exclusive) of their width in mels.
        times: number of stretches of time, and the upper limit (exclusive) of their length in
            steps.
    """
    B, steps, mels = shape
    hidden = torch.zeros(B, steps, mels, dtype=torch.bool)
    for (count, widest), size, axis in ((bands, mels, 1), (times, steps, 2)):
        at = torch.arange(size)
        for _ in range(count):
            first, width = torch.randint(0, size, (B, 1)), torch.randint(0, widest, (B, 1))
            hidden |= ((at >= first) & (at < first + width)).unsqueeze(axis)
    return hidden
