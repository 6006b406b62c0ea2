"""Running the service: one process, or several that share the mapped index and one listening socket."""

import os
import socket
import tempfile
from asyncio import TimerHandle
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.service.application import create_app
from app.service.metrics import MULTIPROCESS_VARIABLE
from app.service.settings import ServiceSettings, is_loopback
from app.service.tokens import read_tokens
from store.errors import LookalikeError

__all__ = ["HurriedProtocol", "check_settings", "serve", "uvicorn_config"]

_HEAD_S = 10.0
_CONNECTIONS = 512
_DRAIN_S = 30


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


class _Server(uvicorn.Server):
    """Being told to stop is no failure: the signal is not raised again once everything is answered."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once when told a second time."""
        self.force_exit = self.should_exit
        self.should_exit = True


def check_settings(settings: ServiceSettings) -> None:
    """Refuse to be reached from elsewhere without tokens.

    Raises:
        LookalikeError: the address is not this machine's own and there is no token; or the tokens cannot be read.
    """
    if not read_tokens(settings.tokens) and not is_loopback(settings.host):
        raise LookalikeError(
            f"{settings.host} may be reached from elsewhere and no token is asked for: give --tokens FILE with lines "
            "`read SECRET NAME`, or stay at 127.0.0.1"
        )


def serve(settings: ServiceSettings, *, listener: socket.socket) -> None:
    """Answer until the process is told to stop; then what is under way is answered first.

    Args:
        settings: of the service.
        listener: bound and not yet listening.

    Raises:
        LookalikeError: as `check_settings` and `create_app` have it.
    """
    check_settings(settings)
    if settings.workers == 1:
        _Server(uvicorn_config(create_app(settings), settings)).run(sockets=[listener])
        return
    from uvicorn.supervisors import Multiprocess  # noqa: PLC0415

    create_app(settings)  # whatever refuses to start refuses here, in words
    settings.to_environment()
    with tempfile.TemporaryDirectory(prefix="lookalike-counts-") as counts:
        os.environ[MULTIPROCESS_VARIABLE] = counts
        config = uvicorn_config("app.service.application:from_environment", settings)
        Multiprocess(config, [listener]).run()


def uvicorn_config(app: Any, settings: ServiceSettings) -> uvicorn.Config:
    """How uvicorn runs the service."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        factory=isinstance(app, str),
        http=HurriedProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_DRAIN_S,
        h11_max_incomplete_event_size=16_384,
    )
