"""The 1B's decoder with kiku-kernels and with ONNX Runtime alone: the same weights, in turn.

    python benchmarks/variants.py                        # int8, a minute and 3 GB of memory
    python benchmarks/variants.py --precision int4 --threads 1 --no-record

Weights are random, of the 1B's shape. A case is so many slots with so many columns each, behind an
empty or a full window. What counts is the ratio; the rows go to results/variants.jsonl.
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
from kiku.config import LMConfig
from kiku.engine.kernels import ONNX_RUNTIME, kernels
from kiku.engine.memory import OrderedMemory
from kiku.engine.networks import Decoder
from kiku.graph import write_decoder

CASES = ((1, 1), (2, 1), (4, 1), (6, 1), (10, 1), (1, 4), (1, 8), (1, 16))
"""Slots, and columns of each."""

SLOTS = max(slots for slots, _ in CASES)


def columns(lm: LMConfig, slots: int, each: int) -> NDArray[np.int64]:
    """Any [slots, each, 1 + K]."""
    generator = np.random.default_rng(slots * 100 + each)
    texts = generator.integers(0, lm.text_vocab_size, (slots, each, 1))
    codes = generator.integers(0, lm.codebook_size, (slots, each, lm.num_codebooks))
    return np.concatenate([texts, codes], axis=2)


def stand_at(decoder: Decoder, position: int) -> None:
    """Let every slot have heard so many positions; what they were does not matter here."""
    memory = decoder.memory
    for slot in range(SLOTS):
        memory.forget(slot)
        memory.position[slot] = position
    if isinstance(memory, OrderedMemory):
        memory.make_room(range(SLOTS), 0)


def timed(decoder: Decoder, given: NDArray[np.int64], position: int) -> float:
    """Seconds of one call."""
    slots, each = given.shape[:2]
    stand_at(decoder, position)
    begin = time.perf_counter()
    decoder.read(np.arange(slots), given, np.full(slots, each), logits=False)
    return time.perf_counter() - begin


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--precision", choices=("int8", "int4", "float32"), default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each case")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    if kernels().library is None:
        parser.error(f"there is nothing to compare: {kernels().reason}")
    config = SHAPES["1b"]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_decoder(Path(folder), config.lm, random_weights(config)[1], given.precision)
        both = {
            name: Decoder(Path(folder), config, SLOTS, given.threads, used)
            for name, used in (("kernels", kernels()), ("onnxruntime", ONNX_RUNTIME))
        }
        for window in (0, config.lm.transformer.window):
            for slots, each in CASES:
                some = columns(config.lm, slots, each)
                times: dict[str, list[float]] = {name: [] for name in both}
                end = time.monotonic() + given.seconds
                while time.monotonic() < end:
                    for name, decoder in both.items():
                        times[name] += [timed(decoder, some, window) for _ in range(2)]
                row: dict[str, Any] = {"window": window, "slots": slots, "columns": each}
                for name, values in times.items():
                    low, middle = np.quantile(values, [0.1, 0.5])
                    row[name] = {"p10_ms": round(1e3 * low, 1), "p50_ms": round(1e3 * middle, 1)}
                rows.append(row)
                print(json.dumps(row), flush=True)
    if not given.no_record:
        head = {"precision": given.precision, "threads": given.threads}
        head["kernels"] = kernels().processor
        append(RESULTS / "variants.jsonl", {**stamp(), **head, "rows": rows})


if __name__ == "__main__":
    main()
