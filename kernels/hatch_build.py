"""Puts the native library into the wheel; where it cannot be built, the wheel has none."""

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from build_library import TARGETS, CannotBuild, Target, build, built, this_target


class KernelsHook(BuildHookInterface):
    """Called by hatchling for each wheel.

    KIKU_KERNELS_TARGET builds for another system (see `build_library.TARGETS`); then, and where
    KIKU_KERNELS_NEEDED is set, a failure ends the build.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and say what goes where in the wheel."""
        chosen = os.environ.get("KIKU_KERNELS_TARGET")
        name = chosen or this_target()
        out = built(name)
        if not os.access(Path(self.root), os.W_OK):
            out = Path(tempfile.mkdtemp()) / out.name
        try:
            target = TARGETS[name] if out.exists() else self._build(out, name)
        except CannotBuild as error:
            if chosen or os.environ.get("KIKU_KERNELS_NEEDED"):
                raise
            self.app.display_warning(f"kiku-kernels is installed without its library: {error}")
            return
        build_data["force_include"][str(out)] = f"kiku_kernels/kernels{target.suffix}"
        build_data["pure_python"] = False
        # What zig builds runs on every system of its tag; what CXX builds, on one like this.
        here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        own = os.environ.get("CXX") and not chosen
        build_data["tag"] = f"py3-none-{here if own else target.wheel}"

    def _build(self, out: Path, name: str) -> Target:
        out.parent.mkdir(exist_ok=True)
        part = out.with_name(f"{out.name}.{os.getpid()}")
        target = build(part, name)
        part.replace(out)
        return target
