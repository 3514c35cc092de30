"""How many small mistakes in kiku's files the tests of their room notice, and which ones they miss.

A mutant is a file with one mistake put in: `<` made `<=`, a constant one more, a statement left
out. Of each room in `ROOMS` some are drawn. The room's tests run once with notes of the lines that
each executes (kept in `.cache/mutants`); then each mutant meets those that execute its line, the
quickest first, until one fails. All this happens in a copy of the project, in forks of a process
that has imported all but kiku (`mutants_runner.py`). Mutants that no test notices are printed; in
`mutants_equivalent.txt` stand the ones that no test could notice, as
`file:line | line with the mistake | reason`.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Room:
    """Files whose mistakes some tests are to notice; patterns, as of `Path.glob`."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    """Files or folders, of which those count that there are."""
    select: str = ""
    """Of these tests, those that pytest's `-k` takes."""


ROOMS = {
    "words": Room(("src/kiku/text/words.py",), ("tests/text/test_words.py",)),
    "endpointing": Room(("src/kiku/text/endpointing.py",), ("tests/text/test_endpointing.py",)),
    "decoding": Room(("src/kiku/decoding/*.py",), ("tests/decoding",)),
    "engine": Room(
        (
            "src/kiku/engine/core.py",
            "src/kiku/engine/slot_decoder.py",
            "src/kiku/engine/saved_slot.py",
            "src/kiku/engine/blocks.py",
        ),
        (
            "tests/engine/test_blocks.py",
            "tests/engine/test_steps.py",
            "tests/engine/test_work.py",
            "tests/engine/test_saved.py",
            "tests/engine/test_going_back.py",
            "tests/engine/test_engines.py",
            "tests/engine/test_codebooks.py",
        ),
        "not torch and not cuda",  # slow, and the file is the same over all backends
    ),
    "scheduler": Room(
        ("src/kiku/scheduler/*.py",),
        ("tests/scheduler", "tests/guarantees/test_contained.py", "tests/stream/test_finalize.py"),
    ),
    "stream": Room(
        ("src/kiku/stream/*.py",),
        (
            "tests/stream",
            "tests/guarantees/test_saved_states.py",
        ),
    ),
}

COPIED = ("src", "tests", "examples", "pyproject.toml")
STUCK_S, STUCK_TIMES = 10, 10
"""A test hangs that takes so many seconds more than so many times what it takes as things are."""
RUNNER = Path(__file__).resolve().parent / "mutants_runner.py"

COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
}
LOGGING = {"debug", "info", "warning", "error", "exception", "critical"}


@dataclass(frozen=True)
class Mutant:
    """One mistake in one file."""

    file: str
    line: int
    before: str
    """The first line that differs, without spaces around it."""
    after: str
    source: bytes
    """The whole file with the mistake."""

    @property
    def name(self) -> str:
        """As `mutants_equivalent.txt` begins its lines."""
        return f"{self.file}:{self.before} | {self.after}"


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    """All mutants of a file, from its first line to its last; the lines keep their numbers."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[bytes, Mutant] = {}
    for begin, end, text in sorted(_edits(ast.parse(source), source, starts)):
        new = text.encode() + b"\n" * source[begin:end].count(b"\n")
        changed = source[:begin] + new + source[end:]
        old_lines, new_lines = source.decode().split("\n"), changed.decode().split("\n")
        pairs = zip(old_lines, new_lines, strict=True)
        line = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if line is not None and _parses(changed):
            before, after = old_lines[line].strip(), new_lines[line].strip()
            found[changed] = Mutant(file, line + 1, before, after, changed)
    return list(found.values())


def _parses(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _edits(tree: ast.AST, source: bytes, starts: list[int]) -> Iterator[tuple[int, int, str]]:
    """(begin, end, new text) of every mistake, in bytes of the file."""

    def begin(node: ast.AST) -> int:
        return starts[node.lineno - 1] + node.col_offset

    def end(node: ast.AST) -> int:
        return starts[node.end_lineno - 1] + node.end_col_offset

    for node in _mutable(tree):
        for left, right, old, new in _operators(node):
            first = end(left) if left is not None else begin(node)
            at = source.find(old.encode(), first, begin(right))
            if at >= 0:
                yield at, at + len(old.encode()), new
        text = _replacement(node)
        if text is not None:
            whole = node.value if isinstance(node, ast.Return) else node
            yield begin(whole), end(whole), text
        if _may_be_left_out(node):
            yield begin(node), end(node), "pass"


def _mutable(node: ast.AST) -> Iterator[ast.AST]:
    """The node and those under it in which a mistake would tell something."""
    if _is_skipped(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _mutable(child)


def _is_skipped(node: ast.AST) -> bool:
    """Whether it is words for people, for the type checker or for the log."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()) | ast.FunctionDef(name="__repr__"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.keyword(arg="strict"):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method))):
            return method in LOGGING and "log" in name.lower()
    return False


