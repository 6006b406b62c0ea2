import json
from pathlib import Path

import pytest

from store.notifications import MAX_BYTES, NotificationError, notified_uris, touches

SENT = Path(__file__).resolve().parents[1] / "data" / "notifications"


@pytest.mark.parametrize(
    ("service", "uri"),  # those of Ceph were recorded from a gateway of version 16.2.15, which leaves keys as they are
    [
        ("aws", "s3://archive/2026/red flower ä.jpg"),  # keys come quoted as in a form
        ("minio", "s3://archive/2026/gopher.jpg"),
        ("eventbridge", "s3://archive/2026/red flower+ä.jpg"),  # and here as they are
        ("ceph-put", "s3://archive/2026/red flower+ä &%41.jpg"),
        ("ceph-copy", "s3://archive/2026/copy.jpg"),
        ("ceph-multipart", "s3://archive/2026/large.jpg"),
        ("ceph-delete", "s3://archive/2026/red flower+ä &%41.jpg"),
    ],
)
def test_each_service_s_notification_names_its_object(service: str, uri: str) -> None:
    assert notified_uris((SENT / f"{service}.json").read_bytes()) == [uri]


def test_other_events_and_the_test_message_name_nothing() -> None:
    document = json.loads((SENT / "aws.json").read_text())
    document["Records"][0]["eventName"] = "ObjectRestore:Post"
    assert notified_uris(json.dumps(document).encode()) == []
    assert notified_uris(b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "archive"}') == []
    bridge = json.loads((SENT / "eventbridge.json").read_text()) | {"detail-type": "Object Tags Added"}
    assert notified_uris(json.dumps(bridge).encode()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"3", b"{}", b'"Records"', b"\xff", b'{"Records": 3}', b'{"Records": [{}]}', b'{"Records": ["detail"]}',
        b'{"Records": [{"eventName": 3}]}', b'{"detail": {}}', b"[" * 100_000,
        b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": 3}, "object": {"key": "a"}}}]}',
        b'{"detail-type": "Object Created", "detail": {"bucket": {"name": "a"}, "object": {"key": null}}}',
    ],
)  # fmt: skip
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(NotificationError, match="this is no bucket notification"):
        notified_uris(body)


def test_what_is_too_large_is_refused_unread() -> None:
    with pytest.raises(NotificationError, match="wanted at most 1048576"):
        notified_uris(b" " * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("source", "is_touched"),
    [
        ("s3://archive", True),
        ("s3://archive/2026", True),
        ("s3://archive/2025", False),
        ("s3://other", False),
        ("s3://archive/20*/x.jpg", True),
        ("s3://archive/19*/x.jpg", False),
        ("/lists/photos.csv", True),
    ],
)
def test_a_source_is_looked_at_when_an_object_of_it_may_have_changed(source: str, is_touched: bool) -> None:
    assert touches("s3://archive/2026/x.jpg", source) is is_touched
