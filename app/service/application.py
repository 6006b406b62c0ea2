"""The service as one application: routes behind the door, and what they work with from start to end."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.service.asking import Asker
from app.service.guard import Guard
from app.service.refusals import Refusal, refuse
from app.service.routes import Service, router
from app.service.settings import ServiceSettings
from app.service.tokens import read_tokens
from store.errors import ArtifactError, LookalikeError, QueryError, UnavailableError, UnreadableError, VersionError
from tasks.steps.show_face import NotShownError

__all__ = ["create_app", "from_environment"]

STATIC = Path(__file__).parent / "static"
_STATUSES: tuple[tuple[type[LookalikeError], int], ...] = (
    (NotShownError, 404),
    (VersionError, 404),
    (QueryError, 422),
    (UnreadableError, 422),
    (UnavailableError, 503),
    (ArtifactError, 503),
)


def create_app(settings: ServiceSettings) -> ASGIApp:
    """The service, ready to be run by an ASGI server.

    Raises:
        LookalikeError: the tokens cannot be read, there is no store, or the audit file cannot be written.
    """
    tokens = read_tokens(settings.tokens)
    asker = Asker(settings)
    service = Service(settings, tokens=tokens, asker=asker)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with asker:
            yield
        service.audit.close()

    app = FastAPI(
        title="lookalike",
        version=metadata.version("lookalike"),
        summary="Reverse visual search for faces.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(router)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(Refusal, lambda _, error: refuse(error))
    app.add_exception_handler(LookalikeError, lambda _, error: refuse(_as_refusal(error)))
    app.add_exception_handler(RequestValidationError, lambda _, error: refuse(_as_refusal(error)))
    app.add_exception_handler(HTTPException, lambda _, error: refuse(_as_refusal(error)))
    app.add_exception_handler(Exception, lambda _, error: refuse(_as_refusal(error)))
    return Guard(_Counting(app, service), settings=settings, tokens=tokens)


def from_environment() -> ASGIApp:
    """The service in a worker process, which stops when the process that started it is gone, however that ended."""
    threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
    return create_app(ServiceSettings.from_environment())


def _stop_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


async def _page() -> Response:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


def _as_refusal(error: Exception) -> Refusal:
    if isinstance(error, LookalikeError):
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        if status == 500 or isinstance(error, ArtifactError):
            return Refusal(
                status, "the store cannot be read as it is; whoever runs the service finds out with `lookalike verify`"
            )
        return Refusal(status, str(error), retry_after_s=2 if status == 503 else None)
    if isinstance(error, RequestValidationError):
        first: dict[str, Any] = error.errors()[0]
        return Refusal(422, f"{'.'.join(str(part) for part in first['loc'])[:80]}: {first['msg']}")
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, f"there is no such page ({error.detail})")
    return Refusal(500, "something went wrong here, and it is not your photo; the service's log says what")


class _Counting:
    """Counts requests by route and status.

    Args:
        app: whose requests.
        service: that has the counters.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self._app, self._metrics = app, service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.monotonic(), 500

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            return await self._app(scope, receive, send_counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, scope["method"], str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)
