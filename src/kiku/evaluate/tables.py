"""A table of text, to be written in any format."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows of text under a header, none of it escaped yet."""

    title: str
    header: tuple[str, ...]
    """Empty texts where a column needs no name."""
    rows: tuple[tuple[str, ...], ...]
