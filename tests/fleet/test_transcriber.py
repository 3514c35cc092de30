"""One process: its slots stay full, and recordings are opened when it is their turn."""

import gc
import io
import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import fsspec
import pytest

from kiku.errors import AudioError, KikuError
from kiku.fleet import opening, transcriber
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.fleet.sources import Item, find_items
from kiku.fleet.transcriber import Transcribed, Transcriber
from kiku.options import DecodingOptions, StreamOptions
from kiku.stream import WordSession
from tests.cli.simple import SimpleBackend, simple_recognizer
from tests.fleet.conftest import MakeSpeech

REQUEST = BatchRequest(ModelSettings("simple"))


def _heard(
    process: Transcriber, items: Sequence[Item], *, alone: bool = False
) -> list[Transcribed]:
    return list(itertools.chain.from_iterable(process.transcribe(items, alone=alone)))


class Watched(SimpleBackend):
    """Notes how many slots were in each step."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.steps: list[int] = []

    def encode(self, slots, frames):  # type: ignore[no-untyped-def]
        """See `Backend.encode`."""
        self.steps.append(len(slots))
        return super().encode(slots, frames)


@pytest.fixture
def one_long(speech: MakeSpeech, tmp_path: Path) -> list[Item]:
    """A long recording, then three short ones."""
    paths = [speech(tmp_path / "long.wav", 20.0)]
    paths += [speech(tmp_path / f"{number}.wav", 0.8) for number in range(3)]
    return [one for path in paths for one in find_items(path)]


def _process() -> Transcriber:
    return Transcriber(REQUEST, simple_recognizer(SimpleBackend(2), "simple"))


def _names(lists: list[list[Transcribed]]) -> list[list[str]]:
    return [[Path(one.path).stem for one in some] for some in lists]


def test_recordings_come_when_they_are_done_not_in_order(
    one_long: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcriber, "EVERY_S", 0.0)
    lists = list(_process().transcribe(one_long))
    assert _names(lists) == [["0"], ["1"], ["2"], ["long"]]
    took = [one.took_s for one in itertools.chain.from_iterable(lists)]
    assert took[0] > 0
    assert took == sorted(took)  # since the block was begun


@pytest.mark.parametrize(
    ("step_s", "lists"), [(0.0, [["0"], ["1", "2", "long"]]), (0.1, [["0"], ["1", "2"], ["long"]])]
)
def test_what_is_done_in_the_same_second_comes_together_and_waits_for_no_long_one(
    step_s: float, lists: list[list[str]], one_long: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, step_s)  # it goes on each time that somebody looks
    watch = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr("kiku.transcription.transcription.time", watch)
    assert sorted(map(sorted, _names(list(_process().transcribe(one_long))))) == lists


def test_the_end_of_one_block_leaves_no_slot_idle(speech: MakeSpeech, tmp_path: Path) -> None:
    blocks = [
        [Item(str(speech(tmp_path / f"{block}-{number}.wav", seconds)), 1)
         for number, seconds in enumerate([16.0, 2.0, 2.0, 2.0])]
        for block in range(3)
    ]  # fmt: skip
    backend = Watched(4)
    process = Transcriber(REQUEST, simple_recognizer(backend, "simple"))
    heard: list[Transcribed] = []
    threads = [
        threading.Thread(target=lambda b=block: heard.extend(_heard(process, b)))
        for block in blocks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 12
    # One after the other, most steps would have a single recording, the long one of a block.
    busy = sum(backend.steps) / len(backend.steps)
    assert busy > 2


@pytest.mark.parametrize("count", [1, 30])
def test_recordings_in_a_store_are_opened_a_little_ahead(
    count: int, speech: MakeSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = speech(tmp_path / "a.wav").read_bytes()
    files = fsspec.filesystem("memory")
    for number in range(count):
        files.pipe_file(f"/bucket/{number:02}.wav", data)
    opened, whole = list[str](), opening._open  # pyright: ignore[reportPrivateUsage]
    closed: list[object] = []

    def note(path: str) -> object:
        opened.append(path)
        file = whole(path)
        monkeypatch.setattr(file, "close", lambda: closed.append(file))
        return file

    monkeypatch.setattr(opening, "_open", note)
    process = Transcriber(REQUEST, simple_recognizer(SimpleBackend(2), "simple"))
    try:
        heard = itertools.chain.from_iterable(process.transcribe(find_items("memory://bucket")))
        first = next(heard)
        assert first.rows[0]["text"] == "zero one"
        assert len(opened) <= 16
        rest = [one.rows[0] for one in heard]
    finally:
        files.rm("/bucket", recursive=True)
    assert [row["text"] for row in rest] == ["zero one"] * (count - 1)
    assert sorted(opened) == [f"memory:///bucket/{number:02}.wav" for number in range(count)]
    assert len(closed) == count


def test_what_cannot_be_opened_or_is_read_early_does_not_shorten_the_look_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, closed, count = list[str](), list[str](), 40

    class File(io.BytesIO):
        def __init__(self, path: str) -> None:
            super().__init__(path.encode())
            self.path = path

        def close(self) -> None:
            if not self.closed:
                closed.append(self.path)
            super().close()

    def open_file(path: str) -> File:
        opened.append(path)
        if path in missing:
            raise AudioError("no such file")
        return File(path)

    monkeypatch.setattr(opening, "_open", open_file)
    paths = [f"memory://bucket/{number:02}.wav" for number in range(count)]
    missing = paths[:10]
    with opening.open_items([Item(path, 1) for path in paths]) as sources:
        files = cast("list[io.RawIOBase]", sources)
        assert files[30].read() == paths[30].encode()
        for file in files[:10]:
            for _ in range(2):  # it is asked for once, however often
                with pytest.raises(AudioError, match="no such file"):
                    file.read()
        # Those of the beginning, one for each that was asked for, and the one that was early.
        while len(opened) < 8 + 11 + 1:
            time.sleep(0.01)
    assert sorted(opened) == sorted([*paths[: 8 + 11], paths[30]])
    assert sorted(closed) == sorted(set(opened) - set(missing))


def test_a_block_leaves_nothing_behind(speech: MakeSpeech, tmp_path: Path) -> None:
    items = [Item(str(speech(tmp_path / f"{number}.wav")), 1) for number in range(4)]
    process = Transcriber(REQUEST, simple_recognizer(SimpleBackend(2), "simple"))

    def sessions() -> set[int]:
        return {id(one) for one in gc.get_objects() if type(one) is WordSession}

    gc.collect()
    gc.disable()  # which comes when it likes
    try:
        before = sessions()  # of other tests
        assert len(_heard(process, items)) == 4
        left = sessions() - before
    finally:
        gc.enable()
    assert left == set()


def test_options_that_the_model_cannot_follow_are_told_before_all_else() -> None:
    options = StreamOptions(decoding=DecodingOptions(hotwords=["Kyutai"]), channel="each")
    request = BatchRequest(REQUEST.settings, options)
    with pytest.raises(KikuError, match="Kyutai"):
        Transcriber(request, simple_recognizer(SimpleBackend(1), "simple"))


def test_a_device_that_is_gone_is_no_problem_of_a_recording(
    speech: MakeSpeech, tmp_path: Path
) -> None:
    backend = SimpleBackend(1)
    process = Transcriber(REQUEST, simple_recognizer(backend, "simple"))
    items = find_items(speech(tmp_path / "a.wav", 2.0))
    backend.break_at = 5
    with pytest.raises(RuntimeError, match="fell off the table"):
        _heard(process, items)
    (heard,) = _heard(process, items, alone=True)
    assert heard.rows[0]["problem"] == "unexpected RuntimeError: the device fell off the table"


def test_what_was_done_before_a_device_was_gone_is_given(
    one_long: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcriber, "EVERY_S", 1e9)
    backend = SimpleBackend(2)
    lists: list[list[Transcribed]] = []
    process = Transcriber(REQUEST, simple_recognizer(backend, "simple"))
    backend.break_at = 200
    with pytest.raises(RuntimeError, match="fell off the table"):
        lists.extend(process.transcribe(one_long))
    assert _names(lists) == [["0"], ["1", "2"]]


def test_what_a_store_does_not_give_is_told() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/a.wav", b"no sound at all")
    process = Transcriber(REQUEST, simple_recognizer(SimpleBackend(2), "simple"))
    try:
        lost = [Item("memory:///bucket/gone.wav", 5), Item("foo://a.wav", 5)]
        items = [*lost, *find_items("memory://bucket")]
        found = {one.path: one.rows[0] for one in _heard(process, items)}
    finally:
        files.rm("/bucket", recursive=True)
    gone = "memory:///bucket/gone.wav"
    assert found[gone]["problem"] == f"{gone}: cannot be opened (no such file)"
    assert found["foo://a.wav"]["problem"].startswith("foo://a.wav is not a place")
    assert "memory:///bucket/a.wav" in found["memory:///bucket/a.wav"]["problem"]


@pytest.mark.parametrize("silent", [(0,), (2,), (0, 1, 2)])
def test_silent_channels_have_rows_wherever_the_recording_lies(
    silent: tuple[int, ...], speech: MakeSpeech, tmp_path: Path
) -> None:
    here = speech(tmp_path / "a.wav", 1.0, 3, silent)
    (tmp_path / "cut.wav").write_bytes(here.read_bytes()[:-4_000])
    files = fsspec.filesystem("memory")
    for name in ("a.wav", "cut.wav"):
        files.pipe_file(f"/bucket/{name}", (tmp_path / name).read_bytes())
    request = BatchRequest(REQUEST.settings, StreamOptions(channel="each"))
    process = Transcriber(request, simple_recognizer(SimpleBackend(3), "simple"))
    try:
        items = [*find_items("memory://bucket"), *find_items(tmp_path)]
        found = {one.path: one.rows for one in _heard(process, items)}
    finally:
        files.rm("/bucket", recursive=True)
    assert len(found) == 4
    said = ["" if channel in silent else "zero one" for channel in range(3)]
    for path, rows in found.items():
        assert [(row["channel"], row["text"]) for row in rows] == list(enumerate(said))
        assert [row["problem"] is None for row in rows] == [not path.endswith("cut.wav")] * 3


def test_a_store_that_breaks_off_in_the_middle(
    speech: MakeSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech(tmp_path / "a.wav", 30.0)

    class Broken:
        """Breaks off after half a megabyte, with an error of its own."""

        def __init__(self) -> None:
            self.file = (tmp_path / "a.wav").open("rb")
            self.seekable, self.tell, self.seek = self.file.seekable, self.file.tell, self.file.seek
            self.close = self.file.close

        def read(self, size: int) -> bytes:
            if self.tell() > 500_000:
                raise ZeroDivisionError("the connection is gone")
            return self.file.read(size)

    monkeypatch.setattr(opening, "_open", lambda path: Broken())
    process = Transcriber(REQUEST, simple_recognizer(SimpleBackend(1), "simple"))
    (heard,) = _heard(process, [Item("s3://bucket/a.wav", 1)])
    assert "the connection is gone" in heard.rows[0]["problem"]
    assert heard.rows[0]["words"]
