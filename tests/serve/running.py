"""A service that runs in a thread of its own, on a free port, for clients that are tested."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import kiku
from kiku.serve.app import App
from kiku.serve.decoder import DecoderProcess, DecoderProcesses
from kiku.serve.server import Server, listening_socket, make_server
from kiku.serve.service import Service
from kiku.serve.settings import Settings

T = TypeVar("T")

START_S = 60.0


class Running:
    """A service and where it is."""

    def __init__(
        self, app: App, server: Server, loop: asyncio.AbstractEventLoop, port: int
    ) -> None:
        self.app, self.server, self.loop, self.port = app, server, loop, port
        self.service = app.service
        self.http, self.ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"

    def call(self, make: Callable[[], Awaitable[T]], timeout: float = START_S) -> T:
        """Await something in the service's own event loop."""

        async def work() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(timeout)


class OnDemand(DecoderProcesses):
    """Starts a decoder when there is something to decode, and none ahead.

    Starting one costs half a second of the processor, and most of the tests that have a service of
    their own decode nothing.
    """

    _is_wanted = False

    def prepare(self) -> None:
        if self._is_wanted:
            super().prepare()
            self._is_wanted = False

    async def decode(self, path: Path | None = None, *, track: int | None = None) -> DecoderProcess:
        self._is_wanted = True
        return await super().decode(path, track=track)


@contextmanager
def running(
    recognizer: "kiku.Recognizer | None" = None, *, ahead: bool = False, **settings: Any
) -> Generator[Running]:
    """A service with the model that is given, for as long as the context lasts; with a decoder
    `ahead`, as `kiku serve` has one."""
    given = {"port": 0, "drain_s": 0.2, **settings}
    app = App(Service(Settings(**given), recognizer))
    if not ahead:
        app.service.decoders = OnDemand(app.service.settings.decoder_bytes)
    sock = listening_socket(app.service.settings.host, app.service.settings.port)
    server = make_server(app)
    loops: list[asyncio.AbstractEventLoop] = []
    begun = threading.Event()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        serving = asyncio.create_task(server.serve([sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        await app.loaded()
        begun.set()
        await serving

    # Signals are the main thread's: uvicorn leaves them alone in another.
    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="service")
    thread.start()
    try:
        assert begun.wait(START_S), "the service did not start"
        yield Running(app, server, loops[0], sock.getsockname()[1])
    finally:
        if loops:
            loops[0].call_soon_threadsafe(server.begin_end)
        thread.join(START_S)
        assert not thread.is_alive(), "the service did not end"
