"""What both graphs are made of: matrix products in a precision, norms, and attention over slots."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kiku.config import TransformerConfig
from kiku.errors import UnsupportedConfig
from kiku.graph import messages
from kiku.graph.quantise import quantise
from kiku.graph.tiles import GROUP, Tiles, tiles_of
from kiku.graph.writer import (
    IR_VERSION,
    KERNELS,
    OPSET,
    RUNTIME,
    GraphWriter,
    Variant,
    Weights,
)

_HEAD_MULTIPLE = 16  # GroupQueryAttention rotates heads of a multiple of this width only
_WIDEST_HEAD = 256  # that the operators of `kiku-kernels` take

ATTENTIONS: dict[type[np.generic], str] = {
    np.float32: "Attention", np.float16: "AttentionHalf", np.int8: "AttentionBytes",
}  # fmt: skip
"""In what keys and values are kept -> the operator of `kiku-kernels`."""

SCALE_BYTES = 4
"""Behind the int8 numbers of a key or value lies their scale, a float32."""


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
    laid_out = tiles_of(blocks)
    tiles = writer.tensor(f"{name}.tiles", laid_out.numbers)
    scales = writer.tensor(f"{name}.scales", laid_out.scales)
    out = writer.value("product")
    with writer.only(Variant.OWN):
        writer.nodes(
            "Product", [x, tiles, scales], [out], domain=KERNELS,
            N=rows, bits=scheme.bits, block_size=block_size,
        )  # fmt: skip
    with writer.only(Variant.PLAIN):
        packed, plain_scales = _untiled(writer, tiles, scales, laid_out)
        # accuracy_level 4: products in 8 bits, which processors have instructions for.
        writer.nodes(
            "MatMulNBits", [x, packed, plain_scales], [out], domain=RUNTIME,
            K=width, N=rows, bits=scheme.bits, block_size=block_size, accuracy_level=4,
        )  # fmt: skip
    return out


def _untiled(writer: GraphWriter, tiles: str, scales: str, laid_out: Tiles) -> tuple[str, str]:
    """The same matrix as ONNX Runtime's operator wants it: computed when a session is made."""
    num_blocks = laid_out.numbers.shape[1]
    numbers = writer.node("Transpose", [tiles], perm=[0, 3, 1, 2, 4])
    shape = writer.constant(-1, num_blocks, laid_out.block_bytes)
    numbers = writer.node("Reshape", [numbers, shape])
    steps = writer.node("Transpose", [scales], perm=[0, 2, 1])
    steps = writer.node("Reshape", [steps, writer.constant(-1, num_blocks)])
    if laid_out.rows % GROUP == 0:
        return numbers, steps
    first, last = writer.constant(0), writer.constant(laid_out.rows)
    return (
        writer.node("Slice", [numbers, first, last, first]),
        writer.node("Slice", [steps, first, last, first]),
    )


class Attention:
    """Attention of packed rows over what their slots remember, in both variants.

    R tokens of several slots come packed [R, D], one slot's after the other's. What their B
    neighbouring slots remember comes in and goes out as `keys_{layer}` and `values_{layer}`, which
    are advanced in place.
    """

    def __init__(
        self, writer: GraphWriter, config: TransformerConfig, kept_in: type[np.generic]
    ) -> None:
        """Declare the inputs.

        Args:
            writer: of both graphs.
            config: of the transformer.
            kept_in: dtype in which kiku's own operator keeps keys and values.

        Raises:
            UnsupportedConfig: heads that ONNX Runtime's operator does not rotate, or too wide for
                kiku's.
        """
        if config.head_dim % _HEAD_MULTIPLE:
            raise UnsupportedConfig(
                f"heads of {config.head_dim} cannot be converted: ONNX Runtime rotates heads of a "
                f"multiple of {_HEAD_MULTIPLE}; run this model with engine='torch'"
            )
        if config.head_dim > _WIDEST_HEAD:
            raise UnsupportedConfig(
                f"heads of {config.head_dim} cannot be converted: kiku-kernels takes at most "
                f"{_WIDEST_HEAD}; run this model with engine='torch'"
            )
        self.writer, self.config, self.kept_in = writer, config, kept_in
        with writer.only(Variant.OWN):
            self._own = RingInputs.declared(writer, config)
        with writer.only(Variant.PLAIN):
            self._plain = LayoutInputs.declared(writer, config)

    def __call__(self, fused: str, layer: int) -> str:
        """[R, 3 H D'], queries, keys, values -> [R, H D']"""
        out = self.writer.value("heard")
        with self.writer.only(Variant.OWN):
            self._in_rings(fused, layer, out)
        with self.writer.only(Variant.PLAIN):
            self._in_order(fused, layer, out)
        return out

    def _memory(self, layer: int, dtype: type[np.generic]) -> tuple[list[str], list[str]]:
        """Names of keys and values before and after."""
        config = self.config
        behind = SCALE_BYTES if dtype is np.int8 else 0
        shape = ["B", config.num_heads, "P", config.head_dim + behind]
        parts = ("keys", "values")
        past = [self.writer.input(f"{part}_{layer}", dtype, shape) for part in parts]
        present = [f"new_{name}" for name in past]
        for name in present:
            self.writer.output_named(name, dtype, shape)
        return past, present

    def _in_rings(self, fused: str, layer: int, out: str) -> None:
        past, present = self._memory(layer, self.kept_in)
        rows = self._own
        self.writer.nodes(
            ATTENTIONS[self.kept_in],
            [fused, *past, rows.counts, rows.firsts, rows.positions, rows.cos, rows.sin],
            [out, *present],
            domain=KERNELS,
            num_heads=self.config.num_heads,
            window=self.config.window,
        )

    def _in_order(self, fused: str, layer: int, out: str) -> None:
        writer, config, layout = self.writer, self.config, self._plain
        past, present = self._memory(layer, np.float32)
        padded = writer.node("Gather", [fused, layout.pad_indices], axis=0)  # [B, S, 3 H D']
        index = writer.tensor(f"layer_{layer}", np.array(layer, np.int64))
        lengths = writer.node("Gather", [layout.lengths, index], axis=0)
        heard, *_ = writer.nodes(
            "GroupQueryAttention",
            [
                padded, "", "", *past, lengths, layout.capacity, layout.cos, layout.sin,
                layout.angles, "", "", "", "", "", "", layout.counts,
            ],
            [f"heard_{layer}", *present],
            domain=RUNTIME,
            num_heads=config.num_heads,
            kv_num_heads=config.num_heads,
            local_window_size=config.window,
            do_rotary=1,
            rotary_interleaved=1,
        )  # fmt: skip
        inner = config.num_heads * config.head_dim
        rows = writer.node("Reshape", [heard, writer.constant(-1, inner)])
        writer.nodes("Gather", [rows, layout.unpad_indices], [out], axis=0)


