"""The same two networks as ONNX graphs, built straight from a checkpoint's tensors (no torch).

    writer.py    nodes, inputs, outputs; tensors go to the data file one at a time
    quantise.py  float32 matrices to blocks of 8 or 4 bits
    tiles.py     these blocks as the operators of kiku-kernels read them
    layers.py    what both networks are made of: matrix products, norms, attention over slots
    codec.py     frames of samples -> codes
    decoder.py   columns -> text tokens

Each network is written as two graphs over the same weights: one for ONNX Runtime as it is, and one
with the operators of `kiku-kernels`, which gives the same tokens faster.

A graph computes one call of an engine: some tokens of some slots, packed one after the other
without padding, so that weights are read once however the slots stand. What a slot remembers comes
in and goes out: keys and values in buffers that are advanced in place, the convolutions' pasts as
small arrays. Nothing here knows ONNX Runtime's sessions; that is `engine.onnx`.
"""

from kiku.graph.codec import CODEC_GRAPH, codec_pasts, write_codec
from kiku.graph.decoder import DECODER_GRAPH, code_offsets, empty_row, write_decoder
from kiku.graph.layers import SCALE_BYTES, product_model
from kiku.graph.messages import stored_places
from kiku.graph.quantise import PRECISIONS, check_precision, precision_of_weights
from kiku.graph.writer import Variant, Weights, graph_file

FORMAT = 4
"""Raised whenever graphs that were written before could not be run any more."""

__all__ = [
    "CODEC_GRAPH",
    "DECODER_GRAPH",
    "FORMAT",
    "PRECISIONS",
    "SCALE_BYTES",
    "Variant",
    "Weights",
    "check_precision",
    "code_offsets",
    "codec_pasts",
    "empty_row",
    "graph_file",
    "precision_of_weights",
    "product_model",
    "stored_places",
    "write_codec",
    "write_decoder",
]
