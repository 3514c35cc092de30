"""Products with matrices of 8 and 4 bits: kiku's own against ONNX Runtime's, and the limits.

    python benchmarks/kernels.py [--library FILE] [--bits 8 4] [--rows 1 2 4 8 16 32]
        [--threads 1 2] [--shapes 2048x6144 ...]

Prints a table and writes nothing. A pass goes over copies of a matrix that are together larger
than any cache, so that weights come from memory, as they do in a decoder. Every time is the least
of some passes, the two kinds in turn: with one thread its processor time, with more the wall's.

The limits are measured in the same run: reading by numpy's sum over as many bytes, arithmetic by
kiku's own product of many rows whose weights stay in the cache. The latter is thus what the kernel
reaches at best, not what the processor's data sheet says.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import kiku_kernels
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kiku.graph.quantise import Blocks
from kiku.graph.tiles import tiles_of

SHAPES = (
    "2048x6144", "2048x2048", "2048x11264", "5632x2048", "2048x8000",  # the 1B's
    "256x768", "256x256", "256x1408", "704x256",  # the demo's
)  # fmt: skip
COLD_BYTES = 200_000_000
MOST_COPIES = 400
BLOCK = 128


def random_blocks(width: int, columns: int, bits: int) -> Blocks:
    """A matrix of random numbers."""
    random = np.random.default_rng(0)
    shape = (columns, -(-width // BLOCK))
    packed = random.integers(1, 256, (*shape, BLOCK * bits // 8), np.uint8)
    scales = random.uniform(0.001, 0.002, shape).astype(np.float32)
    return Blocks(packed, scales, bits, BLOCK)


def session(
    blocks: Blocks, width: int, copies: int, threads: int, library: str, *, own: bool
) -> onnxruntime.InferenceSession:
    """A graph of `copies` products of the same rows with different copies of a matrix."""
    columns = len(blocks.packed)
    if own:
        laid_out = tiles_of(blocks)
        packed, scales = laid_out.numbers, laid_out.scales
        kind, domain, version = "Product", "kiku", 1
        attributes: dict[str, Any] = {"N": columns, "bits": blocks.bits, "block_size": BLOCK}
    else:
        packed, scales = blocks.packed, blocks.scales.reshape(-1)
        kind, domain, version = "MatMulNBits", "com.microsoft", 1
        attributes = {
            "N": columns, "K": width, "bits": blocks.bits, "block_size": BLOCK, "accuracy_level": 4,
        }  # fmt: skip
    nodes, weights, outputs = [], [], []
    packed = packed.copy()
    for i in range(copies):
        packed.reshape(-1)[:2] = divmod(i, 256)  # no two alike: nobody keeps one for all
        weights += [
            numpy_helper.from_array(packed, f"packed{i}"),
            numpy_helper.from_array(scales, f"scales{i}"),
        ]
        nodes.append(
            helper.make_node(
                kind, ["x", f"packed{i}", f"scales{i}"], [f"y{i}"], domain=domain, **attributes
            )
        )
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [None, columns]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])
    graph = helper.make_graph(nodes, "copies", [x], outputs, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(domain, version)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if own:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def runner(
    one: onnxruntime.InferenceSession, x: NDArray[np.float32], copies: int, columns: int
) -> Callable[[], object]:
    """Runs the session into memory that it keeps: no allocation is timed."""
    binding = one.io_binding()
    binding.bind_cpu_input("x", x)
    for i in range(copies):
        y = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((len(x), columns), np.float32))
        binding.bind_ortvalue_output(f"y{i}", y)
    return lambda: one.run_with_iobinding(binding)


def least_seconds(
    works: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> list[float]:
    """Of each work the least of `rounds` runs, in turn."""
    least = [float("inf")] * len(works)
    for _ in range(rounds + 1):  # the first one warms up
        for i, work in enumerate(works):
            begin = clock()
            work()
            least[i] = min(least[i], clock() - begin)
    return least


def clock_for(threads: int) -> Callable[[], float]:
    """What passes with one thread is its own time, whatever else the machine does."""
    return time.process_time if threads == 1 else time.perf_counter


def reading_limit() -> float:
    """Bytes a second that one thread reads from memory, by numpy's sum of whole numbers."""
    numbers = np.ones(COLD_BYTES // 8, np.int64)
    (seconds,) = least_seconds([lambda: numbers.sum()], 5, clock_for(1))
    return numbers.nbytes / seconds


def arithmetic_limit(bits: int, threads: int, library: str) -> float:
    """Products a second of many rows with a matrix that stays in the cache."""
    width, columns, count = 1024, 1024, 256
    one = session(random_blocks(width, columns, bits), width, 1, threads, library, own=True)
    x = np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)
    (seconds,) = least_seconds([runner(one, x, 1, columns)], 10, clock_for(threads))
    return width * columns * count / seconds


def measure(shape: str, bits: int, threads: int, args: argparse.Namespace, peak: float) -> None:
    """Print the lines of one matrix."""
    width, columns = (int(number) for number in shape.split("x"))
    blocks = random_blocks(width, columns, bits)
    copies = min(MOST_COPIES, -(-COLD_BYTES // blocks.packed.nbytes))
    own, theirs = (
        session(blocks, width, copies, threads, args.library, own=own) for own in (True, False)
    )
    for count in args.rows:
        x = np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)
        works = [runner(one, x, copies, columns) for one in (own, theirs)]
        seconds = least_seconds(works, args.rounds, clock_for(threads))
        ours_us, theirs_us = (1e6 * one / copies for one in seconds)
        rate = blocks.packed.nbytes / ours_us / 1e3
        products = width * columns * count / ours_us / 1e3
        print(
            f"{shape:>11} {bits:>4} {threads:>7} {count:>4} {theirs_us:>9.1f} {ours_us:>9.1f} "
            f"{theirs_us / ours_us:>6.2f} {rate:>6.1f} {products:>7.1f} {products / peak:>6.0%}",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--library", default="", help="another library of kernels")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    args.library = args.library or str(kiku_kernels.library())
    print(f"numpy's sum reads {reading_limit() / 1e9:.1f} GB/s with one thread")
    for threads in args.threads:
        for bits in args.bits:
            peak = arithmetic_limit(bits, threads, args.library) / 1e9
            print(f"\n{bits} bits, {threads} threads, in the cache: {peak:.0f} G products/s")
            print(
                "  KxN         bits threads rows    ORT us    own us  ratio   GB/s G prod/s of peak"
            )
            for shape in args.shapes:
                measure(shape, bits, threads, args, peak)


if __name__ == "__main__":
    main()
