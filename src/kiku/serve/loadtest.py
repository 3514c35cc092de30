"""Clients who speak in real time, many at once, and how long a service lets them wait."""

import asyncio
import json
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import msgpack  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from kiku.errors import ConfigError

RATE, FRAME = 24_000, 1_920
FRAME_S = FRAME / RATE

_MSGPACK: Any = msgpack  # it has no type annotations

_END_S = 20.0
"""Seconds that a client waits for the rest of its words after its last sound."""

AGAIN_S = 1.0
"""Seconds until a client that got no slot, or was not heard to the end, comes again."""

_FOR_GOOD = {
    401: "the service does not know the API key, or needs one: give --key",
    403: "it does not accept this client",
    404: "there is no socket of this protocol: see --url and --protocol",
}
"""HTTP statuses that every later client would get, too, and what each means."""

_FALLS_BEHIND_S = 0.3
"""Seconds by which streams in real time may be later than one stream alone."""


@dataclass
class LoadReport:
    """What clients have seen, all together. Times are in seconds."""

    streams: int
    words: int = 0
    busy: int = 0
    """Connections that were refused for want of a slot."""
    errors: list[str] = field(default_factory=list[str])
    latency: list[float] = field(default_factory=list[float])
    """Of each word: from the end of its sound until it came."""
    lag: list[float] = field(default_factory=list[float])
    """Of each frame: from its sending until it was heard, if the protocol reports that."""
    texts: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Of each visit that was heard to its end: the recording's number, and the text that came."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the texts."""
        return {
            "streams": self.streams,
            "words": self.words,
            "busy": self.busy,
            "errors": len(self.errors),
            "first_errors": self.errors[:3],
            "latency": percentiles(self.latency),
            "lag": percentiles(self.lag),
        }


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """The 50th, 95th and 99th percentile, rounded for a report; None if there are no values."""
    if not values:
        return None
    found = np.percentile(values, [50, 95, 99])
    return {f"p{p}": round(float(v), 3) for p, v in zip((50, 95, 99), found, strict=True)}


@dataclass
class ServerMessage:
    """What one message of a service says."""

    text: str | None = None
    """A word."""
    end: float | None = None
    """Where the sound of the last word ends."""
    frames: int = 0
    """Number of further frames that were heard."""
    is_last: bool = False
    error: str | None = None


class _Busy(Exception):
    """The service said that it has no slot, on a socket that it had accepted."""


class Dialect(Protocol):
    """How clients of one protocol speak."""

    def address(self, url: str) -> str:
        """Where they connect."""
        ...

    def sound(self, samples: NDArray[np.float32]) -> str | bytes:
        """A frame as a message."""
        ...

    def ending(self) -> list[str | bytes]:
        """What they send after the last frame."""
        ...

    def parse(self, message: str | bytes) -> Iterator[ServerMessage]:
        """What a message says."""
        ...


class Kyutai:
    """The protocol of moshi-server."""

    def address(self, url: str) -> str:
        """See `Dialect`."""
        return f"{url}/api/asr-streaming"

    def sound(self, samples: NDArray[np.float32]) -> bytes:
        """See `Dialect`."""
        message = {"type": "Audio", "pcm": samples.tolist()}
        return _MSGPACK.packb(message, use_single_float=True)

    def ending(self) -> list[str | bytes]:
        """See `Dialect`."""
        return [_MSGPACK.packb({"type": "Marker", "id": 1})]

    def parse(self, message: str | bytes) -> Iterator[ServerMessage]:
        """See `Dialect`."""
        values: dict[str, Any] = _MSGPACK.unpackb(message)
        match values["type"]:
            case "Step":
                yield ServerMessage(frames=1)
            case "Word":
                yield ServerMessage(text=values["text"])
            case "EndWord":
                yield ServerMessage(end=values["stop_time"])
            case "Marker":
                yield ServerMessage(is_last=True)
            case "Error":
                yield ServerMessage(error=values["message"])
            case _:
                pass


