"""The sessions that hold a slot, from the moment they get it until it is free again.

The thread that makes the round does everything here but two things: any thread may call `rouse` and
`leave`, which take no lock.
"""

import copy
import logging
from collections import deque
from collections.abc import Collection, Iterable
from functools import partial

from kiku.engine import SlotEngine
from kiku.scheduler.binding import Binding, Member, Opening, error_for_client, is_ctrl_c
from kiku.stream import Work

_LOG = logging.getLogger(__name__)


class OpenSessions:
    """Binds sessions to slots, keeps those that have something to do, and frees the slots of those
    that end, leave or fail."""

    def __init__(self, engine: SlotEngine) -> None:
        """No session holds a slot yet."""
        self.num_live = 0
        """How many of the sessions are live."""
        self.num_driven = 0
        """How many of them a thread of the scheduler's own has to drive."""
        self._engine = engine
        self._by_slot: dict[int, Binding] = {}
        self._awake: deque[Binding] = deque()  # something may be pending in these
        self._held_back: list[Binding] = []  # recordings, until live sessions leave them room
        self._leaving: deque[tuple[Binding, bool]] = deque()

    @property
    def bindings(self) -> Collection[Binding]:
        """All sessions that hold a slot. Other threads must copy this before they iterate."""
        return self._by_slot.values()

    @property
    def num_free(self) -> int:
        """Slots that no session holds but those that leave. Any thread may ask."""
        staying = sum(not one.is_leaving for one in list(self._by_slot.values()))
        return self._engine.num_slots - staying

    def holds(self, binding: Binding) -> bool:
        """Whether the session still holds its slot."""
        return self._by_slot.get(binding.slot) is binding

    def bind(self, member: Member, opening: Opening) -> Binding:
        """Give a session a free slot, and the token with which a slot begins.

        Raises:
            Exception: the engine, the session or its `on_output` failed; the slot is free again.
        """
        engine, options, saved = self._engine, member.options, member.saved
        # `open` draws a token. A picker that goes on has drawn that token already: draw with a copy
        picker = copy.deepcopy(options.picker) if saved is not None else options.picker
        slot, first = engine.open(picker, num_codebooks=options.num_codebooks)
        binding = Binding(engine, slot, member, opening)
        try:
            if saved is not None:
                engine.put(slot, saved)
                binding.set_decoding(options)
            else:
                member.session.begin(int(first.tokens[0]), float(first.logprobs[0]))
                if binding.on_output is not None:
                    binding.on_output(first)
        except BaseException:
            engine.close(slot)
            raise
        self._by_slot[slot] = binding
        self.num_live += binding.live
        self.num_driven += binding.driven
        member.session.on_input = partial(self.rouse, binding)
        self.rouse(binding)
        return binding

    # Which sessions the next round asks.

    @property
    def has_leaving(self) -> bool:
        """Whether the next round frees slots."""
        return bool(self._leaving)

    @property
    def has_more(self) -> bool:
        """Whether a round would find a session to ask, or a slot to free."""
        return bool(self._awake or self._leaving)

    def rouse(self, binding: Binding) -> None:
        """Have the next round ask this session. Takes no lock: any thread may call it."""
        if not binding.is_awake:
            binding.is_awake = True
            self._awake.append(binding)

    def rouse_all(self) -> None:
        """Have the next round ask every session, after a round that was broken off."""
        self._held_back.clear()
        for binding in list(self._by_slot.values()):
            binding.is_awake = True
            self._awake.append(binding)

    def hold_back(self, bindings: Iterable[Binding]) -> None:
        """Have the next round ask these sessions, but do not count them for `has_more`: nothing has
        changed for them until the time at which there is room."""
        self._held_back += bindings

    def take_awake(self) -> list[Binding]:
        """The sessions in which something may be pending, each once. From now on they sleep."""
        found = {one.slot: one for one in self._held_back if self.holds(one)}
        self._held_back.clear()
        for _ in range(len(self._awake)):
            binding = self._awake.popleft()
            binding.is_awake = False  # whatever comes from now on wakes it again
            if self._by_slot.get(binding.slot) is binding:
                found[binding.slot] = binding  # two threads may have woken it at once
        return list(found.values())

    # How a session leaves its slot.

    def leave(self, binding: Binding, *, cut: bool) -> None:
        """Have the next `sweep` free a session's slot. Takes no lock: any thread may call it, and
        the garbage collector at any moment. See `Scheduler.release`."""
        if self.holds(binding):  # a stream that has ended gives up a slot that it has not
            binding.is_leaving = True
            self._leaving.append((binding, cut))

    def sweep(self) -> int:
        """Free the slots of the sessions that leave; how many."""
        swept = 0
        while self._leaving:
            binding, cut = self._leaving.popleft()
            if not self.holds(binding):
                continue
            swept += 1
            if cut:
                try:
                    binding.session.cut()
                except BaseException as error:
                    self.fail(binding, error)
                    continue
            self.free(binding)
        return swept

    def run_work(self, binding: Binding, work: Work, most: int | None) -> None:
        """Do a piece of work, of at most `most` frames (None: all), in a session's slot."""
        try:
            work.run(binding, binding.session, most)  # pyright: ignore[reportArgumentType]
        except BaseException as error:
            self.fail(binding, error)

    def finish(self, binding: Binding) -> None:
        """End a session that has heard everything, and free its slot."""
        try:
            binding.session.finish()
        except BaseException as error:
            self.fail(binding, error)
        else:
            self.free(binding)

    def fail(self, binding: Binding, error: BaseException, *, reraise: bool = True) -> None:
        """End the session that failed, report the error to it, and free its slot. No other session
        notices. Ctrl-C in the main thread is raised again, unless `reraise` is off."""
        try:
            binding.session.fail(error_for_client(error))
        except BaseException:
            _LOG.exception("a failure could not be reported to its session")
        self.free(binding)
        if reraise and is_ctrl_c(error):
            raise error

    def fail_all(self, error: BaseException) -> None:
        """End all sessions, as a round itself failed by a mistake of kiku's own."""
        for binding in list(self._by_slot.values()):
            self.fail(binding, error)

    def free(self, binding: Binding) -> None:
        """Give a slot back, and tell its session so."""
        if self.holds(binding):
            del self._by_slot[binding.slot]
            self.num_live -= binding.live
            self.num_driven -= binding.driven
        self._engine.close(binding.slot)
        # Otherwise session and scheduler would keep each other, and the session all that it heard,
        # until the garbage collector comes.
        binding.session.on_input = _ignore_input
        try:
            binding.session.released()
        except BaseException:  # a listener's mistake must not harm others
            _LOG.exception("a callback at the end of a stream failed")


def _ignore_input() -> None:
    """What a session without a slot calls when it gets input. Not None, as a push may be about to
    call it."""
