"""The options of the GPU engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kiku.config import PAD_ID
from kiku.engine.gpu.attention import ATTENTIONS
from kiku.engine.gpu.draws import SAMPLINGS
from kiku.engine.gpu.launches import ROWS
from kiku.engine.gpu.rings import RING_DTYPES
from kiku.engine.gpu.room import SIZES
from kiku.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """How a `CudaBackend` computes."""

    kv: str = "auto"
    """The dtype in which the decoder's keys and values are kept: "float32", "bfloat16", "float16",
    "float8" (e4m3, with a scale for each key and value); "auto" is the dtype of the weights."""
    attention: str = "auto"
    """Whether attention is by Triton's kernels ("triton") or in plain PyTorch ("plain"); "auto"
    takes the kernels on a CUDA device where they work."""
    sampling: str = "auto"
    """Where tokens are drawn by chance: on the device by a Triton kernel ("triton") or in plain
    PyTorch ("plain"), or on the host ("host"). On a CUDA device "auto" takes the kernel where it
    works, and the host where not; on a processor it takes plain PyTorch. Tokens are the same but
    at the last digits of `top_p`, where sums of another order may decide otherwise."""
    graphs: bool | None = None
    """Record CUDA graphs; None does so on a CUDA device."""
    tf32: bool = False
    """Let the codec's products round to TF32: quicker, but some codes differ."""
    guess: int = PAD_ID
    """The token that most frames have: the guess for the text after a frame. It changes no
    token."""
    sizes: Sequence[int] = SIZES
    """Numbers of frames, or columns, that a call may take of each slot; ascending from 1. More
    sizes need more graphs."""
    rows: Sequence[int] = ROWS
    """Numbers of slots that a call may take, besides all of them. More of them need more graphs."""
    memory_bytes: int | None = None
    """Bytes on the device that slots may take besides the weights; None is all that is free."""

    def check(self, device: torch.device) -> None:
        """Raise if the options are invalid, or the device has no graphs to record.

        Raises:
            ConfigError: there is no such dtype, attention or sampling, a size of calls is invalid,
                or graphs are asked for on a device that has none.
        """
        if self.graphs and device.type != "cuda":
            raise ConfigError(
                f"graphs=True records CUDA graphs, but the device is {str(device)!r}; leave "
                "graphs out, or use device='cuda'"
            )
        if self.kv not in ("auto", *RING_DTYPES):
            known = ", ".join(RING_DTYPES)
            raise ConfigError(f"kv must be one of {known}, not {self.kv!r}")
        if self.attention not in ATTENTIONS:
            known = ", ".join(ATTENTIONS)
            raise ConfigError(f"attention must be one of {known}, not {self.attention!r}")
        if self.sampling not in SAMPLINGS:
            known = ", ".join(SAMPLINGS)
            raise ConfigError(f"sampling must be one of {known}, not {self.sampling!r}")
        sizes, rows = list(self.sizes), list(self.rows)
        if sizes != sorted(set(sizes)) or sizes[:1] != [1]:
            raise ConfigError(f"sizes of calls must ascend from 1, such as {SIZES}, not {sizes}")
        if any(n < 1 for n in rows):
            raise ConfigError(f"a call takes one row or more, not {min(rows)}")
