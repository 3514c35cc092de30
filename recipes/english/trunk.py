"""Mimi's transformer over spectra: 25 states a second, each of which sees a given part of the
future; and a reader, which writes the text of the states two seconds later."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.config import TransformerConfig
from kiku.nn.attention import Places
from kiku.nn.rope import Rope
from kiku.nn.state import KVRing
from kiku.nn.transformer import Transformer
from recipes.demo.features import HOP, WINDOW, MelPower, triangles

STATE = 4 * HOP
"""Samples per state (40 ms)."""
NUM_MELS = 80
TOP_HERTZ = 8000.0
"""The highest frequency of spectra."""
MOST_STATES = 700
"""States for which there are encodings of positions, 28 s; without encodings there is no limit."""
READS_AHEAD = 12
"""States of the future that each layer of the reader sees. With four layers and the convolution
after them (one state) this is two seconds: the delay of the text in the model that this should
become."""
READER_LAYERS = 4
_NEAR = 3
"""States that the convolution after the reader sees: the one before, its own, and the one after."""
_SHIFT = 2 * HOP
"""Samples by which spectra are later than in Whisper: a state then ends with its own sound."""
_FLOOR = -6.5
"""Lowest value of spectra. Whisper cuts values 8 below the loudest of the recording, which is not
known in a live stream."""
_TALL = (WINDOW / 400) ** 2
"""A window of as many milliseconds at Whisper's 16 kHz has 400 samples."""


def mel_filters() -> Tensor:
    """[301 bins of 40 Hz, 80] triangles from 0 to 8 kHz, even in mel (Slaney's), equal in area."""
    top = mels_of(torch.tensor(TOP_HERTZ, dtype=torch.float64))
    corners = hertz_of(torch.linspace(0.0, float(top), NUM_MELS + 2, dtype=torch.float64))
    return (triangles(corners, WINDOW) * 2.0 / (corners[2:] - corners[:-2])).float()


def mels_of(hertz: Tensor) -> Tensor:
    """Mels of frequencies: linear up to 1 kHz (15 mels), then 27 for each factor of 6.4."""
    above = 15 + 27 * torch.log(hertz.clamp(min=1000) / 1000) / math.log(6.4)
    return torch.where(hertz < 1000, hertz * 3 / 200, above)


def hertz_of(mels: Tensor) -> Tensor:
    """Frequencies of mels, see `mels_of`."""
    return torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


