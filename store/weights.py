"""Published weights on this machine: downloaded once, checked, and only then parsed by anybody.

A file stands in the weights folder whole or not at all; on its way it is `<name>.part`, which a later try goes on with.
`<name>.sha256` is the hash found at first use of a file whose publisher names none.
"""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from store.download import DownloadError, Wanted, download, forget_part
from store.errors import EncoderUnknownError
from store.fingerprints import sha256_hex
from store.verified_files import cache_folder

__all__ = ["MIRROR", "WeightsFile", "fetch_weights", "weights_folder"]

T = TypeVar("T")
Tell = Callable[[int, int], None]

MIRROR = "LOOKALIKE_WEIGHTS_URL"
"""Names an address or a folder that holds published files under their own names; nothing else is then asked."""


@dataclass(frozen=True)
class WeightsFile:
    """A file that somebody publishes.

    Attributes:
        name: of the file.
        url: where it is published.
        max_bytes: it is no larger.
        bytes: its exact size, where it is known.
        sha256: its hash, or the first hex digits where the publisher names no more; "" where none is known.
    """

    name: str
    url: str
    max_bytes: int
    bytes: int | None = None
    sha256: str = ""


def weights_folder() -> Path:
    """Where published weights are kept: `weights` under LOOKALIKE_CACHE, by default the user's cache folder."""
    return cache_folder() / "weights"


def fetch_weights(file: WeightsFile, *, accept: Callable[[bytes], T], tell: Tell | None = None) -> T:
    """What `accept` makes of a published file, which is downloaded first where this machine does not have it.

    Processes that want the same file wait for the one that downloads it.

    Args:
        file: what is wanted.
        accept: is given the bytes, once their size and hash are right; a file that it refuses is not kept.
        tell: is told of bytes that are here and bytes in all, 0 while that is unknown.

    Raises:
        EncoderUnknownError: the file cannot be had, is not the published one, or is refused by `accept` with a ValueError;
            the message says where it looked, what it got and what to do.
    """
    path = weights_folder() / file.name
    try:
        if path.is_file():
            return _accept_kept(file, path, accept)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if path.is_file():
                return _accept_kept(file, path, accept)
            return _download(file, path, accept, tell or _tell_nobody)
    except OSError as error:
        raise EncoderUnknownError(
            f"{error.filename or path} cannot be read or written ({error.strerror or error}): make room, or set "
            "LOOKALIKE_CACHE to a folder you may write to"
        ) from error


# A file that is here


def _accept_kept(file: WeightsFile, path: Path, accept: Callable[[bytes], T]) -> T:
    data = _read(path, file)
    wanted = _wanted_hash(file, path)
    if (problem := _problem(file, data, wanted)) is not None:
        raise EncoderUnknownError(f"{path} is not the published file: {problem}; remove it, and it is fetched anew")
    try:
        accepted = accept(data)
    except ValueError as error:
        raise EncoderUnknownError(f"{path}: {error}; remove it, and it is fetched anew") from error
    _record(path, sha256_hex(data), known=len(wanted) == 64)
    return accepted


def _read(path: Path, file: WeightsFile) -> bytes:
    with path.open("rb") as opened:
        return opened.read(file.max_bytes + 1)


def _wanted_hash(file: WeightsFile, path: Path) -> str:
    """The whole hash, published or recorded at first use; else as many of its digits as are known."""
    record = _beside(path, ".sha256")
    if len(file.sha256) == 64 or not record.is_file():
        return file.sha256
    recorded = record.read_text(errors="replace")[:64]
    if len(recorded) != 64 or set(recorded) - set("0123456789abcdef") or not recorded.startswith(file.sha256):
        raise EncoderUnknownError(
            f"{record} holds no sha256 of {path.name}: remove it if you trust {path.name}, whose hash it should hold"
        )
    return recorded


