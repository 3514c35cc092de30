"""The two networks as sessions of ONNX Runtime, with what each remembers of every slot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kiku.config import ModelConfig, TransformerConfig
from kiku.engine.decoding import Said
from kiku.engine.memory import Memory, Seating, seat
from kiku.errors import CheckpointError
from kiku.graph import CODEC_GRAPH, DECODER_GRAPH, code_offsets, codec_pasts, empty_row

_CODEC_FRAMES = 16
"""Frames that the codec takes at once, at most: with more it is no quicker."""

_CODEC_NUMBERS = 1 << 20
"""Numbers that its first layer writes at once, at most: 8 frames of Mimi. Sixteen would be quicker
by a seventh, and take 28 MB more."""

WIDTH = 16
"""Columns that the decoder reads in one pass of a block."""

_MAX_BINDINGS = 32
"""Groups of slots whose buffers stay bound."""

Array = NDArray[Any]


class Network:
    """A session and the keys and values that it writes in place."""

    def __init__(
        self, path: Path, config: TransformerConfig, num_slots: int, max_block: int, threads: int
    ) -> None:
        self.memory = Memory(config, num_slots, max_block)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # shapes change from call to call
        # Between two operators threads wait busily, which is quickest; but not between two calls:
        # then it is the other network's turn, and its threads need the processors.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise CheckpointError(
                f"{path} cannot be run by onnxruntime {onnxruntime.__version__} "
                f"({str(error).splitlines()[0]}); convert the model again"
            ) from error
        self._bindings: dict[tuple[range, tuple[str, ...]], Any] = {}

    def run(
        self, seating: Seating, inputs: dict[str, Array], outputs: tuple[str, ...]
    ) -> list[Array]:
        """One call, which gives `outputs`; positions are not advanced."""
        binding = self._binding(seating.slots, outputs)
        for name, array in {**seating.inputs, **inputs}.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in outputs:  # bound anew, for their shapes change
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()[-len(outputs) :]]

    def _binding(self, slots: range, outputs: tuple[str, ...]) -> Any:
        """A binding whose keys and values, in and out, are the buffers of `slots`."""
        if (slots, outputs) in self._bindings:  # and now it is the youngest
            self._bindings[slots, outputs] = self._bindings.pop((slots, outputs))
            return self._bindings[slots, outputs]
        binding: Any = self._session.io_binding()
        memory = self.memory
        shape = (len(slots), *memory.keys[0].shape[1:])
        for part, buffers in (("keys", memory.keys), ("values", memory.values)):
            for layer, buffer in enumerate(buffers):
                place = buffer[slots.start].ctypes.data
                binding.bind_input(f"{part}_{layer}", "cpu", 0, np.float32, shape, place)
                binding.bind_output(f"new_{part}_{layer}", "cpu", 0, np.float32, shape, place)
        if len(self._bindings) >= _MAX_BINDINGS:  # each keeps the arrays of its last call
            del self._bindings[next(iter(self._bindings))]
        self._bindings[slots, outputs] = binding
        return binding


@dataclass(frozen=True, slots=True)
class CodecMark:
    """Where a slot of the codec stood."""

    position: int
    begun: bool
    pasts: list[Array]


class Codec(Network):
    """The codec's session, keys and values, and what the convolutions remember of every slot."""

    def __init__(self, folder: Path, config: ModelConfig, num_slots: int, threads: int) -> None:
        self._config = config.codec
        width = config.codec.frame_size * config.codec.num_filters
        self._most = max(1, min(_CODEC_FRAMES, _CODEC_NUMBERS // width))
        per_frame = config.codec.downsample
        path = folder / f"{CODEC_GRAPH}.onnx"
        super().__init__(path, config.codec.transformer, num_slots, self._most * per_frame, threads)
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

    def encode(self, slots: list[int], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """[n, T, frame_size] -> [n, T, K]"""
        parts = range(0, frames.shape[1], self._most)
        return np.concatenate(
            [self._encode(slots, frames[:, at : at + self._most]) for at in parts], axis=1
        )

    def _encode(self, slots: list[int], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        n, T, _ = frames.shape
        positions = T * self._config.downsample
        seating = seat(self.memory, slots, [positions] * n)
        inputs: dict[str, Array] = {
            "pcm": frames.reshape(n, -1, 1),
            "begun": self._begun[slots],
            **{name: past[slots] for name, past in self._pasts.items()},
        }
        codes, *pasts = self.run(seating, inputs, self._outputs)
        for past, new in zip(self._pasts.values(), pasts, strict=True):
            past[slots] = new
        self._begun[slots] = True
        self.memory.position[slots] += positions
        return codes

    def mark(self, slot: int) -> CodecMark:
        """See `Engine.mark`."""
        pasts = [past[slot].copy() for past in self._pasts.values()]
        return CodecMark(int(self.memory.position[slot]), bool(self._begun[slot, 0, 0]), pasts)

    def go_back(self, slot: int, mark: CodecMark) -> None:
        """See `Engine.go_back`."""
        self.memory.position[slot] = mark.position
        self._begun[slot] = mark.begun
        for past, kept in zip(self._pasts.values(), mark.pasts, strict=True):
            past[slot] = kept

    def save(self, slot: int) -> list[Array]:
        """All that it remembers of a slot."""
        pasts = [past[slot] for past in self._pasts.values()]
        position = self.memory.position[slot : slot + 1]
        return [position, self._begun[slot], *pasts, *self.memory.window_of(slot)]

    def restore(self, slot: int, saved: Sequence[Array]) -> None:
        """Put what `save` gave into a slot."""
        position, self._begun[slot], *rest = saved
        pasts, window = rest[: len(self._pasts)], rest[len(self._pasts) :]
        for past, kept in zip(self._pasts.values(), pasts, strict=True):
            past[slot] = kept
        self.memory.put_window(slot, int(position[0]), window)


class Decoder(Network):
    """The decoder's session, and its keys and values: what `decoding.Reader` asks for."""

    def __init__(self, folder: Path, config: ModelConfig, num_slots: int, threads: int) -> None:
        path = folder / f"{DECODER_GRAPH}.onnx"
        super().__init__(path, config.lm.transformer, num_slots, WIDTH, threads)
        self._offsets, self._empty = code_offsets(config.lm), empty_row(config.lm)
        self._has_pauses = config.lm.num_pause_heads > 0
        self.num_passes = 0

    def read(
        self, slots: Sequence[int], columns: Sequence[NDArray[np.int64]], *, logits: bool
    ) -> list[Said]:
        """See `decoding.Reader.read`."""
        self.num_passes += 1
        counts = [len(part) for part in columns]
        seating = seat(self.memory, slots, counts)
        outputs = ["tokens", "logprobs"]
        outputs += ["pauses"] if self._has_pauses else []
        outputs += ["logits"] if logits else []
        ids = np.concatenate(columns)
        rows = np.where(ids < 0, self._empty, ids + self._offsets)
        given = self.run(seating, {"columns": rows}, tuple(outputs))
        by_name = dict(zip(outputs, given, strict=True))
        self.memory.position[list(slots)] += counts
        ends = np.cumsum(counts)
        return [
            Said(
                by_name["tokens"][end - count : end],
                by_name["logprobs"][end - count : end],
                by_name["pauses"][end - count : end] if self._has_pauses else None,
                by_name["logits"][end - count : end] if logits else None,
            )
            for count, end in zip(counts, ends, strict=True)
        ]

    def rewind(self, slot: int, frames: int) -> None:
        """See `decoding.Reader.rewind`."""
        self.memory.position[slot] -= frames
