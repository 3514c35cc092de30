"""Write a safetensors file tensor by tensor.

Of tensors in parts on several processes, or on a GPU, at most one is whole in memory at a time.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from kiku.train.sharding import gathered

_KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNED = 8
"""Bytes; the header's length is a multiple of this."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file. If tensors are in parts, the other processes call `give_parts` meanwhile.

    Args:
        path: the file, which is replaced.
        tensors: tensors of float32, bfloat16 or float16, by name.
        metadata: values for the header.

    Raises:
        OSError: it cannot be written.
    """
    # Wide dtypes first, so that each tensor begins at a multiple of its element's size.
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
            plain = gathered(tensors[name].detach()).to("cpu").contiguous()
            file.write(plain.reshape(-1).view(torch.uint8).numpy().data)


def give_parts(tensors: Mapping[str, Tensor]) -> None:
    """Give this process's parts of tensors while another process calls `write_tensors`."""
    for name in sorted(tensors, key=lambda name: -tensors[name].element_size()):
        gathered(tensors[name].detach())
