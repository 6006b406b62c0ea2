"""Bucket notifications, as services send them: which objects came, changed or went.

Known are the S3 event of AWS, MinIO, Ceph and others that speak S3 ({"Records": [...]}), and EventBridge's form of it ({"detail":
{...}}). Whoever gets one looks at the bucket itself: a notification says where to look, never what is there.
Keys come quoted as in a form, save from Ceph (16) and EventBridge, which send them as they are.
"""

import json
from typing import Any
from urllib.parse import unquote_plus

from store.errors import LookalikeError

__all__ = ["MAX_BYTES", "NotificationError", "notified_uris", "touches"]

MAX_BYTES = 2**20
"""A notification is never near this size: services send at most 256 KiB."""

_KINDS = ("ObjectCreated", "ObjectRemoved", "Object Created", "Object Deleted")


class NotificationError(LookalikeError):
    """What came is no bucket notification; the message says what was missing."""


def notified_uris(body: bytes) -> list[str]:
    """The s3:// uris of the objects that a notification tells of; none for a service's test message or another kind of event.

    Args:
        body: JSON, as it was posted.

    Raises:
        NotificationError: it is too large, no JSON, or has another form.
    """
    if len(body) > MAX_BYTES:
        raise NotificationError(f"the notification has {len(body)} bytes: wanted at most {MAX_BYTES}")
    try:
        document = json.loads(body)
        if "Records" in document:
            return [uri for record in document["Records"] or [] for uri in _of_record(record)]
        if "detail" in document:
            return _of_detail(document["detail-type"], document["detail"])
        if document.get("Event") == "s3:TestEvent":  # sent once, when the notification is set up
            return []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotificationError(f"this is no bucket notification ({type(error).__name__}: {error})") from error
    raise NotificationError(
        "this is no bucket notification: wanted JSON with Records, or with detail as EventBridge sends it"
    )


def touches(uri: str, source: str) -> bool:
    """Whether a change of an object may change what a source lists; a list's photos may lie anywhere."""
    if not source.startswith("s3://"):
        return True
    literal = min((source.find(sign) for sign in "*?[" if sign in source), default=len(source))
    return uri.startswith(source[:literal])


def _of_record(record: dict[str, Any]) -> list[str]:
    kind = record["eventName"].removeprefix("s3:")  # MinIO's and Ceph's begin so
    if not kind.startswith(_KINDS):
        return []
    key = record["s3"]["object"]["key"]
    plain = record.get("eventSource") == "ceph:s3"
    return [_uri(record["s3"]["bucket"]["name"], key if plain else unquote_plus(key))]


def _of_detail(kind: str, detail: dict[str, Any]) -> list[str]:
    if not kind.startswith(_KINDS):
        return []
    return [_uri(detail["bucket"]["name"], detail["object"]["key"])]


def _uri(bucket: str, key: str) -> str:
    if not isinstance(bucket, str) or not isinstance(key, str):
        raise TypeError(f"wanted the names of a bucket and an object, got {bucket!r} and {key!r}")
    return f"s3://{bucket}/{key}"
