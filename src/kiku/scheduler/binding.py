"""What the scheduler works with: sessions, the slots that they hold, and requests between steps."""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kiku.decoding import TokenPicker
from kiku.engine import Picker, SamplingParams, SavedSlot, SlotEngine, StepOutput
from kiku.errors import StreamError
from kiku.stream import Work

T = TypeVar("T")

OnOutput = Callable[[StepOutput], None]
"""Called with the engine's whole output for one session: when it opens, and after its steps."""


class Session(Protocol):
    """What the scheduler needs of a session. An error in one of its methods ends this session
    alone."""

    on_input: Callable[[], None] | None
    """Set by the scheduler. The session calls it, from any thread and without a lock, when
    something may be pending that was not before."""

    failure: Exception | None
    """The error that ended the session; None if none has."""

    @property
    def done(self) -> bool:
        """Whether the session gives out no more events and its slot is free."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether the session will end without another call by its client."""
        ...

    @property
    def work(self) -> Work | None:
        """The work that has to be done in the slot before the next frame; None if there is none."""
        ...

    def pending(self, most: int = ...) -> int | Work | None:
        """How many frames may be taken (0: none now), or the work that has to be done before them;
        None if the session has come to its end.

        Args:
            most: frames that can be taken now; it need not have more ready.
        """
        ...

    def take(self, num_frames: int) -> Sequence[NDArray[np.float32]]:
        """Take the samples of the next frames, in pieces [S] that are not written to afterwards."""
        ...

    def begin(self, token: int, logprob: float) -> None:
        """Take the token that the model gives before the first frame, and its log-probability."""
        ...

    def accept(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        levels: Sequence[float],
        pauses: Sequence[Sequence[float]] | None,
    ) -> None:
        """Take the model's output for the T frames that were taken last, and their loudness in
        dBFS: [T] each, pauses [T][E]."""
        ...

    @property
    def may_go_on(self) -> bool:
        """After `accept`: whether more may be pending now, without another call by the client."""
        ...

    def finish(self) -> None:
        """Give out what is left, and the end: the model has heard everything."""
        ...

    def cut(self) -> None:
        """Give out the last word and the end at once, before all sound was heard."""
        ...

    def fail(self, error: Exception) -> None:
        """End with an error. What was transcribed before is given out."""
        ...

    def released(self) -> None:
        """Take note that the slot is free again."""
        ...


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """How a slot picks its tokens."""

    picker: Picker | SamplingParams | None = None
    num_codebooks: int | None = None


class Binding:
    """A session and the slot that it holds. Work reaches the slot through it (`SlotAccess`)."""

    def __init__(self, engine: SlotEngine, slot: int, member: "Member", opening: "Opening") -> None:
        """Bind `member` to `slot`, which was given for `opening`. `OpenSessions` makes bindings."""
        self.slot, self.session, self.options = slot, member.session, member.options
        self.on_output = member.on_output
        self.live, self.driven, self.thread = opening.live, opening.driven, opening.thread
        """See `Opening`."""
        self.is_awake = False
        """Whether the session is in the queue of those that the next round asks."""
        self.is_leaving = False
        """Whether the next round frees its slot."""
        self.worked_at = 0
        """The number of the last piece of work that was done for it, among all pieces; 0 if none
        was."""
        self.due_at = 0.0
        """When the next frame of a live session is expected, by the clock of `Pacing`."""
        self.moved_at = 0
        """The number of the last turn in which frames of a recording were taken next to live
        sessions; 0 if none were."""
        self._engine = engine
        self._mark: Any = None

    def set_decoding(self, options: SlotOptions) -> None:
        """Pick tokens as `options` say, from the next frame on."""
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
            # A copy, so that what is taken back uses up no random numbers of the picker.
            spare = copy.deepcopy(options.picker)
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
    """The error for clients whose frames or calls were under way when Ctrl-C came."""
    return StreamError("the stream was interrupted in the middle of a step")


def error_for_client(error: BaseException) -> Exception:
    """The error that a client gets for one that ended its session: always an `Exception`."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt):
        return interrupted()
    wrapped = StreamError(f"the stream was ended by {error!r} in the middle of its work")
    wrapped.__cause__ = error
    return wrapped


def is_ctrl_c(error: BaseException) -> bool:
    """Whether this is Ctrl-C in the main thread. It must be raised there, not given to a client."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and in_main_thread


class Awaited(Generic[T]):
    """A result that a thread or a task waits for: it will be a value or an error."""

    def __init__(self, on_done: Callable[[], None] | None = None) -> None:
        """Not settled yet. When it is, the thread that drives calls `on_done`."""
        self._on_done = on_done
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None

    def settle(self, value: T | None = None, error: BaseException | None = None) -> None:
        """Give the value, or the error in place of one."""
        self._value, self._error = value, error
        self.done = True
        if self._on_done is not None:
            self._on_done()

    def result(self) -> T:
        """The value; raises the error if there is one."""
        if self._error is not None:
            raise self._error
        return self._value  # pyright: ignore[reportReturnType]


class Job(Awaited[T]):
    """A call that the thread which drives makes between two steps."""

    def __init__(self, call: Callable[[], T], on_done: Callable[[], None] | None = None) -> None:
        """The call was not made yet; see `Awaited` for `on_done`."""
        super().__init__(on_done)
        self._call = call

    def run(self) -> None:
        """Make the call. Only Ctrl-C is raised here; the client, which may be in another thread,
        then gets a StreamError."""
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
    """A session that asks for a slot."""

    session: Session
    options: SlotOptions = field(default_factory=SlotOptions)
    saved: SavedSlot | None = None
    """The state to put into the slot (see `SlotEngine.check`); None begins afresh."""
    on_output: OnOutput | None = None


class Opening(Awaited[list[Binding]]):
    """Sessions that wait for one slot each. All get theirs at the same time."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        live: bool = False,
        driven: bool | None = None,
        timeout: float | None = 0.0,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """None of `members` has a slot yet.

        Args:
            members: each gets a slot as soon as all of them can.
            live: whether the sound comes as it is spoken. A recording takes the time that live
                sessions leave.
            driven: whether a thread of the scheduler's own drives while these sessions are open;
                None is as `live` says.
            timeout: seconds that they may wait. With 0 or less they are refused if the slots are
                not free in the next round; None waits as long as others hold them.
            on_done: see `Awaited`.
        """
        super().__init__(on_done)
        self.members, self.live = members, live
        self.timeout = timeout
        self.driven = live if driven is None else driven
        self.thread = threading.get_ident()
        self.cancelled = False
        """Whether it was withdrawn; `OpeningQueue` alone says so."""

    @property
    def at_once(self) -> bool:
        """Whether the next round gives the slots or refuses them."""
        return self.timeout is not None and self.timeout <= 0

    @property
    def wait_s(self) -> float | None:
        """Seconds after which to withdraw the opening if it is not settled by then; None: do not,
        as the next round settles it, or as it may wait without a limit."""
        return None if self.at_once else self.timeout

    @property
    def given(self) -> list[Binding]:
        """The sessions with their slots; empty if they have none."""
        return self._value or []
