"""The published models' configs without their weights, and random weights for any config: for
measuring how fast a model would be before it is fetched."""

import math
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from kiku.checkpoint.corrections import PUBLISHED, Published
from kiku.checkpoint.tensor_shapes import Shapes, codec_shapes, lm_shapes
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig

Weights = Callable[[str], NDArray[np.float32]]
"""Gives the tensor with a name, as `kiku.graph.Weights` does."""

_HIDDEN_SCALE, _ROPE_THETA = 2.75, 100_000.0  # a gated width of 5632 at 2048
_NUM_NORMALS = 4_194_301  # prime, so that no two rows of a matrix begin at the same place
_LAYER_SCALE = 0.1


def _of(published: Published) -> ModelConfig:
    backbone = TransformerConfig(
        dim=published.dim,
        num_layers=published.num_layers,
        num_heads=published.num_heads,
        ffn_dim=int(_HIDDEN_SCALE * published.dim),
        window=published.window,
        rope_theta=_ROPE_THETA,
        norm="rms",
        norm_eps=1e-8,
        gated=True,
        layer_scale=False,
    )
    lm = LMConfig(backbone, text_vocab_size=published.text_card)
    return ModelConfig(CodecConfig(), lm, published.delay_s, published.prefix_s)


SHAPES: Mapping[str, ModelConfig] = {
    name: _of(published) for name, published in zip(("1b", "2.6b"), PUBLISHED, strict=True)
}
"""The configs of kyutai/stt-1b-en_fr and kyutai/stt-2.6b-en, by their short names."""


def random_weights(config: ModelConfig, seed: int = 0) -> tuple[Weights, Weights]:
    """Weights of codec and decoder with which codes and tokens vary as they would in a model.

    A tensor depends on its name, `seed` and its shape alone. The numbers are a few million normals,
    used over and over, each time from another place and with another sign. So a model of a billion
    weights is made in seconds, and no two of its matrices are alike.
    """
    normals = np.random.default_rng(seed).standard_normal(_NUM_NORMALS, np.float32)

    def of(shapes: Shapes) -> Weights:
        return lambda name: _fill(name, shapes[name], normals)

    return of(codec_shapes(config.codec)), of(lm_shapes(config.lm))


def _fill(name: str, shape: tuple[int, ...], normals: NDArray[np.float32]) -> NDArray[np.float32]:
    mean, scale = _moments(name, shape)
    tensor = np.empty(math.prod(shape), np.float32)
    key = zlib.crc32(name.encode())
    place, done = key % len(normals), 0
    sign = 1.0 if key & 1 << 31 else -1.0
    while done < len(tensor):
        piece = normals[place : place + len(tensor) - done]
        np.multiply(piece, np.float32(sign * scale), out=tensor[done : done + len(piece)])
        done, place, sign = done + len(piece), 0, -sign
    if mean:
        tensor += np.float32(mean)
    return tensor.reshape(shape)


def _moments(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation with which sound of any loudness neither dies nor explodes."""
    if ".scale" in name:
        return _LAYER_SCALE, _LAYER_SCALE / 10
    if "norm" in name and name.endswith(".weight"):
        return 1.0, 0.05
    if name.endswith(".bias"):
        return 0.0, 0.02
    if name.endswith("codebooks"):
        return 0.0, 0.5
    fan_in = math.prod(shape[1:])
    if name.startswith("seanet."):
        return 0.0, math.sqrt(1.6 / fan_in)  # ELU takes away about that much
    return 0.0, 1 / math.sqrt(fan_in)