def _operators(node: ast.AST) -> Iterator[tuple[ast.AST | None, ast.AST, str, str]]:
    """(what stands left of an operator, what right, the operator, another one)."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=rights):
            for operator, before, right in zip(ops, [left, *rights], rights, strict=False):
                yield before, right, *COMPARISONS[type(operator)]
        case ast.BoolOp(op=operator, values=values):
            names = ("and", "or") if isinstance(operator, ast.And) else ("or", "and")
            for before, right in pairwise(values):
                yield before, right, *names
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield None, operand, "not", ""
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC:
            if not any(_is_text(side) for side in (left, right)):
                yield left, right, *ARITHMETIC[type(operator)]
        case ast.AugAssign(target=target, op=operator, value=value) if type(operator) in ARITHMETIC:
            yield target, value, *ARITHMETIC[type(operator)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _replacement(node: ast.AST) -> str | None:
    """What stands in place of the whole node, or of a returned value; None where nothing does."""
    match node:
        case ast.Constant(value=bool(value)):
            return str(not value)
        case ast.Constant(value=int(value) | float(value)):
            return repr(value + 1 if value + 1 != value else value / 2)
        case ast.Return(value=ast.AST() as value):
            is_none = isinstance(value, ast.Constant) and value.value is None
            return None if is_none else "None"
        case ast.Name(id="min" | "max" as name):
            return "max" if name == "min" else "min"
        case ast.Break():
            return "continue"
        case ast.Continue():
            return "break"
    return None


def _may_be_left_out(node: ast.AST) -> bool:
    """A call for its effect, `x += ...`, `object.name = ...`, `names[i] = ...`."""
    match node:
        case ast.Expr() | ast.AugAssign():
            return True
        case ast.Assign(targets=targets):
            kinds = (ast.Attribute, ast.Subscript)
            return any(isinstance(part, kinds) for target in targets for part in _parts(target))
    return False


def _parts(target: ast.AST) -> Sequence[ast.AST]:
    return target.elts if isinstance(target, ast.Tuple) else [target]


def lines_of(source: bytes, line: int) -> range | None:
    """The lines of which a test must execute one to notice a mistake in `line`; None where the file
    makes the mistake when it is imported."""
    tree = ast.parse(source)
    around: list[ast.stmt] = []
    for node in ast.walk(tree):  # who stands inside comes after who stands around
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            around.append(node)
    functions = [node for node in around if isinstance(node, ast.FunctionDef)]
    if not functions:
        return None
    statement = around[-1]
    body = getattr(statement, "body", None)
    last = statement.end_lineno or line
    if body and not isinstance(statement, ast.FunctionDef) and line < body[0].lineno:
        last = max(line, body[0].lineno - 1)
    return range(statement.lineno, last + 1)


@dataclass
class Notes:
    """What is known of a room's tests as things are."""

    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """By test, then by file: the lines that it executes."""
    seconds: dict[str, float] = field(default_factory=dict)
    modules: dict[str, None] = field(default_factory=dict)
    """What they import that is not ours, in this order."""

    def add(self, more: dict[str, Any]) -> None:
        """Those of other test files."""
        self.lines |= more["lines"]
        self.seconds |= more["seconds"]
        self.modules |= dict.fromkeys(more["modules"])

    def tests(self, mutant: Mutant, most_s: float) -> list[tuple[str, float]]:
        """Those that may notice a mutant, with their seconds, the quickest first."""
        wanted = lines_of(mutant.source, mutant.line)
        found = [
            (self.seconds[test], test)
            for test, files in self.lines.items()
            if mutant.file in files
            and test in self.seconds
            and (wanted is None or any(line in wanted for line in files[mutant.file]))
        ]
        chosen: list[tuple[str, float]] = []
        for seconds, test in sorted(found):
            most_s -= seconds
            if chosen and most_s < 0:
                break
            chosen.append((test, seconds))
        return chosen


