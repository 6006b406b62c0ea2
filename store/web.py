"""Photos on the web: http and https with limits on bytes, time, redirects and retries."""

import time
from email.utils import parsedate_to_datetime
from functools import lru_cache
from importlib import metadata
from typing import Any

from store.errors import UnreadableError

__all__ = ["fetch", "is_web", "look_up"]

_DEADLINE_S = 30.0
_CONNECT_S, _SILENCE_S = 10.0, 15.0
_REDIRECTS = 5
_ATTEMPTS = 3
_LONGEST_PAUSE_S = 5.0


def is_web(uri: str) -> bool:
    """Whether the uri is an http or https address."""
    return uri.startswith(("http://", "https://"))


def fetch(url: str, *, max_bytes: int) -> bytes:
    """The bytes at an address, at most `max_bytes` + 1 of them, as they were sent.

    A server that is busy or failing (429, 5xx) is asked again, two times at most.

    Args:
        url: http or https; redirects are followed, five at most, and only to http and https.
        max_bytes: no more than one byte over it is read.

    Raises:
        UnreadableError: no answer, another status than 200, or not all of it within 30 seconds; the message says which.
    """
    import httpx  # noqa: PLC0415

    until = time.monotonic() + _DEADLINE_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _client().stream("GET", url) as answer:
                if _is_busy(answer.status_code) and attempt < _ATTEMPTS:
                    pause = _pause(answer.headers.get("retry-after"), attempt)
                else:
                    return _body(answer, max_bytes=max_bytes, until=until)
        except httpx.TransportError as error:
            if attempt == _ATTEMPTS or isinstance(error, httpx.UnsupportedProtocol):
                raise UnreadableError(f"no answer ({type(error).__name__})") from error
            pause = _pause(None, attempt)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreadableError(f"no answer ({type(error).__name__})") from error
        if time.monotonic() + pause > until:
            break
        time.sleep(pause)
    raise UnreadableError(f"no answer within {_DEADLINE_S:g} s")


def look_up(url: str) -> dict[str, Any]:
    """What a server says of an address without sending it: size, ETag and LastModified, as far as it says so.

    Raises:
        UnreadableError: no answer, or another status than 200.
    """
    import httpx  # noqa: PLC0415

    try:
        answer = _client().head(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnreadableError(f"no answer ({type(error).__name__})") from error
    if answer.status_code != 200:
        raise UnreadableError(f"HTTP {answer.status_code}")
    length, modified = answer.headers.get("content-length", ""), answer.headers.get("last-modified")
    encoded = answer.headers.get("content-encoding", "identity") != "identity"  # the length is then another one
    info: dict[str, Any] = {"size": int(length) if length.isdecimal() and not encoded else 0}
    if etag := answer.headers.get("etag"):
        info["ETag"] = etag
    elif modified:
        try:
            info["LastModified"] = parsedate_to_datetime(modified)
        except ValueError:
            return info
    return info


@lru_cache(maxsize=1)
def _client() -> Any:
    """One client a process, which keeps connections; bytes come as they are, not compressed."""
    import httpx  # noqa: PLC0415

    return httpx.Client(
        follow_redirects=True,
        max_redirects=_REDIRECTS,
        timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
        headers={"User-Agent": f"lookalike/{metadata.version('lookalike')}", "Accept-Encoding": "identity"},
    )


def _body(answer: Any, *, max_bytes: int, until: float) -> bytes:
    if answer.status_code != 200:
        raise UnreadableError(f"HTTP {answer.status_code}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise UnreadableError("the server sends it compressed, which was not asked for")
    body = bytearray()
    for part in answer.iter_raw():
        body += part
        if len(body) > max_bytes:
            break
        if time.monotonic() > until:
            raise UnreadableError(f"not all of it came within {_DEADLINE_S:g} s")
    return bytes(body[: max_bytes + 1])


def _is_busy(status: int) -> bool:
    return status == 429 or status >= 500


def _pause(asked: str | None, attempt: int) -> float:
    return min(float(asked), _LONGEST_PAUSE_S) if asked and asked.isdecimal() else 0.3 * 2**attempt
