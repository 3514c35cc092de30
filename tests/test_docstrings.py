"""Docstrings name arguments that are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import kiku

SOURCE = Path(kiku.__file__).parent
ELSEWHERE = {"problem"}
"""Names that docstrings of errors have from another file."""

_NAME = re.compile(r"`([a-z_][a-z0-9_]*)`")
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def _section(text: str, title: str) -> str:
    """What stands under a title, up to the next one."""
    found = re.search(rf"^{title}:\n((?: .*\n|\n)*)", f"{text}\n", re.MULTILINE)
    return found[1] if found else ""


def _code(text: str) -> set[str]:
    """The words of a file outside its docstrings."""
    return set(re.findall(r"\w+", re.sub(r'"""[\s\S]*?"""', "", text)))


def _arguments(function: _FUNCTION) -> set[str]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {one.arg for one in named if one is not None}


def _unknown(path: Path) -> Iterator[str]:
    """Names in docstrings of a file that nothing there has."""
    text = path.read_text("utf-8")
    words = _code(text) | ELSEWHERE
    for one in ast.walk(ast.parse(text)):
        if not isinstance(one, _FUNCTION):
            continue
        doc = ast.get_docstring(one) or ""
        listed = re.findall(r"^    (\w+):", _section(doc, "Args"), re.MULTILINE)
        raised = _NAME.findall(_section(doc, "Raises"))
        unknown = {name for name in listed if name not in _arguments(one)}
        unknown |= {name for name in raised if name not in words}
        yield from (f"{path.relative_to(SOURCE)}, {one.name}: {name}" for name in sorted(unknown))


def test_docstrings_name_no_arguments_that_are_gone() -> None:
    paths = sorted(SOURCE.rglob("*.py"))
    assert len(paths) > 100
    assert [line for path in paths for line in _unknown(path)] == []
