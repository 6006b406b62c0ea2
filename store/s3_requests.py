"""Requests to S3 through s3fs: each tried a bounded number of times, and no answer believed that lacks what S3 always sends.

Endpoint, region and credentials come from the environment or the profile it names, and from nowhere else; no message and no
log line of ours holds any of them.
"""

import asyncio
import hashlib
import logging
import os
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import Any

from store.errors import RefusedError, UnavailableError

__all__ = ["TRIES", "Answer", "ConditionFailedError", "ask", "code_of"]

TRIES = 5
"""Requests a call makes at most, whatever goes wrong; between them it waits for 0.1 to 2 seconds.

Below it, aiohttp sends a request that is idempotent over HTTP, a PUT too, once more when a connection it kept breaks.
"""

_CONNECT_S, _SILENCE_S = 5, 20
_CONNECTIONS = 32
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0

_ALWAYS_SENT = {
    "get_object": "ETag",
    "head_object": "ETag",
    "put_object": "ETag",
    "copy_object": "ETag",
    "list_objects_v2": "IsTruncated",
    "list_object_versions": "IsTruncated",
    "create_multipart_upload": "UploadId",
    "upload_part": "ETag",
    "complete_multipart_upload": "ETag",
    "list_multipart_uploads": "IsTruncated",
}
_HEALING_CODES = frozenset(
    {
        "409",  # of a HEAD, which has no document
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
_WRONG_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
)
_HEALING_KINDS = frozenset(
    {
        "AioReadTimeoutError",
        "ClientError",  # aiohttp's
        "FlexibleChecksumError",
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseParserError",
    }
)


class ConditionFailedError(Exception):
    """The condition of a write did not hold; it may be the write itself, sent before, that made it so."""


@dataclass(frozen=True)
class Answer:
    """What S3 answered: its fields as botocore names them, and the body of a GET."""

    fields: dict[str, Any]
    body: bytes = b""


class _NotWhole(Exception):  # noqa: N818  a reason to ask again
    """An answer that is not one, or not all of one."""


def ask(method: str, where: str, *, max_bytes: int | None = None, **parameters: Any) -> Answer:
    """One request, tried again where that can help, `TRIES` times at most.

    Args:
        method: of botocore's client, "get_object".
        where: the uri that it is about, for messages.
        max_bytes: of a GET's body no more than one byte over it is read.
        parameters: as botocore names them.

    Raises:
        FileNotFoundError: there is no such object; the message is the uri.
        ConditionFailedError: the condition of a write did not hold.
        RefusedError: S3 refuses it: no such bucket, no permission, credentials missing or not known.
        UnavailableError: no answer, an error of the server, or not all of the answer, in all tries.
    """
    last: BaseException | None = None
    for attempt in range(TRIES):
        if attempt:
            longest = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S)
            time.sleep(random.uniform(longest / 2, longest))  # noqa: S311
        try:
            return _once(method, max_bytes, parameters)
        except Exception as error:  # s3fs, botocore and aiohttp each have their own kinds
            code, status = code_of(error)
            if _is_condition(code, status, parameters):
                raise ConditionFailedError(where) from error
            if code in {"NoSuchKey", "NoSuchUpload", "NoSuchVersion"} or (code == "404" and method == "head_object"):
                raise FileNotFoundError(where) from error
            if not _can_heal(error, code, status):
                if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "s3fs")):
                    raise  # no answer of anybody's
                raise RefusedError(_refusal(error, code, status, where, parameters)) from error
            last = error
    what = str(last) if isinstance(last, _NotWhole) else code_of(last)[0] or type(last).__name__
    raise UnavailableError(
        f"{where}: no whole answer from S3 in {TRIES} tries (the last: {what}); try again later"
    ) from last


def _once(method: str, max_bytes: int | None, parameters: dict[str, Any]) -> Answer:
    from fsspec.asyn import sync  # noqa: PLC0415

    fs = _filesystem()
    answer: Answer = sync(fs.loop, _request, fs, method, max_bytes, parameters)
    return answer


async def _request(fs: Any, method: str, max_bytes: int | None, parameters: dict[str, Any]) -> Answer:
    client = await fs.set_session()
    fields = await getattr(client, method)(**parameters)
    body = await _body(fields, max_bytes) if method == "get_object" else b""
    if "Range" in parameters and not _is_the_range(fields.get("ContentRange", ""), parameters["Range"], len(body)):
        raise _NotWhole("another range than was asked for")
    wanted = _ALWAYS_SENT.get(method)
    if wanted is not None and wanted not in fields.get("CopyObjectResult", fields):
        raise _NotWhole(f"an answer without {wanted}")
    if method == "delete_object" and int(fields["ResponseMetadata"]["HTTPHeaders"].get("content-length") or 0):
        raise _NotWhole("a document in answer to a deletion")
    return Answer(fields, body)


