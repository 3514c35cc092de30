"""The engine for CPUs: ONNX Runtime over the graphs of `kiku.graph`; torch is not needed.

Each of the two graphs is one session. A call goes over neighbouring slots, reads the weights once
for all that is new in them, and writes keys and values in place.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from kiku.config import REWIND_FRAMES, ModelConfig, TransformerConfig
from kiku.engine.choice import usable_threads
from kiku.engine.contract import Choose, StepOutput
from kiku.engine.decoding import Block, Said, decode_blocks
from kiku.engine.memory import Memory, Seating, seat
from kiku.engine.saved import KEY, check_saved
from kiku.engine.slots import Slots
from kiku.errors import CheckpointError
from kiku.graph import CODEC_GRAPH, DECODER_GRAPH, code_offsets, codec_pasts

_CODEC_FRAMES = 8
"""Frames that the codec takes at once: more would not fit into the processor's caches."""

_WIDTH = 16
"""Columns that the decoder reads in one pass of a block."""

Array = NDArray[Any]


def _fingerprint(folder: Path) -> str:
    """Of the decoder: its graph, and a thousandth of its weights, for all of them would take
    seconds."""
    digest = hashlib.sha256((folder / f"{DECODER_GRAPH}.onnx").read_bytes())
    data = folder / f"{DECODER_GRAPH}.data"
    size = data.stat().st_size
    with data.open("rb") as file:
        for part in range(1024):
            file.seek(part * size // 1024)
            digest.update(file.read(max(64, size // 1_000_000)))
    return digest.hexdigest()[:16]


class _Network:
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
        if (slots, outputs) in self._bindings:
            return self._bindings[slots, outputs]
        binding: Any = self._session.io_binding()
        memory = self.memory
        shape = (len(slots), *memory.keys[0].shape[1:])
        for part, buffers in (("keys", memory.keys), ("values", memory.values)):
            for layer, buffer in enumerate(buffers):
                place = buffer[slots.start].ctypes.data
                binding.bind_input(f"{part}_{layer}", "cpu", 0, np.float32, shape, place)
                binding.bind_output(f"new_{part}_{layer}", "cpu", 0, np.float32, shape, place)
        self._bindings[slots, outputs] = binding
        return binding


class _Codec(_Network):
    """The codec's session, keys and values, and what the convolutions remember of every slot."""

    def __init__(self, folder: Path, config: ModelConfig, num_slots: int, threads: int) -> None:
        self._config = config.codec
        per_frame = config.codec.downsample
        path = folder / f"{CODEC_GRAPH}.onnx"
        super().__init__(
            path, config.codec.transformer, num_slots, _CODEC_FRAMES * per_frame, threads
        )
        self._pasts = {
            past.name: np.zeros((num_slots, past.size, past.channels), np.float32)
            for past in codec_pasts(config.codec)
        }
        self._begun = np.zeros((num_slots, 1, 1), np.bool_)
        self._outputs = ("codes", *(f"new_{name}" for name in self._pasts))

    def forget(self, slot: int) -> None:
        self.memory.forget(slot)
        self._begun[slot] = False
        for past in self._pasts.values():
            past[slot] = 0

    def encode(self, slots: list[int], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """[n, T, frame_size] -> [n, T, K]"""
        parts = range(0, frames.shape[1], _CODEC_FRAMES)
        return np.concatenate(
            [self._encode(slots, frames[:, at : at + _CODEC_FRAMES]) for at in parts], axis=1
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

    def save(self, slot: int) -> list[Array]:
        pasts = [past[slot] for past in self._pasts.values()]
        position = self.memory.position[slot : slot + 1]
        return [position, self._begun[slot], *pasts, *self.memory.window_of(slot)]

    def restore(self, slot: int, saved: Sequence[Array]) -> None:
        position, self._begun[slot], *rest = saved
        pasts, window = rest[: len(self._pasts)], rest[len(self._pasts) :]
        for past, kept in zip(self._pasts.values(), pasts, strict=True):
            past[slot] = kept
        self.memory.put_window(slot, int(position[0]), window)


class _Decoder(_Network):
    """The decoder's session, and its keys and values: what `decoding.Reader` asks for."""

    def __init__(self, folder: Path, config: ModelConfig, num_slots: int, threads: int) -> None:
        path = folder / f"{DECODER_GRAPH}.onnx"
        super().__init__(path, config.lm.transformer, num_slots, _WIDTH, threads)
        self._offsets = code_offsets(config.lm)
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
        given = self.run(
            seating, {"columns": np.concatenate(columns) + self._offsets}, tuple(outputs)
        )
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


class OnnxEngine:
    """`engine.contract.Engine` with ONNX Runtime. One thread uses it at a time."""

    max_block = REWIND_FRAMES

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        *,
        slots: int = 1,
        threads: int | None = None,
        keep_logits: bool = False,
    ) -> None:
        """Make `slots` slots.

        Args:
            folder: with the files that `kiku.graph` wrote.
            config: of the model that they hold.
            slots: how many.
            threads: that compute; None takes the processors that this process may use.
            keep_logits: give the logits out.

        Raises:
            CheckpointError: ONNX Runtime cannot run the files.
        """
        self._config = config
        self._slots = Slots(slots)
        self.keep_logits = keep_logits
        self.threads = threads or usable_threads()
        with ThreadPoolExecutor(1) as pool:  # both at once: each is busy with its own weights
            codec = pool.submit(_Codec, folder, config, slots, self.threads)
            self._decoder = _Decoder(folder, config, slots, self.threads)
            self._codec = codec.result()
        self._tokens = np.zeros(slots, np.int64)
        self._signature = f"onnx {_fingerprint(folder)}"

    @property
    def num_slots(self) -> int:
        """How many slots there are."""
        return self._slots.count

    @property
    def free_slots(self) -> int:
        """How many slots nobody holds."""
        return self._slots.free

    def open(self, choose: Choose | None = None) -> tuple[int, StepOutput]:
        """See `Engine.open`."""
        slot = self._slots.take(choose)
        try:
            self._codec.forget(slot)
            self._decoder.memory.forget(slot)
            lm = self._config.lm
            codes = np.full((1, lm.num_codebooks), lm.initial_code, np.int64)
            return slot, self._decode([slot], codes[None], [lm.initial_text_id])
        except BaseException:  # `choose` may raise anything, and nobody knows of the slot yet
            self.close(slot)
            raise

    def close(self, slot: int) -> None:
        """See `Engine.close`."""
        self._slots.release(slot)

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        """See `Engine.step`. The decoder reads a block in few passes (see `decoding`)."""
        return self.decode(slots, self.encode(slots, frames))

    def encode(self, slots: Sequence[int], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """The first half of a step: frames [n, T, frame_size] -> codes [n, T, K], as many codebooks
        as the decoder reads. Only the codec advances.

        Raises:
            FrameError, StreamError: as `step`.
        """
        self._slots.check_step(slots, frames.shape, self._config.frame_size, self.max_block)
        codes = self._codec.encode(list(slots), np.asarray(frames, np.float32))
        return codes[:, :, : self._config.lm.num_codebooks]

    def decode(self, slots: Sequence[int], codes: NDArray[np.int64]) -> StepOutput:
        """The second half: codes [n, T, K] -> what the decoder says. Only the decoder advances.

        Raises:
            StreamError: a slot that is not open.
        """
        self._slots.check_held(slots)
        rows = list(slots)
        return self._decode(rows, codes, self._tokens[rows].tolist())

    @property
    def num_passes(self) -> int:
        """How often the decoder was run since the engine was made."""
        return self._decoder.num_passes

    def _decode(self, slots: list[int], codes: NDArray[np.int64], tokens: list[int]) -> StepOutput:
        """Codes [n, T, K] and the tokens before them -> what the decoder says."""
        blocks = [
            Block(
                slot, part, token, self._slots.choices[slot],
                guess=self._config.pad_id, keep_logits=self.keep_logits,
            )
            for slot, part, token in zip(slots, codes, tokens, strict=True)
        ]  # fmt: skip
        out = decode_blocks(self._decoder, blocks, _WIDTH)
        self._tokens[slots] = out.tokens[:, -1]
        return out

    def save(self, slot: int) -> bytes:
        """See `Engine.save`. Holds the window only: some megabytes for a small model, 200 for the
        1B."""
        self._slots.check_held([slot])
        decoder = self._decoder.memory
        leaves = [
            self._tokens[slot : slot + 1],
            decoder.position[slot : slot + 1],
            *decoder.window_of(slot),
            *self._codec.save(slot),
        ]
        arrays = {str(i): np.ascontiguousarray(leaf) for i, leaf in enumerate(leaves)}
        return save_arrays(arrays, metadata={KEY: self._signature})

    def restore(self, slot: int, saved: bytes) -> None:
        """See `Engine.restore`."""
        self._slots.check_held([slot])
        check_saved(saved, self._signature)
        arrays = load_arrays(saved)
        leaves = [arrays[str(i)] for i in range(len(arrays))]
        window = 2 + 2 * self._config.lm.transformer.num_layers
        self._tokens[slot] = leaves[0][0]
        self._decoder.memory.put_window(slot, int(leaves[1][0]), leaves[2:window])
        self._codec.restore(slot, leaves[window:])
