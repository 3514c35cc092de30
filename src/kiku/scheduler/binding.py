"""What the scheduler steps: sessions, the slots they hold, and what is asked for between steps."""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kiku.decoding import TokenPicker
from kiku.engine import Picker, SamplingParams, SlotEngine, StepOutput
from kiku.errors import StreamError
from kiku.stream import Work

T = TypeVar("T")

OnOutput = Callable[[StepOutput], None]
"""Is shown everything that the engine says about one session, one row at a time."""


class Session(Protocol):
    """All that the scheduler asks of a client. Whatever a method raises ends this session alone."""

    on_input: Callable[[], None] | None
    """Set by the scheduler: to be called, from any thread and without a lock, when there may be
    something pending that was not before."""

    failure: Exception | None
    """What it failed with; nothing more will come."""

    @property
    def done(self) -> bool:
        """Whether nothing more will come and the slot is free."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether it comes to its end without anybody doing anything more."""
        ...

    @property
    def work(self) -> Work | None:
        """What is to be done in the slot before the next frame."""
        ...

    def pending(self) -> int | Work | None:
        """How many frames may be taken (0: none now), or what is to be done before; None at the
        end."""
        ...

    def take(self, num_frames: int) -> Sequence[NDArray[np.float32]]:
        """The samples of the next frames, in pieces [S] that nobody writes into."""
        ...

    def begin(self, token: int, logprob: float) -> None:
        """Take what the model said before the first frame."""
        ...

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take what the model said after the frames taken last: [T] each, pauses [T][E]."""
        ...

    @property
    def may_go_on(self) -> bool:
        """After `accept`: whether more may be pending now, without anybody giving anything."""
        ...

    def finish(self) -> None:
        """All has been heard."""
        ...

    def cut(self) -> None:
        """End at once."""
        ...

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        ...

    def released(self) -> None:
        """The slot is free again."""
        ...


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """How a slot picks its tokens."""

    picker: Picker | SamplingParams | None = None
    num_codebooks: int | None = None


class Binding:
    """A session and the slot that it holds. Does in the slot what work asks for (`SlotAccess`)."""

    def __init__(self, engine: SlotEngine, slot: int, member: "Member", opening: "Opening") -> None:
        """`Scheduler` makes them."""
        self.slot, self.session, self.options = slot, member.session, member.options
        self.on_output = member.on_output
        self.live, self.driven, self.thread = opening.live, opening.driven, opening.thread
        """See `Opening`."""
        self.is_awake = False
        """Whether it stands in the queue of those that are to be looked at."""
        self.worked_at = 0
        """When a piece of work was last done for it."""
        self.due_at = 0.0
        """When the next frame of a live session is expected."""
        self.moved_at = 0
        """When frames of a recording were last taken beside live sessions."""
        self._engine = engine
        self._mark: Any = None

    def set_decoding(self, options: SlotOptions) -> None:
        """From the next frame on, pick tokens so."""
        self._engine.set_decoding(self.slot, options.picker, num_codebooks=options.num_codebooks)
        self.options = options

    def change_decoding(self, picker: TokenPicker | None, num_codebooks: int | None) -> None:
        """See `SlotAccess.change_decoding`."""
        before = self.options.picker
        if picker is not None and isinstance(before, TokenPicker):
            picker.go_on(before.state())
        self.set_decoding(SlotOptions(picker, num_codebooks))

    def look_ahead(self, frames: NDArray[np.float32]) -> tuple[list[int], list[float]]:
        """See `SlotAccess.look_ahead`."""
        engine, slot, options = self._engine, self.slot, self.options
        if self._mark is None:
            self._mark = engine.mark(slot)
            spare = copy.deepcopy(options.picker)  # what is taken back must cost no chance
            engine.set_decoding(slot, spare, num_codebooks=options.num_codebooks)
        tokens: list[int] = []
        logprobs: list[float] = []
        for first in range(0, len(frames), engine.max_block):
            part = frames[first : first + engine.max_block]
            out = engine.step([slot], part, [len(part)])
            out.raise_failure()
            tokens += out.tokens.tolist()
            logprobs += out.logprobs.tolist()
        return tokens, logprobs

    def end_look_ahead(self) -> None:
        """See `SlotAccess.end_look_ahead`."""
        if self._mark is not None:
            self._engine.go_back(self.slot, self._mark)
            self._mark = None
            self.set_decoding(self.options)

    def truncate(self, frames: int, most: int | None) -> int:
        """See `SlotAccess.truncate`."""
        return self._engine.truncate(self.slot, frames, most=most)

    def redecode(self, frames: int, most: int | None) -> tuple[tuple[list[int], list[float]], int]:
        """See `SlotAccess.redecode`."""
        out, left = self._engine.redecode(self.slot, frames, most=most)
        out.raise_failure()
        return (out.tokens.tolist(), out.logprobs.tolist()), left


def interrupted() -> StreamError:
    """The error for clients whose work was under way when Ctrl-C came."""
    return StreamError("the stream was interrupted in the middle of a step")


def error_for_client(error: BaseException) -> Exception:
    """What a client is told of an error that ended its session: always an `Exception`."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt):
        return interrupted()
    wrapped = StreamError(f"the stream was ended by {error!r} in the middle of its work")
    wrapped.__cause__ = error
    return wrapped


