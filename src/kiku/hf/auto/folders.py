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
from kiku.hf.source import small_files

_ACCESS = ("revision", "cache_dir", "token", "local_files_only")


def is_kikus(source: Any, arguments: dict[str, Any]) -> str | None:
    """The layout of a Kyutai Speech-To-Text checkpoint: "transformers" or "native".

    None if it is another checkpoint, or cannot be read: transformers then reports what is wrong.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    access = {key: value for key, value in arguments.items() if key in _ACCESS}
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
    if is_kikus(source, arguments) in (None, "transformers"):
        return source
    access = {key: arguments.pop(key) for key in _ACCESS if key in arguments}
    folder = stack.enter_context(TemporaryDirectory())
    plain.from_pretrained(source, **access).save_pretrained(folder)
    return folder
