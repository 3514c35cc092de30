# pyright: basic
# What torch gives is only partly typed.
"""Weights in parts: each of several processes keeps its rows of every tensor, and has a layer or a
table whole only while it computes with it (torch's FSDP2, `fully_shard`).

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
    """Cut a module's weights into parts, in place, layer by layer and table by table: each goes to
    the device as the part that this process keeps.

    Every process must hold the same weights. Gradients and whatever is made of the weights (an
    optimizer's moments, a mean) come in such parts, too; gradients are means over the processes.

    Args:
        module: what is called; it has all other weights whole while it computes.
        lm: the decoder in it.
        device: of this process.
        count: processes.
    """
    mesh = init_device_mesh(torch.device(device).type, (count,))
    for layer in lm.transformer.layers:
        fully_shard(layer, mesh=mesh)
    # Each table by itself: together they are more than several layers.
    for table in (lm.text_embedding, *lm.code_embeddings):
        # The gradient of looking up a row asks for no row.
        fully_shard(table, mesh=mesh).set_unshard_in_backward(False)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor in parts put together, on every process: all must ask for it. Others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, values: Tensor) -> None:
    """Give a tensor these values, of which every process has the whole; each takes its part."""
    with torch.no_grad():
        tensor.copy_(_part(values, tensor) if isinstance(tensor, DTensor) else values)


def _part(values: Tensor, like: DTensor) -> Tensor:
    # The source is no process: each has all, and none needs to be told.
    there = values.to(device=like.device, dtype=like.dtype)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
@torch.no_grad()
def with_values(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Generator[None]:
    """Weights in parts with other values for the time of the block, between two steps; they come
    back bit by bit."""
    held = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        for name, weight in weights.items():
            weight.copy_(values[name])
        yield
    finally:
        for name, weight in weights.items():
            weight.copy_(held[name])


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` has been here."""
    return isinstance(module, FSDPModule)
