"""The assumptions of a plan, one line each, with their numbers."""

from collections.abc import Sequence

from kiku.config import ModelConfig
from kiku.engine.gpu.room import MAX_FRAMES, workspace_bytes
from kiku.measure import known
from kiku.measure.fits import DRIVER_BYTES, ENOUGH, PlanOptions
from kiku.measure.hardware import Hardware
from kiku.measure.roofline import CALL_FRAMES, NetworkCost, codec_dtype, places

_SEEN = {
    "gpu": "no GPU was measured; what others published comes to 0.2 to 0.4, or more",
    "cpu": "the benchmarks reach 0.4 to 0.8 on two cores",
}
_MEGA, _GIGA, _TERA = 1e6, 1e9, 1e12


def assumptions(
    config: ModelConfig,
    hardware: Hardware,
    options: PlanOptions,
    parts: Sequence[NetworkCost],
    timed_kv_dtype: str | None = None,
) -> tuple[str, ...]:
    """All assumptions, one sentence each; for `timed_kv_dtype` see `Plan`."""
    return (
        *_of_hardware(hardware),
        *_of_reading(config, options, parts),
        *_of_kernels(hardware, options),
        *_of_times(options, timed_kv_dtype),
        *_of_computing(hardware, options, parts),
        f"p99 of a step: the roofline's time divided by {options.efficiency:g} (--efficiency), an "
        f"assumption: {_SEEN[hardware.kind]}",
        *_of_memory(config, hardware, options, parts),
        f"recordings: as many at once as bring {ENOUGH:g} of what a full memory would, one frame "
        "of each a step, machines busy day and night; blocks of frames, in which kiku reads "
        "recordings faster, are not counted",
        _of_the_server(config),
    )


def _of_the_server(config: ModelConfig) -> str:
    *_, (machine, most) = (measured := known.socket_us()).items()
    least = min(measured.values())
    return (
        f"not counted: the server's own work for a stream's frame, measured to be {least:.0f} to "
        f"{most:.0f} microseconds of one core; as slow as on {machine}, one process serves up to "
        f"{known.streams_a_process(config.frame_rate):,} streams; weights, in memory and in time, "
        "are counted once, however many processes there are"
    )


def _of_hardware(hardware: Hardware) -> tuple[str, ...]:
    numbers = (
        f"hardware: {hardware.source}; GB are 10^9 bytes, memory is read at "
        f"{hardware.bandwidth / _GIGA:,.6g} GB/s"
    )
    if hardware.kind == "gpu":
        return (f"{numbers}, arithmetic is that of dense matrices",)
    cores = hardware.cores or 1
    return (
        numbers,
        f"{cores} core{'s' if cores > 1 else ''} of 3.7 GHz, each "
        f"{hardware.rate('int8') / cores / _GIGA:,.0f} G operations a second in 8 bits and "
        f"{hardware.rate('float32') / cores / _GIGA:,.0f} in float32",
    )


def _of_kernels(hardware: Hardware, options: PlanOptions) -> tuple[str, ...]:
    if hardware.kind == "cpu" and options.kv_dtype == "int8":
        return (
            f"keys and values of 8 bits: kiku keeps them with --dtype {options.dtype}_kv8 and "
            "kiku-kernels (kiku doctor says whether they are used)",
        )
    if hardware.kind == "gpu" or options.kv_dtype != "float16":
        return ()
    return (
        "keys and values of 16 bits: as kiku-kernels keep them (kiku doctor says whether they are "
        "used); without them they have 32, --kv-dtype float32",
    )


def _of_times(options: PlanOptions, timed_kv_dtype: str | None) -> tuple[str, ...]:
    if timed_kv_dtype is None:
        return ()
    return (
        f"times that were measured here had keys and values in {timed_kv_dtype}; with "
        f"{options.kv_dtype} none was measured: a step reads less then, and should take no longer",
    )


def _of_reading(
    config: ModelConfig, options: PlanOptions, parts: Sequence[NetworkCost]
) -> tuple[str, ...]:
    codec, decoder = parts
    window_s = config.lm.transformer.window / config.frame_rate
    return (
        f"a step reads all weights once: the decoder's {decoder.weight_bytes / _GIGA:.3g} GB "
        f"({options.dtype}) and the codec's {codec.weight_bytes / _GIGA:.3g} GB "
        f"({codec_dtype(str(options.dtype))})",
        f"and the keys and values of every stream, windows full ({window_s:g} s): "
        f"{decoder.stream_bytes / _MEGA:.4g} MB ({options.kv_dtype}), the codec's "
        f"{codec.stream_bytes / _MEGA:.4g} MB",
    )


def _of_computing(
    hardware: Hardware, options: PlanOptions, parts: Sequence[NetworkCost]
) -> tuple[str, ...]:
    codec, decoder = parts
    (dtype, products), (kv, attention) = decoder.ops
    lines = (
        f"it computes for every stream {products / _GIGA:.3g} G operations at "
        f"{hardware.rate(dtype) / _TERA:,.4g} T a second ({options.dtype}), attention's "
        f"{attention / _GIGA:.3g} G at {hardware.rate(kv) / _TERA:,.4g} T, the codec's "
        + " and ".join(
            f"{count / _GIGA:.3g} G at {hardware.rate(own) / _TERA:,.4g} T ({own})"
            for own, count in codec.ops
        ),
        "decoder and codec each take the longer of reading and computing, one after the other; "
        "what passes between layers stays in caches",
    )
    if (other := hardware.computed_as(dtype)) != dtype:
        lines += (f"{dtype} is turned into {other}, for which there are units here",)
    return lines


def _of_memory(
    config: ModelConfig, hardware: Hardware, options: PlanOptions, parts: Sequence[NetworkCost]
) -> tuple[str, ...]:
    kept = sum(part.kept_bytes for part in parts)
    each = sum(part.kept_stream_bytes for part in parts)
    count = places(config.lm.transformer, on_gpu=hardware.kind == "gpu")
    lines = (
        f"memory: {options.memory_share:g} of it (--memory-share) for weights "
        f"({kept / _GIGA:.3g} GB with embeddings) and streams ({each / _MEGA:.4g} MB: keys and "
        f"values of {count} positions, which are the window and room to "
        "go back, and the codec's state)",
    )
    if hardware.kind == "gpu":
        workspace = workspace_bytes(config.codec, config.lm, MAX_FRAMES, CALL_FRAMES)
        lines += (
            "or of less, for streams that engine cuda does not refuse: beside them it keeps a slot "
            f"to spare and up to {workspace / _GIGA:.3g} GB for computing, and CUDA itself "
            f"{DRIVER_BYTES / _GIGA:g} GB, a guess",
        )
    return lines