def _is_the_range(got: str, asked: str, length: int) -> bool:
    """Whether so many bytes said to be "bytes 0-9/50" answer "bytes=0-9"; a range may end earlier, where the object does."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", got)
    start, stop = asked.removeprefix("bytes=").split("-")
    if match is None:
        return False
    first, last, size = map(int, match.groups())
    return first == int(start) and last == min(int(stop), size - 1) and length == last - first + 1


async def _body(fields: dict[str, Any], max_bytes: int | None) -> bytes:
    length = int(fields["ContentLength"])
    wanted = length if max_bytes is None else min(length, max_bytes + 1)
    parts: list[bytes] = []
    async with fields["Body"] as stream:
        if wanted == length:
            parts.append(await stream.read())
        while wanted != length and sum(map(len, parts)) < wanted:
            part = await stream.read(wanted - sum(map(len, parts)))
            if not part:
                break
            parts.append(part)
    body = b"".join(parts)
    if len(body) != wanted:
        raise _NotWhole(f"{len(body)} of {length} bytes")
    return body


_lock = threading.Lock()
_current: tuple[str, Any] | None = None


def _filesystem() -> Any:
    """s3fs's file system for the environment as it is now, one a process; it keeps connections and no listings."""
    global _current  # noqa: PLW0603
    key = _environment()
    with _lock:
        if _current is None or _current[0] != key:
            _current = (key, _new_filesystem())
        return _current[1]


def _environment() -> str:
    """A hash of the process and of all that says how S3 is reached."""
    about_s3 = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_") or name == "HOME")
    return hashlib.sha256(repr((os.getpid(), about_s3)).encode()).hexdigest()


def _new_filesystem() -> Any:
    from s3fs import S3FileSystem  # noqa: PLC0415

    for name in ("botocore", "aiobotocore"):  # at debug level they log headers, a session's token among them
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger(name).level))
    return S3FileSystem(
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={
            "retries": {"mode": "standard", "total_max_attempts": 1},  # `ask` counts them
            "connect_timeout": _CONNECT_S,
            "read_timeout": _SILENCE_S,
            "max_pool_connections": _CONNECTIONS,
            "request_checksum_calculation": "when_required",  # endpoints differ in trailing checksums; all know Content-MD5
        },
    )


def code_of(error: BaseException | None) -> tuple[str, int]:
    """S3's code and the HTTP status in an error of botocore's; "" and 0 where there was no answer."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return "", 0
    return str(response.get("Error", {}).get("Code", "")), int(
        response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )


def _is_condition(code: str, status: int, parameters: dict[str, Any]) -> bool:
    if code == "PreconditionFailed" or status == 412:
        return True
    return "IfMatch" in parameters and code in {"NoSuchKey", "404"}


def _can_heal(error: BaseException, code: str, status: int) -> bool:
    if status:
        return (status >= 500 and status != 501) or status == 429 or code in _HEALING_CODES
    if isinstance(error, _NotWhole | OSError | asyncio.TimeoutError | TimeoutError):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _HEALING_KINDS) or "ConnectionError" in names


def _refusal(error: BaseException, code: str, status: int, where: str, parameters: dict[str, Any]) -> str:
    """One sentence on what S3 does not let us do, and what to do about it; nothing of the credentials."""
    if type(error).__name__ in _NO_CREDENTIALS:
        return f"{where}: no credentials for S3 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if code in _WRONG_CREDENTIALS:
        return f"{where}: S3 does not take the credentials ({code}): check the environment, or the profile it names"
    if code == "NoSuchBucket" or (status == 404 and "Key" not in parameters):
        return f"{where}: there is no bucket {parameters.get('Bucket')}: make it first, or name another"
    if code == "RequestTimeTooSkewed":
        return f"{where}: this machine's clock is too far from the endpoint's: set it"
    if status == 403:
        return (
            f"{where}: S3 does not allow this ({code}): the credentials must be let read, write, list and delete there"
        )
    return f"{where}: S3 refuses this ({code or type(error).__name__}): check the bucket, the endpoint and its settings"
