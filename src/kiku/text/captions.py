"""Words and segments written as txt, srt, vtt, tsv and json.

Pure functions from words or segments to the text of a file; nothing here opens one. All take the
same arguments, so `FORMATS[name](words, options)` serves whoever has only the name of a format.
Where words name their channel, so does each caption; cues of one channel never overlap, but people
who speak at once are shown at once.
Knows file formats; does not know where words come from.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from kiku.errors import ConfigError
from kiku.text.segments import Segment, segments
from kiku.text.words import Word

Captionable: TypeAlias = Sequence[Word] | Sequence[Segment]
"""Words in the order they were spoken, or the segments to be kept together."""


@dataclass(frozen=True, slots=True)
class CaptionOptions:
    """What a writer may be told; each reads what concerns it."""

    model: str = ""
    """json: name of the model."""
    duration: float | None = None
    """json: seconds of sound; None means until the end of the last word."""
    max_line_width: int | None = None
    """srt, vtt: characters in a line, unless one word is longer; None means one line for all."""
    max_line_count: int | None = None
    """srt, vtt: lines in a cue, more text opens another cue; None means any number."""
    partial: bool = False
    """json: the words are not all that were said; it then says `"partial": true`."""

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")


DEFAULTS = CaptionOptions()


@dataclass(frozen=True, slots=True)
class _Cue:
    """What is on the screen at one time; whole milliseconds, `start_ms < end_ms`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    channel: int | None


def write_txt(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """The words alone, one segment a line; `[1] ` before those of channel 1."""
    return "".join(
        f"{_label(segment.channel)}{_plain(segment.text)}\n" for segment in _as_segments(words)
    )


def write_tsv(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """A table as whisper's: start and end in whole milliseconds and text, one segment a line."""
    lines = ["start\tend\ttext\n"]
    for segment in _as_segments(words):
        start_ms = _ms(segment.start)
        end_ms = max(start_ms, _ms(segment.end))
        lines.append(f"{start_ms}\t{end_ms}\t{_plain(segment.text)}\n")
    return "".join(lines)


def write_json(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """`{"model", "duration", "text", "words": [{"text", "start", "end", "probability"}]}`.

    Times are seconds, to the millisecond. A probability that is not known (NaN) is null. Words of
    one channel also have `"channel"`. What is not whole also says `"partial": true`.
    """
    flat = [
        word for item in words for word in (item.words if isinstance(item, Segment) else [item])
    ]
    duration = options.duration
    if duration is None:
        duration = max((word.end for word in flat), default=0.0)
    document = {
        "model": options.model,
        "duration": round(duration, 3),
        "text": " ".join(word.text for word in flat),
        "words": [_json_word(word) for word in flat],
    }
    if options.partial:
        document["partial"] = True
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _json_word(word: Word) -> dict[str, str | float | None]:
    known = None if math.isnan(word.probability) else round(word.probability, 4)
    row = {
        "text": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "probability": known,
    }
    return row if word.channel is None else row | {"channel": word.channel}


def write_srt(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """SubRip subtitles: numbered cues that follow one another without overlap, unless several
    channels speak at once; `[1] ` before the text of channel 1."""
    return "".join(
        f"{number}\n{_span(cue, ',')}\n{_label(cue.channel)}" + "\n".join(cue.lines) + "\n\n"
        for number, cue in enumerate(_cues(words, options, room_for_label=True), start=1)
    )


def write_vtt(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """WebVTT subtitles, with `&`, `<` and `>` escaped; a channel is a voice (`<v Channel 1>`)."""
    return "WEBVTT\n\n" + "".join(
        f"{_span(cue, '.')}\n{_voice(cue.channel)}" + "\n".join(map(_escape, cue.lines)) + "\n\n"
        for cue in _cues(words, options)
    )


FORMATS: Mapping[str, Callable[[Captionable, CaptionOptions], str]] = MappingProxyType(
    {
        "txt": write_txt,
        "json": write_json,
        "srt": write_srt,
        "vtt": write_vtt,
        "tsv": write_tsv,
    }
)
"""Writer by name, which is also the ending of the file."""


def timestamp(ms: int, *, mark: str = ".") -> str:
    """`ms` milliseconds (at least 0) as `HH:MM:SS.mmm`; hours above 99 take more digits."""
    seconds, thousandths = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{thousandths:03}"


def _as_segments(words: Captionable) -> list[Segment]:
    given = [item for item in words if isinstance(item, Segment)]
    return given or segments([item for item in words if isinstance(item, Word)])


def _cues(
    words: Captionable, options: CaptionOptions, *, room_for_label: bool = False
) -> list[_Cue]:
    cues: list[_Cue] = []
    shown_until_ms: dict[int | None, int] = {}
    for segment in _as_segments(words):
        channel, width = segment.channel, options.max_line_width
        if room_for_label and width is not None:
            width = max(1, width - len(_label(channel)))
        spoken = [word for word in segment.words if _plain(word.text)]
        lines = list(_lines(spoken, width))
        count = options.max_line_count or max(len(lines), 1)
        for at in range(0, len(lines), count):
            block = lines[at : at + count]
            # WebVTT asks that a cue ends after it begins; words may be closer than a millisecond.
            start_ms = max(_ms(block[0][0].start), shown_until_ms.get(channel, 0))
            end_ms = max(_ms(block[-1][-1].end), start_ms + 1)
            text = tuple(" ".join(_plain(word.text) for word in line) for line in block)
            cues.append(_Cue(start_ms, end_ms, text, channel))
            shown_until_ms[channel] = end_ms
    # WebVTT asks for the order of their beginnings, which several channels may not have yet.
    return sorted(cues, key=lambda cue: cue.start_ms)


def _lines(words: Sequence[Word], max_width: int | None) -> Iterator[list[Word]]:
    line: list[Word] = []
    width = 0
    for word in words:
        size = len(_plain(word.text))
        if line and max_width is not None and width + 1 + size > max_width:
            yield line
            line, width = [], 0
        width += size + (1 if line else 0)
        line.append(word)
    if line:
        yield line


def _label(channel: int | None) -> str:
    return "" if channel is None else f"[{channel}] "


def _voice(channel: int | None) -> str:
    return "" if channel is None else f"<v Channel {channel}>"


def _span(cue: _Cue, mark: str) -> str:
    return f"{timestamp(cue.start_ms, mark=mark)} --> {timestamp(cue.end_ms, mark=mark)}"


def _plain(text: str) -> str:
    """`text` on one line: a line break or a tab inside it would end a cue or a field."""
    return " ".join(text.split())


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
