"""Folders, patterns, addresses and manifests -> recordings."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from kiku.errors import InputError
from kiku.fleet.sources import Item, find_items
from tests.fleet.conftest import MakeSpeech


def test_a_folder_is_its_recordings_by_name_and_those_inside(
    speech: MakeSpeech, tmp_path: Path
) -> None:
    for name in ("b.wav", "in/a.WAV", "in/._a.wav", "notes.txt"):
        speech(tmp_path / name)
    found = find_items(tmp_path)
    assert [(one.path, one.name) for one in found] == [
        (str(tmp_path / "b.wav"), "b.wav"),
        (str(tmp_path / "in" / "a.WAV"), "in/a.WAV"),
    ]
    assert found[0].size == (tmp_path / "b.wav").stat().st_size


@pytest.mark.parametrize(
    ("name", "text"), [("m.csv", "path,text\r\na.wav,\u00e9t\u00e9\n"), ("m.TXT", "\u00e9" * 5_000)]
)
def test_a_list_that_is_no_manifest_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"\ufeff{text}", encoding="utf-8")
    with pytest.raises(InputError, match=rf'{name} is text, .* \{{"path": "a.wav"\}} for each'):
        find_items(tmp_path / name)


def test_sound_and_what_may_be_sound_has_any_name(speech: MakeSpeech, tmp_path: Path) -> None:
    speech(tmp_path / "sound.txt")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "codes.json").write_bytes(b"ID3\x04 only letters\x00")
    (tmp_path / "latin.tsv").write_bytes(b"caf\xe9 au lait")
    (tmp_path / "text.mp3").write_text("which a folder's recording may be, too")
    for path in tmp_path.iterdir():
        assert [one.path for one in find_items(path)] == [str(path)]


def test_paths_are_absolute_wherever_one_stands(
    speech: MakeSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = speech(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    assert [one.path for one in find_items("a.wav")] == [str(path)]
    assert find_items(["a.wav", str(path), "."]) == find_items(path)  # each once


def test_patterns(speech: MakeSpeech, tmp_path: Path) -> None:
    for name in ("x/a.wav", "y/b.wav", "y/c.mp3"):
        speech(tmp_path / name)
    found = find_items(str(tmp_path / "*" / "*.wav"))
    assert [one.name for one in found] == ["x/a.wav", "y/b.wav"]


def test_links_to_recordings_are_followed_those_to_folders_are_not(
    speech: MakeSpeech, tmp_path: Path
) -> None:
    real = speech(tmp_path / "real" / "a.wav")
    calls = tmp_path / "calls"
    calls.mkdir()
    (calls / "a.wav").symlink_to(real)
    (calls / "gone.wav").symlink_to(tmp_path / "gone.wav")
    (calls / "inside").symlink_to(tmp_path / "real")
    (calls / "circle.wav").symlink_to(calls)
    wanted = [Item(str(calls / "a.wav"), real.stat().st_size, None, "a.wav")]
    assert find_items(calls) == find_items(f"{calls}/*.wav") == wanted
    assert find_items(calls / "a.wav") == wanted
    assert [one.name for one in find_items(calls / "inside")] == ["a.wav"]


def test_names_that_look_like_patterns(speech: MakeSpeech, tmp_path: Path) -> None:
    inside = speech(tmp_path / "calls [2026]" / "Talk [x].wav")
    speech(tmp_path / "calls [2026]" / "a?" / "b*.wav")
    speech(tmp_path / "calls 2" / "c.wav")
    found = find_items(tmp_path / "calls [2026]")
    assert [one.name for one in found] == ["Talk [x].wav", "a?/b*.wav"]
    assert find_items(inside) == found[:1]
    assert find_items(f"{tmp_path}/calls [2026]/*.wav") == found[:1]
    assert [one.name for one in find_items(f"{tmp_path}/calls [2026]/a?/*.wav")] == ["b*.wav"]
    assert [one.name for one in find_items(f"{tmp_path}/calls [12]/*.wav")] == ["calls 2/c.wav"]


def test_a_store() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/2026/a.wav", b"12345")
    files.pipe_file("/bucket/2026/b.txt", b"1")
    try:
        found = find_items("memory://bucket/2026")
        assert found == [Item("memory:///bucket/2026/a.wav", 5, None, "a.wav")]
        assert find_items(found[0].path) == found
    finally:
        files.rm("/bucket", recursive=True)


def test_a_manifest(speech: MakeSpeech, tmp_path: Path) -> None:
    here = speech(tmp_path / "in" / "a.wav")
    rows = [
        {"path": "in/a.wav", "duration": 3.5, "text": "no matter"},
        {"file": str(tmp_path / "gone.wav")},
        {"audio_filepath": "s3://bucket/c.wav", "size": 7, "seconds": 2},
    ]
    manifest = tmp_path / "calls.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert find_items(manifest) == [
        Item(str(here), here.stat().st_size, 3.5, "in/a.wav"),
        Item(str(tmp_path / "gone.wav"), None, None, "gone.wav"),
        Item("s3://bucket/c.wav", 7, 2, "c.wav"),
    ]


def test_rows_of_a_manifest_may_be_given_themselves(speech: MakeSpeech, tmp_path: Path) -> None:
    path = speech(tmp_path / "a.wav")
    found = find_items([{"path": str(path), "seconds": 1.0}, str(path)])
    assert found == [Item(str(path), os.path.getsize(path), 1.0, "a.wav")]


def test_a_dataset_of_rows(speech: MakeSpeech, tmp_path: Path) -> None:
    path = str(speech(tmp_path / "a.wav"))

    class Dataset:
        """As Ray's."""

        def iter_rows(self) -> list[dict[str, object]]:
            return [{"path": path, "text": "no matter", "seconds": 1.0}]

    assert find_items(Dataset()) == [Item(path, os.path.getsize(path), 1.0, "a.wav")]


