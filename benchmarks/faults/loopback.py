"""A server on a free port of loopback, in a thread of its own, for as long as a context lasts."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["LoopbackServer", "Serving"]


class Serving(ThreadingHTTPServer):
    """Serves each request in a thread; handlers find what they serve as `self.server.owner`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: Any

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to tell."""


class LoopbackServer:
    """What an endpoint and a proxy have in common.

    Args:
        handler: of requests.
        port: of loopback; 0 takes a free one.

    Attributes:
        url: to be given to clients.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, port: int = 0) -> None:
        self._server = Serving(("127.0.0.1", port), handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
