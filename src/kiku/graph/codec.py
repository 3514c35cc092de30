"""The codec's graph: frames of samples to codes.

Sequences lie [B, L, C], channels last, so that every convolution is a plain matrix product whose
weights are read once for all slots and frames. A kernel of k taps becomes k products with the same
input, added one position apart; what a slot remembers of a convolution is not its last inputs but
what these add to the outputs to come. Adding them up, with the bias, what comes beside and the
activation, is one operator of `kiku-kernels`: one walk through memory in place of up to seven.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kiku.config import CodecConfig
from kiku.errors import UnsupportedConfig
from kiku.graph.layers import FLOAT32, Layers, QuantScheme, linear
from kiku.graph.quantise import check_precision, precision_of_weights
from kiku.graph.search import coarse_books, half_squares
from kiku.graph.writer import KERNELS, GraphWriter, Variant, Weights

CODEC_GRAPH = "codec"
"""Name of the two files: `.onnx` and `.data`."""

_END = 1 << 40

_SCHEMES = {"float32": FLOAT32, "int8": QuantScheme(8, 32), "int4": QuantScheme(8, 32)}
"""Of the codec's large matrices. Its codes are what the decoder was trained on, so it keeps 8 bits,
in small blocks, where the decoder has 4."""

_MOST_TAPS = 32
"""Of one convolution: what the operator of `kiku-kernels` takes."""

_WIDEST_CODE = 2048
"""Numbers of a code: what the operator `Search` of `kiku-kernels` takes."""

LARGE = 500_000
"""Numbers from which a convolution's matrix is large: reading it costs more than using it."""


@dataclass(frozen=True, slots=True)
class Past:
    """What one slot remembers of one convolution: [size, channels], zeros at first."""

    name: str
    size: int
    channels: int


def codec_pasts(config: CodecConfig) -> list[Past]:
    """All of them; the graph takes each as an input of its name and gives `new_{name}` out."""
    # The samples themselves; none where it hears one at a time.
    pasts = [Past("past_first", config.kernel_size - 1, 1)] if config.kernel_size > 1 else []
    channels = config.num_filters
    for stage in range(len(config.strides)):
        for block in range(config.num_residual_layers):
            pasts += _taps(
                f"past_{stage}_{block}",
                config.residual_kernel_size,
                channels // config.compress,
                config.dilation_growth**block,
            )
        pasts += _taps(f"past_{stage}_down", 2, 2 * channels)
        channels *= 2
    pasts += _taps("past_last", config.last_kernel_size, config.latent_dim)
    return [*pasts, Past("past_downsample", 1, config.downsample * config.latent_dim)]


def _taps(name: str, num_taps: int, channels: int, dilation: int = 1) -> list[Past]:
    """What each tap but the last, which hears the present, adds later: one behind the other. None
    where there is one tap."""
    size = sum(_behind(num_taps, dilation))
    return [Past(name, size, channels)] if size else []


def _behind(num_taps: int, dilation: int) -> list[int]:
    """How many positions behind its output each tap but the last hears."""
    return [(num_taps - 1 - tap) * dilation for tap in range(num_taps - 1)]


_Wanted = Literal["sum", "elu", "both"]


class _Sums(NamedTuple):
    """What a convolution gives; "" is what nobody asked for."""

    plain: str
    activated: str
    """After ELU."""


def write_codec(folder: Path, config: CodecConfig, weights: Weights, precision: str) -> None:
    """Write `codec.onnx` and `codec.data`.

    Inputs, besides those of `layers.LayoutInputs`, the keys and values of each layer and the pasts:
    `pcm` [B', S, 1], the samples of the B' slots that hear something; `begun` [B', 1, 1] bool,
    whether they heard anything before. Output: `codes` [B', T, K] int64, semantic codebooks first.

    At int8 and int4 the transformer and the last convolutions, where most weights are, are kept in
    8 bits; the first convolutions and the codebooks stay as they are.

    Args:
        folder: where the files go; it must exist.
        config: of the codec.
        weights: the tensors of `kiku.codec.MimiEncoder`.
        precision: one of `PRECISIONS`.

    Raises:
        ConfigError: there is no such precision.
        UnsupportedConfig: a shape that ONNX Runtime cannot run.
    """
    check_precision(precision)
    with GraphWriter(folder, CODEC_GRAPH) as writer:
        _Codec(writer, config, weights, _SCHEMES[precision_of_weights(precision)]).write()
        writer.finish()


