"""What is counted of one upload, for the service's metrics and the upload's line in the log."""

import logging
import time
from typing import Any

from starlette.responses import Response

from kiku.serve.forms import FormError
from kiku.serve.logs import line
from kiku.serve.protocols.interface import Refusal
from kiku.serve.service import Service
from kiku.serve.uploads import Encoded, TooLarge
from kiku.serve.wire import OWNER, Scope
from kiku.transcription import Transcript

_LOG = logging.getLogger("kiku.serve")

LEFT = 499
"""Status, for the log, of an upload whose client has left before its answer."""


class UploadCounters:
    """What is counted of one upload."""

    def __init__(self, service: Service, protocol: str, scope: Scope) -> None:
        """Start at 0; `scope` is that of the upload's request."""
        metrics = service.metrics
        self._protocol, self._errors = protocol, metrics.errors
        self._received = metrics.received.labels(protocol)
        self._sent = metrics.sent.labels(protocol)
        self._id, self._owner = scope.get("kiku.id", ""), scope.get(OWNER, "")
        self._has_text = service.settings.log_text
        self._began = time.monotonic()
        self._transcript: Transcript | None = None
        self._num_received = self._num_sent = 0
        self.num_words = 0

    def received(self, num_bytes: int) -> None:
        """Count bytes of the body."""
        self._num_received += num_bytes
        self._received.inc(num_bytes)

    def sent(self, num_bytes: int) -> None:
        """Count bytes of the answer."""
        self._num_sent += num_bytes
        self._sent.inc(num_bytes)

    def failed(self, error: Exception, status: int) -> None:
        """Count an error by its type, or by its status if its client alone has made it."""
        is_clients = isinstance(error, Refusal | FormError | TooLarge | Encoded)
        kind = str(status) if is_clients else type(error).__name__
        self._errors.labels(self._protocol, kind).inc()

    def heard(self, transcript: Transcript) -> None:
        """Note all that was said."""
        self._transcript = transcript

    def answered(self, response: Response) -> Response:
        """Count an answer in one piece, and log the upload; returns the answer."""
        self.sent(len(response.body))
        self.log(response.status_code)
        return response

    def log(self, status: int) -> None:
        """Log one line."""
        transcript = self._transcript
        values: dict[str, Any] = {
            "protocol": self._protocol,
            "id": self._id,
            "owner": self._owner,
            "seconds": round(time.monotonic() - self._began, 2),
            "sound": 0.0 if transcript is None else round(transcript.duration, 2),
            "words": self.num_words,
            "received": self._num_received,
            "sent": self._num_sent,
            "status": status,
        }
        if transcript is not None and transcript.warnings:
            values["warnings"] = ",".join(sorted({one.kind for one in transcript.warnings}))
        if transcript is not None and self._has_text:
            values["text"] = transcript.text
        _LOG.info(*line("upload", values))
