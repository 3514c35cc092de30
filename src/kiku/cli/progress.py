"""Progress on standard error: seconds of sound, speed, time left. On a terminal it is shown by bars
that move, elsewhere by a line now and then."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from kiku.cli import terminal

LINE_EVERY_S = 30.0
"""Seconds between two lines where no bars are shown."""


class Meter:
    """Bars for one recording and for all, below the words that are not on a whole line yet."""

    def __init__(self, *, quiet: bool, forced: bool = False) -> None:
        """Look whether standard error is a terminal.

        Args:
            quiet: show nothing.
            forced: write notes as lines if there is no terminal.
        """
        self._console = Console(stderr=True, highlight=False)
        self.visible = not quiet and self._console.is_interactive
        self._in_lines = not quiet and not self.visible
        self._notes_in_lines = forced and self._in_lines
        self.heard_s = 0.0
        self._since = time.monotonic()

    def note(self, text: str) -> None:
        """Show a line about what happens."""
        if self.visible:
            self._console.print(Text(text, style="dim"), soft_wrap=True)
        elif self._notes_in_lines:
            terminal.error(text)

    @contextmanager
    def noting(self) -> "Generator[None, None, None]":
        """Show what kiku logs about long work as notes, while the block runs."""
        logger, handler = logging.getLogger("kiku"), _Notes(self)
        level = logger.level
        if self.visible or self._notes_in_lines:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    def closing(self, num_recordings: int) -> None:
        """Show the line at the end: how much sound, and how fast."""
        seconds = max(time.monotonic() - self._since, 1e-3)
        what = "1 recording" if num_recordings == 1 else f"{num_recordings} recordings"
        speed = self.heard_s / seconds
        self.note(f"{what}, {clock(self.heard_s)} in {clock(seconds)} ({speed:.1f}x)")

    @contextmanager
    def showing(self, durations: Sequence[float | None]) -> "Generator[Bars, None, None]":
        """Show bars, or lines, while the block runs.

        Args:
            durations: seconds of every recording to come, None if unknown.
        """
        self._since = time.monotonic()
        bars = Bars(durations)
        if not self.visible:
            with _told_of(bars) if self._in_lines else nullcontext():
                yield bars
            return
        with Live(
            console=self._console,
            get_renderable=bars.render,
            refresh_per_second=8,
            transient=True,
            # Lines for a terminal go above the bars; a pipe is left alone.
            redirect_stdout=sys.stdout.isatty(),
        ):
            yield bars


@contextmanager
def _told_of(bars: "Bars") -> Generator[None, None, None]:
    """Print a line every half a minute while the block runs: a long silence looks like a program
    that hangs, and short work needs no line."""
    stopped = threading.Event()

    def tell() -> None:
        while not stopped.wait(LINE_EVERY_S):
            terminal.error(bars.line())

    thread = threading.Thread(target=tell, name="kiku-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class _Notes(logging.Handler):
    """Shows log records as notes, except for warnings, which are printed in any case."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(logging.INFO)
        self._meter = meter

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            self._meter.note(record.getMessage())


class Bars:
    """The bars that are shown; rendered several times a second."""

    def __init__(self, durations: Sequence[float | None]) -> None:
        """Start before the first recording."""
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=2)),
            BarColumn(bar_width=None, table_column=Column(ratio=3)),
            _Seconds(),
            _Speed(),
            _Left(),
            expand=True,
        )
        self._num = len(durations)
        self._index = 0
        self._title = ""
        self._since = time.monotonic()
        self._before_s = 0.0
        self._heard_s: Callable[[], float] = lambda: 0.0
        self._pending: Callable[[], str] = lambda: ""
        known = [d for d in durations if d is not None]
        total = sum(known) if len(known) == self._num else None
        self._all = self._progress.add_task("all", total=total) if self._num > 1 else None
        self._one: TaskID | None = None

    def follow(
        self,
        label: str,
        duration: float | None,
        heard_s: Callable[[], float],
        pending: Callable[[], str],
    ) -> None:
        """Show the next recording.

        Args:
            label: its name.
            duration: its seconds, None if unknown.
            heard_s: gives how many seconds are processed; called from another thread.
            pending: gives the words that are not on a whole line yet; likewise.
        """
        self._before_s += self._heard_s()
        self._index += 1
        self._heard_s, self._pending = heard_s, pending
        if self._one is not None:
            self._progress.remove_task(self._one)
        self._title = title = label if self._num == 1 else f"{self._index}/{self._num} {label}"
        # A name is plain text, even if it looks like markup.
        self._one = self._progress.add_task(title.replace("[", r"\["), total=duration)

    def line(self) -> str:
        """The progress in one line."""
        task = next((one for one in self._progress.tasks if one.id == self._one), None)
        if task is None:
            return "opening the first recording"
        heard_s = self._heard_s()
        speed = (self._before_s + heard_s) / max(time.monotonic() - self._since, 1e-3)
        of, left = "", ""
        if task.total is not None:
            of = f" of {clock(task.total)}"
            if speed:
                left = f", {clock(max(0.0, task.total - heard_s) / speed)} left"
        return f"{self._title}: {clock(heard_s)}{of}, {speed:.1f}x{left}"

    def render(self) -> RenderableType:
        """The words of the open line, and the bars."""
        heard_s = self._heard_s()
        if self._one is not None:
            self._progress.update(self._one, completed=heard_s)
        if self._all is not None:
            self._progress.update(self._all, completed=self._before_s + heard_s)
        words = self._pending()
        return Group(*([Text(words)] if words else []), self._progress.get_renderable())


class _Seconds(ProgressColumn):
    """12.4 / 60.0 s of sound."""

    def render(self, task: Task) -> Text:
        """Seconds done, and the total if it is known."""
        of = "" if task.total is None else f" / {clock(task.total)}"
        return Text(f"{clock(task.completed)}{of}", style="progress.download")


class _Speed(ProgressColumn):
    """Seconds of sound per second."""

    def render(self, task: Task) -> Text:
        """The speed; empty until it is known."""
        return Text(f"{task.speed:.1f}x" if task.speed else "", style="progress.data.speed")


class _Left(ProgressColumn):
    """The time that is left."""

    def render(self, task: Task) -> Text:
        """The time left; empty if the length is unknown."""
        left = task.time_remaining
        return Text("" if left is None else f"{clock(left)} left", style="progress.remaining")


def clock(seconds: float) -> str:
    """A duration: below a minute in seconds with their unit, above as 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
