"""Where the files of a checkpoint come from: a folder, the Hugging Face hub, or the package."""

import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiku.errors import CheckpointError

DEMO = "demo"
"""The name of the small model inside the package."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class KnownRepo:
    """A published checkpoint that kiku reads."""

    repo_id: str
    layout: str
    """"native" or "transformers"."""
    languages: str
    text_delay_s: float
    num_pause_heads: int
    download_gb: float
    """Gigabytes (10^9) of the files that are needed."""
    note: str


KNOWN_REPOS: tuple[KnownRepo, ...] = (
    KnownRepo("kyutai/stt-1b-en_fr", "native", "en, fr", 0.5, 0, 2.4, "fast; no pause heads"),
    KnownRepo(
        "kyutai/stt-1b-en_fr-candle", "native", "en, fr", 0.5, 4, 2.4, "the same with pause heads"
    ),
    KnownRepo(
        "kyutai/stt-1b-en_fr-trfs", "transformers", "en, fr", 0.5, 0, 2.7, "for transformers"
    ),
    KnownRepo("kyutai/stt-2.6b-en", "native", "en", 2.5, 0, 5.6, "most accurate"),
    KnownRepo("kyutai/stt-2.6b-en-candle", "native", "en", 2.5, 0, 5.6, "the same"),
    KnownRepo("kyutai/stt-2.6b-en-trfs", "transformers", "en", 2.5, 0, 5.9, "for transformers"),
)
"""What Kyutai publishes in layouts that kiku reads (the -mlx repositories are another layout)."""


class Folder:
    """Files of a checkpoint that lie in a folder."""

    def __init__(self, path: Path) -> None:
        """`path` is an existing folder."""
        self.path = path
        self.name = str(path)

    def get(self, name: str) -> Path | None:
        """The file called `name`, or None."""
        path = self.path / name
        return path if path.is_file() else None

    def listing(self) -> list[str]:
        """Names of the files that are there."""
        return sorted(p.name for p in self.path.iterdir() if p.is_file())


class Repo:
    """Files of a checkpoint on the hub; downloaded when asked for, kept in the hub's cache.

    All of them are of one commit: the one that the first file was found at. A push in between
    cannot mix two models, and for what is cached the hub is asked only once.
    """

    def __init__(self, repo_id: str, revision: str | None) -> None:
        """`revision` is a branch, a tag or a commit; None is the newest."""
        self.repo_id, self.revision = repo_id, revision
        self.name = repo_id
        self.commit: str | None = None
        """Of all files; None until one was found."""
        self._known: dict[str, Path | None] = {}

    @property
    def asks_for(self) -> str | None:
        """The revision of the next file."""
        return self.commit or self.revision

    def get(self, name: str) -> Path | None:
        """The local path of the file called `name`, or None if the repository has no such file.

        Raises:
            CheckpointError: it cannot be reached, found, entered, or stored.
        """
        if name not in self._known:
            path = self._fetch(name)
            if path is not None and self.commit is None:
                self.commit = commit_of(path)
            self._known[name] = path
        return self._known[name]

    def _fetch(self, name: str) -> Path | None:
        hub = _import_hub()
        with _explained(self, name):
            try:
                return Path(hub.hf_hub_download(self.repo_id, name, revision=self.asks_for))
            except hub.errors.LocalEntryNotFoundError:
                # The hub was not asked: where the cache has the repository, it is taken as whole.
                if _in_cache(self, name):
                    return None
                raise
            except hub.errors.EntryNotFoundError:
                return None

    def listing(self) -> list[str]:
        """Nothing: asking the hub for a listing would need the network."""
        return []


Place = Folder | Repo


def open_place(source: str | Path | Place, *, revision: str | None = None) -> Place:
    """What `source` names; a place that is already open is given back.

    Args:
        source: "demo", a folder, or a repository such as "kyutai/stt-1b-en_fr". A folder that
            exists wins over a repository of that name; for a folder called "demo" say "./demo".
        revision: of a repository: branch, tag or commit.

    Raises:
        CheckpointError: it is none of these.
    """
    if isinstance(source, Folder | Repo):
        return source
    if str(source) == DEMO:
        return _demo()
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"{source} is a folder: it has no revision {revision!r}; leave `revision` out"
            )
        return Folder(path)
    if path.is_file():
        raise CheckpointError(
            f"{source} is a file; a checkpoint is the folder that holds config.json"
        )
    if isinstance(source, str) and _REPO_ID.fullmatch(source) and not source.startswith("."):
        return Repo(source, revision)
    known = ", ".join(r.repo_id for r in KNOWN_REPOS)
    raise CheckpointError(
        f"{str(source)!r} is neither an existing folder nor a repository (owner/name); known: "
        f"{DEMO}, {known}"
    )


def file_elsewhere(name: str) -> Path | None:
    """Follow `hf://owner/repo/file` and `file://path`, as Kyutai's configs allow; None for a plain
    name.

    Raises:
        CheckpointError: the address leads nowhere.
    """
    if name.startswith("file://"):
        path = Path(name.removeprefix("file://"))
        if path.is_file():
            return path
        raise CheckpointError(f"config.json points to {name}, which does not exist")
    if not name.startswith("hf://"):
        return None
    owner, _, rest = name.removeprefix("hf://").partition("/")
    repo, _, file = rest.partition("/")
    path = Repo(f"{owner}/{repo}", None).get(file) if file else None
    if path is None:
        raise CheckpointError(f"config.json points to {name}, which does not exist")
    return path


def commit_of(path: Path) -> str | None:
    """The commit of a file in the hub's cache (`.../snapshots/<commit>/...`); None elsewhere."""
    for folder in path.parents:
        if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
            return folder.name
    return None


