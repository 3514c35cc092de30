"""Tensors of safetensors files as PyTorch sees them, mapped: nothing is copied."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kiku.checkpoint.headers import Stored, open_with_library


class MappedTensors:
    """The tensors of several files."""

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        """`stored` is what `headers.read_headers` gave."""
        self.stored = stored
        self._open: dict[Path, Any] = {}

    def mapped(self, name: str) -> Tensor:
        """The tensor as it lies in the file: pages are read when touched, nothing is copied."""
        file = self.stored[name].file
        if file not in self._open:
            self._open[file] = open_with_library(file, framework="pt")
        return self._open[file].get_tensor(name)

    def borrowed(self, names: Iterable[str]) -> list[Tensor]:
        """Tensors as `mapped` gives them, through a separate mapping that ends with the last one.

        For tensors of which only a changed copy is kept: their pages do not stay in memory.
        """
        names = list(names)
        handles = {
            file: open_with_library(file, framework="pt")
            for file in {self.stored[name].file for name in names}
        }
        return [handles[self.stored[name].file].get_tensor(name) for name in names]
