"""Live captions on a terminal: finished lines scroll up, the open one grows at the bottom."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kiku.cli.feed import FLOOR_DB
from kiku.cli.live_results import Cutter
from kiku.stream import End, Event, StreamWarning
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word
from kiku.text.cues import channel_label

SURE, UNSURE = 0.9, 0.6
"""Probabilities from which on words are shown plainly, and in yellow; others are red."""

_METER_WIDTH = 16
_HOT_DB, _FULL_DB = -12.0, -4.0
_FULL_CELL, _PARTS = "\u2588", " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"
_TIME_WIDTH = 7
_DRAW_S = 0.1
_MAX_SHOWN = 100  # lines that are kept for a clean screen
_MARGIN = 6
_ROWS_BELOW = 4  # rows of the screen for the open line and the level


class CaptionsView:
    """Shows events, the level and the lag, for as long as it is entered."""

    def __init__(
        self,
        title: str,
        *,
        levels_db: Callable[[], tuple[float, float]],
        lag_s: Callable[[], float],
        heard_s: Callable[[], float],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draw nothing yet. The functions are called from another thread.

        Args:
            title: what is listened to.
            levels_db: how loud the sound is now, and its loudest sample lately.
            lag_s: seconds of sound that came and are not processed yet.
            heard_s: seconds of sound that came.
            console: where it is drawn; None is standard output.
            clock: seconds that only grow.
        """
        self._title = title
        self._levels_db, self._lag_s, self._heard_s = levels_db, lag_s, heard_s
        self._console = console or Console(highlight=False)
        self._width = self._console.width
        self._cutter = Cutter()
        self._partials: dict[int | None, Partial] = {}
        self._state = ""  # stays unknown if no turns are emitted
        self._shown: deque[tuple[Word, ...]] = deque(maxlen=_MAX_SHOWN)
        self._now, self._drawn_at = clock, -math.inf
        self._live = Live(
            console=self._console,
            get_renderable=self.render,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._width = self._console.width
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        # The open lines must not be lost with the rest of the view.
        self._partials = {}
        for line in self._cutter.end():
            self._print(line.words)
        self._live.stop()

    def tick(self) -> None:
        """Draw the bottom again, if that is due; to be called all the time."""
        if self._now() - self._drawn_at >= _DRAW_S:
            self._fit()
            self._drawn_at = self._now()
            self._live.refresh()

    def take(self, event: Event) -> None:
        """Show what this event changes."""
        self._fit()
        if isinstance(event, StreamWarning):
            self.note(event.message, style="yellow")
            return
        lines = self._cutter.take(event)
        if isinstance(event, Partial):
            self._partials[event.channel] = event
        elif isinstance(event, Word | TurnEnd):
            self._partials.pop(event.channel, None)
        elif isinstance(event, End):
            self._partials = {}
        for line in lines:
            self._print(line.words)
        self._state = _state(event) or self._state

    def note(self, text: str, *, style: str = "dim") -> None:
        """Print a note on a line among the captions."""
        self._console.print(self._row("", Text(text, style=style)))

    def close(self, *, whole: bool) -> bool:
        """Do nothing: leaving the view closes it."""
        return True

    def _fit(self) -> None:
        """Begin a clean screen if the width has changed: how the terminal has wrapped its lines,
        and so where the bottom is, cannot be known."""
        if self._console.width != self._width:
            self._width = self._console.width
            self._console.clear()
            num_lines = max(0, self._console.height - _ROWS_BELOW)
            for words in tuple(self._shown)[max(0, len(self._shown) - num_lines) :]:
                self._draw(words)

    def render(self) -> RenderableType:
        """The bottom of the view: the open line of each channel, and the status."""
        rows: list[RenderableType] = []
        partials = dict(self._partials)
        for line in self._cutter.open:
            partial = partials.pop(line[0].channel, None)
            rows.append(self._row(_clock(line[0].start), words_as_text(line, partial)))
        for partial in partials.values():
            rows.append(self._row(_clock(partial.start), words_as_text((), partial)))
        return Group(*rows, self._status())

    def _print(self, words: Iterable[Word]) -> None:
        words = tuple(words)
        self._shown.append(words)
        self._draw(words)

    def _draw(self, words: Sequence[Word]) -> None:
        self._console.print(self._row(_clock(words[0].start), words_as_text(words)))

    def _row(self, left: str, text: Text) -> Table:
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(width=_TIME_WIDTH, justify="right", style="dim", no_wrap=True)
        row.add_column(overflow="fold")
        row.add_row(left, text)
        return row

    def _status(self) -> Text:
        """The status, cut to one line; its least important part comes last."""
        mean_db, peak_db = self._levels_db()
        plain = self._console.options.ascii_only
        text = Text()
        text.append(_clock(self._heard_s()).rjust(_TIME_WIDTH) + " ", "bold")
        text.append_text(meter(mean_db, peak_db, plain=plain))
        text.append(f" peak {_level(peak_db)} dBFS")
        lag_s = self._lag_s()
        text.append(f"  lag {lag_s:4.1f} s", "" if lag_s < 2 else "yellow" if lag_s < 10 else "red")
        text.append(f"  {self._state:8}", "bold" if self._state == "speech" else "dim")
        text.append(f" {self._title}", "dim")
        # The terminal shows Ctrl-C as ^C after it, which must not begin another line.
        width = max(1, self._console.width - _MARGIN)
        text.truncate(width, overflow="crop" if plain else "ellipsis")
        return text


def words_as_text(words: Iterable[Word], partial: Partial | None = None) -> Text:
    """Words in the colours of their probability, and the beginning of the next word."""
    text = Text()
    given: list[tuple[Word | Partial, str]] = [(word, _colour(word.probability)) for word in words]
    given += [] if partial is None else [(partial, "dim italic")]
    if given:
        text.append(channel_label(given[0][0].channel), "dim")
    for i, (one, style) in enumerate(given):
        text.append(" " if i else "").append(one.text, style)
    return text


def meter(mean_db: float, peak_db: float, *, plain: bool, width: int = _METER_WIDTH) -> Text:
    """A bar from -60 to 0 dBFS, with a mark at the loudest of the last samples.

    Args:
        mean_db: how long the bar is.
        peak_db: where the mark is.
        plain: use characters that every terminal has.
        width: cells.
    """
    filled = _share(mean_db) * width
    cells: list[str] = []
    for i in range(width):
        part = min(max(filled - i, 0.0), 1.0)
        if plain:
            cells.append("#" if part >= 0.5 else "-")
        else:
            cells.append(_FULL_CELL if part == 1 else _PARTS[int(part * len(_PARTS))])
    mark = min(int(_share(peak_db) * width), width - 1)
    if _share(peak_db) > 0 and mark >= filled:
        cells[mark] = "|" if plain else "\u258f"
    text = Text()
    for i, cell in enumerate(cells):
        db = FLOOR_DB * (1 - i / width)
        colour = "red" if db >= _FULL_DB else "yellow" if db >= _HOT_DB else "green"
        text.append(cell, f"{colour} on grey23" if not plain else colour)
    return text


def _share(db: float) -> float:
    """From 0 at the floor to 1 at full scale."""
    return 0.0 if db <= FLOOR_DB else min(1.0, 1 - db / FLOOR_DB)


def _level(db: float) -> str:
    return " -inf" if math.isinf(db) else f"{db:5.1f}"


def _colour(probability: float) -> str:
    if math.isnan(probability) or probability >= SURE:
        return ""
    return "yellow" if probability >= UNSURE else "red"


def _state(event: Event) -> str | None:
    if isinstance(event, TurnStart | TurnResumed):
        return "speech"
    if isinstance(event, TurnEndEager):
        return "pause"
    return "silence" if isinstance(event, TurnEnd) else None


def _clock(seconds: float) -> str:
    """Seconds as text: 0:05, or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
