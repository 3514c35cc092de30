"""One line of a manifest: the path of a recording, and what is spoken in it.

All commands read the same rows: `kiku evaluate`, `kiku train`, and `kiku transcribe --ray`, which
transcribes whole recordings and refuses a row with a start or an end.

    {"path": "a.wav", "text": "hello you", "words": [["hello", 0.32, 0.71], ["you", 0.80, 1.02]]}

This module knows the values of one row. It does not know files, nor which values a command needs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

PATHS = ("path", "file", "audio", "audio_filepath")
TEXTS = ("text", "transcript", "sentence")
SECONDS = ("duration", "seconds")
"""Names under which a row may have its sound, its text and its length. The first is kiku's; the
others are those of common data sets."""

RECORDINGS = (
    ".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".webm", ".mp4", ".mkv", ".aiff",
    ".wma", ".amr",
)  # fmt: skip
"""Suffixes of the files in a folder that are recordings. A manifest may name any file."""

_LONGEST_S = 1e9


class BadRow(Exception):
    """Says why a row cannot be used. The reader of the manifest adds where the row is."""


def row_of(line: str | bytes) -> dict[str, Any]:
    """The values of a line. Raises BadRow if it is not a JSON object."""
    try:
        values = json.loads(line.decode("utf-8-sig") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"is not JSON ({error}): write one object on each line") from error
    return object_of(values)


def object_of(values: Any) -> dict[str, Any]:
    """`values` as a row. Raises BadRow if they are not an object."""
    if not isinstance(values, Mapping):
        raise BadRow(f"is {shown(values)}, not an object with a path")
    return dict(cast("Mapping[str, Any]", values))


def path_in(row: Mapping[str, Any]) -> str:
    """The path of the recording. Raises BadRow if there is none."""
    path = text_in(row, PATHS)
    if not path:
        raise BadRow(f"has no path of a recording: give it as one of {', '.join(PATHS)}")
    return path


def text_in(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first value under one of `names`; None if there is none. Raises BadRow if it is not
    text."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        return None
    if not isinstance(row[name], str):
        raise BadRow(f'"{name}" must be text, not {shown(row[name])}')
    return row[name]


def flag_in(row: Mapping[str, Any], name: str) -> bool:
    """The value of this name; False if there is none. Raises BadRow if it is neither true nor
    false."""
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRow(f'"{name}" must be true or false, not {shown(value)}')


def seconds_in(row: Mapping[str, Any], *names: str) -> float | None:
    """The first value under one of `names`; None if there is none. Raises BadRow if it is not a
    number of seconds."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        return None
    if not _is_time(row[name]):
        raise BadRow(f'"{name}" must be seconds, at least 0, not {shown(row[name])}')
    return float(row[name])


def words_in(row: Mapping[str, Any]) -> list[tuple[str, float, float]] | None:
    """The words with their starts and ends; None if the row has no words, which differs from [].

    Raises:
        BadRow: a word has no text or no times.
    """
    values = row.get("words")
    if values is None:
        return None
    if not isinstance(values, list):
        raise BadRow(f"words must be a list of [word, start, end], not {shown(values)}")
    return [_word(one, n) for n, one in enumerate(cast("list[Any]", values), 1)]


def _word(value: Any, number: int) -> tuple[str, float, float]:
    """One word: [word, start, end] as `kiku train` writes it, or an object as in transcripts."""
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
        raise BadRow(f"word {number} must have text, not {shown(text)}")
    if not (_is_time(start) and _is_time(end)):
        has = "impossible" if all(map(_is_number, (start, end))) else "no"
        raise BadRow(
            f"word {number} ({text}) has {has} times: words must have start and end in seconds, at "
            f"least 0, not {shown(start)} and {shown(end)}"
        )
    return text, float(start), float(end)


def _is_time(value: Any) -> bool:
    return _is_number(value) and 0 <= value < _LONGEST_S and math.isfinite(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