class Project:
    """A copy of the project, in which tests run; a context."""

    def __init__(self, root: Path, examples: int) -> None:
        """Copy what the tests need from `root`; hypothesis is to try so many `examples` at most."""
        self.examples = str(examples)
        self._temporary = tempfile.TemporaryDirectory(prefix="mutants-")
        self.folder = Path(self._temporary.name).resolve()
        self._server: subprocess.Popen[str] | None = None
        for name in COPIED:
            if (root / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(root / name, self.folder / name, ignore=ignored)
            elif (root / name).exists():
                shutil.copy2(root / name, self.folder / name)

    def __enter__(self) -> "Project":
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self._temporary.cleanup()

    def end(self) -> None:
        """End the process that runs tests; the next one knows of modules that were noted since."""
        if self._server is not None:
            self._server.communicate()
            self._server = None

    def record(self, files: Sequence[str], tests: Sequence[str], select: str) -> dict[str, Any]:
        """The lines of `files` that each of the tests executes.

        Raises:
            SystemExit: the tests do not pass.
        """
        notes, log = self.folder / "recorded.json", self.folder / "record.log"
        with open(log, "wb") as out:
            process = self._start(
                "record", notes, ",".join(files), ",".join(tests), select, stdout=out
            )
            if process.wait() != 0:
                print(log.read_text()[-3000:], file=sys.stderr)
                sys.exit(f"{' '.join(tests)}: they do not pass as things are")
        return json.loads(notes.read_text())

    def run(
        self, tests: Sequence[tuple[str, float]], modules: Sequence[str], mutant: Mutant | None
    ) -> dict[str, Any]:
        """What becomes of tests, with a mutant or as things are: see `mutants_runner.serve`."""
        if self._server is None:
            notes = self.folder / "modules.json"
            notes.write_text(json.dumps({"modules": list(modules)}))
            pipe = subprocess.PIPE
            self._server = self._start("serve", notes, stdin=pipe, stdout=pipe)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {
            "file": mutant.file if mutant else "",
            "source": mutant.source.decode() if mutant else "",
            "tests": [(name, STUCK_S + STUCK_TIMES * seconds) for name, seconds in tests],
            "limit": 60 + STUCK_TIMES * sum(seconds for _, seconds in tests),
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def _start(self, what: str, notes: Path, *more: str, **pipes: Any) -> "subprocess.Popen[str]":
        path = f"{self.folder / 'src'}{os.pathsep}{self.folder}"
        few = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, str(RUNNER), what, str(notes), self.examples, *more],
            cwd=self.folder,
            env=os.environ | few | {"PYTHONPATH": path},
            text=True,
            **pipes,
        )


def notes_of(room: Room, project: Project, files: Sequence[str], cache: Path) -> Notes:
    """What is known of a room's tests; what is not in `cache` is found out and put there.

    Raises:
        SystemExit: there are no tests, or they do not pass as things are.
    """
    root = project.folder
    named = [root / test for test in room.tests if (root / test).exists()]
    tests = [
        path.relative_to(root).as_posix()
        for name in named
        for path in (sorted(name.rglob("test_*.py")) if name.is_dir() else [name])
    ]
    if not tests:
        sys.exit(f"{' '.join(files)}: no tests; name them in ROOMS in tools/mutants.py")
    kept = {test: cache / f"{_key(root, files, test)}.json" for test in tests}
    new = [test for test in tests if not kept[test].exists()]
    notes = Notes()
    if new:
        print(f"{' '.join(new)}: once as things are, with notes", flush=True)
        found = project.record(files, new, room.select)
        project.end()
        every = [(test, 30.0) for test in found["lines"]]
        ended = project.run(every, found["modules"], None)
        if ended["code"] != 0:
            print((root / "pytest.log").read_text()[-3000:], file=sys.stderr)
            sys.exit(f"{ended['failed']}: it does not pass as things are")
        project.end()
        cache.mkdir(parents=True, exist_ok=True)
        for test in new:
            part = {
                kind: {name: x for name, x in values.items() if name.partition("::")[0] == test}
                for kind, values in (("lines", found["lines"]), ("seconds", ended["seconds"]))
            }
            kept[test].write_text(json.dumps(part | {"modules": found["modules"]}))
    for path in kept.values():
        notes.add(json.loads(path.read_text()))
    return notes


def _key(root: Path, files: Sequence[str], test: str) -> str:
    """Changes with the mutated files, with the test file and with what it may import of ours."""
    path = root / test
    beside = [*(root / "tests").glob("*.py"), *path.parent.glob("*.py")]
    parts = [path, *(root / file for file in files), *(p for p in beside if "test_" not in p.name)]
    digest = hashlib.sha256(RUNNER.read_bytes())
    for part in sorted(set(parts)):
        digest.update(part.relative_to(root).as_posix().encode() + part.read_bytes())
    return digest.hexdigest()[:20]


