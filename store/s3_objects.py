"""Objects on S3: read and checked, listed by pages, uploaded in parts."""

import base64
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from store.errors import LookalikeError, RefusedError, UnavailableError
from store.fingerprints import sha256_hex
from store.s3_requests import Answer, ConditionFailedError, ask

__all__ = [
    "PART_BYTES",
    "ListedObject",
    "copy_object",
    "delete_objects",
    "fetch_file",
    "fetch_object",
    "list_objects",
    "look_up_object",
    "put_object",
    "put_parts",
    "split_uri",
]

PART_BYTES = 8 * 2**20
"""What an upload sends, and a download asks for, at a time."""

_READS = 3
_AT_ONCE = 4
_MOST_PARTS = 10_000
_MD5 = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")
_LARGEST_PUT = 5 * 2**30


@dataclass(frozen=True)
class ListedObject:
    """An object as it is listed, or a common prefix: size 0, no etag, and a name that ends in a slash."""

    key: str
    size: int
    etag: str | None
    modified: datetime | None


def split_uri(uri: str) -> tuple[str, str]:
    """The bucket and the key in an s3:// url.

    Raises:
        RefusedError: a name or a password stands in it; the message does not repeat it.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if "@" in bucket:
        raise RefusedError(
            "an s3:// address has a name or password in it: give them by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    return bucket, key


def fetch_object(uri: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
    """An object's bytes, at most `max_bytes` + 1 of them, and its ETag.

    The length is checked, and the md5 where the ETag is one. Bytes that it does not vouch for are read again; when they
    come the same a second time, this ETag is no md5, as with some encryption, and they are what is stored.

    Raises:
        FileNotFoundError: there is none.
        UnavailableError: they came in another way each time, or not at all.
        RefusedError: as `ask` does.
    """
    bucket, key = split_uri(uri)
    seen: set[tuple[str, str]] = set()
    for _ in range(_READS):
        answer = ask("get_object", uri, max_bytes=max_bytes, Bucket=bucket, Key=key)
        etag = str(answer.fields["ETag"])
        if len(answer.body) < int(answer.fields["ContentLength"]) or _vouches(etag, [answer.body]):
            return answer.body, etag
        one = (etag, sha256_hex(answer.body))
        if one in seen:
            return answer.body, etag
        seen.add(one)
    raise UnavailableError(f"{uri}: S3 sent other bytes in each of {_READS} reads; try again later")


def fetch_file(uri: str, target: Path) -> None:
    """An object into a file of this machine in one step, by ranges, with the memory of a few.

    Each range is asked for of the same ETag. The whole is checked as `fetch_object` does.

    Raises:
        As `fetch_object` does.
    """
    seen: set[tuple[str, str]] = set()
    for _ in range(_READS):
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with part.open("x+b") as file:
                etag = _fetch_ranges(uri, file)
                one = (etag or "", _digest_of(file))
                if etag is not None and (one in seen or _vouches(etag, _blocks(file))):
                    os.fsync(file.fileno())
                    os.replace(part, target)
                    return
                seen.add(one)
        finally:
            part.unlink(missing_ok=True)
    raise UnavailableError(f"{uri}: S3 sent other bytes in each of {_READS} reads; try again later")


def look_up_object(uri: str) -> ListedObject | None:
    """An object's size, ETag and time; None where there is none."""
    bucket, key = split_uri(uri)
    try:
        fields = ask("head_object", uri, Bucket=bucket, Key=key).fields
    except FileNotFoundError:
        return None
    return ListedObject(key, int(fields["ContentLength"]), fields["ETag"], fields.get("LastModified"))


