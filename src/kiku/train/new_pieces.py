"""Train only the rows of a vocabulary's new pieces in the text tables; the others stay frozen.

`kiku train vocab` notes in the model's folder which pieces are new; `lora.new_pieces` overrides it.
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
from kiku.train.atomic_files import durable

FILE = "kiku_vocabulary.json"
_FORMAT = "kiku vocabulary 1"

TABLES = ("text_embedding", "text_head")
"""Parts of the decoder that have a row for each piece."""


def write_new_pieces(folder: Path, new: range, of: str) -> None:
    """Note in a model's folder which of its pieces are new and not trained yet.

    Args:
        folder: folder of the model.
        new: ids of the new pieces.
        of: the model whose vocabulary was extended or replaced.
    """
    values = {"format": _FORMAT, "first": new.start, "count": len(new), "of": of}
    with durable(folder / FILE) as beside:
        beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def new_pieces_of(loaded: Loaded, wanted: int) -> range:
    """The ids of the pieces whose rows will be trained.

    Args:
        loaded: the model.
        wanted: how many of the last pieces of its vocabulary; -1 are those that its folder names.

    Raises:
        TrainingError: there are fewer pieces, or the file in its folder is damaged.
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
            f"{path} does not match the model's vocabulary ({error}): make the folder again with  "
            "kiku train vocab , or set lora.new_pieces"
        ) from error
    return found


class NewRows(nn.Module):
    """A frozen embedding or head, some rows of which are trained."""

    def __init__(self, base: nn.Embedding | nn.Linear, new: range) -> None:
        """Begin with the values that the table has in these rows."""
        super().__init__()
        self.base, self.first = base, new.start
        self.rows = nn.Parameter(base.weight.detach()[new.start : new.stop].float().clone())

    @property
    def ids(self) -> range:
        """Ids of the pieces whose rows are trained."""
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
    """Let the rows of new pieces be trained in a frozen decoder, in place.

    Tables in `whole`, all rows of which are trained, are left as they are.
    """
    for name in TABLES:
        if len(new) and name not in whole:
            setattr(lm, name, NewRows(getattr(lm, name), new))


def with_rows(lm: LM) -> Mapping[str, NewRows]:
    """The tables of a decoder that have separately trained rows, by name."""
    found = {name: getattr(lm, name) for name in TABLES}
    return {name: table for name, table in found.items() if isinstance(table, NewRows)}