def survivors(
    mutants: Sequence[Mutant],
    room: Room,
    root: Path,
    *,
    seconds: float,
    each_s: float = 60,
    workers: int = 1,
    examples: int = 100,
) -> dict[Mutant, bool]:
    """Of each mutant that was tried within so many seconds: whether it survived.

    Raises:
        SystemExit: the tests do not pass as things are.
    """
    until = time.monotonic() + seconds
    files = sorted({path.relative_to(root).as_posix() for name in room.files
                    for path in root.glob(name)})  # fmt: skip
    projects: queue.SimpleQueue[Project] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            projects.put(stack.enter_context(Project(root, examples)))
        first = projects.get()
        notes = notes_of(room, first, files, root / ".cache" / "mutants")
        projects.put(first)

        def survived(mutant: Mutant) -> bool | None:
            tests = notes.tests(mutant, each_s)
            if time.monotonic() > until:
                return None
            project, ended = projects.get(), {"code": 0}
            try:
                for part in by_file(tests):
                    ended = project.run(part, list(notes.modules), mutant)
                    if ended["code"] != 0:
                        break
            finally:
                projects.put(project)
            by = ended.get("failed") or ("too long" if ended["code"] is None else "no tests")
            died = f"died, {by}" if ended["code"] != 0 else f"lives after {len(tests)} tests"
            print(f"{mutant.file}:{mutant.line}: {mutant.after}: {died}", flush=True)
            return ended["code"] == 0

        with ThreadPoolExecutor(workers) as pool:
            tried = dict(zip(mutants, pool.map(survived, mutants), strict=True))
    return {mutant: alive for mutant, alive in tried.items() if alive is not None}


def by_file(tests: Sequence[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """Those of the file that has the quickest, and all others: most mutants die of the first, and
    the others' files need not even be imported."""
    files = [name.partition("::")[0] for name, _ in tests]
    first = [test for test, file in zip(tests, files, strict=True) if file == files[0]]
    return [part for part in (first, [test for test in tests if test not in first]) if part]


def known_equivalents(path: Path) -> set[str]:
    """The names of the mutants that no test could notice; none where there is no such file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.rsplit(" | ", 1)[0] for line in lines if line and not line.startswith("#")}


@dataclass(frozen=True)
class Row:
    """What became of a room's mutants."""

    room: str
    every: int
    """How many there are."""
    drawn: int
    equivalent: int
    """Of those that were drawn: how many no test could notice."""
    tried: dict[Mutant, bool]
    """Of the others: whether it survived."""

    @property
    def share(self) -> float:
        """Of those that were tried: how many died, from 0 to 1."""
        return 1 - sum(self.tried.values()) / max(len(self.tried), 1)


def draw(room: str, mutants: Sequence[Mutant], most: int, seed: int) -> list[Mutant]:
    """Some of them, the same ones each time; all, where there are no more."""
    return random.Random(f"{room} {seed}").sample(mutants, min(most, len(mutants)))


def report(rows: Sequence[Row]) -> bool:
    """Whether at least 85 % of each room's died; survivors and a table are printed."""
    for row in rows:
        left = [mutant for mutant, alive in row.tried.items() if alive]
        for mutant in sorted(left, key=lambda m: (m.file, m.line)):
            print(f"\n{mutant.file}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
    print("\n| room | mutants | drawn | equivalent | died | left | share |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        left = sum(row.tried.values())
        numbers = (row.every, row.drawn, row.equivalent, len(row.tried) - left, left)
        print(f"| {row.room} | {' | '.join(map(str, numbers))} | {row.share:.0%} |")
        if len(row.tried) < row.drawn - row.equivalent:
            print(f"{row.drawn - row.equivalent - len(row.tried)} were not tried: the time was up")
    return all(row.share >= 0.85 for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where at least 85 % of each room's mutants died, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rooms", nargs="*", help=f"{', '.join(ROOMS)}; files; or file:line")
    parser.add_argument("--most", type=int, default=30, help="mutants of a room, drawn (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--seconds", type=float, default=900, help="after which none starts (900)")
    parser.add_argument("--each", type=float, default=60, help="seconds of tests of a mutant (60)")
    parser.add_argument("--workers", type=int, default=2, help="at the same time (2)")
    parser.add_argument("--examples", type=int, default=100, help="of each hypothesis test (100)")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    known = known_equivalents(root / "tools" / "mutants_equivalent.txt")
    until = time.monotonic() + options.seconds
    rows: list[Row] = []
    for name, room in ROOMS.items():
        files = {path.relative_to(root).as_posix() for p in room.files for path in root.glob(p)}
        every = [
            one
            for file in sorted(files)
            for one in mutants_of(file, (root / file).read_bytes())
            if not options.rooms or {name, file, f"{file}:{one.line}"} & set(options.rooms)
        ]
        if not every:
            continue
        drawn = draw(name, every, options.most, options.seed)
        wanted = [mutant for mutant in drawn if mutant.name not in known]
        print(f"{name}: {len(drawn)} of {len(every)} mutants", flush=True)
        tried = survivors(
            wanted, room, root,
            seconds=until - time.monotonic(), each_s=options.each,
            workers=options.workers, examples=options.examples,
        )  # fmt: skip
        rows.append(Row(name, len(every), len(drawn), len(drawn) - len(wanted), tried))
    if not rows:
        parser.error(f"no mutants in {' '.join(options.rooms)}")
    return 0 if report(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