class WhisperMel(MelPower):
    """Turns sound of 24 kHz into spectra as Whisper's encoder reads them.

    None of them sees the future of its state.
    """

    def __init__(self) -> None:
        """Nothing is learned."""
        super().__init__(mel_filters())

    @torch.no_grad()
    def forward(self, pcm: Tensor) -> Tensor:
        """[B, S] samples -> [B, 80, S / 240 + 2]; S a multiple of 960.

        The two additional ones are for the convolutions, which see one more on either side.
        """
        power = self.power(pcm, WINDOW // 2 + _SHIFT + HOP)[:, : pcm.shape[1] // HOP + 2] / _TALL
        spectra = torch.log10(power.clamp(min=1e-10)).clamp(min=_FLOOR)
        return ((spectra + 4.0) / 4.0).transpose(1, 2)


def trunk_config(dim: int = 512, num_layers: int = 2) -> TransformerConfig:
    """Mimi's transformer; with the layers of the reader it is as deep as Whisper base."""
    return TransformerConfig(
        dim=dim, num_layers=num_layers, num_heads=dim // 64, ffn_dim=4 * dim, window=250,
        rope_theta=10_000.0, norm="layer", norm_eps=1e-5, gated=False, layer_scale=True,
        positions_per_frame=2,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AttentionAids:
    """Aids that the teacher needs, and that a causal network must do without in the end.

    Attributes:
        ahead: states of the future that each layer sees.
        places: share (0 to 1) of the encodings of positions [L, D] that is added to the states.
            Whisper cannot do without them; here rotary positions replace them in the end.
        turned: how far queries and keys are rotated, from 0 (as in Whisper) to 1 (as in Mimi).
    """

    ahead: int = 0
    places: float = 0.0
    turned: float = 1.0


class Trunk(nn.Module):
    """Spectra, two convolutions, causal layers; then a reader, and a score for every piece of text.

    The causal layers will become the codec. The reader stands for the decoder, which waits two
    seconds and so sees later columns.
    """

    places: Tensor

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        """Random weights; id 0 of the vocabulary is CTC's blank."""
        super().__init__()
        self.mel = WhisperMel()
        self.first = nn.Conv1d(NUM_MELS, config.dim, 3)
        self.second = nn.Conv1d(config.dim, config.dim, 3, stride=2)
        self.transformer = Transformer(config)
        self.reader = Transformer(replace(config, num_layers=READER_LAYERS))
        self.norm = nn.LayerNorm(config.dim)
        self.near = nn.Conv1d(config.dim, config.dim, _NEAR, padding=_NEAR // 2)
        self.head = nn.Linear(config.dim, vocab_size)
        self.register_buffer("places", torch.zeros(MOST_STATES, config.dim))

    def spectra(self, pcm: Tensor) -> Tensor:
        """[B, S] -> [B, 80, S / 240 + 2]"""
        return self.mel(pcm)

    def states(self, spectra: Tensor, lengths: Tensor, aids: AttentionAids) -> Tensor:
        """[B, 80, 4 L + 2], rows of `lengths` [B] states -> [B, L, D] of the causal layers.

        Args:
            spectra: output of `spectra`.
            lengths: states of each row; those after it are seen by no other state.
            aids: future and encodings of positions; with encodings, rows have at most 700
                states.
        """
        x = F.gelu(self.first(spectra))  # [B, D, 4 L]
        x = F.gelu(self.second(F.pad(x, (1, 0))))  # [B, D, 2 L]
        x = F.avg_pool1d(x, 2).transpose(1, 2)
        if aids.places:
            x = x + aids.places * self.places[: x.shape[1]]
        return _through(self.transformer, x, lengths, aids)[-1]

    def read(self, states: Tensor, lengths: Tensor, aids: AttentionAids) -> tuple[Tensor, Tensor]:
        """States [B, L, D] -> those half-way through the reader and at its end, [B, L, D] each.

        Both shall be the teacher's states.
        """
        ahead = max(READS_AHEAD, aids.ahead)
        after = _through(self.reader, states, lengths, replace(aids, ahead=ahead))
        return after[READER_LAYERS // 2 - 1], self.norm(after[-1])

    def scores(self, read: Tensor, lengths: Tensor) -> Tensor:
        """Output of the reader [B, L, D], rows of `lengths` states -> scores [B, L, vocabulary]"""
        inside = torch.arange(read.shape[1]) < lengths[:, None]
        near = self.near((read * inside[..., None]).transpose(1, 2))
        return self.head(F.gelu(near).transpose(1, 2))

    def forward(self, pcm: Tensor, lengths: Tensor, aids: AttentionAids) -> Tensor:
        """[B, S], rows of `lengths` states -> scores [B, S / 960, vocabulary]"""
        states = self.states(self.spectra(pcm), lengths, aids)
        return self.scores(self.read(states, lengths, aids)[1], lengths)


def _through(
    transformer: Transformer, x: Tensor, lengths: Tensor, aids: AttentionAids
) -> list[Tensor]:
    """Run a transformer on [B, L, D], rows of `lengths` states; [B, L, D] after each layer."""
    B, L, _ = x.shape
    at = torch.arange(L)
    cos, sin = _turns(transformer.rope, at, aids.turned)
    age = at[:, None] - at
    seen = (age >= -aids.ahead) & (age < transformer.config.window)
    # States after the end still see themselves: without any key their output would be NaN.
    visible = seen & ((at < lengths[:, None, None]) | (age == 0))
    places = Places(cos, sin, at.expand(B, L), visible[:, None], torch.ones(B, dtype=torch.bool))
    nothing = torch.zeros(B, transformer.config.num_heads, 0, 1, dtype=x.dtype)
    after: list[Tensor] = []
    for layer in transformer.layers:
        x = layer(x, KVRing(nothing, nothing), places)
        after.append(x)
    return after


def _turns(rope: Rope, at: Tensor, turned: float) -> tuple[Tensor, Tensor]:
    """Positions [L] -> cosines and sines [1, 1, L, half a head] of `turned` times the angles."""
    if turned == 1.0:
        return rope(at[None])
    pairs = torch.arange(0, rope.head_dim, 2)
    angles = turned * at[:, None] * rope.theta ** (-pairs / rope.head_dim)
    return angles.cos()[None, None], angles.sin()[None, None]
