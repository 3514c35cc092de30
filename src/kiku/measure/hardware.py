"""What machines can do by their data sheets: memory, how fast it is read, arithmetic."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from kiku.errors import InputError
from kiku.measure.machine import Machine

_GB, _TERA = 1e9, 1e12
_LEAST, _MOST = 1e-6, 1e7  # GB, GB/s and TFLOPS beyond these are a mistake
_FLOAT32_PART = 16  # bfloat16's rate by float32's, if only the former is known: an H100's

# What one core of 3.7 GHz does: two multiply-add units of 256 bits; products of 8-bit numbers in
# one instruction or in several; 16 bits at twice the rate of 32 where there are instructions.
_CORE_FLOAT32 = 118e9
_CORE_INT8 = {
    "AVX-512 VNNI": 473e9,
    "AVX-VNNI": 473e9,
    "AVX2": 237e9,
    "dot product": 237e9,
}


@dataclass(frozen=True, slots=True)
class Hardware:
    """The numbers of a machine that decide how many streams fit."""

    name: str
    kind: Literal["gpu", "cpu"]
    memory_bytes: float | None
    """Bytes of its memory; None if that is not known."""
    bandwidth: float
    """Bytes a second that can be read from its memory."""
    rates: Mapping[str, float]
    """Type of numbers -> operations a second, a multiplication and an addition being two; of dense
    matrices."""
    source: str
    """Where these numbers are from."""
    cores: int | None = None
    """Cores of a processor; None for a GPU."""

    def computed_as(self, dtype: str) -> str:
        """The type that numbers are turned into if the hardware has no units for theirs: int4 into
        int8, fp8 into bfloat16, bfloat16 into float32."""
        while dtype not in self.rates:
            dtype = _TURNED_INTO[dtype]
        return dtype

    def rate(self, dtype: str) -> float:
        """Operations a second in a type of numbers, or in the one that it is turned into."""
        return self.rates[self.computed_as(dtype)]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return {**asdict(self), "rates": dict(self.rates)}


_TURNED_INTO = {"int4": "int8", "int8": "bfloat16", "fp8": "bfloat16", "bfloat16": "float32"}


def _gpu(
    name: str, memory_gb: float, bandwidth_gb_s: float, source: str, **tflops: float
) -> Hardware:
    rates = {dtype: value * _TERA for dtype, value in tflops.items()}
    return Hardware(name, "gpu", memory_gb * _GB, bandwidth_gb_s * _GB, rates, source)


# Data sheets give most rates "with sparsity": half of such a rate is stated here. float32 is that
# of the ordinary cores, not TF32, which would change the codec's codes. GeForce: 16 and 8 bits with
# sums in float32.
GPUS: Mapping[str, Hardware] = {
    # NVIDIA Blackwell datasheet (HGX B200, per GPU)
    "b200": _gpu(
        "NVIDIA B200", 180, 7700, "NVIDIA HGX B200 datasheet",
        float32=75, bfloat16=2250, int8=4500, fp8=4500,
    ),
    # NVIDIA H200 Tensor Core GPU datasheet (SXM)
    "h200": _gpu(
        "NVIDIA H200 SXM", 141, 4800, "NVIDIA H200 datasheet",
        float32=67, bfloat16=989, int8=1979, fp8=1979,
    ),
    # NVIDIA H100 Tensor Core GPU datasheet (SXM; PCIe)
    "h100": _gpu(
        "NVIDIA H100 SXM", 80, 3350, "NVIDIA H100 datasheet",
        float32=67, bfloat16=989, int8=1979, fp8=1979,
    ),
    "h100-pcie": _gpu(
        "NVIDIA H100 PCIe", 80, 2000, "NVIDIA H100 datasheet",
        float32=51, bfloat16=756, int8=1513, fp8=1513,
    ),
    # NVIDIA A100 Tensor Core GPU datasheet (80 GB SXM; 40 GB). No fp8 units.
    "a100": _gpu(
        "NVIDIA A100 80 GB", 80, 2039, "NVIDIA A100 datasheet",
        float32=19.5, bfloat16=312, int8=624,
    ),
    "a100-40gb": _gpu(
        "NVIDIA A100 40 GB", 40, 1555, "NVIDIA A100 datasheet",
        float32=19.5, bfloat16=312, int8=624,
    ),
    # NVIDIA L40S datasheet
    "l40s": _gpu(
        "NVIDIA L40S", 48, 864, "NVIDIA L40S datasheet",
        float32=91.6, bfloat16=362, int8=733, fp8=733,
    ),
    # NVIDIA L4 Tensor Core GPU datasheet
    "l4": _gpu(
        "NVIDIA L4", 24, 300, "NVIDIA L4 datasheet",
        float32=30.3, bfloat16=121, int8=242, fp8=242,
    ),
    # NVIDIA A10 Tensor Core GPU datasheet. No fp8 units.
    "a10": _gpu(
        "NVIDIA A10", 24, 600, "NVIDIA A10 datasheet", float32=31.2, bfloat16=125, int8=250
    ),
    # NVIDIA RTX Blackwell GPU architecture, appendix
    "rtx5090": _gpu(
        "NVIDIA GeForce RTX 5090", 32, 1792, "NVIDIA RTX Blackwell GPU architecture",
        float32=104.8, bfloat16=209.5, int8=838, fp8=419,
    ),
    # NVIDIA Ada GPU architecture, appendix A
    "rtx4090": _gpu(
        "NVIDIA GeForce RTX 4090", 24, 1008, "NVIDIA Ada GPU architecture",
        float32=82.6, bfloat16=165.2, int8=660.6, fp8=330.3,
    ),
    # NVIDIA Ampere GA102 GPU architecture, appendix A. No fp8 units.
    "rtx3090": _gpu(
        "NVIDIA GeForce RTX 3090", 24, 936, "NVIDIA Ampere GA102 GPU architecture",
        float32=35.6, bfloat16=71, int8=284,
    ),
}  # fmt: skip
"""Name on the command line -> the GPU."""


def gpu(
    name: str,
    *,
    memory_gb: float | None = None,
    bandwidth_gb_s: float | None = None,
    tflops: float | None = None,
) -> Hardware:
    """A GPU by its name, or by its numbers.

    Args:
        name: one of `GPUS`, or any other where all three numbers are given.
        memory_gb: takes the place of the data sheet's, for example for a part of a GPU.
        bandwidth_gb_s: takes the place of the data sheet's.
        tflops: dense, in bfloat16. 8 bits are then taken to be as fast, and float32 to be 16 times
            slower.

    Raises:
        InputError: the GPU is not known, or a number is out of range.
    """
    given = {"memory_gb": memory_gb, "bandwidth_gb_s": bandwidth_gb_s, "tflops": tflops}
    for what, value in given.items():
        if value is not None:
            check_within(what, value)
    known = GPUS.get(name.lower().replace(" ", "").replace("_", "-"))
    if known is None:
        if memory_gb is None or bandwidth_gb_s is None or tflops is None:
            missing = ", ".join(what for what, value in given.items() if value is None)
            raise InputError(
                f"there are no numbers for a GPU {name!r}; choose one of {', '.join(GPUS)}; for "
                f"another give memory_gb, bandwidth_gb_s and tflops (missing: {missing})"
            )
        return replace(_gpu(name, memory_gb, bandwidth_gb_s, "as given"), rates=_rates_of(tflops))
    found = known
    if memory_gb is not None:
        found = replace(found, memory_bytes=memory_gb * _GB)
    if bandwidth_gb_s is not None:
        found = replace(found, bandwidth=bandwidth_gb_s * _GB)
    if tflops is not None:
        found = replace(found, rates=_rates_of(tflops))
    if found != known:
        found = replace(found, source=f"{known.source}, and as given")
    return found


def cpu(
    cores: int, bandwidth_gb_s: float, *, memory_gb: float | None = None, name: str | None = None
) -> Hardware:
    """A processor by its numbers, with instructions for 8-bit products.

    Raises:
        InputError: a number is out of range.
    """
    check_within("cores", cores, least=1)
    check_within("bandwidth_gb_s", bandwidth_gb_s)
    if memory_gb is not None:
        check_within("memory_gb", memory_gb)
    return _cpu(name or "a processor", cores, bandwidth_gb_s * _GB, memory_gb, "AVX-512 VNNI")


def cpu_of(machine: Machine, bandwidth: float) -> Hardware:
    """The hardware of a machine whose memory was measured to be read at `bandwidth` bytes a
    second."""
    memory = None if machine.memory_bytes is None else machine.memory_bytes / _GB
    has = machine.instructions or ()
    best = next((name for name in _CORE_INT8 if name in has), "")
    found = _cpu(machine.processor, machine.threads, bandwidth, memory, best)
    return replace(found, source="this machine; its memory was read just now")


def _cpu(
    name: str, cores: int, bandwidth: float, memory_gb: float | None, instructions: str
) -> Hardware:
    rates = {
        "float32": cores * _CORE_FLOAT32,
        "int8": cores * _CORE_INT8.get(instructions, _CORE_FLOAT32),
    }
    memory = None if memory_gb is None else memory_gb * _GB
    return Hardware(name, "cpu", memory, bandwidth, rates, "as given", cores)


def _rates_of(tflops: float) -> dict[str, float]:
    return {"float32": tflops * _TERA / _FLOAT32_PART, "bfloat16": tflops * _TERA}


def check_within(what: str, value: float, most: float = _MOST, *, least: float = _LEAST) -> None:
    """Check that a value is from `least` to `most`: above 0, and not absurd.

    Raises:
        InputError: it is not.
    """
    if not least <= value <= most:  # true of NaN, too
        seen = str(value)
        seen = seen if len(seen) <= 40 else f"{seen[:40]}..."
        raise InputError(f"{what} must be from {least:g} to {most:,.0f}, not {seen}")
