"""SEANet's encoder: sound to latents at the transformer's rate, by strided convolutions."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.config import CodecConfig
from kiku.nn.conv import CausalConv1d, ConvState


def as_stored(device: torch.device) -> AbstractContextManager[object]:
    """In it everything is computed in the dtype that it is stored in, whatever `torch.autocast` the
    caller is in: with less than float32 the codes are others."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


@dataclass
class ResidualState:
    """Of the two convolutions of a `Residual`."""

    wide: ConvState
    narrow: ConvState


class Residual(nn.Module):
    """`x + conv(elu(conv(elu(x))))`: down to fewer channels with a wide kernel, and back with a
    kernel of 1."""

    def __init__(self, channels: int, config: CodecConfig, depth: int) -> None:
        """`depth` is the block's number within its stage; the dilation grows with it."""
        super().__init__()
        hidden = channels // config.compress
        dilation = config.dilation_growth**depth
        self.wide = CausalConv1d(channels, hidden, config.residual_kernel_size, dilation=dilation)
        self.narrow = CausalConv1d(hidden, channels, 1)

    def init_state(
        self, batch_size: int, device: torch.device | str, dtype: torch.dtype
    ) -> ResidualState:
        """Nothing heard yet."""
        return ResidualState(
            self.wide.init_state(batch_size, device, dtype),
            self.narrow.init_state(batch_size, device, dtype),
        )

    def forward(self, x: Tensor, state: ResidualState, active: Tensor) -> Tensor:
        """[B, C, L] -> [B, C, L]"""
        branch = self.wide(F.elu(x), state.wide, active)
        return x + self.narrow(F.elu(branch), state.narrow, active)


@dataclass
class StageState:
    """Of the parts of a `Stage`."""

    residuals: list[ResidualState]
    down: ConvState


class Stage(nn.Module):
    """Residual blocks, then a strided convolution that doubles the channels."""

    def __init__(self, channels: int, stride: int, config: CodecConfig) -> None:
        """From `channels` to twice as many, `stride` times slower."""
        super().__init__()
        self.residuals = nn.ModuleList(
            Residual(channels, config, depth) for depth in range(config.num_residual_layers)
        )
        self.down = CausalConv1d(channels, 2 * channels, 2 * stride, stride=stride)

    def init_state(
        self, batch_size: int, device: torch.device | str, dtype: torch.dtype
    ) -> StageState:
        """Nothing heard yet."""
        return StageState(
            [block.init_state(batch_size, device, dtype) for block in self.residuals],  # pyright: ignore
            self.down.init_state(batch_size, device, dtype),
        )

    def forward(self, x: Tensor, state: StageState, active: Tensor) -> Tensor:
        """[B, C, L] -> [B, 2 C, L / stride]"""
        for block, past in zip(self.residuals, state.residuals, strict=True):
            x = block(x, past, active)
        return self.down(F.elu(x), state.down, active)


@dataclass
class SEANetState:
    """Of the parts of a `SEANet`."""

    first: ConvState
    stages: list[StageState]
    last: ConvState


class SEANet(nn.Module):
    """The convolutional encoder of EnCodec and Mimi, causal."""

    def __init__(self, config: CodecConfig) -> None:
        """Channels start at `num_filters` and double with each stride."""
        super().__init__()
        channels = config.num_filters
        self.first = CausalConv1d(1, channels, config.kernel_size)
        self.stages = nn.ModuleList()
        for stride in config.strides:
            self.stages.append(Stage(channels, stride, config))
            channels *= 2
        self.last = CausalConv1d(channels, config.latent_dim, config.last_kernel_size)

    def init_state(
        self, batch_size: int, device: torch.device | str, dtype: torch.dtype
    ) -> SEANetState:
        """Nothing heard yet."""
        return SEANetState(
            self.first.init_state(batch_size, device, dtype),
            [stage.init_state(batch_size, device, dtype) for stage in self.stages],  # pyright: ignore
            self.last.init_state(batch_size, device, dtype),
        )

    def forward(self, pcm: Tensor, state: SEANetState, active: Tensor) -> Tensor:
        """[B, 1, S] samples -> [B, D, S / hop] latents"""
        with as_stored(pcm.device):
            x = self.first(pcm, state.first, active)
            for stage, past in zip(self.stages, state.stages, strict=True):
                x = stage(x, past, active)
            return self.last(F.elu(x), state.last, active)
