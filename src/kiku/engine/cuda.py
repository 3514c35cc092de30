"""The backend for GPUs: whole steps as CUDA graphs over fixed addresses; the host waits once a
step.

The same code runs on a processor with graphs off, slowly: that is how it is tested. What the device
computes is in `kiku.engine.gpu`. This module turns the engine's questions into calls, and answers
them from what the decoder has read ahead where it can.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kiku.codec import MimiEncoder
from kiku.config import REWIND_FRAMES, WORD_START_ID
from kiku.decoding import DRAW
from kiku.engine.backend import Arrays, Said
from kiku.engine.core import SlotEngine
from kiku.engine.gpu.ahead import Ahead, Draws
from kiku.engine.gpu.attention import pick_attend
from kiku.engine.gpu.draws import draw_numbers, pick_draw
from kiku.engine.gpu.fetching import Fetching
from kiku.engine.gpu.launches import Launch, Launches, LaunchOptions
from kiku.engine.gpu.memory import free_bytes, no_weights, out_of_memory_as, room_for
from kiku.engine.gpu.network import Network, Remembered, Table, one_table
from kiku.engine.gpu.options import GpuOptions
from kiku.engine.gpu.place import Place
from kiku.engine.gpu.rings import RING_DTYPES
from kiku.engine.gpu.slots import SlotMark, Slots
from kiku.engine.torch import digest_of_model, pick_device
from kiku.errors import ConfigError
from kiku.lm import LM

Ints = NDArray[np.int64]


def cuda_engine(
    codec: MimiEncoder,
    lm: LM,
    *,
    slots: int = 1,
    device: str | None = None,
    keep_logits: bool = False,
    word_start_id: int = WORD_START_ID,
    options: GpuOptions | None = None,
) -> SlotEngine:
    """An engine of `slots` slots on a GPU; the networks are moved there. See `torch_engine` for
    the other arguments.

    Raises:
        ConfigError: there is no such device or dtype, or the slots do not fit into its memory.
    """
    options = options or GpuOptions()
    backend = CudaBackend(codec, lm, slots=slots, device=device, options=options)
    return SlotEngine(
        backend, pad_id=options.guess, word_start_id=word_start_id, keep_logits=keep_logits
    )


@dataclass(frozen=True, slots=True)
class _CudaMark:
    """Where a slot stood: its state, its last token, and how the next one is drawn."""

    state: SlotMark
    token: tuple[int, Draws]


class CudaBackend:
    """`Backend` on a GPU. A call has a row for each of a few slots, or for all; an idle slot costs
    only memory."""

    max_block = REWIND_FRAMES
    reads_alike = False

    def __init__(
        self,
        codec: MimiEncoder,
        lm: LM,
        *,
        slots: int,
        device: str | None = None,
        options: GpuOptions | None = None,
    ) -> None:
        """See `cuda_engine`."""
        options, gpu = options or GpuOptions(), pick_gpu(device)
        options.check(gpu)
        self.codec_config, self.lm_config = codec.config, lm.config
        self.num_slots, self.width = slots, max(options.sizes)
        self.num_launches = 0
        """How often the device was given something to compute."""
        with out_of_memory_as(lambda: no_weights(codec, lm, gpu)):
            codec = codec.to(gpu).eval().requires_grad_(False)
            lm = lm.to(gpu).eval().requires_grad_(False)
            digest = digest_of_model(codec, lm)
            with torch.inference_mode():
                table = one_table(lm)  # on the caller's stream, which gets the freed memory
        dtype = lm.out_norm.weight.dtype
        kv = dtype if options.kv == "auto" else RING_DTYPES[options.kv]
        self.description, self.signature = _names(lm, kv, gpu, digest)
        self._ahead = Ahead(slots, self.width, lm.config)
        self._place = Place(gpu, tf32=options.tf32)
        self._place.follow()
        free = options.memory_bytes
        if free is None and gpu.type == "cuda":
            free = free_bytes(gpu)
        room = room_for(codec, lm.config, slots, self.width, kv, free)
        room.check()
        self._fetching = Fetching(self._place, room.each)
        with out_of_memory_as(room.ran_out), self._place.entered():
            self._slots = Slots(codec, lm, slots, self.width, kv, gpu)
            network = _network(codec, lm, self._slots, table, options)
            self.can_draw = network.draw is not None
            graphs = gpu.type == "cuda" if options.graphs is None else options.graphs
            which = LaunchOptions(graphs, options.guess, options.sizes, options.rows)
            self.launches = Launches(network, slots, gpu, which)
            self.first = self._prime()

    def _prime(self) -> Said:
        """The decoder's output for the initial column. What its rings then hold is kept."""
        lm = self.lm_config
        # All rows of a call are alike: those that are not needed write to the spare slot too.
        n = self.launches.rows[1][0]
        columns = np.full((n, 1, 1 + lm.num_codebooks), lm.initial_code, np.int64)
        columns[:, 0, 0] = lm.initial_text_id
        spare = np.full(n, self.num_slots)
        said = self._said(n, 1, logits=True)
        self._read_now(spare, columns, np.zeros(n, np.int64), np.zeros(n, DRAW), said)
        self._slots.initial = self._slots.rings.first(self.num_slots)
        pauses = None if said.pauses is None else said.pauses[:1]
        assert said.logits is not None
        return Said(said.tokens[:1], said.logprobs[:1], pauses, said.logits[:1])

    # Slots.

    def forget(self, slot: int) -> None:
        """See `Backend.forget`."""
        with self._place.entered():
            self._slots.forget(slot)
        self._ahead.forget(slot)

    def begin(self, slot: int) -> None:
        """See `Backend.begin`: copies what the initial column left in the rings."""
        with self._place.entered():
            self._slots.begin(slot)
        self._ahead.forget(slot)
        self._ahead.put_token(slot, int(self.first.tokens[0, 0]))

    # Steps.

    def encode(self, slots: Ints, frames: NDArray[np.float32]) -> Ints:
        """See `Backend.encode`. Where one launch takes all the frames, the decoder reads ahead in
        the same launch."""
        n, T, _ = frames.shape
        codes = np.empty((n, T, self.codec_config.num_codebooks), np.int64)
        with self._place.entered():
            for first, size in _parts(T, self.launches.sizes):
                most = self.launches.rows[size][-1]
                for at in range(0, n, most):
                    rows = slice(at, at + most)
                    part = frames[rows, first : first + size]
                    codes[rows, first : first + size] = self._hear(slots[rows], part, size == T)
        return codes

    def _hear(self, slots: Ints, frames: NDArray[np.float32], ahead: bool) -> Ints:
        """[n, T, K] codes of `frames` by one launch; with `ahead` the decoder reads in it, too."""
        n, T, size = frames.shape
        launch = self.launches.of("step" if ahead else "encode", T, n)
        given = launch.given.host
        given["slots"][:n] = slots
        given["heard"][:n] = self._slots.heard[slots]
        given["pcm"][:n] = frames.reshape(n, T * size)
        draws = self._ahead.next_draws(slots)
        if ahead:
            given["read"][:n] = self._slots.read[slots]
            given["texts"][:n] = self._ahead.next_tokens(slots)
            given["limits"][:n] = self._ahead.limits(slots)
            _put_draws(launch, draws)
        with_logits = ahead and self._ahead.wants_logits(slots)
        self.launches.run(launch, num_logits=n if with_logits else 0)
        self.num_launches += 1
        self._slots.heard[slots] += T * self.codec_config.downsample
        codes = launch.told.host["codes"][:n]
        if ahead:
            self._ahead.put(
                slots, self._read_columns(launch, n), draws, _output(launch, n), self.num_launches
            )
        return codes

    def _read_columns(self, launch: Launch, n: int) -> Ints:
        """[n, T, 1 + K] the columns that the decoder read in a "step"."""
        given, codes = launch.given.host, launch.told.host["codes"][:n]
        K = self.lm_config.num_codebooks
        columns = np.full((n, codes.shape[1], 1 + K), self.launches.guess)
        columns[:, 0, 0] = given["texts"][:n]
        columns[:, :, 1:] = np.where(
            np.arange(K) < given["limits"][:n, None, None], codes[:, :, :K], -1
        )
        return columns

    def read(
        self,
        slots: Ints,
        columns: Ints,
        counts: Ints,
        *,
        logits: bool,
        draws: Draws | None = None,
    ) -> Said:
        """See `Backend.read`."""
        n, T = len(columns), int(columns.shape[1])
        draws = np.zeros(n, DRAW) if draws is None else draws
        said = self._said(n, T, logits=logits)
        run = self.num_launches if logits else None
        there = self._ahead.answers(slots, columns, counts, draws, run)
        missing = np.setdiff1d(np.arange(n), there)
        with self._place.entered():
            if len(there):
                self._answer(slots[there], there, said)
            most = self.launches.rows[self._size(T)][-1]
            for at in range(0, len(missing), most):
                rows = missing[at : at + most]
                part = self._said(len(rows), T, logits=logits)
                start = self._slots.read[slots[rows]]
                self._read_now(slots[rows], columns[rows], start, draws[rows], part)
                _put(said, rows, part)
        self._slots.read[slots] += counts
        self._ahead.forget(slots)
        self._ahead.note(slots, columns, draws, said, counts)
        return said

    def _answer(self, slots: Ints, rows: Ints, said: Said) -> None:
        """Fill `rows` of `said` with what was read ahead for `slots`."""
        T = said.tokens.shape[1]
        said.tokens[rows], said.logprobs[rows], pauses = self._ahead.take(slots, T)
        if said.pauses is not None:
            said.pauses[rows] = pauses
        if said.logits is not None:
            said.logits[rows] = self.launches.logits(self._ahead.rows(slots), T)

    def _read_now(self, slots: Ints, columns: Ints, start: Ints, draws: Draws, said: Said) -> None:
        """Run one launch of the decoder for n slots, and fill `said` with its output."""
        n, T, _ = columns.shape
        launch = self.launches.of("read", self._size(T), n)
        given = launch.given.host
        given["slots"][:n], given["read"][:n] = slots, start
        given["columns"][:n, :T] = columns
        given["columns"][:n, T:] = 0
        _put_draws(launch, draws)
        self.launches.run(launch, num_logits=0 if said.logits is None else n)
        self.num_launches += 1
        told = _output(launch, n)
        said.tokens[...], said.logprobs[...] = told.tokens[:, :T], told.logprobs[:, :T]
        if said.pauses is not None:
            assert told.pauses is not None
            said.pauses[...] = told.pauses[:, :T]
        if said.logits is not None:
            said.logits[...] = self.launches.logits(np.array(range(n), np.int64), T)

    def _size(self, T: int) -> int:
        """Columns of the smallest call that has room for T of each row."""
        return next(size for size in self.launches.sizes if size >= T)

    def _said(self, n: int, T: int, *, logits: bool) -> Said:
        """An output of zeros, to be filled."""
        lm = self.lm_config
        return Said(
            np.zeros((n, T), np.int64),
            np.zeros((n, T), np.float32),
            np.zeros((n, T, lm.num_pause_heads), np.float32) if lm.num_pause_heads else None,
            np.zeros((n, T, lm.text_vocab_size), np.float32) if logits else None,
        )

    def rewind(self, slots: Ints, columns: Ints) -> None:
        """See `Backend.rewind`: nothing moves on the device."""
        self._slots.read[slots] -= columns
        self._ahead.forget(slots)
        self._ahead.note_back(slots, columns)

    # Going back, saving.

    def mark(self, slot: int) -> Any:
        """See `Backend.mark`."""
        with self._place.entered():
            return _CudaMark(self._slots.mark(slot), self._ahead.token_state(slot))

    def go_back(self, slot: int, mark: Any) -> None:
        """See `Backend.go_back`."""
        assert isinstance(mark, _CudaMark)
        with self._place.entered():
            self._slots.go_back(slot, mark.state)
        self._ahead.forget(slot)
        self._ahead.put_token(slot, *mark.token)

    def copy(self, slot: int) -> Callable[[], Arrays]:
        """See `Backend.copy`, and `Slots.copy` for what it holds. On the device it is one more copy
        of the slot; it comes to the host beside the steps."""
        with self._place.entered():
            fetch = self._fetching.begin(self._slots.copy(slot))
        return lambda: self._slots.saved(fetch())

    def check(self, saved: Arrays) -> Any:
        """See `Backend.check`."""
        return self._slots.check(saved)

    def put(self, slot: int, checked: Any) -> None:
        """See `Backend.put`."""
        with self._place.entered():
            self._slots.put(slot, checked)
        self._ahead.forget(slot)


