"""One live stream from its first sound to its last word, shown and written while it goes on."""

import signal
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Protocol

from kiku.cli import terminal
from kiku.cli.captions_view import CaptionsView
from kiku.cli.feed import Feed, Sound
from kiku.cli.live_results import LiveFile, Printed
from kiku.cli.terminal import FAILED, INTERRUPTED, ReaderGone, describe
from kiku.errors import KikuError, OutputError
from kiku.live import LiveStream
from kiku.stream import End, Event, StreamWarning

_LOOK_S = 0.1
"""Seconds that a Ctrl-C or a notice may wait until it is seen."""


class Sink(Protocol):
    """An output that is given every event."""

    def take(self, event: Event) -> None:
        """Write an event; OutputError if that is impossible."""
        ...

    def close(self, *, whole: bool) -> bool:
        """Finish, as no more events come; return whether all text is where it should be.

        Args:
            whole: whether all of the sound was processed.
        """
        ...


class Interrupts:
    """Counts how often Ctrl-C was pressed, so that it does not interrupt a write."""

    def __init__(self) -> None:
        """Start at 0."""
        self.count = 0

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Count one more. The third one does interrupt: something must be stuck."""
        self.count += 1
        if self.count > 2:
            raise KeyboardInterrupt


@contextmanager
def counted_interrupts() -> Generator[Interrupts, None, None]:
    """Count Ctrl-C, instead of interrupting, while the block runs."""
    interrupts = Interrupts()
    try:
        before = signal.signal(signal.SIGINT, interrupts.note)
    except ValueError:  # not in the main thread, where signals do not come either
        yield interrupts
        return
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


class Listening:
    """A stream, the feed that pushes sound into it, and the outputs of its events."""

    def __init__(
        self,
        stream: LiveStream,
        sound: Sound,
        notices: deque[str],
        sinks: Sequence[Sink],
        *,
        label: str,
        quiet: bool,
        debug: bool,
    ) -> None:
        """Join the stream, its sound and its outputs; nothing runs yet.

        Args:
            stream: a new one, to which nothing was pushed.
            sound: the sound to listen to.
            notices: messages about the sound, from any thread.
            sinks: the outputs; each is given every event.
            label: name of the sound.
            quiet: print nothing but errors on standard error.
            debug: let unexpected errors through.
        """
        self._stream, self._label = stream, label
        self._sinks = list(sinks)
        self._quiet, self._debug = quiet, debug
        self.feed = Feed(sound, stream, notices)
        self._view: CaptionsView | None = None
        self._warned: set[str] = set()
        self._failed = False
        self._at_end = False

    def show(self, view: CaptionsView) -> None:
        """Draw the captions in a view."""
        self._view = view
        self._sinks.append(view)

    def run(self) -> int:
        """Listen until the sound ends or Ctrl-C is pressed; return the exit code."""
        with counted_interrupts() as interrupts, ExitStack() as stack:
            stack.callback(self._end, interrupts)
            if self._view is not None:
                stack.enter_context(self._view)
            self.feed.start()
            try:
                self._follow(interrupts)
            except ReaderGone:
                raise
            except Exception as error:
                if self._debug and not isinstance(error, KikuError):
                    raise
                self.feed.problem = error
                self._give(End(self._stream.duration))  # the line that was open is not lost
        return self._code(interrupts)

    def _follow(self, interrupts: Interrupts) -> None:
        """Give the events to the outputs, to the last one."""
        handled = 0
        while True:
            event = self._stream.next_event(_LOOK_S)
            if event is not None:
                self._give(event)
            while self.feed.notices:
                self._give(
                    StreamWarning("device", self.feed.notices.popleft(), self._stream.duration)
                )
            if self._view is not None:
                self._view.tick()
            if isinstance(event, End):
                self._at_end = True
                return
            if interrupts.count > handled:
                handled = interrupts.count
                if handled == 1:
                    if self._view is not None and self.feed.lag_s > 1:
                        self._view.note(
                            "finishing the last words; press Ctrl-C again to stop without them"
                        )
                    self.feed.stop()
                else:
                    self._stream.stop()

    def _give(self, event: Event) -> None:
        if isinstance(event, StreamWarning) and not self._is_news(event):
            return
        for sink in tuple(self._sinks):
            try:
                sink.take(event)
            except OutputError as error:
                # The other outputs, and the sound, go on.
                self._failed = True
                self._sinks.remove(sink)
                sink.close(whole=False)
                terminal.error(str(error))

    def _is_news(self, warning: StreamWarning) -> bool:
        """Whether a warning is to be shown; if there is no view, this prints it."""
        # A stream may repeat a warning, of which the first is enough. A device comes and goes.
        if warning.kind != "device":
            if warning.kind in self._warned:
                return False
            self._warned.add(warning.kind)
        if self._view is None and not (self._quiet and warning.kind != "device"):
            terminal.error(f"warning: {warning.message}")
        return True

    def _end(self, interrupts: Interrupts) -> None:
        """Stop everything, whatever happened, and close the outputs."""
        self.feed.stop()
        if not self._stream.done:
            self._stream.stop()
        whole = self._at_end and not interrupts.count and self.feed.problem is None
        for sink in self._sinks:
            self._failed |= not sink.close(whole=whole)

    def _code(self, interrupts: Interrupts) -> int:
        heard = f"{self._stream.duration:.1f} s of {self._label}"
        problem = self.feed.problem
        if problem is not None:
            message = describe(problem)
            terminal.error(message if self._label in message else f"{self._label}: {message}")
        if interrupts.count:
            terminal.error(f"interrupted after {heard}; {self._where()}")
            return INTERRUPTED
        return FAILED if problem is not None or self._failed else 0

    def _where(self) -> str:
        files = [
            str(sink.path)
            for sink in self._sinks
            if isinstance(sink, LiveFile) and sink.path.exists()
        ]
        if files:
            return f"the words until then are in {', '.join(files)}"
        shown = any(isinstance(sink, Printed | CaptionsView) for sink in self._sinks)
        return "the words until then are printed above" if shown else "no words were kept"
