"""The API: one function a route."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Path, Query, Request, Response

from app.service.answers import FaceDetails, SearchAnswer, VersionList, VersionSummary
from app.service.asking import SMALL_BYTES, Asked, Asker, NotSmallError
from app.service.audit import Audit
from app.service.bodies import FORM_BYTES, announced_bytes, read_body, read_form
from app.service.examples import SEARCH_BODY, SEARCH_RESPONSES
from app.service.gate import Gate
from app.service.guard import COOKIE
from app.service.metrics import Metrics
from app.service.questions import SearchOptions, parse_fields, parse_question
from app.service.refusals import Refusal
from app.service.settings import ServiceSettings
from app.service.tokens import Token, Tokens
from store.public_web import fetch_public
from store.versions import read_version
from tasks.steps.show_face import OriginalPhoto, face_thumbnail, known_face, original_photo, upright_jpeg

__all__ = [
    "Service",
    "crop",
    "face",
    "healthz",
    "metrics",
    "original",
    "photo",
    "readyz",
    "router",
    "search",
    "sign_in",
    "sign_out",
    "versions",
]

R = TypeVar("R")
FaceNumber = Annotated[str, Path(pattern=r"^[0-9]{1,19}$", description="a face's id, as answers give it")]
VersionNumber = Annotated[int | None, Query(ge=1, le=999_999, description="the current one when empty")]
_JSON_BYTES = 65_536

router = APIRouter()


class Service:
    """What routes work with; one a process.

    Args:
        settings: as the service was started with.
        tokens: who is known.
        asker: the store, warm.
    """

    def __init__(self, settings: ServiceSettings, *, tokens: Tokens, asker: Asker) -> None:
        self.settings, self.tokens, self.asker = settings, tokens, asker
        self.gate = Gate(
            slots=settings.slots, together=settings.together, waiting=settings.waiting, held_bytes=settings.held_bytes
        )
        self.metrics, self.audit = Metrics(), Audit(settings.audit)

    async def ask(self, function: Callable[..., R], *args: Any) -> R:
        """Call what takes a processor's time, in its turn."""
        async with self.gate.turn():
            return await self._in(self.asker.threads, function, *args)

    async def ask_photo(self, photo: bytes, options: SearchOptions) -> SearchAnswer:
        """The answer to a photo, in its turn; small photos that come at the same time share one."""
        if len(photo) <= SMALL_BYTES:
            with contextlib.suppress(NotSmallError):
                async with self.gate.turn(small=True):
                    return await self._in(self.asker.small_threads, _answer_photo, self, photo, options, True)
        return await self.ask(_answer_photo, self, photo, options, False)

    async def show(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call what reads a little."""
        return await self._in(self.asker.shows, partial(function, *args, **kwargs))

    @staticmethod
    async def _in(threads: ThreadPoolExecutor, function: Callable[..., R], *args: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(threads, function, *args)


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


@router.post(
    "/api/search",
    response_model=SearchAnswer,
    responses=SEARCH_RESPONSES,
    openapi_extra={"requestBody": SEARCH_BODY},
    summary="Who is in this photo, or who looks like this face?",
)
async def search(request: Request) -> SearchAnswer:
    """The most similar known faces: of each face in a photo (a form with a file `photo`), or of a known face (JSON).

    The photo is held in memory while it is asked with, and written nowhere.
    """
    service, started = _service(request), time.monotonic()
    told: dict[str, Any] = {"who": request.state.who.name, "kind": "unread", "outcome": "refused"}
    try:
        asked = await _search(request, service, told)
        told |= {"outcome": "answered", "version": asked.version, "faces": len(asked.faces), "searched": asked.searched}
        return asked
    finally:
        told["ms"] = round(1000 * (time.monotonic() - started))
        service.metrics.queries.labels(told["outcome"]).inc()
        service.audit.write(**told)


async def _search(request: Request, service: Service, told: dict[str, Any]) -> SearchAnswer:
    settings = service.settings
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"multipart/form-data", "application/json"}:
        raise Refusal(415, "send multipart/form-data with a file called photo, or application/json")
    is_form = kind == "multipart/form-data"
    limit = settings.max_body_bytes if is_form else _JSON_BYTES
    most = announced_bytes(request, limit=limit)
    async with service.gate.place(most if is_form else settings.max_body_bytes):
        body = await read_body(request, limit=limit, seconds=settings.body_seconds)
        if not is_form:
            return await _search_by_name(body, request.state.who, service, told)
        photo, fields = await read_form(request, body)
        del body
        told["kind"] = "photo"
        options = parse_fields(fields)
        if photo is None:
            raise Refusal(422, "the form has no file called photo")
        return await service.ask_photo(photo, options)


async def _search_by_name(body: bytes, who: Token, service: Service, told: dict[str, Any]) -> SearchAnswer:
    question = parse_question(body)
    told["kind"] = "face" if question.url is None else "url"
    if question.url is None:
        return await service.ask(_answer_face, service, int(question.face_id or 0), question)
    if not service.settings.allow_url:
        raise Refusal(403, "this service fetches no addresses; `lookalike serve --allow-url` lets it")
    if who.scope != "admin":
        raise Refusal(403, "a token of scope admin may name addresses, this one is of scope read")
    photo = await service.show(fetch_public, question.url, max_bytes=service.settings.max_body_bytes)
    return await service.ask_photo(photo, question)


def _answer_photo(service: Service, photo: bytes, options: SearchOptions, small: bool) -> SearchAnswer:
    chosen = options.for_version(service.asker.opened(options.version))
    return _sent(service, service.asker.ask_photo(photo, chosen, small=small), picture=options.picture)


def _answer_face(service: Service, face_id: int, options: SearchOptions) -> SearchAnswer:
    chosen = options.for_version(service.asker.opened(options.version))
    return _sent(service, service.asker.ask_face(face_id, chosen), picture=False)


def _sent(service: Service, asked: Asked, *, picture: bool) -> SearchAnswer:
    for stage, seconds in asked.answer.seconds.items():
        service.metrics.stages.labels(stage).observe(seconds)
    return SearchAnswer.of(asked, picture=picture)


@router.get("/api/versions", summary="The versions that can be asked")
async def versions(request: Request) -> VersionList:
    """All published versions, newest first, and what else the page has to know before anything is asked."""
    return await _service(request).show(_versions, _service(request), request.state.who)


def _versions(service: Service, who: Token) -> VersionList:
    asker = service.asker
    now = asker.opened(None).version.number if asker.is_ready else None
    summaries = []
    for number in sorted(asker.numbers(), reverse=True)[:200]:
        manifest = read_version(asker.storage, number).manifest
        summaries.append(VersionSummary.of(manifest, number, current=number == now))
    return VersionList(
        versions=summaries,
        labels=asker.labels(),
        may_name_addresses=service.settings.allow_url and who.scope == "admin",
        most_photo_bytes=max(0, service.settings.max_body_bytes - FORM_BYTES),
        signed_in_as=who.name if service.tokens else None,
        trouble=asker.trouble,
    )


@router.get("/api/faces/{face_id}", summary="What is known of a face")
async def face(request: Request, face_id: FaceNumber, version: VersionNumber = None) -> FaceDetails:
    """A known face: its name, its photo's name, where in the photo it is."""
    service = _service(request)

    def look() -> FaceDetails:
        opened = service.asker.opened(version)
        return FaceDetails.of(known_face(service.asker.storage, opened, int(face_id)), opened)

    return await service.show(look)


_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "a picture"}}


