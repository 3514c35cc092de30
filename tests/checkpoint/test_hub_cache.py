"""A repository in the cache: what the hub is asked then, and what a dead one costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kiku.checkpoint import find, hub
from kiku.errors import CheckpointError
from tests.checkpoint.cached_repo import COMMIT, NEWER, REPO, FakeHub, cache_repo


def test_what_the_hub_has_no_newer_is_taken_from_the_cache(
    native_folder: Path, hub_cache: Path, fake_hub: FakeHub
) -> None:
    snapshot = cache_repo(hub_cache, native_folder)
    assert find(REPO).weights[0].parent == snapshot
    assert fake_hub.asked == [("head", "config.json")]


def test_a_newer_commit_is_fetched(native_folder: Path, hub_cache: Path, fake_hub: FakeHub) -> None:
    cache_repo(hub_cache, native_folder)
    fake_hub.commit, fake_hub.files = NEWER, native_folder
    assert find(REPO).weights[0].parent.name == NEWER


def test_a_commit_that_is_cached_needs_no_hub(
    transformers_folder: Path, hub_cache: Path, fake_hub: FakeHub
) -> None:
    """Nor does a file of which the cache knows that there is none."""
    (transformers_folder / "preprocessor_config.json").rename(
        transformers_folder / "processor_config.json"
    )
    snapshot = cache_repo(hub_cache, transformers_folder, absent=("preprocessor_config.json",))
    files = find(REPO, revision=COMMIT)
    assert files.preprocessor == snapshot / "processor_config.json"
    assert fake_hub.asked == []


def test_a_dead_hub_is_asked_once(
    transformers_folder: Path, hub_cache: Path, fake_hub: FakeHub,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """An optional file that the cache does not hold is taken as one that does not exist."""
    (transformers_folder / "preprocessor_config.json").unlink()
    cache_repo(hub_cache, transformers_folder)
    fake_hub.alive = False
    for revision in (None, COMMIT):
        fake_hub.asked.clear()
        assert find(REPO, revision=revision).preprocessor is None
        assert [how for how, _ in fake_hub.asked] == ["head"]
    assert caplog.text == ""


def test_a_hub_that_dies_on_the_way_is_not_asked_again(
    native_folder: Path, hub_cache: Path, fake_hub: FakeHub
) -> None:
    cache_repo(hub_cache, native_folder)
    place = hub.open_place(REPO)
    assert place.get("config.json")
    fake_hub.alive = False
    assert [place.get(name) for name in ("one", "two", "three")] == [None] * 3
    assert fake_hub.asked == [("head", "config.json"), ("get", "one")]


def test_half_a_cache_is_told_as_such(
    native_folder: Path, hub_cache: Path, fake_hub: FakeHub
) -> None:
    (native_folder / "mimi.safetensors").unlink()
    cache_repo(hub_cache, native_folder)
    fake_hub.alive = False
    with pytest.raises(CheckpointError, match=r"mimi\.safetensors missing in the cache, and the hub"
                       r" cannot be reached \(no route\)"):  # fmt: skip
        find(REPO)


def test_the_library_is_not_heard_while_it_tries_again(
    hub_cache: Path, fake_hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    fake_hub.alive = False
    with pytest.raises(CheckpointError, match="is not in the cache, and the hub cannot be reached"):
        find(REPO)
    assert caplog.messages == [f"the hub does not answer for config.json of {REPO}; trying again"]


def test_another_repository_of_a_config_is_asked_in_the_same_way(
    native_folder: Path, tmp_path: Path, fake_hub: FakeHub
) -> None:
    config = native_folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "mimi_name": "hf://else/where/mimi.safetensors"}))
    cache_repo(tmp_path, native_folder)
    place = hub.open_place(REPO, access=hub.Access(cache_dir=tmp_path, token="mine"))
    with pytest.raises(CheckpointError, match=r"hf://else/where/mimi.*, which does not"):
        find(place)
    assert fake_hub.asked[1] == ("get", "mimi.safetensors")
    assert fake_hub.given[1] == {"cache_dir": tmp_path, "token": "mine"}
    fake_hub.alive = False
    fake_hub.asked.clear()
    with pytest.raises(CheckpointError, match=r"mimi\.safetensors of else/where"):
        find(hub.open_place(REPO, access=hub.Access(cache_dir=tmp_path)))
    assert fake_hub.asked == [("head", "config.json")]


def test_with_the_library_itself_and_nobody_at_the_other_end(
    native_folder: Path, tmp_path: Path
) -> None:
    """Nothing listens there: the library would try again for half a minute, and say so."""
    cache_repo(tmp_path / "hub", native_folder)
    code = f"import kiku.checkpoint as c; print(c.find({REPO!r}).layout)"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (out.stdout, out.stderr) == ("native\n", "")