def _demo() -> Folder:
    path = Path(__file__).resolve().parent.parent / DEMO
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"the demo model is not in this installation (looked in {path}); reinstall kiku"
        )
    return Folder(path)


def _import_hub() -> Any:
    # It takes long to import, and a folder does not need it.
    import huggingface_hub
    import huggingface_hub.errors  # pyright: ignore[reportUnusedImport]

    return huggingface_hub


def _in_cache(repo: Repo, name: str) -> bool:
    """Whether config.json of that revision is cached, so that a missing `name` may not exist."""
    cached = _import_hub().try_to_load_from_cache(
        repo.repo_id, "config.json", revision=repo.asks_for
    )
    return name != "config.json" and isinstance(cached, str)


@contextmanager
def _explained(repo: Repo, name: str) -> Generator[None]:
    """Turn what the hub's library raises into one sentence each."""
    errors = _import_hub().errors
    where = repo.repo_id + (f" at {repo.revision}" if repo.revision else "")
    try:
        yield
    except errors.GatedRepoError as e:
        raise CheckpointError(
            f"{where} is gated: accept its terms at https://huggingface.co/{repo.repo_id}, then "
            "run `hf auth login` or set HF_TOKEN"
        ) from e
    except errors.RepositoryNotFoundError as e:
        known = ", ".join(r.repo_id for r in KNOWN_REPOS)
        raise CheckpointError(
            f"there is no repository {where}, or it is private; known: {known}"
        ) from e
    except errors.RevisionNotFoundError as e:
        raise CheckpointError(f"{repo.repo_id} has no revision {repo.revision!r}") from e
    except errors.HFValidationError as e:
        raise CheckpointError(f"{repo.repo_id!r} is not a repository id: {e}") from e
    except errors.OfflineModeIsEnabled as e:
        raise CheckpointError(_offline(where, name)) from e
    except errors.LocalEntryNotFoundError as e:
        if isinstance(e.__cause__, errors.OfflineModeIsEnabled):
            raise CheckpointError(_offline(where, name)) from e
        raise CheckpointError(
            f"{name} of {where} is not in the cache and the hub cannot be reached "
            f"({e.__cause__ or e}); check the network, or give a local folder"
        ) from e
    except errors.HfHubHTTPError as e:
        raise CheckpointError(f"the hub refused {name} of {where}: {e}") from e
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            cache = os.environ.get("HF_HOME") or "~/.cache/huggingface"
            raise CheckpointError(
                f"no space left on the disk for {name} of {where}; free some, or set HF_HOME "
                f"(now {cache}) to a bigger disk"
            ) from e
        raise CheckpointError(f"{name} of {where} could not be downloaded: {e}") from e
    except Exception as e:
        if type(e).__module__.split(".")[0] in ("httpx", "httpx2", "requests"):
            raise CheckpointError(
                f"{name} of {where} could not be downloaded: {e or type(e).__name__}"
            ) from e
        raise


def _offline(where: str, name: str) -> str:
    return (
        f"{name} of {where} is not in the cache, and --offline or HF_HUB_OFFLINE forbids to ask "
        "the network; leave that out to download, or give a local folder"
    )
