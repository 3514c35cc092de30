"""Clients who come back after a cut, many at once, and what they have lost by it.

Each speaks a recording in real time over kiku's own socket, under a name of its own, and keeps its
sound until the end. Where the connection is cut, or its replica goes down, it connects again and
goes on from the place up to which the service says it has the sound. At the end its text is
compared with that of an undisturbed client.
"""

import asyncio
import json
import random
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from kiku.errors import ConfigError
from kiku.serve.loadtest import (
    AGAIN_S,
    FRAME_S,
    RATE,
    arrival_s,
    int16,
    percentiles,
    websocket_url,
)

_AGAIN = frozenset({1001, 1005, 1006, 1012, 1013})
"""Close codes after which a client comes back."""

_REFUSED_FOR_NOW = frozenset({429, 502, 503, 504})
"""Statuses of a service that is full or going down, and of a load balancer without a replica."""

_UNCOUNTED = frozenset({"ready", "lag"})
"""Kinds of messages that the service does not count, nor send again after a cut."""

_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_GREET_S = 10.0
"""Seconds that a client waits for the service's greeting before it connects again."""

_PATIENCE_S = 60.0
"""Seconds after which a client counts as lost: without a way back, or without a message while it
waits for its last words."""

_FRAME_BYTES = 2 * round(FRAME_S * RATE)


@dataclass
class SessionReport:
    """What clients who come back have seen, all together. Times are in seconds."""

    streams: int
    sessions: int = 0
    """Sessions that were begun."""
    whole: int = 0
    """Sessions that had their last word."""
    different: int = 0
    """Whole sessions whose text is not that of an undisturbed client."""
    words: int = 0
    cuts: int = 0
    resumed: int = 0
    """Number of times that a service knew a session that came back."""
    begun_again: int = 0
    """Number of times that it did not, and was sent the sound again from its beginning."""
    refused: int = 0
    """Number of answers that there is no slot, or no replica."""
    back: list[float] = field(default_factory=list[float])
    """Of each cut: until the service greeted the client again."""
    latency: list[float] = field(default_factory=list[float])
    """Of each word: from the end of its sound until it came for the first time."""
    errors: list[str] = field(default_factory=list[str])
    """Why sessions were lost."""

    @property
    def lost(self) -> int:
        """Sessions without a last word."""
        return self.sessions - self.whole

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "streams": self.streams,
            "sessions": self.sessions,
            "lost": self.lost,
            "different": self.different,
            "words": self.words,
            "cuts": self.cuts,
            "resumed": self.resumed,
            "begun_again": self.begun_again,
            "refused": self.refused,
            "first_errors": self.errors[:3],
            "back": percentiles(self.back),
            "latency": percentiles(self.latency),
        }


class SessionLoad:
    """Clients of one service who come back."""

    def __init__(
        self, url: str, sounds: Sequence[NDArray[np.float32]], key: str | None = None
    ) -> None:
        """Clients who speak `sounds` ([S] at 24 kHz), in turn.

        Args:
            url: of the service or its balancer, ws://... or http://...
            sounds: what they say.
            key: for the service.

        Raises:
            ConfigError: there is no sound, or no address.
        """
        if not sounds:
            raise ConfigError("there is no sound to send: name recordings, or a folder of them")
        self.url = websocket_url(url)
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.sounds = [int16(samples) for samples in sounds]
        self.texts: dict[int, str] = {}
        """The text that an undisturbed client got, by recording."""

    async def listen(self) -> None:
        """Have each recording spoken once by a client alone, for its text.

        Raises:
            ConfigError: the service does not answer as it should.
        """
        report = SessionReport(1)
        for which in range(len(self.sounds)):
            words = await _Client(self, report, which).speak()
            if words is None or report.cuts:
                why = report.errors or ["the connection was cut"]
                raise ConfigError(f"{self.url} could not serve a single client: {why[0]}")
            self.texts[which] = " ".join(words)

    async def run(self, streams: int, seconds: float) -> SessionReport:
        """Have `streams` clients speak for at least `seconds`, each recording to its end."""
        if not self.texts:
            await self.listen()
        report, loop = SessionReport(streams), asyncio.get_running_loop()
        ends, dice = loop.time() + seconds, random.Random(streams)

        async def stay(number: int) -> None:
            await asyncio.sleep(dice.random() * arrival_s(streams))
            turn = number
            while True:
                which = turn % len(self.sounds)
                report.sessions += 1
                words = await _Client(self, report, which).speak()
                if words is not None:
                    report.whole += 1
                    report.words += len(words)
                    report.different += " ".join(words) != self.texts[which]
                turn += 1
                if loop.time() > ends:
                    return
                if words is None:
                    await asyncio.sleep(AGAIN_S)

        await asyncio.gather(*(stay(i) for i in range(streams)))
        return report


