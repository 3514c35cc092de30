"""Both engines over the same tiny model."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import nn

from kiku.engine import Engine
from kiku.engine.onnx import OnnxEngine
from kiku.engine.torch import TorchEngine
from kiku.graph import Weights, write_codec, write_decoder
from tests import tiny

KINDS = ("torch", "onnx")


def weights_of(module: nn.Module) -> Weights:
    """A torch module's tensors, as graphs ask for them."""
    state = module.state_dict()
    return lambda name: state[name].to(torch.float32).numpy().copy()


def graphs(precision: str = "float32", seed: int = 0) -> Path:
    """A folder with the tiny model's graphs, which lasts as long as the tests."""
    return _graphs(precision, seed)


@cache
def _graphs(precision: str, seed: int) -> Path:
    folder = Path(_folders().name) / f"{precision}-{seed}"
    folder.mkdir()
    config = tiny.model_config()
    write_codec(folder, config.codec, weights_of(tiny.codec(seed)), precision)
    write_decoder(folder, config.lm, weights_of(tiny.lm(seed)), precision)
    return folder


@cache
def _folders() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def make_engine(kind: str, *, slots: int = 1, keep_logits: bool = False, seed: int = 0) -> Engine:
    """An engine over the tiny model with the weights of `seed`."""
    if kind == "torch":
        codec, lm = tiny.codec(seed), tiny.lm(seed)
        return TorchEngine(codec, lm, slots=slots, device="cpu", keep_logits=keep_logits)
    return OnnxEngine(
        graphs(seed=seed), tiny.model_config(), slots=slots, threads=1, keep_logits=keep_logits
    )