def _network(
    codec: MimiEncoder, lm: LM, slots: Slots, table: Table, options: GpuOptions
) -> Network:
    """Both networks over the memory of the slots, with the kernels that work on their device."""
    device = slots.rings.keys.device
    weights = lm.out_norm.weight.dtype
    keys, codec_keys = (
        Remembered(
            rings, pick_attend(options.attention, rings, device, sizes=options.sizes, dtype=dtype)
        )
        for rings, dtype in ((slots.rings, weights), (slots.codec_rings, torch.float32))
    )
    draw = pick_draw(options.sampling, lm.config.text_vocab_size, device)
    return Network(
        codec, lm, pasts=slots.pasts, codec_keys=codec_keys, keys=keys, table=table, draw=draw
    )


def _names(lm: LM, kv: torch.dtype, device: torch.device, digest: str) -> tuple[str, str]:
    """The backend's description, for people, and its signature, by which saved slots are known."""
    weights, kept = (str(one).removeprefix("torch.") for one in (lm.out_norm.weight.dtype, kv))
    sizes = lm.config.transformer
    return (
        f"cuda {weights}, keys in {kept}, on {device.type}",
        f"cuda {weights} kv {kept} {sizes.num_layers}x{sizes.dim} window {sizes.window} "
        f"K {lm.config.num_codebooks} model {digest}",
    )


