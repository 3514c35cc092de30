"""A repository in the hub's cache as its library lays it out, and a hub that may be dead."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

REPO = "kyutai/stt-1b-en_fr"
COMMIT, NEWER = "a" * 40, "b" * 40


def cache_repo(cache: Path, folder: Path, *, absent: tuple[str, ...] = ()) -> Path:
    """Put the files of a folder into a cache as those of the branch main.

    Args:
        cache: the hub's cache.
        folder: with the files.
        absent: files of which the cache knows that the repository has none.

    Returns:
        The folder of the commit.
    """
    repo = cache / f"models--{REPO.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    (repo / "blobs").mkdir()
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, repo / f"blobs/{i}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    marks = repo / ".no_exist" / COMMIT
    marks.mkdir(parents=True)
    for name in absent:
        (marks / name).touch()
    return snapshot


@dataclass
class FakeHub:
    """Stands for the library's requests; the library's own reading of the cache stays."""

    alive: bool = True
    commit: str = COMMIT
    files: Path | None = None
    """What the hub has; None is nothing more than what is cached."""
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """How it was asked ("head", "get"), and for what."""
    given: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def get_hf_file_metadata(self, url: str, **given: Any) -> Any:
        """As the library's."""
        self._hear("head", url.rpartition("/")[2], given)
        if not self.alive:
            raise OSError("no route")
        return huggingface_hub.HfFileMetadata(self.commit, "etag", url, 1, None)

    def hf_hub_download(
        self, repo_id: str, name: str, *, revision: str | None, **given: Any
    ) -> str:
        """As the library's."""
        self._hear("get", name, given)
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s [Retry 5/5].")
        if not self.alive:
            raise errors.LocalEntryNotFoundError("no entry") from OSError("no route")
        if self.files is None or not (self.files / name).is_file():
            raise errors.EntryNotFoundError("404")
        snapshot = Path(constants.HF_HUB_CACHE) / "models--x/snapshots" / self.commit
        snapshot.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(self.files / name, snapshot / name))

    def _hear(self, how: str, name: str, given: dict[str, Any]) -> None:
        self.asked.append((how, name))
        self.given.append(given)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Answers until `alive` is set to False."""
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fake.get_hf_file_metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.hf_hub_download)
    return fake
