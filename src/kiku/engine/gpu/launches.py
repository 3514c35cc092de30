"""Every call that the device is given: which calls there are, what goes in and comes out, and the
one place where the host waits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

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

    key: tuple[Kind, int, int]
    """What it runs, T and R."""
    given: Tray
    """The arrays that go to the device."""
    told: Tray
    """The arrays that come back from it, besides the logits."""
    logits: Tray
    """[R, T, V] float32; on the device until the next call, on the host where they were fetched."""


@dataclass(frozen=True)
class _Fields:
    """The arrays that go into a call and come out of it."""

    frame_size: int
    codec_codebooks: int
    codebooks: int
    """K: those that the decoder reads."""
    pauses: int
    vocab: int
    draws: bool
    """Whether the device draws tokens."""

    def inputs(self, kind: Kind, T: int, R: int) -> Fields:
        whole = torch.int64
        fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"slots": ((R,), whole)}
        if kind != "read":
            fields |= {"heard": ((R,), whole), "pcm": ((R, T * self.frame_size), torch.float32)}
        if kind != "encode":
            fields["read"] = ((R,), whole)
            if self.draws:
                fields["draws"] = ((R, DRAW_WIDTH), whole)
        if kind == "step":
            fields |= {"texts": ((R,), whole), "limits": ((R,), whole)}
        if kind == "read":
            fields["columns"] = ((R, T, 1 + self.codebooks), whole)
        return fields

    def outputs(self, kind: Kind, T: int, R: int) -> Fields:
        fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        if kind != "read":
            fields["codes"] = ((R, T, self.codec_codebooks), torch.int64)
        if kind != "encode":
            fields |= {"tokens": ((R, T), torch.int64), "logprobs": ((R, T), torch.float32)}
            if self.pauses:
                fields["pauses"] = ((R, T, self.pauses), torch.float32)
        return fields

    def logits(self, kind: Kind, T: int, R: int) -> Fields:
        del kind  # all calls share the memory, also those that give none
        return {"logits": ((R, T, self.vocab), torch.float32)}


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
        self.guess, self.sizes = options.guess, options.sizes
        self.graphs = Graphs(device, enabled=options.graphs)
        self.rows = {T: row_sizes(T, num_slots, options.rows) for T in self.sizes}
        self._launches = self._made()
        self._last: Launch | None = None
        self._num_fetched = 0
        """Rows of the last call whose logits are on the host."""
        # The largest first: those that are recorded later find room in what they leave.
        for launch in sorted(self._launches.values(), key=lambda one: -one.key[1] * one.key[2]):
            self.graphs.add(launch.key, self._work(launch))
            self.wait()
        self.graphs.record()

    def _made(self) -> dict[tuple[Kind, int, int], Launch]:
        """Every call. All of them share the same memory: they run one at a time."""
        codec, lm = self._network.codec.config, self._network.lm.config
        fields = _Fields(
            codec.frame_size, codec.num_codebooks, lm.num_codebooks, lm.num_pause_heads,
            lm.text_vocab_size, self._network.draw is not None,
        )  # fmt: skip
        keys: list[tuple[Kind, int, int]] = [
            (kind, T, R) for kind in _KINDS for T in self.sizes for R in self.rows[T]
        ]
        made: dict[tuple[Kind, int, int], list[Tray]] = {key: [] for key in keys}
        for of in (fields.inputs, fields.outputs, fields.logits):
            shapes = {key: of(*key) for key in keys}
            buffers = Buffers(max(map(nbytes, shapes.values())), self._device)
            for key in keys:
                made[key].append(Tray(shapes[key], buffers))
        return {key: Launch(key, *trays) for key, trays in made.items()}

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
                columns = self._network.columns(codes, given["texts"], given["limits"], self.guess)
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

    def run(self, launch: Launch, *, num_logits: int = 0) -> None:
        """Send what was put into `given`, compute, and wait until all is in `told`, and the logits
        of the first `num_logits` rows are on the host."""
        self._last, self._num_fetched = launch, 0
        try:
            launch.given.send()
            self.graphs.run(launch.key)
            launch.told.fetch()
            if num_logits:
                launch.logits.fetch(num_logits * _row_bytes(launch))
        finally:  # after an interrupt, too: the next call fills `given`, which is still being read
            self.wait()
        self._num_fetched = num_logits

    def logits(self, rows: NDArray[np.int64], T: int) -> NDArray[np.float32]:
        """[n, T, V] for some rows of the call that ran last, and their first T columns. Where that
        call did not fetch them, this waits for the device."""
        launch, wanted = self._last, int(rows.max()) + 1
        assert launch is not None
        if wanted > self._num_fetched:
            launch.logits.fetch(wanted * _row_bytes(launch))
            self.wait()
            self._num_fetched = wanted
        return launch.logits.host["logits"][rows, :T]

    def wait(self) -> None:
        """Wait until the device has done all work that it was given."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()


def _row_bytes(launch: Launch) -> int:
    """Bytes of one row's logits."""
    return launch.logits.host["logits"][0].nbytes


def _tell(spoken: Spoken, launch: Launch) -> None:
    """Copy the decoder's output to where the call's results are fetched from."""
    told = launch.told.device
    launch.logits.device["logits"].copy_(spoken.logits)
    told["tokens"].copy_(spoken.tokens)
    told["logprobs"].copy_(spoken.logprobs)
    if spoken.pauses is not None:
        told["pauses"].copy_(spoken.pauses)


def row_sizes(T: int, num_slots: int, rows: Sequence[int] = ROWS) -> tuple[int, ...]:
    """Numbers of rows that calls of T frames come in, ascending: those of `rows` below the most
    possible, and the most."""
    most = max(1, min(num_slots, MAX_FRAMES // T))
    return (*(n for n in sorted(rows) if n < most), most)
