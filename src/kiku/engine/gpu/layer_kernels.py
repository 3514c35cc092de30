# pyright: basic, reportMissingImports=false
# What Triton gives is not typed, and it comes with PyTorch for CUDA only.
"""What a layer does between its products, as Triton kernels: its norms, and the gate.

Names in capitals are known when a kernel is compiled.
"""

import triton
import triton.language as tl


@triton.jit
def norm_kernel(x, weight, out, D: tl.constexpr, WIDTH: tl.constexpr, EPS: tl.constexpr):
    """One row [D] of `RMSNorm`, in float32. WIDTH is the power of two from D."""
    places = tl.arange(0, WIDTH)
    inside = places < D
    at = tl.program_id(0) * D + places
    wide = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + places, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / D + EPS)
    tl.store(out + at, wide * (gain * scale), mask=inside)


@triton.jit
def gate_kernel(x, out, F: tl.constexpr, N: tl.constexpr):
    """N numbers of a row: x [2 * F] -> out [F], `silu(first half) * second half`. As in PyTorch,
    what `silu` gives is rounded to the dtype of x."""
    row = tl.program_id(0)
    places = tl.program_id(1) * N + tl.arange(0, N)
    inside = places < F
    gate = tl.load(x + row * (2 * F) + places, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + row * (2 * F) + F + places, mask=inside, other=0.0).to(tl.float32)
    opened = (gate / (1 + tl.exp(-gate))).to(x.dtype.element_ty).to(tl.float32)
    tl.store(out + row * F + places, opened * value, mask=inside)
