"""The dtype of computations in training: bfloat16 if the processor supports it, else float32."""

import contextlib
from functools import cache

import torch


@cache
def compute_dtype() -> torch.dtype:
    """bfloat16 on processors with instructions for it, else float32.

    Without instructions bfloat16 is emulated, and takes twice the time of float32.
    """
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def lowered() -> contextlib.AbstractContextManager[object]:
    """Autocast to `compute_dtype`; no effect if that is float32."""
    if compute_dtype() is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast("cpu", compute_dtype())
