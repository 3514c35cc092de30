"""A balancer in the small: hands connections on to a place that can be changed, and can cut all."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress


class Relay:
    """Listens on a port of its own, and knows nothing of what passes."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.swallows = False  # whether nothing is handed on, as by a network that is down
        self.swallowed = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._dead: set[socket.socket] = set()

    def run(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                here, _ = self._listening.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    here.close()
                    continue
                self._open += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def cut(self) -> None:
        """End all connections without a word."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def kill(self) -> None:
        """Hand on nothing more of the connections that are open, as a switch of networks does:
        neither side learns it."""
        self._dead.update(self._open)

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def _pass(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65_536):
                if self.swallows:
                    self.swallowed += data
                elif here not in self._dead:
                    there.sendall(data)
            if here not in self._dead:
                there.shutdown(socket.SHUT_WR)


@contextmanager
def relay(port: int) -> Generator[Relay]:
    """A relay to a port, for as long as the context lasts."""
    one = Relay(port)
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.close()
        thread.join(10)
