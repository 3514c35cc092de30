"""The two networks as sessions of ONNX Runtime, with the state of each for every slot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import ModelConfig, TransformerConfig
from kiku.engine.backend import Said
from kiku.engine.forked import Held
from kiku.engine.kernels import Kernels
from kiku.engine.memory import BatchLayout, OrderedMemory, PositionMemory, RingMemory
from kiku.engine.quiet import onnxruntime
from kiku.errors import CheckpointError
from kiku.graph import (
    CODEC_GRAPH,
    DECODER_GRAPH,
    Variant,
    code_offsets,
    codec_pasts,
    empty_row,
    graph_file,
)

_CODEC_FRAMES = 16
"""Frames that one call of the codec takes at most; more would be no quicker."""

_CODEC_NUMBERS = 1 << 20
"""Numbers that the codec's first layer writes in one call at most: 8 frames of Mimi. Sixteen frames
would be quicker by a seventh, but take 28 MB more."""

WIDTH = 16
"""Columns that the decoder reads in one pass of a block."""

_MAX_BINDINGS = 32
"""How many groups of slots have buffers that stay bound, at most."""

Array = NDArray[Any]


class OnnxNetwork:
    """A session and the keys and values that it writes in place."""

    def __init__(
        self,
        folder: Path,
        name: str,
        config: TransformerConfig,
        num_slots: int,
        max_block: int,
        threads: int,
        used: Kernels,
    ) -> None:
        """Load a network's graph.

        Raises:
            CheckpointError: ONNX Runtime cannot run it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # shapes change from call to call
        # Threads spin while they wait between two operators, which is quickest. Between two calls
        # they must not: then the other network runs, and its threads need the processors.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        used.register(options)
        path = folder / graph_file(name, used.variant)
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise CheckpointError(
                f"{path} cannot be run by onnxruntime {onnxruntime.__version__} "
                f"({str(error).splitlines()[0]}); convert the model again"
            ) from error
        if used.variant is Variant.PLAIN:
            self.memory: PositionMemory = OrderedMemory(config, num_slots, max_block)
        else:
            dtype = _dtype_of_keys(session)
            self.memory = RingMemory(config, num_slots, max_block, dtype)
        self._held = Held(session)  # its threads do not live on in a forked process
        self._session: Any = session
        self._bindings: dict[tuple[range, tuple[str, ...]], Any] = {}

    def run(
        self, layout: BatchLayout, inputs: dict[str, Array], outputs: tuple[str, ...]
    ) -> list[Array]:
        """Run the session once and return `outputs`; positions are not advanced."""
        binding = self._binding(layout.slots, outputs)
        for name, array in {**layout.inputs, **inputs}.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in outputs:  # bound again, as their shapes change
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()[-len(outputs) :]]

    def _binding(self, slots: range, outputs: tuple[str, ...]) -> Any:
        """A binding whose keys and values, in and out, are the buffers of `slots`."""
        if (slots, outputs) in self._bindings:  # it moves to the end, as the last used
            self._bindings[slots, outputs] = self._bindings.pop((slots, outputs))
            return self._bindings[slots, outputs]
        binding: Any = self._session.io_binding()
        memory = self.memory
        shape = (len(slots), *memory.keys[0].shape[1:])
        for part, buffers in (("keys", memory.keys), ("values", memory.values)):
            for layer, buffer in enumerate(buffers):
                place = buffer[slots.start].ctypes.data
                binding.bind_input(f"{part}_{layer}", "cpu", 0, buffer.dtype, shape, place)
                binding.bind_output(f"new_{part}_{layer}", "cpu", 0, buffer.dtype, shape, place)
        if len(self._bindings) >= _MAX_BINDINGS:  # each keeps the arrays of its last call
            del self._bindings[next(iter(self._bindings))]
        self._bindings[slots, outputs] = binding
        return binding


_KEPT_IN: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8,
}  # fmt: skip


def _dtype_of_keys(session: Any) -> type[np.generic]:
    """The dtype in which the graph keeps keys and values."""
    types = {one.name: one.type for one in session.get_inputs()}
    return _KEPT_IN[types["keys_0"]]


@dataclass(frozen=True, slots=True)
class CodecMark:
    """Where a slot of the codec stood."""

    position: int
    begun: bool
    pasts: list[Array]