@dataclass(frozen=True, slots=True)
class RingInputs:
    """Inputs of the graph with kiku's own operator: where the packed rows of each slot are, and
    where in time. The key of position p lies at p mod P of its ring."""

    counts: str  # [B] int32 rows of each slot; 0 leaves its ring as it is
    firsts: str  # [B] int32: its first among the R packed
    positions: str  # [B] int64: of that one
    cos: str  # [R, D' / 2] float32
    sin: str

    @classmethod
    def declared(cls, writer: GraphWriter, config: TransformerConfig) -> "RingInputs":
        """Declare the inputs."""
        half = config.head_dim // 2
        return cls(
            writer.input("counts", np.int32, ["B"]),
            writer.input("firsts", np.int32, ["B"]),
            writer.input("positions", np.int64, ["B"]),
            writer.input("cos", np.float32, ["R", half]),
            writer.input("sin", np.float32, ["R", half]),
        )


@dataclass(frozen=True, slots=True)
class LayoutInputs:
    """Inputs of the graph with ONNX Runtime's operator, which wants rows laid out by slot.

    The packed rows are laid out [B, S], S the most that one slot has. A layer's keys lie in order
    from place 0 of its buffer.
    """

    pad_indices: str  # [B, S] int64: which packed row belongs there (any, where none does)
    unpad_indices: str  # [R] int64: where in [B * S] each packed row belongs
    counts: str  # [B] int32 rows of each slot; 0 leaves its past as it is
    lengths: str  # [L, B] int32 keys of each layer and slot after this call, less one
    capacity: str  # int32: keys that the buffers hold
    angles: str  # [B, S] int64: rows of cos and sin
    cos: str  # [A, D' / 2] float32
    sin: str

    @classmethod
    def declared(cls, writer: GraphWriter, config: TransformerConfig) -> "LayoutInputs":
        """Declare the inputs."""
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
        self,
        writer: GraphWriter,
        config: TransformerConfig,
        weights: Weights,
        scheme: QuantScheme,
        kept_in: type[np.generic],
    ) -> None:
        """`weights` are asked for `transformer.layers.{i}. ...`; `kept_in` is as for
        `Attention`."""
        self.writer, self.config, self.weights, self.scheme = writer, config, weights, scheme
        self._attend = Attention(writer, config, kept_in)

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
        heard = self._attend(self._linear(x, prefix + "attention.in_proj"), layer)
        return self._linear(heard, prefix + "attention.out_proj", self._scale(prefix, 1))

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


def product_model(matrix: NDArray[np.float32]) -> bytes:
    """A model of one product, x [M, K] times a matrix [N, K] in 8 bits, with kiku's own operator:
    to try it. The weights stand in the model itself."""
    laid_out = tiles_of(quantise(matrix, 8, 128))
    rows, width = matrix.shape
    names = ("x", "tiles", "scales")
    return messages.model(
        "product",
        nodes=[
            messages.node(
                "Product", names, ["y"], domain=KERNELS,
                attributes={"N": rows, "bits": 8, "block_size": 128},
            )
        ],
        tensors=[
            messages.tensor("tiles", laid_out.numbers),
            messages.tensor("scales", laid_out.scales),
        ],
        inputs=[messages.value_info("x", np.float32, ["M", width])],
        outputs=[messages.value_info("y", np.float32, ["M", rows])],
        operator_sets={"": OPSET, KERNELS: 1},
        ir_version=IR_VERSION,
    )  # fmt: skip
