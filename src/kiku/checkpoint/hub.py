"""Where the files of a checkpoint come from: a folder, the Hugging Face hub, or the package."""

import errno
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

from kiku.checkpoint.hub_errors import Asked, explained, import_hub, is_http, own_words, why_not
from kiku.errors import CheckpointError

DEMO = "demo"
"""The name of the small model inside the package."""

_CONFIG = "config.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class KnownRepo:
    """A published checkpoint that kiku reads."""

    repo_id: str
    layout: str
    """The layout of its files: "native" or "transformers"."""
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
    KnownRepo("kyutai/stt-2.6b-en-candle", "native", "en", 2.5, 0, 5.6, "the same model"),
    KnownRepo("kyutai/stt-2.6b-en-trfs", "transformers", "en", 2.5, 0, 5.9, "for transformers"),
)
"""What Kyutai publishes in layouts that kiku reads (the -mlx repositories are another layout)."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the hub and its cache are asked; the fields have transformers' names."""

    cache_dir: str | Path | None = None
    """The folder of the cache; None is the one of the environment."""
    token: str | bool | None = None
    """The token to send; None and True send that of the logged-in user, False sends none."""
    local_files_only: bool = False
    """Whether only cached files are used, and the hub is never asked."""


class Folder:
    """The files of a checkpoint that lies in a folder."""

    def __init__(self, path: Path) -> None:
        """`path` is an existing folder."""
        self.path = path
        self.name = str(path)

    def get(self, name: str) -> Path | None:
        """The file called `name`, or None.

        Raises:
            CheckpointError: the name, or a link of that name, leads out of the folder; or the file
                cannot be accessed.
        """
        _refuse_way_out(self.name, name)
        path = self.path / name
        try:
            if not path.is_file():
                return None
            real = path.resolve()
            if self._holds(real):
                return path
        except OSError as e:
            raise CheckpointError(f"{path} cannot be read: {e.strerror or e}") from e
        raise CheckpointError(
            f"{path} is a link to {real}, outside of the checkpoint's folder; put the file itself "
            "there"
        )

    def _holds(self, real: Path) -> bool:
        """Whether a file (its path without links) belongs to the checkpoint: it is in the folder,
        or where the hub's cache keeps the files to which the folders of its repositories link.
        """
        folder = self.path.resolve()
        if real.is_relative_to(folder):
            return True
        if real.parent.name == "blobs" and real.parent.parent.name.startswith("models--"):
            return True
        cache = _cache_around(folder)
        return cache is not None and real.is_relative_to(cache)

    def listing(self) -> list[str]:
        """The names of the files that are there."""
        return sorted(p.name for p in self.path.iterdir() if p.is_file())


