"""Keeps the sessions of a service in a store, and takes over those of other processes.

A thread writes every talk about once a second, each at a time of its own. Claims have another
thread, so that they wait for no write. A store that is down or slow holds up no talk: sessions
cannot be moved meanwhile, which is logged once a minute and counted.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from kiku.serve.message_history import MessageHistory
from kiku.serve.protocols.interface import ClientRequest, LiveProtocol
from kiku.serve.service import Service
from kiku.serve.session_record import Identity, RecordError, read
from kiku.serve.session_recorder import SessionRecorder, Snapshot
from kiku.serve.session_store import Claim, Outcome, SessionStore, StoreDown, Write, name_of
from kiku.serve.store_thread import StoreThread
from kiku.serve.takeover import ReturningClient, Takeover, plan_takeover

if TYPE_CHECKING:
    from kiku.serve.talk import Talk

_LOG = logging.getLogger("kiku.serve")

KEEP_S = 1.0
"""Seconds between two writes of a talk."""

_TICK_S = 0.1
_SWEEP_S = 10.0
"""Seconds between two sweeps of the store."""

_LOG_S = 60.0

_WRITE_S = 10.0
_CLAIM_S = 3.0
_CHECK_S = 1.0

_MAX_TOLD_S = 1e9


@dataclass(slots=True, eq=False)
class _Watched:
    talk: "Talk"
    recorder: SessionRecorder
    due: float
    writing: "asyncio.Future[None] | None" = field(default=None)
    is_lost: bool = False


class SessionKeeper:
    """The store, as the sockets of a service use it."""

    def __init__(self, service: Service, store: SessionStore) -> None:
        """Start with nothing kept."""
        self._service, self._store = service, store
        self._writer, self._claimer = StoreThread("sessions"), StoreThread("claims")
        self._watched: dict[Talk, _Watched] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._logged_at = -_LOG_S
        self._is_down = False

    @cached_property
    def _model(self) -> str:
        """Identifies the model: sessions of other models are not gone on with."""
        recognizer = self._service.recognizer
        text = json.dumps(recognizer.config.to_dict(), sort_keys=True, default=str)
        return f"{recognizer.name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def ttl_s(self) -> float:
        """Seconds after its last write until a session is forgotten."""
        return self._service.settings.resume_s + 2 * KEEP_S

    def recorder_for_new(
        self, protocol: LiveProtocol, owner: str, history: MessageHistory
    ) -> SessionRecorder:
        """The recorder of a new talk."""
        return SessionRecorder(
            self._identity(protocol, owner), self._service.card.sample_rate, history
        )

    def recorder_for_takeover(
        self, protocol: LiveProtocol, owner: str, takeover: Takeover
    ) -> SessionRecorder:
        """The recorder of a talk that another process began."""
        recorder = self.recorder_for_new(protocol, owner, takeover.history)
        recorder.resumed(
            takeover.claim, takeover.progress, takeover.session_options, takeover.stored.decoding,
            takeover.start_s, takeover.num_before,
        )  # fmt: skip
        return recorder

    def _identity(self, protocol: LiveProtocol, owner: str) -> Identity:
        return Identity(self._model, protocol.name, owner, protocol.session or "")

    def start(self) -> None:
        """Sweep the store from now on, so that sessions left there by a process that was killed
        are forgotten, too, even while no client has a session here."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            try:
                await self._writer.call(partial(self._store.sweep, self.ttl_s), _WRITE_S)
            except Exception as error:
                self._log_failure(error)
            await asyncio.sleep(_SWEEP_S)

    def watch(self, talk: "Talk", recorder: SessionRecorder) -> None:
        """Write this talk from now on."""
        self.start()  # if it was not called as the application started
        self._watched[talk] = _Watched(talk, recorder, time.monotonic() + _TICK_S)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())

    async def forget(self, talk: "Talk") -> None:
        """Remove a talk from the store: it has ended, and no process is to go on with it."""
        watched = self._watched.pop(talk, None)
        if watched is None or watched.is_lost:
            return
        recorder = watched.recorder
        if watched.writing is not None:
            await watched.writing
        if recorder.generation is not None:
            with suppress(StoreDown):
                remove = partial(self._store.remove, recorder.name, recorder.generation, self.ttl_s)
                await self._writer.call(remove, _WRITE_S)

    def unwatch(self, talk: "Talk") -> None:
        """Write no more of the talk, and remove nothing: another process may go on with it."""
        self._watched.pop(talk, None)

    # Writing.

    async def _tick(self) -> None:
        while self._watched:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            due = [one for one in self._watched.values() if one.due <= now and not one.writing]
            for one in due:
                one.due = now + KEEP_S
            await self._write_changed(due, now)

    async def _write_changed(self, watched: Sequence[_Watched], now: float) -> None:
        """Write what has changed of these talks."""
        found: list[tuple[_Watched, Snapshot]] = []
        for one in watched:
            snapshot = self._snapshot(one, now)
            if snapshot is not None:
                found.append((one, snapshot))
        if found:
            await self._write_all(found)

    def _snapshot(
        self, watched: _Watched, now: float, state: bytes | None = None
    ) -> Snapshot | None:
        """What there is to write of a talk, if anything. If that fails, the talk is forgotten: what
        was written of it would soon be wrong."""
        talk, resume_s = watched.talk, self._service.settings.resume_s
        try:
            return watched.recorder.snapshot(talk.protocol, now, talk.told_s, resume_s, state)
        except Exception:
            _LOG.exception("%s: its session cannot be kept any more", talk.id)
            self._service.run_in_background(self.forget(talk))
            return None

    async def _write_all(
        self, found: Sequence[tuple[_Watched, Snapshot]], timeout_s: float | None = None
    ) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        snapshots = [snapshot for _, snapshot in found]
        for one, _ in found:
            one.writing = done
        try:
            written = await self._writer.call(
                partial(_write_snapshots, self._store, snapshots, self.ttl_s),
                timeout_s or _WRITE_S,
            )
            self._is_down = False
            for (one, _), (generation, outcome) in zip(found, written, strict=True):
                self._on_written(one, generation, outcome)
        except Exception as error:
            self._mark_down(error)
            for one, snapshot in found:
                one.recorder.invalidate(snapshot.drop)
        finally:
            for one, _ in found:
                one.writing = None
            done.set_result(None)

    def _on_written(self, watched: _Watched, generation: int, outcome: Outcome) -> None:
        if outcome is Outcome.KEPT:
            watched.recorder.committed(generation)
        elif outcome is Outcome.UNKNOWN:
            watched.recorder.restart()
        else:
            watched.is_lost = True
            self._service.metrics.sessions_moved.labels("away").inc()
            _LOG.info("%s: its session continues in another process", watched.talk.id)
            self._service.run_in_background(watched.talk.let_go())

    def _mark_down(self, error: Exception) -> None:
        """Note that the store cannot be used, and count and log that."""
        self._is_down = True
        self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        """Count a failure of the store, and log it if none was logged for `_LOG_S` seconds."""
        self._service.metrics.store_failures.inc()
        now = time.monotonic()
        if now - self._logged_at >= _LOG_S:
            self._logged_at = now
            unexpected = None if isinstance(error, StoreDown) else error
            _LOG.warning(
                "sessions cannot be stored, and until this changes they cannot move to another "
                "process: %s",
                error, exc_info=unexpected,
            )  # fmt: skip

    async def owns(self, talk: "Talk", request: ClientRequest) -> bool:
        """Whether no other process has taken the talk, as far as the store says so in time, and as
        its client knows; asked before the client goes on here."""
        watched = self._watched.get(talk)
        if watched is None:
            return True  # it is not kept: no other process can have taken it
        if watched.is_lost:
            return False
        if _was_elsewhere(watched, request):
            return False
        if watched.writing is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(watched.writing), _CHECK_S)
        if not self._is_down and not watched.writing and not watched.is_lost:
            watched.recorder.mark_changed()
            snapshot = self._snapshot(watched, time.monotonic())
            if snapshot is not None:
                await self._write_all([(watched, snapshot)], _CHECK_S)
        return not watched.is_lost

    async def hand_over(self, talk: "Talk", state: bytes | None) -> None:
        """Write a talk for the last time, with its stream's state if that could be saved. A store
        that is down is not waited for: another process then finds what was written before."""
        watched = self._watched.get(talk)
        if watched is None or watched.is_lost:
            return
        if watched.writing is not None:
            await watched.writing
        self.unwatch(talk)
        if self._is_down:
            return
        watched.recorder.mark_changed()
        snapshot = self._snapshot(watched, time.monotonic(), state)
        if snapshot is None:
            return
        try:
            written = partial(_write_snapshots, self._store, [snapshot], self.ttl_s)
            await self._writer.call(written, _WRITE_S)
        except Exception as error:
            self._mark_down(error)

    # Taking over.

    async def claim(
        self, protocol: LiveProtocol, owner: str, request: ClientRequest
    ) -> Takeover | None:
        """Take over the session that a client wants to go on with. Returns None if the store does
        not know it, or it cannot be gone on with."""
        text = request.first("after", "") or ""
        if not (text.isascii() and text.isdigit()) or protocol.session is None:
            return None
        name = name_of(owner, protocol.session)
        try:
            claim = await self._claimer.call(partial(self._store.claim, name, self.ttl_s), _CLAIM_S)
            if claim is None:
                return None
            config = self._service.recognizer.config
            client = ReturningClient(
                int(text[:12]), _seconds(request.first("told")), protocol.tells_times
            )
            going = partial(
                _plan, claim, self._identity(protocol, owner), client, config.sample_rate,
                config.frame_size,
            )  # fmt: skip
            return await self._claimer.call(going, _CLAIM_S)
        except RecordError as error:
            self.refused(str(error))
        except Exception as error:
            self._mark_down(error)
        return None

    def refused(self, why: str) -> None:
        """Count and log that a stored session is not gone on with."""
        self._service.metrics.sessions_moved.labels("refused").inc()
        _LOG.warning("a stored session cannot be continued, and starts again: %s", why)

    def close(self) -> None:
        """Stop sweeping and writing, and close the store."""
        for task in (self._ticking, self._sweeping):
            if task is not None:
                task.cancel()
        self._claimer.close()
        self._writer.close(self._store.close)


