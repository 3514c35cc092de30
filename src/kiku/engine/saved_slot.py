"""A slot as bytes: what is saved of it, and the checks before anything is restored.

Both take a while for a large model, and neither holds up the slots that are stepped meanwhile.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.arrays import arrays_of, arrays_to_parts
from kiku.config import HISTORY_FRAMES, LMConfig
from kiku.engine.backend import Arrays
from kiku.engine.slot_decoder import LEFT_OUT
from kiku.errors import StreamError

_KEY = "kiku"
"""Key under which the metadata of a saved slot holds the backend's signature."""

_PREFIX = "backend."
"""What the names of the backend's own arrays begin with."""


@dataclass(frozen=True, slots=True)
class SlotCopy:
    """A copy of a slot's whole state, but for how its tokens are picked. The slot goes on."""

    signature: str
    """That of the slot's backend."""
    token: int
    """The last token that was picked."""
    history: NDArray[np.int64]
    """[T, 1 + K] the last columns that the decoder read."""
    arrays: Callable[[], Arrays]
    """What `Backend.copy` returned."""

    def to_bytes(self) -> bytes:
        """The copy as bytes. May be called once, in any thread."""
        arrays = {f"{_PREFIX}{name}": array for name, array in self.arrays().items()}
        arrays["token"], arrays["history"] = np.array([self.token]), self.history
        return b"".join(arrays_to_parts(arrays, {_KEY: self.signature}))


@dataclass(frozen=True, slots=True)
class SavedSlot:
    """A saved state that was checked, and can be put into a slot."""

    token: int
    """The last token that was picked."""
    history: NDArray[np.int64]
    """[T, 1 + K] the last columns that the decoder read."""
    checked: Any
    """What `Backend.check` returned."""


def read_saved_slot(
    saved: bytes | NDArray[np.uint8], signature: str, lm: LMConfig, check: Callable[[Arrays], Any]
) -> SavedSlot:
    """Read what `SlotCopy.to_bytes` returned. The bytes come from outside, so they are checked.

    Args:
        saved: the bytes.
        signature: that of the backend whose slot gets the state.
        lm: the numbers of its model.
        check: `Backend.check`.

    Raises:
        StreamError: they come from another model or kind of backend, or are damaged.
    """
    try:
        arrays, metadata = arrays_of(saved)
        _check_signature(metadata, signature)
        token, history = arrays.pop("token"), arrays.pop("history")
        _check_columns(token, history, lm)
        if not all(name.startswith(_PREFIX) for name in arrays):
            raise ValueError("it holds parts that are not known")
        own = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
        return SavedSlot(int(token[0]), history, check(own))
    except (LookupError, ValueError, TypeError, OverflowError) as error:
        raise StreamError(f"the saved state is damaged ({error}); open a fresh stream") from error


def _check_signature(metadata: Mapping[str, Any], ours: str) -> None:
    theirs = metadata.get(_KEY)
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