class _Lost(Exception):
    """The service said that there is no coming back."""


class _Client:
    """One session, over as many connections as it takes."""

    def __init__(self, load: SessionLoad, report: SessionReport, which: int) -> None:
        self._load, self._report, self._sound = load, report, load.sounds[which]
        self._name = f"loadtest-{secrets.token_hex(8)}"
        self._words: list[str] = []
        self._num_messages = 0  # of the session, as the service counts them
        self._last_word_end_s = 0.0  # where the last word ends
        self._generation: int | None = None  # see docs/serve.md
        self._heard_s = 0.0  # where the latest word of all connections ends
        self._was_greeted = self._has_ended = False
        self._began = self._cut_at = 0.0

    async def speak(self) -> list[str] | None:
        """Speak the whole recording. Returns its words, or None if the session was lost."""
        loop = asyncio.get_running_loop()
        self._began = self._cut_at = loop.time()
        wait_s = _WAIT_S
        try:
            while not self._has_ended:
                if loop.time() - self._cut_at > _PATIENCE_S:
                    raise _Lost(f"could not reconnect in {_PATIENCE_S:g} s")
                if await self._connect():
                    wait_s = _WAIT_S
                else:
                    await asyncio.sleep(wait_s)
                    wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)
        except _Lost as error:
            self._report.errors.append(str(error))
            return None
        return self._words

    async def _connect(self) -> bool:
        """Make a connection, and use it to its end. Returns whether there was one."""
        try:
            async with connect(
                self._address(), additional_headers=self._load.headers, compression=None,
                max_size=None, open_timeout=10, ping_interval=None,
            ) as socket:  # fmt: skip
                async with asyncio.timeout(_GREET_S):
                    ready = json.loads(await socket.recv())
                self._greeted(ready)
                await self._talk(socket, ready["taken_bytes"])
        except InvalidStatus as error:
            status = error.response.status_code
            if status not in _REFUSED_FOR_NOW:
                raise _Lost(f"the service answered {status}") from None
            self._report.refused += 1
            return False
        except ConnectionClosed as error:
            self._left(1006 if error.rcvd is None else error.rcvd.code)
        except (OSError, WebSocketException, TimeoutError):
            return False
        return True

    def _address(self) -> str:
        query: dict[str, Any] = {"encoding": "s16le", "rate": RATE, "session": self._name}
        if self._was_greeted:
            query["after"], query["told"] = self._num_messages, self._last_word_end_s
            if self._generation is not None:
                query["generation"] = self._generation
        return f"{self._load.url}/api/stream?" + urlencode(query)

    def _greeted(self, ready: dict[str, Any]) -> None:
        """Go on, or begin again where the service knows nothing of the session."""
        now, report = asyncio.get_running_loop().time(), self._report
        if not self._was_greeted:
            self._began = now
        else:
            report.back.append(now - self._cut_at)
            if ready.get("resumed", ready["taken_bytes"] > 0):  # servers before did not say it
                report.resumed += 1
            else:
                report.begun_again += 1
                self._words, self._num_messages, self._last_word_end_s = [], 0, 0.0
        self._was_greeted, self._generation = True, ready.get("generation")

    def _left(self, code: int) -> None:
        if self._has_ended:
            return
        if code not in _AGAIN:
            raise _Lost(f"the service closed with {code}")
        self._report.cuts += 1
        self._cut_at = asyncio.get_running_loop().time()

    async def _talk(self, socket: ClientConnection, taken: int) -> None:
        """Speak and listen until the last word, or a cut."""
        sending = asyncio.create_task(self._send(socket, taken))
        try:
            while not self._has_ended:
                async with asyncio.timeout(_PATIENCE_S):
                    message = await socket.recv()
                self._received(json.loads(message))
        except TimeoutError:
            raise _Lost(f"the service sent nothing for {_PATIENCE_S:g} s") from None
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await sending

    async def _send(self, socket: ClientConnection, taken: int) -> None:
        """Send the sound that the service lacks: what is late at once, the rest as it is spoken."""
        loop, at = asyncio.get_running_loop(), taken
        while at < len(self._sound):
            piece = self._sound[at : at + _FRAME_BYTES]
            at += len(piece)
            await asyncio.sleep(self._began + at / (2 * RATE) - loop.time())
            await socket.send(piece)
        await socket.send(json.dumps({"type": "close"}))

    def _received(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in _UNCOUNTED:
            return
        self._num_messages += 1
        if kind == "word":
            self._words.append(message["text"])
            self._last_word_end_s = message["end"]
            if message["end"] > self._heard_s:
                self._heard_s = message["end"]
                passed = asyncio.get_running_loop().time() - self._began
                self._report.latency.append(max(0.0, passed - self._heard_s))
        self._has_ended = kind == "end"
