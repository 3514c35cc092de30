"""Parts that are whole or not there, and what is finished by them."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from kiku.errors import InputError, OutputError
from kiku.fleet import store as room
from kiku.fleet.rows import Key, ResultRow, key_in, row_of_problem, rows_of
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.fleet.store import RowStore
from kiku.text import Word
from kiku.transcription import Transcript

REQUEST = BatchRequest(ModelSettings("demo"))
OTHER = BatchRequest(ModelSettings("other"))
PATIENCE_S = 60.0


def _key(name: str, request: BatchRequest = REQUEST) -> Key:
    return Key(f"/calls/{name}", 10, request.settings.model, request.digest)


def _rows(name: str, request: BatchRequest = REQUEST) -> list[ResultRow]:
    words = (Word("hello", 0.1, 0.5, 0.9),)
    return rows_of(_key(name, request), Transcript(words, 1.0), "mix")


def _failed(name: str) -> list[ResultRow]:
    return [row_of_problem(_key(name), "it is broken")]


@pytest.fixture(params=["folder", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Here, and in a store."""
    if request.param == "folder":
        yield str(tmp_path / "out")
        return
    yield "memory://results/out"
    files = fsspec.filesystem("memory")
    if files.exists("/results"):
        files.rm("/results", recursive=True)


class Buckets(fsspec.get_filesystem_class("memory")):  # pyright: ignore
    """As s3fs: a folder that is made is a bucket, and files want one that is there."""

    protocol = ("s3", "s3a")
    there: ClassVar[set[str]] = {"texts"}

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.there.add(path.split("/")[0])

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        if path.split("/")[0] not in self.there:
            raise FileNotFoundError("The specified bucket does not exist")


def test_a_bucket_that_is_not_there_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Buckets()
    monkeypatch.setattr(room, "file_system_of", lambda path: (files, path.removeprefix("s3://")))
    monkeypatch.setattr(room, "rename", lambda *_: None)
    for bucket in ("texts", "texst"):
        with RowStore(f"s3://{bucket}/out") as store:
            told = nullcontext() if bucket == "texts" else pytest.raises(OutputError)
            with told as error:
                store.begin(REQUEST)
    assert "bucket does not exist" in str(error)
    assert files.there == {"texts"}


def _names(output: str) -> list[str]:
    files, path = fsspec.core.url_to_fs(output)
    found = [str(name).removeprefix(path).lstrip("/") for name in files.find(path)]
    return sorted(name for name in found if name != ".lock")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_come_back_and_are_finished(kind: str, output: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of the extra fleet, is not installed")
    with RowStore(output, [kind]) as store:
        assert store.finished(REQUEST) == {}
        store.add("a.wav", _rows("a.wav"))
        store.add("b.wav", _failed("b.wav"))
    other = BatchRequest(ModelSettings("demo", dtype="int4"))
    with RowStore(output, [kind]) as store:
        store.add("c.wav", _rows("c.wav", other))
    with RowStore(output) as store:
        assert store.finished(REQUEST) == {_key("a.wav"): True, _key("b.wav"): False}
        assert store.finished(other) == {_key("c.wav", other): True}
        assert list(store.rows()) == [
            *_rows("a.wav"), *_failed("b.wav"), *_rows("c.wav", other)
        ]  # fmt: skip
    first, second = _names(output)
    assert first.startswith("part-00000-")
    assert second.startswith("part-00001-")
    assert second.endswith(kind)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_names_that_are_not_utf8_lose_no_rows(kind: str, output: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of the extra fleet, is not installed")
    name = os.fsdecode(b"caf\xe9.wav")
    request = BatchRequest(ModelSettings(f"models/{name}"))
    for number in range(2):
        with RowStore(output, [kind, "srt", "vtt"]) as store:
            assert len(store.finished(request)) == 2 * number
            store.begin(request)
            store.add("a.wav", _rows("a.wav", request))
            store.add(name, _rows(name, request))
    with RowStore(output) as store:
        found = {_key("a.wav", request).written: True, _key(name, request).written: True}
        assert store.finished(request) == found
        assert len(list(store.rows())) == 2
        if kind == "jsonl":
            assert list(store.rows())[1]["path"] == f"/calls/{name}"
    there = name if "://" not in output else "caf\\udce9.wav"
    assert f"captions/{there}.srt" in _names(output)


def test_rows_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow, of the extra fleet, is not installed")
    store = RowStore(str(tmp_path), ["parquet"])
    store.add("a", [{**_rows("a.wav")[0], "size": 1 << 80}])
    with pytest.raises(OutputError, match=r"part-00000.*parquet cannot be written"):
        store.flush()
    store.close()


def test_rows_are_parts_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_ROWS", 3)
    with RowStore(str(tmp_path)) as store:
        for number in range(8):
            store.add("a", _rows(f"{number}.wav"))
        assert len(_names(str(tmp_path))) == 2
    with RowStore(str(tmp_path)) as store:
        assert len(store.finished(REQUEST)) == 8


def test_rows_do_not_wait_for_the_next_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "EVERY_S", 0.01)
    with RowStore(str(tmp_path)) as store:
        for number in range(2):  # not only once
            store.add("a", _rows(f"{number}.wav"))
            with RowStore(str(tmp_path), writing=False) as reader:
                while len(reader.finished(REQUEST)) <= number:
                    time.sleep(0.01)


def test_rows_that_could_not_be_written_meanwhile_are_tried_again_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "EVERY_S", 0.01)
    tried = threading.Event()

    def full(*_: Any) -> None:
        tried.set()
        raise OSError("No space left on device")

    def add(store: RowStore) -> None:
        for _ in range(500):  # the clock's thread may not have noted it yet
            store.add("b", _rows("1.wav"))
            time.sleep(0.01)

    with RowStore(str(tmp_path)) as store, monkeypatch.context() as patch:
        patch.setattr(room, "rename", full)
        store.add("a", _rows("0.wav"))
        assert tried.wait(PATIENCE_S)
        with pytest.raises(OutputError, match="No space left"):
            add(store)
    with RowStore(str(tmp_path)) as store:
        assert len(store.finished(REQUEST)) == 2


