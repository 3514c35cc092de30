"""The weights of a checkpoint as numpy arrays under our names, one at a time, without PyTorch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kiku.checkpoint.arrays import as_float32, mapped
from kiku.checkpoint.layout import Files
from kiku.checkpoint.names import Pair
from kiku.checkpoint.reading import Source, open_files
from kiku.config import ModelConfig

Weights = Callable[[str], NDArray[np.float32]]
"""Our name of a tensor -> a float32 copy of it. Nothing is kept: each call reads it again."""


def weights_of(files: Files, config: ModelConfig) -> tuple[Weights, Weights]:
    """The weights of codec and decoder.

    Args:
        files: with the weights.
        config: what `read_config` gave for them.

    Returns:
        For `kiku.codec.MimiEncoder` and for `kiku.lm.LM`: from a name in its `state_dict()`
        (`KeyError` for another) to a new array. The files are mapped only while a tensor is read,
        so memory holds about one tensor.

    Raises:
        CheckpointError: files are damaged, or the tensors are not those of the config (all of them
            are listed). Reading raises it too, for a type of numbers that kiku does not know.
    """
    opened = open_files(files, config)
    opened.refuse_problems()
    return _Reader(opened.codec), _Reader(opened.lm)


class _Reader:
    """The `Weights` of one network: reads a tensor each time it is asked for."""

    def __init__(self, source: Source) -> None:
        self._stored = source.stored
        self._of: dict[str, tuple[Pair, list[str], int]] = {
            name: (pair, names, i)
            for pair, names in source.pairs()
            for i, name in enumerate(pair.ours)
        }

    def __call__(self, name: str) -> NDArray[np.float32]:
        pair, names, i = self._of[name]
        theirs = [self._stored[theirs] for theirs in names]
        if pair.how.copies:
            return pair.how.read([as_float32(mapped(one), one.dtype) for one in theirs])[i]
        # A part of one tensor: only that is turned into float32.
        return as_float32(pair.how.read([mapped(one) for one in theirs])[i], theirs[0].dtype)
