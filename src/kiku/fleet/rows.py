"""A transcript -> rows, one for each channel transcribed separately; and captions of these rows.

A row holds plain values, ready for JSON lines and Parquet:
`{path, size, model, options, version, channel, duration, problem, text, words, segments,
captions}`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import kiku
from kiku.fleet.settings import BatchRequest
from kiku.fleet.sources import Item
from kiku.options import Channel
from kiku.text import FORMATS, CaptionOptions, Word
from kiku.transcription import Transcript, by_time

ResultRow = dict[str, Any]


class Key(NamedTuple):
    """The key of a finished recording."""

    path: str
    size: int | None
    model: str
    options: str
    """Digest of all else that its words depend on."""

    @property
    def written(self) -> "Key":
        """The key as it is read from rows of any format; keys are compared in this form."""
        return self._replace(path=plain(self.path), model=plain(self.model))


def plain(text: str) -> str:
    """Text that can be written anywhere: bytes of a file's name that are not UTF-8 are spelled out.

    An example is "caf\\udce9.wav".
    """
    return text.encode("utf-8", "backslashreplace").decode()


def row_key(item: Item, request: BatchRequest) -> Key:
    """The key of a recording that will be transcribed with this request."""
    return Key(item.path, item.size, request.settings.model, request.digest)


def key_in(row: Mapping[str, Any]) -> Key:
    """The key of a row, to be compared with keys that are `written`."""
    return Key(row["path"], row["size"], row["model"], row["options"]).written


def rows_of(
    key: Key, transcript: Transcript, channel: Channel, num_channels: int = 0
) -> list[ResultRow]:
    """The rows of a recording.

    Args:
        key: key of the recording.
        transcript: transcript of the recording.
        channel: the channel that was asked for; "each" gives a row for each channel.
        num_channels: number of its channels, silent ones too; 0 if none of it could be read.
    """
    problem = None if transcript.problem is None else message_of(transcript.problem)
    if channel != "each":
        one = None if channel == "mix" else channel
        return [_row(key, transcript, transcript.words, one, problem)]
    spoken = {word.channel for word in transcript.words if word.channel is not None}
    count = max(num_channels, 1 + max(spoken, default=0))
    return [
        _row(key, transcript, [w for w in transcript.words if w.channel == number], number, problem)
        for number in range(count)
    ]


def row_of_problem(key: Key, problem: str) -> ResultRow:
    """The row of a recording of which nothing was transcribed."""
    return _row(key, Transcript((), 0.0), (), None, problem)


def message_of(error: Exception) -> str:
    """The message of an error; errors that are not kiku's are named as unexpected."""
    if isinstance(error, kiku.KikuError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def _row(
    key: Key, transcript: Transcript, words: Sequence[Word], channel: int | None,
    problem: str | None,
) -> ResultRow:  # fmt: skip
    values = replace(transcript, words=tuple(words)).to_dict()
    return {
        **key._asdict(),
        "version": kiku.__version__,
        "channel": channel,
        "duration": round(transcript.duration, 3),
        "problem": problem,
        "text": values["text"],
        "words": [_word(one) for one in values["words"]],
        "segments": [
            {"start": _time(one["start"]), "end": _time(one["end"]), "text": one["text"]}
            for one in values["segments"]
        ],
        "captions": None,  # their name is set where captions are written
    }


def _word(values: Mapping[str, Any]) -> dict[str, Any]:
    probability = values["probability"]
    known = None if math.isnan(probability) else round(probability, 4)
    return {
        "text": values["text"],
        "start": _time(values["start"]),
        "end": _time(values["end"]),
        "probability": known,
    }


def _time(seconds: float) -> float:
    return round(seconds, 3)


def captions_of(rows: Sequence[ResultRow], ending: str, *, each: bool = False) -> str:
    """Captions of a recording's rows as srt, vtt, txt or tsv; `each` marks channels."""
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
