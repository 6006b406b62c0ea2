"""A small S3 endpoint of the project's own on loopback, for tests and measurements: what s3fs and botocore ask for, no more.

It keeps everything in memory, believes every signature, and decides conditional writes under one lock (`s3_objects.py`).
`python -m benchmarks.faults.s3_endpoint` runs one in a process of its own and prints its url.
"""

import argparse
import base64
import hashlib
import re
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from benchmarks.faults.loopback import LoopbackServer, Serving
from benchmarks.faults.s3_objects import Objects, RefusedError, StoredObject

__all__ = ["Answered", "S3Endpoint", "error_document", "main", "read_body"]

_CHECKSUM = re.compile(r"x-amz-checksum-(crc32|crc32c|crc64nvme|sha1|sha256)$")
_PAGE_KEYS = 1000


@dataclass(frozen=True)
class Answered:
    """A request that was answered: what was asked, and with which status."""

    method: str
    target: str
    status: int


class S3Endpoint(LoopbackServer):
    """An endpoint on a free port of loopback, while the context lasts.

    Args:
        bucket: made at the start.
        port: of loopback; 0 takes a free one.
        ignores_conditions: If-Match and If-None-Match change nothing, as on endpoints that do not know them.
        page_keys: rows a page of a listing holds at most.
        delay_s: every answer waits for so long, as over a network.
        access_key: the only access key that is let in; None lets in everybody. Signatures are believed.

    Attributes:
        url: to be given to clients.
        objects: what it holds.
        answered: all requests so far, in the order of their answers.
    """

    def __init__(
        self,
        bucket: str = "faces",
        *,
        port: int = 0,
        ignores_conditions: bool = False,
        page_keys: int = _PAGE_KEYS,
        delay_s: float = 0.0,
        access_key: str | None = None,
    ) -> None:
        self.objects = Objects(ignores_conditions=ignores_conditions)
        self.objects.create_bucket(bucket)
        self.answered: list[Answered] = []
        self.page_keys, self.delay_s, self.access_key = page_keys, delay_s, access_key
        super().__init__(_Handler, port=port)


