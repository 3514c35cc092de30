"""A slot as bytes: what is saved of it, and the checks before anything is restored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from kiku.config import HISTORY_FRAMES, LMConfig
from kiku.engine.slot_decoder import LEFT_OUT
from kiku.errors import StreamError

_KEY = "kiku"
"""Key under which the metadata of a saved slot holds the backend's signature."""

_PREFIX = "backend."
"""What the names of the backend's own arrays begin with."""


@dataclass(frozen=True, slots=True)
class SavedSlot:
    """The whole state of a slot, but for how its tokens are picked."""

    token: int
    """The last token that was picked."""
    history: NDArray[np.int64]
    """[T, 1 + K] the last columns that the decoder read."""
    arrays: Mapping[str, NDArray[Any]]
    """What `Backend.save` gave."""

    def to_bytes(self, signature: str) -> bytes:
        """The state as bytes, marked with the signature of its backend."""
        arrays = {f"{_PREFIX}{name}": array for name, array in self.arrays.items()}
        arrays["token"], arrays["history"] = np.array([self.token]), self.history
        return save_arrays(
            {name: np.asarray(array, order="C") for name, array in arrays.items()},
            metadata={_KEY: signature},
        )

    @classmethod
    def of(cls, saved: bytes, signature: str, lm: LMConfig) -> "SavedSlot":
        """Read what `to_bytes` gave. The bytes come from outside, so they are checked; the
        backend's own arrays are left to the backend.

        Raises:
            StreamError: they come from another model or kind of backend.
            SafetensorError, LookupError, ValueError, TypeError, OverflowError: they are damaged.
        """
        arrays = dict(load_arrays(saved))  # checks the header, too
        _check_signature(saved, signature)
        token, history = arrays.pop("token"), arrays.pop("history")
        _check_columns(token, history, lm)
        if not all(name.startswith(_PREFIX) for name in arrays):
            raise ValueError("it holds parts that are not known")
        own = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
        return cls(int(token[0]), history, own)


def _check_signature(saved: bytes, ours: str) -> None:
    header: Any = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    about: Any = header.get("__metadata__") or {}
    theirs: Any = about.get(_KEY)
    if theirs != ours:
        raise StreamError(
            f"the saved state belongs to another model or engine ({str(theirs)[:80]}, but this is "
            f"{ours}); load the same model with the same dtype"
        )


def _check_columns(token: NDArray[Any], history: NDArray[Any], lm: LMConfig) -> None:
    shapes = token.shape == (1,) and history.ndim == 2
    if not shapes or token.dtype != np.int64 or history.dtype != np.int64:
        raise ValueError("its text and codes are of another shape")
    if history.shape[1] != 1 + lm.num_codebooks or len(history) > HISTORY_FRAMES:
        raise ValueError("its columns are of another shape")
    texts, codes = np.append(history[:, 0], token), history[:, 1:]
    known = (texts >= 0) & ((texts < lm.text_vocab_size) | (texts == lm.initial_text_id))
    if not known.all():
        raise ValueError("it contains text that the model does not have")
    if not ((codes >= LEFT_OUT) & (codes <= lm.initial_code)).all():
        raise ValueError("it contains codes that the model does not have")
