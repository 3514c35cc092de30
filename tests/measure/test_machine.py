"""What the system says about itself, and what the memory allows."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from kiku.checkpoint.model_shapes import SHAPES
from kiku.engine.choice import usable_threads
from kiku.graph import PRECISIONS, precision_of_weights
from kiku.measure.limit import limit, share_of_limit, weight_bytes, window_bytes
from kiku.measure.machine import (
    instructions_of,
    private_bytes,
    read_bandwidth,
    resident_bytes,
    this_machine,
)

_INTEL = "processor\t: 0\nmodel name\t: A Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_tile\n"
_ARM = "processor\t: 0\nBogoMIPS\t: 50\nFeatures\t: fp asimd asimddp i8mm\n"


def test_instructions_are_read_from_cpuinfo() -> None:
    name, instructions = instructions_of(_INTEL + _INTEL)
    assert (name, instructions) == ("A Xeon", ("AVX2", "AVX-512", "AVX-512 VNNI", "AMX"))
    assert instructions_of(_ARM)[1] == ("NEON", "dot product", "i8mm")
    assert instructions_of("")[1] == ()


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine.threads == usable_threads() >= 1
    assert machine.to_dict()["processor"]


def test_bandwidth_is_bytes_by_seconds() -> None:
    ticks = itertools.count()
    # Each look at the clock is a second: a round takes one.
    found = read_bandwidth(4096, seconds=0.0, threads=2, clock=lambda: float(next(ticks)))
    assert found == 4096


def test_resident_memory_is_that_of_this_process() -> None:
    found = resident_bytes()
    assert found is None or found > 10_000_000


def test_private_memory_knows_no_mapped_files(tmp_path: Path) -> None:
    before = private_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    path = tmp_path / "file"
    path.write_bytes(bytes(64_000_000))
    mapped = np.memmap(path, np.uint8, "r")
    own = np.ones(64_000_000, np.uint8)
    assert mapped.sum() == 0  # all of it was read
    grown = (private_bytes() or 0) - before
    assert 60_000_000 < grown < 100_000_000
    assert own[-1] == 1


@pytest.mark.parametrize(
    ("shape", "precision", "gigabytes"),
    [("1b", "int8", 0.87), ("1b", "int4", 0.46), ("1b", "float32", 3.35), ("2.6b", "int8", 2.55)],
)
def test_the_published_models_weigh_what_they_weigh(
    shape: str, precision: str, gigabytes: float
) -> None:
    assert weight_bytes(SHAPES[shape].lm, precision) / 1e9 == pytest.approx(gigabytes, rel=0.03)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_weigh_the_same_whatever_keys_are_kept_in(precision: str) -> None:
    lm = SHAPES["1b"].lm
    assert weight_bytes(lm, precision) == weight_bytes(lm, precision_of_weights(precision))


def test_the_limit_is_bytes_by_bandwidth() -> None:
    lm = SHAPES["1b"].lm
    found = limit(lm, "int8", 40e9)
    assert found.ms == pytest.approx(found.weight_bytes / 40e6, abs=0.01)
    assert found.ms_full_window > found.ms
    assert window_bytes(lm) == 2 * 4 * 16 * 2048 * 750
    assert share_of_limit(lm, "int8", 40e9, found.ms * 2) == pytest.approx(0.5, abs=0.001)
    full = share_of_limit(lm, "int8", 40e9, found.ms_full_window * 2, full_window=True)
    assert full == pytest.approx(0.5, abs=0.001)
    halves = limit(lm, "int8", 40e9, key_bits=16)
    assert halves.window_bytes == window_bytes(lm, 16) == window_bytes(lm) // 2
    half_ms = (halves.weight_bytes + halves.window_bytes) / 40e6
    share = share_of_limit(lm, "int8", 40e9, half_ms, full_window=True, key_bits=16)
    assert share == pytest.approx(1, abs=0.001)
    eight = limit(lm, "int8_kv8", 40e9, key_bits=8)
    assert (eight.precision, eight.weight_bytes) == ("int8_kv8", halves.weight_bytes)
    # A float32 for each key and each value of 16 heads in 16 layers, 750 positions.
    assert eight.window_bytes == halves.window_bytes // 2 + 2 * 4 * 16 * 16 * 750
    assert halves.ms_full_window > eight.ms_full_window > eight.ms
