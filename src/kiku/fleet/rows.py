"""A transcript -> rows, one for each channel that is heard by itself; and captions of such rows.

A row holds plain values, ready for JSON lines and Parquet:
`{path, size, model, options, version, channel, duration, problem, text, words, segments,
captions}`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import kiku
from kiku.fleet.settings import Request
from kiku.fleet.sources import Item
from kiku.options import Channel
from kiku.text import FORMATS, CaptionOptions, Word
from kiku.transcription import Transcript, by_time

Row = dict[str, Any]


class Key(NamedTuple):
    """By what a finished recording is known."""

    path: str
    size: int | None
    model: str
    options: str
    """The digest of all else that its words depend on."""

    @property
    def written(self) -> "Key":
        """As any kind of rows gives it back; keys are compared so."""
        return self._replace(path=plain(self.path), model=plain(self.model))


def plain(text: str) -> str:
    """What can be written anywhere: of a file's name that is not UTF-8 the bytes are spelled out,
    as in "caf\\udce9.wav"."""
    return text.encode("utf-8", "backslashreplace").decode()


def key_of(item: Item, request: Request) -> Key:
    """Of a recording that is to be heard so."""
    return Key(item.path, item.size, request.settings.model, request.digest)


def key_in(row: Mapping[str, Any]) -> Key:
    """Of a row, to be compared with what is `written`."""
    return Key(row["path"], row["size"], row["model"], row["options"]).written


def rows_of(key: Key, transcript: Transcript, channel: Channel, num_channels: int = 0) -> list[Row]:
    """The rows of a recording.

    Args:
        key: its own.
        transcript: what was heard.
        channel: what was wanted; "each" gives a row for each channel.
        num_channels: of its sound, silent ones too; 0 where none of it could be read.
    """
    problem = None if transcript.problem is None else said_of(transcript.problem)
    if channel != "each":
        one = None if channel == "mix" else channel
        return [_row(key, transcript, transcript.words, one, problem)]
    spoken = {word.channel for word in transcript.words if word.channel is not None}
    count = max(num_channels, 1 + max(spoken, default=0))
    return [
        _row(key, transcript, [w for w in transcript.words if w.channel == number], number, problem)
        for number in range(count)
    ]


def row_of_problem(key: Key, problem: str) -> Row:
    """Of a recording of which nothing was heard."""
    return _row(key, Transcript((), 0.0), (), None, problem)


def said_of(error: Exception) -> str:
    """What went wrong: kiku's errors say it themselves."""
    if isinstance(error, kiku.KikuError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def _row(
    key: Key, transcript: Transcript, words: Sequence[Word], channel: int | None,
    problem: str | None,
) -> Row:  # fmt: skip
    said = replace(transcript, words=tuple(words)).to_dict()
    return {
        **key._asdict(),
        "version": kiku.__version__,
        "channel": channel,
        "duration": round(transcript.duration, 3),
        "problem": problem,
        "text": said["text"],
        "words": [_word(one) for one in said["words"]],
        "segments": [
            {"start": _time(one["start"]), "end": _time(one["end"]), "text": one["text"]}
            for one in said["segments"]
        ],
        "captions": None,  # what they are called, whoever writes some says
    }


def _word(said: Mapping[str, Any]) -> dict[str, Any]:
    probability = said["probability"]
    known = None if math.isnan(probability) else round(probability, 4)
    return {
        "text": said["text"],
        "start": _time(said["start"]),
        "end": _time(said["end"]),
        "probability": known,
    }


def _time(seconds: float) -> float:
    return round(seconds, 3)


def captions_of(rows: Sequence[Row], ending: str, *, each: bool = False) -> str:
    """A recording's rows as srt, vtt, txt or tsv; `each` marks channels."""
    words = [
        Word(
            one["text"], one["start"], one["end"],
            math.nan if one["probability"] is None else one["probability"],
            row["channel"] if each else None,
        )
        for row in rows
        for one in row["words"]
    ]  # fmt: skip
    options = CaptionOptions(rows[0]["model"], duration=rows[0]["duration"])
    return FORMATS[ending](sorted(words, key=by_time), options)
