"""One line of a manifest: which recording is meant, and what is spoken in it. All commands read the
same rows: `kiku evaluate`, `kiku train`, and `kiku transcribe --ray`, which transcribes whole
recordings and refuses a row with a start or an end.

    {"path": "a.wav", "text": "hello you", "words": [["hello", 0.32, 0.71], ["you", 0.80, 1.02]]}

Knows the values of one row. Does not know files, nor what a command needs of a row.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

PATHS = ("path", "file", "audio", "audio_filepath")
TEXTS = ("text", "transcript", "sentence")
SECONDS = ("duration", "seconds")
"""Names under which a row may have its sound, its text and its length: the first is kiku's, the
others are those of widespread data sets."""

_LONGEST_S = 1e9


class BadRow(Exception):
    """Why a row cannot be used; the reader of the manifest knows where the row is."""


def row_of(line: str | bytes) -> dict[str, Any]:
    """The values of a line. Raises BadRow."""
    try:
        values = json.loads(line.decode("utf-8-sig") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"is no JSON ({error}): write one object on each line") from error
    return object_of(values)


def object_of(values: Any) -> dict[str, Any]:
    """`values`, if they are a row's. Raises BadRow."""
    if not isinstance(values, Mapping):
        raise BadRow(f"is {shown(values)}, not an object with a path")
    return dict(cast("Mapping[str, Any]", values))


def path_in(row: Mapping[str, Any]) -> str:
    """The recording's path. Raises BadRow: there is none."""
    path = text_in(row, PATHS)
    if not path:
        raise BadRow(f"has no path, which names the recording; say it as {', '.join(PATHS)}")
    return path


def text_in(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first value under one of `names`; None without any. Raises BadRow: it is no text."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        return None
    if not isinstance(row[name], str):
        raise BadRow(f'"{name}" must be text, not {shown(row[name])}')
    return row[name]


def flag_in(row: Mapping[str, Any], name: str) -> bool:
    """Whether the value of this name is true; False where there is none. Raises BadRow: it is
    neither true nor false."""
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRow(f'"{name}" must be true or false, not {shown(value)}')


def seconds_in(row: Mapping[str, Any], *names: str) -> float | None:
    """The first value under one of `names`; None without any. Raises BadRow: it is no time."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        return None
    if not _is_time(row[name]):
        raise BadRow(f'"{name}" must be seconds, at least 0, not {shown(row[name])}')
    return float(row[name])


def words_in(row: Mapping[str, Any]) -> list[tuple[str, float, float]] | None:
    """Words with their start and end; None where the row has none, which is not the same as [].

    Raises:
        BadRow: one has no text or no times.
    """
    values = row.get("words")
    if values is None:
        return None
    if not isinstance(values, list):
        raise BadRow(f"words must be a list of [word, start, end], not {shown(values)}")
    return [_word(one, n) for n, one in enumerate(cast("list[Any]", values), 1)]


def _word(value: Any, number: int) -> tuple[str, float, float]:
    """A word as `kiku train` writes it, [word, start, end], or as transcripts have it, an
    object."""
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        value = [given.get("text", given.get("word")), given.get("start"), given.get("end")]
    if not isinstance(value, list) or len(cast("list[Any]", value)) != 3:
        raise BadRow(
            f"words must be [word, start, end], or objects with text, start and end; word {number} "
            f"is {shown(value)}"
        )
    text, start, end = cast("list[Any]", value)
    if not isinstance(text, str):
        raise BadRow(f"word {number} has no text but {shown(text)}")
    if not (_is_time(start) and _is_time(end)):
        raise BadRow(
            f"word {number} ({text}) has no times: words must have start and end in seconds, at "
            f"least 0, not {shown(start)} and {shown(end)}"
        )
    return text, float(start), float(end)


def _is_time(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < _LONGEST_S and math.isfinite(value)


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
