"""`push_to_hub`: upload the files that `save_pretrained` writes to a repository."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kiku.checkpoint.upload import Upload
from kiku.hf.source import refuse_unknown


class PushesToHub:
    """Base of classes with a `save_pretrained`."""

    save_pretrained: Any

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: Any = None,
        **kwargs: Any,
    ) -> str:
        """Write the files into a repository, which is made if needed.

        Args:
            repo_id: "user/name".
            commit_message: None is "Upload" and the name of the class.
            commit_description: the text below the message.
            private: whether a repository that is made is private.
            token: for the hub; None takes that of the user who is logged in.
            revision: a branch; None is the main one.
            create_pr: open a pull request instead.
            max_shard_size: changes nothing; one file of weights is written.
            **kwargs: only None is allowed.

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: the hub refuses it, or cannot be reached.
            InputError: (a ValueError) an unknown argument.
        """
        refuse_unknown(kwargs, "push_to_hub")
        message = commit_message or f"Upload {type(self).__name__}"
        upload = Upload(
            repo_id, message, commit_description, private, token, revision, bool(create_pr)
        )
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload.send(Path(folder))
