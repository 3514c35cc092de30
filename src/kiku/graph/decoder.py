"""The decoder's graph: columns to text tokens."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiku.config import LMConfig
from kiku.graph.layers import FLOAT32, Layers, QuantScheme, linear, rms_norm
from kiku.graph.quantise import (
    check_precision,
    dtype_of_keys,
    precision_of_weights,
    quantise_rows,
)
from kiku.graph.writer import KERNELS, GraphWriter, Variant, Weights

DECODER_GRAPH = "decoder"
"""Name of the two files: `.onnx` and `.data`."""

_SCHEMES = {"float32": FLOAT32, "int8": QuantScheme(8), "int4": QuantScheme(4)}


def code_offsets(config: LMConfig) -> NDArray[np.int64]:
    """[1 + K] what must be added to the ids of a column to index the one table of all
    embeddings."""
    codes = config.text_rows + np.arange(config.num_codebooks) * (config.codebook_size + 1)
    return np.concatenate([[0], codes]).astype(np.int64)


def empty_row(config: LMConfig) -> int:
    """The last row of the table: it adds nothing, and is read for a code that is left out."""
    return config.text_rows + config.num_codebooks * (config.codebook_size + 1)


def write_decoder(folder: Path, config: LMConfig, weights: Weights, precision: str) -> None:
    """Write `decoder.onnx` and `decoder.data`.

    Inputs, besides those of `layers.LayoutInputs` and the keys and values of each layer: `columns`
    [R, 1 + K] int64, rows of the one table (see `code_offsets` and `empty_row`). Outputs: `tokens`
    [R] int64, the likeliest; `logprobs` [R], theirs; `logits` [R, V]; `pauses` [R, E] where there
    are heads.

    Args:
        folder: where the files go; it must exist.
        config: of the decoder.
        weights: the tensors of `kiku.lm.LM`.
        precision: one of `PRECISIONS`.

    Raises:
        ConfigError: there is no such precision.
        UnsupportedConfig: a shape that ONNX Runtime cannot run.
    """
    check_precision(precision)
    scheme = _SCHEMES[precision_of_weights(precision)]
    with GraphWriter(folder, DECODER_GRAPH) as writer:
        columns = writer.input("columns", np.int64, ["R", 1 + config.num_codebooks])
        kept_in = dtype_of_keys(precision)
        layers = Layers(writer, config.transformer, weights, scheme, kept_in)
        x = layers(_embed(writer, columns, config, weights, scheme))
        hidden = rms_norm(writer, x, "out_norm", weights, config.transformer.norm_eps)
        # The head is small and its errors are heard at once: never fewer than 8 bits.
        head = weights("text_head.weight")
        logits = linear(writer, hidden, "text_head", head, scheme.of(8))
        _say(writer, logits, config.text_vocab_size)
        if config.num_pause_heads:
            _pauses(writer, hidden, config, weights)
        writer.finish()


def _embed(
    writer: GraphWriter, columns: str, config: LMConfig, weights: Weights, scheme: QuantScheme
) -> str:
    """[R, 1 + K] -> [R, D]: the sum of the embeddings."""
    names = ["text_embedding", *(f"code_embeddings.{k}" for k in range(config.num_codebooks))]
    empty = np.zeros((1, config.transformer.dim), np.float32)
    if scheme.bits == 32:
        table = np.concatenate([*(weights(f"{name}.weight") for name in names), empty])
        rows = writer.node("Gather", [writer.tensor("embeddings", table), columns], axis=0)
    else:
        # A row's numbers are summed with those of 32 others: 8 bits with a scale each are plenty.
        parts = [quantise_rows(weights(f"{name}.weight")) for name in names]
        parts.append(quantise_rows(empty))
        table = np.concatenate([part[0] for part in parts])
        scales = np.concatenate([part[1] for part in parts])
        return _summed_bytes(
            writer,
            columns,
            writer.tensor("embeddings", table),
            writer.tensor("embedding_scales", scales),
        )
    return writer.node("ReduceSum", [rows, writer.constant(1)], keepdims=0)


def _summed_bytes(writer: GraphWriter, columns: str, table: str, scales: str) -> str:
    """[R, 1 + K] -> [R, D]: the sum of rows of a table of bytes with 128 for zero."""
    out = writer.value("embedded")
    with writer.only(Variant.OWN):
        writer.nodes("Embed", [columns, table, scales], [out], domain=KERNELS)
    with writer.only(Variant.PLAIN):
        bytes_ = writer.node("Cast", [writer.node("Gather", [table, columns], axis=0)], to=1)
        steps = writer.node("Sub", [bytes_, writer.tensor("middle", np.array(128, np.float32))])
        each = writer.node("Gather", [scales, columns], axis=0)
        rows = writer.node("Mul", [steps, each])  # [R, 1 + K, D]
        writer.nodes("ReduceSum", [rows, writer.constant(1)], [out], keepdims=0)
    return out


def _say(writer: GraphWriter, logits: str, num_texts: int) -> None:
    writer.output(logits, "logits", np.float32, ["R", num_texts])
    tokens = writer.node("ArgMax", [logits], axis=-1, keepdims=0)
    writer.output(tokens, "tokens", np.int64, ["R"])
    best = writer.node("ReduceMax", [logits, writer.constant(-1)], keepdims=0)
    whole = writer.node("ReduceLogSumExp", [logits, writer.constant(-1)], keepdims=0)
    writer.output(writer.node("Sub", [best, whole]), "logprobs", np.float32, ["R"])


def _pauses(writer: GraphWriter, hidden: str, config: LMConfig, weights: Weights) -> None:
    heads, classes = config.num_pause_heads, config.pause_classes
    matrix = np.concatenate([weights(f"pause_heads.{head}.weight") for head in range(heads)])
    flat = linear(writer, hidden, "pause_heads", matrix, FLOAT32)
    split = writer.node("Reshape", [flat, writer.constant(-1, heads, classes)])
    shares = writer.node("Softmax", [split], axis=-1)
    first = writer.tensor("first_class", np.array(0, np.int64))
    writer.output(
        writer.node("Gather", [shares, first], axis=2), "pauses", np.float32, ["R", heads]
    )
