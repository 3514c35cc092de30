"""What serving costs around the model, and how many people the demo model listens to here.

    python benchmarks/serve.py sockets      # 500 paced sockets, an engine that costs nothing
    python benchmarks/serve.py stack        # the same clients, and an application that only answers
    python benchmarks/serve.py demo         # the most streams of the demo model in real time
    python benchmarks/serve.py crowd --streams 128     # full, full beside uploads, twice as many
    python benchmarks/serve.py uploads      # a file of 3 s beside one of 10 minutes

The service runs in a process of its own, clients in this one. Processor time of the service is read
from the system: sockets, messages, scheduler, sessions and events, all of it. One line is appended
to results/serve.jsonl; with --no-record it is only printed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import machine
import numpy as np
from serve_steps import MeasuredLoad, processor_s

from kiku.audio import read_chunks
from kiku.serve.loadtest import DIALECTS, FRAME, FRAME_S, RATE, LoadReport, arrival_s

EXAMPLES = machine.ROOT / "examples"
SOUNDS = ("answers.mp3", "digits.wav", "directions.flac")

_UPLOADS = 4
"""At once, beside a full service."""


def answer_only() -> None:
    """In the place of the service: uvicorn as it comes, with an application that answers each
    message with a step and does nothing else. What is left when kiku is taken away."""
    import msgpack
    import uvicorn
    import uvloop

    step = {"type": "Step", "step_idx": 1, "prs": [0.1, 0.2, 0.3, 0.4], "buffered_pcm": 0}
    message = {"type": "websocket.send", "bytes": msgpack.packb(step)}
    ready = {"type": "websocket.send", "bytes": msgpack.packb({"type": "Ready"})}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        await send(ready)
        while (await receive())["type"] == "websocket.receive":
            await send(message)

    from kiku.serve.server import listening_socket

    sock = listening_socket("127.0.0.1", 0)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, ws="websockets-sansio", ws_per_message_deflate=False, ws_ping_timeout=None,
        lifespan="off", log_level="error",
    )  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve([sock]))


def serve(slots: int, is_free: bool) -> None:
    """The service: what the child process does."""
    import kiku
    from kiku.serve.app import App
    from kiku.serve.server import listening_socket, make_server
    from kiku.serve.service import Service
    from kiku.serve.settings import Settings

    recognizer = kiku.load("demo", slots=slots)
    if is_free:
        from hall import FreeEngine

        FreeEngine(recognizer)
    app = App(Service(Settings(port=0, max_connections=5_000, max_connections_per_key=5_000,
                               max_requests_per_minute=1_000_000), recognizer))  # fmt: skip
    sock = listening_socket("127.0.0.1", 0)
    print(sock.getsockname()[1], flush=True)
    import uvloop

    server = make_server(app)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve([sock]))


@contextmanager
def service(slots: int, *options: str) -> Iterator[tuple[int, int]]:
    """A service in a process: its port and the process's number."""
    command = [sys.executable, __file__, "--serve", str(slots), *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield int(child.stdout.readline()), child.pid
    finally:
        child.terminate()
        child.wait()


def sounds(seconds: float | None = None) -> list[np.ndarray]:
    """The examples; or each over and over for so long."""
    found = [np.concatenate(list(read_chunks(EXAMPLES / name, RATE))) for name in SOUNDS]
    if seconds is None:
        return found
    size = int(seconds * RATE)
    return [np.tile(one, 1 + size // len(one))[:size] for one in found]


class Speaker(asyncio.Protocol):
    """A client that costs next to nothing, so that the service has a core of its own: it sends
    frames that were made beforehand, and counts what comes without reading it."""

    def __init__(self, path: str, frames: list[bytes]) -> None:
        self.lags: list[float] = []
        self.num_steps = self.num_words = 0
        self.is_lost = False
        self._path, self._frames, self._sent = path, frames, 0
        self._began = 0.0

    def connection_made(self, transport: Any) -> None:
        """Ask for a socket."""
        self._transport, self._loop = transport, asyncio.get_running_loop()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Count messages."""
        if not self._began:
            self._began = self._loop.time()
            self._speak()
        now = self._loop.time()
        for _ in range(data.count(b"\xa4Step")):
            self.num_steps += 1
            self.lags.append(now - self._began - self.num_steps * FRAME_S)
        self.num_words += data.count(b"\xa4Word")

    def _speak(self) -> None:
        if self.is_lost or self._sent == len(self._frames):
            return
        self._transport.write(self._frames[self._sent])
        self._sent += 1
        self._loop.call_at(self._began + (self._sent + 1) * FRAME_S, self._speak)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        self.is_lost = True


def framed(message: bytes) -> bytes:
    """A binary message as a client's frame, masked with zeros."""
    return b"\x82\xfe" + len(message).to_bytes(2) + bytes(4) + message


def sockets(streams: int, seconds: float, kind: str = "--free") -> dict[str, Any]:
    """Sockets of Kyutai's protocol that speak in real time to an engine that costs nothing, or to
    nobody (`--bare`)."""
    kyutai = DIALECTS["kyutai"]
    frames = [
        framed(bytes(kyutai.sound(samples[i : i + FRAME])))  # pyright: ignore[reportArgumentType]
        for samples in sounds(seconds)[:1]
        for i in range(0, len(samples), FRAME)
    ]
    with service(streams, kind) as (port, pid):

        async def run() -> dict[str, Any]:
            loop = asyncio.get_running_loop()
            speakers: list[Speaker] = []
            for _ in range(streams):
                _, one = await loop.create_connection(
                    lambda: Speaker("/api/asr-streaming", frames), "127.0.0.1", port
                )
                speakers.append(one)
                await asyncio.sleep(0.02)
            await asyncio.sleep(2.0)
            for one in speakers:
                one.lags.clear()
            used, mine, at = processor_s(pid), time.process_time(), time.monotonic()
            await asyncio.sleep(seconds - 0.025 * streams - 4.0)
            passed = time.monotonic() - at
            share = (processor_s(pid) - used) / passed
            lags = np.concatenate([one.lags for one in speakers])
            num_steps = len(lags)
            return {
                "streams": streams, "share_of_a_core": round(share, 3),
                "us_a_frame": round(1e6 * share * passed / num_steps, 1),
                "frames_heard": round(num_steps / (passed * 12.5 * streams), 3),
                "lag_ms": [round(1e3 * float(v), 1) for v in np.percentile(lags, [50, 95, 99])],
                "words": sum(one.num_words for one in speakers),
                "lost": sum(one.is_lost for one in speakers),
                "clients_share_of_a_core": round((time.process_time() - mine) / passed, 3),
            }  # fmt: skip

        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())


def demo(protocol: str, most: int, seconds: float) -> dict[str, Any]:
    """The most streams of the demo model in real time, and what each run costs."""
    with service(most) as (port, pid):
        load = MeasuredLoad(port, pid, protocol, sounds())
        found, reports = asyncio.run(load.find(seconds, most))
    alone = {which: text for which, text in reports[0].texts}
    unlike = [sum(alone.get(which, text) != text for which, text in one.texts) for one in reports]
    runs = [
        {**one.to_dict(), "texts": len(one.texts), "unlike_alone": count, **cost}
        for one, count, cost in zip(reports, unlike, load.costs, strict=True)
    ]
    return {"protocol": protocol, "in_real_time": found, "runs": runs}


def crowd(protocol: str, streams: int, seconds: float) -> dict[str, Any]:
    """A service that is full: so many streams of the demo model, then the same beside four uploads,
    then twice as many clients as there are slots. Times are those of the clients that are heard."""
    load_s = arrival_s(2 * streams) + seconds
    runs: dict[str, dict[str, Any]] = {}

    def note(name: str, report: LoadReport, alone: dict[int, str]) -> None:
        unlike = sum(alone.get(which) != text for which, text in report.texts)
        told = {**report.to_dict(), "texts": len(report.texts), "unlike_alone": unlike}
        runs[name] = {**told, **load.costs[-1]}
        print(name, json.dumps(runs[name]), flush=True)

    with tempfile.TemporaryDirectory() as folder, service(streams + _UPLOADS) as (port, pid):
        url, path = f"http://127.0.0.1:{port}", Path(folder) / "long.wav"
        write_wav(path, 60.0)
        load = MeasuredLoad(port, pid, protocol, sounds())

        async def beside() -> tuple[LoadReport, list[float]]:
            speaking = asyncio.create_task(load.run(streams, load_s))
            each = await asyncio.gather(
                *(_send_until(speaking, url, path) for _ in range(_UPLOADS))
            )
            return await speaking, [one for times in each for one in times]

        first = asyncio.run(load.run(1, load_s))
        alone = dict(first.texts)
        note("one", first, alone)
        note("full", asyncio.run(load.run(streams, load_s)), alone)
        report, times = asyncio.run(beside())
        note("beside uploads", report, alone)
        runs["beside uploads"]["uploads_s"] = [round(one, 1) for one in times]
    with service(streams) as (port, pid):
        load = MeasuredLoad(port, pid, protocol, sounds())
        note("twice as many", asyncio.run(load.run(2 * streams, load_s)), alone)
    return {"protocol": protocol, "slots": streams, "runs": runs}


async def _send_until(ended: "asyncio.Task[Any]", url: str, path: Path) -> list[float]:
    """Send a recording again and again; the seconds that each took."""
    times: list[float] = []
    async with httpx.AsyncClient(timeout=600) as client:
        while not ended.done():
            times.append(await _send(client, url, path))
    return times


def uploads() -> dict[str, Any]:
    """Seconds that a file of 3 s takes alone, and beside one of ten minutes."""
    with tempfile.TemporaryDirectory() as folder, service(4) as (port, _):
        long, short = Path(folder) / "long.wav", Path(folder) / "short.wav"
        write_wav(long, 600.0)
        write_wav(short, 3.0)
        return asyncio.run(_uploads(f"http://127.0.0.1:{port}", long, short))


def write_wav(path: Path, seconds: float) -> None:
    """An example, over and over for so long."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sounds(seconds)[0] * 32_767).astype("<i2").tobytes())


async def _send(client: httpx.AsyncClient, url: str, path: Path) -> float:
    began = time.monotonic()
    answer = await client.post(
        f"{url}/v1/audio/transcriptions", files={"file": path.read_bytes()},
        data={"model": "whisper-1"},
    )  # fmt: skip
    answer.raise_for_status()
    return time.monotonic() - began


async def _uploads(url: str, long: Path, short: Path) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=600) as client:
        await _send(client, url, short)
        alone = sorted([await _send(client, url, short) for _ in range(5)])
        slow = asyncio.create_task(_send(client, url, long))
        await asyncio.sleep(2.0)
        beside = []
        while not slow.done() and len(beside) < 8:
            beside.append(await _send(client, url, short))
        whole = await slow
    return {
        "short_alone_s": round(alone[2], 3), "short_beside_s": [round(one, 3) for one in beside],
        "ratio": round(sorted(beside)[len(beside) // 2] / alone[2], 2), "long_s": round(whole, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["sockets", "demo", "uploads"])
    parser.add_argument("--protocol", default="kyutai")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3, help="of sockets and stack")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--serve", type=int)
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--bare", action="store_true")
    given = parser.parse_args()
    if given.bare:
        return answer_only()
    if given.serve:
        return serve(given.serve, given.free)
    figures: dict[str, Any] = {}
    kinds = {"sockets": "--free", "stack": "--bare"}
    for _ in range(given.runs):  # in turn, where both are wanted
        for part in [one for one in kinds if one in given.parts]:
            found = sockets(given.streams, given.seconds, kinds[part])
            figures.setdefault(part, []).append(found)
    if "demo" in given.parts:
        figures["demo"] = demo(given.protocol, given.streams, given.seconds)
    if "crowd" in given.parts:
        figures["crowd"] = crowd(given.protocol, given.streams, given.seconds)
    if "uploads" in given.parts:
        figures["uploads"] = uploads()
    print(json.dumps(figures, indent=2))
    if not given.no_record:
        row = {**machine.stamp(), "what": "serve", **figures}
        machine.append(machine.RESULTS / "serve.jsonl", row)
    return None


if __name__ == "__main__":
    main()