class Own:
    """The protocol of kiku's own socket."""

    def address(self, url: str) -> str:
        """See `Dialect`."""
        return f"{url}/api/stream?" + urlencode({"encoding": "s16le", "rate": RATE})

    def sound(self, samples: NDArray[np.float32]) -> bytes:
        """See `Dialect`."""
        return int16(samples)

    def ending(self) -> list[str | bytes]:
        """See `Dialect`."""
        return [json.dumps({"type": "close"})]

    def parse(self, message: str | bytes) -> Iterator[ServerMessage]:
        """See `Dialect`."""
        values: dict[str, Any] = json.loads(message)
        match values["type"]:
            case "word":
                yield ServerMessage(text=values["text"], end=values["end"])
            case "end":
                yield ServerMessage(is_last=True)
            case "error":
                yield ServerMessage(error=values["message"])
            case _:
                pass


class Deepgram:
    """The protocol of Deepgram's live socket; words are taken from final results."""

    def address(self, url: str) -> str:
        """See `Dialect`."""
        query = {"model": "nova-3", "encoding": "linear16", "sample_rate": RATE}
        return f"{url}/v1/listen?" + urlencode(query)

    def sound(self, samples: NDArray[np.float32]) -> bytes:
        """See `Dialect`."""
        return int16(samples)

    def ending(self) -> list[str | bytes]:
        """See `Dialect`."""
        return [json.dumps({"type": "CloseStream"})]

    def parse(self, message: str | bytes) -> Iterator[ServerMessage]:
        """See `Dialect`."""
        values: dict[str, Any] = json.loads(message)
        match values["type"]:
            case "Results" if values["is_final"]:
                for word in values["channel"]["alternatives"][0]["words"]:
                    yield ServerMessage(text=word["word"], end=word["end"])
            case "Metadata":
                yield ServerMessage(is_last=True)
            case "Error":
                yield ServerMessage(error=str(values.get("description")))
            case _:
                pass


DIALECTS: dict[str, Dialect] = {"kiku": Own(), "kyutai": Kyutai(), "deepgram": Deepgram()}


