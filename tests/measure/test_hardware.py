"""GPUs by name and by number, and processors."""

import pytest

from kiku.errors import InputError
from kiku.measure.hardware import GPUS, cpu, cpu_of, gpu
from kiku.measure.machine import Machine

NUMBERS = {"memory_gb": 192.0, "bandwidth_gb_s": 5300.0, "tflops": 1307.0}


@pytest.mark.parametrize("name", GPUS)
def test_data_sheets_are_sane(name: str) -> None:
    found = gpu(name)
    assert found is GPUS[name]
    assert 16e9 < (found.memory_bytes or 0) < 300e9
    assert 200e9 < found.bandwidth < 10e12
    # Dense, and not TF32: the units for matrices are faster the fewer bits they take.
    assert found.rate("float32") < found.rate("bfloat16") < found.rate("int8")
    assert found.rate("bfloat16") <= found.rate("fp8") <= found.rate("int8")
    assert "NVIDIA" in found.source


@pytest.mark.parametrize("typed", ["H100", "RTX 4090", "a100_40gb"])
def test_names_may_be_written_otherwise(typed: str) -> None:
    assert gpu(typed) in GPUS.values()


def test_numbers_take_the_place_of_a_data_sheets() -> None:
    half = gpu("h100", memory_gb=40)
    assert (half.memory_bytes, half.bandwidth) == (40e9, GPUS["h100"].bandwidth)
    assert half.source == "NVIDIA H100 datasheet, and as given"
    assert gpu("h100", bandwidth_gb_s=1000).bandwidth == 1e12
    assert gpu("h100", tflops=100).rate("bfloat16") == 1e14


def test_another_gpu_is_known_by_its_numbers() -> None:
    found = gpu("mi300x", **NUMBERS)
    assert (found.name, found.memory_bytes, found.bandwidth) == ("mi300x", 192e9, 5.3e12)
    assert found.rate("bfloat16") == found.rate("int4") == found.rate("fp8") == 1307e12
    assert found.rate("float32") == 1307e12 / 16


@pytest.mark.parametrize("missing", NUMBERS)
def test_a_gpu_that_nobody_knows_is_refused(missing: str) -> None:
    given = {name: value for name, value in NUMBERS.items() if name != missing}
    with pytest.raises(InputError, match=rf"'mi300x'; choose one of .*l40s.*\(missing: {missing}\)"):
        gpu("mi300x", **given)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e300, 10**400])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be from .* to"):
        gpu("h100", **{name: value})
    with pytest.raises(InputError, match=f"{name} must be"):
        gpu("other", **{**NUMBERS, name: value})
    if name != "tflops":
        with pytest.raises(InputError, match=f"{name} must be"):
            cpu(2, **{"bandwidth_gb_s": 30.0, name: value})


def test_a_processor_has_so_many_cores() -> None:
    two, eight = cpu(2, 30), cpu(8, 30, memory_gb=64)
    assert eight.rate("int8") == 4 * two.rate("int8")
    assert (two.memory_bytes, eight.memory_bytes) == (None, 64e9)
    with pytest.raises(InputError, match="cores must be from 1"):
        cpu(0, 30)


def test_a_machine_is_as_fast_as_its_instructions() -> None:
    def rates(*instructions: str) -> tuple[float, float]:
        found = cpu_of(Machine("A Xeon", "x86_64", instructions, 4, 8_000_000_000), 20e9)
        assert (found.cores, found.bandwidth, found.memory_bytes) == (4, 20e9, 8e9)
        return found.rate("int8"), found.rate("float32")

    assert rates("AVX2", "AVX-512 VNNI")[0] > rates("AVX2")[0] > rates()[0] == rates()[1]
    unknown = cpu_of(Machine("?", "?", None, 1, None), 1e9)
    assert unknown.memory_bytes is None
