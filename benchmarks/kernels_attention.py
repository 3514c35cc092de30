"""Attention of kiku-kernels against ONNX Runtime's GroupQueryAttention, in turn, at full windows of
the 1B: milliseconds for its 16 layers, the least of many.

    python benchmarks/kernels_attention.py [SECONDS]

Every layer and slot has keys and values in memory of its own, as in a decoder, so that they come
from memory and not from a cache. With one thread it is the processor's time, which programs beside
it disturb least; with two it is the clock's.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import kiku_kernels
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

HEADS, DIM, WINDOW, LAYERS = 16, 128, 750, 16
CAPACITY = WINDOW - 1 + 40
POSITION = 5000  # of a slot's first row: the window has gone around its ring some times
CASES = [(1, 1), (4, 1), (6, 1), (10, 1), (1, 4), (1, 8), (1, 16)]
"""Slots, and rows of each: GroupQueryAttention takes several rows of one slot only."""

OPERATORS: dict[type[np.generic], str] = {
    np.float32: "Attention", np.float16: "AttentionHalf", np.int8: "AttentionBytes",
}  # fmt: skip
"""Type of keys and values -> the operator."""

Array = NDArray[Any]


def library() -> str:
    """The library that is installed; KIKU_KERNELS_LIBRARY names another."""
    return os.environ.get("KIKU_KERNELS_LIBRARY") or str(kiku_kernels.library())


class Graph:
    """One node as a session, whose second and third output are the memory of two inputs."""

    def __init__(
        self, name: str, domain: str, inputs: dict[str, type[np.generic]], stored: type[np.generic],
        *, threads: int, **attributes: Any,
    ) -> None:  # fmt: skip
        """Inputs without a name are left out of the node's."""
        type_of = helper.np_dtype_to_tensor_dtype
        values = [
            helper.make_tensor_value_info(name, type_of(np.dtype(kind)), None)
            for name, kind in {
                **inputs, "y": np.float32, "new_keys": stored, "new_values": stored,
            }.items() if name.strip()
        ]  # fmt: skip
        ins = [name.strip() for name in inputs]
        outs = [value.name for value in values[-3:]]
        node = helper.make_node(name, ins, outs, domain=domain, **attributes)
        graph = helper.make_graph([node], "one", values[:-3], values[-3:])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(domain, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.register_custom_ops_library(library())
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def bound(self, keys: Array, values: Array, inputs: dict[str, Array]) -> Callable[[], None]:
        """A call of it over these rings."""
        binding = self.session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("y")
        for name, array in (("keys", keys), ("values", values)):
            ring = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(name, ring)
            binding.bind_ortvalue_output(f"new_{name}", ring)
        return lambda: self.session.run_with_iobinding(binding)


def rings(slots: int, stored: type[np.generic], seed: int) -> Array:
    """Full ones: [slots, heads, capacity, dim]; int8 with a scale behind each row."""
    shape, random = (slots, HEADS, CAPACITY, DIM), np.random.default_rng(seed)
    if stored is not np.int8:
        return random.standard_normal(shape, np.float32).astype(stored)
    numbers = random.integers(-127, 128, shape, np.int8)
    scales = np.full((*shape[:-1], 1), 0.02, np.float32).view(np.int8)
    return np.concatenate([numbers, scales], axis=-1)


def own(stored: type[np.generic], slots: int, rows: int, threads: int) -> list[Callable[[], None]]:
    """One call of ours for each layer."""
    name = OPERATORS[stored]
    kinds: dict[str, type[np.generic]] = {
        "rows": np.float32, "keys": stored, "values": stored, "counts": np.int32,
        "firsts": np.int32, "positions": np.int64, "cos": np.float32, "sin": np.float32,
    }  # fmt: skip
    graph = Graph(name, "kiku", kinds, stored, threads=threads, num_heads=HEADS, window=WINDOW)
    total = slots * rows
    inputs: dict[str, Array] = {
        "rows": np.random.default_rng(0).standard_normal((total, 3 * HEADS * DIM), np.float32),
        "counts": np.full(slots, rows, np.int32),
        "firsts": np.arange(0, total, rows, dtype=np.int32),
        "positions": np.full(slots, POSITION, np.int64),
        "cos": np.ones((total, DIM // 2), np.float32),
        "sin": np.zeros((total, DIM // 2), np.float32),
    }
    return [
        graph.bound(rings(slots, stored, layer), rings(slots, stored, ~layer & 99), inputs)
        for layer in range(layers_of(slots))
    ]


def theirs(slots: int, rows: int, threads: int) -> list[Callable[[], None]]:
    """One call of GroupQueryAttention, float32, for each layer."""
    kinds: dict[str, type[np.generic]] = {
        "rows": np.float32, "": np.float32, " ": np.float32, "keys": np.float32,
        "values": np.float32, "lengths": np.int32, "length": np.int32,
        "cos": np.float32, "sin": np.float32,
    }  # fmt: skip
    graph = Graph(
        "GroupQueryAttention", "com.microsoft", kinds, np.float32, threads=threads,
        num_heads=HEADS, kv_num_heads=HEADS, do_rotary=1, rotary_interleaved=1,
        local_window_size=WINDOW,
    )  # fmt: skip
    shape = (slots, rows, 3 * HEADS * DIM)
    inputs: dict[str, Array] = {
        "rows": np.random.default_rng(0).standard_normal(shape, np.float32),
        "lengths": np.full(slots, WINDOW + rows - 2, np.int32),
        "length": np.array(WINDOW + rows - 1, np.int32),
        "cos": np.ones((CAPACITY, DIM // 2), np.float32),
        "sin": np.zeros((CAPACITY, DIM // 2), np.float32),
    }  # fmt: skip
    return [
        graph.bound(rings(slots, np.float32, layer), rings(slots, np.float32, ~layer & 99), inputs)
        for layer in range(layers_of(slots))
    ]


def layers_of(slots: int) -> int:
    """How many have memory of their own: enough that no cache holds them."""
    return max(4, LAYERS // slots)


def least(sides: Sequence[list[Callable[[], None]]], threads: int, seconds: float) -> list[float]:
    """Milliseconds for all layers, of each side; they run in turn."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    taken: list[list[float]] = [[] for _ in sides]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(taken[0]) < 3:
        for times, calls in zip(taken, sides, strict=True):
            for call in calls:
                begun = clock()
                call()
                times.append(clock() - begun)
    return [1e3 * LAYERS * min(times) for times in taken]


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5
    columns = [
        "threads", "slots", "rows of each", "GroupQueryAttention", *OPERATORS.values(),
        "GB/s", "GB/s of half", "GB/s of bytes", "G multiply-adds/s",
    ]  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for threads in (1, 2):
        for slots, rows in CASES:
            sides = [theirs(slots, rows, threads)]
            sides += [own(stored, slots, rows, threads) for stored in OPERATORS]
            other, whole, half, eighth = least(sides, threads, seconds)
            numbers = 2e-6 * LAYERS * slots * HEADS * (WINDOW + rows - 1) * DIM  # read, millions
            print(
                f"| {threads} | {slots} | {rows} | {other:.1f} | {whole:.1f} | {half:.1f} "
                f"| {eighth:.1f} | {4 * numbers / whole:.1f} | {2 * numbers / half:.1f} "
                f"| {numbers * (1 + 4 / DIM) / eighth:.1f} "
                f"| {numbers * rows / min(whole, half, eighth):.0f} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
