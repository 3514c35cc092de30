"""Results that are kept as they come, and go on where a run was stopped."""

import json
from pathlib import Path

import pytest

from kiku.errors import ConfigError, OutputError
from kiku.evaluate.hearing import HeardUtterance, HeardWord
from kiku.evaluate.store import NAME, ResultStore, forget, read_results
from tests.evaluate.conftest import PART

SETTINGS = {"model": "demo", "chunk_s": 0.08}
ONE = HeardUtterance("a", PART, 1.5, (HeardWord("wörd", 0.1, 0.5, 0.9, None),), (1.0,), (), 0.2)
OTHER = HeardUtterance("b", PART, 1.5, (), (), (), 0.2, "cannot be read")


def keep(folder: Path, *heard: HeardUtterance, **changes: object) -> dict[str, HeardUtterance]:
    with ResultStore(folder, {**SETTINGS, **changes}) as store:
        for one in heard:
            store.add(one)
        return store.heard


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    folder = tmp_path / "inner" / "results"
    keep(folder, ONE)
    keep(folder, OTHER)
    assert keep(folder) == {"a": ONE, "b": OTHER}
    assert read_results(folder) == (SETTINGS, {"a": ONE, "b": OTHER})


def test_the_last_result_of_an_utterance_counts(tmp_path: Path) -> None:
    later = HeardUtterance("b", PART, 1.5, (), (), (), 0.2)
    keep(tmp_path, OTHER, later)
    assert keep(tmp_path) == {"b": later}


def test_a_result_is_on_the_disk_before_the_next(tmp_path: Path) -> None:
    with ResultStore(tmp_path, SETTINGS) as store:
        store.add(ONE)
        assert read_results(tmp_path)[1] == {"a": ONE}


@pytest.mark.parametrize("left", [1, 20])
def test_a_line_that_a_kill_tore_is_heard_again(tmp_path: Path, left: int) -> None:
    keep(tmp_path, ONE, OTHER)
    path = tmp_path / NAME
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:left])
    assert keep(tmp_path, OTHER).keys() == {"a", "b"}
    assert keep(tmp_path) == {"a": ONE, "b": OTHER}


def test_what_was_heard_otherwise_is_not_mixed_in(tmp_path: Path) -> None:
    keep(tmp_path, ONE)
    with pytest.raises(ConfigError, match=r"chunk_s 0\.08, not None; dtype None, not 'int8'"):
        keep(tmp_path, chunk_s=None, dtype="int8")
    forget(tmp_path)
    assert keep(tmp_path, chunk_s=None) == {}
    forget(tmp_path)
    keep(tmp_path, options={"start_s": 1, "decoding": {"temperature": 0.0, "hotwords": []}})
    said = r"\(options\.decoding\.hotwords \[\], not \['a'\]\)"
    with pytest.raises(ConfigError, match=said):
        keep(tmp_path, options={"start_s": 1, "decoding": {"temperature": 0.0, "hotwords": ["a"]}})
    forget(tmp_path / "none")


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', "null"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_line_is_named(tmp_path: Path, line: str, number: int) -> None:
    keep(tmp_path, ONE, OTHER)
    path = tmp_path / NAME
    lines = path.read_text().splitlines()
    lines[number] = line
    path.write_text("\n".join([*lines, ""]))
    with pytest.raises(OutputError, match=f"is damaged in line {number + 1}"):
        keep(tmp_path)


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with ResultStore(tmp_path, SETTINGS), pytest.raises(OutputError, match="another run writes"):
        keep(tmp_path)
    keep(tmp_path)


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        keep(tmp_path / "file")
    with pytest.raises(OutputError, match="contains no results"):
        read_results(tmp_path)
    (tmp_path / NAME).touch()
    with pytest.raises(OutputError, match="is empty"):
        read_results(tmp_path)
    assert keep(tmp_path) == {}
    assert json.loads((tmp_path / NAME).read_text()) == {"settings": SETTINGS}
