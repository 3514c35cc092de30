"""Import Ray so that none of its processes sends usage statistics.

Ray reads a variable of the environment when it is imported. The processes that it starts later do
so too, and inherit the environment, so the variable stays set. A cluster that others have started
keeps its own setting.
"""

import importlib
import os
from typing import Any

from kiku.errors import MissingExtra


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
