"""Words -> segments, which end after a sentence, at a pause, or at a limit of length.

Knows words with times; does not know file formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kiku.errors import ConfigError
from kiku.text.words import Word

CLOSING = "\"'\u201d\u2019»)]}"
OPENING = "\"'\u201c\u2018«([{"
_SENTENCE_ENDS = (".", "!", "?", "…", "\u3002", "\uff01", "\uff1f")
_ABBREVIATIONS = frozenset(
    {"mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "jr.", "sr.", "gen.", "capt.", "lt.", "sgt."}
    | {"rev.", "gov.", "sen.", "mm.", "mme.", "mmes.", "mlle.", "mlles.", "vs.", "e.g.", "i.e."}
)
"""English and French abbreviations that usually stand before a capital letter."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Words that belong together."""

    text: str
    """The words, a space between them."""
    start: float
    """Second at which the first word begins."""
    end: float
    """Second at which the last word ends."""
    words: tuple[Word, ...]

    @property
    def channel(self) -> int | None:
        """The channel of the segment's words, as in `Word`."""
        return self.words[0].channel if self.words else None


def segments(
    words: Sequence[Word], *, max_gap_s: float = 1.0, max_duration_s: float = 15.0
) -> list[Segment]:
    """Cut `words` after sentences, at long pauses, and where a segment would grow too long.

    Each channel is cut by itself, as if the others were silent; where there are several, the
    segments come in the order in which they begin.

    Args:
        words: in the order they were spoken.
        max_gap_s: seconds; a longer silence between two words ends a segment.
        max_duration_s: seconds; no segment is longer, unless a single word is.

    Raises:
        ConfigError: a limit is not above 0.
    """
    if not (max_gap_s > 0 and max_duration_s > 0):
        raise ConfigError(
            f"max_gap_s and max_duration_s must be above 0, not {max_gap_s} and {max_duration_s}"
        )
    by_channel: dict[int | None, list[Word]] = {}
    for word in words:
        by_channel.setdefault(word.channel, []).append(word)
    found = [_cut(group, max_gap_s, max_duration_s) for group in by_channel.values()]
    if len(found) == 1:  # not sorted: words that a caller made may run backwards
        return found[0]
    return sorted((one for group in found for one in group), key=lambda one: one.start)


def _cut(words: Sequence[Word], max_gap_s: float, max_duration_s: float) -> list[Segment]:
    cut: list[list[Word]] = []
    for word in words:
        last = cut[-1][-1] if cut else None
        if (
            last is None
            or word.start - last.end > max_gap_s
            or word.end - cut[-1][0].start > max_duration_s
            or ends_sentence(last.text, word.text)
        ):
            cut.append([])
        cut[-1].append(word)
    return [_segment(group) for group in cut]


def _segment(words: Sequence[Word]) -> Segment:
    text = " ".join(word.text for word in words)
    return Segment(text, words[0].start, words[-1].end, tuple(words))


def ends_sentence(text: str, following: str) -> bool:
    """Whether a sentence ends between two words."""
    bare = text.rstrip(CLOSING)
    if not bare.endswith(_SENTENCE_ENDS):
        return False
    if not bare.endswith(".") or bare.endswith("..."):
        return True
    lowered = bare.lstrip(OPENING).lower()
    # No sentence ends in "Mr. Quilter", "J. S. Bach" and "e.g. this", or before a small letter.
    is_initial = len(lowered) == 2 and lowered[0].isalpha()
    return not (is_initial or lowered in _ABBREVIATIONS or following[:1].islower())