def _problem(file: WeightsFile, data: bytes, wanted: str) -> str | None:
    """What is wrong with the bytes, None if they are the published ones as far as is known."""
    if len(data) > file.max_bytes:
        return f"it has more than {file.max_bytes:,} bytes, the limit"
    sha256 = sha256_hex(data)
    is_page = data[:512].lstrip().startswith(b"<")
    is_size = file.bytes is None or len(data) == file.bytes
    if is_size and not is_page and sha256.startswith(wanted):
        return None
    page = " of a web page" if is_page else ""
    size = "" if is_size else f" where {file.bytes:,} are wanted"
    return f"it has {len(data):,} bytes{page}{size}, and its sha256 is {sha256[:12]}…, wanted {wanted[:12] or 'any'}…"


def _record(path: Path, sha256: str, *, known: bool) -> None:
    """Keep the hash of a file whose publisher does not name it in full."""
    record = _beside(path, ".sha256")
    if known or record.exists():
        return
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        staged.write_text(f"{sha256}  {path.name}\n")
        with contextlib.suppress(FileExistsError):
            os.link(staged, record)
    finally:
        staged.unlink(missing_ok=True)


# A file that is not


def _download(file: WeightsFile, path: Path, accept: Callable[[bytes], T], tell: Tell) -> T:
    part, hint = _beside(path, ".part"), _hint(file, path)
    wanted = _wanted_hash(file, path)
    source, is_url = _source(file)
    data, problem = b"", None
    for _ in range(2):
        resumed = part.exists()
        _bring(source, file, part, is_url=is_url, tell=tell, hint=hint)
        data = _read(part, file)
        problem = _problem(file, data, wanted)
        if problem is None or not resumed:
            break
        forget_part(part)  # what an earlier try left behind may be what is wrong
    if problem is not None:
        forget_part(part)
        raise EncoderUnknownError(
            f"{_shown(source)} gave another file than {file.name}: {problem}; nothing of it was kept: {hint}"
        )
    try:
        accepted = accept(data)
    except ValueError as error:
        forget_part(part)
        raise EncoderUnknownError(
            f"{_shown(source)} cannot be used: {error}; nothing of it was kept: {hint}"
        ) from error
    os.replace(part, path)
    forget_part(part)
    _record(path, sha256_hex(data), known=len(wanted) == 64)
    return accepted


def _source(file: WeightsFile) -> tuple[str, bool]:
    """Where the file is to come from, and whether that is an address on the web."""
    mirror = os.environ.get(MIRROR, "").strip()
    if not mirror:
        return file.url, True
    if mirror.startswith(("http://", "https://")):
        return f"{mirror.rstrip('/')}/{quote(file.name)}", True
    if mirror.startswith("file://"):
        return str(Path(unquote(urlsplit(mirror).path)) / file.name), False
    if "://" in mirror:
        raise EncoderUnknownError(
            f"{MIRROR} is {_shown(mirror)}: wanted http://, https://, file:// or a folder that holds {file.name}"
        )
    return str(Path(mirror).expanduser() / file.name), False


def _bring(source: str, file: WeightsFile, part: Path, *, is_url: bool, tell: Tell, hint: str) -> None:
    if not is_url:
        return _copy(Path(source), file, part, hint=hint)
    limits = Wanted(max_bytes=file.max_bytes, bytes=file.bytes, will_be_checked=len(file.sha256) == 64)
    try:
        return download(source, part, limits, tell=tell)
    except DownloadError as error:
        raise EncoderUnknownError(f"{file.name} is not here, and {_shown(source)} {error}: {hint}") from error


def _copy(source: Path, file: WeightsFile, part: Path, *, hint: str) -> None:
    if not source.is_file():
        raise EncoderUnknownError(f"{source} does not exist, where {MIRROR} says it is: {hint}")
    data = _read(source, file)
    with part.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _hint(file: WeightsFile, path: Path) -> str:
    return (
        f"put {file.name}, from {file.url}, into {path.parent}, or set {MIRROR} to an address or folder that holds it"
    )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _shown(url: str) -> str:
    """An address without the name and password that may stand in it."""
    scheme, found, rest = url.partition("://")
    host, slash, tail = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{tail}" if found else url


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel gives back when this process dies."""
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tell_nobody(_done: int, _total: int) -> None:
    pass
