"""What lies in safetensors files: names and shapes at once, the numbers only when asked for."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from kiku.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file."""

    file: Path
    dtype: str
    """As safetensors spells it: "BF16", "F32"."""
    shape: tuple[int, ...]
    num_bytes: int


class TensorFiles:
    """Several safetensors files seen as one set of tensors."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the headers only.

        Raises:
            CheckpointError: a file is damaged or cut short, or two files hold the same tensor.
        """
        self.stored: dict[str, Stored] = {}
        self._open: dict[Path, Any] = {}
        for path in paths:
            for name, stored in read_header(path).items():
                if name in self.stored:
                    raise CheckpointError(
                        f"{name} is both in {self.stored[name].file} and in {path}"
                    )
                self.stored[name] = stored

    def mapped(self, name: str) -> Tensor:
        """The tensor as it lies in the file: pages are read when touched, nothing is copied."""
        file = self.stored[name].file
        if file not in self._open:
            self._open[file] = _open(file)
        return self._open[file].get_tensor(name)

    def borrowed(self, names: Sequence[str]) -> list[Tensor]:
        """The same, through a mapping of its own, which ends with the last of these tensors.

        For tensors of which a changed copy is kept: their pages do not stay in memory.
        """
        handles = {file: _open(file) for file in {self.stored[name].file for name in names}}
        return [handles[self.stored[name].file].get_tensor(name) for name in names]

    def last_row(self, name: str) -> Tensor:
        """The last row of a matrix, without touching the rest."""
        stored = self.stored[name]
        return _open(stored.file).get_slice(name)[stored.shape[0] - 1 :]


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file, by name.

    Raises:
        CheckpointError: it is not a safetensors file, or is cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start.startswith(b"version "):
                raise CheckpointError(
                    f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull`"
                )
            if len(start) < 8 or not 2 <= length <= _MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"{path} is not a safetensors file ({size:,} bytes); download it again"
                )
            if size < 8 + length:
                raise CheckpointError(
                    f"{path} is cut short: {size:,} bytes, its header alone has {8 + length:,}"
                )
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = {
            name: Stored(
                path,
                str(t["dtype"]),
                tuple(t["shape"]),
                t["data_offsets"][1] - t["data_offsets"][0],
            )
            for name, t in header.items()
        }
        wanted = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e.strerror or e}") from e
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise CheckpointError(
            f"{path} is not a safetensors file: its header is damaged; download it again"
        ) from e
    if size != wanted:
        what = "cut short" if size < wanted else "too long"
        raise CheckpointError(
            f"{path} is {what}: {size:,} bytes, its header promises {wanted:,}; download it again"
        )
    _open(path)  # the library checks that the tensors fill the file without gap or overlap
    return found


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")  # pyright: ignore[reportNoOverloadImplementation]
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path} is damaged ({e}); download it again") from e
