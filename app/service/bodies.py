"""Reading what a query brings: counted and timed while it comes, kept in memory only, and let go with the query."""

import asyncio
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from app.service.refusals import Refusal

__all__ = ["FORM_BYTES", "announced_bytes", "read_body", "read_form"]

FORM_BYTES = 65_536
"""What a form's fields and boundaries may take besides its photo."""

_MOST_FIELDS = 40
_FIELD_BYTES = 16_384


class _InMemory(MultiPartParser):
    """A form whose files are never spooled to a disk."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Let go of every file, also of one whose end never came."""
        for file in self._files_to_close_on_error:
            file.close()


def announced_bytes(request: Request, *, limit: int) -> int:
    """What the request says it brings; the limit where it does not say.

    Raises:
        Refusal: 413 when it is over the limit, 400 when it is not a number.
    """
    said = request.headers.get("content-length")
    if said is None:
        return limit
    if not (said.isascii() and said.isdigit() and len(said) < 20):
        raise Refusal(400, "Content-Length is not a number")
    if int(said) > limit:
        raise Refusal(413, f"the request has {int(said):,} bytes, the limit is {limit:,}")
    return int(said)


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """The whole body.

    Raises:
        Refusal: 413 as soon as more than `limit` bytes came, 408 when it is not all there in time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise Refusal(413, f"the request has more than {limit:,} bytes, the limit")
    except TimeoutError:
        raise Refusal(408, f"the request did not come within {seconds:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the connection was closed before all had come") from None
    return bytes(body)


async def read_form(request: Request, body: bytes) -> tuple[bytes | None, dict[str, list[str]]]:
    """The file called `photo` and the other fields of a multipart form.

    Raises:
        Refusal: 400, it is no such form.
    """

    async def once() -> Any:
        yield body

    parser = _InMemory(request.headers, once(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES)
    try:
        form = await parser.parse()
        photo = form.get("photo")
        fields: dict[str, list[str]] = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields.setdefault(name, []).append(value)
        return (await photo.read() if isinstance(photo, UploadFile) else None), fields
    except (MultiPartException, FormParserError, LookupError, ValueError) as error:
        raise Refusal(400, "the form cannot be read: send multipart/form-data with a file called photo") from error
    finally:
        parser.close()
