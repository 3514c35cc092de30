"""Builds the package with hatchling, and asks for a compiler only where one is of use."""

import os
import sys
from pathlib import Path

from hatchling.build import *  # noqa: F403 - what pip calls
from hatchling.build import get_requires_for_build_wheel as _hatchling_requires

sys.path.insert(0, str(Path(__file__).parent))
from build_library import TARGETS, this_target


def get_requires_for_build_wheel(config_settings: dict[str, object] | None = None) -> list[str]:
    """What pip installs first: zig, which is a compiler in a package, unless `CXX` names another
    or this is a system that there are no kernels for."""
    needed = list(_hatchling_requires(config_settings))
    target = os.environ.get("KIKU_KERNELS_TARGET") or this_target()
    own = os.environ.get("CXX") and target == this_target()
    return needed if own or target not in TARGETS else [*needed, "ziglang>=0.13,<1"]
