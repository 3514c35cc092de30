"""Words -> cues that can be read: where cues and lines break, and how long each is shown.

The rules are those of professional subtitles (docs/captions.md compares them with Netflix's guide):
short lines, breaks between the parts of a sentence, enough time to read. Among all ways to cut the
words, the one with the least cost is taken. The costs below have no unit: only their order and
rough distance matter. Does not know file formats.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias, cast

from kiku.errors import ConfigError
from kiku.serial import plain_numbers
from kiku.text.segments import CLOSING, OPENING, Segment, ends_sentence
from kiku.text.words import Word

Captionable: TypeAlias = Sequence[Word] | Sequence[Segment]
"""Words in the order they were spoken, or the segments to be kept together."""


@dataclass(frozen=True, slots=True)
class CaptionOptions:
    """Options of the writers; each writer reads those of its own format."""

    model: str = ""
    """json: name of the model."""
    duration: float | None = None
    """json: seconds of sound; None means until the end of the last word."""
    max_line_width: int | None = 42
    """srt, vtt: characters in a line, unless one word is longer; None means one line for all."""
    max_line_count: int | None = 2
    """srt, vtt: lines in a cue; more text opens another cue; None means any number."""
    min_duration_s: float = 5 / 6
    """srt, vtt: seconds for which a cue is shown at least, where the next cue allows it."""
    max_duration_s: float = 7.0
    """srt, vtt: seconds for which a cue is shown at most."""
    max_chars_per_s: float = 17.0
    """srt, vtt: a cue stays until it can be read at this speed, where the next cue allows it."""
    min_gap_s: float = 0.25
    """srt, vtt: seconds between two cues at least, unless one follows the other at once."""
    highlight_words: bool = False
    """srt, vtt: underline each word while it is spoken."""
    partial: bool = False
    """json: not all words of the sound are there; the file then has `"partial": true`."""
    warnings: Sequence[Mapping[str, Any]] = ()
    """json: faults of the sound, each with its kind, message and time in seconds."""

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("max_line_width", "max_line_count"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value, int) and value >= 1):
                raise ConfigError(
                    f"{name} must be at least 1, not {value!r}: a whole number, or None"
                )
        for name in ("min_duration_s", "max_duration_s", "max_chars_per_s", "min_gap_s"):
            value = getattr(self, name)
            least = math.ulp(0.0) if name.startswith("max") else 0.0
            if not (_is_number(value, int | float) and least <= value < math.inf):
                raise ConfigError(f"{name} must be a number above 0, not {value!r}")
        for name in ("highlight_words", "partial"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ConfigError(f"{name} must be True or False, not {value!r}")
        if not isinstance(self.model, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"model must be the name of a model, not {self.model!r}")
        if not (isinstance(self.warnings, list | tuple) and all(map(_is_warning, self.warnings))):
            raise ConfigError(
                f"warnings must be a list of what StreamWarning.to_dict() gives, not "
                f"{self.warnings!r}"
            )
        if not (self.duration is None or _is_number(self.duration, int | float)):
            raise ConfigError(f"duration must be seconds, or None, not {self.duration!r}")


def _is_warning(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    one = cast("Mapping[str, Any]", value)
    return (
        all(isinstance(one.get(key), str) for key in ("kind", "message"))
        and _is_number(one.get("time"), int | float)
        and math.isfinite(one["time"])
    )


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Cue:
    """The lines that are on the screen at one time; whole milliseconds, `start_ms < end_ms`."""

    start_ms: int
    end_ms: int
    lines: tuple[tuple[Word, ...], ...]

    @property
    def channel(self) -> int | None:
        """As in `Word`."""
        return self.lines[0][0].channel


Block: TypeAlias = list[tuple[Word, ...]]
"""The lines of one cue."""

_MAX_PAUSE_S = 1.0
"""Seconds of silence; a longer one ends a cue."""
_LATE_MS = 500
"""Milliseconds by which a cue may come after its words, so that a short one before it stays."""


def cues(words: Captionable, options: CaptionOptions, *, room_for_label: bool = False) -> list[Cue]:
    """All cues, in the order in which they begin. Those of one channel never overlap.

    Words are cut into cues freely, between pauses. Segments are kept: each is cut by itself.
    """
    found: list[Cue] = []
    for runs in _by_channel(words):
        maker = CueMaker(options, room_for_label=room_for_label)
        for at, run in enumerate(runs):
            following = runs[at + 1][0].start if at + 1 < len(runs) else None
            found += maker.add(run, following)
    # WebVTT wants cues in the order in which they begin; here they are still channel by channel.
    return sorted(found, key=lambda cue: cue.start_ms)


class CueMaker:
    """Makes the cues of one channel from runs of words, in order."""

    def __init__(self, options: CaptionOptions, *, room_for_label: bool = False) -> None:
        """Start before the first word.

        Args:
            options: how long cues and their lines may be.
            room_for_label: leave room in the line for the channel's `channel_label`.
        """
        self._options, self._room_for_label = options, room_for_label
        self._shown_until_ms = 0

    def add(self, words: Sequence[Word], following_s: float | None) -> list[Cue]:
        """The cues of some words that belong together.

        Args:
            words: in the order they were spoken, all of one channel.
            following_s: second at which the next word begins; None if that is not known.
        """
        blocks = cut(words, self._options, room_for_label=self._room_for_label)
        starts = [_ms(block[0][0].start) for block in blocks]
        ends = [*starts[1:], math.inf if following_s is None else _ms(following_s)]
        return [self._cue(block, ends[at]) for at, block in enumerate(blocks)]

    def _cue(self, block: Block, next_ms: float) -> Cue:
        options = self._options
        start_ms = max(_ms(block[0][0].start), self._shown_until_ms)
        patience_ms = next_ms + _LATE_MS - start_ms
        next_ms = max(next_ms, start_ms + 1)
        least_ms = math.ceil(1000 * options.min_duration_s)
        most_ms = max(1, int(1000 * options.max_duration_s))
        chars = sum(map(line_width, block))
        wanted_ms = max(least_ms, math.ceil(1000 * chars / options.max_chars_per_s))
        spoken_ms = _ms(block[-1][-1].end) - start_ms
        shown_ms = min(max(spoken_ms, wanted_ms), next_ms - start_ms)
        # A cue that would be too short delays the next one, by `_LATE_MS` at most.
        shown_ms = min(max(shown_ms, min(least_ms, patience_ms)), most_ms)
        gap_ms, least_gap_ms = next_ms - start_ms - shown_ms, _ms(options.min_gap_s)
        if 0 < gap_ms < least_gap_ms:
            if shown_ms + gap_ms <= most_ms:
                shown_ms += gap_ms
            else:  # it may not stay until the next one, so it makes room before that
                shown_ms = max(min(shown_ms, least_ms), shown_ms + gap_ms - least_gap_ms)
        # WebVTT asks that a cue ends after it begins; words may be closer than a millisecond.
        end_ms = start_ms + max(1, int(shown_ms))
        self._shown_until_ms = end_ms
        return Cue(start_ms, end_ms, tuple(block))


def cut(
    words: Sequence[Word], options: CaptionOptions, *, room_for_label: bool = False
) -> list[Block]:
    """Cut words of one channel into cues, and these into lines, at the least cost."""
    spoken = [word for word in words if plain_text(word.text)]
    if not spoken:
        return []
    width = options.max_line_width
    if room_for_label and width is not None:
        width = max(1, width - len(channel_label(spoken[0].channel)))
    run = _Run(spoken, options, math.inf if width is None else width)
    return [run.lines(first, last) for first, last in run.cues()]


def plain_text(text: str) -> str:
    """`text` on one line: a line break or a tab inside it would end a cue or a field."""
    return " ".join(text.split())


def line_width(line: Sequence[Word]) -> int:
    """How many characters a line has."""
    return sum(len(plain_text(word.text)) for word in line) + len(line) - 1


def channel_label(channel: int | None) -> str:
    """The mark before the text of a channel, such as "[1] "; empty where all are mixed."""
    return "" if channel is None else f"[{channel}] "


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _by_channel(words: Captionable) -> Iterator[list[Sequence[Word]]]:
    """The runs of words of each channel: the given segments, or all words between two pauses. Each
    run is cut into cues by itself."""
    given = [item for item in words if isinstance(item, Segment)]
    runs: list[Sequence[Word]] = [segment.words for segment in given if segment.words]
    if not given:
        loose: dict[int | None, list[list[Word]]] = {}
        for word in words:
            if isinstance(word, Word):
                open_ = loose.setdefault(word.channel, [])
                if not open_ or word.start - open_[-1][-1].end > _MAX_PAUSE_S:
                    open_.append([])
                open_[-1].append(word)
        runs = [run for channel in loose.values() for run in channel]
    by_channel: dict[int | None, list[Sequence[Word]]] = {}
    for run in runs:
        by_channel.setdefault(run[0].channel, []).append(run)
    yield from by_channel.values()


# The costs of a break between two words,
_AFTER_SENTENCE, _AFTER_COMMA, _BEFORE_CONJUNCTION, _BEFORE_PREPOSITION = 0.0, 0.5, 1.0, 1.5
_ANYWHERE = 2.5
_AFTER_CLINGING, _IN_NAME = 2.5, 1.0  # more: "the | house", "Ada | Lovelace"
_PAUSE_PER_S = 1.5  # less, where the speaker pauses
# of a cue,
_CUE, _SENTENCE_INSIDE, _LONE_WORD, _SHORT = 1.5, 2.0, 3.0, 8.0
_PER_EXCESS = 0.15  # for each character a second above what can be read
# and of a second line.
_LINE, _UNBALANCED, _TOP_HEAVY = 0.6, 1.0, 0.2

_COMMAS = (",", ";", ":", "\u2014", "\u2013", "\u2026", "...")
_CONJUNCTION_WORDS = (
    "and but or nor so yet because that which who whom whose if when while where although though "
    "unless until since than as et mais ou donc ni car que qui quand si parce puisque lorsque "
    "comme dont où"
)
_PREPOSITION_WORDS = (
    "about above across after against along among around at before behind below between by during "
    "for from in into like near of off on onto over through to toward towards under up upon with "
    "within without à avec chez contre dans de depuis derrière devant en entre jusque par "
    "pendant pour sans sous sur vers"
)
_CLINGING_WORDS = (
    "a an the this that these those my your his her its our their some any no every each "
    "i you he she it we they not don't didn't is are was were am be been has have had do does "
    "did will would can could should may might must very mr. mrs. ms. dr. and or but "
    "le la les un une des du au aux ce cet cette ces mon ma mes ton ta tes son sa ses notre "
    "nos votre vos leur leurs je tu il elle on nous vous ils elles ne est sont a ont suis "
    "ai avons avez me te se très et ou mais que qui"
)
_CONJUNCTIONS = frozenset(_CONJUNCTION_WORDS.split())
_PREPOSITIONS = frozenset(_PREPOSITION_WORDS.split())
_CLINGING = frozenset(_CLINGING_WORDS.split()) | _PREPOSITIONS
"""Words that a break should not follow, since they belong to the next word."""


def _break_cost(word: str, following: str, pause_s: float) -> float:
    """The cost of a break between two words."""
    bare, begin = word.rstrip(CLOSING), following.lstrip(OPENING).lower()
    lowered = word.lstrip(OPENING).lower()
    if ends_sentence(word, following):
        cost = _AFTER_SENTENCE
    elif bare.endswith(_COMMAS):
        cost = _AFTER_COMMA
    else:
        if begin in _CONJUNCTIONS or begin.startswith(("qu'", "qu\u2019")):
            cost = _BEFORE_CONJUNCTION
        elif begin in _PREPOSITIONS or begin.startswith(("d'", "d\u2019")):
            cost = _BEFORE_PREPOSITION
        else:
            cost = _ANYWHERE
        if lowered in _CLINGING:
            cost += _AFTER_CLINGING
        elif word[:1].isupper() and following[:1].isupper():
            cost += _IN_NAME
    return max(0.0, cost - _PAUSE_PER_S * min(max(pause_s, 0.0), 1.0))


class _Run:
    """The words between two pauses, and the costs of all ways to cut them."""

    def __init__(self, words: Sequence[Word], options: CaptionOptions, width: float) -> None:
        self._words, self._options, self._width = words, options, width
        texts = [plain_text(word.text) for word in words]
        self._longest = max(map(len, texts))
        ends = [ends_sentence(one, other) for one, other in pairwise(texts)]
        self._breaks = [
            _break_cost(texts[at], texts[at + 1], other.start - one.end)
            for at, (one, other) in enumerate(pairwise(words))
        ]
        self._ends_here = [*ends, True]
        self._before = [0]
        """By word: characters of all words before it, with a space after every one."""
        self._sentences = [0]
        """By word: how many sentences end before it."""
        for text, ends_here in zip(texts, self._ends_here, strict=True):
            self._before.append(self._before[-1] + len(text) + 1)
            self._sentences.append(self._sentences[-1] + ends_here)

    def cues(self) -> list[tuple[int, int]]:
        """For each cue, the index of its first word and the index after its last word."""
        count = len(self._words)
        least, begun = [0.0] + [math.inf] * count, [0] * (count + 1)
        for first in range(count):
            for last in range(first + 1, count + 1):
                if last > first + 1 and not self._fits(first, last):
                    break
                cost = least[first] + self._cue_cost(first, last)
                if last == first + 1:  # one word alone is always allowed, so that some cut exists
                    cost = min(cost, 1e9)
                if cost < least[last]:
                    least[last], begun[last] = cost, first
        found: list[tuple[int, int]] = []
        last = count
        while last:
            found.append((begun[last], last))
            last = begun[last]
        return found[::-1]

    def lines(self, first: int, last: int) -> Block:
        """The words of a cue, cut into lines."""
        places = [first, *self._line_breaks(first, last), last]
        return [tuple(self._words[begin:end]) for begin, end in pairwise(places)]

    def _size(self, first: int, last: int) -> int:
        return self._before[last] - self._before[first] - 1

    def _fits(self, first: int, last: int) -> bool:
        """Whether the words from `first` to before `last` can be one cue. If not, then neither can
        they with more words."""
        words, options = self._words, self._options
        if words[last - 1].end - words[first].start > options.max_duration_s:
            return False
        count, size = options.max_line_count, self._size(first, last)
        if count is None or size <= self._width:
            return True
        if count == 2:  # only a bound; `_second_line` decides whether the words fit into two lines
            return size <= 2 * max(self._width, self._longest) + 1
        return count > 2 and len(self._filled(first, last)) < count

    def _filled(self, first: int, last: int) -> list[int]:
        """The line breaks if each line takes as many words as fit, which gives the fewest lines."""
        breaks: list[int] = []
        begin = first
        for at in range(first + 1, last):
            if self._size(begin, at + 1) > self._width:
                breaks.append(at)
                begin = at
        return breaks

    def _cue_cost(self, first: int, last: int) -> float:
        words, options, count = self._words, self._options, len(self._words)
        cost = _CUE
        if last < count:
            cost += self._breaks[last - 1]
            shown_s = min(words[last].start - words[first].start, options.max_duration_s)
            if shown_s < options.min_duration_s:
                cost += _SHORT
            else:
                rate = self._size(first, last) / shown_s if shown_s else math.inf
                cost += _PER_EXCESS * min(max(0.0, rate - options.max_chars_per_s), 100.0)
        cost += _SENTENCE_INSIDE * (self._sentences[last - 1] - self._sentences[first])
        if last - first == 1 and count > 1 and not self._is_sentence(first):
            cost += _LONE_WORD
        if self._size(first, last) > self._width and options.max_line_count == 2:
            cost += self._second_line(first, last)[0]
        return cost

    def _is_sentence(self, at: int) -> bool:
        """Whether a word is a sentence of its own, as in "Yes."."""
        return self._ends_here[at] and (at == 0 or self._ends_here[at - 1])

    def _second_line(self, first: int, last: int) -> tuple[float, int]:
        """The least cost of a second line, and the index of the word that begins it; infinity and
        the last word if no break fits."""
        best = math.inf, last - 1
        for at in range(first + 1, last):
            top, bottom = self._size(first, at), self._size(at, last)
            # A single word may be longer than a line: it cannot be cut.
            if (top > self._width and at - first > 1) or (bottom > self._width and last - at > 1):
                continue
            cost = _LINE * self._breaks[at - 1]
            cost += _UNBALANCED * abs(top - bottom) / self._width
            cost += _TOP_HEAVY * max(0, top - bottom) / self._width
            if last - first > 2 and 1 in (at - first, last - at):
                cost += _LONE_WORD / 2
            best = min(best, (cost, at))
        return best

    def _line_breaks(self, first: int, last: int) -> list[int]:
        breaks = self._filled(first, last)
        if len(breaks) == 1:
            return [self._second_line(first, last)[1]]
        return breaks
