"""Lines of the log: one for each connection, upload and refusal, as text or JSON. No sound and no
key; words only if `log_text` is set."""

import json
import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import Any, cast
from urllib.parse import quote, unquote_plus

from kiku.serve.keys import KEY_PARAMETER
from kiku.serve.settings import Settings
from kiku.serve.talk import Talk

_LOG = logging.getLogger("kiku.serve")


def connection_line(talk: Talk, seconds: float) -> tuple[str, dict[str, Any]]:
    """The log line of a connection that has ended, as arguments of `Logger.info`."""
    counters = talk.counters
    values: dict[str, Any] = {
        "protocol": talk.protocol_name,
        "id": talk.id,
        "owner": talk.owner,
        "seconds": round(seconds, 2),
        "sound": round(counters.duration, 2),
        "words": counters.num_words,
        "received": counters.num_received,
        "sent": counters.num_sent,
        "code": talk.code,
    }
    if counters.warned:
        values["warnings"] = ",".join(sorted(counters.warned))
    if counters.text is not None:
        values["text"] = " ".join(counters.text)
    return line("connection", values)


def line(kind: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A line of named values, as arguments of `Logger.info`."""
    return f"{kind} " + " ".join(f"{name}=%({name})s" for name in values), values


_MAX_REFUSALS = 100
"""Lines in a minute about refused clients, at level info; further ones have level debug."""

_MINUTE_S = 60.0


class RefusalLog:
    """Logs one line for each client that is refused, unless there are too many: clients could fill
    a disk with them."""

    def __init__(self) -> None:
        """Start with none."""
        self._num_lines, self._since = 0, 0.0

    def add(self, status: int, path: str, id: str, owner: str) -> None:
        """Log a client that gets no connection.

        Args:
            status: of the answer.
            path: that it has asked for.
            id: of its request.
            owner: of the request, or its address if that is not known.
        """
        now = time.monotonic()
        if now - self._since > _MINUTE_S:
            self._num_lines, self._since = 0, now
        self._num_lines += 1
        level = logging.INFO if self._num_lines <= _MAX_REFUSALS else logging.DEBUG
        shown = quote(path[:100], errors="replace")  # it may be anything
        values = {"path": shown, "id": id, "owner": owner, "status": status}
        _LOG.log(level, *line("refused", values))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if isinstance(record.args, dict):
            values |= record.args
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def set_up(settings: Settings) -> None:
    """Write kiku's log and the warnings of other packages to standard error, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(_Json())
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        formatter.converter = time.gmtime
        formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
        formatter.default_msec_format = "%s.%03dZ"
        handler.setFormatter(formatter)
    for name in ("kiku", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    root = logging.getLogger()
    if not root.handlers:  # else Python writes other packages' records, and warnings, as plain text
        root.addHandler(handler)
    logging.captureWarnings(True)
    logging.getLogger("kiku").setLevel(settings.log_level.upper())
    # uvicorn's lines about connections hold their addresses, with keys in them.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    # A damaged form is its client's mistake, which the client is told.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


_SERVERS = (
    "uvicorn.access", "uvicorn.error", "granian.access", "_granian", "hypercorn.access",
    "hypercorn.error",
)  # fmt: skip
"""Loggers of the servers that may run the application; their lines hold whole addresses."""

_IN_QUERY = re.compile(r"(?<=[?&])([^=&\s]+)=([^&\s\"']*)")
_HIDDEN = "..."


def without_keys(text: str) -> str:
    """The text with the keys in its addresses hidden."""

    def hidden(found: re.Match[str]) -> str:
        is_key = unquote_plus(found[1]) == KEY_PARAMETER  # it may be escaped
        return f"{found[1]}={_HIDDEN}" if is_key else found[0]

    return _IN_QUERY.sub(hidden, text)


def _hide(value: Any) -> Any:
    if isinstance(value, bytes):
        return without_keys(value.decode("latin-1")).encode("latin-1")
    return without_keys(value) if isinstance(value, str) else value


def _hide_all(record: logging.LogRecord) -> bool:
    """A filter that hides the keys in a record's parts, and lets every record pass."""
    record.msg = _hide(record.msg)
    given = record.args
    if isinstance(given, tuple):
        record.args = tuple(map(_hide, given))
    elif isinstance(given, MutableMapping):  # changed in place, as it may be more than a dict
        parts = cast("MutableMapping[str, Any]", given)
        for name, value in list(parts.items()):
            if _hide(value) != value:
                parts[name] = _hide(value)
    return True


def hide_keys() -> None:
    """Hide the keys that clients give in the query from the logs of the server that runs the
    application, whichever it is."""
    for name in _SERVERS:
        logging.getLogger(name).addFilter(_hide_all)
