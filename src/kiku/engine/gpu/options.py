"""What may be chosen of the GPU engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kiku.config import PAD_ID
from kiku.engine.gpu.attention import ATTENTIONS
from kiku.engine.gpu.launches import ROWS
from kiku.engine.gpu.rings import RING_DTYPES
from kiku.engine.gpu.room import SIZES
from kiku.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """How a `CudaBackend` computes."""

    kv: str = "auto"
    """What the decoder's keys and values are kept in: "float32", "bfloat16", "float16", "float8"
    (e4m3, with a scale for each); "auto" is the dtype of the weights."""
    attention: str = "auto"
    """By Triton's kernels ("triton") or in plain PyTorch ("plain"); "auto" takes the kernels on a
    CUDA device where they work."""
    graphs: bool | None = None
    """Record CUDA graphs; None does so on a CUDA device."""
    tf32: bool = False
    """Let the codec's products round to TF32: quicker, but some codes differ."""
    guess: int = PAD_ID
    """The token that most frames have: what is guessed behind a frame; changes no token."""
    sizes: Sequence[int] = SIZES
    """Frames, or columns, that a call takes of each slot; ascending, 1 among them. More sizes take
    more graphs."""
    rows: Sequence[int] = ROWS
    """Slots that a call takes, beside all of them; likewise."""
    memory_bytes: int | None = None
    """Of the device, that slots may take beside the weights; None is all that is free."""

    def check(self, device: torch.device) -> None:
        """Raise where they cannot be on that device.

        Raises:
            ConfigError: there is no such dtype, or calls of such sizes cannot be, or no graphs.
        """
        if self.graphs and device.type != "cuda":
            raise ConfigError(
                f"graphs=True records CUDA graphs, and the device is {str(device)!r}; leave graphs "
                "out, or take device='cuda'"
            )
        if self.kv not in ("auto", *RING_DTYPES):
            known = ", ".join(RING_DTYPES)
            raise ConfigError(f"keys and values are kept in {known}, not in {self.kv!r}")
        if self.attention not in ATTENTIONS:
            known = ", ".join(ATTENTIONS)
            raise ConfigError(f"attention is one of {known}, not {self.attention!r}")
        sizes, rows = list(self.sizes), list(self.rows)
        if sizes != sorted(set(sizes)) or sizes[:1] != [1]:
            raise ConfigError(f"sizes of calls must ascend from 1, as {SIZES} do; not {sizes}")
        if any(n < 1 for n in rows):
            raise ConfigError(f"a call takes one row or more, not {min(rows)}")