def int16(samples: NDArray[np.float32]) -> bytes:
    """Samples as raw 16-bit sound."""
    return (samples * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes()


def websocket_url(url: str) -> str:
    """A WebSocket address, given one or an HTTP address. Raises ConfigError for anything else."""
    url = url.rstrip("/")
    url = url.replace("http", "ws", 1) if url.startswith("http") else url
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
        is_one = is_one and not parts.query and not parts.fragment
    except ValueError:  # the port is none
        is_one = False
    if not is_one:
        seen = url.partition("?")[0]  # a key may follow
        raise ConfigError(f"--url must be ws://HOST:PORT or http://HOST:PORT, not {seen!r}")
    return url


def arrival_s(streams: int) -> float:
    """Seconds within which all clients arrive."""
    return max(1.0, streams / 40)


class Load:
    """Clients of one service."""

    def __init__(
        self,
        url: str,
        protocol: str,
        sounds: Sequence[NDArray[np.float32]],
        key: str | None = None,
    ) -> None:
        """Clients who speak `sounds` ([S] at 24 kHz), in turn.

        Args:
            url: of the service, ws://... or http://...
            protocol: "kiku", "kyutai" or "deepgram".
            sounds: what they say.
            key: for the service.

        Raises:
            ConfigError: a protocol that is not known, no sound, or no address.
        """
        if protocol not in DIALECTS:
            raise ConfigError(
                f"{protocol!r} is not a known protocol: choose one of {', '.join(DIALECTS)}"
            )
        if not sounds:
            raise ConfigError("there is no sound to send: name recordings, or a folder of them")
        self._dialect = DIALECTS[protocol]
        self._url = websocket_url(url)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # Once for all clients: packing costs more than sending.
        self._messages = [
            [self._dialect.sound(samples[i : i + FRAME]) for i in range(0, len(samples), FRAME)]
            for samples in sounds
        ]

    async def run(self, streams: int, seconds: float) -> LoadReport:
        """Have `streams` clients speak for at least `seconds`. Each speaks one recording after the
        other, each from its beginning to its end.

        Raises:
            ConfigError: the service can hear no client, whenever it comes.
        """
        report = LoadReport(streams)
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        dice = random.Random(streams)

        async def stay(number: int) -> None:
            # Not all in the same instant, as people do not either.
            await asyncio.sleep(dice.random() * arrival_s(streams))
            turn = number
            while True:
                was_heard = await self._visit(report, turn % len(self._messages))
                turn += 1
                if loop.time() > ends:
                    return
                if not was_heard:
                    await asyncio.sleep(AGAIN_S)

        await asyncio.gather(*(stay(i) for i in range(streams)))
        return report

    async def _visit(self, report: LoadReport, which: int) -> bool:
        """Speak one recording, up to its last word. Returns whether all of it was heard."""
        try:
            async with connect(
                self._dialect.address(self._url), additional_headers=self._headers,
                compression=None, max_size=None, open_timeout=30, ping_interval=None,
            ) as connection:  # fmt: skip
                return await self._speak(report, which, connection)
        except InvalidStatus as error:
            status = error.response.status_code
            if status in _FOR_GOOD:
                raise ConfigError(f"{self._url} answered {status}: {_FOR_GOOD[status]}") from None
            if status == 503:
                report.busy += 1
            else:
                report.errors.append(str(error))
        except _Busy:
            report.busy += 1
        except (OSError, WebSocketException, TimeoutError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                raise ConfigError(f"the host of {self._url} cannot be found: check --url") from None
            report.errors.append(f"{type(error).__name__}: {error}")
        return False

    async def _speak(self, report: LoadReport, which: int, socket: ClientConnection) -> bool:
        messages, loop = self._messages[which], asyncio.get_running_loop()
        began = loop.time()
        words: list[str] = []
        listening = asyncio.create_task(self._listen(report, socket, began, words))
        try:
            with suppress(ConnectionClosed):  # `_listen` learns why
                for i, message in enumerate(messages):
                    # A frame exists once its last sample has been spoken.
                    await asyncio.sleep(began + (i + 1) * FRAME_S - loop.time())
                    if listening.done():
                        break
                    await socket.send(message)
                for message in self._dialect.ending():
                    if not listening.done():
                        await socket.send(message)
            async with asyncio.timeout(_END_S):
                is_whole = await listening
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await listening
        if is_whole:
            report.texts.append((which, " ".join(words)))
        return is_whole

    async def _listen(
        self, report: LoadReport, socket: ClientConnection, began: float, words: list[str]
    ) -> bool:
        """Note what comes. Returns whether all has come.

        Raises:
            _Busy: the service has no slot.
        """
        loop, num_frames = asyncio.get_running_loop(), 0
        async for message in socket:
            now = loop.time()
            for one in self._dialect.parse(message):
                if one.error is not None:
                    if "free" in one.error or "busy" in one.error:
                        raise _Busy
                    report.errors.append(one.error)
                    return False
                if one.frames:
                    num_frames += one.frames
                    report.lag.append(max(0.0, now - began - num_frames * FRAME_S))
                if one.text is not None:
                    report.words += 1
                    words.append(one.text)
                if one.end is not None:
                    report.latency.append(max(0.0, now - began - one.end))
                if one.is_last:
                    return True
        report.errors.append("the connection ended before the last words")
        return False

    async def find(self, seconds: float, most: int) -> tuple[int, list[LoadReport]]:
        """The most streams that are in real time, and the reports on the way. In real time means
        that none is refused, none fails, and the slowest words come at most 0.3 s later than those
        of one stream.

        Raises:
            ConfigError: not even one is heard, so that there is nothing to compare with.
        """
        first = await self.run(1, seconds)
        if first.errors or first.busy or not first.words:
            why = "it was refused, because no slot was free" if first.busy else "no word arrived"
            why = first.errors[0] if first.errors else why
            raise ConfigError(f"{self._url} could not serve a single client: {why}")
        reports, alone = [first], _slow(first)
        good, bad, streams = 1, most + 1, 2
        while bad - good > max(1, good // 10):
            report = await self.run(min(streams, bad - 1), seconds)
            reports.append(report)
            is_good = not report.errors and not report.busy
            if is_good and _slow(report) <= alone + _FALLS_BEHIND_S:
                good = report.streams
            else:
                bad = report.streams
            streams = good * 2 if bad > most else (good + bad) // 2
        return good, reports


def _slow(report: LoadReport) -> float:
    """The 99th percentile of the lags, or of the latencies if there are no lags."""
    values = report.lag or report.latency
    return float(np.percentile(values, 99)) if values else 0.0
