"""Decoder or codec with kiku-kernels and with ONNX Runtime alone: the same weights, in turn.

    python benchmarks/variants.py                        # int8, a minute and 3 GB of memory
    python benchmarks/variants.py --network codec
    python benchmarks/variants.py --against kv8          # keys of 16 and of 8 bits, both kernels'
    python benchmarks/variants.py --precision int4 --threads 1 --no-record

Weights are random, of the 1B's shape. A case is so many slots with so many columns (frames, for the
codec) each, behind an empty or a full window. What counts is the ratio; the rows go to
results/variants.jsonl.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, append, stamp
from numpy.typing import NDArray

from kiku.checkpoint.model_shapes import SHAPES, random_weights
from kiku.config import ModelConfig
from kiku.engine.kernels import ONNX_RUNTIME, kernels
from kiku.engine.memory import OrderedMemory
from kiku.engine.networks import OnnxCodec, OnnxDecoder
from kiku.graph import PRECISIONS, SCALE_BYTES, write_codec, write_decoder

CASES = {
    "decoder": ((1, 1), (2, 1), (4, 1), (6, 1), (10, 1), (1, 4), (1, 8), (1, 16)),
    "codec": ((1, 1), (4, 1), (10, 1), (1, 4), (1, 8)),
}
"""Slots, and columns or frames of each."""

FEW = ((1, 1), (6, 1), (10, 1), (1, 16))
"""Those of keys of 8 bits, behind a full window."""

SLOTS = 10


def columns(config: ModelConfig, slots: int, each: int) -> NDArray[np.int64]:
    """Any [slots, each, 1 + K] of the decoder."""
    lm, generator = config.lm, np.random.default_rng(slots * 100 + each)
    texts = generator.integers(0, lm.text_vocab_size, (slots, each, 1))
    codes = generator.integers(0, lm.codebook_size, (slots, each, lm.num_codebooks))
    return np.concatenate([texts, codes], axis=2)


def frames(config: ModelConfig, slots: int, each: int) -> NDArray[np.float32]:
    """Any [slots, each, frame_size] of the codec."""
    generator = np.random.default_rng(slots * 100 + each)
    return generator.normal(0, 0.1, (slots, each, config.frame_size)).astype(np.float32)


def stand_at(network: OnnxDecoder | OnnxCodec, position: int) -> None:
    """Let every slot have heard so many positions; what they were does not matter here."""
    memory = network.memory
    for slot in range(SLOTS):
        memory.forget(slot)
        memory.position[slot] = position
    if isinstance(memory, OrderedMemory):
        memory.make_room(range(SLOTS), 0)


def filled(network: OnnxDecoder | OnnxCodec) -> OnnxDecoder | OnnxCodec:
    """The network with something in all places of its keys and values: what was never written takes
    no memory, and reading it no time."""
    memory = network.memory
    rows = np.random.default_rng(0).standard_normal(memory.keys[0].shape[1:], np.float32)
    if memory.dtype == np.int8:
        rows = rows.view(np.int8)[..., : rows.shape[-1]]
        rows[..., -SCALE_BYTES:] = np.array([0.02], np.float32).view(np.int8)
    for buffer in (*memory.keys, *memory.values):
        buffer[:] = rows
    return network


def timed(network: OnnxDecoder | OnnxCodec, given: NDArray[Any], position: int) -> float:
    """Seconds of one call."""
    slots, each = given.shape[:2]
    stand_at(network, position)
    begin = time.perf_counter()
    if isinstance(network, OnnxDecoder):
        network.read(np.arange(slots), given, np.full(slots, each), logits=False)
    else:
        network.encode(np.arange(slots), given)
    return time.perf_counter() - begin


def row_of(
    both: dict[str, OnnxDecoder | OnnxCodec], given: NDArray[Any], position: int, seconds: float
) -> dict[str, Any]:
    """Times of one case, both in turn."""
    times: dict[str, list[float]] = {name: [] for name in both}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, network in both.items():
            times[name] += [timed(network, given, position) for _ in range(2)]
    slots, each = given.shape[:2]
    row: dict[str, Any] = {"window": position, "slots": slots, "columns": each}
    for name, values in times.items():
        low, middle = np.quantile(values, [0.1, 0.5])
        row[name] = {"p10_ms": round(1e3 * low, 1), "p50_ms": round(1e3 * middle, 1)}
    return row


def sides(
    folder: Path, config: ModelConfig, given: argparse.Namespace
) -> dict[str, OnnxDecoder | OnnxCodec]:
    """What is compared; the graphs are written into the folder."""
    weights, threads = random_weights(config), given.threads
    if given.network == "codec":
        write_codec(folder, config.codec, weights[0], given.precision)
    else:
        write_decoder(folder, config.lm, weights[1], given.precision)
    kind = OnnxCodec if given.network == "codec" else OnnxDecoder
    own = kind(folder, config, SLOTS, threads, kernels())
    if given.against == "onnxruntime":
        return {"kernels": own, "onnxruntime": kind(folder, config, SLOTS, threads, ONNX_RUNTIME)}
    eight = folder / "kv8"
    eight.mkdir()
    write_decoder(eight, config.lm, weights[1], f"{given.precision}_kv8")
    return {"kernels": own, "kv8": OnnxDecoder(eight, config, SLOTS, threads, kernels())}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", choices=("decoder", "codec"), default="decoder")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8")
    parser.add_argument("--against", choices=("onnxruntime", "kv8"), default="onnxruntime")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each case")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    if kernels().library is None:
        parser.error(f"there is nothing to compare: {kernels().reason}")
    if given.against == "kv8" and (
        given.network == "codec" or given.precision not in ("int8", "int4")
    ):
        parser.error("keys of 8 bits are compared with those of decoders in int8 and int4")
    config, is_codec = SHAPES["1b"], given.network == "codec"
    window = (config.codec if is_codec else config.lm).transformer.window
    few = given.against == "kv8"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        both = {side: filled(one) for side, one in sides(Path(name), config, given).items()}
        for position in (window,) if few else (0, window):
            for slots, each in FEW if few else CASES[given.network]:
                some = (frames if is_codec else columns)(config, slots, each)
                rows.append(row_of(both, some, position, given.seconds))
                print(json.dumps(rows[-1]), flush=True)
    if not given.no_record:
        head = {"network": given.network, "precision": given.precision, "threads": given.threads}
        head["kernels"] = kernels().processor
        append(RESULTS / "variants.jsonl", {**stamp(), **head, "rows": rows})


if __name__ == "__main__":
    main()
