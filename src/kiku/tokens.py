"""`read_tokens`: the raw text token of every frame of a sound, for research and parity."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kiku.audio import as_mono
from kiku.config import ModelConfig
from kiku.decoding import Picker
from kiku.engine import SamplingParams
from kiku.errors import InputError
from kiku.scheduler import Member, Scheduler, SlotOptions
from kiku.serial import shown, whole_number
from kiku.stream import TokenSession


def read_tokens(
    scheduler: Scheduler,
    config: ModelConfig,
    samples: Any,
    max_tokens: int | None,
    picker: Picker | SamplingParams | None,
) -> NDArray[np.int64] | list[NDArray[np.int64]]:
    """See `Recognizer.tokens`."""
    most = whole_number(max_tokens)
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
        raise InputError(
            f"max_tokens must be a whole number of at least 0, not {shown(max_tokens)}: leave "
            "it out to have all"
        )
    several = not _is_one_sound(samples)
    if several and callable(picker):
        raise InputError(
            "a picker may have a memory, so it can only be used for one array: pass the arrays "
            "one by one"
        )
    arrays: Sequence[Any] = cast("Sequence[Any]", samples) if several else [samples]
    frames = [_frames(config, array, most) for array in arrays]
    sessions = [None if one is None else TokenSession(one) for one in frames]
    options = SlotOptions(picker)
    scheduler.run([Member(one, options) for one in sessions if one is not None])
    tokens = [np.array([] if one is None else one.tokens, np.int64) for one in sessions]
    return tokens if several else tokens[0]


def _frames(
    config: ModelConfig, samples: Any, max_tokens: int | None
) -> NDArray[np.float32] | None:
    """The frames [T, frame_size] that the tokens need; None if no token is wanted."""
    if np.ndim(samples) != 1:
        found = f"of shape {list(np.shape(samples))}" if hasattr(samples, "shape") else ""
        raise InputError(
            "samples must be an array [S], mono at the model's rate, or a list of such arrays, "
            f"not {found or shown(samples)}: give np.array(..., np.float32), or for a file the "
            "joined chunks of kiku.audio.read_chunks"
        )
    mono = as_mono(samples)
    size = config.frame_size
    count = len(mono) // size
    count = count if max_tokens is None else min(count, max_tokens)
    # Token 0 needs no frame, so the last one wanted comes with the frame before.
    return mono[: (count - 1) * size].reshape(-1, size) if count else None


def _is_one_sound(samples: Any) -> bool:
    """Whether `samples` are to be read as one array: they are one, or nothing that lists arrays."""
    is_name = isinstance(samples, str | bytes | os.PathLike)
    return is_name or hasattr(samples, "__array__") or not isinstance(samples, Iterable)