@dataclass
class _Asked:
    """A request, taken apart."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class _Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Serving

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: requests stand in `answered`."""

    def _answer(self) -> None:
        endpoint: S3Endpoint = self.server.owner
        try:
            body = read_body(self)
            if endpoint.delay_s:
                time.sleep(endpoint.delay_s)
            asked = _taken_apart(self, body)
            _let_in(asked, endpoint.access_key)
            answer = _ask(endpoint, asked)
        except RefusedError as refused:
            answer = _Answer(refused.status, error_document(refused.code, refused.message), {})
        endpoint.answered.append(Answered(self.command, self.path, answer.status))
        self._send(answer)

    def _send(self, answer: _Answer) -> None:
        lines = {"Content-Length": str(len(answer.body)), "Server": "s3-endpoint", "Date": formatdate(usegmt=True)}
        if answer.body.startswith(b"<?xml"):
            lines["Content-Type"] = "application/xml"
        lines |= answer.headers
        head = f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        self.wfile.write(head.encode("latin-1") + (b"" if self.command == "HEAD" else answer.body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    """A request's body as it came over HTTP, whichever way its length is told.

    Raises:
        ConnectionError: the client went away before all of it had come.
    """
    if handler.headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            parts.append(handler.rfile.read(size))
            handler.rfile.readline()
        while handler.rfile.readline().strip():
            pass
        return b"".join(parts)
    length = int(handler.headers.get("content-length") or 0)
    body = handler.rfile.read(length) if length else b""
    if len(body) != length:
        raise ConnectionError(f"{len(body)} of {length} bytes came")
    return body


def error_document(code: str, message: str) -> bytes:
    """What S3 sends with an error."""
    return _document(f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>")


def _taken_apart(handler: BaseHTTPRequestHandler, body: bytes) -> _Asked:
    headers = {name.lower(): value for name, value in handler.headers.items()}
    parts = urlsplit(handler.path)
    bucket, _, key = unquote(parts.path.lstrip("/")).partition("/")
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
        body, trailers = _unchunked(body)
        headers |= trailers
        if len(body) != int(headers.get("x-amz-decoded-content-length", len(body))):
            raise RefusedError(400, "IncompleteBody", "The body is not as long as was said.")
    _check_body(body, headers)
    return _Asked(handler.command, bucket, key, query, headers, body)


def _unchunked(body: bytes) -> tuple[bytes, dict[str, str]]:
    """The bytes in an "aws-chunked" body, and the headers behind them."""
    parts, at = [], 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end].split(b";")[0], 16)
        at = line_end + 2
        if not size:
            break
        parts.append(body[at : at + size])
        at += size + 2
    lines = (line.partition(":") for line in body[at:].decode().split("\r\n") if ":" in line)
    return b"".join(parts), {name.lower().strip(): value.strip() for name, _, value in lines}


def _check_body(body: bytes, headers: dict[str, str]) -> None:
    """Refuse bytes that are not those of which the client told a checksum that the standard library has."""
    found = {
        "content-md5": hashlib.md5(body, usedforsecurity=False).digest(),
        "x-amz-checksum-crc32": zlib.crc32(body).to_bytes(4, "big"),
        "x-amz-checksum-sha1": hashlib.sha1(body, usedforsecurity=False).digest(),
        "x-amz-checksum-sha256": hashlib.sha256(body).digest(),
    }
    for name, digest in found.items():
        if name in headers and base64.b64decode(headers[name]) != digest:
            raise RefusedError(400, "BadDigest", f"The {name} you specified did not match what we received.")


def _let_in(asked: _Asked, access_key: str | None) -> None:
    if access_key is not None and f"Credential={access_key}/" not in asked.headers.get("authorization", ""):
        raise RefusedError(403, "InvalidAccessKeyId", "The access key you provided does not exist in our records.")


def _ask(endpoint: S3Endpoint, asked: _Asked) -> _Answer:
    if not asked.bucket:
        names = "".join(f"<Bucket><Name>{escape(name)}</Name></Bucket>" for name in endpoint.objects.buckets())
        return _Answer(body=_document(f"<ListAllMyBucketsResult><Buckets>{names}</Buckets></ListAllMyBucketsResult>"))
    answer = (_object if asked.key else _bucket)(endpoint, asked)
    if answer is None:
        raise RefusedError(501, "NotImplemented", f"{asked.method} of {asked.key or asked.bucket} is not known here.")
    return answer


def _bucket(endpoint: S3Endpoint, asked: _Asked) -> _Answer | None:  # noqa: PLR0911  one line a request
    objects, query = endpoint.objects, asked.query
    match asked.method:
        case "PUT" if "versioning" in query:
            objects.bucket(asked.bucket).versioned = b"Enabled" in asked.body
            return _Answer()
        case "PUT":
            objects.create_bucket(asked.bucket)
            return _Answer()
        case "HEAD":
            objects.bucket(asked.bucket)
            return _Answer()
        case "POST" if "delete" in query:
            return _delete_many(objects, asked)
        case "GET" if "versioning" in query:
            status = "<Status>Enabled</Status>" if objects.bucket(asked.bucket).versioned else ""
            return _Answer(body=_document(f"<VersioningConfiguration>{status}</VersioningConfiguration>"))
        case "GET" if "location" in query:
            objects.bucket(asked.bucket)
            return _Answer(body=_document("<LocationConstraint/>"))
        case "GET" if "versions" in query:
            return _list_versions(objects, asked)
        case "GET" if "uploads" in query:
            return _list_uploads(objects, asked)
        case "GET":
            return _list(endpoint, asked)
    return None


def _object(endpoint: S3Endpoint, asked: _Asked) -> _Answer | None:  # noqa: PLR0911  one line a request
    objects, query, bucket, key = endpoint.objects, asked.query, asked.bucket, asked.key
    match asked.method:
        case "PUT" if "partNumber" in query:
            part = objects.put_part(bucket, query["uploadId"], int(query["partNumber"]), asked.body)
            return _Answer(headers={"ETag": f'"{part.etag}"'})
        case "PUT" if "x-amz-copy-source" in asked.headers:
            from_bucket, _, from_key = unquote(asked.headers["x-amz-copy-source"]).lstrip("/").partition("/")
            stored = objects.put(
                bucket, key, objects.get(from_bucket, from_key).data, checksum=None, **_conditions(asked)
            )
            return _Answer(body=_document(f"<CopyObjectResult>{_details(stored)}</CopyObjectResult>"))
        case "PUT":
            checksum = next(((n, v) for n, v in asked.headers.items() if _CHECKSUM.match(n)), None)
            stored = objects.put(bucket, key, asked.body, checksum=checksum, **_conditions(asked))
            return _Answer(headers=_marks(stored))
        case "GET" if "uploadId" in query:
            return _list_parts(objects, asked)
        case "GET" | "HEAD":
            return _read(objects.get(bucket, key, query.get("versionId")), asked)
        case "POST" if "uploads" in query:
            made = f"<Key>{escape(key)}</Key><UploadId>{objects.start_upload(bucket, key)}</UploadId>"
            name = "InitiateMultipartUploadResult"
            return _Answer(body=_document(f"<{name}><Bucket>{bucket}</Bucket>{made}</{name}>"))
        case "POST" if "uploadId" in query:
            stored = objects.complete(bucket, query["uploadId"], _parts(asked.body), **_conditions(asked))
            name = "CompleteMultipartUploadResult"
            rows = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><ETag>&quot;{stored.etag}&quot;</ETag>"
            return _Answer(body=_document(f"<{name}>{rows}</{name}>"), headers=_marks(stored))
        case "DELETE" if "uploadId" in query:
            objects.abort(bucket, query["uploadId"])
            return _Answer(204)
        case "DELETE":
            objects.delete(bucket, key, query.get("versionId"))
            return _Answer(204)
    return None


def _conditions(asked: _Asked) -> dict[str, str | None]:
    return {"if_none_match": asked.headers.get("if-none-match"), "if_match": asked.headers.get("if-match")}


def _marks(stored: StoredObject) -> dict[str, str]:
    marks = {"ETag": f'"{stored.etag}"'}
    return marks if stored.version == "null" else marks | {"x-amz-version-id": stored.version}


def _read(stored: StoredObject, asked: _Asked) -> _Answer:
    headers = _marks(stored) | {"Last-Modified": formatdate(stored.modified, usegmt=True), "Accept-Ranges": "bytes"}
    headers["Content-Type"] = "binary/octet-stream"
    if (wanted := asked.headers.get("if-match")) is not None and wanted.strip('"') != stored.etag:
        raise RefusedError(412, "PreconditionFailed", "At least one of the preconditions you specified did not hold.")
    asked_range = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.headers.get("range", ""))
    if asked_range is None:
        if stored.checksum is not None and asked.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers |= dict([stored.checksum])
        if asked.method == "HEAD":
            headers["Content-Length"] = str(len(stored.data))
        return _Answer(200, stored.data, headers)
    first, last = asked_range.groups()
    start = int(first) if first else max(0, len(stored.data) - int(last or 0))
    stop = min(len(stored.data), int(last) + 1) if first and last else len(stored.data)
    if start >= stop:
        raise RefusedError(416, "InvalidRange", "The requested range is not satisfiable")
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(stored.data)}"
    headers["Content-Length"] = str(stop - start)
    return _Answer(206, stored.data[start:stop], headers)


