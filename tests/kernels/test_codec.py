"""The codec with kiku's operators: the codes of ONNX Runtime's own, whatever the slots."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku.audio import read_chunks
from kiku.converted import convert
from kiku.engine.kernels import ONNX_RUNTIME, Kernels
from kiku.engine.networks import OnnxCodec
from tests import tiny
from tests.engine.engines import graphs, sound
from tests.kernels.graphs import library

FRAMES = 12
SPEECH = ("answers.mp3", "digits.wav", "directions.flac")


def _own() -> Kernels:
    return Kernels(str(library()), "", "")


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
    codec = _codec(_own() if own else ONNX_RUNTIME)
    chosen = np.array(slots)
    parts = [
        codec.encode(chosen, _sounds()[chosen, at : at + block]) for at in range(0, FRAMES, block)
    ]
    assert np.concatenate(parts, axis=1).tolist() == _expected()[chosen].tolist()


def test_codes_of_speech_are_those_of_the_runtime(repo_root: Path, tmp_path: Path) -> None:
    """By the demo's codec in float32, whose codebooks are as large as a real one's: noise comes
    near other codes than speech does."""
    made = convert("demo", precision="float32", folder=tmp_path / "demo")
    size, rate = made.config.frame_size, made.config.sample_rate
    chunks = [part for name in SPEECH for part in read_chunks(repo_root / "examples" / name, rate)]
    frames = np.concatenate(chunks)
    frames = frames[: len(frames) // (16 * size) * 16 * size].reshape(-1, 1, 16, size)
    codecs = (OnnxCodec(made.folder, made.config, 1, 1, used) for used in (_own(), ONNX_RUNTIME))
    own, plain = (
        np.concatenate([codec.encode(np.zeros(1, np.int64), block) for block in frames], axis=1)
        for codec in codecs
    )
    assert own.shape == (1, 16 * len(frames), made.config.codec.num_codebooks)
    assert np.array_equal(own, plain)
