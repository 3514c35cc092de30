"""How many small mistakes in kiku's files the tests of their room notice, and which ones they miss.

A mutant is a file with one mistake put in: `<` made `<=`, a constant one more, a statement left
out. Each runs in a copy of the project, against the tests that `ROOMS` names for its file. Those
that no test notices are printed; in `mutants_equivalent.txt` stand the ones that no test could
notice, as `file:line | line with the mistake | reason`.
"""

import argparse
import ast
import os
import queue
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

ROOMS = {
    "src/kiku/text/words.py": ["tests/text/test_words.py"],
    "src/kiku/text/endpointing.py": ["tests/text/test_endpointing.py"],
    "src/kiku/decoding/*.py": ["tests/decoding"],
    "src/kiku/engine/blocks.py": ["tests/engine/test_blocks.py", "tests/engine/test_engines.py"],
    "src/kiku/engine/core.py": [
        "tests/engine/test_steps.py",
        "tests/engine/test_work.py",
        "tests/engine/test_saved.py",
        "tests/engine/test_going_back.py",
        "tests/engine/test_engines.py",
    ],
    "src/kiku/scheduler/*.py": ["tests/scheduler", "tests/guarantees/test_contained.py"],
    "src/kiku/stream/saved.py": ["tests/guarantees/test_saved_states.py"],
    "src/kiku/stream/tokens.py": ["tests/stream/test_tokens.py", "tests/test_recognizer.py"],
    "src/kiku/stream/*.py": ["tests/stream", "tests/guarantees/test_contained.py"],
}
"""The tests of a file: of these, those that there are."""

COPIED = ("src", "tests", "examples", "pyproject.toml")
PYTEST = [
    *["-x", "-q", "-p", "no:cacheprovider", "--timeout", "60"],
    *["-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin", "-p", "mutants_plugin"],
]
"""Plugins are named: pytest compiles all of those that it finds, each time where no bytecode is
kept."""
MEMORY = 8 << 30
"""Bytes that the tests of a mutant may take."""

PLUGIN = """
from hypothesis import Phase, settings

def pytest_sessionstart():
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", settings(phases=phases, derandomize=True, database=None))
    settings.load_profile("mutants")

def pytest_collection_modifyitems(items):
    for item in items:
        test = getattr(item, "obj", None)
        own = getattr(test, "_hypothesis_internal_use_settings", None)
        if own is not None:
            few = settings(own, max_examples=min(own.max_examples, EXAMPLES))
            test._hypothesis_internal_use_settings = few
"""
"""For pytest: hypothesis tries fewer examples, the same ones every time, and simplifies none."""

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
            return repr(value + 1)
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


def tests_for(file: str, root: Path, rooms: dict[str, list[str]]) -> tuple[str, ...]:
    """The tests that `rooms` names for a file and that are there; SystemExit where none is."""
    named = next((tests for pattern, tests in rooms.items() if fnmatch(file, pattern)), [])
    tests = tuple(test for test in named if (root / test).exists())
    if not tests:
        sys.exit(f"{file}: no tests; name them in ROOMS in tools/mutants.py")
    return tests