def _list(endpoint: S3Endpoint, asked: _Asked) -> _Answer:
    query, url_encoded = asked.query, asked.query.get("encoding-type") == "url"
    limit = min(int(query.get("max-keys", _PAGE_KEYS)), endpoint.page_keys)
    after = unquote(query.get("continuation-token", "")) or query.get("start-after", "")
    page = endpoint.objects.page(
        asked.bucket, prefix=query.get("prefix", ""), delimiter=query.get("delimiter", ""), after=after, limit=limit
    )
    shown = [
        f"<CommonPrefixes><Prefix>{_name(row.name, url_encoded)}</Prefix></CommonPrefixes>"
        if row.stored is None
        else f"<Contents><Key>{_name(row.name, url_encoded)}</Key>{_details(row.stored)}</Contents>"
        for row in page.rows
    ]
    rows = [
        f"<Name>{asked.bucket}</Name><Prefix>{_name(query.get('prefix', ''), url_encoded)}</Prefix>",
        f"<KeyCount>{len(shown)}</KeyCount><MaxKeys>{limit}</MaxKeys>",
        "<EncodingType>url</EncodingType>" if url_encoded else "",
        f"<IsTruncated>{'false' if page.next_after is None else 'true'}</IsTruncated>",
        "" if page.next_after is None else f"<NextContinuationToken>{quote(page.next_after)}</NextContinuationToken>",
    ]
    return _Answer(body=_document(f"<ListBucketResult>{''.join(rows + shown)}</ListBucketResult>"))


