"""One process at a time for each folder, and for no other; a lock ends with its process."""

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from kiku.converted import convert
from kiku.converted.cache import lock_of
from kiku.converted.lock import locked

WAIT_S = 60
"""For what takes no time unless it hangs."""


class Held(Exception):
    """Somebody else holds the lock."""


def refuse() -> None:
    """Do not wait."""
    raise Held


def is_held(folder: Path) -> bool:
    """Whether somebody holds the lock of a folder."""
    try:
        with locked(lock_of(folder), refuse):
            return False
    except Held:
        return True


def test_it_is_held_until_the_block_ends(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with locked(lock_of(folder), refuse):
        assert is_held(folder)
    assert not is_held(folder)
    with pytest.raises(ZeroDivisionError), locked(lock_of(folder), refuse):
        raise ZeroDivisionError
    assert not is_held(folder)


def test_whoever_waits_is_told_once_and_gets_it(tmp_path: Path) -> None:
    path, waiting, told = lock_of(tmp_path / "model"), threading.Event(), []

    def wait() -> None:
        def say() -> None:
            told.append("waiting")
            waiting.set()

        with locked(path, say):
            told.append("got it")

    thread = threading.Thread(target=wait, daemon=True)
    with locked(path, refuse):
        thread.start()
        assert waiting.wait(WAIT_S)
        told.append("given back")
    thread.join(WAIT_S)
    assert told == ["waiting", "given back", "got it"]


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from kiku.converted.lock import locked
with locked(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", program, str(lock_of(tmp_path / "model"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        assert is_held(tmp_path / "model")
        process.kill()
        process.wait()
    assert not is_held(tmp_path / "model")


def test_each_folder_has_its_own_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here" / "model", tmp_path / "there" / "model"
    here.parent.mkdir()
    there.parent.mkdir()
    link = tmp_path / "link"
    link.symlink_to(here.parent)
    monkeypatch.chdir(here.parent)
    with locked(lock_of(here), refuse):
        assert is_held(Path("model")), "the same folder by another name"
        assert is_held(link / "model")
        assert not is_held(there)
        assert not is_held(here.with_name("model.part"))


def test_a_lock_is_found_from_the_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One volume may be mounted at several paths, and whoever shares it may have another cache."""
    found: list[tuple[Path, Path]] = []
    for mounted in (tmp_path / "here", tmp_path / "there"):
        monkeypatch.setenv("KIKU_CACHE", str(mounted / "cache"))
        locks = lock_of(mounted / "cache" / "onnx" / "model"), lock_of(mounted / "model")
        found.append((locks[0].relative_to(mounted), locks[1].relative_to(mounted)))
    assert found[0] == found[1]


def _in_a_thread(*calls: Iterable[object]) -> None:
    """Convert what each call names; fail if it waits for a lock."""
    done = threading.Event()

    def work() -> None:
        for source, precision in calls:
            convert(Path(str(source)), precision=str(precision))
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(WAIT_S)


def test_another_model_or_precision_does_not_wait(native_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(native_folder, tmp_path / "elsewhere" / "native"))
    words = other / "tokenizer.json"
    words.write_text(words.read_text().replace("three", "drei"))
    made = convert(native_folder)
    with locked(lock_of(made.folder), refuse):
        _in_a_thread((native_folder, "int8"), (other, "float32"))


def test_the_same_model_by_two_paths_waits_and_is_made_once(
    native_folder: Path,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "kiku")
    link = tmp_path / "another name"
    link.symlink_to(native_folder)
    monkeypatch.chdir(tmp_path)
    names = [native_folder, link, Path(os.path.relpath(native_folder))]
    threads = [threading.Thread(target=convert, args=(name,), daemon=True) for name in names]
    place = _place_of(native_folder)
    caplog.clear()
    with locked(lock_of(place), refuse):
        for thread in threads:
            thread.start()
        give_up = time.monotonic() + WAIT_S
        while caplog.text.count("waiting for it") < 3:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        assert not place.exists()
    for thread in threads:
        thread.join(WAIT_S)
    assert caplog.text.count("converting native to float32") == 1
    assert len(list(own_cache.iterdir())) == 1


def _place_of(source: Path) -> Path:
    """Where its conversion goes."""
    place = convert(source).folder
    shutil.rmtree(place)
    return place
