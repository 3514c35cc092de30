"""The codec with kiku's operators: the codes of ONNX Runtime's own, whatever the slots."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku.engine.kernels import ONNX_RUNTIME, Kernels
from kiku.engine.networks import OnnxCodec
from tests import tiny
from tests.engine.engines import graphs, sound
from tests.kernels.graphs import library

FRAMES = 12


def _codec(used: Kernels) -> OnnxCodec:
    return OnnxCodec(graphs(), tiny.model_config(), 3, 1, used)


@cache
def _sounds() -> NDArray[np.float32]:
    """[3, T, frame_size]: what each of the slots hears."""
    return np.stack([sound(FRAMES, seed) for seed in range(3)])


@cache
def _expected() -> NDArray[np.int64]:
    """[3, T, K]: one slot and one frame after the other, without kiku's operators."""
    codec = _codec(ONNX_RUNTIME)
    rows = [
        [codec.encode(np.array([slot]), frame[None, None]) for frame in _sounds()[slot]]
        for slot in range(3)
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


@pytest.mark.parametrize("slots", [[0, 1, 2], [1, 2], [2, 0], [2, 1, 0], [1, 0, 2]])
@pytest.mark.parametrize("block", [1, 5])
@pytest.mark.parametrize("own", [True, False])
def test_each_slot_has_its_own_codes(slots: list[int], block: int, *, own: bool) -> None:
    codec = _codec(Kernels(str(library()), "", "") if own else ONNX_RUNTIME)
    chosen = np.array(slots)
    parts = [
        codec.encode(chosen, _sounds()[chosen, at : at + block]) for at in range(0, FRAMES, block)
    ]
    assert np.concatenate(parts, axis=1).tolist() == _expected()[chosen].tolist()
