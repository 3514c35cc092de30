"""Words on standard output, as they come."""

from typing import Protocol

from kiku.cli import terminal
from kiku.cli.lines import LineCutter, label, line_text
from kiku.text import Word, segments


class Output(Protocol):
    """Is given every recording and word, and writes what it likes."""

    def begin(self, title: str | None) -> None:
        """A recording starts; `title` is None where there is only one."""
        ...

    def add(self, word: Word) -> None:
        """A word was decided."""
        ...

    def end(self) -> None:
        """Nothing more comes of this recording."""
        ...

    @property
    def pending(self) -> str:
        """Words that were decided but are not on standard output yet."""
        ...


class Nothing:
    """Writes no words: the result follows at the end."""

    def begin(self, title: str | None) -> None:
        """Nothing."""

    def add(self, word: Word) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    @property
    def pending(self) -> str:
        """None ever."""
        return ""


class _Titled:
    """Puts a title over what is shown of a recording, where there are several."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self, title: str | None) -> None:
        """The title, an empty line apart from what was before."""
        if title is not None:
            terminal.echo(f"{chr(10) if self._begun else ''}==> {title} <==\n")
        self._begun = True


class Table(_Titled):
    """One word a line, with start, end and probability."""

    def add(self, word: Word) -> None:
        """The word, at once."""
        terminal.echo(table_line(word))

    def end(self) -> None:
        """All words are out."""

    @property
    def pending(self) -> str:
        """None ever."""
        return ""


class Lines(_Titled):
    """Text, each line as soon as it is complete: what `write_txt` gives, sooner. (Where channels
    are transcribed one by one, lines of two of them may change places.)"""

    def __init__(self) -> None:
        """Before the first recording."""
        super().__init__()
        self._cutter = LineCutter()

    def add(self, word: Word) -> None:
        """The line before it, if this word begins another."""
        for line in self._cutter.add(word):
            terminal.echo(f"{line_text(line)}\n")

    def end(self) -> None:
        """What is left."""
        # Taken first: what standard output does not take must not begin the next recording.
        for line in self._cutter.end_all():
            terminal.echo(f"{line_text(line)}\n")

    @property
    def pending(self) -> str:
        """The lines that may still grow."""
        return "\n".join(
            label(line[0].channel) + " ".join(word.text for word in line)
            for line in self._cutter.open
        )


class Flow(_Titled):
    """Text, each word at once: for a terminal on which nothing else moves."""

    def __init__(self) -> None:
        """Before the first recording."""
        super().__init__()
        self._line: list[Word] = []

    def add(self, word: Word) -> None:
        """The word, on the same line or the next."""
        goes_on = False
        if self._line and self._line[-1].channel == word.channel:
            cut = segments([*self._line, word])
            goes_on = len(cut) == 1
        before = " " if goes_on else ("\n" if self._line else "") + label(word.channel)
        self._line = [*self._line, word] if goes_on else [word]
        terminal.echo(before + word.text)

    def end(self) -> None:
        """The end of the last line."""
        line, self._line = self._line, []
        if line:
            terminal.echo("\n")

    @property
    def pending(self) -> str:
        """None ever."""
        return ""


def table_line(word: Word) -> str:
    """Start and end in seconds, probability, word."""
    return (
        f"{word.start:9.2f} {word.end:9.2f} {word.probability:7.3f}  "
        f"{label(word.channel)}{word.text}\n"
    )
