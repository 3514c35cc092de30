"""A convolution that sees only the past."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class ConvState:
    """The inputs that the next window still needs."""

    past: Tensor  # [B, C, P], P = effective kernel - stride
    begun: Tensor  # [B] whether any input has come; replicate padding needs it


class CausalConv1d(nn.Module):
    """A convolution fed in pieces of any whole number of strides."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        padding: Literal["zeros", "replicate"] = "zeros",
    ) -> None:
        """`padding` is what comes before the first input: zeros, or that input repeated."""
        super().__init__()
        self.conv = nn.Conv1d(
            channels_in, channels_out, kernel_size, stride, dilation=dilation, bias=bias
        )
        self.past_size = (kernel_size - 1) * dilation + 1 - stride
        self.padding = padding

    def init_state(
        self, batch_size: int, device: torch.device | str, dtype: torch.dtype
    ) -> ConvState:
        """The state before any input."""
        past = torch.zeros(
            batch_size, self.conv.in_channels, self.past_size, device=device, dtype=dtype
        )
        return ConvState(past, torch.zeros(batch_size, dtype=torch.bool, device=device))

    def forward(self, x: Tensor, state: ConvState, active: Tensor) -> Tensor:
        """[B, C, L] -> [B, C', L / stride]; `state` advances where `active`. Only the last piece of
        a sound may be no multiple of the stride: what is missing is padded."""
        if over := x.shape[-1] % self.conv.stride[0]:
            missing = self.conv.stride[0] - over
            x = F.pad(x, (0, missing), "replicate" if self.padding == "replicate" else "constant")
        if self.past_size == 0:
            return self.conv(x)
        past = state.past
        if self.padding == "replicate":
            # A copy, because the gradient of `where` needs its condition unchanged.
            past = torch.where(state.begun.clone()[:, None, None], past, x[..., :1])
            state.begun.logical_or_(active)
        x = torch.cat([past, x], dim=-1)
        tail = x[..., x.shape[-1] - self.past_size :].detach()
        state.past.copy_(torch.where(active[:, None, None], tail, state.past))
        return self.conv(x)
