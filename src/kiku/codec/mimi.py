"""Mimi's encoder: sound to codes. Its decoder, for synthesis, is not built."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kiku.codec.rvq import SplitRVQ
from kiku.codec.seanet import SEANet, SEANetState, as_stored
from kiku.config import CodecConfig, whole_frames
from kiku.nn.conv import CausalConv1d, ConvState
from kiku.nn.transformer import Transformer, TransformerState


@dataclass
class MimiState:
    """Of the three remembering parts of a `MimiEncoder`."""

    seanet: SEANetState
    transformer: TransformerState
    downsample: ConvState


class MimiEncoder(nn.Module):
    """Sound to codes: SEANet, a small transformer, a downsampling convolution and the split RVQ
    (arXiv 2410.00037).

    Causal throughout, so the codes do not depend on how the sound is cut into calls. They equal
    those that both reference implementations give offline, at every frame: a frame is two positions
    of the transformer, and its ring is wide enough that neither loses its oldest key.
    """

    def __init__(self, config: CodecConfig) -> None:
        """Random weights; `checkpoint` fills in real ones."""
        super().__init__()
        self.config = config
        self.seanet = SEANet(config)
        self.transformer = Transformer(config.transformer)
        self.downsample = CausalConv1d(
            config.latent_dim,
            config.latent_dim,
            2 * config.downsample,
            stride=config.downsample,
            bias=False,
            padding="replicate",
        )
        self.quantizer = SplitRVQ(config)

    def init_state(
        self,
        batch_size: int,
        device: torch.device | str,
        dtype: torch.dtype,
        *,
        remember: bool = True,
        longest: int | None = None,
    ) -> MimiState:
        """Nothing heard yet. With `remember=False`: for one whole sequence in one call, nothing
        kept. `longest` says how many frames a slot hears at most; None is any number."""
        if longest is not None:
            longest *= self.config.transformer.positions_per_frame
        return MimiState(
            self.seanet.init_state(batch_size, device, dtype),
            self.transformer.init_state(
                batch_size, device, dtype, remember=remember, longest=longest
            ),
            self.downsample.init_state(batch_size, device, dtype),
        )

    def latents(self, pcm: Tensor, state: MimiState, active: Tensor) -> Tensor:
        """Encode whole frames, up to the quantiser.

        Args:
            pcm: [B, 1, T * frame_size] samples in [-1, 1].
            state: what is remembered of each slot; advanced in place where `active`.
            active: [B] which slots are given sound now; the others keep their state.

        Returns:
            [B, D, T]. Rows of inactive slots hold no meaning.

        Raises:
            FrameError: `pcm` is not a whole number of frames.
        """
        whole_frames(pcm.shape[-1], self.config.frame_size)
        return self._latents(pcm, state, active)

    def _latents(self, pcm: Tensor, state: MimiState, active: Tensor) -> Tensor:
        with as_stored(pcm.device):
            x = self.seanet(pcm, state.seanet, active)  # [B, D, T * downsample]
            x = self.transformer(x.transpose(1, 2), state.transformer, active).transpose(1, 2)
            return self.downsample(x, state.downsample, active)

    def forward(self, pcm: Tensor, state: MimiState, active: Tensor) -> Tensor:
        """As `latents`, and quantised: [B, K, T] int64, semantic codebooks first."""
        whole_frames(pcm.shape[-1], self.config.frame_size)
        return self.ended(pcm, state, active)

    def ended(self, pcm: Tensor, state: MimiState, active: Tensor) -> Tensor:
        """As `forward`, of a sound that ends there, in a frame that may not be filled: each layer
        pads what it lacks, as both reference implementations do. The state means nothing then."""
        with as_stored(pcm.device):
            return self.quantizer.encode(self._latents(pcm, state, active))
