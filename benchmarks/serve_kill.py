"""Clients of one service that is killed in the middle of what they say, and started again.

They speak in real time over kiku's own socket and over Kyutai's, each under the name of a session.
Most keep their sound and send again what the service has not; some keep none, and send silence in
the place of what they have no more. What the service says that it has (`taken`) is where that
begins. Words outside of it must be those of a client alone.

This does not try what takes a certain order of events: a full socket, a store that hangs while two
services have a session, a kill between two messages, an end in order that follows a kill, finalizes
and turns. `tests/serve/test_resumed_talks.py` does.
"""

import asyncio
import json
import math
import random
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import msgpack
import numpy as np
from local_fleet import Replica, wait_until
from numpy.typing import NDArray
from serve import sounds
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from kiku.serve.loadtest import FRAME, RATE, int16, percentiles

SOUND_S = 20.0
"""Each recording is so long at least: an example over and over, and each time to its end. A word
that is cut off there could be heard as one or as none."""

_AGAIN_S = 0.2
_GREET_S = 10.0
_PATIENCE_S = 90.0
_ALIVE_S = (5.0, 15.0)
"""A service lives for so long before it is killed."""

_AROUND_S = 1.0
"""Before and behind what was lost: a word there may be cut, and heard otherwise."""

_SAME_S = 0.3
"""Words that begin so close to one another are one."""

Word = tuple[str, float]
"""Text and start."""


class Dialect(Protocol):
    """How a protocol says what these clients say."""

    def address(self, query: dict[str, Any]) -> str:
        """Behind the service's own."""
        ...

    def sound(self, samples: NDArray[np.float32]) -> str | bytes:
        """A message of sound."""
        ...

    def end(self) -> str | bytes:
        """That no more comes."""
        ...

    def read(self, message: str | bytes) -> tuple[str, Word | None, float]:
        """What it is: "" for what does not count, "ready" with how many seconds were taken, "word",
        "end", "error" with its text, or "other"; and where a word ends, if it says so. A word whose
        end comes later has 0."""
        ...


class Own:
    """kiku's own socket."""

    def address(self, query: dict[str, Any]) -> str:
        """See `Dialect`."""
        return "/api/stream?" + urlencode({"rate": RATE, **query})

    def sound(self, samples: NDArray[np.float32]) -> bytes:
        """See `Dialect`."""
        return int16(samples)

    def end(self) -> str:
        """See `Dialect`."""
        return '{"type":"close"}'

    def read(self, message: str | bytes) -> tuple[str, Word | None, float]:
        """See `Dialect`."""
        given = json.loads(message)
        match given["type"]:
            case "ready":
                return "ready", None, given["taken_bytes"] / 2 / RATE
            case "lag":
                return "", None, 0.0
            case "word":
                return "word", (given["text"], given["start"]), given["end"]
            case "error":
                return "error", (given["message"], 0.0), 0.0
            case kind:
                return "end" if kind == "end" else "other", None, 0.0


class Kyutais:
    """Kyutai's, which clients of moshi-server speak."""

    def address(self, query: dict[str, Any]) -> str:
        """See `Dialect`."""
        return "/api/asr-streaming?" + urlencode(query)

    def sound(self, samples: NDArray[np.float32]) -> bytes:
        """See `Dialect`."""
        return msgpack.packb({"type": "Audio", "pcm": samples.tolist()}, use_single_float=True)

    def end(self) -> bytes:
        """See `Dialect`."""
        return msgpack.packb({"type": "Marker", "id": 1})

    def read(self, message: str | bytes) -> tuple[str, Word | None, float]:
        """See `Dialect`."""
        given = msgpack.unpackb(message)
        match given["type"]:
            case "Ready":
                return "ready", None, given["taken"] / RATE
            case "Word":
                return "word", (given["text"], given["start_time"]), 0.0
            case "EndWord":
                return "other", None, given["stop_time"]
            case "Error":
                return "error", (given["message"], 0.0), 0.0
            case "Step":
                return "", None, 0.0
            case kind:
                return "end" if kind == "Marker" else "other", None, 0.0


DIALECTS: dict[str, Dialect] = {"kiku": Own(), "kyutai": Kyutais()}


