"""Weights in parts on several processes, by torch's FSDP2 (`fully_shard`).

Each process keeps its rows of every tensor, and has a layer or a table whole only while it computes
with it.

Knows modules and tensors; does not know what is trained.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from kiku.lm import LM


def shard(module: nn.Module, lm: LM, device: str, count: int) -> None:
    """Cut a module's weights into parts, in place, layer by layer and table by table.

    Only the part that this process keeps goes to the device. Every process must hold the same
    weights. Gradients and tensors made from the weights (an optimizer's moments, a mean) are in
    parts, too; gradients are means over the processes.

    Args:
        module: the module that is called; it has all other weights whole while it computes.
        lm: the decoder in it.
        device: device of this process.
        count: number of processes.
    """
    mesh = init_device_mesh(torch.device(device).type, (count,))
    for layer in lm.transformer.layers:
        fully_shard(layer, mesh=mesh)
    # Each table by itself: together they are more than several layers.
    for table in (lm.text_embedding, *lm.code_embeddings):
        # The gradient of looking up a row needs no row of the table.
        fully_shard(table, mesh=mesh).set_unshard_in_backward(False)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor in parts, on every process: all must call it. Other tensors: as is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy values into a tensor. Every process has all values, and takes its part of them."""
    with torch.no_grad():
        tensor.copy_(_part(values, tensor) if isinstance(tensor, DTensor) else values)


def _part(values: Tensor, like: DTensor) -> Tensor:
    # No process sends values to others: each has all of them.
    there = values.to(device=like.device, dtype=like.dtype)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
@torch.no_grad()
def with_values(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Generator[None]:
    """Give weights in parts other values during the block, between two steps.

    Afterwards they have their old values, bit by bit.
    """
    held = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        for name, weight in weights.items():
            weight.copy_(values[name])
        yield
    finally:
        for name, weight in weights.items():
            weight.copy_(held[name])


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was called on the module."""
    return isinstance(module, FSDPModule)
