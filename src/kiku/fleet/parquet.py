"""Rows as Parquet. pyarrow comes with the extra, and is imported only when it is needed."""

import importlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, BinaryIO

from kiku.errors import MissingExtra
from kiku.fleet.rows import plain

_BATCH = 256
"""Rows in memory at once: the row of an hour of sound takes some megabytes."""


def need() -> None:
    """Report that pyarrow is missing before anything is transcribed.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise MissingExtra("Parquet", "fleet")


def write_parquet(file: BinaryIO, rows: Sequence[dict[str, Any]]) -> None:
    """Write all rows, with the same column types in every part, even if values are missing."""
    arrow, parquet = importlib.import_module("pyarrow"), _parquet()
    # Parquet takes UTF-8 only; words are, but names of files and messages about them may not be.
    table = [
        {name: plain(one) if isinstance(one, str) else one for name, one in row.items()}
        for row in rows
    ]
    parquet.write_table(arrow.Table.from_pylist(table, _schema()), file, compression="zstd")


def read_parquet(file: BinaryIO, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file, or some columns of them."""
    wanted = None if columns is None else list(columns)
    for batch in _parquet().ParquetFile(file).iter_batches(_BATCH, columns=wanted):
        yield from batch.to_pylist()


def _parquet() -> Any:
    need()
    return importlib.import_module("pyarrow.parquet")


@cache
def _schema() -> Any:
    arrow = importlib.import_module("pyarrow")
    text, number, whole = arrow.string(), arrow.float64(), arrow.int64()
    span = [("start", number), ("end", number)]
    return arrow.schema(
        [
            ("path", text), ("size", whole), ("model", text), ("options", text),
            ("version", text), ("channel", arrow.int32()), ("duration", number),
            ("problem", text), ("text", text),
            ("words", arrow.list_(arrow.struct([("text", text), *span, ("probability", number)]))),
            ("segments", arrow.list_(arrow.struct([*span, ("text", text)]))),
            ("captions", text),
        ]
    )  # fmt: skip
