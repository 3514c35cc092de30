"""What both graphs are made of: matrix products in a precision, norms, and attention over slots."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kiku.config import TransformerConfig
from kiku.errors import UnsupportedConfig
from kiku.graph.quantise import quantise
from kiku.graph.writer import RUNTIME, GraphWriter, Weights

_HEAD_MULTIPLE = 16  # GroupQueryAttention rotates heads of a multiple of this width only


@dataclass(frozen=True, slots=True)
class QuantScheme:
    """How a matrix is kept: 32 bits as they are, or 8 or 4 bits in blocks of `block_size`."""

    bits: int
    block_size: int = 0

    def of(self, bits: int) -> "QuantScheme":
        """The same blocks with other bits; 32 stays 32."""
        return self if self.bits == 32 else replace(self, bits=bits)


FLOAT32 = QuantScheme(32)


def block_size_for(width: int) -> int:
    """The block for matrices [N, width]: 128 for those of the published models; smaller ones get
    smaller blocks, so that they are not mostly filled up with zeros."""
    return 128 if width % 128 == 0 else 32


def linear(
    writer: GraphWriter, x: str, name: str, matrix: NDArray[np.float32], scheme: QuantScheme
) -> str:
    """x [N, K] times a matrix [N', K], transposed: [N, N']."""
    rows, width = matrix.shape
    if scheme.bits == 32:
        return writer.node("Gemm", [x, writer.tensor(name, matrix)], transB=1)
    block_size = scheme.block_size or block_size_for(width)
    blocks = quantise(matrix, scheme.bits, block_size)
    packed = writer.tensor(f"{name}.packed", blocks.packed)
    scales = writer.tensor(f"{name}.scales", blocks.scales)
    # accuracy_level 4: products in 8 bits, which processors have instructions for.
    return writer.node(
        "MatMulNBits", [x, packed, scales], domain=RUNTIME,
        K=width, N=rows, bits=scheme.bits, block_size=block_size, accuracy_level=4,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayoutInputs:
    """Where the packed tokens of a call belong; the inputs that say so.

    R tokens of B neighbouring slots come packed [R, D]. For attention, which knows slots, they are
    laid out [B, S], S the most that one slot has.
    """

    pad_indices: str  # [B, S] int64: which packed token belongs there (any, where none does)
    unpad_indices: str  # [R] int64: where in [B * S] each packed token belongs
    counts: str  # [B] int32 tokens of each slot; 0 leaves its past as it is
    lengths: str  # [L, B] int32 keys of each layer and slot after this call, less one
    capacity: str  # int32: keys that the buffers hold
    angles: str  # [B, S] int64: rows of cos and sin
    cos: str  # [A, D' / 2] float32
    sin: str

    @classmethod
    def declared(cls, writer: GraphWriter, config: TransformerConfig) -> "LayoutInputs":
        """Declare the inputs."""
        if config.head_dim % _HEAD_MULTIPLE:
            raise UnsupportedConfig(
                f"heads of {config.head_dim} cannot be converted: ONNX Runtime rotates heads of a "
                f"multiple of {_HEAD_MULTIPLE}; run this model with engine='torch'"
            )
        half = config.head_dim // 2
        return cls(
            writer.input("spread", np.int64, ["B", "S"]),
            writer.input("pack", np.int64, ["R"]),
            writer.input("counts", np.int32, ["B"]),
            writer.input("lengths", np.int32, [config.num_layers, "B"]),
            writer.input("capacity", np.int32, []),
            writer.input("angles", np.int64, ["B", "S"]),
            writer.input("cos", np.float32, ["A", half]),
            writer.input("sin", np.float32, ["A", half]),
        )


class Layers:
    """The layers of one transformer, as `nn.transformer` has them."""

    def __init__(
        self, writer: GraphWriter, config: TransformerConfig, weights: Weights, scheme: QuantScheme
    ) -> None:
        """`weights` are asked for `transformer.layers.{i}. ...`."""
        self.writer, self.config, self.weights, self.scheme = writer, config, weights, scheme
        self.layout = LayoutInputs.declared(writer, config)

    def __call__(self, x: str) -> str:
        """[R, D] -> [R, D]"""
        for layer in range(self.config.num_layers):
            x = self._layer(x, layer)
        return x

    def _layer(self, x: str, layer: int) -> str:
        prefix = f"transformer.layers.{layer}."
        update = self._attention(self._norm(x, prefix + "norm1"), layer, prefix)
        x = self.writer.node("Add", [x, update])
        update = self._feed_forward(self._norm(x, prefix + "norm2"), prefix)
        return self.writer.node("Add", [x, update])

    def _norm(self, x: str, name: str) -> str:
        if self.config.norm == "rms":
            return rms_norm(self.writer, x, name, self.weights, self.config.norm_eps)
        writer = self.writer
        scale = writer.tensor(f"{name}.weight", self.weights(f"{name}.weight"))
        shift = writer.tensor(f"{name}.bias", self.weights(f"{name}.bias"))
        return writer.node(
            "LayerNormalization", [x, scale, shift], axis=-1, epsilon=self.config.norm_eps
        )

    def _linear(self, x: str, name: str, scale: str | None = None) -> str:
        matrix = self.weights(f"{name}.weight")
        if scale is not None:  # a layer scale is folded into the matrix before it
            matrix *= self.weights(scale)[:, None]
        return linear(self.writer, x, name, matrix, self.scheme)

    def _scale(self, prefix: str, half: int) -> str | None:
        return f"{prefix}scale{half}" if self.config.layer_scale else None

    def _attention(self, x: str, layer: int, prefix: str) -> str:
        writer, config, layout = self.writer, self.config, self.layout
        fused = self._linear(x, prefix + "attention.in_proj")
        padded = writer.node("Gather", [fused, layout.pad_indices], axis=0)  # [B, S, 3 H D']
        index = writer.tensor(f"layer_{layer}", np.array(layer, np.int64))
        lengths = writer.node("Gather", [layout.lengths, index], axis=0)
        shape = ["B", config.num_heads, "P", config.head_dim]
        past = [writer.input(f"{part}_{layer}", np.float32, shape) for part in ("keys", "values")]
        heard, *present = writer.nodes(
            "GroupQueryAttention",
            [
                padded, "", "", *past, lengths, layout.capacity, layout.cos, layout.sin,
                layout.angles, "", "", "", "", "", "", layout.counts,
            ],
            [f"heard_{layer}", f"new_keys_{layer}", f"new_values_{layer}"],
            domain=RUNTIME,
            num_heads=config.num_heads,
            kv_num_heads=config.num_heads,
            local_window_size=config.window,
            do_rotary=1,
            rotary_interleaved=1,
        )  # fmt: skip
        for name in present:
            writer.output_named(name, np.float32, shape)
        inner = config.num_heads * config.head_dim
        rows = writer.node("Reshape", [heard, writer.constant(-1, inner)])
        packed = writer.node("Gather", [rows, layout.unpad_indices], axis=0)  # [R, H D']
        return self._linear(packed, prefix + "attention.out_proj", self._scale(prefix, 1))

    def _feed_forward(self, x: str, prefix: str) -> str:
        writer = self.writer
        wide = self._linear(x, prefix + "feed_forward.linear_in")
        if self.config.gated:
            gate, value = writer.nodes("Split", [wide], 2, axis=-1, num_outputs=2)
            gate = writer.node("QuickGelu", [gate], domain=RUNTIME, alpha=1.0)  # silu
            wide = writer.node("Mul", [gate, value])
        else:
            wide = writer.node("Gelu", [wide], approximate="none")
        return self._linear(wide, prefix + "feed_forward.linear_out", self._scale(prefix, 2))


def rms_norm(writer: GraphWriter, x: str, name: str, weights: Weights, eps: float) -> str:
    """[R, D] -> [R, D]"""
    weight = writer.tensor(f"{name}.weight", weights(f"{name}.weight"))
    return writer.node("SimplifiedLayerNormalization", [x, weight], axis=-1, epsilon=eps)
