"""The mutants of a function are the expected ones, and those that tests miss are told apart."""

from pathlib import Path

import pytest

from tools import mutants

FUNCTION = '''\
def first(items: list[int], low: int = 0) -> "int | None":
    """The first above `low`, 1 more."""
    for item in items:
        if item < 0 or not item:
            continue
        if low < item <= 9:
            return max(
                item, 2) + 1
    raise ValueError("none " + "of them", 3)
'''

CHANGES = [
    (1, '= 0) -> "int | None":', '= 1) -> "int | None":'),
    (4, "item < 0", "item <= 0"),
    (4, "< 0", "< 1"),
    (4, " or ", " and "),
    (4, "not item", " item"),
    (5, "continue", "break"),
    (6, "low < item", "low <= item"),
    (6, "item <= 9", "item < 9"),
    (6, "<= 9", "<= 10"),
    (7, "max(", "min("),
    (7, "max(", "None"),
    (8, ", 2)", ", 3)"),
    (8, ") + 1", ") - 1"),
    (8, "+ 1", "+ 2"),
]

SOURCE = '''\
"""Signs."""

from time import sleep


def sign(number):
    return 1 if number > 0 else -1


def size(number):
    return len(number)


def wait():
    while False:
        sleep(0.01)
'''

TEST = """
from kiku.signs import sign, wait

def test_sign():
    assert sign(3) == 1 and sign(-3) == -1

def test_wait():
    wait()
"""


def changed(line: int, old: str, new: str) -> tuple[int, str, str]:
    before = FUNCTION.splitlines()[line - 1]
    assert before.count(old) == 1
    return line, before.strip(), before.replace(old, new).strip()


def test_the_mutants_of_a_function_are_the_expected_ones():
    found = mutants.mutants_of("first.py", FUNCTION.encode())
    ours = [(m.line, m.before, m.after) for m in found]
    assert sorted(ours) == sorted(changed(*change) for change in CHANGES)
    assert {m.source.count(b"\n") for m in found} == {FUNCTION.count("\n")}


@pytest.mark.parametrize(
    ("line", "mistakes"),
    [
        ("self.count += 1", {"self.count -= 1", "self.count += 2", "pass"}),
        ("a.b, c = d", {"pass"}),
        ("a = b", set()),
        ("clear()", {"pass"}),
        ("_LOG.info('%s', 1)", set()),
        ("assert a < b", set()),
        ("a: Literal[1] = b", set()),
        ("é = ü is not None", {"é = ü is None"}),
        ("a = f'{b + 1}'", set()),
        ("a = True", {"a = False"}),
        ("a = b % c // d", {"a = b // c // d", "a = b % c * d"}),
    ],
)
def test_what_may_go_wrong_in_a_line(line: str, mistakes: set[str]):
    assert {m.after for m in mutants.mutants_of("line.py", line.encode())} == mistakes


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A function and its test, which does not try 0 and 1."""
    files = {"src/kiku/__init__.py": "", "src/kiku/signs.py": SOURCE, "tests/test_signs.py": TEST}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


FILE = "src/kiku/signs.py"
ROOM = mutants.Room(("src/kiku/*.py",), ("tests/test_signs.py", "tests/no"))


def test_survivors_are_told_apart(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mutants, "STUCK_S", 2)
    every = mutants.mutants_of(FILE, SOURCE.encode())
    tried = mutants.survivors(every, ROOM, project, seconds=100)
    assert len(tried) == len(every)
    alive = {m.after for m in tried if tried[m]}
    assert alive == {
        "return 1 if number >= 0 else -1",
        "return 1 if number > 1 else -1",
        "return None",  # of `size`, which no test executes
        "pass",  # in place of a `sleep` that is not reached
        "sleep(1.01)",
    }
    assert "while True:" in {m.after for m in tried}, "a test that hangs has noticed"
    assert not mutants.report([mutants.Row("signs", 19, 12, 2, tried)])
    out = capsys.readouterr().out
    assert out.count("once as things are") == 1
    assert f"{FILE}:7\n  - return 1 if number > 0 else -1" in out
    assert f"| signs | 19 | 12 | 2 | {len(every) - 5} | 5 | {1 - 5 / len(every):.0%} |" in out
    assert f"{12 - 2 - len(every)} were not tried" in out
    assert (project / FILE).read_text() == SOURCE
    assert len(list((project / ".cache/mutants").iterdir())) == 1, "what is known is kept"
    key = mutants._key(project, [FILE], "tests/test_signs.py")
    (project / "tests/test_signs.py").write_text(TEST + "# changed")
    assert mutants._key(project, [FILE], "tests/test_signs.py") != key


def test_only_tests_that_execute_the_line_run_and_the_quickest_first():
    body = b"class A:\n    b = 1\n\n    def c(self, d=1):\n        if (\n            d\n"
    body += b"        ):\n            return 2\n        return 3\n"
    assert [mutants.lines_of(body, line) for line in (2, 4, 6, 8, 9)] == [
        None,
        range(4, 10),
        range(5, 8),
        range(8, 9),
        range(9, 10),
    ]
    notes = mutants.Notes(
        {"slow": {"a.py": [9]}, "quick": {"a.py": [8, 9]}, "other": {"a.py": [5]}, "no": {}},
        {"slow": 5.0, "quick": 1.0, "other": 0.5, "no": 0.1},
    )

    def tests(line: int, most_s: float) -> list[str]:
        mutant = mutants.Mutant("a.py", line, "", "", body)
        return [name for name, _ in notes.tests(mutant, most_s)]

    assert tests(9, 60) == ["quick", "slow"]
    assert tests(9, 3) == ["quick"]
    assert tests(8, 0) == ["quick"], "one at least"
    assert tests(2, 60) == ["other", "quick", "slow"]
    assert mutants.by_file([]) == []
    mixed = [("a::x", 1.0), ("b::y", 2.0), ("a::z", 3.0)]
    assert mutants.by_file(mixed) == [[mixed[0], mixed[2]], [mixed[1]]]
    assert mutants.by_file(mixed[:1]) == [mixed[:1]]


def test_tests_that_fail_as_things_are_say_nothing(project: Path):
    (project / "tests/test_signs.py").write_text("def test_it():\n    assert False\n")
    every = mutants.mutants_of(FILE, SOURCE.encode())
    with pytest.raises(SystemExit, match="do not pass"):
        mutants.survivors(every, ROOM, project, seconds=100)
    with pytest.raises(SystemExit, match="no tests"):
        mutants.survivors(every, mutants.Room(ROOM.files, ("tests/no",)), project, seconds=100)


def test_equivalents_are_known_by_their_lines(tmp_path: Path):
    listed = tmp_path / "equivalent.txt"
    listed.write_text("# comment\n\na.py:x = a | b | x = c | it is the same\n")
    assert mutants.known_equivalents(listed) == {"a.py:x = a | b | x = c"}
    assert mutants.known_equivalents(tmp_path / "none") == set()
