"""Words and segments written as txt, srt, vtt, tsv and json.

Pure functions from words or segments to the text of a file; nothing here opens one. All take the
same arguments, so a caller that has only the name of a format can use
`FORMATS[name](words, options)`. Where words name their channel, each caption does too. Cues of one
channel never overlap; people who speak at once are shown at once.
Knows file formats; does not know where words come from.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kiku.text.cues import Captionable, CaptionOptions, Cue, channel_label, cues, plain_text
from kiku.text.segments import Segment, segments
from kiku.text.words import Word

DEFAULTS = CaptionOptions()


def write_txt(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """The words alone, one segment a line, with `[1] ` before the segments of channel 1."""
    return "".join(
        f"{channel_label(segment.channel)}{plain_text(segment.text)}\n"
        for segment in _as_segments(words)
    )


def write_tsv(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """A table as whisper writes it: start and end in milliseconds and text, one segment a line."""
    lines = ["start\tend\ttext\n"]
    for segment in _as_segments(words):
        start_ms = _ms(segment.start)
        end_ms = max(start_ms, _ms(segment.end))
        lines.append(f"{start_ms}\t{end_ms}\t{plain_text(segment.text)}\n")
    return "".join(lines)


def write_json(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """`{"model", "duration", "text", "words": [{"text", "start", "end", "probability"}],
    "segments": [{"id", "start", "end", "text", "words": [{"word", "start", "end", ...}]}]}`

    The segments are sentences and phrases under whisper's names, and each text and word in them
    begins with a space, as whisper's do: a program that reads whisper's files reads this one.
    Times are seconds, to the millisecond. A probability that is not known (NaN) is null. Words of
    one channel also have `"channel"`, and so have their segments. With `options.partial` the
    document has `"partial": true`, and with `options.warnings` `"warnings": [{"kind", "message",
    "time"}]`, and `"channel"` where there is one.
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
        "segments": [
            _json_segment(number, segment) for number, segment in enumerate(_as_segments(words))
        ],
    }
    if options.partial:
        document["partial"] = True
    if options.warnings:
        document["warnings"] = [{**one, "time": round(one["time"], 3)} for one in options.warnings]
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _json_segment(number: int, segment: Segment) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": number,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": f" {segment.text}",
        "words": [_whisper_word(word) for word in segment.words],
    }
    return row if segment.channel is None else row | {"channel": segment.channel}


def _whisper_word(word: Word) -> dict[str, str | float | None]:
    values = _json_word(word)
    return {"word": f" {word.text}"} | {k: v for k, v in values.items() if k != "text"}


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
    found = cues(words, options, room_for_label=True)
    shots = [shot for cue in found for shot in shots_of(cue, highlight=options.highlight_words)]
    # FFmpeg and pysubs2 do not recognise an empty file as subtitles, and refuse it.
    return "".join(map(srt_shot, range(1, len(shots) + 1), shots)) or EMPTY_SRT


def write_vtt(words: Captionable, options: CaptionOptions = DEFAULTS) -> str:
    """WebVTT subtitles, with `&`, `<` and `>` escaped; a channel is a voice (`<v Channel 1>`)."""
    return VTT_HEAD + "".join(
        vtt_shot(shot)
        for cue in cues(words, options)
        for shot in shots_of(cue, highlight=options.highlight_words)
    )


EMPTY_SRT = "1\n00:00:00,000 --> 00:00:00,001\n\n\n"
"""Contents of a srt file without words: one cue without text."""
VTT_HEAD = "WEBVTT\n\n"
"""Text before the first cue of a vtt file."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A cue, or a part of its time in which one of its words is underlined."""

    start_ms: int
    end_ms: int
    cue: Cue
    marked: int | None = None
    """Index of the cue's underlined word; None where no word is underlined."""

    def lines(self, escape: Callable[[str], str]) -> str:
        """The text to show, each word passed through `escape`, the marked one underlined."""
        at, lines = 0, list[str]()
        for line in self.cue.lines:
            texts = [escape(plain_text(word.text)) for word in line]
            if self.marked is not None and 0 <= self.marked - at < len(texts):
                texts[self.marked - at] = f"<u>{texts[self.marked - at]}</u>"
            at += len(texts)
            lines.append(" ".join(texts))
        return "\n".join(lines)


def shots_of(cue: Cue, *, highlight: bool) -> Iterator[Shot]:
    """The cue as one shot. With `highlight`, a shot for each word, which is underlined while it is
    spoken, and one for each time between words."""
    shown_ms = cue.start_ms
    words = [word for line in cue.lines for word in line] if highlight else []
    for at, word in enumerate(words):
        start_ms = min(max(_ms(word.start), shown_ms), cue.end_ms)
        end_ms = min(max(_ms(word.end), start_ms), cue.end_ms)
        if start_ms > shown_ms:
            yield Shot(shown_ms, start_ms, cue)
        if end_ms > start_ms:
            yield Shot(start_ms, end_ms, cue, at)
        shown_ms = end_ms
    if shown_ms < cue.end_ms:
        yield Shot(shown_ms, cue.end_ms, cue)


def srt_shot(number: int, shot: Shot) -> str:
    """A cue of a srt file; the first has number 1."""
    text = channel_label(shot.cue.channel) + shot.lines(str)
    return f"{number}\n{_span(shot.start_ms, shot.end_ms, ',')}\n{text}\n\n"


def vtt_shot(shot: Shot) -> str:
    """A cue of a vtt file."""
    text = _voice(shot.cue.channel) + shot.lines(_escape)
    return f"{_span(shot.start_ms, shot.end_ms, '.')}\n{text}\n\n"


FORMATS: Mapping[str, Callable[[Captionable, CaptionOptions], str]] = MappingProxyType(
    {
        "txt": write_txt,
        "json": write_json,
        "srt": write_srt,
        "vtt": write_vtt,
        "tsv": write_tsv,
    }
)
"""Writer of a format by its name, which is also the file's extension."""


def timestamp(ms: int, *, mark: str = ".") -> str:
    """`ms` milliseconds (at least 0) as `HH:MM:SS.mmm`; hours above 99 take more digits."""
    seconds, thousandths = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{thousandths:03}"


def _as_segments(words: Captionable) -> list[Segment]:
    given = [item for item in words if isinstance(item, Segment)]
    return given or segments([item for item in words if isinstance(item, Word)])


def _voice(channel: int | None) -> str:
    return "" if channel is None else f"<v Channel {channel}>"


def _span(start_ms: int, end_ms: int, mark: str) -> str:
    return f"{timestamp(start_ms, mark=mark)} --> {timestamp(end_ms, mark=mark)}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
