# pyright: basic
# What torch gives is only partly typed.
"""Several processes, started by `torchrun`, that train one model together; or a single one."""

import itertools
import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from kiku.train.settings import TrainSettings
from kiku.train.sharding import is_sharded


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's rank, and the number of processes."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def in_parts(self, train: TrainSettings) -> bool:
        """Whether weights are kept in parts on the processes."""
        return train.shard and self.count > 1

    def device(self, name: str) -> str:
        """The device of this process: each has a GPU of its own."""
        return f"cuda:{self.local_rank}" if self.count > 1 and name == "cuda" else name

    def wrapped(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over all processes."""
        if self.count == 1 or is_sharded(module):
            return module
        on_gpu = next(module.parameters()).is_cuda
        return DistributedDataParallel(module, device_ids=[self.local_rank] if on_gpu else None)

    def unsynchronised(self, module: nn.Module, *, when: bool) -> AbstractContextManager[object]:
        """A context in which gradients are only accumulated, without exchange between processes.

        It has no effect unless `when`, nor if weights are in parts: their gradients would then be
        kept whole in the meantime.
        """
        if when and isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()

    def summed(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The sums over all processes of numbers by name."""
        stacked = torch.stack([value.detach().double() for value in values.values()])
        if self.count > 1:
            distributed.all_reduce(stacked)
        return dict(zip(values, stacked.tolist(), strict=True))


@contextmanager
def started(device: str) -> Generator[Processes]:
    """This process among those that `torchrun` started; a single one if it started none."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    found = Processes(int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", "0")))
    if device.startswith("cuda"):
        torch.cuda.set_device(found.local_rank)
    distributed.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        store=_store_of_one_group(), rank=found.rank, world_size=count,
    )  # fmt: skip
    try:
        yield found
    finally:
        distributed.destroy_process_group()


_groups = itertools.count()
"""Numbers of the process groups; every process starts the same groups in the same order."""


@cache
def _store() -> Store:
    """The store through which the processes find each other; made once in each process."""
    store, _, _ = next(iter(rendezvous("env://")))
    return store


def _store_of_one_group() -> Store:
    """The store with keys of its own for the next group. With the same keys a group would find the
    addresses of the group before, where nobody listens any more, and wait forever."""
    return PrefixStore(f"kiku/{next(_groups)}", _store())
