"""Whether a service that runs for long stays as it was: memory, threads, descriptors, slots, words.

    python benchmarks/serve_long.py cycles --count 10000   # clients that come and leave
    python benchmarks/serve_long.py load --hours 2         # talk, uploads, clients that leave
    python benchmarks/serve_long.py kill --kills 3 --streams 8   # kill -9 while all of them speak

The demo model listens in a process of its own, clients are in this one. After each part of the run
it is noted what the process holds, and one client asks for a transcript that must be as it was in
the beginning. `kill` has clients of its own, see `serve_kill`. One line is appended to
results/serve.jsonl; with --no-record it is only printed.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import machine
import numpy as np
from serve import EXAMPLES, SOUNDS, service, sounds
from serve_kill import killed
from websockets.asyncio.client import connect

from kiku.serve.loadtest import DIALECTS, FRAME, Load

_SLOTS = 8
_AT_ONCE = 24
"""Clients who break off at the same time: three times as many as there are slots."""

_SETTLES_S = 30.0
"""Within which all that is held for clients who have left is given back."""

_RESET = struct.pack("ii", 1, 0)
"""As SO_LINGER: closing sends a reset."""


class Watch:
    """What a process holds, and whether it still hears what it heard."""

    def __init__(self, port: int, pid: int) -> None:
        """Nothing is known yet."""
        self._url, self._pid = f"http://127.0.0.1:{port}", pid
        self.samples: list[dict[str, Any]] = []
        self.texts: dict[str, str] = {}
        self.unlike = 0

    async def look(self, **beside: Any) -> dict[str, Any]:
        """Wait until nobody is there any more, and note what is held."""
        end = time.monotonic() + _SETTLES_S
        while (held := await self._slots_used()) and time.monotonic() < end:
            await asyncio.sleep(0.2)
        await self._hear()
        root = Path(f"/proc/{self._pid}")
        status = dict(
            line.split(":", 1) for line in (root / "status").read_text().splitlines() if ":" in line
        )
        children = (root / "task" / str(self._pid) / "children").read_text().split()
        sample = {
            **beside,
            "memory_mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
            "threads": int(status["Threads"]),
            "descriptors": len(os.listdir(root / "fd")),
            "children": len(children),
            "slots_held": held,
        }
        self.samples.append(sample)
        print(json.dumps(sample), flush=True)
        return sample

    async def _slots_used(self) -> int:
        async with httpx.AsyncClient(timeout=60) as client:
            told = (await client.get(f"{self._url}/metrics")).text
        line = next(line for line in told.splitlines() if line.startswith("kiku_slots_used "))
        return int(float(line.split()[1]))

    async def _hear(self) -> None:
        """The transcript of an example; as it was the first time."""
        for name in SOUNDS:
            text = await uploaded(self._url, EXAMPLES / name)
            if self.texts.setdefault(name, text) != text:
                self.unlike += 1


async def uploaded(url: str, path: Path) -> str:
    """What the service hears in a recording."""
    async with httpx.AsyncClient(timeout=120) as client:
        answer = await client.post(
            f"{url}/v1/audio/transcriptions",
            files={"file": path.read_bytes()},
            data={"model": "whisper-1"},
        )
    answer.raise_for_status()
    return answer.json()["text"]


class Quitters:
    """Clients who come and break off, each in one of several ways."""

    def __init__(self, port: int, seed: int = 0) -> None:
        """None has come."""
        self._port, self._dice = port, random.Random(seed)
        self._frames = {
            name: [dialect.sound(sounds()[0][i : i + FRAME]) for i in range(0, 10 * FRAME, FRAME)]
            for name, dialect in DIALECTS.items()
        }
        self._ways: Sequence[Callable[[], Awaitable[None]]] = (
            self._half_a_request, self._reset_at_once, self._reset_in_the_middle,
            self._leave_in_the_middle, self._half_an_upload, self._nowhere,
        )  # fmt: skip
        self.num_refused = 0

    async def come(self, count: int) -> None:
        """So many, some at once."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one() -> None:
            async with places:
                with suppress(OSError, TimeoutError, EOFError):
                    async with asyncio.timeout(30):
                        await self._dice.choice(self._ways)()

        await asyncio.gather(*(one() for _ in range(count)))

    def _path(self) -> str:
        name = self._dice.choice(list(DIALECTS))
        return DIALECTS[name].address("").removeprefix("ws://") or "/"

    def _request(self, path: str) -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    @staticmethod
    def _reset(writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    async def _half_a_request(self) -> None:
        _, writer = await self._opened()
        writer.write(self._request(self._path())[: self._dice.randrange(1, 60)])
        await writer.drain()
        self._reset(writer)

    async def _reset_at_once(self) -> None:
        reader, writer = await self._opened()
        writer.write(self._request(self._path()))
        self._note(await reader.readline())
        self._reset(writer)

    async def _reset_in_the_middle(self) -> None:
        name = self._dice.choice(list(DIALECTS))
        reader, writer = await self._opened()
        writer.write(self._request(DIALECTS[name].address("")))
        if self._note(await reader.readline()):
            for frame in self._frames[name][: self._dice.randrange(1, 10)]:
                data = frame.encode() if isinstance(frame, str) else frame
                writer.write(b"\x82\xfe" + len(data).to_bytes(2) + bytes(4) + data)
            await writer.drain()
        self._reset(writer)

    async def _leave_in_the_middle(self) -> None:
        name = self._dice.choice(list(DIALECTS))
        url = DIALECTS[name].address(f"ws://127.0.0.1:{self._port}")
        try:
            async with connect(url, compression=None, open_timeout=30) as client:
                for frame in self._frames[name]:
                    await client.send(frame)
        except Exception:  # refused, or closed by the service: it is the way out that is tried
            self.num_refused += 1

    async def _half_an_upload(self) -> None:
        _, writer = await self._opened()
        writer.write(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
            b"multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n--b\r\n"
            b'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + bytes(50_000)
        )
        await writer.drain()
        self._reset(writer)

    async def _nowhere(self) -> None:
        reader, writer = await self._opened()
        writer.write(self._request("/api/nowhere"))
        self._note(await reader.readline())
        writer.close()

    def _note(self, status: bytes) -> bool:
        accepted = b" 101 " in status
        self.num_refused += not accepted
        return accepted


def grown(samples: Sequence[dict[str, Any]], key: str) -> float:
    """How much more there is at the end than a third of the way in: caches have filled by then."""
    values = [one[key] for one in samples[len(samples) // 3 :]]
    third = max(1, len(values) // 3)
    return round(float(np.median(values[-third:]) - np.median(values[:third])), 1)


def summary(watch: Watch) -> dict[str, Any]:
    """What changed over a run."""
    return {
        "grown": {
            key: grown(watch.samples, key)
            for key in ("memory_mb", "threads", "descriptors", "children")
        },
        "slots_held": max(one["slots_held"] for one in watch.samples),
        "transcripts_unlike": watch.unlike,
        "first": watch.samples[0],
        "last": watch.samples[-1],
    }


async def cycles(port: int, pid: int, count: int) -> dict[str, Any]:
    """Clients who come and break off, and what is left of them."""
    watch, quitters, began = Watch(port, pid), Quitters(port), time.monotonic()
    await watch.look(clients=0)
    part = max(1, count // 20)
    for done in range(part, count + 1, part):
        await quitters.come(part)
        await watch.look(clients=done)
    passed = time.monotonic() - began
    return {"clients": count, "seconds": round(passed), **summary(watch),
            "refused": quitters.num_refused}  # fmt: skip


async def load(port: int, pid: int, hours: float, streams: int, upload_s: float) -> dict[str, Any]:
    """People who talk in real time, recordings, and clients who break off, all at once."""
    watch, quitters = Watch(port, pid), Quitters(port)
    url = f"http://127.0.0.1:{port}"
    loads = {name: Load(url, name, sounds()) for name in DIALECTS}
    alone = {name: dict((await one.run(1, 20.0)).texts) for name, one in loads.items()}
    figures = {"words": 0, "errors": 0, "busy": 0, "unlike_alone": 0, "uploads": 0, "quitters": 0}
    lags: list[float] = []
    await watch.look(minutes=0)
    began = time.monotonic()

    async def talk(name: str) -> None:
        report = await loads[name].run(streams, 60.0)
        figures["words"] += report.words
        figures["errors"] += len(report.errors)
        figures["busy"] += report.busy
        figures["unlike_alone"] += sum(alone[name].get(i) != text for i, text in report.texts)
        lags.extend(report.latency)

    async def upload() -> None:
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            await uploaded(url, EXAMPLES / SOUNDS[figures["uploads"] % len(SOUNDS)])
            figures["uploads"] += 1
            await asyncio.sleep(upload_s)

    async def quit_often() -> None:
        for _ in range(6):
            await quitters.come(5)
            figures["quitters"] += 5
            await asyncio.sleep(10.0)

    while time.monotonic() - began < 3600 * hours:
        await asyncio.gather(*(talk(name) for name in DIALECTS), upload(), quit_often())
        await watch.look(minutes=round((time.monotonic() - began) / 60))
    return {"hours": round((time.monotonic() - began) / 3600, 2),
            "streams": streams * len(DIALECTS), **figures,
            "latency_s": [round(float(v), 2) for v in np.percentile(lags, [50, 99])],
            **summary(watch)}  # fmt: skip


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("cycles", "load", "kill"))
    parser.add_argument("--count", type=int, default=10_000, help="clients who break off")
    parser.add_argument("--hours", type=float, default=2.0, help="of load")
    parser.add_argument(
        "--streams",
        type=int,
        default=1,
        help="of each of three protocols, or all that speak when it is killed",
    )
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--upload-s", type=float, default=5.0, help="between two uploads")
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args()
    if given.part == "kill":
        figures = killed(given.streams, given.kills)
    else:
        with service(_SLOTS) as (port, pid):
            if given.part == "cycles":
                work = cycles(port, pid, given.count)
            else:
                work = load(port, pid, given.hours, given.streams, given.upload_s)
            figures = asyncio.run(work)
    print(json.dumps(figures, indent=2))
    if not given.no_record:
        row = {**machine.stamp(), "what": f"serve {given.part}", given.part: figures}
        machine.append(machine.RESULTS / "serve.jsonl", row)


if __name__ == "__main__":
    main()
