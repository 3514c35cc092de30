"""A converted model is whole or not there, whatever happens to whoever converts it."""

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import kiku.graph
from kiku.checkpoint import find, identity
from kiku.converted import (
    conversion,
    convert,
    default_precision,
    entries,
    entries_of,
    is_converted,
    open_converted,
    remove,
    verify_converted,
)
from kiku.converted.cache import cache_folder, is_in_cache, lock_of, temporary_folder
from kiku.converted.manifest import GRAPH_FILES, MANIFEST
from kiku.errors import CheckpointError, ConfigError, UnsupportedConfig
from tests import tiny

FILES = {*GRAPH_FILES, "tokenizer.json", MANIFEST}

_QUICK = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _make_own(path: Path) -> None:
    """Change a weight of a checkpoint, as a training would."""
    tensors = load_file(path)
    tensors["out_norm.alpha"] = tensors["out_norm.alpha"] + np.float32(1)
    save_file(tensors, path)


def test_what_is_made(native_folder: Path, own_cache: Path) -> None:
    model = convert(native_folder)
    assert set(contents(model.folder)) == FILES
    assert model.folder.parent == own_cache
    assert model.folder.name.startswith("native-float32-")
    assert (model.name, model.precision) == ("native", "float32"), "small: float32"
    assert model.config == tiny.model_config()
    assert model.vocabulary.piece(4) == tiny.PIECES[4]
    assert [path.name for path in own_cache.iterdir()] == [model.folder.name], "nothing beside it"
    before = contents(model.folder)
    shutil.move(native_folder, native_folder.with_name("gone"))
    shutil.copytree(model.folder, native_folder.with_name("another machine"))
    copy = open_converted(native_folder.with_name("another machine"))
    assert (copy.manifest, contents(copy.folder)) == (model.manifest, before)


def test_all_layouts_and_precisions(native_folder: Path, transformers_folder: Path) -> None:
    for folder in (native_folder, transformers_folder):
        for precision in kiku.graph.PRECISIONS:
            model = convert(folder, precision=precision)
            assert model.precision == precision
            assert set(contents(model.folder)) == FILES
            assert [one.folder for one in entries_of(str(folder), precision)] == [model.folder]


