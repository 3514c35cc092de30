"""Words on standard output, as they come."""

from typing import Protocol

from kiku.cli import terminal
from kiku.cli.lines import LineCutter, line_text
from kiku.text import Word, segments
from kiku.text.cues import channel_label


class Output(Protocol):
    """A way to write words: it is given every recording and every word."""

    def begin(self, title: str | None) -> None:
        """Begin a recording; `title` is None if it is the only one."""
        ...

    def add(self, word: Word) -> None:
        """Take a word that is final."""
        ...

    def end(self) -> None:
        """End a recording: no more words come."""
        ...

    @property
    def pending(self) -> str:
        """Final words that are not on standard output yet."""
        ...


class Nothing:
    """Writes no words: the result follows at the end."""

    def begin(self, title: str | None) -> None:
        """Do nothing."""

    def add(self, word: Word) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    @property
    def pending(self) -> str:
        """Always empty: words are printed at once, or not at all."""
        return ""


class _Titled:
    """Prints a title before the words of a recording, if there are several recordings."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self, title: str | None) -> None:
        """Print the title, after an empty line if other words came before."""
        if title is not None:
            terminal.echo(f"{chr(10) if self._begun else ''}==> {title} <==\n")
        self._begun = True


class WordTable(_Titled):
    """One word a line, with start, end and probability."""

    def add(self, word: Word) -> None:
        """Print the word at once."""
        terminal.echo(table_line(word))

    def end(self) -> None:
        """Do nothing: all words are printed."""

    @property
    def pending(self) -> str:
        """Always empty: words are printed at once, or not at all."""
        return ""


class Lines(_Titled):
    """Text, each line as soon as it is complete: what `write_txt` gives, only sooner.
    If channels are transcribed separately, lines of two channels may change places."""

    def __init__(self) -> None:
        """Start before the first recording."""
        super().__init__()
        self._cutter = LineCutter()

    def add(self, word: Word) -> None:
        """Print the line before the word, if the word begins another."""
        for line in self._cutter.add(word):
            terminal.echo(f"{line_text(line)}\n")

    def end(self) -> None:
        """Print the lines that are left."""
        # Taken first: a line that cannot be printed must not begin the next recording.
        for line in self._cutter.end_all():
            terminal.echo(f"{line_text(line)}\n")

    @property
    def pending(self) -> str:
        """The lines that may still grow."""
        return "\n".join(
            channel_label(line[0].channel) + " ".join(word.text for word in line)
            for line in self._cutter.open
        )


class Flow(_Titled):
    """Text, each word at once: for a terminal on which nothing else moves."""

    def __init__(self) -> None:
        """Start before the first recording."""
        super().__init__()
        self._line: list[Word] = []

    def add(self, word: Word) -> None:
        """Print the word, on the same line or the next."""
        goes_on = False
        if self._line and self._line[-1].channel == word.channel:
            cut = segments([*self._line, word])
            goes_on = len(cut) == 1
        before = " " if goes_on else ("\n" if self._line else "") + channel_label(word.channel)
        self._line = [*self._line, word] if goes_on else [word]
        terminal.echo(before + word.text)

    def end(self) -> None:
        """End the last line."""
        line, self._line = self._line, []
        if line:
            terminal.echo("\n")

    @property
    def pending(self) -> str:
        """Always empty: words are printed at once, or not at all."""
        return ""


def table_line(word: Word) -> str:
    """Start and end in seconds, probability, word."""
    return (
        f"{word.start:9.2f} {word.end:9.2f} {word.probability:7.3f}  "
        f"{channel_label(word.channel)}{word.text}\n"
    )
