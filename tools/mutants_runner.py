"""Runs tests of kiku for `mutants.py`: once with notes of the lines that each test executes, and
then against one mutant after another, each in a fork of a process that has imported all but kiku.

It stands in a copy of the project and is started there in a process of its own:

    mutants_runner.py record NOTES EXAMPLES FILES TESTS SELECT   (names with commas between them)
    mutants_runner.py serve NOTES EXAMPLES   (jobs are lines of JSON, answers too)
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest
from hypothesis import Phase, settings

if sys.platform != "win32":
    import resource

PYTEST = [
    *["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout"],
    *["-p", "_hypothesis_pytestplugin", "-W", "ignore::pytest.PytestAssertRewriteWarning"],
]
"""Of all plugins only these, and these are imported before pytest begins."""
MEMORY = 8 << 30
"""Bytes that the tests of a mutant may take."""


class FewExamples:
    """For pytest: hypothesis tries fewer examples, the same ones each time, and simplifies none."""

    def __init__(self, examples: int) -> None:
        self.examples = examples

    def pytest_sessionstart(self) -> None:
        few = settings(phases=(Phase.explicit, Phase.generate), derandomize=True, database=None)
        settings.register_profile("mutants", few)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            test = getattr(item, "obj", None)
            own = getattr(test, "_hypothesis_internal_use_settings", None)
            if own is not None:
                few = settings(own, max_examples=min(own.max_examples, self.examples))
                test._hypothesis_internal_use_settings = few  # pyright: ignore


class Recorder:
    """For pytest: which lines of some files each test executes."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self.names = {str(root / file): file for file in files}
        self.lines: dict[str, dict[str, list[int]]] = {}
        """By test, then by file. A `def` that is called counts, too."""
        self._now: set[tuple[str, int]] = set()
        self._of_fixtures: dict[object, set[tuple[str, int]]] = {}

    def begin(self) -> None:
        threading.settrace(self._called)
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename not in self.names:
            return None
        self._now.add((code.co_filename, code.co_firstlineno))
        return self._line

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self._now.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before, self._now = self._now, set()
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":  # it is made once, for many
                self._of_fixtures[fixturedef] = self._now
            self._now |= before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self._now = set()
        try:
            return (yield)
        finally:
            for fixtures in item._fixtureinfo.name2fixturedefs.values():
                self._now.update(*(self._of_fixtures.get(one, ()) for one in fixtures))
            lines: dict[str, list[int]] = {}
            for file, line in sorted(self._now):
                lines.setdefault(self.names[file], []).append(line)
            self.lines[item.nodeid] = lines


class Chosen:
    """For pytest: some tests in an order of ours, each with the seconds after which it hangs; which
    is the first to fail."""

    def __init__(self, tests: Sequence[tuple[str, float]]) -> None:
        self.tests = tests
        self.failed = ""
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        there = {item.nodeid: item for item in items}
        for name, seconds in self.tests:
            if name in there:
                there[name].add_marker(pytest.mark.timeout(seconds))
        items[:] = [there[name] for name, _ in self.tests if name in there]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.monotonic()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - start

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


class Changed(importlib.machinery.SourceFileLoader):
    """Imports one module from other source than its file's."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


def record(
    notes: Path, examples: int, files: Sequence[str], tests: Sequence[str], select: str
) -> int:
    """Write the lines of each test, and the modules that were imported; the exit code of pytest."""
    recorder = Recorder(Path.cwd(), files)
    arguments = [*PYTEST, "--timeout", "300", "-k", select, *tests]
    recorder.begin()
    code = pytest.main(arguments, plugins=[FewExamples(examples), recorder])
    sys.settrace(None)
    theirs = [name for name, module in sys.modules.items() if not _is_ours(name, module)]
    notes.write_text(json.dumps({"lines": recorder.lines, "modules": theirs}))
    return int(code)


def _is_ours(name: str, module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None) or ""
    return name.startswith(("kiku", "tests", "__")) or file.startswith(str(Path.cwd()))


def serve(notes: Path, examples: int) -> None:
    """Import what kiku and its tests import; then do jobs until there are none.

    A job is `{"file", "source", "tests": [[name, seconds]], "limit"}`, its answer
    `{"code", "failed", "seconds"}`: what pytest ends with (or None, where it was ended), the first
    test that failed, what each took.
    """
    answers = os.fdopen(os.dup(1), "w")
    for name in json.loads(notes.read_text())["modules"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        ended = _forked(job, examples)
        answers.write(json.dumps(ended) + "\n")
        answers.flush()


def _forked(job: dict[str, Any], examples: int) -> dict[str, Any]:
    result = Path("mutants_result.json")
    result.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        try:
            os.setsid()
            _run(job, examples, result)
        finally:
            os._exit(0)
    until = time.monotonic() + job["limit"]
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.01)
    if result.exists():
        return json.loads(result.read_text())
    return {"code": None, "failed": "", "seconds": {}}


def _run(job: dict[str, Any], examples: int, result: Path) -> None:
    """The tests of a job, in this process, which is of no use afterwards."""
    log = os.open("pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if job["file"]:
        path = Path(job["file"])
        name = ".".join(path.with_suffix("").parts[1:]).removesuffix(".__init__")
        sys.meta_path.insert(0, Changed(name, Path.cwd() / path, job["source"]))
    chosen = Chosen([(name, seconds) for name, seconds in job["tests"]])
    files = dict.fromkeys(name.partition("::")[0] for name, _ in job["tests"])
    code = pytest.main([*PYTEST, *files], plugins=[FewExamples(examples), chosen])
    answer = {"code": int(code), "failed": chosen.failed, "seconds": chosen.seconds}
    beside = result.with_suffix(".new")
    beside.write_text(json.dumps(answer))
    beside.rename(result)


def main(arguments: Sequence[str]) -> int:
    """As said at the top."""
    what, notes, examples, *rest = arguments
    if what == "record":
        files, tests, select = rest
        return record(Path(notes), int(examples), files.split(","), tests.split(","), select)
    serve(Path(notes), int(examples))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