class Repo:
    """The files of a checkpoint on the hub: downloaded when asked for, kept in the hub's cache.

    All of them are of one commit: the one at which the first file was found. So a push in between
    cannot mix two models. For a commit, the cache alone shows which files exist and which do not.
    For a branch that the cache holds, the hub is asked once for the newest commit. Once the hub has
    not answered, it is not asked again.
    """

    def __init__(
        self,
        repo_id: str,
        revision: str | None,
        access: Access = Access(),
        *,
        no_answer: Exception | None = None,
    ) -> None:
        """`revision` is a branch, a tag or a commit; None is the newest."""
        self.repo_id, self.revision, self.access = repo_id, revision, access
        self.name = repo_id
        self.commit: str | None = None
        """The commit of all files; None until one was found."""
        self.no_answer = no_answer
        """Why the hub cannot be asked; None while it can."""
        self._answered = False
        self._known: dict[str, Path | None] = {}

    @property
    def asks_for(self) -> str | None:
        """The revision at which the next file is asked for."""
        return self.commit or self.revision

    def get(self, name: str) -> Path | None:
        """The local path of the file called `name`, or None if the repository has no such file.

        Raises:
            CheckpointError: the repository cannot be reached, found or entered, or the file cannot
                be stored; or the name leads out of the repository.
        """
        _refuse_way_out(self.name, name)
        if name not in self._known:
            with self._explained(name):
                path = self._fetch(name)
            if path is not None and self.commit is None:
                self.commit = commit_of(path)
            self._known[name] = path
        return self._known[name]

    def _fetch(self, name: str) -> Path | None:
        hub = import_hub()
        if self.access.cache_dir is None and str(hub.constants.HF_HUB_CACHE).startswith("~"):
            raise CheckpointError("there is no home folder for the hub's cache; set HF_HOME")
        if self.access.local_files_only:
            self.no_answer = hub.errors.OfflineModeIsEnabled("local_files_only")
        cached = self._cached(name)
        if cached is not None and self.asks_for and _COMMIT.fullmatch(self.asks_for):
            return cached or None
        if self.no_answer is None and not self._answered and (cached or self._is_cached):
            newest = self._newest(name)
            if cached and newest == commit_of(cached):
                return cached
        if self.no_answer is None:
            try:
                return self._download(name)
            except hub.errors.LocalEntryNotFoundError as e:
                self.no_answer = e
        if cached is not None:
            return cached or None
        if name != _CONFIG and self._is_cached:
            return None  # the cache is taken to be complete
        raise self.no_answer

    def _download(self, name: str) -> Path | None:
        hub, access = import_hub(), self.access
        try:
            with own_words(self.repo_id, name):
                path = hub.hf_hub_download(
                    self.repo_id, name, revision=self.asks_for,
                    cache_dir=access.cache_dir, token=access.token,
                )  # fmt: skip
        except hub.errors.LocalEntryNotFoundError:
            raise
        except hub.errors.EntryNotFoundError:
            self._answered = True
            return None
        self._answered = True
        return Path(path)

    def _newest(self, name: str) -> str | None:
        """The commit at which the hub has `name`; None where it does not say. The hub is asked
        once; if it does not answer, that is kept in `no_answer` and not waited for.
        """
        hub = import_hub()
        url = hub.hf_hub_url(self.repo_id, name, revision=self.asks_for)
        try:
            found = hub.get_hf_file_metadata(
                url, token=self.access.token, timeout=hub.constants.HF_HUB_ETAG_TIMEOUT
            )
        except (hub.errors.EntryNotFoundError, hub.errors.RevisionNotFoundError):
            self._answered = True
            return None
        except Exception as e:
            if not isinstance(e, OSError | hub.errors.HfHubHTTPError) and not is_http(e):
                raise
            self.no_answer = e
            return None
        self._answered = True
        return found.commit_hash

    def _cached(self, name: str) -> Path | Literal[False] | None:
        """The file in the cache, False where the cache knows that there is none, else None."""
        found = import_hub().try_to_load_from_cache(
            self.repo_id, name, revision=self.asks_for, cache_dir=self.access.cache_dir
        )
        if found is None:
            return None
        return Path(found) if isinstance(found, str) else False

    @property
    def _is_cached(self) -> bool:
        """Whether the cache holds the config, so that kiku can go on without the hub's answer."""
        return bool(self._cached(_CONFIG))

    def why_not(self) -> str:
        """Why the hub was not asked for the missing files; empty if it was."""
        return "" if self.no_answer is None else why_not(self._asked(""), self.no_answer)

    def _asked(self, name: str) -> Asked:
        local = self.access.local_files_only
        return Asked(self.repo_id, self.revision, name, local_files_only=local)

    def _explained(self, name: str) -> AbstractContextManager[None]:
        known = ", ".join(r.repo_id for r in KNOWN_REPOS)
        return explained(self._asked(name), cache=self.access.cache_dir, known=known)

    def listing(self) -> list[str]:
        """Nothing: asking the hub for a listing would need the network."""
        return []


Place = Folder | Repo


