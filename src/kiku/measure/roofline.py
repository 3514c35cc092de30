"""The least time and memory that a step of live streams can take: what has to be read, and what has
to be computed.

A step reads every weight once, however many streams there are, and the keys and values of every
stream; it computes for every stream. The time of a network is the longer of reading and computing.
Results that pass between layers are assumed to stay in caches.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kiku.checkpoint.tensor_shapes import Shape, codec_shapes, lm_shapes
from kiku.config import CodecConfig, LMConfig, TransformerConfig
from kiku.engine.gpu.room import SIZES, ring_capacity
from kiku.graph.codec import LARGE
from kiku.measure import limit
from kiku.measure.hardware import Hardware

KV_BITS = {"float32": 32, "bfloat16": 16, "float16": 16, "fp8": 8, "int8": 8}
"""How many bits a number of keys and values has, by its type."""

_FLOAT32 = 4  # bytes
_CODEC_8_BITS = 1 + 4 / 32  # bytes: a scale for each block of 32
_ALIVE = 3  # results of layers that a step holds at once
CALL_FRAMES = max(SIZES)
"""Frames that one call of the engine for GPUs appends at most."""
_MOST = 1 << 50


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """What one network does in a step, and what it keeps."""

    name: str
    weight_bytes: float
    """Bytes that are read once a step."""
    stream_bytes: float
    """Bytes that are read for each stream of a step."""
    ops: tuple[tuple[str, float], ...]
    """Types of numbers, and the operations in each of them for each stream of a step."""
    kept_bytes: float
    """Bytes that are kept in memory however many streams there are."""
    kept_stream_bytes: float
    """Bytes that are kept in memory for each stream."""

    def ms(self, hardware: Hardware, streams: int) -> float:
        """Milliseconds of a step of `streams` streams, at best."""
        read = (self.weight_bytes + streams * self.stream_bytes) / hardware.bandwidth
        computed = sum(streams * count / hardware.rate(dtype) for dtype, count in self.ops)
        return 1000 * max(read, computed)


def step_ms(parts: Sequence[NetworkCost], hardware: Hardware, streams: int) -> float:
    """Milliseconds of a step of `streams` streams, one frame each, at best: one network after the
    other."""
    return sum(part.ms(hardware, streams) for part in parts)


def most_streams(parts: Sequence[NetworkCost], hardware: Hardware, ms: float) -> int:
    """How many streams a step of `ms` milliseconds can serve, at best; 0 if not even one."""
    low, high = 0, 1
    while high < _MOST and step_ms(parts, hardware, high) <= ms:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if step_ms(parts, hardware, middle) <= ms:
            low = middle
        else:
            high = middle
    return low


def decoder(config: LMConfig, dtype: str, kv_dtype: str, *, on_gpu: bool = False) -> NetworkCost:
    """The decoder with weights of one type, and keys and values of another."""
    t = config.transformer
    read = limit.weight_bytes(config, dtype)
    matrices = sum(math.prod(shape) for shape in _matrices(config))
    attention = 4.0 * t.num_layers * t.num_heads * t.head_dim * t.window
    in_16_bits = "float32" if kv_dtype == "float32" else "bfloat16"
    return NetworkCost(
        "decoder",
        weight_bytes=read,
        stream_bytes=keys_bytes(t, t.window, kv_dtype),
        ops=((dtype, 2.0 * matrices), (in_16_bits, attention)),
        kept_bytes=read + _looked_up_bytes(config, dtype),
        kept_stream_bytes=keys_bytes(t, places(t, on_gpu=on_gpu), kv_dtype),
    )


def codec_dtype(dtype: str) -> str:
    """The type of the codec's large matrices next to a decoder of `dtype`. On processors they have
    8 bits if the decoder has no more; else float32, in which the decoder was trained on the codec's
    codes."""
    return "int8" if dtype in ("int8", "int4") else "float32"


def codec(config: CodecConfig, dtype: str = "float32", *, on_gpu: bool = False) -> NetworkCost:
    """The codec next to a decoder of `dtype`; see `codec_dtype`."""
    t = config.transformer
    eight_bits = codec_dtype(dtype) == "int8"
    products: dict[str, float] = {}
    weights = past = largest = 0.0
    for name, shape in codec_shapes(config).items():
        small = eight_bits and _is_in_8_bits(name, shape)
        weights += math.prod(shape) * (_CODEC_8_BITS if small else _FLOAT32)
        if len(shape) > 1:
            own, uses = "int8" if small else "float32", _uses(config, name)
            products[own] = products.get(own, 0.0) + 2.0 * math.prod(shape) * uses
        # A convolution remembers what its kernel reaches back to; codebooks are no convolutions.
        if len(shape) == 3 and not name.startswith("quantizer"):
            past += shape[1] * (shape[2] - 1) * _FLOAT32
            largest = max(largest, shape[0] * _uses(config, name) * _FLOAT32)
    positions = t.positions_per_frame
    attention = 4.0 * t.num_layers * t.num_heads * t.head_dim * t.window * positions
    products["float32"] = products.get("float32", 0.0) + attention
    keys = "float16" if eight_bits else "float32"  # as kiku-kernels keep them
    # On a GPU calls are split, so the results between layers do not grow with the streams.
    alive = 0.0 if on_gpu else _ALIVE * largest
    return NetworkCost(
        "codec",
        weight_bytes=weights,
        stream_bytes=keys_bytes(t, t.window, keys),
        ops=tuple(sorted(products.items())),
        kept_bytes=weights,
        kept_stream_bytes=keys_bytes(t, places(t, on_gpu=on_gpu), keys) + past + alive,
    )


def _is_in_8_bits(name: str, shape: Shape) -> bool:
    """Whether a matrix of the codec has 8 bits if the decoder's have no more. Those of the
    transformer and of large convolutions have; those by which codes are found have not."""
    if name.startswith("transformer"):
        return len(shape) == 2
    return not name.startswith("quantizer") and len(shape) == 3 and math.prod(shape) >= LARGE


def places(t: TransformerConfig, *, on_gpu: bool) -> int:
    """Places for keys of a stream: the window, what a call appends, and room to go back."""
    if not on_gpu:
        return t.capacity
    return ring_capacity(t, CALL_FRAMES * t.positions_per_frame)


def keys_bytes(t: TransformerConfig, positions: int, dtype: str) -> int:
    """Bytes of the keys and values of one stream's `positions`, with the scales of those in 8
    bits."""
    return limit.keys_bytes(t, positions, KV_BITS[dtype])


def _matrices(config: LMConfig) -> Iterator[Shape]:
    for name, shape in lm_shapes(config).items():
        if len(shape) > 1 and "embedding" not in name:
            yield shape


def _looked_up_bytes(config: LMConfig, dtype: str) -> float:
    """Bytes of norms, and of embeddings, of which a step reads only a few rows. Embeddings have 8
    bits and a scale for each row, if the weights have no more than 8 bits."""
    number = {"float32": 4, "bfloat16": 2}.get(dtype, 1)
    total = 0.0
    for name, shape in lm_shapes(config).items():
        if len(shape) == 1:
            total += shape[0] * _FLOAT32
        elif "embedding" in name:
            total += math.prod(shape) * number + (shape[0] * _FLOAT32 if number == 1 else 0)
    return total


def _uses(config: CodecConfig, name: str) -> float:
    """How often a tensor of the codec is used for one frame."""
    first, _, rest = name.partition(".")
    if first == "transformer":
        return config.transformer.positions_per_frame
    if first != "seanet":
        return 1  # the downsampling convolution and the quantisers
    part, _, inner = rest.partition(".")
    if part == "last":
        return config.downsample
    stage = int(inner.split(".")[0]) if part == "stages" else 0
    strides = config.strides[: stage + 1 if ".down." in name else stage]
    return config.frame_size / math.prod(strides)
