"""How many streams of a model memory and time allow on a machine."""

import math
from dataclasses import dataclass
from typing import Literal

from kiku.checkpoint.tensor_shapes import is_small
from kiku.config import ModelConfig
from kiku.engine.choice import DTYPES as ENGINE_DTYPES
from kiku.engine.gpu.room import slots_in, workspace_bytes
from kiku.errors import InputError
from kiku.measure import known
from kiku.measure.hardware import Hardware, check_within
from kiku.measure.roofline import CALL_FRAMES, KV_BITS, codec, decoder, most_streams, step_ms

DTYPES = ("float32", "bfloat16", "int8", "int4")
"""Dtypes of weights."""

DRIVER_BYTES = 500_000_000
"""Bytes of a GPU's memory that CUDA itself takes in a process, roughly: not free to an engine."""

ENOUGH = 0.9
"""Share of the speed at full memory that is enough: more recordings run at once until it is
reached."""

_KV8 = "_kv8"
"""End of the names of precisions that keep keys and values in int8."""
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "float8": "fp8"}
_ON_GPU = tuple(
    name for name in DTYPES if name in {*ENGINE_DTYPES["torch"], *ENGINE_DTYPES["cuda"]}
)
"""Dtypes in which kiku's engines for GPUs keep weights."""

_KV_ON_CPU = tuple(name for name in KV_BITS if name != "fp8")
"""Dtypes in which kiku's engines for processors keep keys and values."""

_KV_ON_GPU = tuple(name for name in KV_BITS if name != "int8")
"""Dtypes in which kiku's engines for GPUs keep keys and values."""

_KV8_BESIDE = ("int8", "int4")
"""Dtypes of weights beside which keys and values can have 8 bits."""