def _write_snapshots(
    store: SessionStore, snapshots: Sequence[Snapshot], ttl_s: float
) -> list[tuple[int, Outcome]]:
    """Write these snapshots. Returns the generation and the outcome of each. Runs in a thread."""
    writes: list[Write] = []
    for one in snapshots:
        generation = one.generation
        if generation is None:
            generation = store.begin(one.name, ttl_s)
        writes.append(Write(one.name, generation, one.values(), one.drop, ttl_s))
    outcomes = store.write(writes)
    return [(write.generation, outcome) for write, outcome in zip(writes, outcomes, strict=True)]


def _plan(
    claim: Claim, identity: Identity, client: ReturningClient, rate: int, frame_size: int
) -> Takeover | None:
    """How to go on with a claimed session. Runs in a thread, as it searches the sound."""
    return plan_takeover(claim, read(claim.values, identity, rate), client, rate, frame_size)


def _was_elsewhere(watched: _Watched, request: ClientRequest) -> bool:
    """Whether the client of a talk was at another process since: it knows a later generation. The
    numbers of its messages are then not those of here."""
    text = request.first("generation", "") or ""
    is_number = text.isascii() and text.isdigit()
    return is_number and int(text[:20]) > watched.recorder.newest_generation


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < _MAX_TOLD_S else None
