"""Words on standard output, as they come."""

from typing import Protocol

from kiku.cli.terminal import say
from kiku.text import Word, segments


class Show(Protocol):
    """Is told of every recording and word, and shows what it likes."""

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
    """Shows no words: the result follows at the end."""

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
            say(f"{chr(10) if self._begun else ''}==> {title} <==\n")
        self._begun = True


class Table(_Titled):
    """One word a line, with start, end and probability."""

    def add(self, word: Word) -> None:
        """The word, at once."""
        say(table_line(word))

    def end(self) -> None:
        """All words are out."""

    @property
    def pending(self) -> str:
        """None ever."""
        return ""


class Lines(_Titled):
    """Text, each line as soon as it is complete: what `write_txt` gives, sooner."""

    def __init__(self) -> None:
        """Before the first recording."""
        super().__init__()
        self._line: list[Word] = []

    def add(self, word: Word) -> None:
        """The line before it, if this word begins another."""
        # Segments are cut from left to right, so those of one line and a word are those of all.
        cut = segments([*self._line, word])
        for segment in cut[:-1]:
            say(f"{segment.text}\n")
        self._line = list(cut[-1].words)

    def end(self) -> None:
        """The last line."""
        # Emptied first: what standard output does not take must not begin the next recording.
        line, self._line = self.pending, []
        if line:
            say(f"{line}\n")

    @property
    def pending(self) -> str:
        """The line that may still grow."""
        return " ".join(word.text for word in self._line)


class Flow(_Titled):
    """Text, each word at once: for a terminal on which nothing else moves."""

    def __init__(self) -> None:
        """Before the first recording."""
        super().__init__()
        self._line: list[Word] = []

    def add(self, word: Word) -> None:
        """The word, on the same line or the next."""
        cut = segments([*self._line, word])
        if self._line:
            say("\n" if len(cut) > 1 else " ")
        say(word.text)
        self._line = list(cut[-1].words)

    def end(self) -> None:
        """The end of the last line."""
        line, self._line = self._line, []
        if line:
            say("\n")

    @property
    def pending(self) -> str:
        """None ever."""
        return ""


def table_line(word: Word) -> str:
    """Start and end in seconds, probability, word."""
    return f"{word.start:9.2f} {word.end:9.2f} {word.probability:7.3f}  {word.text}\n"
