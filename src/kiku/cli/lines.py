"""Words, as they come -> whole lines. With several channels, each has lines of its own."""

from kiku.text import Segment, Word, segments
from kiku.text.cues import channel_label, plain_text


class LineCutter:
    """Cuts words into lines, and gives each line as soon as nothing can be added to it."""

    def __init__(self) -> None:
        """Start without a word."""
        self._open: dict[int | None, tuple[Word, ...]] = {}

    @property
    def open(self) -> list[tuple[Word, ...]]:
        """The words that are not on a whole line yet: a line of each channel that has some, in the
        order in which they begin."""
        return sorted(self._open.values(), key=lambda line: line[0].start)

    def add(self, word: Word) -> list[Segment]:
        """Add a word; give the lines that become whole by it."""
        # Segments are cut from left to right: those of the open line and the new word are the last
        # ones that all words together would give.
        cut = segments([*self._open.get(word.channel, ()), word])
        self._open[word.channel] = cut[-1].words
        return cut[:-1]

    def end(self, channel: int | None) -> list[Segment]:
        """End the open line of a channel, because its speaker has ended, and give its lines."""
        return segments(self._open.pop(channel, ()))

    def end_all(self) -> list[Segment]:
        """End the open lines of all channels, because nothing more comes, and give the lines."""
        lines, self._open = self.open, {}
        return [segment for line in lines for segment in segments(line)]


def line_text(line: Segment) -> str:
    """The line as it is printed."""
    return channel_label(line.channel) + plain_text(line.text)