class _Taps(NamedTuple):
    """The products of a convolution, to be added up."""

    products: str
    """[N, L, num_taps * C']"""
    name: str
    past: str
    """What is remembered of them; "" where there is one tap."""
    num_taps: int
    dilation: int
    beside: str
    """A sequence that is added; "" for none."""


class _Codec:
    """One graph being written."""

    def __init__(
        self, writer: GraphWriter, config: CodecConfig, weights: Weights, scheme: QuantScheme
    ) -> None:
        self.writer, self.config, self.weights, self.scheme = writer, config, weights, scheme
        self.pasts = {past.name: past for past in codec_pasts(config)}

    def write(self) -> None:
        config, writer = self.config, self.writer
        pcm = writer.input("pcm", np.float32, ["N", "samples", 1])
        latents = self._seanet(pcm)  # [N, L, D]
        # Its keys are few: 8 bits would bring next to nothing.
        kept_in = np.float32 if self.scheme.bits == 32 else np.float16
        layers = Layers(writer, config.transformer, self.weights, self.scheme, kept_in)
        rows = layers(writer.node("Reshape", [latents, writer.constant(-1, config.latent_dim)]))
        # The number of slots that hear something, to undo the packing.
        like = writer.node("Shape", [latents], end=1)
        shape = writer.node("Concat", [like, writer.constant(-1, config.latent_dim)], axis=0)
        frames = self._downsample(writer.node("Reshape", [rows, shape]))  # [N, T, D]
        flat = writer.node("Reshape", [frames, writer.constant(-1, config.latent_dim)])
        codes = self._quantise(flat)  # [N T, K]
        shape = writer.node("Concat", [like, writer.constant(-1, config.num_codebooks)], axis=0)
        out = writer.node("Reshape", [codes, shape])
        writer.output(out, "codes", np.int64, ["N", "T", config.num_codebooks])

    def _seanet(self, pcm: str) -> str:
        """[N, S, 1] -> [N, L, D]"""
        config = self.config
        plain, activated = self._first(pcm)
        channels, last = config.num_filters, len(config.strides) - 1
        for stage, stride in enumerate(config.strides):
            prefix = f"seanet.stages.{stage}."
            for block in range(config.num_residual_layers):
                at = f"{prefix}residuals.{block}."
                dilation = config.dilation_growth**block
                past = f"past_{stage}_{block}"
                wide = self._conv(activated, at + "wide", past, dilation=dilation, wanted="elu")
                is_last = block == config.num_residual_layers - 1
                plain, activated = self._conv(
                    wide.activated, at + "narrow", "", beside=plain,
                    wanted="elu" if is_last else "both",
                )  # fmt: skip
            blocks = self.writer.constant(0, -1, stride * channels)
            x = self.writer.node("Reshape", [activated, blocks])
            plain, activated = self._conv(
                x, prefix + "down", f"past_{stage}_down", stride=stride,
                wanted="both" if stage < last else "elu",
            )  # fmt: skip
            channels *= 2
        return self._conv(activated, "seanet.last", "past_last", wanted="sum").plain

    def _part(self, x: str, first: int, last: int) -> str:
        """x[:, first:last]"""
        constant = self.writer.constant
        return self.writer.node("Slice", [x, constant(first), constant(last), constant(1)])

    def _remembered(self, name: str, now: str) -> str:
        """The past with the present behind it; its end is what is remembered next."""
        past = self.pasts[name]
        kept = self.writer.input(name, np.float32, ["N", past.size, past.channels])
        both = self.writer.node("Concat", [kept, now], axis=1)
        shape = ["N", past.size, past.channels]
        self.writer.output(self._part(both, -past.size, _END), f"new_{name}", np.float32, shape)
        return both

    def _first(self, pcm: str) -> _Sums:
        """The first convolution hears one channel, so its taps are laid side by side instead."""
        weight = self.weights("seanet.first.conv.weight")  # [C, 1, taps]
        taps = weight.shape[2]
        both = self._remembered("past_first", pcm) if taps > 1 else pcm
        shifted = [
            self._part(both, tap, tap - taps + 1 if tap < taps - 1 else _END) for tap in range(taps)
        ]
        beside = self.writer.node("Concat", shifted, axis=2)
        matrix = np.ascontiguousarray(weight[:, 0].T)
        products = self.writer.node("MatMul", [beside, self.writer.tensor("first", matrix)])
        return self._added(_Taps(products, "seanet.first", "", 1, 1, ""), "both")

    def _conv(
        self, x: str, name: str, past: str, *, stride: int = 1, dilation: int = 1, beside: str = "",
        wanted: _Wanted = "both",
    ) -> _Sums:  # fmt: skip
        """[N, L, C] -> [N, L, C'].

        A strided one has a kernel of twice the stride. It takes [N, L, stride * C], blocks as wide
        as the stride, and so has two taps. `beside` [N, L, C'] is added. `wanted` is the sum, what
        ELU makes of it, or both.
        """
        weight = self.weights(f"{name}.conv.weight")  # [C', C, kernel]
        num_taps = weight.shape[2] // stride
        if num_taps > _MOST_TAPS:
            raise UnsupportedConfig(
                f"a kernel of {weight.shape[2]} at a stride of {stride} has {num_taps} taps, but "
                f"at most {_MOST_TAPS} can be converted: use engine='torch'"
            )
        products = self._product(x, name, _beside(weight, num_taps))
        taps = _Taps(products, name, past if num_taps > 1 else "", num_taps, dilation, beside)
        return self._added(taps, wanted)

    def _added(self, taps: _Taps, wanted: _Wanted) -> _Sums:
        """The products of a convolution added up, in both variants."""
        writer = self.writer
        plain, activated = wanted != "elu", wanted != "sum"
        bias = writer.tensor(f"{taps.name}.bias", self.weights(f"{taps.name}.conv.bias"))
        sums = _Sums(writer.value("sum") if plain else "", writer.value("elu") if activated else "")
        past, new_past = taps.past, ""
        if past:
            shape = ["N", self.pasts[past].size, self.pasts[past].channels]
            writer.input(past, np.float32, shape)
            new_past = f"new_{past}"
            writer.output_named(new_past, np.float32, shape)
        with writer.only(Variant.OWN):
            writer.nodes(
                "Taps", [taps.products, bias, past, taps.beside], [*sums, new_past],
                domain=KERNELS, taps=taps.num_taps, dilation=taps.dilation,
            )  # fmt: skip
        with writer.only(Variant.PLAIN):
            total = self._added_plainly(taps, bias, new_past)
            if plain:
                writer.nodes("Identity", [total], [sums.plain])
            if activated:
                writer.nodes("Elu", [total], [sums.activated])
        return sums

    def _added_plainly(self, taps: _Taps, bias: str, new_past: str) -> str:
        """The same with ONNX Runtime's operators."""
        writer, behind = self.writer, _behind(taps.num_taps, taps.dilation)
        parts = [taps.products]
        if behind:
            parts = writer.nodes("Split", parts, taps.num_taps, axis=2, num_outputs=taps.num_taps)
        total = writer.node("Add", [parts[-1], bias])
        new: list[str] = []
        first = 0
        for size, part in zip(behind, parts, strict=False):
            kept = self._part(taps.past, first, first + size)
            both = writer.node("Concat", [kept, part], axis=1)
            new.append(self._part(both, -size, _END))
            total = writer.node("Add", [total, self._part(both, 0, -size)])
            first += size
        if new:
            writer.nodes("Concat", new, [new_past], axis=1)
        return writer.node("Add", [taps.beside, total]) if taps.beside else total

    def _downsample(self, x: str) -> str:
        """[N, L, D] -> [N, T, D]; before the first position stands that position again."""
        writer, step, dim = self.writer, self.config.downsample, self.config.latent_dim
        past = self.pasts["past_downsample"]
        kept = writer.input(past.name, np.float32, ["N", past.size, past.channels])
        begun = writer.input("begun", np.bool_, ["N", 1, 1])
        first = self._part(x, 0, 1)
        repeated = writer.node("Concat", [first] * step, axis=2) if step > 1 else first
        before = writer.node("Where", [begun, kept, repeated])
        blocks = writer.node("Reshape", [x, writer.constant(0, -1, step * dim)])
        both = writer.node("Concat", [before, blocks], axis=1)
        shape = ["N", past.size, past.channels]
        writer.output(self._part(both, -1, _END), f"new_{past.name}", np.float32, shape)
        window = writer.node("Concat", [self._part(both, 0, -1), self._part(both, 1, _END)], axis=2)
        weight = self.weights("downsample.conv.weight")  # [D, D, 2 step]
        matrix = weight.transpose(2, 1, 0).reshape(2 * step * dim, dim)
        return self._product(window, "downsample", matrix)

    def _product(self, x: str, name: str, matrix: NDArray[np.float32]) -> str:
        """[N, L, C] times a matrix [C, C']: [N, L, C']"""
        if self.scheme.bits == 32 or matrix.size < LARGE:
            return self.writer.node("MatMul", [x, self.writer.tensor(name, matrix)])
        return linear(self.writer, x, name, np.ascontiguousarray(matrix.T), self.scheme)

    def _quantise(self, x: str) -> str:
        """[R, D] -> [R, K]"""
        chains = [self._chain(x, f"quantizer.{chain}.") for chain in ("semantic", "acoustic")]
        return self.writer.node("Concat", chains, axis=1)

    def _chain(self, x: str, prefix: str) -> str:
        """One residual chain of codebooks: [R, D] -> [R, n]."""
        writer = self.writer
        if self.config.project_latents:
            matrix = self.weights(f"{prefix}input_proj.weight")[:, :, 0]  # [D', D]
            x = writer.node("Gemm", [x, writer.tensor(f"{prefix}proj", matrix)], transB=1)
        books = self.weights(f"{prefix}codebooks")  # [n, codes, D']
        codes = f"{prefix}codes"
        if books.shape[2] > _WIDEST_CODE:
            writer.nodes("Concat", self._searched(x, books, prefix), [codes], axis=1)
            return codes
        with writer.only(Variant.OWN):
            stored = writer.tensor(f"{prefix}books", books)
            coarse = coarse_books(books)
            numbers = writer.tensor(f"{prefix}books.coarse", coarse.numbers)
            table = writer.tensor(f"{prefix}books.table", coarse.table)
            writer.nodes("Search", [x, stored, numbers, table], [codes], domain=KERNELS)
        with writer.only(Variant.PLAIN):
            writer.nodes("Concat", self._searched(x, books, prefix), [codes], axis=1)
        return codes

    def _searched(self, x: str, books: NDArray[np.float32], prefix: str) -> list[str]:
        """[R, D'] -> n x [R, 1], with products that read whole books."""
        writer = self.writer
        codes: list[str] = []
        tables = writer.parts_of(f"{prefix}books", books)
        for number, (table, book) in enumerate(zip(tables, books, strict=True)):
            half_norms = writer.tensor(f"{prefix}norms.{number}", -half_squares(book))
            # argmin |x - c|^2 = argmax (x . c - |c|^2 / 2)
            nearness = writer.node("Gemm", [x, table, half_norms], transB=1)
            code = writer.node("ArgMax", [nearness], axis=-1, keepdims=0)
            codes.append(writer.node("Unsqueeze", [code, writer.constant(1)]))
            if number < len(books) - 1:
                x = writer.node("Sub", [x, writer.node("Gather", [table, code], axis=0)])
        return codes


def _beside(weight: NDArray[np.float32], taps: int) -> NDArray[np.float32]:
    """[C', C, taps * stride] -> [stride * C, taps * C']: the taps' matrices side by side."""
    out, channels, kernel = weight.shape
    if kernel % taps:
        raise UnsupportedConfig(f"a kernel of {kernel} does not have {taps} taps of the same width")
    stride = kernel // taps
    split = weight.reshape(out, channels, taps, stride)
    return split.transpose(3, 1, 2, 0).reshape(stride * channels, taps * out)
