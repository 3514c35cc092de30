"""What is counted of one talk, for the service's metrics and the talk's line in the log."""

import time

from kiku.audio import StreamWarning
from kiku.serve.service import Service
from kiku.stream import End, Event, Finalized
from kiku.text import Word


class TalkCounters:
    """What is counted of one talk. The service's counters are updated now and then only, as each
    update costs a lock."""

    def __init__(self, service: Service, protocol: str) -> None:
        """Start at 0."""
        metrics = service.metrics
        self._protocol, self._errors, self._warnings = protocol, metrics.errors, metrics.warnings
        self._received = metrics.received.labels(protocol)
        self._sent = metrics.sent.labels(protocol)
        self._lag = metrics.lag.labels(protocol)
        self._first, self._final = (
            metrics.first_word.labels(protocol), metrics.final_word.labels(protocol),
        )  # fmt: skip
        self.warned: set[str] = set()
        """Kinds of the warnings about the sound, for the log."""
        self.num_received = self.num_sent = self.num_words = 0
        self.text: list[str] | None = [] if service.settings.log_text else None
        """The text of all words, if the log shall have it."""
        self._flushed_in = self._flushed_out = 0
        self.asked_at = self._first_at = 0.0
        self.duration = 0.0

    def pushed(self) -> None:
        """Note that sound has come."""
        if not self._first_at:
            self._first_at = time.monotonic()

    def look(self, waiting_s: float) -> None:
        """Count the seconds of sound that wait, unless nothing waits and nothing has come since the
        last `flush`: whether words come or not, so that a stream that is stuck is seen."""
        if waiting_s > 0 or self.num_received > self._flushed_in:
            self._lag.observe(waiting_s)

    def count_event(self, event: Event) -> None:
        """Count an event that is sent."""
        if isinstance(event, Word):
            if not self.num_words and self._first_at:
                self._first.observe(time.monotonic() - self._first_at)
            self.num_words += 1
            if self.text is not None:
                self.text.append(event.text)
        elif isinstance(event, StreamWarning):
            self.warned.add(event.kind)
            self._warnings.labels(self._protocol, event.kind).inc()
        elif isinstance(event, Finalized | End) and self.asked_at:
            self._final.observe(time.monotonic() - self.asked_at)
            self.asked_at = 0.0

    def failed(self, error: Exception) -> None:
        """Count an error by its type."""
        self.errors(type(error).__name__)

    def errors(self, kind: str) -> None:
        """Count an error of this kind."""
        self._errors.labels(self._protocol, kind).inc()

    def flush(self) -> None:
        """Add what is new to the service's counters."""
        self._received.inc(self.num_received - self._flushed_in)
        self._sent.inc(self.num_sent - self._flushed_out)
        self._flushed_in, self._flushed_out = self.num_received, self.num_sent