class Project:
    """A copy of the project in which one file at a time is wrong."""

    def __init__(self, root: Path, folder: Path, examples: int) -> None:
        """Copy what the tests need from `root`; hypothesis is to try so many `examples` at most."""
        self.folder = folder
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, folder / name)
            elif (root / name).exists():
                folder.mkdir(exist_ok=True)
                shutil.copy2(root / name, folder / name)
        plugin = PLUGIN.replace("EXAMPLES", str(examples))
        (folder / "mutants_plugin.py").write_text(plugin)

    def passes(self, tests: Sequence[str], seconds: float, *, keep_bytecode: bool = False) -> bool:
        """Whether the tests pass within so many seconds."""
        with open(self.folder / "pytest.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *PYTEST, *tests],
                cwd=self.folder,
                env=os.environ
                | {"PYTHONPATH": f"{self.folder / 'src'}{os.pathsep}{self.folder}"}
                | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
                # Else Python may run what it made of an earlier mutant of the same second and size.
                | ({} if keep_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                if hasattr(resource, "prlimit"):
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
                return process.wait(seconds) == 0
            except subprocess.TimeoutExpired:
                return False
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def survives(self, mutant: Mutant, tests: Sequence[str], seconds: float) -> bool:
        """Whether the tests pass although the mutant is there; the file is put right again."""
        path = self.folder / mutant.file
        right = path.read_bytes()
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_bytes(mutant.source)
        try:
            return self.passes(tests, seconds)
        finally:
            path.write_bytes(right)


def survivors(
    mutants: Sequence[Mutant],
    tests: dict[str, tuple[str, ...]],
    root: Path,
    *,
    seconds: float,
    workers: int = 2,
    examples: int = 100,
) -> dict[Mutant, bool]:
    """Of each mutant that was tried within so many seconds: whether it survived.

    Raises:
        SystemExit: the tests do not pass as things are.
    """
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        folder = Path(temporary)
        first = Project(root, folder / "0", examples)
        limits: dict[tuple[str, ...], float] = {}
        for room in dict.fromkeys(tests[mutant.file] for mutant in mutants):
            start = time.monotonic()
            if not first.passes(room, 600, keep_bytecode=True):
                print((first.folder / "pytest.log").read_text()[-3000:], file=sys.stderr)
                sys.exit(f"{' '.join(room)}: they do not pass as things are")
            took = time.monotonic() - start
            print(f"{' '.join(room)}: {took:.1f} s as things are", flush=True)
            limits[room] = 20 + 4 * took
        projects: queue.SimpleQueue[Project] = queue.SimpleQueue()
        projects.put(first)
        for i in range(1, workers):
            projects.put(Project(first.folder, folder / str(i), examples))

        def survived(mutant: Mutant) -> bool | None:
            if time.monotonic() > until:
                return None
            project, room = projects.get(), tests[mutant.file]
            try:
                return project.survives(mutant, room, limits[room])
            finally:
                projects.put(project)

        with ThreadPoolExecutor(workers) as pool:
            tried = dict(zip(mutants, pool.map(survived, mutants), strict=True))
    return {mutant: alive for mutant, alive in tried.items() if alive is not None}


def known_equivalents(path: Path) -> set[str]:
    """The names of the mutants that no test could notice; none where there is no such file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.rsplit(" | ", 1)[0] for line in lines if line and not line.startswith("#")}


def report(tried: dict[Mutant, bool]) -> float:
    """The share that was killed, from 0 to 1; the table and the survivors are printed."""
    print(f"\n{'file':40} mutants  killed  survived  share")
    for file in [*sorted({mutant.file for mutant in tried}), "all"]:
        alive = [lives for mutant, lives in tried.items() if file in (mutant.file, "all")]
        killed = len(alive) - sum(alive)
        share = killed / max(len(alive), 1)
        print(f"{file:40} {len(alive):7} {killed:7} {sum(alive):9} {share:6.0%}")
    for mutant in sorted((m for m in tried if tried[m]), key=lambda m: (m.file, m.line)):
        print(f"\n{mutant.file}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
    return share


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where at least 85 % of the mutants were killed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="such as src/kiku/text/words.py; else all of them")
    parser.add_argument("--most", type=int, default=200, help="mutants, drawn from all (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--seconds", type=float, default=900, help="after which none starts (900)")
    parser.add_argument("--examples", type=int, default=100, help="of each hypothesis test (100)")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    found = {path.relative_to(root).as_posix() for room in ROOMS for path in root.glob(room)}
    files = options.files or sorted(found)
    equivalent = known_equivalents(root / "tools" / "mutants_equivalent.txt")
    every = [mutant for file in files for mutant in mutants_of(file, (root / file).read_bytes())]
    every = [mutant for mutant in every if mutant.name not in equivalent]
    chosen = random.Random(options.seed).sample(every, min(options.most, len(every)))
    print(f"{len(chosen)} of {len(every)} mutants of {len(files)} files", flush=True)
    tests = {file: tests_for(file, root, ROOMS) for file in files}
    limits = {"seconds": options.seconds, "examples": options.examples}
    tried = survivors(chosen, tests, root, **limits)
    if len(tried) < len(chosen):
        print(f"{len(chosen) - len(tried)} were not tried: the time was up")
    return 0 if report(tried) >= 0.85 else 1


if __name__ == "__main__":
    sys.exit(main())