def list_objects(uri: str, prefix: str, *, delimiter: str = "", at_most: int | None = None) -> Iterator[ListedObject]:
    """The objects of the uri's bucket whose keys begin so, by rising key, page by page.

    Args:
        uri: names the bucket, and stands in messages.
        prefix: of the keys.
        delimiter: keys with it behind the prefix are rolled up into one common prefix each.
        at_most: so many rows are enough.
    """
    bucket, _ = split_uri(uri)
    rows = _pages(uri, {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": at_most or 1000})
    return islice(rows, at_most)


def put_object(uri: str, data: bytes, **condition: Any) -> None:
    """Store an object by one PUT; S3 checks its md5.

    Args:
        uri: of the object.
        data: at most 5 GiB, S3's limit.
        condition: IfNoneMatch="*" or IfMatch=etag.

    Raises:
        ConditionFailedError: the condition does not hold.
        UnavailableError, RefusedError: as `ask` does; an object may have been stored after the first.
    """
    if len(data) > _LARGEST_PUT:
        raise LookalikeError(f"{uri} would have {len(data)} bytes, S3 takes {_LARGEST_PUT} at once: use smaller shards")
    bucket, key = split_uri(uri)
    ask("put_object", uri, Bucket=bucket, Key=key, Body=data, ContentMD5=_base64_md5(data), **condition)


def copy_object(source: str, target: str) -> None:
    """Store a second object with the bytes of the first; S3 copies, unless it is too large for that.

    Raises:
        FileNotFoundError: there is no first.
        UnavailableError, RefusedError: as `ask` does.
    """
    there = look_up_object(source)
    if there is None:
        raise FileNotFoundError(source)
    if there.size > _LARGEST_PUT:
        with tempfile.TemporaryDirectory() as folder:
            held = Path(folder) / "object"
            fetch_file(source, held)
            with held.open("rb") as file:
                put_parts(target, file, there.size)
        return
    (bucket, key), (from_bucket, from_key) = split_uri(target), split_uri(source)
    ask("copy_object", target, Bucket=bucket, Key=key, CopySource={"Bucket": from_bucket, "Key": from_key})


def put_parts(uri: str, file: IO[bytes], size: int) -> None:
    """Store an object in parts, with the memory of a few; what was sent of one that fails is taken back.

    Args:
        uri: of the object.
        file: read to its end.
        size: its bytes, which set the size of a part: there may be 10,000.
    """
    bucket, key = split_uri(uri)
    part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
    upload = str(ask("create_multipart_upload", uri, Bucket=bucket, Key=key).fields["UploadId"])
    place: dict[str, Any] = {"Bucket": bucket, "Key": key, "UploadId": upload}
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            parts: list[tuple[int, str, bytes]] = []
            numbered = enumerate(iter(lambda: file.read(part_bytes), b""), start=1)
            while some := list(islice(numbered, _AT_ONCE)):
                parts += pool.map(lambda one: _put_part(uri, place, *one), some)
        _complete(uri, place, parts)
    except BaseException:
        with suppress(LookalikeError, FileNotFoundError):
            ask("abort_multipart_upload", uri, **place)
        raise


def delete_objects(uri: str, keys: Iterable[str]) -> None:
    """Delete objects of the uri's bucket, some at once; what is gone already is passed over."""
    bucket, _ = split_uri(uri)
    with ThreadPoolExecutor(_AT_ONCE * 2) as pool:
        for _ in pool.map(lambda key: ask("delete_object", f"s3://{bucket}/{key}", Bucket=bucket, Key=key), keys):
            pass


def _pages(uri: str, parameters: dict[str, Any]) -> Iterator[ListedObject]:
    token: dict[str, Any] = {}
    while True:
        fields = ask("list_objects_v2", uri, **parameters, **token).fields
        rows = [ListedObject(one["Prefix"], 0, None, None) for one in fields.get("CommonPrefixes", [])]
        rows += [
            ListedObject(one["Key"], int(one["Size"]), one.get("ETag"), one.get("LastModified"))
            for one in fields.get("Contents", [])
        ]
        yield from sorted(rows, key=lambda row: row.key)
        if not fields["IsTruncated"]:
            return
        following = str(fields.get("NextContinuationToken", ""))
        if not following or following == token.get("ContinuationToken"):
            raise UnavailableError(f"{uri}: S3 says that the listing goes on, and not where; try again later")
        token = {"ContinuationToken": following}


def _fetch_ranges(uri: str, file: IO[bytes]) -> str | None:
    """Fill the file with the object's bytes and return its ETag; None where it was replaced meanwhile."""
    bucket, key = split_uri(uri)
    found = ask("head_object", uri, Bucket=bucket, Key=key).fields
    size, etag = int(found["ContentLength"]), str(found["ETag"])
    file.truncate(size)

    def fetch(start: int) -> None:
        stop = min(start + PART_BYTES, size)
        wanted: dict[str, Any] = {"Range": f"bytes={start}-{stop - 1}", "IfMatch": etag}
        answer: Answer = ask("get_object", uri, Bucket=bucket, Key=key, **wanted)
        if len(answer.body) != stop - start or answer.fields["ETag"] != etag:
            raise ConditionFailedError(uri)
        os.pwrite(file.fileno(), answer.body, start)

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(fetch, range(0, size, PART_BYTES)):
                pass
    except ConditionFailedError:
        return None
    return etag


def _put_part(uri: str, place: dict[str, Any], number: int, data: bytes) -> tuple[int, str, bytes]:
    answer = ask("upload_part", uri, **place, PartNumber=number, Body=data, ContentMD5=_base64_md5(data))
    return number, str(answer.fields["ETag"]), _md5(data)


def _complete(uri: str, place: dict[str, Any], parts: list[tuple[int, str, bytes]]) -> None:
    """Join the parts; where the answer to that was lost, what stands there says that it was done."""
    named = [{"PartNumber": number, "ETag": etag} for number, etag, _ in parts]
    try:
        ask("complete_multipart_upload", uri, **place, MultipartUpload={"Parts": named})
    except (FileNotFoundError, UnavailableError) as error:
        there = look_up_object(uri)
        ours = f"{_md5(b''.join(digest for *_, digest in parts)).hex()}-{len(parts)}"
        if there is None or (there.etag or "").strip('"') != ours:
            raise UnavailableError(f"{uri}: its parts were sent and not joined; try again later") from error


def _vouches(etag: str, blocks: Iterable[bytes]) -> bool:
    """Whether the ETag is the md5 of the bytes, or that of the md5s of their parts where these are of our size.

    Args:
        etag: with or without its quotes.
        blocks: the bytes, each block of PART_BYTES but for the last, or a single one.
    """
    match = _MD5.fullmatch(etag.strip('"'))
    if match is None:
        return False
    if match[2] is None:
        whole = hashlib.md5(usedforsecurity=False)
        for block in blocks:
            whole.update(block)
        return whole.hexdigest() == match[1]
    parts = [_md5(block[at : at + PART_BYTES]) for block in blocks for at in range(0, len(block), PART_BYTES)]
    return f"{_md5(b''.join(parts)).hex()}-{len(parts)}" == match[0]


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return iter(lambda: file.read(PART_BYTES), b"")


def _digest_of(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _base64_md5(data: bytes) -> str:
    return base64.b64encode(_md5(data)).decode()
