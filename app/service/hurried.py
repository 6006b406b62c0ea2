"""The protocol of the service's connections; a module of its own, so that a worker process starts without loading the nets first."""

from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HurriedProtocol"]

_HEAD_S = 10.0


class HurriedProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request line and headers do not come within ten seconds."""

    _late: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._late = self.loop.call_later(_HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Stop it while a request is answered, and start it again for the next one's headers."""
        super().data_received(data)
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and self._late is not None:
            self._late.cancel()
            self._late = None
        elif not busy and self._late is None:
            self._late = self.loop.call_later(_HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        super().connection_lost(exc)
