"""README and docs cannot lie: Python runs, help is the real one, links lead somewhere."""

import contextlib
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kiku.cli import main
from tests.conftest import ROOT

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, info: str) -> Iterator[tuple[int, str, str]]:
    """Line number, text, and the output block that follows (or "") of each block of a kind."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    for i, block in enumerate(found):
        if block["info"].strip() != info:
            continue
        following = found[i + 1] if i + 1 < len(found) else None
        shown = ""
        if (
            following is not None
            and following["info"].strip() == "output"
            and not text[block.end() : following.start()].strip()
        ):
            shown = following["body"]
        yield text.count("\n", 0, block.start()) + 1, block["body"], shown


def with_blocks(info: str) -> list[str]:
    """The pages that have blocks of a kind."""
    return [page for page in PAGES if any(True for _ in blocks(page, info))]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in that has the examples, as a clone has; models compute on one thread.

    The pages say nothing of threads: all processors would wait for one another in small steps.
    """
    monkeypatch.setattr("kiku.engine.onnx.usable_threads", lambda: 1)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_runs_and_prints_what_is_said(page: str) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, code, shown in blocks(page, "python"):
        # Line numbers of a traceback are those of the page.
        compiled = compile("\n" * line + code, page, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compiled, namespace)
        if shown:
            assert printed.getvalue() == shown, f"{page}, line {line}"


@pytest.mark.parametrize("page", with_blocks("console help"))
def test_help_is_what_the_command_says(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for line, body, _ in blocks(page, "console help"):
        command, _, shown = body.partition("\n")
        assert main(command.removeprefix("$ kiku").split()) == 0
        assert capsys.readouterr().out.strip("\n") == shown.strip("\n"), f"{page}, line {line}"


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("page", with_blocks("console run"))
def test_commands_print_what_is_said(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line, body, _ in blocks(page, "console run"):
        command, _, shown = body.partition("\n")
        assert main(command.removeprefix("$ kiku").split()) == 0, f"{page}, line {line}"
        assert capsys.readouterr().out == shown, f"{page}, line {line}"


@pytest.mark.parametrize("page", [*PAGES, "examples/README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / page).parent / target).exists(), f"{page} -> {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        name = page.removeprefix("docs/")
        assert name == "index.md" or f"({name})" in index, name


def test_every_command_is_documented() -> None:
    from kiku.cli.app import app
    from kiku.cli.models import app as models

    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    names = [command.name for command in app.registered_commands]
    names += [f"models {command.name}" for command in models.registered_commands]
    for name in names:
        assert f"$ kiku {name} --help" in page, name


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    ran = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for target in set(targets.split()) - {"help"}:
        assert f"make {target} " in ran.stdout, target
