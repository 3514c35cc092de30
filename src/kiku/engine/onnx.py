"""The backend for processors: ONNX Runtime over the graphs of `kiku.graph`; torch is not needed.

Each of the two graphs is one session. A call goes over neighbouring slots, reads the weights once
for all their new positions, and writes keys and values in place.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import REWIND_FRAMES, ModelConfig
from kiku.engine.backend import Arrays, Said
from kiku.engine.choice import usable_of, usable_threads
from kiku.engine.core import SlotEngine
from kiku.engine.kernels import Kernels, kernels
from kiku.engine.networks import WIDTH, CodecMark, OnnxCodec, OnnxDecoder
from kiku.graph import CODEC_GRAPH, DECODER_GRAPH, Variant, graph_file, stored_places


def onnx_engine(
    folder: Path,
    config: ModelConfig,
    *,
    slots: int = 1,
    threads: int | None = None,
    keep_logits: bool = False,
    precision: str = "",
    used: Kernels | None = None,
) -> SlotEngine:
    """An engine of `slots` slots on the processor.

    Args:
        folder: has the files that `kiku.graph` wrote.
        config: of the model in these files.
        slots: how many.
        threads: how many compute, but no more than one for each processor that this process may
            use; None is as many.
        keep_logits: whether outputs have logits.
        precision: of the files, to be shown to people.
        used: the operators; None takes kiku's own where they can be used.

    Raises:
        CheckpointError: ONNX Runtime cannot run the files.
    """
    backend = OnnxBackend(
        folder, config, slots=slots, threads=threads, precision=precision, used=used
    )
    return SlotEngine(
        backend,
        pad_id=config.pad_id,
        word_start_id=config.word_start_id,
        keep_logits=keep_logits,
    )


_PIECES = 32
_PIECE_BYTES = 64


def _fingerprint(folder: Path) -> str:
    """A digest of codec and decoder. It covers the graphs, which contain the small weights, and
    pieces of every large weight; whole ones would take seconds."""
    digest = hashlib.sha256()
    for name in (CODEC_GRAPH, DECODER_GRAPH):
        # Both graphs, whichever is run, as a saved slot goes from one to the other. Only that of
        # kiku's operators says how many bits its keys have.
        digest.update((folder / graph_file(name, Variant.OWN)).read_bytes())
        graph = (folder / graph_file(name, Variant.PLAIN)).read_bytes()
        digest.update(graph)
        with (folder / f"{name}.data").open("rb") as file:
            for offset, length in stored_places(graph):
                last = max(0, length - _PIECE_BYTES)
                for i in range(_PIECES):
                    file.seek(offset + i * last // (_PIECES - 1))
                    digest.update(file.read(min(length, _PIECE_BYTES)))
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _OnnxMark:
    """Where a slot stood."""

    codec: CodecMark
    position: int


class OnnxBackend:
    """`Backend` with ONNX Runtime."""

    max_block = REWIND_FRAMES
    width = WIDTH
    can_draw = False

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        *,
        slots: int,
        threads: int | None = None,
        precision: str = "",
        used: Kernels | None = None,
    ) -> None:
        """See `onnx_engine`."""
        self.codec_config, self.lm_config = config.codec, config.lm
        self.num_slots = slots
        self.threads = usable_of(threads) if threads else usable_threads()
        self.description = f"onnx {precision}".strip()
        used = used or kernels()
        self.reads_alike = used.variant is Variant.OWN
        with ThreadPoolExecutor(1) as pool:  # both at once: each is busy with its own weights
            codec = pool.submit(OnnxCodec, folder, config, slots, self.threads, used)
            self._decoder = OnnxDecoder(folder, config, slots, self.threads, used)
            self._codec = codec.result()
        self.first = self._decoder.first
        self.signature = f"onnx {_fingerprint(folder)}"

    def forget(self, slot: int) -> None:
        """See `Backend.forget`."""
        self._codec.forget(slot)

    def begin(self, slot: int) -> None:
        """See `Backend.begin`."""
        self._decoder.begin(slot)

    def encode(self, slots: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `Backend.encode`."""
        return self._codec.encode(slots, frames)

    def read(
        self,
        slots: NDArray[np.int64],
        columns: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        logits: bool,
        draws: NDArray[Any] | None = None,
    ) -> Said:
        """See `Backend.read`."""
        return self._decoder.read(slots, columns, counts, logits=logits)

    def rewind(self, slots: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """See `Backend.rewind`: the keys and values after that point will be overwritten."""
        self._decoder.memory.position[slots] -= columns

    def mark(self, slot: int) -> Any:
        """See `Backend.mark`."""
        return _OnnxMark(self._codec.mark(slot), int(self._decoder.memory.position[slot]))

    def go_back(self, slot: int, mark: Any) -> None:
        """See `Backend.go_back`."""
        assert isinstance(mark, _OnnxMark)
        self._codec.go_back(slot, mark.codec)
        self._decoder.memory.position[slot] = mark.position

    def copy(self, slot: int) -> Callable[[], Arrays]:
        """See `Backend.copy`. Of keys and values it holds the window only."""
        codec, decoder = self._codec.save(slot), self._decoder.memory.save(slot)
        saved = {f"codec.{name}": array for name, array in codec.items()} | {
            f"decoder.{name}": array for name, array in decoder.items()
        }
        return lambda: saved

    def check(self, saved: Arrays) -> Any:
        """See `Backend.check`."""
        codec, decoder = _under("codec.", saved), _under("decoder.", saved)
        memory = self._decoder.memory
        self._codec.check(codec)
        memory.check(decoder)
        if len(decoder) != memory.num_saved or len(codec) + len(decoder) != len(saved):
            raise ValueError("it holds parts that are not known")
        return codec, decoder

    def put(self, slot: int, checked: Any) -> None:
        """See `Backend.put`."""
        codec, decoder = checked
        self._codec.restore(slot, codec)
        self._decoder.memory.restore(slot, decoder)


def _under(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
