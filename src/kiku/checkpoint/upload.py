"""Uploads a folder to a repository on the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiku.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Upload:
    """Where a folder goes, and how."""

    repo_id: str
    message: str
    description: str | None = None
    private: bool | None = None
    """Whether a repository that has to be made is private; None is the account's default."""
    token: str | bool | None = None
    """The token to send; None is that of the logged-in user."""
    revision: str | None = None
    """A branch, made if needed; None is the main one."""
    create_pr: bool = False

    def send(self, folder: Path) -> str:
        """Upload all files of `folder`; returns the address of the commit.

        Raises:
            CheckpointError: the hub refuses it, or cannot be reached.
        """
        import huggingface_hub
        from huggingface_hub import errors

        hub: Any = huggingface_hub.HfApi(token=self.token)
        try:
            hub.create_repo(self.repo_id, private=self.private, exist_ok=True)
            if self.revision is not None and not self.create_pr:
                hub.create_branch(self.repo_id, branch=self.revision, exist_ok=True)
            done = hub.upload_folder(
                repo_id=self.repo_id,
                folder_path=folder,
                commit_message=self.message,
                commit_description=self.description,
                revision=self.revision,
                create_pr=self.create_pr,
            )
        except errors.HFValidationError as error:
            raise CheckpointError(f"{self.repo_id!r} is not a repository id: {error}") from error
        except errors.OfflineModeIsEnabled as error:
            raise CheckpointError(
                f"{self.repo_id} cannot be written to while HF_HUB_OFFLINE is set; unset it"
            ) from error
        except (OSError, errors.LocalTokenNotFoundError) as error:
            raise CheckpointError(
                f"the hub refused {self.repo_id} ({error}); check the network, and who is logged "
                "in:  hf auth whoami"
            ) from error
        return str(done.commit_url)
