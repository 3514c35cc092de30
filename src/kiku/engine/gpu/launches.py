"""Every call that the device is given: which calls there are, what goes in and comes out, and the
one place where the host waits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kiku.engine.gpu.capture import Graphs
from kiku.engine.gpu.draws import DRAW_WIDTH
from kiku.engine.gpu.network import Network, Spoken
from kiku.engine.gpu.room import MAX_FRAMES, SIZES
from kiku.engine.gpu.trays import Buffers, Fields, Tray, nbytes

ROWS = (1, 8, 64, 512)
"""Numbers of rows that calls come in, besides the most possible: so a few rows cost less than
all."""

Kind = Literal["step", "encode", "read"]
"""What a call runs: the codec and then the decoder; the codec alone; the decoder alone."""

_KINDS: tuple[Kind, ...] = ("step", "encode", "read")


@dataclass(frozen=True)
class LaunchOptions:
    """Which calls there are, and how they run."""

    graphs: bool
    """Whether they are recorded as CUDA graphs."""
    guess: int
    """The token that a "step" reads in all columns after a row's first."""
    sizes: Sequence[int] = SIZES
    """See `SIZES`; ascending, and 1 is among them."""
    rows: Sequence[int] = ROWS
    """See `ROWS`."""


@dataclass(frozen=True)
class Launch:
    """One call of a fixed size."""

    key: tuple[Kind, int, int]  # with T and R
    given: Tray
    told: Tray
    logits: Tensor  # [R, T, V] on the device, until the next launch


class Launches:
    """All calls over one network."""

    def __init__(
        self, network: Network, num_slots: int, device: torch.device, options: LaunchOptions
    ) -> None:
        """Record all calls; no slot is in use yet.

        Args:
            network: what the calls run.
            num_slots: B; the slot of that number is the spare one.
            device: of the network.
            options: which calls there are.
        """
        self._network, self._device, self._spare = network, device, num_slots
        self._guess, self.sizes = options.guess, options.sizes
        self.graphs = Graphs(device, enabled=options.graphs)
        self.rows = {T: row_sizes(T, num_slots, options.rows) for T in self.sizes}
        codec, lm = network.codec.config, network.lm.config
        self._numbers = (
            codec.frame_size,
            codec.num_codebooks,
            lm.num_codebooks,
            lm.num_pause_heads,
        )
        self._vocab = lm.text_vocab_size
        keys: list[tuple[Kind, int, int]] = [
            (kind, T, R) for kind in _KINDS for T in self.sizes for R in self.rows[T]
        ]
        self._given = Buffers(max(nbytes(self._inputs(*key)) for key in keys), device)
        self._told = Buffers(max(nbytes(self._outputs(*key)) for key in keys), device)
        most = max(T * R for _, T, R in keys)
        self._logits = torch.empty(most, self._vocab, device=device)
        self.last: Launch | None = None
        """The call that ran last: its logits are still there."""
        self._launches = {key: self._made(*key) for key in keys}
        for launch in self._launches.values():
            self.graphs.add(launch.key, self._work(launch))
            self.wait()

    def _inputs(self, kind: Kind, T: int, R: int) -> Fields:
        samples, _, K, _ = self._numbers
        whole = torch.int64
        fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"slots": ((R,), whole)}
        if kind != "read":
            fields |= {"heard": ((R,), whole), "pcm": ((R, T * samples), torch.float32)}
        if kind != "encode":
            fields["read"] = ((R,), whole)
            if self._network.draw is not None:
                fields["draws"] = ((R, DRAW_WIDTH), whole)
        if kind == "step":
            fields |= {"texts": ((R,), whole), "limits": ((R,), whole)}
        if kind == "read":
            fields["columns"] = ((R, T, 1 + K), whole)
        return fields

    def _outputs(self, kind: Kind, T: int, R: int) -> Fields:
        _, codes, _, pauses = self._numbers
        fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        if kind != "read":
            fields["codes"] = ((R, T, codes), torch.int64)
        if kind != "encode":
            fields |= {"tokens": ((R, T), torch.int64), "logprobs": ((R, T), torch.float32)}
            fields |= {"pauses": ((R, T, pauses), torch.float32)} if pauses else {}
        return fields

    def _made(self, kind: Kind, T: int, R: int) -> Launch:
        given = Tray(self._inputs(kind, T, R), self._given)
        told = Tray(self._outputs(kind, T, R), self._told)
        return Launch((kind, T, R), given, told, self._logits[: R * T].view(R, T, self._vocab))

    def _work(self, launch: Launch) -> Callable[[], None]:
        """The work to be recorded. In its first runs all rows belong to the spare slot."""
        kind, T, R = launch.key
        for name, array in launch.given.host.items():
            array[...] = self._spare if name == "slots" else 0
        launch.given.send()
        return lambda: self.compute(kind, T, R)

    def compute(self, kind: Kind, T: int, R: int) -> None:
        """Do the work of one call, from the input on the device to the output on the device."""
        launch = self._launches[kind, T, R]
        given, told = launch.given.device, launch.told.device
        columns = given.get("columns")
        if kind != "read":
            codes = self._network.hear(given["pcm"], given["slots"], given["heard"])
            told["codes"].copy_(codes)
            if kind == "step":
                columns = self._network.columns(codes, given["texts"], given["limits"], self._guess)
        if columns is not None:
            draws = given.get("draws")
            _tell(self._network.read(columns, given["slots"], given["read"], draws), launch)

    def of(self, kind: Kind, T: int, n: int) -> Launch:
        """The smallest call that has room for n rows."""
        R = next(R for R in self.rows[T] if n <= R)
        launch = self._launches[kind, T, R]
        for name, array in launch.given.host.items():  # another call's bytes may lie there
            array[n:] = self._spare if name == "slots" else 0
        return launch

    def run(self, launch: Launch) -> None:
        """Send what was put into `given`, compute, and wait until all is in `told`."""
        self.last = launch
        try:
            launch.given.send()
            self.graphs.run(launch.key)
            launch.told.fetch()
        finally:  # after an interrupt, too: the next call fills `given`, which is still being read
            self.wait()

    def wait(self) -> None:
        """Wait until the device has done all work that it was given."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()


def _tell(spoken: Spoken, launch: Launch) -> None:
    told = launch.told.device
    launch.logits.copy_(spoken.logits)
    told["tokens"].copy_(spoken.tokens)
    told["logprobs"].copy_(spoken.logprobs)
    if spoken.pauses is not None:
        told["pauses"].copy_(spoken.pauses)


def row_sizes(T: int, num_slots: int, rows: Sequence[int] = ROWS) -> tuple[int, ...]:
    """Numbers of rows that calls of T frames come in, ascending: those of `rows` below the most
    possible, and the most."""
    most = max(1, min(num_slots, MAX_FRAMES // T))
    return (*(n for n in sorted(rows) if n < most), most)
