"""Lines of the log: one for each connection, as text or JSON. No sound, no text, no key."""

import json
import logging
import sys
import time
from typing import Any

from kiku.serve.settings import Settings
from kiku.serve.talk import Talk


def connection_line(talk: Talk, seconds: float) -> tuple[str, dict[str, Any]]:
    """What is said of a connection that has ended: arguments of `Logger.info`."""
    figures = talk.figures
    told: dict[str, Any] = {
        "protocol": talk.protocol_name,
        "id": talk.id,
        "owner": talk.owner,
        "seconds": round(seconds, 2),
        "sound": round(figures.duration, 2),
        "words": figures.num_words,
        "received": figures.num_received,
        "sent": figures.num_sent,
        "code": talk.code,
    }
    if figures.warned:
        told["warnings"] = ",".join(sorted(figures.warned))
    if figures.text is not None:
        told["text"] = " ".join(figures.text)
    text = " ".join(f"{name}=%({name})s" for name in told)
    return f"connection {text}", told


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if isinstance(record.args, dict):
            told |= record.args
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def set_up(settings: Settings) -> None:
    """Write kiku's log to standard error."""
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
    logging.getLogger("kiku").setLevel(settings.log_level.upper())
    # What uvicorn says of connections holds their addresses with keys in them.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
