"""`kiku models`: what it says about models, whole ones and damaged ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kiku.checkpoint import KNOWN_REPOS
from kiku.converted.cache import lock_of
from kiku.converted.lock import locked
from kiku.converted.manifest import MANIFEST
from tests.checkpoint.models import write_native_folder
from tests.cli.conftest import Ran
from tests.tiny import model_config

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    return write_native_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.usefixtures("own_cache")
def test_list_names_the_demo_and_every_repository(run: Run) -> None:
    ran = run("models", "list")
    assert ran.code == 0
    names = [line.split()[0] for line in ran.out.splitlines()[1:]]
    assert names == ["demo", *(repo.repo_id for repo in KNOWN_REPOS)]
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for converted models."""
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnx"


def test_a_converted_model_outside_the_cache_is_not_removed(
    run: Run, folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    made = tmp_path / "own"
    assert run("models", "convert", folder, "--to", made).code == 0
    ran = run("models", "rm", made)
    told = f"kiku: {made} is a folder outside the cache; remove it as any other folder\n"
    assert (ran.code, ran.out, ran.err) == (1, "", told)
    assert made.exists()


def test_where_nothing_can_be_made_another_folder_is_advised(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ran = run("models", "convert", folder, "--to", tmp_path / "file" / "in")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("; choose another folder that kiku may write to\n")


def test_a_model_is_converted_listed_and_removed(run: Run, folder: Path, own_cache: Path) -> None:
    ran = run("models", "convert", folder, "--precision", "int8")
    (made,) = own_cache.iterdir()
    assert (ran.code, ran.out, ran.err) == (0, f"{made}\n", "")
    assert run("models", "convert", folder).code == 0
    listed = run("models", "list").out.partition("CONVERTED")[2].splitlines()[1:]
    assert [line.split()[:2] for line in listed[:2]] == [["tiny", "float32"], ["tiny", "int8"]]
    assert listed[2:] == ["", f"in {own_cache}"]
    ran = run("models", "rm", folder, "--precision", "int8")
    assert ran.code == 0
    assert ran.out.startswith(f"removed {made}, 0.")
    assert len(list(own_cache.iterdir())) == 1
    assert run("models", "rm", folder).code == 0
    assert list(own_cache.iterdir()) == []
    assert folder.exists()
    ran = run("models", "rm", folder)
    assert (ran.code, ran.err) == (
        1,
        f"kiku: {folder} is not converted; run kiku models list to see which models are\n",
    )


def test_the_demo_is_not_converted_to_what_is_gone_at_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKU_CACHE", "~no-such-user-here/cache")
    ran = run("models", "convert", "demo")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("; set KIKU_CACHE to another folder\n")


def test_what_was_not_finished_is_listed_and_removed(
    run: Run, folder: Path, own_cache: Path
) -> None:
    run("models", "convert", folder)
    (made,) = own_cache.iterdir()
    made.rename(made.with_name(made.name + ".part"))
    assert "MB  not finished\n" in run("models", "list").out
    assert run("models", "rm", "tiny").code == 0
    assert list(own_cache.iterdir()) == []


def test_of_a_link_the_link_is_removed(
    run: Run, folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    """As of who moved a model to another disk."""
    run("models", "convert", folder)
    (made,) = own_cache.iterdir()
    elsewhere = Path(shutil.move(made, tmp_path / "elsewhere"))
    before = sorted(elsewhere.iterdir())
    made.symlink_to(elsewhere)
    ran = run("models", "rm", folder)
    assert (ran.code, ran.out) == (
        0,
        f"removed {made}, a link; the files stay in {elsewhere.resolve()}\n",
    )
    assert list(own_cache.iterdir()) == []
    assert sorted(elsewhere.iterdir()) == before


def test_two_of_one_name_are_told_apart_by_their_folders(
    run: Run, folder: Path, own_cache: Path
) -> None:
    run("models", "convert", folder)
    (made,) = own_cache.iterdir()
    other = made.with_name(f"{made.name[:-12]}0123456789ab")
    shutil.copytree(made, other)
    listed = run("models", "list").out
    assert f"  {made.name}\n" in listed
    assert f"  {other.name}\n" in listed


def test_names_that_look_alike_in_the_cache_are_two(
    run: Run, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a b", "a-b"):
        write_native_folder(tmp_path / name)
        assert run("models", "convert", tmp_path / name).code == 0
    monkeypatch.chdir(own_cache)  # where the name is no folder's
    (one,) = own_cache.iterdir()  # of the same files: one conversion, called as the first
    other = own_cache / "a-b-int8-0123456789ab"
    shutil.copytree(one, other)
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["source"]["name"], manifest["precision"] = "a-b", "int8"
    (other / MANIFEST).write_text(json.dumps(manifest))
    assert run("models", "rm", "a/b").code == 1
    assert run("models", "rm", "a-b").code == 0
    assert list(own_cache.iterdir()) == [one]
    assert run("models", "rm", "a b").code == 0
    assert list(own_cache.iterdir()) == []


def test_folders_of_one_name_are_two(run: Run, tmp_path: Path, own_cache: Path) -> None:
    here, there = (write_native_folder(tmp_path / at / "tiny") for at in ("here", "there"))
    words = there / "tokenizer.json"
    words.write_text(words.read_text().replace("three", "drei"))
    run("models", "convert", here)
    (first,) = own_cache.iterdir()
    ran = run("models", "rm", there)
    assert ran.code == 1
    assert ran.err.endswith(
        f"which models are; there is one made from other files of the same name: {first.name}\n"
    )
    run("models", "convert", there)
    assert len(list(own_cache.iterdir())) == 2
    assert run("models", "rm", there).code == 0
    assert list(own_cache.iterdir()) == [first]
    run("models", "convert", there)
    assert run("models", "rm", first.name).code == 0, "by the name of its folder"
    assert len(list(own_cache.iterdir())) == 1
    assert run("models", "rm", "tiny").code == 0, "all that are called so"
    assert list(own_cache.iterdir()) == []


def test_what_is_in_the_making_is_not_removed(run: Run, folder: Path, own_cache: Path) -> None:
    run("models", "convert", folder)
    (made,) = own_cache.iterdir()
    with locked(lock_of(made), lambda: None):
        ran = run("models", "rm", folder)
    assert ran.code == 1
    assert "is being made by another process; try later" in ran.err
    assert made.exists()


@pytest.mark.usefixtures("own_cache")
def test_a_converted_folder_is_a_model(run: Run, folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert run("models", "convert", folder, "--precision", "int4", "--to", there).code == 0
    ran = run("models", "info", there)
    facts = {line[:16].strip(): line[16:] for line in ran.out.splitlines()}
    assert facts["name"] == "tiny"
    assert facts["layout"].startswith("converted to int4 by kiku ")
    assert facts["delay"] == "0.5 s"
    ran = run("models", "verify", there)
    assert ran.code == 0
    assert all(line.startswith("ok ") for line in ran.out.splitlines())
    (there / "codec.data").write_bytes(b"")
    ran = run("models", "verify", there)
    assert ran.code == 1
    assert "BAD  codec.data: 0 bytes, not " in ran.out


def test_verify_looks_at_what_was_converted_and_convert_mends_it(
    run: Run, folder: Path, own_cache: Path
) -> None:
    run("models", "convert", folder, "--precision", "int8")
    (made,) = own_cache.iterdir()
    assert f"ok   converted to int8: {made}\n" in run("models", "verify", folder).out
    content = bytearray((made / "decoder.data").read_bytes())
    content[100] ^= 1
    (made / "decoder.data").write_bytes(content)
    ran = run("models", "verify", folder)
    assert ran.code == 1
    assert f"BAD  {made / 'decoder.data'}: its sha256 is" in ran.out
    assert f"kiku models convert {folder} --precision int8  makes a new one" in ran.err
    ran = run("models", "convert", folder, "--precision", "int8")
    assert "converting it again" in ran.err
    assert run("models", "verify", folder).code == 0


def test_a_precision_that_there_is_not(run: Run, folder: Path) -> None:
    ran = run("models", "convert", folder, "--precision", "int7")
    assert ran.code == 2
    assert (
        "--precision: precision must be one of float32, int8, int4, int8_kv8, int4_kv8, not 'int7';"
        in ran.err
    )


def test_info_tells_the_numbers_of_a_folder(run: Run, folder: Path) -> None:
    ran = run("models", "info", folder)
    facts = {line[:16].strip(): line[16:] for line in ran.out.splitlines()}
    assert ran.code == 0
    assert facts["layout"] == "native"
    assert facts["sound"] == f"{model_config().sample_rate:,} Hz, 12.5 frames a second"
    assert facts["delay"] == "0.5 s"
    assert facts["pause heads"] == "4"
    assert facts["folder"] == str(folder)


def test_verify_says_what_is_well(run: Run, folder: Path) -> None:
    ran = run("models", "verify", folder)
    assert ran.code == 0
    assert all(line.startswith("ok ") for line in ran.out.splitlines())


def test_verify_finds_a_damaged_file(run: Run, tmp_path: Path) -> None:
    folder = write_native_folder(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    ran = run("models", "verify", folder)
    assert ran.code == 1
    assert any(line.startswith("BAD  model.safetensors") for line in ran.out.splitlines())


def test_pull_says_where_the_files_are(run: Run, folder: Path) -> None:
    assert run("models", "pull", folder).out == f"{folder}\n"


@pytest.mark.parametrize("command", ["info", "verify", "pull"])
def test_what_is_no_model(run: Run, tmp_path: Path, command: str) -> None:
    ran = run("models", command, tmp_path)
    assert ran.code == 1
    said = ran.out + ran.err
    assert "config.json is missing" in said
    assert said.count("\n") == 1
