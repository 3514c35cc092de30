"""Words, as they come -> whole lines. Of several channels each has lines of its own."""

from kiku.text import Segment, Word, segments


class LineCutter:
    """Gives out each line as soon as nothing can be added to it."""

    def __init__(self) -> None:
        """Before the first word."""
        self._open: dict[int | None, tuple[Word, ...]] = {}

    @property
    def open(self) -> list[tuple[Word, ...]]:
        """The words that are not on a whole line yet: a line of each channel that has some, in the
        order in which they begin."""
        return sorted(self._open.values(), key=lambda line: line[0].start)

    def add(self, word: Word) -> list[Segment]:
        """The lines that are whole because of this word."""
        # Segments are cut from left to right, so those of one line and a word are those of all.
        cut = segments([*self._open.get(word.channel, ()), word])
        self._open[word.channel] = cut[-1].words
        return cut[:-1]

    def end(self, channel: int | None) -> list[Segment]:
        """What was open of a channel: somebody has ended."""
        return segments(self._open.pop(channel, ()))

    def end_all(self) -> list[Segment]:
        """What was open: nothing more comes."""
        lines, self._open = self.open, {}
        return [segment for line in lines for segment in segments(line)]


def label(channel: int | None) -> str:
    """What stands before the text of a channel, as in the formats of `kiku.text`."""
    return "" if channel is None else f"[{channel}] "


def line_text(line: Segment) -> str:
    """The line as it is printed."""
    return label(line.channel) + " ".join(line.text.split())