def open_place(
    source: str | Path | Place, *, revision: str | None = None, access: Access = Access()
) -> Place:
    """The place that `source` names; a place that is already open is returned as it is.

    Args:
        source: "demo", a folder, or a repository such as "kyutai/stt-1b-en_fr". A folder that
            exists wins over a repository of that name; write "./demo" for a folder called "demo".
        revision: of a repository: branch, tag or commit.
        access: how the hub and its cache are asked.

    Raises:
        CheckpointError: it is none of these, or may not be accessed.
    """
    if isinstance(source, Folder | Repo):
        return source
    if str(source) == DEMO:
        if revision is not None:
            raise CheckpointError(
                f"the demo ships with kiku: it has no revision {revision!r}; leave `revision` out"
            )
        return _demo()
    path, kind = _kind_of(source)
    if kind == "folder":
        if revision is not None:
            raise CheckpointError(
                f"{source} is a folder: it has no revision {revision!r}; leave `revision` out"
            )
        return Folder(path)
    if kind == "file":
        raise CheckpointError(
            f"{source} is a file; a checkpoint is the folder that holds config.json"
        )
    if isinstance(source, str) and _REPO_ID.fullmatch(source) and not source.startswith("."):
        return Repo(source, revision, access)
    known = ", ".join(r.repo_id for r in KNOWN_REPOS)
    raise CheckpointError(
        f"{str(source)!r} is neither an existing folder nor a repository (owner/name); known: "
        f"{DEMO}, {known}"
    )


def file_elsewhere(name: str, place: Place) -> Path | None:
    """Follow `hf://owner/repo/file`, as Kyutai's configs allow; None for a plain name.

    `place` is the checkpoint whose config has the name: the other repository is asked in the same
    way as this one.

    Raises:
        CheckpointError: the address leads nowhere, or to a file of this machine (`file://`), which
            is not for a checkpoint to choose.
    """
    if name.startswith("file://"):
        raise CheckpointError(
            f"config.json of {place.name} points to {name}, but a checkpoint may only name files "
            "in its own folder; put the file there, and its plain name into config.json"
        )
    if not name.startswith("hf://"):
        return None
    owner, _, rest = name.removeprefix("hf://").partition("/")
    repo, _, file = rest.partition("/")
    access, no_answer = Access(), None
    if isinstance(place, Repo):
        access, no_answer = place.access, place.no_answer
    path = Repo(f"{owner}/{repo}", None, access, no_answer=no_answer).get(file) if file else None
    if path is None:
        raise CheckpointError(f"config.json points to {name}, which does not exist")
    return path


def commit_of(path: Path) -> str | None:
    """The commit of a file in the hub's cache (`.../snapshots/<commit>/...`); None elsewhere."""
    for folder in path.parents:
        if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
            return folder.name
    return None


def is_local(source: str | Path) -> bool:
    """Whether `open_place` finds it on this machine: the demo, or a folder.

    Raises:
        CheckpointError: it may not be accessed.
    """
    return str(source) == DEMO or _kind_of(source)[1] == "folder"


def demo_folder() -> Path:
    """The folder of the model inside the package. (Users may have a folder called "demo", too.)"""
    return Path(__file__).resolve().parent.parent / DEMO


def _demo() -> Folder:
    path = demo_folder()
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"the demo model is not in this installation (looked in {path}); reinstall kiku"
        )
    return Folder(path)


def _kind_of(source: str | Path) -> tuple[Path, Literal["folder", "file", "nothing"]]:
    """What is on this machine under that name.

    Raises:
        CheckpointError: it may not be accessed.
    """
    path = Path(source)
    if source == "":  # as a path, this is the current folder
        return path, "nothing"
    try:
        path = path.expanduser()
        if path.is_dir():
            return path, "folder"
        return path, "file" if path.is_file() else "nothing"
    except RuntimeError:  # ~, where there is no home folder
        return path, "nothing"
    except OSError as e:
        if e.errno == errno.ENAMETOOLONG:
            return path, "nothing"
        raise CheckpointError(f"{source} cannot be read: {e.strerror or e}") from e


def _refuse_way_out(place: str, name: str) -> None:
    """Check that a name leads to a file of the checkpoint: a plain name, at most in a folder of it.

    Raises:
        CheckpointError: the name leads elsewhere, on any system.
    """
    parts = name.replace("\\", "/").split("/")
    if parts[0] in ("", "~") or ".." in parts or PureWindowsPath(name).drive:
        raise CheckpointError(
            f"{place} names a file {name!r}, which is outside the checkpoint; put the file there, "
            "and its plain name into the config"
        )


def _cache_around(folder: Path) -> Path | None:
    """The hub's cache that holds the folder as a repository at some commit; None elsewhere."""
    for parent in folder.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            return parent.parent.parent
    return None