def test_whatever_gives_sources_one_after_the_other(speech: MakeSpeech, tmp_path: Path) -> None:
    path = speech(tmp_path / "a.wav")
    found = find_items(path)
    row = {"path": str(path)}
    for sources in (
        (one for one in [path]),
        {path},
        (path,),
        row,
        iter([row]),
        {"a": row}.values(),
    ):
        assert find_items(sources) == found


def test_rows_of_tables_may_have_gaps_and_numbers_of_numpy(
    speech: MakeSpeech, tmp_path: Path
) -> None:
    path = speech(tmp_path / "a.wav")
    size, nothing = os.path.getsize(path), float("nan")
    rows = [
        {"path": path, "size": float(size), "duration": nothing, "start": np.float64(nothing)},
        {"path": np.str_("s3://b.wav"), "size": np.int64(5), "duration": np.float32(2.5)},
        {"path": f"{path}.gone", "size": nothing, "text": nothing},
    ]
    assert find_items(rows) == [
        Item(str(path), size, None, "a.wav"),
        Item("s3://b.wav", 5, 2.5, "b.wav"),
        Item(f"{path}.gone", None, None, "a.wav.gone"),
    ]


class Frame:
    """As pandas': it goes over the names of its columns."""

    columns = ("path", "size")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        (b"a.wav", r"not bytes \(b'a.wav'\)"),
        (bytearray(b"a"), "not bytearray"),
        (None, "not NoneType"),
        (3, r"not int \(3\)"),
        (Frame(), r'not Frame .*frame.to_dict\("records"\)'),
        ([b"a.wav"], r"a source must be a path or a row with a path, not bytes"),
        ([3], r"a source must be a path or a row with a path, not int \(3\)"),
        ([["a.wav"]], r"a source must be .* not list \(\['a.wav'\]\)"),
        ([{"path": "a.wav", "size": 0.5}], 'row 1: "size" must be a number of bytes'),
        ([{"path": "a.wav", "size": float("inf")}], 'row 1: "size" must be a number of bytes'),
        ([{"path": float("nan")}], "row 1: has no path"),
    ],
)
def test_what_is_no_source_is_told(sources: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_items(sources)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: is not JSON"),
        ("[1]", r"line 2: is \[1\], not an object"),
        ("{}", "line 2: has no path"),
        ('{"path": ""}', "line 2: has no path"),
        ('{"path": "a.wav", "duration": "long"}', 'line 2: "duration" must be seconds'),
        ('{"path": "a.wav", "size": true}', 'line 2: "size" must be a number'),
        ('{"path": "a.wav", "size": -1}', 'line 2: "size" must be a number'),
        ('{"path": "a.wav", "size": 1000000000000000000000}', 'line 2: "size" must be a number'),
        ('{"path": "a.wav", "end": "late"}', 'line 2: "end" must be seconds'),
    ],
)
def test_bad_lines_are_told_with_their_number(line: str, said: str, tmp_path: Path) -> None:
    manifest = tmp_path / "calls.jsonl"
    manifest.write_text(f'{{"path": "a.wav", "size": 1}}\n{line}\n')
    with pytest.raises(InputError, match=said):
        find_items(manifest)


@pytest.mark.parametrize("name", ["nothing", "nothing/*.wav", "."])
def test_what_leads_to_no_recording(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file|no audio or video"):
        find_items(str(tmp_path / name))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (
            "foo://calls/a.wav",
            r"foo://calls/a.wav is not a place that can be opened \(Protocol not known: foo\)",
        ),
        ("zip://a.wav::{}/gone.zip", r"gone.zip: cannot be read \(.*No such file"),
        ("near://calls", r"near://calls needs a package .* run  pip install kiku_nearfs$"),
    ],
)
def test_places_that_cannot_be_reached(address: str, says: str, tmp_path: Path) -> None:
    fsspec.register_implementation("near", "kiku_nearfs.Near", clobber=True, errtxt="Get nearfs")
    with pytest.raises(InputError, match=says):
        find_items(address.format(tmp_path))


def test_a_row_in_a_place_that_is_not_there_is_heard_of_later(tmp_path: Path) -> None:
    address = f"zip://a.wav::{tmp_path}/gone.zip"
    (found,) = find_items([{"path": address}])
    assert (found.path, found.size) == (address, None)
    with pytest.raises(InputError, match="is not a place that can be opened"):
        find_items([{"path": "foo://a.wav"}])  # as would be all others


def test_nothing_named() -> None:
    with pytest.raises(InputError, match="no recordings"):
        find_items([])
