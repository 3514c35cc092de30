"""Import Ray so that none of its processes sends usage statistics, and have a Ray of a batch's own
record no more than the batch needs.

Ray reads variables of the environment when it is imported. The processes that it starts later do so
too, and inherit the environment, so the variable for usage statistics stays set. A cluster that
others have started keeps its own settings.
"""

import importlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from kiku.errors import MissingExtra

_UNREAD = {
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",  # 0 reports none
}
"""Turns off what Ray's processes measure and note of themselves. It costs some 1 % of two
processors, and without a dashboard nobody can read it."""


def is_connected() -> bool:
    """Whether this program has connected to a cluster already. Does not import Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def without_records() -> Generator[None]:
    """In the block, a Ray that is imported and started measures and notes nothing of itself, unless
    the environment says otherwise."""
    added = {name: value for name, value in _UNREAD.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def import_ray(what: str, part: str = "") -> Any:
    """Ray, or a part of it such as "data".

    Args:
        what: the feature that needs it, for the message: "kiku transcribe --ray".
        part: a module of the package.

    Raises:
        MissingExtra: Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        return importlib.import_module("ray" + (f".{part}" if part else ""))
    except ImportError as error:
        raise MissingExtra(what, "fleet") from error
