"""How the numbers of an upstream tensor become ours, and back. The names are the business of
`names`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Conversion(Protocol):
    """Both directions; what `read` undoes, `write` does. Works on the meta device too."""

    copies: ClassVar[bool]
    """Whether `read` gives new memory rather than views of what it was given."""

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """Upstream's tensors -> ours."""
        ...

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """Our tensors -> upstream's."""
        ...


@dataclass(frozen=True, slots=True)
class Same:
    """The same numbers in the same order."""

    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """[...] -> [...]"""
        return list(theirs)

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """[...] -> [...]"""
        return list(ours)


SAME = Same()


@dataclass(frozen=True, slots=True)
class Unsqueezed:
    """Kyutai's norm weights are [1, 1, D], ours [D]."""

    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """[1, 1, D] -> [D]"""
        return [theirs[0].reshape(-1)]

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """[D] -> [1, 1, D]"""
        return [ours[0].view(1, 1, -1)]


@dataclass(frozen=True, slots=True)
class StartRow:
    """Kyutai's text table ends with the start id's row; ours may hold it elsewhere."""

    initial_text_id: int
    num_rows: int
    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """[V + 1, D] -> [V + 1, D]"""
        return list(theirs)

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """[rows, D] -> [V + 1, D]"""
        table = ours[0]
        if self.initial_text_id == self.num_rows - 1:
            return [table]
        start = table[self.initial_text_id : self.initial_text_id + 1]
        return [torch.cat([table[: self.num_rows - 1], start])]


@dataclass(frozen=True, slots=True)
class OneTable:
    """transformers keeps all embeddings in one table, and a row of zeros at its end."""

    sizes: tuple[int, ...]
    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """[sum(sizes) + 1, D] -> views [size, D] each"""
        return list(theirs[0].split([*self.sizes, 1]))[:-1]

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """[size, D] each -> [sum(sizes) + 1, D]"""
        return [torch.cat([*ours, ours[0].new_zeros(1, ours[0].shape[1])])]


@dataclass(frozen=True, slots=True)
class HeadRows:
    """transformers' head has a row for every id of the text table; zeros where it is never said."""

    num_said: int
    num_rows: int
    copies: ClassVar[bool] = False

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """[num_rows, D] -> view [num_said, D]"""
        return [theirs[0][: self.num_said]]

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """[num_said, D] -> [num_rows, D]"""
        head = ours[0]
        if self.num_rows == self.num_said:
            return [head]
        return [torch.cat([head, head.new_zeros(self.num_rows - self.num_said, head.shape[1])])]


@dataclass(frozen=True, slots=True)
class SplitHalves:
    """transformers splits q, k, v, and rotates halves of a head where Kyutai (and we) rotate
    neighbouring pairs.

    So the rows of q and k are in another order: theirs has all the even rows of a head, then all
    the odd ones.
    """

    num_heads: int
    copies: ClassVar[bool] = True

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """q, k, v [H * D', D] -> [3 * H * D', D]"""
        rows, dim = theirs[0].shape
        fused = theirs[0].new_empty(3, rows, dim)
        for part, weight in zip(fused[:2], theirs[:2], strict=True):
            part.view(self.num_heads, -1, 2, dim).copy_(
                weight.view(self.num_heads, 2, -1, dim).transpose(1, 2)
            )
        fused[2].copy_(theirs[2])
        return [fused.view(3 * rows, dim)]

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """[3 * H * D', D] -> q, k, v [H * D', D]"""
        q, k, v = ours[0].chunk(3)
        turned = [
            weight.reshape(self.num_heads, -1, 2, weight.shape[1])
            .transpose(1, 2)
            .reshape(weight.shape)
            for weight in (q, k)
        ]
        return [*turned, v]


@dataclass(frozen=True, slots=True)
class Centroids:
    """Upstream keeps sums of what was assigned to each code and how often; we keep the quotient.

    Takes, and gives, the sums of all codebooks, then all their counts, then all their flags.
    """

    copies: ClassVar[bool] = True

    def read(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        """n x [codes, D], n x [codes], n x [1] -> [n, codes, D] float32"""
        n = len(theirs) // 3
        books = [
            total.float() / count.float().clamp(min=1e-5)[:, None]
            for total, count in zip(theirs[:n], theirs[n : 2 * n], strict=True)
        ]
        return [torch.stack(books)]

    def write(self, ours: Sequence[Tensor]) -> list[Tensor]:
        """[n, codes, D] -> n x [codes, D], n x [codes] ones, n x [1] ones"""
        books = list(ours[0].unbind())
        ones = [book.new_ones(book.shape[0], dtype=torch.float32) for book in books]
        flags = [book.new_ones(1, dtype=torch.float32) for book in books]
        return [*books, *ones, *flags]
