"""Log-mel spectra: what the convolutions of the codec are first taught to compute.

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
_WINDOW = 600
_FFT = 768


def _mel(frequency: float) -> float:
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


def mel_filters(lowest: float = 60.0, highest: float = 10_000.0) -> Tensor:
    """[bins, mels] triangles of equal width in mel."""
    marks = torch.linspace(_mel(lowest), _mel(highest), NUM_MELS + 2, dtype=torch.float64)
    centres = 700.0 * (10 ** (marks / 2595.0) - 1.0)
    bins = torch.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins) / (centres[2:] - centres[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


class LogMel(nn.Module):
    """Sound to normalised log-mel spectra, four to a latent, none of which sees the future."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        """Nothing is learned."""
        super().__init__()
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    @torch.no_grad()
    def forward(self, pcm: Tensor) -> Tensor:
        """[B, 1, S] samples -> [B, S / 960, 256]; S a multiple of 960."""
        padded = nn.functional.pad(pcm[:, 0].float(), (_WINDOW - HOP, 0))
        pieces = padded.unfold(1, _WINDOW, HOP) * self.window  # [B, frames, window]
        bins = torch.view_as_real(torch.fft.rfft(pieces, n=_FFT))
        power = bins.square().sum(-1)  # abs() takes care of overflow, at ten times the cost
        spectra = torch.log(power @ self.filters + 1e-4)
        # About zero mean and unit variance over speech at usual levels.
        return ((spectra + 2.0) / 4.0).unflatten(1, (-1, PER_LATENT)).flatten(2)