def pick_gpu(name: str | None) -> torch.device:
    """The device called `name`; None and "auto" are "cuda".

    Raises:
        ConfigError: there is no such device, or it is neither a CUDA device nor the processor.
    """
    device = pick_device("cuda" if name in (None, "auto") else name)
    if device.type not in ("cuda", "cpu"):
        raise ConfigError(
            f"engine='cuda' needs a device called 'cuda', not {name!r}; engine='torch' runs there"
        )
    return device


def _parts(T: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each call for T frames begins, and how many frames it takes: as few calls as can be."""
    at = 0
    while at < T:
        size = max(size for size in sizes if size <= T - at)
        yield at, size
        at += size


def _put_draws(launch: Launch, draws: Draws) -> None:
    """Put into a call how its rows draw; nothing where the host draws."""
    if "draws" in launch.given.host:
        launch.given.host["draws"][: len(draws)] = draw_numbers(draws)


def _output(launch: Launch, n: int) -> Said:
    """What a call gave for its first n rows, without logits: views of its buffers."""
    told = launch.told.host
    pauses = told["pauses"][:n] if "pauses" in told else None
    return Said(told["tokens"][:n], told["logprobs"][:n], pauses, None)


def _put(said: Said, rows: Ints, part: Said) -> None:
    """Put the output of some slots into the rows that are theirs."""
    said.tokens[rows], said.logprobs[rows] = part.tokens, part.logprobs
    for whole, own in ((said.pauses, part.pauses), (said.logits, part.logits)):
        if whole is not None and own is not None:
            whole[rows] = own
