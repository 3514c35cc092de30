# pyright: basic
# What torch gives is only partly typed.
"""A safetensors file written tensor by tensor: of tensors that lie in parts on several processes,
or on a GPU, no more than one is ever whole in memory.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from kiku.train.sharding import whole

_KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNED = 8
"""Bytes of which the header's length is a multiple."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file. Where tensors are in parts, the other processes call `give_parts` meanwhile.

    Args:
        path: replaced.
        tensors: of float32, bfloat16 or float16, by name.
        metadata: goes into the header.

    Raises:
        OSError: it cannot be written.
    """
    # Wide numbers first, so that each begins at a multiple of its width.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in order:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end],
        }  # fmt: skip
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            plain = whole(tensors[name].detach()).to("cpu").contiguous()
            file.write(plain.reshape(-1).view(torch.uint8).numpy().data)


def give_parts(tensors: Mapping[str, Tensor]) -> None:
    """Do this process's share while another one calls `write_tensors` with its parts of these."""
    for name in sorted(tensors, key=lambda name: -tensors[name].element_size()):
        whole(tensors[name].detach())
