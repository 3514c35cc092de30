# pyright: basic
# What torch gives is only partly typed.
"""Rows of the text tables that are trained beside frozen ones: those of a vocabulary's new pieces.

`kiku train vocab` says in the model's folder which these are; `lora.new_pieces` says it otherwise.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kiku.checkpoint import Loaded
from kiku.errors import TrainingError
from kiku.lm import LM
from kiku.train.durable import durable

FILE = "kiku_vocabulary.json"
_FORMAT = "kiku vocabulary 1"

TABLES = ("text_embedding", "text_head")
"""Parts of the decoder that have a row for each piece."""


def write_new_pieces(folder: Path, new: range, of: str) -> None:
    """Say in a model's folder which of its pieces know nothing yet.

    Args:
        folder: of the model.
        new: their ids.
        of: the model whose vocabulary it was.
    """
    values = {"format": _FORMAT, "first": new.start, "count": len(new), "of": of}
    with durable(folder / FILE) as beside:
        beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def new_pieces_of(loaded: Loaded, wanted: int) -> range:
    """The ids of the pieces whose rows are to be trained.

    Args:
        loaded: the model.
        wanted: how many, the last of its vocabulary; -1 are those that its folder names.

    Raises:
        TrainingError: there are not so many, or the file in its folder is damaged.
    """
    size = len(loaded.vocabulary)
    if wanted >= 0:
        if wanted > size:
            raise TrainingError(f"lora.new_pieces is {wanted}, but there are {size} pieces")
        return range(size - wanted, size)
    path = loaded.files.config.parent / FILE
    if not path.exists():
        return range(0)
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = range(int(values["first"]), int(values["first"]) + int(values["count"]))
        if values["format"] != _FORMAT or not 0 <= found.start <= found.stop == size:
            raise ValueError(f"it names the pieces {found.start} to {found.stop} of {size}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} does not fit the model's vocabulary ({error}): make the folder anew with  "
            "kiku train vocab , or say lora.new_pieces"
        ) from error
    return found


class NewRows(nn.Module):
    """A frozen table with some rows that are trained: of an embedding, or of a head."""

    def __init__(self, base: nn.Embedding | nn.Linear, new: range) -> None:
        """The rows begin as what the table holds."""
        super().__init__()
        self.base, self.first = base, new.start
        self.rows = nn.Parameter(base.weight.detach()[new.start : new.stop].float().clone())

    @property
    def ids(self) -> range:
        """Of the pieces whose rows they are."""
        return range(self.first, self.first + len(self.rows))

    def forward(self, x: Tensor) -> Tensor:
        """Embedding: ids [...] -> [..., D]. Head: [..., D] -> [..., V]."""
        last = self.ids.stop
        y = self.base(x)
        if isinstance(self.base, nn.Embedding):
            inside = ((x >= self.first) & (x < last)).unsqueeze(-1)
            rows = nn.functional.embedding((x - self.first).clamp(0, len(self.rows) - 1), self.rows)
            return torch.where(inside, rows, y.to(rows.dtype))
        said = nn.functional.linear(x.to(self.rows.dtype), self.rows).to(y.dtype)
        return torch.cat([y[..., : self.first], said, y[..., last:]], dim=-1)

    def merged(self, rows: Tensor) -> Tensor:
        """The whole table with these rows in it, in the dtype of the table."""
        weight = self.base.weight.detach().clone()
        weight[self.first : self.first + len(rows)] = rows.to(weight)
        return weight


def train_rows(lm: LM, new: range, whole: tuple[str, ...]) -> None:
    """Let the rows of new pieces be trained in a frozen decoder, in place; tables that are trained
    as a `whole` stay as they are."""
    for name in TABLES:
        if len(new) and name not in whole:
            setattr(lm, name, NewRows(getattr(lm, name), new))


def with_rows(lm: LM) -> Mapping[str, NewRows]:
    """The tables of a decoder that have rows of their own, by name."""
    found = {name: getattr(lm, name) for name in TABLES}
    return {name: table for name, table in found.items() if isinstance(table, NewRows)}
