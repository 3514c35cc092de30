"""One HTTP connection under uvicorn: its requests are read in turns with those of others, and must
begin in time."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from kiku.serve.fair_reader import FairReader
from kiku.serve.socket_connection import SocketProtocol


def http_protocol(header_s: float) -> type[H11Protocol]:
    class HeaderTimeoutProtocol(FairReader, H11Protocol):
        """Closes a connection whose first request, or next one, does not come in time."""

        _header_timer: asyncio.TimerHandle | None = None
        _is_upgraded = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._header_timer = self.loop.call_later(header_s, self._is_late)

        def _resume(self) -> None:
            if not self.flow.read_paused:
                super()._resume()

        def _take(self, data: bytes) -> bytes:
            if self._is_upgraded:  # no client sends before it is answered
                return b""
            H11Protocol.data_received(self, data)
            if not self._awaits_head:
                self._forget()
            elif self._header_timer is None and not self._is_upgraded:
                self._header_timer = self.loop.call_later(header_s, self._is_late)
            return b""

        @property
        def _awaits_head(self) -> bool:
            """Whether all requests that came are answered."""
            cycle: Any = self.cycle
            return cycle is None or cycle.response_complete

        def _is_late(self) -> None:
            if self._awaits_head and not self.transport.is_closing():
                self.transport.close()

        def _unsupported_upgrade_warning(self) -> None:
            # The request is answered as if it had not asked, as curl --http2 does each time.
            self.logger.debug("an upgrade that is not a WebSocket's was passed over")

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._is_upgraded = True
            self._forget()
            super().handle_websocket_upgrade(event)
            protocol = self.transport.get_protocol()
            if isinstance(protocol, SocketProtocol):
                protocol.end_bad_request()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _forget(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return HeaderTimeoutProtocol
