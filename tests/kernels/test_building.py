"""How the package is built: where the library goes, and what is told where there is none."""

import importlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import kiku_kernels
import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
NO_COMPILER = shlex.join([sys.executable, "-c", "pass"])
"""It takes every argument and makes no file."""
FAILING = shlex.join([sys.executable, "-c", "import sys; sys.exit('no licence')"])


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules that build the package, with stand-ins for hatchling's, which the build alone
    installs. They see sources of their own."""
    hook = ModuleType("hatchling.builders.hooks.plugin.interface")
    hook.BuildHookInterface = object  # type: ignore[attr-defined]
    asked = ModuleType("hatchling.build")
    asked.get_requires_for_build_wheel = lambda settings: ["for a wheel"]  # type: ignore[attr-defined]
    asked.get_requires_for_build_editable = lambda settings: ["editables"]  # type: ignore[attr-defined]
    for name in ("hatchling", "hatchling.builders", "hatchling.builders.hooks",
                 "hatchling.builders.hooks.plugin"):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, hook.__name__, hook)
    monkeypatch.setitem(sys.modules, asked.__name__, asked)
    monkeypatch.setattr(sys, "path", [str(KERNELS), *sys.path])
    for name in ("CXX", "KIKU_KERNELS_TARGET", "KIKU_KERNELS_NEEDED"):
        monkeypatch.delenv(name, raising=False)
    names = ("build_library", "hatch_build", "backend")
    found = SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    (tmp_path / "cpp").mkdir()
    (tmp_path / "src/kiku_kernels").mkdir(parents=True)
    monkeypatch.setattr(found.build_library, "SOURCES", tmp_path / "cpp")
    for module in vars(found).values():
        monkeypatch.setattr(module, "this_target", lambda: "linux-x86_64")
    yield found
    for name in names:
        sys.modules.pop(name)


def initialized(builder: SimpleNamespace, root: Path, version: str) -> tuple[dict[str, Any], str]:
    """What the hook says to hatchling for a wheel of that version, and what it warns of."""
    warnings: list[str] = []
    hook = builder.hatch_build.KernelsHook()
    hook.root, hook.app = str(root), SimpleNamespace(display_warning=warnings.append)
    data: dict[str, Any] = {"force_include": {}}
    hook.initialize(version, data)
    return data, "\n".join(warnings)


@pytest.fixture
def built(builder: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same with a compiler that always works."""

    def build(out: Path, name: str) -> object:
        out.write_bytes(b"new")
        return builder.build_library.TARGETS[name]

    monkeypatch.setattr(builder.hatch_build, "build", build)
    return builder


def said_by_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kiku_kernels, "__file__", str(folder / "__init__.py"))
    with pytest.raises(kiku_kernels.NoKernels) as caught:
        kiku_kernels.library()
    return str(caught.value)


def test_a_wheel_has_the_library(built: SimpleNamespace, tmp_path: Path) -> None:
    data, warned = initialized(built, tmp_path, "standard")
    (file,) = data["force_include"]
    assert Path(file).read_bytes() == b"new"
    assert data["force_include"][file] == "kiku_kernels/kernels.so"
    assert data["tag"] == "py3-none-manylinux2014_x86_64"
    assert not warned
    assert not list((tmp_path / "src/kiku_kernels").iterdir())


def test_where_the_sources_are_installed_the_library_lies_beside_them(
    built: SimpleNamespace, tmp_path: Path
) -> None:
    """Of `pip install -e` hatchling's wheel holds an address, and nothing that is put into it."""
    folder = tmp_path / "src/kiku_kernels"
    (folder / "kernels.dylib").write_bytes(b"of an earlier build")
    (folder / "without_library.txt").write_text("of an earlier build")
    data, warned = initialized(built, tmp_path, "editable")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("kernels.so", b"new")]
    assert data == {"force_include": {}}
    assert not warned


@pytest.mark.parametrize("version", ["standard", "editable"])
@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        ("no-such-compiler", "no-such-compiler could not be run"),
        ('"', "No closing quotation"),
        (NO_COMPILER, "made no file, so it is no compiler"),
        (FAILING, "failed: no licence"),
    ],
    ids=["not there", "no command", "no compiler", "failing"],
)
def test_a_compiler_that_builds_nothing_is_told_and_ends_no_installation(
    builder: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    version: str, compiler: str, why: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("CXX", compiler)
    folder = tmp_path / "src/kiku_kernels"
    if version == "editable":
        (folder / "kernels.so").write_bytes(b"of other sources")
    data, warned = initialized(builder, tmp_path, version)
    assert f"installed without its library: CXX is {compiler!r}" in warned
    assert why in warned
    if version == "standard":
        ((file, place),) = data.pop("force_include").items()
        assert place == "kiku_kernels/without_library.txt"
        folder = Path(file).parent
    assert "tag" not in data
    said = said_by_the_package(folder, monkeypatch)
    assert f"CXX is {compiler!r} (without it zig is taken)" in said
    assert why in said
    monkeypatch.setenv("KIKU_KERNELS_NEEDED", "1")
    with pytest.raises(builder.build_library.CannotBuild, match="CXX"):
        initialized(builder, tmp_path, version)


def test_sources_that_were_never_installed_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_by_the_package(tmp_path, monkeypatch)
    assert f"there is none in {tmp_path}; `pip install ./kernels` builds it" in said


def test_a_compiler_is_asked_for_where_it_is_of_use(
    builder: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = builder.backend.get_requires_for_build_wheel
    editable = builder.backend.get_requires_for_build_editable
    for nothing in ("", " "):
        monkeypatch.setenv("CXX", nothing)
        assert wheel() == ["for a wheel", "ziglang>=0.13,<1"]
        assert editable() == ["editables", "ziglang>=0.13,<1"]
    monkeypatch.setenv("CXX", "g++")
    assert wheel() == ["for a wheel"]
    assert editable() == ["editables"]
