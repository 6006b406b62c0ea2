"""Running the service: one process, or several that share the mapped index and one listening socket."""

import os
import socket
import tempfile
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from app.service.audit import Audit
from app.service.hurried import HurriedProtocol
from app.service.metrics import MULTIPROCESS_VARIABLE
from app.service.settings import ServiceSettings, is_loopback
from app.service.tokens import read_tokens
from store.errors import LookalikeError
from store.layout import open_store

__all__ = ["check_settings", "listen", "serve", "uvicorn_config"]

_CONNECTIONS = 512
_DRAIN_S = 30
_SILENT_S = 30


class _Server(uvicorn.Server):
    """Being told to stop is no failure: the signal is not raised again once everything is answered."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once when told a second time."""
        self.force_exit = self.should_exit
        self.should_exit = True


class _Workers(Multiprocess):
    """Worker processes, each replaced when it dies."""

    def keep_subprocess_alive(self) -> None:
        """Look whether all answer. Our end of what a worker answers through is closed, so that one's death is heard at once."""
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()


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


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, which no other process has; not yet listening.

    It names its protocol, TCP: asyncio sends small packets at once only then. Otherwise an answer's body waits for its headers'
    receipt, which the other side holds back for 40 ms.

    Args:
        host: a name or an address.
        port: 0 takes a free one.

    Raises:
        LookalikeError: the address cannot be had; the message says why.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise LookalikeError(
            f"cannot listen at {host}, port {port} ({error.strerror}): give another --host or --port"
        ) from error
    listener.set_inheritable(True)
    return listener


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
        from app.service.application import create_app  # noqa: PLC0415

        _Server(uvicorn_config(create_app(settings), settings)).run(sockets=[listener])
        return
    open_store(settings.store)  # whatever refuses to start refuses here, in words, and not in each worker
    Audit(settings.audit).close()
    settings.to_environment()
    with tempfile.TemporaryDirectory(prefix="lookalike-counts-") as counts:
        os.environ[MULTIPROCESS_VARIABLE] = counts
        config = uvicorn_config("app.service.application:from_environment", settings)
        _Workers(config, [listener]).run()


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
        timeout_worker_healthcheck=_SILENT_S,  # a worker is silent while it loads the nets, and would be killed in a loop
        h11_max_incomplete_event_size=16_384,
    )
