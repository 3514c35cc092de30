"""How the numbers of an upstream tensor become ours, and back. Does not know names (`names`).

`read` takes numpy's arrays as well as PyTorch's tensors, and gives the same kind back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from kiku.checkpoint.tensor_shapes import Shape

if TYPE_CHECKING:
    from torch import Tensor

# What both libraries' arrays have in common has no type of its own.
Array = Any
"""A numpy array or a torch.Tensor."""


class Transform(Protocol):
    """A conversion in both directions: `read` undoes what `write` does."""

    copies: ClassVar[bool]
    """Whether `read` gives new memory rather than views of its arguments."""

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """Upstream's arrays -> ours."""
        ...

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """Our tensors -> upstream's."""
        ...

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """The shapes of what `write` gives, from the shapes of what it takes."""
        ...


@dataclass(frozen=True, slots=True)
class Same:
    """The same numbers in the same order."""

    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """[...] -> [...]"""
        return list(theirs)

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """[...] -> [...]"""
        return list(ours)

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """[...] -> [...]"""
        return list(ours)


SAME = Same()


@dataclass(frozen=True, slots=True)
class Unsqueezed:
    """Kyutai's norm weights are [1, 1, D], ours [D]."""

    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """[1, 1, D] -> [D]"""
        return [theirs[0].reshape(-1)]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """[D] -> [1, 1, D]"""
        return [ours[0].view(1, 1, -1)]

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """[D] -> [1, 1, D]"""
        return [(1, 1, *ours[0])]


@dataclass(frozen=True, slots=True)
class StartRow:
    """Kyutai's text table ends with the start id's row; ours may hold it elsewhere."""

    initial_text_id: int
    num_rows: int
    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """[V + 1, D] -> [V + 1, D]"""
        return list(theirs)

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """[rows, D] -> [V + 1, D]"""
        table = ours[0]
        if self.initial_text_id == self.num_rows - 1:
            return [table]
        start = table[self.initial_text_id : self.initial_text_id + 1]
        return [_joined([table[: self.num_rows - 1], start])]

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """[rows, D] -> [V + 1, D]"""
        return [(self.num_rows, *ours[0][1:])]


@dataclass(frozen=True, slots=True)
class OneTable:
    """transformers keeps all embeddings in one table, and a row of zeros at its end."""

    sizes: tuple[int, ...]
    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """[sum(sizes) + 1, D] -> views [size, D] each"""
        ends = np.cumsum(self.sizes).tolist()
        return [theirs[0][end - size : end] for size, end in zip(self.sizes, ends, strict=True)]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """[size, D] each -> [sum(sizes) + 1, D]"""
        return [_joined([*ours, ours[0].new_zeros(1, ours[0].shape[1])])]

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """[size, D] each -> [sum(sizes) + 1, D]"""
        return [(sum(shape[0] for shape in ours) + 1, ours[0][1])]


@dataclass(frozen=True, slots=True)
class HeadRows:
    """transformers' head has a row for every id of the text table; zeros for ids never picked."""

    num_said: int
    num_rows: int
    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """[num_rows, D] -> view [num_said, D]"""
        return [theirs[0][: self.num_said]]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """[num_said, D] -> [num_rows, D]"""
        head = ours[0]
        if self.num_rows == self.num_said:
            return [head]
        return [_joined([head, head.new_zeros(self.num_rows - self.num_said, head.shape[1])])]

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """[num_said, D] -> [num_rows, D]"""
        return [(self.num_rows, *ours[0][1:])]


@dataclass(frozen=True, slots=True)
class SplitHalves:
    """transformers splits q, k, v, and rotates halves of a head where Kyutai (and we) rotate
    neighbouring pairs.

    So the rows of q and k are in another order: theirs has all the even rows of a head, then all
    the odd ones.
    """

    num_heads: int
    copies: ClassVar[bool] = True

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """q, k, v [H * D', D] -> [3 * H * D', D]"""
        rows, dim = theirs[0].shape
        fused = _new_like(theirs[0], (3, rows, dim))
        for part, weight in zip(fused[:2], theirs[:2], strict=True):
            pairs = part.reshape(self.num_heads, -1, 2, dim)  # a view: `fused` is contiguous
            pairs[...] = weight.reshape(self.num_heads, 2, -1, dim).swapaxes(1, 2)
        fused[2] = theirs[2]
        return [fused.reshape(3 * rows, dim)]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """[3 * H * D', D] -> q, k, v [H * D', D]"""
        q, k, v = ours[0].chunk(3)
        turned = [
            weight.reshape(self.num_heads, -1, 2, weight.shape[1])
            .transpose(1, 2)
            .reshape(weight.shape)
            for weight in (q, k)
        ]
        return [*turned, v]

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """[3 * H * D', D] -> q, k, v [H * D', D]"""
        rows, dim = ours[0]
        return [(rows // 3, dim)] * 3


@dataclass(frozen=True, slots=True)
class Centroids:
    """Upstream keeps, for each code, the sum of the vectors assigned to it and their number; we
    keep the quotient.

    Takes, and gives, the sums of all codebooks, then all their counts, then all their flags.
    """

    copies: ClassVar[bool] = True

    def read(self, theirs: Sequence[Array]) -> list[Array]:
        """n x [codes, D], n x [codes], n x [1] -> [n, codes, D] float32"""
        n = len(theirs) // 3
        books = [
            _float32(total) / _float32(count).clip(min=1e-5)[:, None]
            for total, count in zip(theirs[:n], theirs[n : 2 * n], strict=True)
        ]
        return [_joined([book[None] for book in books])]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        """[n, codes, D] -> n x [codes, D], n x [codes] ones, n x [1] ones"""
        import torch

        books = list(ours[0].unbind())
        ones = [book.new_ones(book.shape[0], dtype=torch.float32) for book in books]
        flags = [book.new_ones(1, dtype=torch.float32) for book in books]
        return [*books, *ones, *flags]

    def written(self, ours: Sequence[Shape]) -> list[Shape]:
        """[n, codes, D] -> n x [codes, D], n x [codes], n x [1]"""
        n, codes, dim = ours[0]
        return [(codes, dim)] * n + [(codes,)] * n + [(1,)] * n


def _joined(parts: Sequence[Array]) -> Array:
    """One array of all rows."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(list(parts))


def _new_like(array: Array, shape: Shape) -> Array:
    """Contiguous memory for numbers of the same type."""
    return np.empty(shape, array.dtype) if isinstance(array, np.ndarray) else array.new_empty(shape)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]


def _float32(array: Array) -> Array:
    return array.astype(np.float32) if isinstance(array, np.ndarray) else array.float()  # pyright: ignore[reportUnknownVariableType]
