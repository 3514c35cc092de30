"""What a live stream is made of, and how it is written down: `StreamSetup`, `SavedStream`."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kiku.decoding import TokenPicker
from kiku.engine import SavedSlot, SlotEngine
from kiku.errors import ConfigError, StreamError
from kiku.options import AudioFormat, DecodingOptions, StreamOptions
from kiku.scheduler import Binding, Member, Scheduler, SlotOptions
from kiku.stream import DecodingChange, WordSession
from kiku.stream.saved import pack_stream, unpack_stream


@dataclass(slots=True)
class StreamSetup:
    """What a live stream is made of."""

    scheduler: Scheduler
    options: StreamOptions
    bindings: Sequence[Binding]
    """The stream's sessions with their slots: one, or one for each channel in order. All are
    `WordSession`s."""
    state_key: Callable[[], bytes | None]
    """Returns the key with which saved streams are signed; None signs none."""

    @property
    def sessions(self) -> list[WordSession]:
        """The sessions, without their slots."""
        return [cast("WordSession", binding.session) for binding in self.bindings]

    def copy(self, num_given: Sequence[int]) -> "StreamCopy":
        """A copy of the stream, which then goes on; to be called between two steps.

        Args:
            num_given: for each session, how many pushes and requests it had been given.
        """
        for binding in self.bindings:
            self.scheduler.settle(binding)
        engine = self.scheduler.engine
        sessions: list[dict[str, Any]] = []
        for binding, session, given in zip(self.bindings, self.sessions, num_given, strict=True):
            picker = binding.options.picker
            sessions.append(
                {
                    "session": session.save(given),
                    "slot": engine.copy(binding.slot),
                    "picker": picker.save() if isinstance(picker, TokenPicker) else None,
                }
            )
        return StreamCopy(sessions, self.state_key())


@dataclass(frozen=True, slots=True)
class StreamCopy:
    """A copy of a live stream, of which bytes can be made in any thread."""

    _sessions: list[dict[str, Any]]
    _key: bytes | None

    def to_bytes(self) -> bytes:
        """The copy as bytes, signed if there is a key. May be called once."""
        # As arrays: these are unpacked without a copy.
        slots = [np.frombuffer(one["slot"].to_bytes(), np.uint8) for one in self._sessions]
        sessions = [one | {"slot": slot} for one, slot in zip(self._sessions, slots, strict=True)]
        return pack_stream({"sessions": sessions}, self._key)


class SavedStream:
    """A saved stream that has been unpacked. What its sessions remember is checked by `members`."""

    def __init__(self, state: bytes, key: bytes | None, engine: SlotEngine) -> None:
        """Unpack what `StreamCopy.to_bytes` returned, and check what is to go into slots of
        `engine`.

        Raises:
            StreamError: it is something else, of another model, damaged, or signed with another
                key.
        """
        tree = unpack_stream(state, key)
        sessions: Any = tree.get("sessions")
        listed = cast("list[Any]", sessions if isinstance(sessions, list) else [])
        whole = tree.keys() == {"sessions"}
        if not whole or not listed or not all(map(_is_session, listed)):
            raise StreamError("the saved stream is damaged: parts of it are missing")
        self._sessions = cast("list[dict[str, Any]]", listed)
        self._slots = [engine.check(one["slot"]) for one in self._sessions]

    @property
    def num_channels(self) -> int:
        """How many channels are transcribed separately; 0 where they are mixed."""
        first = self._sessions[0]["session"].get("channel")
        return 0 if first is None else len(self._sessions)

    def with_channels(self, options: StreamOptions) -> StreamOptions:
        """`options` with the channels of the saved stream in place of their own."""
        if self.num_channels:
            format = AudioFormat(channels=self.num_channels)
            return replace(options, channel="each", format=format)
        return replace(options, channel="mix") if options.channel == "each" else options

    def members(
        self, sessions: Sequence[WordSession], decoding: DecodingOptions | None
    ) -> list[Member]:
        """Bring new sessions to the state of the saved ones, and add what their slots remember.

        Args:
            sessions: one, or one for each channel.
            decoding: how tokens are picked after the sound that was pushed before the save; None
                goes on as the saved stream would.

        Raises:
            StreamError: the saved stream is damaged, or of another model.
            ConfigError: the model cannot decode so.
        """
        # Spelling hotwords takes a while: those in use are spelled once, for all channels. Those of
        # changes that are still due are spelled by each session.
        changes: dict[DecodingOptions, DecodingChange] = {}
        members = [
            self._member(session, saved, slot, changes)
            for session, saved, slot in zip(sessions, self._sessions, self._slots, strict=False)
        ]
        if decoding is not None:
            change = changes.get(decoding) or sessions[0].new_change(decoding)
            for session in sessions:
                session.change_decoding(change)
        return members

    def _member(
        self,
        session: WordSession,
        saved: dict[str, Any],
        slot: SavedSlot,
        changes: dict[DecodingOptions, DecodingChange],
    ) -> Member:
        session.restore(saved["session"])
        decoding = session.decoding
        try:
            change = changes.get(decoding) or session.new_change(decoding)
        except ConfigError as error:
            raise StreamError(
                f"the saved stream is of another model, or damaged ({error})"
            ) from error
        changes[decoding] = change
        picker = deepcopy(change.picker)  # other channels start from the same one
        if picker is not None and saved["picker"] is not None:
            picker.restore(saved["picker"])
        return Member(session, SlotOptions(picker, decoding.num_codebooks), slot)


def _is_of_bytes(value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    array = cast("NDArray[Any]", value)
    return array.dtype == np.uint8 and array.ndim == 1


def _is_session(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and cast("dict[str, Any]", value).keys() == {"session", "slot", "picker"}
        and isinstance(value["session"], dict)
        and _is_of_bytes(value["slot"])
    )
