"""The messages for when the hub does not give what was asked for: one sentence each, and no raw
lines of its library.
"""

import errno
import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiku.errors import CheckpointError

_log = logging.getLogger(__name__)

# Parts of the hub's library that log what goes wrong while they try again.
_TALKERS = ("utils._http", "file_download")


@dataclass(frozen=True, slots=True)
class Asked:
    """The file of a repository that was asked for."""

    repo_id: str
    revision: str | None
    name: str
    local_files_only: bool

    @property
    def where(self) -> str:
        """The repository, and its revision if one was given, for messages."""
        return self.repo_id + (f" at {self.revision}" if self.revision else "")


def import_hub() -> Any:
    """The hub's library. It takes long to import, and a folder does not need it."""
    import huggingface_hub
    import huggingface_hub.constants  # pyright: ignore[reportUnusedImport]
    import huggingface_hub.errors  # pyright: ignore[reportUnusedImport]

    return huggingface_hub


def is_http(error: Exception) -> bool:
    """Whether the HTTP library under the hub's raised it."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests")


def why_not(asked: Asked, error: Exception) -> str:
    """Why the hub was not asked, or could not be reached."""
    offline = import_hub().errors.OfflineModeIsEnabled
    if isinstance(error, offline) or isinstance(error.__cause__, offline):
        said = "local_files_only" if asked.local_files_only else "--offline or HF_HUB_OFFLINE"
        return f"{said} forbids the use of the network; leave it out to download"
    cause = error.__cause__ or error
    return f"the hub cannot be reached ({_in_a_line(cause)}); check the network"


@contextmanager
def own_words(repo_id: str, name: str) -> Generator[None]:
    """Hide the raw log lines of the hub's library; log in one sentence that it tries again."""
    reworded = _Reworded(f"{name} of {repo_id}")
    loggers = [logging.getLogger(f"huggingface_hub.{part}") for part in _TALKERS]
    for logger in loggers:
        logger.addFilter(reworded)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(reworded)


class _Reworded(logging.Filter):
    """Drops the library's warnings, and logs once that it tries again."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where, self._told = where, False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING and not self._told:
            self._told = True
            _log.warning("the hub does not answer for %s; trying again", self._where)
        return record.levelno < logging.WARNING


@contextmanager
def explained(asked: Asked, *, cache: str | Path | None, known: str) -> Generator[None]:
    """Turn each exception of the hub's library into a CheckpointError of one sentence.

    Args:
        asked: the file that is asked for.
        cache: the hub's cache; None is the one of the environment.
        known: repositories to name where there is none.
    """
    errors, where, name = import_hub().errors, asked.where, asked.name
    try:
        yield
    except errors.GatedRepoError as e:
        raise CheckpointError(
            f"{where} is gated: accept its terms at https://huggingface.co/{asked.repo_id}, then "
            "run `hf auth login` or set HF_TOKEN"
        ) from e
    except errors.RepositoryNotFoundError as e:
        raise CheckpointError(
            f"there is no repository {where}, or it is private; known: {known}"
        ) from e
    except errors.RevisionNotFoundError as e:
        raise CheckpointError(f"{asked.repo_id} has no revision {asked.revision!r}") from e
    except errors.HFValidationError as e:
        raise CheckpointError(f"{asked.repo_id!r} is not a repository id: {_in_a_line(e)}") from e
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as e:
        raise CheckpointError(
            f"{name} of {where} is not in the cache, and {why_not(asked, e)}, or give a local "
            "folder"
        ) from e
    except errors.HfHubHTTPError as e:
        raise CheckpointError(f"the hub refused {name} of {where}: {_in_a_line(e)}") from e
    except OSError as e:
        raise CheckpointError(_of_the_disk(asked, e, cache)) from e
    except Exception as e:
        if is_http(e):
            raise CheckpointError(
                f"{name} of {where} could not be downloaded: {_in_a_line(e) or type(e).__name__}"
            ) from e
        raise


def _of_the_disk(asked: Asked, error: OSError, cache: str | Path | None) -> str:
    place = cache or import_hub().constants.HF_HUB_CACHE
    what = f"{asked.name} of {asked.where}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left on the disk for {what}; free some, or set HF_HOME (the cache is now "
            f"{place}) to a larger disk"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{what} cannot be stored in the hub's cache {place}, or read from it "
            f"({_in_a_line(error)}); set HF_HOME to a folder that kiku may write to, or give a "
            "local folder"
        )
    return f"{what} could not be downloaded: {_in_a_line(error)}"


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())