def _list_versions(objects: Objects, asked: _Asked) -> _Answer:
    url_encoded = asked.query.get("encoding-type") == "url"
    rows = []
    for row in objects.versions(asked.bucket, prefix=asked.query.get("prefix", "")):
        assert row.stored is not None
        name = "DeleteMarker" if row.stored.deleted else "Version"
        rows.append(
            f"<{name}><Key>{_name(row.name, url_encoded)}</Key><VersionId>{row.stored.version}</VersionId>"
            f"<IsLatest>{'true' if row.latest else 'false'}</IsLatest>{_details(row.stored)}</{name}>"
        )
    encoding = "<EncodingType>url</EncodingType>" if url_encoded else ""
    whole = f"{encoding}<IsTruncated>false</IsTruncated>{''.join(rows)}"
    return _Answer(body=_document(f"<ListVersionsResult>{whole}</ListVersionsResult>"))


def _list_uploads(objects: Objects, asked: _Asked) -> _Answer:
    rows = "".join(
        f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{name}</UploadId><Initiated>{_when(upload.started)}</Initiated></Upload>"
        for name, upload in objects.uploads(asked.bucket, prefix=asked.query.get("prefix", ""))
    )
    whole = f"<IsTruncated>false</IsTruncated>{rows}"
    return _Answer(body=_document(f"<ListMultipartUploadsResult>{whole}</ListMultipartUploadsResult>"))


def _list_parts(objects: Objects, asked: _Asked) -> _Answer:
    parts = sorted(objects.upload(asked.bucket, asked.query["uploadId"]).parts.items())
    rows = "".join(f"<Part><PartNumber>{number}</PartNumber>{_details(part)}</Part>" for number, part in parts)
    return _Answer(body=_document(f"<ListPartsResult><IsTruncated>false</IsTruncated>{rows}</ListPartsResult>"))


def _delete_many(objects: Objects, asked: _Asked) -> _Answer:
    gone = []
    for entry in _elements(asked.body, "Object"):
        fields = {child.tag.rpartition("}")[2]: child.text or "" for child in entry}
        objects.delete(asked.bucket, fields["Key"], fields.get("VersionId"))
        gone.append(f"<Deleted><Key>{escape(fields['Key'])}</Key></Deleted>")
    quiet = any(entry.text == "true" for entry in _elements(asked.body, "Quiet"))
    return _Answer(body=_document(f"<DeleteResult>{'' if quiet else ''.join(gone)}</DeleteResult>"))


def _parts(body: bytes) -> list[tuple[int, str]]:
    parts = []
    for entry in _elements(body, "Part"):
        fields = {child.tag.rpartition("}")[2]: child.text or "" for child in entry}
        parts.append((int(fields["PartNumber"]), fields["ETag"].strip('"')))
    return parts


def _elements(body: bytes, name: str) -> Iterable[ElementTree.Element]:
    return (element for element in ElementTree.fromstring(body).iter() if element.tag.rpartition("}")[2] == name)


def _details(stored: StoredObject) -> str:
    size = f"<Size>{len(stored.data)}</Size><StorageClass>STANDARD</StorageClass>"
    return f"<LastModified>{_when(stored.modified)}</LastModified><ETag>&quot;{stored.etag}&quot;</ETag>{size}"


def _name(key: str, url_encoded: bool) -> str:
    return quote(key) if url_encoded else escape(key)


def _when(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _document(content: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{content}'.encode()


def main() -> None:
    """Run an endpoint until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", default="faces")
    parser.add_argument("--delay-s", type=float, default=0.0)
    asked = parser.parse_args()
    with S3Endpoint(asked.bucket, port=asked.port, delay_s=asked.delay_s) as endpoint:
        print(endpoint.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
