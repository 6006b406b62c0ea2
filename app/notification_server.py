"""An HTTP address for bucket notifications: POST one, and whoever waits is told which objects it names."""

import base64
import binascii
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from store.errors import LookalikeError
from store.notifications import MAX_BYTES, NotificationError, notified_uris

__all__ = ["PATH", "listening_at", "notification_app", "parse_address"]

PATH = "/notifications"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def parse_address(text: str, *, token: str | None) -> tuple[str, int]:
    """Host and port of HOST:PORT.

    Raises:
        LookalikeError: it is no address, or one that others reach and there is no token.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise LookalikeError(f"--listen is {text!r}: wanted HOST:PORT, as 127.0.0.1:8088")
    if host not in _LOOPBACK and not token:
        raise LookalikeError(
            f"--listen is {text!r}, which others reach: set LOOKALIKE_WATCH_TOKEN, or listen on 127.0.0.1"
        )
    return host, int(port)


def notification_app(told: Callable[[list[str]], None], *, token: str | None) -> FastAPI:
    """The application: 200 for a notification, 400 for anything else, 401 without the token, 413 for too much.

    Args:
        told: called with the s3:// uris of each notification's objects, on the server's thread.
        token: what a caller must show, as a bearer token or as the password of basic authentication; None lets everybody in.
    """
    app = FastAPI(openapi_url=None)

    @app.post(PATH)
    async def receive(request: Request) -> JSONResponse:
        if token is not None and not _shows(request.headers.get("authorization", ""), token):
            return JSONResponse({"error": "wrong token"}, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BYTES:
                return JSONResponse({"error": f"more than {MAX_BYTES} bytes"}, status_code=413)
        try:
            uris = notified_uris(bytes(body))
        except NotificationError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        told(uris)
        return JSONResponse({"objects": len(uris)})

    return app


@contextmanager
def listening_at(host: str, port: int, app: FastAPI) -> Iterator[None]:
    """Serve the application on a thread while this block runs.

    Raises:
        LookalikeError: the address cannot be listened at.
    """
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False))
    thread = threading.Thread(target=_run, args=(server,), daemon=True, name="notifications")
    thread.start()
    try:
        while not server.started:
            thread.join(0.05)
            if not thread.is_alive():
                raise LookalikeError(f"nobody can listen at {host}:{port}: is it in use?")
        yield
    finally:
        server.should_exit = True
        thread.join()


def _run(server: uvicorn.Server) -> None:
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that it could not start
        return


def _shows(header: str, token: str) -> bool:
    kind, _, shown = header.partition(" ")
    if kind.lower() == "basic":
        try:
            shown = base64.b64decode(shown, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    return secrets.compare_digest(shown.encode(), token.encode())
