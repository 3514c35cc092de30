"""`kiku models`: what it says about models, whole ones and damaged ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kiku.checkpoint import KNOWN_REPOS
from tests.checkpoint.models import write_native_folder
from tests.cli.conftest import Ran
from tests.tiny import model_config

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    return write_native_folder(tmp_path_factory.mktemp("models") / "tiny")


def test_list_names_the_demo_and_every_repository(run: Run) -> None:
    ran = run("models", "list")
    assert ran.code == 0
    names = [line.split()[0] for line in ran.out.splitlines()[1:]]
    assert names == ["demo", *(repo.repo_id for repo in KNOWN_REPOS)]


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
