"""The engine for CPUs: ONNX Runtime over the graphs of `kiku.graph`; torch is not needed.

Each of the two graphs is one session. A call goes over neighbouring slots, reads the weights once
for all that is new in them, and writes keys and values in place.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from kiku.config import REWIND_FRAMES, ModelConfig
from kiku.engine.choice import usable_threads
from kiku.engine.contract import Choose, StepOutput
from kiku.engine.decoding import Block, Rereading, decode_blocks
from kiku.engine.history import History
from kiku.engine.saved import KEY, check_saved, damage_is_told
from kiku.engine.sessions import WIDTH, Codec, CodecMark, Decoder
from kiku.engine.slots import Slots
from kiku.graph import DECODER_GRAPH


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


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a slot stood."""

    codec: CodecMark
    position: int
    token: int
    num_columns: int


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
        self._slots = Slots(slots, config.lm.num_codebooks)
        self.keep_logits = keep_logits
        self.threads = threads or usable_threads()
        with ThreadPoolExecutor(1) as pool:  # both at once: each is busy with its own weights
            codec = pool.submit(Codec, folder, config, slots, self.threads)
            self._decoder = Decoder(folder, config, slots, self.threads)
            self._codec = codec.result()
        self._tokens = np.zeros(slots, np.int64)
        self._history = History(slots, config.lm.num_codebooks)
        self._rereading = Rereading(self._decoder, WIDTH)
        self._signature = f"onnx {_fingerprint(folder)}"

    @property
    def num_slots(self) -> int:
        """How many slots there are."""
        return self._slots.count

    @property
    def free_slots(self) -> int:
        """How many slots nobody holds."""
        return self._slots.free

    def open(
        self, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> tuple[int, StepOutput]:
        """See `Engine.open`."""
        slot = self._slots.take(choose, num_codebooks)
        try:
            self._codec.forget(slot)
            self._history.forget(slot)
            return slot, self._begin(slot)
        except BaseException:  # `choose` may raise anything, and nobody knows of the slot yet
            self.close(slot)
            raise

    def _begin(self, slot: int) -> StepOutput:
        """The decoder forgets the slot, and reads its initial column."""
        lm = self._config.lm
        self._rereading.forget(slot)
        self._decoder.memory.forget(slot)
        codes = np.full((1, lm.num_codebooks), lm.initial_code, np.int64)
        blocks = self._blocks([slot], codes[None], [lm.initial_text_id])
        return self._decoded(blocks)

    def steer(
        self, slot: int, choose: Choose | None = None, *, num_codebooks: int | None = None
    ) -> None:
        """See `Engine.steer`."""
        self._slots.steer(slot, choose, num_codebooks)

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
        blocks = self._blocks(slots, codes, self._tokens[list(slots)].tolist())
        out = self._decoded(blocks)
        for block in blocks:
            self._history.add(block.slot, block.columns)
        return out

    @property
    def num_passes(self) -> int:
        """How often the decoder was run since the engine was made."""
        return self._decoder.num_passes

    def _blocks(
        self, slots: Sequence[int], codes: NDArray[np.int64], tokens: list[int]
    ) -> list[Block]:
        """Codes [n, T, K] and the tokens before them."""
        return [
            Block(
                slot, self._slots.as_read(slot, part), token, self._slots.choices[slot],
                guess=self._config.pad_id, word_start=self._config.word_start_id,
                keep_logits=self.keep_logits,
            )
            for slot, part, token in zip(slots, codes, tokens, strict=True)
        ]  # fmt: skip

    def _decoded(self, blocks: list[Block]) -> StepOutput:
        out = decode_blocks(self._decoder, blocks, WIDTH)
        self._tokens[[block.slot for block in blocks]] = out.tokens[:, -1]
        return out

    def mark(self, slot: int) -> object:
        """See `Engine.mark`."""
        self._slots.check_held([slot])
        return _Mark(
            self._codec.mark(slot),
            int(self._decoder.memory.position[slot]),
            int(self._tokens[slot]),
            int(self._history.counts[slot]),
        )

    def go_back(self, slot: int, mark: object) -> None:
        """See `Engine.go_back`: keys and values of what came later are written over."""
        self._slots.check_held([slot])
        assert isinstance(mark, _Mark)
        self._codec.go_back(slot, mark.codec)
        self._decoder.memory.position[slot] = mark.position
        self._tokens[slot] = mark.token
        self._history.counts[slot] = mark.num_columns

    def refresh(self, slot: int, frames: int, *, most: int | None = None) -> int:
        """See `Engine.refresh`."""
        self._slots.check_held([slot])
        if not self._rereading.begun(slot):
            lm = self._config.lm
            first = np.full((1, 1 + lm.num_codebooks), lm.initial_code, np.int64)
            first[0, 0] = lm.initial_text_id
            first[:, 1:] = self._slots.as_read(slot, first[:, 1:])
            self._decoder.memory.forget(slot)
            columns = np.concatenate([first, self._history.last(slot, frames)])
            self._rereading.begin(slot, columns)
        return self._rereading.go_on(slot, most)

    def reread(self, slot: int, frames: int) -> StepOutput:
        """See `Engine.reread`."""
        self._slots.check_held([slot])
        codes = self._history.last(slot, frames)[None, :, 1:]
        self._history.counts[slot] -= codes.shape[1]
        begun = self._begin(slot)
        return self.decode([slot], codes) if codes.shape[1] else begun.first(0)

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
            self._history.save(slot),
        ]
        arrays = {str(i): np.ascontiguousarray(leaf) for i, leaf in enumerate(leaves)}
        return save_arrays(arrays, metadata={KEY: self._signature})

    def restore(self, slot: int, saved: bytes) -> None:
        """See `Engine.restore`."""
        self._slots.check_held([slot])
        check_saved(saved, self._signature)
        arrays = load_arrays(saved)
        window = 2 + 2 * self._config.lm.transformer.num_layers
        with damage_is_told():
            leaves = [arrays[str(i)] for i in range(len(arrays))]
            self._tokens[slot] = leaves[0][0]
            self._decoder.memory.put_window(slot, int(leaves[1][0]), leaves[2:window])
            self._codec.restore(slot, leaves[window:-1])
            self._history.restore(slot, leaves[-1])
