"""How bytes go between host and device: what a GPU needs for it, asked for where there is none."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kiku.engine.gpu.trays import Buffers, Tray


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_hosts_side_of_a_gpus_buffers_is_pinned(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From other memory a copy waits for the device."""
    asked: list[tuple[bool, str]] = []
    empty = torch.empty

    def noted(size: int, *, dtype: torch.dtype, pin_memory: bool = False, device: Any = "cpu"):
        asked.append((pin_memory, torch.device(device).type))
        return empty(size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", noted)
    Buffers(256, torch.device(device))
    assert asked == [(device == "cuda", "cpu"), (False, device)]


def test_a_copy_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = Buffers(1024, torch.device("cpu"))
    tray = Tray({"first": ((2,), torch.int64), "second": ((3,), torch.float32)}, buffers)
    copies: list[bool] = []
    copy = Tensor.copy_

    def noted(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        copies.append(non_blocking)
        return copy(self, source, non_blocking)

    monkeypatch.setattr(Tensor, "copy_", noted)
    tray.host["first"][:], tray.host["second"][:] = (3, 4), 5
    tray.send()
    assert tray.device["first"].tolist() == [3, 4]
    tray.device["second"].fill_(6)
    tray.fetch(256)
    assert np.array_equal(tray.host["second"], [5, 5, 5])  # lies behind the first 256 bytes
    tray.fetch()
    assert np.array_equal(tray.host["second"], [6, 6, 6])
    assert copies == [True] * 3
