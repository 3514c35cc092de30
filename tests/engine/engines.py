"""All engines over the same tiny model, and how they are stepped in tests."""

import os
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from kiku.engine import SlotEngine, StepOutput
from kiku.engine.cuda import cuda_engine
from kiku.engine.kernels import ONNX_RUNTIME, Kernels, kernels
from kiku.engine.onnx import onnx_engine
from kiku.engine.torch import torch_engine
from kiku.graph import Weights, write_codec, write_decoder
from tests import tiny

KINDS = ("torch", "onnx", "plain", "cuda")
"""PyTorch, ONNX Runtime with kiku's operators, ONNX Runtime alone, and the engine for GPUs."""

WITH_KV8 = (*KINDS, "kv8")
"""Also ONNX Runtime with int8 weights and keys of 8 bits, which does not say quite the same."""

SIZE = tiny.codec_config().frame_size


def device_of_tests() -> str:
    """Where engines of the kind "cuda" run: what `KIKU_TEST_DEVICE` says, or the processor."""
    return os.environ.get("KIKU_TEST_DEVICE", "cpu")


def weights_of(module: nn.Module) -> Weights:
    """A torch module's tensors, as graphs ask for them."""
    state = module.state_dict()
    return lambda name: state[name].float().numpy().copy()


_codec, _lm = cache(tiny.codec), cache(tiny.lm)
"""Engines only read their weights."""


def graphs(precision: str = "float32", seed: int = 0, codec_seed: int | None = None) -> Path:
    """A folder with the tiny model's graphs, which lasts as long as the tests."""
    return _graphs(precision, seed, seed if codec_seed is None else codec_seed)


@cache
def _graphs(precision: str, seed: int, codec_seed: int) -> Path:
    folder = Path(_folders().name) / f"{precision}-{seed}-{codec_seed}"
    folder.mkdir()
    config = tiny.model_config()
    write_codec(folder, config.codec, weights_of(_codec(codec_seed)), precision)
    write_decoder(folder, config.lm, weights_of(_lm(seed)), precision)
    return folder


@cache
def _folders() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def make_engine(
    kind: str,
    *,
    slots: int = 1,
    keep_logits: bool = False,
    seed: int = 0,
    codec_seed: int | None = None,
) -> SlotEngine:
    """An engine over the tiny model with the weights of `seed`, those of the codec of another one
    where that is given; "cuda" on the device of the tests, which records graphs if it is one."""
    codec, lm = _codec(seed if codec_seed is None else codec_seed), _lm(seed)
    if kind == "cuda":
        device = device_of_tests()
        if device != "cpu":  # where an engine moves its networks
            codec, lm = deepcopy((codec, lm))
        return cuda_engine(codec, lm, slots=slots, device=device, keep_logits=keep_logits)
    if kind == "torch":
        return torch_engine(codec, lm, slots=slots, device="cpu", keep_logits=keep_logits)
    return onnx_engine(
        graphs("int8_kv8" if kind == "kv8" else "float32", seed, codec_seed),
        tiny.model_config(),
        slots=slots,
        threads=1,
        keep_logits=keep_logits,
        used=ONNX_RUNTIME if kind == "plain" else own_kernels(),
    )


def own_kernels() -> Kernels:
    """kiku's operators. A test that needs them is skipped only where the processor is one that they
    are not made for: if they were not built, it fails."""
    if "for this processor" in kernels().reason:
        pytest.skip(kernels().reason)
    assert kernels().library is not None, kernels().reason
    return kernels()


def sound(num_frames: int, seed: int = 0) -> NDArray[np.float32]:
    """[T, frame_size] of noise."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((num_frames, SIZE)) * 0.3).astype(np.float32)


def advance(engine: SlotEngine, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
    """One step of [n, T, frame_size]: what is said, packed."""
    n, T, size = frames.shape
    return engine.step(slots, frames.reshape(n * T, size), [T] * n)


def step(
    engine: SlotEngine, slots: Sequence[int], frames: NDArray[np.float32]
) -> NDArray[np.int64]:
    """One step of [n, T, frame_size]: tokens [n, T]."""
    return advance(engine, slots, frames).tokens.reshape(frames.shape[:2])


def said(engine: SlotEngine, slot: int, frames: NDArray[np.float32], block: int = 8) -> list[int]:
    """The tokens of one slot to [T, frame_size], in blocks."""
    parts = range(0, len(frames), block)
    return [t for at in parts for t in step(engine, [slot], frames[None, at : at + block])[0]]
