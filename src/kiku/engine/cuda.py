"""The backend for GPUs: whole steps as CUDA graphs over fixed addresses; the host waits once a
step.

The same code runs on a processor with graphs off, slowly: that is how it is tested. What the device
computes is in `kiku.engine.gpu`. This module has what the host knows: how far every slot has come,
and what the decoder has read ahead for it.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.codec import MimiEncoder, as_stored
from kiku.config import REWIND_FRAMES, WORD_START_ID
from kiku.decoding import DRAW
from kiku.engine.backend import Said
from kiku.engine.core import SlotEngine
from kiku.engine.gpu.ahead import Ahead, Draws
from kiku.engine.gpu.attention import pick_attend
from kiku.engine.gpu.draws import draw_numbers, pick_draw
from kiku.engine.gpu.launches import Launch, Launches, LaunchOptions
from kiku.engine.gpu.memory import (
    Room,
    free_bytes,
    no_weights,
    slot_bytes,
    told_as,
)
from kiku.engine.gpu.network import Network, Remembered, one_table
from kiku.engine.gpu.options import GpuOptions
from kiku.engine.gpu.pasts import Pasts
from kiku.engine.gpu.place import Place
from kiku.engine.gpu.precision import products
from kiku.engine.gpu.rings import RING_DTYPES, Rings, position_of
from kiku.engine.gpu.room import workspace_bytes
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
    """Where a slot stood."""

    pasts: Tensor
    heard: int
    read: int
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
        self.options = options = options or GpuOptions()
        self.device = pick_gpu(device)
        self.codec_config, self.lm_config = codec.config, lm.config
        self.num_slots = slots
        options.check(self.device)
        self.width = max(options.sizes)
        self._heard = np.zeros(slots + 1, np.int64)  # latents of the codec
        self._read = np.zeros(slots + 1, np.int64)  # columns of the decoder
        self._ahead = Ahead(slots, self.width, lm.config)
        self.num_launches = 0
        """How often the device was given something to compute."""
        with told_as(lambda: no_weights(codec, lm, self.device)):
            codec = codec.to(self.device).eval().requires_grad_(False)
            lm = lm.to(self.device).eval().requires_grad_(False)
            digest = digest_of_model(codec, lm)
            with torch.inference_mode():
                table = one_table(lm)  # on the caller's stream, which gets the freed memory
        dtype = lm.out_norm.weight.dtype
        kv = dtype if options.kv == "auto" else RING_DTYPES[options.kv]
        self.description, self.signature = self._names(dtype, kv, digest)
        self._place = Place(self.device)
        self._place.follow()
        room = self._room(codec, kv)
        room.check()
        with told_as(room.ran_out):
            self.launches = self._made(codec, lm, kv, table)
            self.first, self._primed = self._prime()

    def _made(
        self, codec: MimiEncoder, lm: LM, kv: torch.dtype, table: tuple[Tensor, Tensor]
    ) -> Launches:
        """Allocate the state of all slots, and make every launch over it."""
        options, device = self.options, self.device
        with self._on_device():
            self._pasts, self._codec_rings, self._rings = self._memories(codec, lm, kv)
            keys, codec_keys = (
                Remembered(rings, pick_attend(options.attention, rings, device))
                for rings in (self._rings, self._codec_rings)
            )
            draw = pick_draw(options.sampling, lm.config.text_vocab_size, device)
            self.can_draw = draw is not None
            network = Network(
                codec, lm, pasts=self._pasts, codec_keys=codec_keys, keys=keys, table=table,
                draw=draw,
            )  # fmt: skip
            graphs = device.type == "cuda" if options.graphs is None else options.graphs
            which = LaunchOptions(graphs, options.guess, options.sizes, options.rows)
            return Launches(network, self.num_slots, device, which)

    def _names(self, dtype: torch.dtype, kv: torch.dtype, digest: str) -> tuple[str, str]:
        weights, kept = (str(one).removeprefix("torch.") for one in (dtype, kv))
        sizes = self.lm_config.transformer
        return (
            f"cuda {weights}, keys in {kept}, on {self.device.type}",
            f"cuda {weights} kv {kept} {sizes.num_layers}x{sizes.dim} window {sizes.window} "
            f"K {self.lm_config.num_codebooks} model {digest}",
        )

    def _room(self, codec: MimiEncoder, kv: torch.dtype) -> Room:
        """How much memory the slots take, and how much is free for them."""
        lm, slots = self.lm_config, self.num_slots
        pasts = Pasts(codec, 0, torch.device("meta")).width
        each = slot_bytes(codec.config, lm, kv, pasts, self.width)
        workspace = workspace_bytes(codec.config, lm, slots, self.width)
        free = self.options.memory_bytes
        if free is None and self.device.type == "cuda":
            free = free_bytes(self.device)
        return Room(slots, each, workspace, free, kv)

    def _memories(self, codec: MimiEncoder, lm: LM, kv: torch.dtype) -> tuple[Pasts, Rings, Rings]:
        """Allocate the state of all slots: convolutions, the codec's rings, the decoder's rings."""
        slots, device, inner = self.num_slots, self.device, codec.config.transformer
        latents = self.width * inner.positions_per_frame
        return (
            Pasts(codec, slots, device),
            Rings(inner, slots, latents, torch.float32, device),
            Rings(lm.config.transformer, slots, self.width, kv, device),
        )

    def _prime(self) -> tuple[Said, dict[str, Tensor]]:
        """The decoder's output for the initial column, and what its rings then hold."""
        lm = self.lm_config
        # All rows of a call are alike: those that are not needed write to the spare slot too.
        n = self.launches.rows[1][0]
        columns = np.full((n, 1, 1 + lm.num_codebooks), lm.initial_code, np.int64)
        columns[:, 0, 0] = lm.initial_text_id
        spare = np.full(n, self.num_slots)
        with self._on_device():
            said = self._said(n, 1, logits=True)
            self._read_now(spare, columns, np.zeros(n, np.int64), np.zeros(n, DRAW), said)
            pauses = None if said.pauses is None else said.pauses[:1]
            assert said.logits is not None
            first = Said(said.tokens[:1], said.logprobs[:1], pauses, said.logits[:1])
            return first, self._rings.first(self.num_slots)

    @contextmanager
    def _on_device(self) -> Generator[None]:
        """See `Place`."""
        tf32 = self.options.tf32
        with (
            torch.inference_mode(),
            products(tf32=tf32),
            as_stored(self.device),
            self._place.entered(),
        ):
            yield

    # Slots.

    def forget(self, slot: int) -> None:
        """See `Backend.forget`."""
        with self._on_device():
            self._pasts.rows[slot].zero_()
        self._heard[slot] = 0
        self._ahead.forget(slot)

    def begin(self, slot: int) -> None:
        """See `Backend.begin`: copies what the initial column left in the rings."""
        with self._on_device():
            self._rings.put_first(slot, self._primed)
        self._read[slot] = 1
        self._ahead.forget(slot)
        self._ahead.put_token(slot, int(self.first.tokens[0, 0]))

    # Steps.

    def encode(self, slots: Ints, frames: NDArray[np.float32]) -> Ints:
        """See `Backend.encode`. Where one launch takes all the frames, the decoder reads ahead in
        the same launch."""
        n, T, _ = frames.shape
        codes = np.empty((n, T, self.codec_config.num_codebooks), np.int64)
        with self._on_device():
            for first, size in _parts(T, self.options.sizes):
                most = self.launches.rows[size][-1]
                for at in range(0, n, most):
                    rows = slice(at, at + most)
                    part = frames[rows, first : first + size]
                    codes[rows, first : first + size] = self._hear(slots[rows], part, size == T)
        return codes

    def _hear(self, slots: Ints, frames: NDArray[np.float32], ahead: bool) -> Ints:
        n, T, size = frames.shape
        launch = self.launches.of("step" if ahead else "encode", T, n)
        given = launch.given.host
        given["slots"][:n] = slots
        given["heard"][:n] = self._heard[slots]
        given["pcm"][:n] = frames.reshape(n, T * size)
        draws = self._ahead.next_draws(slots)
        if ahead:
            given["read"][:n] = self._read[slots]
            given["texts"][:n] = self._ahead.next_tokens(slots)
            given["limits"][:n] = self._ahead.limits(slots)
            _put_draws(launch, draws)
        self.launches.run(launch)
        self.num_launches += 1
        self._heard[slots] += T * self.codec_config.downsample
        codes = launch.told.host["codes"][:n]
        if ahead:
            columns = np.full((n, T, 1 + self.lm_config.num_codebooks), self.options.guess)
            columns[:, 0, 0] = given["texts"][:n]
            heard = codes[:, :, : self.lm_config.num_codebooks]
            numbers = np.arange(self.lm_config.num_codebooks)
            columns[:, :, 1:] = np.where(numbers < given["limits"][:n, None, None], heard, -1)
            told = launch.told.host
            pauses = told["pauses"][:n] if "pauses" in told else None
            said = Said(told["tokens"][:n], told["logprobs"][:n], pauses, None)
            self._ahead.put(slots, columns, draws, said, self.num_launches)
        return codes

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
        with self._on_device():
            if len(there):
                self._answer(slots[there], there, said)
            most = self.launches.rows[self._size(T)][-1]
            for at in range(0, len(missing), most):
                rows = missing[at : at + most]
                part = self._said(len(rows), T, logits=logits)
                start = self._read[slots[rows]]
                self._read_now(slots[rows], columns[rows], start, draws[rows], part)
                _put(said, rows, part)
        self._read[slots] += counts
        self._ahead.forget(slots)
        self._ahead.note(slots, columns, draws, said.tokens, counts)
        return said

    def _answer(self, slots: Ints, rows: Ints, said: Said) -> None:
        """Fill `rows` of `said` with what was read ahead for `slots`."""
        T = said.tokens.shape[1]
        said.tokens[rows], said.logprobs[rows], pauses = self._ahead.take(slots, T)
        if said.pauses is not None:
            said.pauses[rows] = pauses
        if said.logits is not None:
            launch = self.launches.last
            assert launch is not None
            places = torch.from_numpy(self._ahead.rows(slots)).to(self.device)  # pyright: ignore[reportUnknownMemberType]
            said.logits[rows] = launch.logits[places, :T].cpu().numpy()

    def _read_now(self, slots: Ints, columns: Ints, start: Ints, draws: Draws, said: Said) -> None:
        """Run one launch of the decoder for n slots, and fill `said` with its output."""
        n, T, _ = columns.shape
        launch = self.launches.of("read", self._size(T), n)
        given, told = launch.given.host, launch.told.host
        given["slots"][:n], given["read"][:n] = slots, start
        given["columns"][:n, :T] = columns
        given["columns"][:n, T:] = 0
        _put_draws(launch, draws)
        self.launches.run(launch)
        self.num_launches += 1
        said.tokens[...], said.logprobs[...] = told["tokens"][:n, :T], told["logprobs"][:n, :T]
        if said.pauses is not None:
            said.pauses[...] = told["pauses"][:n, :T]
        if said.logits is not None:
            said.logits[...] = launch.logits[:n, :T].cpu().numpy()

    def _size(self, T: int) -> int:
        """Columns of the smallest call that has room for T of each row."""
        return next(size for size in self.options.sizes if size >= T)

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
        self._read[slots] -= columns
        self._ahead.forget(slots)
        self._ahead.note_back(slots, columns)

    # Going back, saving.

    def mark(self, slot: int) -> Any:
        """See `Backend.mark`."""
        with self._on_device():
            pasts = self._pasts.rows[slot].clone()
        token = self._ahead.token_state(slot)
        return _CudaMark(pasts, int(self._heard[slot]), int(self._read[slot]), token)

    def go_back(self, slot: int, mark: Any) -> None:
        """See `Backend.go_back`."""
        assert isinstance(mark, _CudaMark)
        with self._on_device():
            self._pasts.rows[slot].copy_(mark.pasts)
        self._heard[slot], self._read[slot] = mark.heard, mark.read
        self._ahead.forget(slot)
        self._ahead.put_token(slot, *mark.token)

    def save(self, slot: int) -> dict[str, NDArray[Any]]:
        """See `Backend.save`. Of keys and values it holds the window only, in the dtype they are
        kept in (bfloat16 and float8 as their bits)."""
        heard, read = int(self._heard[slot]), int(self._read[slot])
        with self._on_device():
            codec = {**self._pasts.save(slot), **self._codec_rings.save(slot, heard)}
            decoder = self._rings.save(slot, read)
        codec["position"], decoder["position"] = np.array([heard]), np.array([read])
        return {f"codec.{name}": array for name, array in codec.items()} | {
            f"decoder.{name}": array for name, array in decoder.items()
        }

    def restore(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        """See `Backend.restore`."""
        codec, decoder = _under("codec.", saved), _under("decoder.", saved)
        heard, read = position_of(codec), position_of(decoder)
        known = (
            self._pasts.num_saved + 2 + len(self._codec_rings.tensors) + len(self._rings.tensors)
        )
        if len(saved) != known or len(codec) + len(decoder) != known:
            raise ValueError("it holds parts that are not known")
        with self._on_device():
            pasts = torch.from_numpy(self._pasts.check(codec))  # pyright: ignore[reportUnknownMemberType]
            codec_rings = self._codec_rings.check(heard, codec)
            rings = self._rings.check(read, decoder)
            self._pasts.rows[slot].copy_(pasts)
            self._codec_rings.restore(slot, heard, codec_rings)
            self._rings.restore(slot, read, rings)
        self._heard[slot], self._read[slot] = heard, read
        self._ahead.forget(slot)


def pick_gpu(name: str | None) -> torch.device:
    """The device called `name`; None and "auto" are "cuda".

    Raises:
        ConfigError: there is no such device, or it is neither a CUDA device nor the processor.
    """
    device = pick_device("cuda" if name in (None, "auto") else name)
    if device.type not in ("cuda", "cpu"):
        raise ConfigError(
            f"engine='cuda' runs on devices called 'cuda', not on {name!r}; engine='torch' does"
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
    """Tell a call how its rows draw; nothing where the host draws."""
    if "draws" in launch.given.host:
        launch.given.host["draws"][: len(draws)] = draw_numbers(draws)


def _put(said: Said, rows: Ints, part: Said) -> None:
    said.tokens[rows], said.logprobs[rows] = part.tokens, part.logprobs
    for whole, own in ((said.pauses, part.pauses), (said.logits, part.logits)):
        if whole is not None and own is not None:
            whole[rows] = own


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
