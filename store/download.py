"""A large file from the web: with limits, tried again where that can help, and gone on with where it was cut.

What came so far stands in a part file. `<part>.from` beside it says which address it came from and the server's mark of that
version, so that pieces of two versions are never joined.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from store.errors import LookalikeError

__all__ = ["DownloadError", "Wanted", "download", "forget_part"]

Tell = Callable[[int, int], None]

_DEADLINE_S = 3600.0
_CONNECT_S, _SILENCE_S = 10.0, 20.0
_REDIRECTS = 5
_TRIES = 3
_PAUSE_S = 0.3
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Wanted:
    """What is known of a file before it comes.

    Attributes:
        max_bytes: it is no larger.
        bytes: its exact size, where it is known.
        will_be_checked: its whole hash is known to the caller, who would find out if pieces did not belong together.
    """

    max_bytes: int
    bytes: int | None
    will_be_checked: bool


class DownloadError(LookalikeError):
    """A file did not come; the message goes on after the address: what the server did."""


class _PassingError(DownloadError):
    """What may go better when it is tried again."""

    def __init__(self, what: str, pause_s: float | None = None) -> None:
        super().__init__(what)
        self.pause_s = pause_s


def download(url: str, part: Path, wanted: Wanted, *, tell: Tell) -> None:
    """Bring the part file to its full length.

    A try that came further than any before does not count as one that failed.

    Args:
        url: http or https; from https no redirect leads to http.
        part: what an earlier call left there is gone on with, if the server still has the same version.
        wanted: its limits.
        tell: is told of bytes that are here and bytes in all, 0 while that is unknown.

    Raises:
        DownloadError: the server has something else, or does not give it in three tries that bring nothing, or in an hour.
    """
    import httpx  # noqa: PLC0415

    until = time.monotonic() + _DEADLINE_S
    failed = furthest = 0
    with httpx.Client(
        follow_redirects=True,
        max_redirects=_REDIRECTS,
        timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
        headers={"User-Agent": f"lookalike/{metadata.version('lookalike')}", "Accept-Encoding": "identity"},
    ) as client:
        while True:
            try:
                return _take(client, url, part, wanted, until=until, tell=tell)
            except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
                raise DownloadError(f"gives no answer ({type(error).__name__})") from error
            except httpx.HTTPError as error:
                problem = _PassingError(f"gives no answer ({type(error).__name__})")
            except _PassingError as error:
                problem = error
            failed = 0 if _size(part) > furthest else failed + 1
            furthest = max(furthest, _size(part))
            pause = _PAUSE_S * 2**failed if problem.pause_s is None else min(problem.pause_s, _LONGEST_PAUSE_S)
            if failed == _TRIES or time.monotonic() + pause > until:
                raise problem
            time.sleep(pause)


def forget_part(part: Path) -> None:
    """Remove a part file and what is known of it."""
    for path in (part, _origin(part)):
        path.unlink(missing_ok=True)


def _take(client: Any, url: str, part: Path, wanted: Wanted, *, until: float, tell: Tell) -> None:
    """One try: ask for what is missing, or for all of it, and append what comes."""
    have = _size(part)
    mark = _mark_of(part, url) if have else None
    if have and mark is None and not wanted.will_be_checked:
        forget_part(part)
        have = 0
    asked = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", url, headers=asked | ({"If-Range": mark} if mark else {})) as answer:
        if url.startswith("https://") and any(one.url.scheme != "https" for one in (*answer.history, answer)):
            raise DownloadError("leads from https to http")
        start, total = _start_and_total(answer, have, wanted, part)
        if answer.status_code == 416:  # all of it was here
            return
        if not start:
            part.write_bytes(b"")  # before the new mark, or the old bytes would pass for the new version's
            _set_mark(part, url, answer.headers)
        _append(answer, part, total, wanted, until=until, tell=tell)
    says_its_end = {"content-length", "transfer-encoding"} & set(answer.headers)
    if total is not None and _size(part) < total and not says_its_end:
        raise _PassingError(f"ended the connection after {_size(part):,} of {total:,} bytes")


def _append(answer: Any, part: Path, total: int | None, wanted: Wanted, *, until: float, tell: Tell) -> None:
    most = wanted.bytes or wanted.max_bytes
    with part.open("ab") as out:
        for piece in answer.iter_raw():
            if out.tell() + len(piece) > most:
                forget_part(part)
                raise DownloadError(f"sends more than {most:,} bytes")
            out.write(piece)
            tell(out.tell(), total or 0)
            if time.monotonic() > until:
                raise _PassingError(f"did not give all of it within {_DEADLINE_S / 60:g} minutes")
        out.flush()
        os.fsync(out.fileno())


def _start_and_total(answer: Any, have: int, wanted: Wanted, part: Path) -> tuple[int, int | None]:
    """At which byte the answer begins, and how many there are in all, as far as the server says so."""
    status = answer.status_code
    if status == 429 or status >= 500:
        asked = answer.headers.get("retry-after", "")
        raise _PassingError(f"answers HTTP {status}", float(asked) if asked.isdecimal() else None)
    if status not in (200, 206, 416):
        raise DownloadError(f"answers HTTP {status}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise DownloadError("sends it compressed, which was not asked for")
    if status == 200:
        length = answer.headers.get("content-length", "")
        total = int(length) if length.isdecimal() else wanted.bytes
        _check_total(answer, total, wanted)
        return 0, total
    said = answer.headers.get("content-range", "missing")
    total = _range_total(said, have if status == 206 else None)
    if total is None or total < have or (status == 416 and total != have):
        forget_part(part)  # not the range that was asked for: from the start
        raise _PassingError(f"answers HTTP {status} with Content-Range {said[:60]!r}")
    _check_total(answer, total, wanted)
    return have, total


def _range_total(content_range: str, start: int | None) -> int | None:
    """The whole size in a Content-Range that begins at `start` and goes to the end, or has no range; None for any other."""
    unit, _, rest = content_range.partition(" ")
    span, _, size = rest.partition("/")
    if unit != "bytes" or not size.isdecimal():
        return None
    return int(size) if span == ("*" if start is None else f"{start}-{int(size) - 1}") else None


def _check_total(answer: Any, total: int | None, wanted: Wanted) -> None:
    kind = answer.headers.get("content-type", "no type")[:60]
    if total is not None and wanted.bytes is not None and total != wanted.bytes:
        raise DownloadError(
            f"offers {total:,} bytes ({kind}), wanted {wanted.bytes:,}: another file, or the page of a proxy or a login"
        )
    if total is not None and total > wanted.max_bytes:
        raise DownloadError(f"offers {total:,} bytes ({kind}), more than {wanted.max_bytes:,}, the limit")


def _mark_of(part: Path, url: str) -> str | None:
    """The server's mark of the version that the part is of, if it came from this address."""
    try:
        kept = json.loads(_origin(part).read_text())
        return str(kept["mark"]) if kept["url"] == url and kept["mark"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _set_mark(part: Path, url: str, headers: Any) -> None:
    """Note a strong ETag, else the time of the last change: what If-Range may ask for."""
    etag = headers.get("etag", "")
    mark = etag if etag.startswith('"') else headers.get("last-modified")
    _origin(part).write_text(json.dumps({"url": url, "mark": mark}))


def _origin(part: Path) -> Path:
    return part.with_name(f"{part.name}.from")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
