"""The least time that the memory allows: a step of the decoder reads every weight once, and cannot
be faster than that."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from kiku.checkpoint.tensor_shapes import lm_shapes
from kiku.config import LMConfig, TransformerConfig

_BITS = {
    "float32": 32, "bfloat16": 16, "float16": 16, "int8": 8, "fp8": 8, "int4": 4,
    "int8_kv8": 8, "int4_kv8": 4,
}  # fmt: skip
_SCALE_BITS, _BLOCK = 32, 128
_GROUP = 64  # rows of a rounded matrix are filled up to a multiple of it (see graph.tiles)
_HEAD_BITS = 8  # of the text head's weights, at least


@dataclass(frozen=True, slots=True)
class Limit:
    """The time of a step of one stream's decoder if nothing but reading took time."""

    precision: str
    weight_bytes: int
    window_bytes: int
    """Bytes of the keys and values of a full window, which a step reads too."""
    ms: float
    """Milliseconds to read the weights; `ms_full_window` is with a full window."""
    ms_full_window: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def weight_bytes(config: LMConfig, precision: str) -> int:
    """Bytes of the decoder's weights that a step reads; of the embeddings it reads next to none."""
    bits = _BITS[precision]
    total = 0.0
    for name, shape in lm_shapes(config).items():
        if len(shape) < 2 or "embedding" in name:
            continue
        own = max(bits, _HEAD_BITS) if name.startswith("text_head") else bits
        if name.startswith("pause_heads"):
            own = 32
        scales = _SCALE_BITS / _BLOCK if own < 16 else 0
        rows = shape[0] if own > 8 else -(-shape[0] // _GROUP) * _GROUP
        total += rows * math.prod(shape[1:]) * (own + scales) / 8
    return round(total)


def keys_bytes(t: TransformerConfig, positions: int, key_bits: int) -> int:
    """Bytes of the keys and values of one stream's `positions`. In 8 bits each key and each value
    of a head has a scale besides, a float32."""
    row = t.head_dim * key_bits + (_SCALE_BITS if key_bits == 8 else 0)
    return 2 * t.num_layers * t.num_heads * positions * row // 8


def window_bytes(config: LMConfig, key_bits: int = 32) -> int:
    """Bytes of keys and values of one stream's full window. kiku-kernels keeps them in 16 bits for
    int8 and int4, in 8 for int8_kv8 and int4_kv8."""
    return keys_bytes(config.transformer, config.transformer.window, key_bits)


def limit(config: LMConfig, precision: str, bandwidth: float, key_bits: int = 32) -> Limit:
    """The limit if memory is read at `bandwidth` bytes a second."""
    weights, window = weight_bytes(config, precision), window_bytes(config, key_bits)
    return Limit(
        precision,
        weights,
        window,
        ms=round(weights / bandwidth * 1000, 2),
        ms_full_window=round((weights + window) / bandwidth * 1000, 2),
    )


def share_of_limit(
    config: LMConfig,
    precision: str,
    bandwidth: float,
    decoder_ms: float,
    *,
    full_window: bool = False,
    key_bits: int = 32,
) -> float:
    """The share of the possible speed that a measured step has reached: 1 is all of it. With a full
    window the step has to read keys and values, too."""
    least = limit(config, precision, bandwidth, key_bits)
    return round((least.ms_full_window if full_window else least.ms) / decoder_ms, 3)