def test_it_is_made_once(native_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = convert(native_folder)
    monkeypatch.setattr(kiku.graph, "write_codec", None)
    assert convert(native_folder) == first
    assert convert(find(native_folder)) == first
    moved = shutil.move(native_folder, native_folder.with_name("a")) and native_folder.with_name(
        "a"
    )
    shutil.copytree(moved, native_folder)
    assert convert(native_folder) == first, "a copy is the same checkpoint"


def test_another_checkpoint_of_the_same_name_is_another(native_folder: Path) -> None:
    first = convert(native_folder)
    _make_own(native_folder / "model.safetensors")
    second = convert(native_folder)
    assert second.folder != first.folder
    config = native_folder / "config.json"
    config.write_text(
        config.read_text().replace('"audio_delay_seconds": 0.5', '"audio_delay_seconds": 0.4')
    )
    assert convert(native_folder).folder not in (first.folder, second.folder)
    words = native_folder / "tokenizer.json"
    words.write_text(words.read_text().replace("three", "drei"))
    assert convert(native_folder).vocabulary.piece(6) == "▁drei"


def test_big_files_are_told_apart_too(native_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SMALL_FILE", 0)
    first = convert(native_folder)
    assert convert(native_folder) == first
    _make_own(native_folder / "model.safetensors")
    assert convert(native_folder).folder != first.folder


def test_into_a_folder(native_folder: Path, tmp_path: Path, own_cache: Path) -> None:
    model = convert(native_folder, precision="int8", folder=tmp_path / "new" / "here")
    assert set(contents(tmp_path / "new" / "here")) == FILES
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"here", ".here.kiku.lock"}
    assert not own_cache.parent.exists(), "neither a model nor a lock"
    assert convert(native_folder, precision="int8", folder=model.folder) == model
    with pytest.raises(CheckpointError, match=r"contains native in int8, .*native in int4"):
        convert(native_folder, precision="int4", folder=model.folder)
    with pytest.raises(CheckpointError, match="contains files that are not of a converted model"):
        convert(native_folder, folder=native_folder)
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(CheckpointError, match="contains files that are not of a converted model"):
        convert(native_folder, folder=tmp_path / "a file")
    with pytest.raises(CheckpointError, match="already converted; give the checkpoint"):
        convert(model.folder)


def test_files_of_others_are_not_lost(native_folder: Path, tmp_path: Path) -> None:
    model = convert(native_folder, folder=tmp_path / "here")
    (model.folder / "notes.txt").write_text("mine")
    (model.folder / "codec.data").unlink()
    with pytest.raises(
        CheckpointError, match=r"contains files that are not of a converted model \(notes\.txt\)"
    ):
        convert(native_folder, folder=model.folder)
    assert (model.folder / "notes.txt").read_text() == "mine"


def test_a_vocabulary_that_cannot_be_read(
    native_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(identity, "sha256_of", refuse)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read: Permission"):
        convert(native_folder)


def test_a_precision_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="float32, int8, int4, int8_kv8, int4_kv8, not 'int7'"):
        convert("no/where/at/all", precision="int7")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", [Path.unlink, _flip, lambda path: path.write_bytes(b"")])
def test_what_is_damaged_is_made_anew(
    name: str, damage: Callable[[Path], None], native_folder: Path, caplog: Any
) -> None:
    model = convert(native_folder)
    before = contents(model.folder)
    damage(model.folder / name)
    with pytest.raises(
        CheckpointError, match=r"convert the model again|kiku-onnx\.json is missing"
    ):
        open_converted(model.folder)
    caplog.clear()
    assert convert(native_folder) == model
    assert contents(model.folder) == before
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == (0 if (name, damage) == (MANIFEST, Path.unlink) else 1)
    assert all(text.endswith(": converting it again") for text in told)


def test_big_files_are_read_when_that_is_asked_for(
    native_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = convert(native_folder)
    before = contents(model.folder)
    monkeypatch.setattr("kiku.converted.manifest.READ_WHOLE", 0)
    _flip(model.folder / "decoder.data")
    assert open_converted(model.folder) == model
    with pytest.raises(CheckpointError, match=r"decoder\.data is damaged .its sha256 is"):
        open_converted(model.folder, checksums=True)
    assert convert(native_folder, checksums=True) == model
    assert contents(model.folder) == before


def test_of_another_format(
    native_folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "kiku")
    old = convert(native_folder)
    before = kiku.graph.FORMAT
    monkeypatch.setattr(kiku.graph, "FORMAT", before + 1)
    with pytest.raises(
        CheckpointError,
        match=rf"an older version of kiku .format {before}, but this version uses {before + 1}",
    ):
        open_converted(old.folder)
    new = convert(native_folder)
    assert [path.name for path in own_cache.iterdir()] == [new.folder.name], "the old one has gone"
    assert any("made by an older version" in r.getMessage() for r in caplog.records)
    monkeypatch.setattr(kiku.graph, "FORMAT", before)
    with pytest.raises(CheckpointError, match="a newer version of kiku"):
        open_converted(new.folder)
    assert convert(native_folder) == old
    assert new.folder.exists(), "what a newer kiku made is left alone"


def test_a_folder_of_another_format_is_made_anew(
    native_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    convert(native_folder, folder=tmp_path / "here")
    monkeypatch.setattr(kiku.graph, "FORMAT", kiku.graph.FORMAT + 1)
    caplog.clear()
    model = convert(native_folder, folder=tmp_path / "here")
    assert model.manifest.format == kiku.graph.FORMAT
    assert "older version of kiku" in caplog.text
    assert set(contents(model.folder)) == FILES


_WHOLE: dict[str, bytes] = {}


@_QUICK
@given(data=st.data())
def test_a_manifest_that_is_damaged_anyhow(data: st.DataObject, native_folder: Path) -> None:
    model = convert(native_folder)
    path = model.folder / MANIFEST
    whole = _WHOLE.setdefault(str(native_folder), path.read_bytes())
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, len(whole)))
    junk = data.draw(st.one_of(st.binary(max_size=20), st.text(max_size=9).map(str.encode)))
    path.write_bytes(whole[:at] + junk + whole[end:])
    try:
        assert open_converted(model.folder) == model
    except CheckpointError:
        pass
    finally:
        path.write_bytes(whole)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=5,
)


