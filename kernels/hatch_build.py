"""Puts the native library into the wheel, or next to the sources if these are installed in place.
If it cannot be built, a file with the reason takes its place."""

import contextlib
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from build_library import TARGETS, CannotBuild, Target, build, built, own_compiler, this_target

REASON = "without_library.txt"
"""The file that says why there is no library: `kiku_kernels.library` reads it."""


class KernelsHook(BuildHookInterface):
    """Called by hatchling for each wheel.

    With KIKU_KERNELS_TARGET it builds for another system (see `build_library.TARGETS`). Then, and
    if KIKU_KERNELS_NEEDED is set, a failure ends the build.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library, and set where it goes in the wheel. `version` is "editable" for
        `pip install -e`, whose wheel holds only the address of the sources."""
        chosen = os.environ.get("KIKU_KERNELS_TARGET")
        name = chosen or this_target()
        is_editable = version == "editable"
        put = self._beside_sources if is_editable else build_data["force_include"].__setitem__
        try:
            out, target = self._library(name)
            put(str(out), f"kiku_kernels/kernels{target.suffix}")
        except (CannotBuild, OSError) as error:
            if chosen or os.environ.get("KIKU_KERNELS_NEEDED"):
                raise
            self.app.display_warning(f"kiku-kernels is installed without its library: {error}")
            reason = Path(tempfile.mkdtemp()) / REASON
            reason.write_text(str(error), encoding="utf-8")
            with contextlib.suppress(OSError):  # where the sources cannot be written to
                put(str(reason), f"kiku_kernels/{REASON}")
            return
        if is_editable:
            return
        build_data["pure_python"] = False
        # What zig builds runs on every system of its tag; what CXX builds, on systems like this.
        here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        own = own_compiler(name) and not chosen
        build_data["tag"] = f"py3-none-{here if own else target.wheel}"

    def _library(self, name: str) -> tuple[Path, Target]:
        """The file with the library for a target; it is built unless it exists."""
        out = built(name)
        if not os.access(Path(self.root), os.W_OK):
            out = Path(tempfile.mkdtemp()) / out.name
        if out.exists():
            return out, TARGETS[name]
        out.parent.mkdir(exist_ok=True)
        part = out.with_name(f"{out.name}.{os.getpid()}")
        target = build(part, name)
        part.replace(out)
        return out, target

    def _beside_sources(self, file: str, place: str) -> None:
        """Put a file where the package is imported from, in place of an earlier build's files."""
        goal = Path(self.root) / "src" / place
        part = goal.with_name(f"part.{os.getpid()}")
        shutil.copyfile(file, part)
        for old in (*goal.parent.glob("kernels.*"), goal.with_name(REASON)):
            old.unlink(missing_ok=True)
        part.replace(goal)  # not written over: a process may be using the one before
