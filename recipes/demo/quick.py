"""SEANet over whole strings: the same function as `SEANet.forward`, but fast in training on a CPU.

The backward pass of a strided convolution is slow there (half the time of a step). As its kernel is
two strides long, it equals a convolution with a kernel of 2 over blocks of one stride, whose
backward pass is fast.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.codec.seanet import Residual, SEANet, Stage
from kiku.nn.conv import CausalConv1d

_WIDE = 300
"""Channels of a block from which on the matrix product is faster (measured)."""


def down(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """A causal convolution whose kernel is two strides: [B, C, L] -> [B, C', L / stride]."""
    stride = conv.stride[0]
    assert conv.kernel_size[0] == 2 * stride
    B, C, L = x.shape
    blocks = x.view(B, C, L // stride, stride).transpose(2, 3).reshape(B, C * stride, L // stride)
    weight = conv.weight.view(-1, C, 2, stride).transpose(2, 3).reshape(-1, C * stride, 2)
    if C * stride < _WIDE:
        return F.conv1d(F.pad(blocks, (1, 0)), weight, conv.bias)
    # With many channels and few positions a plain matrix product is faster still.
    rows = F.pad(blocks.transpose(1, 2), (0, 0, 1, 0))
    pairs = torch.cat([rows[:, :-1], rows[:, 1:]], dim=-1)
    return F.linear(pairs, weight.transpose(1, 2).flatten(1), conv.bias).transpose(1, 2)


def _same(x: Tensor, module: CausalConv1d) -> Tensor:
    return module.conv(F.pad(x, (module.past_size, 0)) if module.past_size else x)


def seanet_whole(seanet: SEANet, pcm: Tensor) -> Tensor:
    """[B, 1, S] samples from their beginning -> [B, D, S / hop]"""
    x = _same(pcm, seanet.first)
    for stage in seanet.stages:
        assert isinstance(stage, Stage)
        for block in stage.residuals:
            assert isinstance(block, Residual)
            x = x + _same(F.elu(_same(F.elu(x), block.wide)), block.narrow)
        x = down(F.elu(x), stage.down.conv)
    return _same(F.elu(x), seanet.last)