@_QUICK
@given(data=st.data())
def test_a_manifest_with_nonsense_and_a_right_checksum(
    data: st.DataObject, native_folder: Path
) -> None:
    from kiku.checkpoint.identity import digest_of

    model = convert(native_folder)
    path = model.folder / MANIFEST
    whole = _WHOLE.setdefault(str(native_folder), path.read_bytes())
    values = json.loads(whole)
    del values["checksum"]
    place, key = values, data.draw(st.sampled_from(sorted(values)))
    while isinstance(place[key], dict) and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(_JSON)
    path.write_text(json.dumps(values | {"checksum": digest_of(values)}))
    try:
        open_converted(model.folder)
        convert(native_folder)
    except CheckpointError:
        pass
    finally:
        path.write_bytes(whole)


def test_no_space_is_seen_before(native_folder: Path, own_cache: Path, monkeypatch: Any) -> None:
    usage = shutil.disk_usage(native_folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs about 0 MB in .*set KIKU_CACHE"):
        convert(native_folder)
    assert list(own_cache.iterdir()) == []


@pytest.mark.parametrize("writer", ["write_codec", "write_decoder"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("36864 requested and 20480 written"),  # numpy's own
    ],
)
def test_no_space_in_the_middle(
    error: OSError,
    writer: str,
    native_folder: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = getattr(kiku.graph, writer)

    def full(folder: Path, *rest: Any) -> None:
        real(folder, *rest)
        raise error

    monkeypatch.setattr(kiku.graph, writer, full)
    with pytest.raises(CheckpointError, match=r"no space left on the disk .* set KIKU_CACHE"):
        convert(native_folder)
    assert list(own_cache.iterdir()) == []


def test_a_shape_that_cannot_be_run(
    native_folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UnsupportedConfig("heads of 7 are not supported")

    monkeypatch.setattr(kiku.graph, "write_decoder", refuse)
    with pytest.raises(UnsupportedConfig, match="heads of 7"):
        convert(native_folder)
    assert list(own_cache.iterdir()) == []


def test_tensors_that_are_not_those_of_the_config(native_folder: Path, own_cache: Path) -> None:
    path = native_folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["out_norm.alpha"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"missing: out_norm\.alpha"):
        convert(native_folder)
    assert list(own_cache.iterdir()) == []


def test_what_is_there_is_opened_where_nothing_can_be_written(
    native_folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = convert(native_folder)
    before = sorted(path.name for path in own_cache.parent.rglob("*"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "touch", "replace", "unlink", "write_text"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr("kiku.converted.conversion.locked", refuse)
    assert convert(native_folder) == made
    assert sorted(path.name for path in own_cache.parent.rglob("*")) == before


def test_what_stands_where_the_making_would_be_is_not_lost(
    native_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "here.part").mkdir()
    (tmp_path / "here.part" / "notes.txt").write_text("mine")
    with pytest.raises(
        CheckpointError, match=r"here\.part contains files that are not of a converted model"
    ):
        convert(native_folder, folder=tmp_path / "here")
    assert (tmp_path / "here.part" / "notes.txt").read_text() == "mine"


def test_a_cache_that_cannot_be_written(
    native_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"cannot be converted .*set KIKU_CACHE"):
        convert(native_folder)


# Converts as often as it is asked to, each time in a fork of its own that kills itself at some
# moment or tells how many there were. Libraries are loaded once for all.
_KILLED = """
import os, pathlib, signal, sys
import kiku.graph, kiku.graph.writer
from kiku.converted import build, convert
num = 0
def counted(owner, name):
    real = getattr(owner, name)
    def call(*rest, **named):
        global num
        num += 1
        if num == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*rest, **named)
    setattr(owner, name, call)
counted(kiku.graph.writer.GraphWriter, "tensor")
counted(build, "put_away")
counted(build, "sha256_of")
counted(build.ConvertedManifest, "to_json")
counted(pathlib.Path, "replace")
for line in sys.stdin:
    stop = int(line)
    pid = os.fork()
    if pid == 0:
        convert(sys.argv[1])
        print(num, flush=True)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        print("killed" if os.WTERMSIG(status) == signal.SIGKILL else f"status {status}", flush=True)
"""


class Conversions:
    """Conversions of a checkpoint in other processes."""

    def __init__(self, source: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Conversions":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def _ask(self, stop: int) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{stop}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def num_moments(self) -> int:
        """Convert undisturbed; at how many moments it could have been killed."""
        return int(self._ask(0))

    def kill_at(self, moment: int) -> None:
        """Begin a conversion, which is killed."""
        assert self._ask(moment) == "killed"


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@forks
def test_killed_at_any_moment_the_next_one_makes_the_same(
    native_folder: Path, own_cache: Path, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "kiku")
    undisturbed = convert(native_folder)
    before = contents(undisturbed.folder)
    shutil.rmtree(own_cache)
    with Conversions(native_folder) as others:
        total = others.num_moments()
        assert contents(undisturbed.folder) == before
        shutil.rmtree(own_cache)
        for moment in [1, 2, 9, *range(total - 9, total + 1)]:
            others.kill_at(moment)
            assert not undisturbed.folder.exists()
            caplog.clear()
            model = convert(native_folder)
            assert "waiting" not in caplog.text, "a lock ends with its process"
            assert contents(model.folder) == before
            assert [path.name for path in own_cache.iterdir()] == [model.folder.name]
            shutil.rmtree(own_cache)


@forks
def test_what_a_killed_one_left_is_not_trusted(native_folder: Path, own_cache: Path) -> None:
    with Conversions(native_folder) as others:
        total = others.num_moments()
        before = contents(convert(native_folder).folder)
        shutil.rmtree(own_cache)
        others.kill_at(total - 4)
    (part,) = own_cache.glob("*.part")
    _flip(part / "codec.data")
    (part / "junk").write_text("junk")
    assert contents(convert(native_folder).folder) == before


def test_what_a_removal_left_that_was_killed_is_in_nobodys_way(
    native_folder: Path, own_cache: Path
) -> None:
    """Processes of one number come again: in a container it is always 1."""
    model = convert(native_folder)
    before = contents(model.folder)
    left = model.folder.with_name(f"{model.folder.name}.gone-{os.getpid()}")
    for _ in range(2):
        left.mkdir()
        (left / "codec.data").write_text("half")
        (model.folder / MANIFEST).write_text("damaged")
        assert contents(convert(native_folder).folder) == before
        assert list(own_cache.iterdir()) == [model.folder]
    left.mkdir()
    (left / "codec.data").write_text("half")
    remove(entries()[0])
    assert list(own_cache.iterdir()) == []


def test_what_is_made_anew_takes_the_place_of_a_link(native_folder: Path, own_cache: Path) -> None:
    model = convert(native_folder)
    before = contents(model.folder)
    elsewhere = Path(shutil.move(model.folder, own_cache.with_name("elsewhere")))
    model.folder.symlink_to(elsewhere)
    assert convert(native_folder) == model, "it may lie on another disk"
    (elsewhere / MANIFEST).write_text("damaged")
    leftover = model.folder.with_name(f"{model.folder.name}.gone-1")
    leftover.symlink_to(elsewhere)
    assert contents(convert(native_folder).folder) == before
    assert list(own_cache.iterdir()) == [model.folder]
    assert not model.folder.is_symlink()
    assert (elsewhere / MANIFEST).read_text() == "damaged"


# Who converts waits until it is told that the others wait for it.
_AT_ONCE = """
import logging, pathlib, sys, time
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import kiku.graph
go = pathlib.Path(sys.argv[2])
real = kiku.graph.write_codec
def slow(*rest):
    while not go.exists():
        time.sleep(0.01)
    real(*rest)
kiku.graph.write_codec = slow
from kiku.converted import convert
folder = pathlib.Path(sys.argv[3]) if sys.argv[3:] else None
print(convert(sys.argv[1], folder=folder).folder)
"""


def test_two_at_once(native_folder: Path, tmp_path: Path, own_cache: Path) -> None:
    go = tmp_path / "go"
    command = [sys.executable, "-c", _AT_ONCE, str(native_folder), str(go)]
    told = [tmp_path / f"told {i}" for i in range(3)]
    both: list[subprocess.Popen[bytes]] = []
    for path in told:
        with path.open("wb") as file:
            both.append(subprocess.Popen(command, stdout=file))
    give_up = time.monotonic() + 100
    while sum("waiting for it" in path.read_text() for path in told) < 2:
        if time.monotonic() > give_up or any(process.poll() is not None for process in both):
            break
        time.sleep(0.01)
    go.touch()
    for process in both:
        process.wait()
    said = [path.read_text().splitlines() for path in told]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert len({lines[-1] for lines in said}) == 1
    worked = [lines for lines in said if any("converting native to" in line for line in lines)]
    waited = [lines for lines in said if any("waiting for it" in line for line in lines)]
    assert (len(worked), len(waited)) == (1, 2)
    assert all(any("another process has converted" in li for li in lines) for lines in waited)
    assert set(contents(Path(said[0][-1]))) == FILES
    assert len(list(own_cache.iterdir())) == 1


def test_two_at_once_whose_caches_differ(native_folder: Path, tmp_path: Path) -> None:
    """Two containers that share a volume, each under a path of its own."""
    (tmp_path / "shared").mkdir()
    go = tmp_path / "go"
    told = [tmp_path / f"told {i}" for i in range(2)]
    both: list[subprocess.Popen[bytes]] = []
    for i, path in enumerate(told):
        (mounted := tmp_path / f"mounted {i}").symlink_to(tmp_path / "shared")
        command = [sys.executable, "-c", _AT_ONCE, str(native_folder), str(go), str(mounted / "m")]
        own = os.environ | {"KIKU_CACHE": str(tmp_path / f"cache {i}")}
        with path.open("wb") as file:
            both.append(subprocess.Popen(command, stdout=file, env=own))
    give_up = time.monotonic() + 100
    while not all("convert" in path.read_text() for path in told):
        if time.monotonic() > give_up or any(process.poll() is not None for process in both):
            break
        time.sleep(0.01)
    go.touch()
    assert [process.wait() for process in both] == [0, 0]
    assert sum("another process has converted" in path.read_text() for path in told) == 1
    findings = verify_converted(tmp_path / "shared" / "m")
    assert all(finding.ok for finding in findings), findings


def test_converting_needs_no_torch(native_folder: Path) -> None:
    from tests.conftest import without_torch

    program = "from kiku.converted import convert; convert(sys.argv[1], precision='int8')"
    subprocess.run([sys.executable, "-c", without_torch(program), str(native_folder)], check=True)


def test_the_precision_of_big_decoders() -> None:
    from tests.checkpoint.models import one_b

    assert default_precision(one_b().lm) == "int8"
    assert default_precision(tiny.lm_config()) == "float32"


@pytest.mark.parametrize("ending", [".part", ".lock"])
@pytest.mark.parametrize("leads_somewhere", [True, False])
@pytest.mark.parametrize("in_cache", [True, False])
def test_links_in_the_way_are_refused_and_not_followed(
    native_folder: Path, tmp_path: Path, ending: str, leads_somewhere: bool, in_cache: bool
) -> None:
    wanted = None if in_cache else tmp_path / "here"
    made = convert(native_folder, folder=wanted).folder
    link = lock_of(made) if ending == ".lock" else made.with_name(made.name + ending)
    shutil.rmtree(made)
    link.unlink(missing_ok=True)
    target = tmp_path / "elsewhere"
    if leads_somewhere and ending == ".lock":
        target.write_text("precious")
    elif leads_somewhere:
        target.mkdir()
        (target / "precious").touch()
    link.symlink_to(target)
    with pytest.raises(
        CheckpointError, match=r"is a link|contains files that are not of a converted model"
    ):
        convert(native_folder, folder=wanted)
    if not leads_somewhere:
        assert not target.exists()
    elif ending == ".lock":
        assert target.read_text() == "precious"
    else:
        assert [path.name for path in target.iterdir()] == ["precious"]
    link.unlink()
    assert convert(native_folder, folder=wanted).folder == made


def _no_home(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    patch.delenv("XDG_CACHE_HOME", raising=False)
    patch.delenv("LOCALAPPDATA", raising=False)
    patch.delenv("KIKU_CACHE")
    patch.setattr(Path, "home", home)


def _home_of_nobody(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch.setenv("KIKU_CACHE", "~no-such-user-here/cache")


def _of_somebody_else(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache that may not even be looked into; root may, so it is said instead of done."""
    patch.setenv("KIKU_CACHE", str(tmp_path / "theirs"))
    is_file, mkdir = Path.is_file, Path.mkdir

    def closed(path: Path) -> None:
        if path.is_relative_to(tmp_path / "theirs"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def look(path: Path) -> bool:
        closed(path)
        return is_file(path)

    def make(path: Path, *arguments: Any, **more: Any) -> None:
        closed(path)
        mkdir(path, *arguments, **more)

    patch.setattr(Path, "is_file", look)
    patch.setattr(Path, "mkdir", make)


def _read_only(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch.setenv("KIKU_CACHE", str(tmp_path / "fixed"))
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: Any, **more: Any) -> None:
        if path.is_relative_to(tmp_path / "fixed"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, *arguments, **more)

    patch.setattr(Path, "mkdir", refuse)


def _no_locks(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on some network file systems."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    patch.setattr(fcntl, "flock", refuse)
    temporary_folder.cache_clear()  # what another test made there would be opened without a lock


@pytest.mark.parametrize(
    "trouble", [_no_home, _home_of_nobody, _of_somebody_else, _read_only, _no_locks]
)
def test_without_a_cache_there_is_a_sentence_and_the_demo(
    trouble: Any, native_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    trouble(monkeypatch, tmp_path)
    with pytest.raises(CheckpointError, match="set KIKU_CACHE to a") as caught:
        convert(native_folder)
    assert "\n" not in str(caught.value)
    with caplog.at_level("WARNING", "kiku"):
        folder = convert("demo").folder
    assert folder.is_relative_to(tempfile.gettempdir())
    assert "the demo is kept in a temporary folder until the program ends" in caplog.text
    assert convert("demo").folder == folder


def test_without_a_cache_threads_wait_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KIKU_CACHE", "~no-such-user-here")
    monkeypatch.setattr(conversion, "temporary_folder", lambda: tmp_path / "temporary")
    caplog.set_level(logging.INFO, "kiku")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(convert, ["demo"] * 4))
    assert made == [made[0]] * 4
    assert caplog.text.count("converting demo to") == 1


def test_without_any_folder_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setenv("KIKU_CACHE", "~no-such-user-here")
    monkeypatch.setattr(conversion, "temporary_folder", refuse)
    with pytest.raises(CheckpointError, match=r"set KIKU_CACHE to .*a temporary fold"):
        convert("demo")


@pytest.mark.parametrize("place", ["/", "..", "new/.."])
def test_what_nothing_can_take_the_place_of(
    place: str, native_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = f"cannot replace {place}; name a new folder, such as {Path(place, 'converted')}"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        convert(native_folder, folder=Path(place))
    assert not (tmp_path / "new").exists()


def test_homes_of_nobody_are_one_sentence_each(native_folder: Path) -> None:
    nowhere = Path("~no-such-user-here/model")
    with pytest.raises(
        CheckpointError, match=r"model cannot be found: .*name the folder without ~"
    ):
        convert(native_folder, folder=nowhere)
    with pytest.raises(CheckpointError, match="cannot be found"):
        open_converted(nowhere)
    (finding,) = verify_converted(nowhere)
    assert not finding.ok
    assert "cannot be found" in finding.detail


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG_CACHE_HOME is not read here")
@pytest.mark.parametrize("is_home_relative", [False, True])
def test_the_cache_is_found_from_anywhere(
    is_home_relative: bool, native_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG_CACHE_HOME must be absolute, or it does not count; of HOME nobody says so."""
    monkeypatch.delenv("KIKU_CACHE")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "home" if is_home_relative else str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "kiku" / "onnx"
    old = convert(native_folder)
    assert is_in_cache(old.folder)
    monkeypatch.setattr(kiku.graph, "FORMAT", kiku.graph.FORMAT + 1)
    assert convert(native_folder).folder != old.folder
    assert not old.folder.exists(), "an older version made it"


@pytest.fixture
def own_demo(native_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own in a folder that is called as the model inside the package."""
    return Path(shutil.copytree(native_folder, tmp_path / "mine" / "demo"))


def test_a_folder_called_demo_is_not_the_demo(own_demo: Path, tmp_path: Path) -> None:
    own, demo = convert(own_demo), convert("demo")
    assert own.name == demo.name == "demo"
    assert [entry.folder for entry in entries_of("demo")] == [demo.folder]
    assert [entry.folder for entry in entries_of(str(own_demo))] == [own.folder]
    assert [entry.folder for entry in entries_of(own.folder.name)] == [own.folder]


def test_a_folder_called_demo_needs_a_cache(
    own_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKU_CACHE", "~no-such-user-here")
    with pytest.raises(CheckpointError, match="set KIKU_CACHE to a"):
        convert(own_demo)
    with pytest.raises(CheckpointError, match="set KIKU_CACHE to a"):
        convert(find(own_demo))
    assert convert(find("demo")).folder.is_relative_to(tempfile.gettempdir())
    with pytest.raises(CheckpointError, match="set KIKU_CACHE to a"):
        convert("demo", lasting=True)


def test_a_converted_model_called_demo_is_not_the_demo(
    native_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = convert(native_folder, folder=Path("demo"))
    assert not is_converted("demo")
    assert is_converted("./demo")
    assert open_converted("demo").manifest == own.manifest, "a folder, whatever its name"
    assert convert("demo").manifest.identity != own.manifest.identity
