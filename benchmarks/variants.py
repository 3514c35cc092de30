"""Decoder or codec with kiku-kernels and with ONNX Runtime alone: the same weights, in turn.

    python benchmarks/variants.py                        # int8, a minute and 3 GB of memory
    python benchmarks/variants.py --network codec
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
from kiku.graph import write_codec, write_decoder

CASES = {
    "decoder": ((1, 1), (2, 1), (4, 1), (6, 1), (10, 1), (1, 4), (1, 8), (1, 16)),
    "codec": ((1, 1), (4, 1), (10, 1), (1, 4), (1, 8)),
}
"""Slots, and columns or frames of each."""

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


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", choices=("decoder", "codec"), default="decoder")
    parser.add_argument("--precision", choices=("int8", "int4", "float32"), default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each case")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    if kernels().library is None:
        parser.error(f"there is nothing to compare: {kernels().reason}")
    config, is_codec = SHAPES["1b"], given.network == "codec"
    part, kind = (config.codec, OnnxCodec) if is_codec else (config.lm, OnnxDecoder)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder, weights = Path(name), random_weights(config)
        if is_codec:
            write_codec(folder, config.codec, weights[0], given.precision)
        else:
            write_decoder(folder, config.lm, weights[1], given.precision)
        both = {
            name: kind(folder, config, SLOTS, given.threads, used)
            for name, used in (("kernels", kernels()), ("onnxruntime", ONNX_RUNTIME))
        }
        for window in (0, part.transformer.window):
            for slots, each in CASES[given.network]:
                some = (frames if is_codec else columns)(config, slots, each)
                rows.append(row_of(both, some, window, given.seconds))
                print(json.dumps(rows[-1]), flush=True)
    if not given.no_record:
        head = {"network": given.network, "precision": given.precision, "threads": given.threads}
        head["kernels"] = kernels().processor
        append(RESULTS / "variants.jsonl", {**stamp(), **head, "rows": rows})


if __name__ == "__main__":
    main()