@dataclass
class Seen:
    """What all clients have seen, together."""

    cuts: int = 0
    resumed: int = 0
    begun_again: int = 0
    back: list[float] = field(default_factory=list[float])
    """Seconds from each cut to the greeting."""
    lost_s: list[float] = field(default_factory=list[float])
    """Of each cut of a client that keeps no sound: seconds that it had sent, and that the service
    says it has not."""
    words: int = 0
    words_lost: int = 0
    """In what those clients had no more, what was said while nobody listened included."""
    sessions: int = 0
    unlike: int = 0
    """Sessions whose words, but for those that were said to be lost, are not a lone client's."""
    first_unlike: list[str] = field(default_factory=list[str])
    errors: list[str] = field(default_factory=list[str])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "sessions": self.sessions, "cuts": self.cuts, "resumed": self.resumed,
            "begun_again": self.begun_again, "words": self.words, "unlike": self.unlike,
            "first_unlike": self.first_unlike[:3], "errors": len(self.errors),
            "first_errors": self.errors[:3], "back_s": percentiles(self.back),
            "lost_s": {"most": round(max(self.lost_s, default=0.0), 2),
                       "all": round(sum(self.lost_s), 2)},
            "words_lost": self.words_lost,
        }  # fmt: skip


class Client:
    """One session, over as many connections as it takes."""

    def __init__(
        self, url: str, kind: str, samples: NDArray[np.float32], seen: Seen, *, keeps: bool
    ) -> None:
        """Not connected yet; `keeps` its sound or does not."""
        self._url, self._dialect, self._samples = url, DIALECTS[kind], samples
        self._seen, self._keeps = seen, keeps
        self._name = f"kill-{secrets.token_hex(8)}"
        self._count, self._told_s = 0, 0.0
        self._sent = 0  # samples of all that was said
        self._began = self._cut_at = 0.0
        self._is_over = False
        self._is_open = False  # whether the end of the last word is still to come
        self.words: list[Word] = []
        self.holes: list[tuple[float, float]] = []
        """What was lost, and said to be."""

    async def speak(self) -> None:
        """All of it, to the last word."""
        loop = asyncio.get_running_loop()
        self._cut_at = loop.time()
        while not self._is_over:
            if loop.time() - self._cut_at > _PATIENCE_S:
                raise TimeoutError(f"there was no way back in {_PATIENCE_S:g} s")
            try:
                await self._connect()
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(_AGAIN_S)

    async def _connect(self) -> None:
        query: dict[str, Any] = {"session": self._name}
        if self._began:
            query |= {"after": self._count, "told": self._told_s}
        url = self._url + self._dialect.address(query)
        async with connect(url, compression=None, max_size=None, ping_interval=None) as socket:
            taken_s = await self._greeting(socket)
            self._greeted(round(taken_s * RATE))
            sending = asyncio.create_task(self._send(socket))
            try:
                async for message in socket:
                    self._received(message)
                    if self._is_over:
                        return
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                if not self._is_over:
                    self._seen.cuts += 1
                    self._cut_at = asyncio.get_running_loop().time()

    async def _greeting(self, socket: ClientConnection) -> float:
        """How much the service has taken, as it says first."""
        try:
            async with asyncio.timeout(_GREET_S):
                kind, _, taken_s = self._dialect.read(await socket.recv())
        except TimeoutError:
            socket.transport.abort()  # a goodbye would end the session
            raise
        if kind != "ready":
            raise TimeoutError("it has no room yet")
        return taken_s

    def _greeted(self, taken: int) -> None:
        """Go on where the service says that its sound ends."""
        now, seen = asyncio.get_running_loop().time(), self._seen
        if not self._began:
            self._began = now
            return
        seen.back.append(now - self._cut_at)
        if taken:
            seen.resumed += 1
        else:
            seen.begun_again += 1
            self._count, self._told_s, self._is_open = 0, 0.0, False
            if self._keeps:
                self.words = []
        if not self._keeps:
            seen.lost_s.append(max(0, self._sent - taken) / RATE)
            said = min(len(self._samples), round((now - self._began) * RATE))
            self.holes.append((taken / RATE, max(said, self._sent) / RATE))
        self._sent = taken

    async def _send(self, socket: ClientConnection) -> None:
        """What the service lacks: at once what is late, the rest as it is spoken."""
        loop, samples = asyncio.get_running_loop(), self._samples
        lost_until = round(self.holes[-1][1] * RATE) if self.holes else 0
        while self._sent < len(samples):
            piece = samples[self._sent : self._sent + FRAME]
            if self._sent < lost_until:
                piece = piece[: lost_until - self._sent]
                given = np.zeros_like(piece)
            else:
                given = piece
            await asyncio.sleep(self._began + (self._sent + len(piece)) / RATE - loop.time())
            await socket.send(self._dialect.sound(given))
            self._sent += len(piece)
        await socket.send(self._dialect.end())

    def _received(self, message: str | bytes) -> None:
        kind, word, end_s = self._dialect.read(message)
        self._count += kind not in ("", "ready")
        if kind == "word" and word is not None:
            if self._is_open:  # it comes again, as the client could not say that it had it
                self.words.pop()
            self.words.append(word)
            self._is_open = not end_s
        elif end_s and kind != "ready":
            self._is_open = False
        if kind != "ready":
            self._told_s = max(self._told_s, end_s)
        if kind == "error" and word is not None:
            self._seen.errors.append(word[0])
        self._is_over = self._is_over or kind == "end"


