# pyright: basic
# It takes and gives what transformers does, of any type.
"""Convert checkpoints that transformers cannot read into folders that it can."""

import os
import warnings
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any

from kiku.checkpoint import DEMO
from kiku.checkpoint.corrections import CorrectedValue
from kiku.errors import KikuError
from kiku.hf.source import ACCESS, small_files

LOCATING = ACCESS | {"revision"}
"""Names of the arguments that say how a checkpoint is found."""


def layout_of_checkpoint(source: Any, arguments: dict[str, Any]) -> str | None:
    """The layout of a Kyutai Speech-To-Text checkpoint: "transformers" or "native".

    None if it is another checkpoint, or cannot be read: transformers then reports what is wrong.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    access = {key: value for key, value in arguments.items() if key in LOCATING}
    with warnings.catch_warnings():
        # The code that reads the values warns of them.
        warnings.simplefilter("ignore", CorrectedValue)
        try:
            small = small_files(source, access.pop("revision", None), access)
        except (KikuError, OSError):
            if source == DEMO:  # transformers does not know it
                raise
            return None
    return None if small.files is None else small.files.layout


def transformers_folder(
    plain: Any, source: Any, arguments: dict[str, Any], stack: ExitStack
) -> Any:
    """What transformers can load: `source` itself, or a folder that lasts as long as `stack`.

    Args:
        plain: the class of `kiku.hf` that reads any layout and saves transformers'.
        source: the checkpoint that `from_pretrained` was given.
        arguments: the other arguments of `from_pretrained`; if the checkpoint is converted, those
            that say how it is found are removed.
        stack: deletes the folder at its end.
    """
    if layout_of_checkpoint(source, arguments) in (None, "transformers"):
        return source
    access = {key: arguments.pop(key) for key in LOCATING if key in arguments}
    folder = stack.enter_context(TemporaryDirectory())
    plain.from_pretrained(source, **access).save_pretrained(folder)
    return folder
