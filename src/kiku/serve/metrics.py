"""What a service counts, for Prometheus."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

_STEP_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.12, 0.2, 0.5, 1.0, 5.0)
_LAG_S = (0.08, 0.16, 0.24, 0.4, 0.8, 1.6, 3.0, 10.0, 30.0, 120.0)
_WORD_S = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Start at 0."""
        self._registry = registry = CollectorRegistry()
        self.slots = Gauge(
            "kiku_slots", "Streams that can be transcribed at once.", registry=registry
        )
        self.slots_used = Gauge("kiku_slots_used", "Slots that are in use.", registry=registry)
        self.queue = Gauge("kiku_queue", "Uploads that wait for a slot.", registry=registry)
        self.connections = Gauge(
            "kiku_open_connections", "Connections that are open.", ["protocol"], registry=registry
        )
        self.opened = Counter(
            "kiku_connections_total", "Connections that were opened.", ["protocol"],
            registry=registry,
        )  # fmt: skip
        self.errors = Counter(
            "kiku_errors_total", "Errors, by kind.", ["protocol", "kind"],
            registry=registry,
        )  # fmt: skip
        self.warnings = Counter(
            "kiku_warnings_total", "Warnings about the sound of live streams, by kind.",
            ["protocol", "kind"], registry=registry,
        )  # fmt: skip
        self.step = Histogram(
            "kiku_step_seconds", "Time of one step of the model.", buckets=_STEP_S,
            registry=registry,
        )  # fmt: skip
        self.frames = Counter(
            "kiku_frames_total", "Frames of 80 ms that were processed.", registry=registry
        )
        self.speed = Gauge(
            "kiku_real_time_factor",
            "Seconds of computing for a second of sound, over the last steps.",
            registry=registry,
        )
        self._add_delays(registry)
        self.received = Counter(
            "kiku_received_bytes_total", "Bytes from clients.", ["protocol"], registry=registry
        )
        self.sent = Counter(
            "kiku_sent_bytes_total", "Bytes to clients.", ["protocol"], registry=registry
        )
        self.store_failures = Counter(
            "kiku_session_store_failures_total", "Failed writes and claims of sessions.",
            registry=registry,
        )  # fmt: skip
        self.sessions_moved = Counter(
            "kiku_sessions_moved_total",
            "Sessions that were taken over from another process (exactly, sound), went to "
            "another one, or were refused.",
            ["how"],
            registry=registry,
        )

    def _add_delays(self, registry: CollectorRegistry) -> None:
        """How long live streams and their clients wait."""
        self.lag = Histogram(
            "kiku_lag_seconds", "Sound of a live stream that waits to be processed, four times a "
                                "second.",
            ["protocol"], buckets=_LAG_S, registry=registry,
        )  # fmt: skip
        self.first_word = Histogram(
            "kiku_first_word_seconds", "From the first sound to the first word.", ["protocol"],
            buckets=_WORD_S, registry=registry,
        )  # fmt: skip
        self.final_word = Histogram(
            "kiku_final_word_seconds", "From a finalize, or the end of the sound, to its answer.",
            ["protocol"], buckets=_WORD_S, registry=registry,
        )  # fmt: skip

    def stepped(self, num_frames: int, seconds: float, frame_s: float) -> None:
        """Count a step that the model has made; called by the thread that steps it."""
        self.step.observe(seconds)
        self.frames.inc(num_frames)
        self.speed.set(seconds / (num_frames * frame_s))

    def text(self) -> bytes:
        """All figures in the text format that Prometheus reads."""
        return generate_latest(self._registry)
