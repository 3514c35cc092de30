"""A service that runs in a thread of its own, on a free port, for clients that are tested."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import kiku
from kiku.serve.app import App
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


@contextmanager
def running(recognizer: "kiku.Recognizer | None" = None, **settings: Any) -> Generator[Running]:
    """A service with the model that is given, for as long as the context lasts."""
    given = {"port": 0, "drain_s": 2.0, **settings}
    app = App(Service(Settings(**given), recognizer))
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