def test_captions_stand_beside_before_the_rows_do(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_ROWS", 2)
    with RowStore(output, ["srt", "vtt"]) as store:
        store.add("in/a.wav", _rows("a.wav"))
        assert _names(output) == ["captions/in/a.wav.srt", "captions/in/a.wav.vtt"]
        store.add("b.wav", _failed("b.wav"))  # of which nothing was heard
        cut = [{**row, "problem": "it breaks off"} for row in _rows("c.wav")]
        store.add("c.wav", cut)
    assert [name for name in _names(output) if "part-" not in name] == [
        "captions/c.wav.partial.srt", "captions/c.wav.partial.vtt",
        "captions/in/a.wav.srt", "captions/in/a.wav.vtt",
    ]  # fmt: skip
    files, path = fsspec.core.url_to_fs(output)
    assert "hello" in files.cat_file(f"{path}/captions/in/a.wav.srt").decode()


def test_captions_of_a_part_go_when_the_recording_is_heard_again(output: str) -> None:
    cut = [{**row, "problem": "it breaks off"} for row in _rows("a.wav")]
    longer = [{**row, "size": 20} for row in _rows("a.wav")]  # what was cut has come
    for rows, names in (
        (cut, ["captions/a.wav.partial.srt"]),
        (cut, ["captions/a.wav.partial.srt"]),
        (_failed("a.wav"), []),
        (cut, ["captions/a.wav.partial.srt"]),
        (longer, ["captions/a.wav.srt"]),
    ):
        with RowStore(output, ["jsonl", "srt"]) as store:
            store.finished(REQUEST)
            store.add("a.wav", rows)
        assert [name for name in _names(output) if "part-" not in name] == names


@pytest.mark.parametrize("name", ["Talk [dQw4w9WgXcQ].mp3", "a*b.mp3", "what?.mp3", "[a-z].mp3"])
def test_a_name_is_no_pattern(name: str, output: str) -> None:
    folder = f"{output} [2026]"
    for _ in range(2):  # the second time the captions are there
        with RowStore(folder, ["jsonl", "srt"]) as store:
            store.finished(REQUEST)
            store.add(name, _rows("a"))  # the old part has no other rows, and goes
    captions, part = _names(folder)
    assert captions == f"captions/{name}.srt"
    assert part.startswith("part-00001-")
    with RowStore(folder) as store:
        assert store.finished(REQUEST) == {_key("a"): True}


@pytest.fixture
def with_failed(output: str) -> str:
    """Three parts: a, and b that is broken; d, which is broken; b that is broken for another."""
    with RowStore(output) as store:
        store.add("a", _rows("a.wav"))
        store.add("b", _failed("b.wav"))
        store.flush()
        store.add("d", _failed("d.wav"))
        store.flush()
        store.add("b", [row_of_problem(_key("b.wav", OTHER), "broken")])
    return output


def test_the_old_row_goes_when_the_new_one_is_there(with_failed: str) -> None:
    with RowStore(with_failed) as store:
        assert store.finished(REQUEST)[_key("b.wav")] is False
        store.add("b", _rows("b.wav"))
        assert len(list(store.rows())) == 4
    with RowStore(with_failed) as store:
        assert store.finished(REQUEST) == {
            _key("a.wav"): True, _key("b.wav"): True, _key("d.wav"): False,
        }  # fmt: skip
        assert store.finished(OTHER) == {_key("b.wav", OTHER): False}
        assert len(list(store.rows())) == 4
        store.add("d", _rows("d.wav"))
    assert len(_names(with_failed)) == 4  # a part without rows is none


def test_of_two_rows_of_a_recording_the_later_counts_and_the_other_goes(
    with_failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RowStore, "_take_out_old", lambda _: None)  # it was killed before
        with RowStore(with_failed) as store:
            store.finished(REQUEST)
            store.add("b", _rows("b.wav"))
            store.add("a", _failed("a.wav"))
    said = {_key("a.wav"): False, _key("b.wav"): True, _key("d.wav"): False}
    with RowStore(with_failed, writing=False) as store:
        assert store.finished(REQUEST) == said
    with RowStore(with_failed) as store:
        assert len(list(store.rows())) == 6  # looking takes nothing out
        assert store.finished(OTHER) == {_key("b.wav", OTHER): False}
    with RowStore(with_failed) as store:
        assert store.finished(REQUEST) == said
        assert len(list(store.rows())) == 4


def test_parts_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number, rows in ((99_999, _failed("a.wav")), (100_000, _rows("a.wav"))):
        (tmp_path / f"part-{number}-0123abcd.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with RowStore(str(tmp_path)) as store:
        assert store.finished(REQUEST) == {_key("a.wav"): True}


def test_a_write_that_fails_leaves_nothing_and_is_told(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    store = RowStore(output)
    store.add("a", _rows("a.wav"))
    files = type(fsspec.core.url_to_fs(output)[0])
    with monkeypatch.context() as patch:
        patch.setattr(files, "mv", full)
        with pytest.raises(OutputError, match=r"part-00000.*No space left"):
            store.flush()
    assert _names(output) == []
    store.flush()  # there is room again
    store.close()
    assert len(_names(output)) == 1


def test_a_folder_that_cannot_be_listed_is_told_and_left_to_others(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(_: RowStore) -> list[str]:
        raise OutputError("it cannot be listed")

    with monkeypatch.context() as broken:
        broken.setattr(RowStore, "_parts", listed)
        with pytest.raises(OutputError, match="listed"):
            RowStore(output)
    with RowStore(output) as store:
        store.add("a", _rows("a.wav"))


def test_a_part_that_is_not_renamed_yet_is_none(tmp_path: Path) -> None:
    (tmp_path / ".part-00000-0123abcd.jsonl.5e.partial").write_text('{"path": "/calls/a')
    with RowStore(str(tmp_path)) as store:
        assert store.finished(REQUEST) == {}


@pytest.mark.parametrize("line", ["{", "[]", '{"path": 1}', "\xff"])
def test_damage_is_told_with_its_place(line: str, tmp_path: Path) -> None:
    part = tmp_path / "part-00000-0123abcd.jsonl"
    good = json.dumps(_rows("a.wav")[0])
    part.write_bytes(f"{good}\n{line}\n".encode("latin-1"))
    with RowStore(str(tmp_path)) as store, pytest.raises(OutputError, match=r"abcd.jsonl, line 2"):
        store.finished(REQUEST)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with RowStore(str(tmp_path)) as first:
        with pytest.raises(OutputError, match="another run writes"):
            RowStore(str(tmp_path))
        RowStore(str(tmp_path), writing=False).finished(REQUEST)
        first.add("a", _rows("a.wav"))
    with RowStore(str(tmp_path)) as second:
        assert list(map(key_in, second.rows())) == [_key("a.wav")]


def test_looking_makes_nothing(tmp_path: Path) -> None:
    with RowStore(str(tmp_path / "out"), writing=False) as store:
        assert store.finished(REQUEST) == {}
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_reached_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a place that can be opened"):
        RowStore("foo://texts")
    with pytest.raises(OutputError, match=r"zip://.* cannot be reached \(.*No such file"):
        RowStore(f"zip://out::{tmp_path}/gone.zip")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="cannot be made"):
        RowStore(str(tmp_path / "out"))