@router.get("/api/faces/{face_id}/crop", response_class=Response, responses=_PICTURE, summary="A face's picture")
async def crop(
    request: Request,
    face_id: FaceNumber,
    version: VersionNumber = None,
    side_px: Annotated[int, Query(ge=32, le=512)] = 192,
) -> Response:
    """The face as it is stored, upright, as a JPEG."""
    service = _service(request)

    def look() -> bytes:
        opened = service.asker.opened(version)
        return face_thumbnail(service.asker.storage, opened, int(face_id), side_px=side_px)

    return Response(await service.show(look), media_type="image/jpeg")


@router.get("/api/photos/{face_id}", response_class=Response, responses=_PICTURE, summary="The photo that a face is in")
async def photo(
    request: Request,
    face_id: FaceNumber,
    version: VersionNumber = None,
    side_px: Annotated[int, Query(ge=64, le=2048)] = 1024,
) -> Response:
    """The photo, upright, small and without metadata, as a JPEG; the header X-Photo-Size has its full width and height."""
    service = _service(request)

    def look() -> tuple[bytes, tuple[int, int]]:
        original = _original(service, int(face_id), version)
        return upright_jpeg(original, side_px=side_px, decode=service.asker.decoding.read)

    async with service.gate.place(0):
        data, (width, height) = await service.ask(look)
    return Response(data, media_type="image/jpeg", headers={"X-Photo-Size": f"{width} {height}"})


@router.get(
    "/api/photos/{face_id}/original", response_class=Response, responses=_PICTURE, summary="That photo's own bytes"
)
async def original(request: Request, face_id: FaceNumber, version: VersionNumber = None) -> Response:
    """The photo as it lies in its source, with whatever metadata it has."""
    service = _service(request)
    async with service.gate.place(service.settings.max_body_bytes):
        found = await service.show(_original, service, int(face_id), version)
    headers = {"Content-Disposition": f'attachment; filename="{face_id}.{found.media_type.rpartition("/")[2]}"'}
    return Response(found.data, media_type=found.media_type, headers=headers)


def _original(service: Service, face_id: int, version: int | None) -> OriginalPhoto:
    return original_photo(service.asker.storage, service.asker.opened(version), face_id)


@router.post("/api/session", status_code=204, summary="Sign in on the page")
async def sign_in(request: Request) -> Response:
    """Keep the token that the request carries in a cookie that scripts cannot read, so that pictures can be shown."""
    service, secret = _service(request), request.headers.get("authorization", "").partition(" ")[2].strip()
    answer = Response(status_code=204)
    if service.tokens and service.tokens.find(secret) is not None:
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=secure, path="/", max_age=12 * 3600)
    return answer


@router.delete("/api/session", status_code=204, summary="Sign out")
async def sign_out(request: Request) -> Response:
    """Forget the cookie."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """Always yes, while anything answers."""
    return {"status": "alive"}


@router.get("/readyz", summary="Can it answer?")
async def readyz(request: Request) -> dict[str, str]:
    """Whether a version is open and everything has been used once."""
    if not _service(request).asker.is_ready:
        raise Refusal(503, "not ready yet", retry_after_s=2)
    return {"status": "ready"}


@router.get("/metrics", response_class=Response, summary="Counts, for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, queries, their stages, and what answers them."""
    service = _service(request)
    service.metrics.inside.set(service.gate.inside)
    if service.asker.is_ready:
        manifest = service.asker.opened(None).version.manifest
        service.metrics.version.set(manifest.version)
        service.metrics.faces.set(manifest.faces)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