def is_ctrl_c(error: BaseException) -> bool:
    """Whether this is Ctrl-C in the main thread: it must be raised there, not told to a client."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and in_main_thread


class Awaited(Generic[T]):
    """What somebody waits for: it comes, or an error does."""

    def __init__(self, on_done: Callable[[], None] | None = None) -> None:
        """Not there yet; `on_done` is called when it is, by whoever drives."""
        self._on_done = on_done
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None

    def settle(self, value: T | None = None, error: BaseException | None = None) -> None:
        """It is there, or will never be."""
        self._value, self._error = value, error
        self.done = True
        if self._on_done is not None:
            self._on_done()

    def result(self) -> T:
        """It, or raises the error."""
        if self._error is not None:
            raise self._error
        return self._value  # pyright: ignore[reportReturnType]


class Job(Awaited[T]):
    """A call that whoever drives makes between two steps."""

    def __init__(self, call: Callable[[], T], on_done: Callable[[], None] | None = None) -> None:
        """Of `call`."""
        super().__init__(on_done)
        self._call = call

    def run(self) -> None:
        """Make the call. Only Ctrl-C is raised: whoever asked for the call is told something else,
        as he may be in another thread."""
        try:
            value = self._call()
        except BaseException as error:
            if is_ctrl_c(error):
                self.settle(error=interrupted())
                raise
            self.settle(error=error)
        else:
            self.settle(value)


@dataclass(frozen=True, slots=True)
class Member:
    """A session that is to be given a slot."""

    session: Session
    options: SlotOptions = field(default_factory=SlotOptions)
    saved: bytes | None = None
    """What the slot remembers; None is a fresh one."""
    on_output: OnOutput | None = None


class Opening(Awaited[list[Binding]]):
    """Sessions that wait for a slot each, all at the same time."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        live: bool = False,
        driven: bool | None = None,
        at_once: bool = False,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Of `members`.

        Args:
            members: each gets a slot when all can.
            live: somebody speaks; a recording takes the time that live sessions leave.
            driven: a thread of the scheduler's own drives as long as they are open; None is as
                `live` says.
            at_once: refuse where the slots are not free now.
            on_done: see `Awaited`.
        """
        super().__init__(on_done)
        self.members, self.live, self.at_once = members, live, at_once
        self.driven = live if driven is None else driven
        self.thread = threading.get_ident()
        self.cancelled = False

    @property
    def given(self) -> list[Binding]:
        """The slots, if it got them."""
        return self._value or []
