"""Builds the package with hatchling, and asks for a compiler only if it can be used."""

import os
import sys
from pathlib import Path

from hatchling.build import *  # noqa: F403 - what pip calls
from hatchling.build import get_requires_for_build_editable as _for_editable
from hatchling.build import get_requires_for_build_wheel as _for_wheel

sys.path.insert(0, str(Path(__file__).parent))
from build_library import TARGETS, built, own_compiler, this_target


def get_requires_for_build_wheel(config_settings: dict[str, object] | None = None) -> list[str]:
    """The packages that pip installs before it builds a wheel."""
    return [*_for_wheel(config_settings), *_compiler()]


def get_requires_for_build_editable(config_settings: dict[str, object] | None = None) -> list[str]:
    """The same for `pip install -e`."""
    return [*_for_editable(config_settings), *_compiler()]


def _compiler() -> list[str]:
    """The package of zig, which is a compiler; nothing if `CXX` names another compiler, the library
    is built already, or there are no kernels for this system."""
    target = os.environ.get("KIKU_KERNELS_TARGET") or this_target()
    has_no_use = own_compiler(target) or target not in TARGETS or built(target).exists()
    return [] if has_no_use else ["ziglang>=0.13,<1"]
