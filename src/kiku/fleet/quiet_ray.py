"""Ray, imported so that it reports to nobody: no usage statistics, from no process.

Ray looks at a variable of the environment when it is imported, and so do the processes that it
starts later, to which the environment is passed on. It stays set. What a cluster reports that
others have started is decided there.
"""

import importlib
import os
from typing import Any

from kiku.errors import MissingExtra


def import_ray(what: str, part: str = "") -> Any:
    """Ray, or a part of it such as "data".

    Args:
        what: needs it, for the message: "kiku transcribe --ray".
        part: of the package.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        return importlib.import_module("ray" + (f".{part}" if part else ""))
    except ImportError as error:
        raise MissingExtra(what, "fleet") from error