def outside(words: Sequence[Word], holes: Sequence[tuple[float, float]]) -> str:
    """The text of what was said away from what was lost."""
    return " ".join(
        text
        for text, start in words
        if not any(a - _AROUND_S < start < b + _AROUND_S for a, b in holes)
    )


def num_lost(
    alone: Sequence[Word], heard: Sequence[Word], holes: Sequence[tuple[float, float]]
) -> int:
    """How many words were said in what was lost, and not told."""
    return sum(
        any(a < start < b for a, b in holes)
        and not any(text == other and abs(start - at) < _SAME_S for other, at in heard)
        for text, start in alone
    )


def await_start(replica: Replica) -> None:
    """Until it takes streams."""
    wait_until(lambda: replica.is_ready, "the start")


async def crowd(replica: Replica, streams: int, kills: int, seed: int) -> Seen:
    """Clients who speak one recording after the other, until the service was killed so often."""
    url, seen, dice = f"ws://127.0.0.1:{replica.port}", Seen(), random.Random(seed)
    said = [np.tile(one, math.ceil(SOUND_S * RATE / len(one))) for one in sounds()]
    alone: dict[int, list[Word]] = {}
    for which, samples in enumerate(said):
        client = Client(url, "kiku", samples, Seen(), keeps=True)
        await client.speak()
        alone[which] = client.words
    is_over = asyncio.Event()

    async def stay(number: int) -> None:
        kind, keeps, turn = list(DIALECTS)[number % 2], number % 8 < 6, number
        await asyncio.sleep(dice.random() * 3)
        while not is_over.is_set():
            which = turn % len(said)
            turn += 1
            client = Client(url, kind, said[which], seen, keeps=keeps)
            await client.speak()
            seen.sessions += 1
            seen.words += len(client.words)
            seen.words_lost += num_lost(alone[which], client.words, client.holes)
            found, wanted = (outside(one, client.holes) for one in (client.words, alone[which]))
            if found != wanted:
                seen.unlike += 1
                seen.first_unlike.append(f"{kind}, {client.holes}: {found!r}, alone {wanted!r}")

    async def kill() -> None:
        for _ in range(kills):
            await asyncio.sleep(dice.uniform(*_ALIVE_S))
            await asyncio.to_thread(replica.kill)
            replica.start()
            await asyncio.to_thread(await_start, replica)
        is_over.set()

    await asyncio.gather(kill(), *(stay(i) for i in range(streams)))
    return seen


def killed(streams: int, kills: int) -> dict[str, Any]:
    """With a store of sessions in a folder, and without one."""
    found: dict[str, Any] = {"streams": streams, "kills": kills, "sound_s": SOUND_S}
    for name in ("store", "no_store"):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--slots", str(streams + 2), "--threads", "1"]
            if name == "store":
                options += ["--session-store", str(Path(folder) / "sessions")]
            replica = Replica(options, Path(folder))
            replica.start()
            try:
                await_start(replica)
                found[name] = asyncio.run(crowd(replica, streams, kills, seed=len(name))).to_dict()
                found[name]["tracebacks"] = replica.log.count("Traceback")
            finally:
                replica.kill()
        print(json.dumps({name: found[name]}, indent=2), flush=True)
    return found