class OnnxCodec(OnnxNetwork):
    """The codec's session, its keys and values, and the convolutions' state of every slot."""

    def __init__(
        self, folder: Path, config: ModelConfig, num_slots: int, threads: int, used: Kernels
    ) -> None:
        self._config = config.codec
        width = config.codec.frame_size * config.codec.num_filters
        self._most = max(1, min(_CODEC_FRAMES, _CODEC_NUMBERS // width))
        per_frame = config.codec.downsample
        transformer, most = config.codec.transformer, self._most * per_frame
        super().__init__(folder, CODEC_GRAPH, transformer, num_slots, most, threads, used)
        self._pasts = {
            past.name: np.zeros((num_slots, past.size, past.channels), np.float32)
            for past in codec_pasts(config.codec)
        }
        self._begun = np.zeros((num_slots, 1, 1), np.bool_)
        self._outputs = ("codes", *(f"new_{name}" for name in self._pasts))

    def forget(self, slot: int) -> None:
        """Make a slot as new."""
        self.memory.forget(slot)
        self._begun[slot] = False
        for past in self._pasts.values():
            past[slot] = 0

    def encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """[n, T, frame_size] -> [n, T, K]"""
        parts = range(0, frames.shape[1], self._most)
        return np.concatenate(
            [self._encode(slots, frames[:, at : at + self._most]) for at in parts], axis=1
        )

    def _encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        n, T = len(frames), int(frames.shape[1])
        positions = T * self._config.downsample
        layout = self.memory.layout(slots, np.full(n, positions, np.int64))
        where = _neighbours(slots)
        inputs: dict[str, Array] = {
            "pcm": frames.reshape(n, -1, 1),
            "begun": self._begun[where],
            **{name: past[where] for name, past in self._pasts.items()},
        }
        codes, *pasts = self.run(layout, inputs, self._outputs)
        for past, new in zip(self._pasts.values(), pasts, strict=True):
            past[where] = new
        self._begun[where] = True
        self.memory.position[slots] += positions
        return codes

    def mark(self, slot: int) -> CodecMark:
        """See `Backend.mark`."""
        pasts = [past[slot].copy() for past in self._pasts.values()]
        return CodecMark(int(self.memory.position[slot]), bool(self._begun[slot, 0, 0]), pasts)

    def go_back(self, slot: int, mark: CodecMark) -> None:
        """See `Backend.go_back`."""
        self.memory.position[slot] = mark.position
        self._begun[slot] = mark.begun
        for past, kept in zip(self._pasts.values(), mark.pasts, strict=True):
            past[slot] = kept

    def save(self, slot: int) -> dict[str, Array]:
        """A copy of the codec's whole state of a slot, as arrays by name."""
        pasts = {f"past.{name}": past[slot].copy() for name, past in self._pasts.items()}
        return {"begun": self._begun[slot].copy(), **pasts, **self.memory.save(slot)}

    def check(self, saved: Mapping[str, Array]) -> None:
        """Raise ValueError unless `restore` could put these into a slot."""
        check_array(saved["begun"], (1, 1), np.bool_)
        for name, past in self._pasts.items():
            check_array(saved[f"past.{name}"], past.shape[1:], np.float32)
        self.memory.check(saved)
        if len(saved) != 1 + len(self._pasts) + self.memory.num_saved:
            raise ValueError("it holds parts that the codec does not have")

    def restore(self, slot: int, saved: Mapping[str, Array]) -> None:
        """Put what `save` gave, and `check` let through, into a slot."""
        self._begun[slot] = saved["begun"]
        for name, past in self._pasts.items():
            past[slot] = saved[f"past.{name}"]
        self.memory.restore(slot, saved)


def _neighbours(slots: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """An index for `slots`: a slice if they are neighbours in order, because it copies nothing."""
    first, n = int(slots[0]), len(slots)
    return slice(first, first + n) if np.array_equal(slots, np.arange(first, first + n)) else slots


class OnnxDecoder(OnnxNetwork):
    """The decoder's session, and its keys and values."""

    def __init__(
        self, folder: Path, config: ModelConfig, num_slots: int, threads: int, used: Kernels
    ) -> None:
        transformer = config.lm.transformer
        super().__init__(folder, DECODER_GRAPH, transformer, num_slots, WIDTH, threads, used)
        self._offsets, self._empty = code_offsets(config.lm), empty_row(config.lm)
        self._has_pauses = config.lm.num_pause_heads > 0
        slot, one = np.zeros(1, np.int64), np.ones(1, np.int64)
        column = np.full((1, 1, 1 + config.lm.num_codebooks), config.lm.initial_code, np.int64)
        column[0, 0, 0] = config.lm.initial_text_id
        self.first = self.read(slot, column, one, logits=True)
        """The decoder's output for the initial column."""
        self._primed = self.memory.save(0)
        self.memory.forget(0)

    def begin(self, slot: int) -> None:
        """See `Backend.begin`: copies the state of a slot that has read the initial column."""
        self.memory.restore(slot, self._primed)

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
    ) -> Said:
        """See `Backend.read`."""
        n, T = len(columns), int(columns.shape[1])
        layout = self.memory.layout(slots, counts)
        outputs = ["tokens", "logprobs"]
        outputs += ["pauses"] if self._has_pauses else []
        outputs += ["logits"] if logits else []
        given: Array = np.less(np.arange(T), counts[:, None])  # [n, T]
        is_full = bool(given.all())
        ids = columns.reshape(n * T, -1) if is_full else columns[given]
        rows = np.where(ids < 0, self._empty, ids + self._offsets)
        packed = self.run(layout, {"columns": rows}, tuple(outputs))
        self.memory.position[slots] += counts
        by_name: dict[str, Array] = {}
        for name, values in zip(outputs, packed, strict=True):
            if is_full:
                by_name[name] = values.reshape(n, T, *values.shape[1:])
            else:
                padded = np.zeros((n, T, *values.shape[1:]), values.dtype)
                padded[given] = values
                by_name[name] = padded
        return Said(
            by_name["tokens"], by_name["logprobs"], by_name.get("pauses"), by_name.get("logits")
        )


def check_array(array: Array, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """Raise ValueError unless an array has this shape and dtype, and is finite."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"an array is {array.dtype} {list(array.shape)} where {np.dtype(dtype)} {list(shape)} "
            "belongs"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("an array contains numbers that are not finite")