Basis = Literal["measured", "roofline"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, and how it was found."""

    value: float
    basis: Basis


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The assumptions of a plan that can be chosen.

    Raises:
        InputError: a value is not allowed.
    """

    dtype: str | None = None
    """The type of the decoder's weights, one of `DTYPES`; None is bfloat16 on a GPU, and what kiku
    chooses on a processor. "int8_kv8" and "int4_kv8" mean keys and values in int8, too."""
    kv_dtype: str | None = None
    """The type of keys and values; None is bfloat16 on a GPU, and on a processor what kiku keeps
    there with kiku-kernels: float16 if weights are rounded, else float32."""
    p99_ms: float = 80.0
    """Milliseconds that 99 of 100 steps may take at most."""
    efficiency: float = 0.5
    """The roofline's time, divided by the p99 of a step."""
    memory_share: float = 0.9
    """Share of the memory for weights and streams, at most. On a GPU the memory that the engine
    keeps for computing may leave less."""

    def __post_init__(self) -> None:
        if isinstance(self.dtype, str) and self.dtype.endswith(_KV8) and not self.kv_dtype:
            object.__setattr__(self, "dtype", self.dtype.removesuffix(_KV8))
            object.__setattr__(self, "kv_dtype", "int8")
        for name, allowed in (("dtype", DTYPES), ("kv_dtype", tuple(KV_BITS))):
            value = getattr(self, name)
            value = _SHORT.get(value, value)
            if value is not None and value not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
            object.__setattr__(self, name, value)
        check_within("p99_ms", self.p99_ms)
        check_within("efficiency", self.efficiency, 1)
        check_within("memory_share", self.memory_share, 1)

    def chosen(self, hardware: Hardware, config: ModelConfig) -> "PlanOptions":
        """The same options, with a type in place of each None.

        Raises:
            InputError: no engine of kiku has these types on this kind of hardware.
        """
        on_gpu = hardware.kind == "gpu"
        where = "a GPU" if on_gpu else "a processor"
        if on_gpu:
            _refuse_unless_in(_ON_GPU, "dtype", self.dtype, where)
        has = _KV_ON_GPU if on_gpu else _KV_ON_CPU
        _refuse_unless_in(has, "kv_dtype", self.kv_dtype, where)
        usual = "bfloat16" if on_gpu else "float32" if is_small(config.lm) else "int8"
        dtype = self.dtype or usual
        if self.kv_dtype == "int8" and dtype not in _KV8_BESIDE:
            raise InputError(
                f"kv_dtype int8 is for weights in {' or '.join(_KV8_BESIDE)}, not {dtype}: "
                "leave it out, or choose other weights"
            )
        usual_kv = "float16" if dtype in _KV8_BESIDE else "float32"
        return PlanOptions(
            dtype,
            self.kv_dtype or ("bfloat16" if on_gpu else usual_kv),
            self.p99_ms,
            self.efficiency,
            self.memory_share,
        )


def _refuse_unless_in(has: tuple[str, ...], name: str, value: str | None, where: str) -> None:
    if value not in (None, *has):
        raise InputError(
            f"{name} on {where} must be one of {', '.join(has)}: no engine of kiku supports "
            f"{value} there"
        )


class Fits:
    """A model on a machine: streams by memory and by time, and the speed of recordings."""

    def __init__(
        self,
        config: ModelConfig,
        hardware: Hardware,
        options: PlanOptions,
        own: known.Measured | None = None,
    ) -> None:
        """`options` have all types chosen; `own` was measured on this very machine."""
        dtype, kv_dtype = str(options.dtype), str(options.kv_dtype)
        on_gpu = hardware.kind == "gpu"
        parts = (
            codec(config.codec, dtype, on_gpu=on_gpu),
            decoder(config.lm, dtype, kv_dtype, on_gpu=on_gpu),
        )
        self.parts = parts
        self.fixed = Figure(sum(part.kept_bytes for part in parts), "roofline")
        """Bytes of memory that are used however many streams there are."""
        self.stream = Figure(sum(part.kept_stream_bytes for part in parts), "roofline")
        """Bytes of memory of each stream."""
        if own is not None and own.fixed_bytes is not None and own.stream_bytes is not None:
            self.fixed = Figure(own.fixed_bytes, "measured")
            self.stream = Figure(own.stream_bytes, "measured")
        self._config, self._hardware, self._options = config, hardware, options
        self._own = own

    def by_memory(self) -> Figure | None:
        """How many streams fit into the memory; None if its size is not known."""
        if (usable := self._usable) is None:
            return None
        room = max(0, math.floor((usable - self.fixed.value) / self.stream.value))
        if (memory := self._beside_weights) is not None:
            room = self._taken_by_engine(memory, room)
        return Figure(room, self.stream.basis)

    def workspace(self, streams: int) -> int:
        """Bytes that the engine for GPUs keeps for computing, besides those of the streams."""
        config = self._config
        return workspace_bytes(config.codec, config.lm, streams, CALL_FRAMES)

    def _taken_by_engine(self, memory: float, most: int) -> int:
        """How many streams, `most` at most, the engine for GPUs does not refuse at its start."""
        low, high = 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            fit = slots_in(memory, self.stream.value, self.workspace(middle))
            low, high = (middle, high) if middle <= fit else (low, middle)
        return low

    def by_time(self) -> Figure:
        """How many streams there can be with the p99 of a step within `p99_ms`."""
        options = self._options
        ms = options.p99_ms
        expected = most_streams(self.parts, self._hardware, ms * options.efficiency)
        if self._own is not None and self._own.live:
            seen = self._own.streams_within(ms)
            if seen > expected or self._own.exceeded(ms):
                return Figure(seen, "measured")
        return Figure(expected, "roofline")

    def at_best(self) -> int:
        """How many streams time would allow if all of the roofline were reached."""
        return most_streams(self.parts, self._hardware, self._options.p99_ms)

    def step(self, streams: int) -> Figure:
        """The p99 of a step of `streams` streams, in ms."""
        seen = {} if self._own is None else dict(self._own.live)
        if streams in seen:
            return Figure(seen[streams], "measured")
        at_best = step_ms(self.parts, self._hardware, streams)
        return Figure(at_best / self._options.efficiency, "roofline")

    def recordings(self, at_most: int, at_once: int | None = None) -> tuple[Figure, int]:
        """Seconds of sound a second, and how many recordings at once reach that.

        Args:
            at_most: recordings at once that there is room for.
            at_once: how many shall go at once; None is as few as are nearly the fastest.
        """
        if self._own is not None and self._own.speed is not None:
            return Figure(self._own.speed, "measured"), 1
        if at_once is not None:
            at_once = min(at_once, at_most)
            return Figure(self._speed(at_once), "roofline"), at_once
        at_once = 1
        while at_once < at_most and self._speed(at_once) < ENOUGH * self._speed(at_most):
            at_once = min(2 * at_once, at_most)
        return Figure(self._speed(at_once), "roofline"), at_once

    def bytes_of(self, streams: int) -> float:
        """Bytes of memory in use by `streams` streams and what all share."""
        return self.fixed.value + streams * self.stream.value

    def processes(self, streams: float) -> int:
        """Processes of the server that feed so many streams, at least."""
        return math.ceil(streams / known.streams_a_process(self._config.frame_rate))

    def problem(self) -> str:
        """Why not even one stream fits; None if one does."""
        options, usable = self._options, self._usable
        weights = f"the weights take {size(self.fixed.value)}"
        if usable is not None and self.bytes_of(1) > usable:
            has = f"{options.memory_share:g} of the memory is {size(usable)}"
            if self.fixed.value > usable:
                return (
                    f"{weights}, but {has}: use weights of fewer bits, a smaller model, or more "
                    "memory"
                )
            return (
                f"{weights} and a stream {size(self.stream.value)}, but {has}: use keys and "
                "values, or weights, of fewer bits, or more memory"
            )
        beside = self.stream.value + self.workspace(1)
        if (free := self._beside_weights) is not None and self.stream.value + beside > free:
            return (
                f"{weights}, a stream {size(self.stream.value)}, and computing, a spare slot and "
                f"CUDA itself {size(beside + DRIVER_BYTES)}: use weights of fewer bits, a smaller "
                "model, or more memory"
            )
        reading = sum(part.weight_bytes for part in self.parts) / self._hardware.bandwidth
        return (
            f"a step of one stream takes {self.step(1).value:,.1f} ms but may take at most "
            f"{options.p99_ms:g}; reading the weights alone takes {1000 * reading:,.1f}: use "
            "weights of fewer bits, a smaller model, or faster memory"
        )

    @property
    def _beside_weights(self) -> float | None:
        """Bytes of a GPU's memory that the engine finds free besides the weights; None on a
        processor, or if the memory is not known."""
        memory = self._hardware.memory_bytes
        if memory is None or self._hardware.kind != "gpu":
            return None
        return memory - DRIVER_BYTES - self.fixed.value

    @property
    def _usable(self) -> float | None:
        memory = self._hardware.memory_bytes
        return None if memory is None else memory * self._options.memory_share

    def _speed(self, at_once: int) -> float:
        expected = step_ms(self.parts, self._hardware, at_once) / self._options.efficiency
        return at_once / self._config.frame_rate / expected * 1000


def size(num_bytes: float) -> str:
    """A number of bytes, as people read it."""
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:,.1f} MB"
    return f"{num_bytes / 1e9:,.2f} GB"
