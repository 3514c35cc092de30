"""What a transformer's layers do between their products: in PyTorch, or by Triton's kernels.

In PyTorch a norm in float32 is nine launches and a gate two. A single stream waits for launches,
not for memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from kiku.engine.gpu.kernel_choice import KernelChoice
from kiku.nn.transformer import FeedForward, RMSNorm, Transformer, TransformerLayer

FUSED = {"enable_fp_fusion": True}
"""Options of a launch: a product and the sum after it may be rounded once. Stated because Triton's
default is going to change."""

_NUMBERS = 1024
"""How many numbers of a row one program of the gate takes."""


@dataclass(frozen=True)
class Between:
    """How norms and feed-forwards are computed; both take and give [R, T, D]."""

    norm: Callable[[nn.Module, Tensor], Tensor]
    feed_forward: Callable[[FeedForward, Tensor], Tensor]


PLAIN = Between(lambda norm, x: norm(x), lambda feed_forward, x: feed_forward(x))


def norm_by_kernel(norm: nn.Module, x: Tensor) -> Tensor:
    """The same as `norm(x)`. Norms other than `RMSNorm` are one launch in PyTorch already."""
    if not isinstance(norm, RMSNorm):
        return norm(x)
    kernels = _kernels()
    x, out, D = x.contiguous(), torch.empty_like(x), x.shape[-1]
    kernels.norm_kernel[(x.numel() // D,)](
        x, norm.weight, out, D, power_of_two(D), norm.eps, **FUSED
    )
    return out


def feed_forward_by_kernel(feed_forward: FeedForward, x: Tensor) -> Tensor:
    """The same as `feed_forward(x)`. Without a gate that is one launch between two products in
    PyTorch already."""
    if not feed_forward.gated:
        return feed_forward(x)
    wide = feed_forward.linear_in(x).contiguous()
    size = wide.shape[-1] // 2
    out = torch.empty((*wide.shape[:-1], size), dtype=wide.dtype, device=wide.device)
    grid = (out.numel() // size, -(-size // _NUMBERS))
    _kernels().gate_kernel[grid](wide, out, size, _NUMBERS, **FUSED)
    return feed_forward.linear_out(out)


BY_KERNEL = Between(norm_by_kernel, feed_forward_by_kernel)


def pick_between(transformer: Transformer, device: torch.device) -> Between:
    """The kernels, if their results are those of PyTorch for this transformer; else PyTorch."""
    layer = cast("Sequence[TransformerLayer]", transformer.layers)[0]
    choice = KernelChoice(
        kernel=lambda: BY_KERNEL,
        fallback=PLAIN,
        compare=lambda: between_fault(layer, device),
        option="attention",
        without="plain",
        warning="norms and gates are plain PyTorch, which is slower",
    )
    return choice.pick(device)


_TOLERANCE = 0.02
"""Greatest difference allowed, in shares of the greatest number: two roundings of 16 bits."""


def between_fault(layer: TransformerLayer, device: torch.device) -> str | None:
    """How the kernels differ from PyTorch for two rows of random numbers; None if they do not."""
    weight = layer.feed_forward.linear_in.weight
    random = torch.Generator(device).manual_seed(0)
    x = torch.randn(2, 1, weight.shape[1], generator=random, device=device).to(weight.dtype)
    worst = torch.zeros((), device=device)
    for ours, plain in (
        (BY_KERNEL.norm(layer.norm1, x), layer.norm1(x)),
        (BY_KERNEL.feed_forward(layer.feed_forward, x), layer.feed_forward(x)),
    ):
        share = (ours.float() - plain.float()).abs().max() / plain.float().abs().max()
        worst = torch.maximum(worst, share)  # NaN, where one is
    error = float(worst)
    return None if error < _TOLERANCE else f"the kernels are off by {error:.2g} from plain PyTorch"


def _kernels() -> Any:
    from kiku.engine.gpu import layer_kernels  # Triton comes with PyTorch for CUDA only

    return layer_kernels


def power_of_two(n: int) -> int:
    """The smallest power of two that is not less than n."""
    return 1 << (n - 1).bit_length()
