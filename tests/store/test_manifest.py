import json
from collections.abc import Callable
from typing import Any

import pytest

from store.errors import ManifestError
from store.fingerprints import sha256_hex
from store.manifest import Manifest, parse_manifest, problems_of_manifest

Document = dict[str, Any]


def document() -> Document:
    files = {name: {"bytes": n, "sha256": f"{n}" * 64} for n, name in enumerate(FILES, start=1)}
    return {
        "format": 1,
        "version": 7,
        "parent": 6,
        "build": "b",
        "created_at": "2026-01-02T03:04:05+00:00",
        "sources": ["/p"],
        "contract": {"id": "c" * 32, "settings": {"thresholds": [0.6, 0.7, 0.7]}},
        "encoder": {"id": "e" * 32, "name": "n", "dimension": 4},
        "shards": [{"name": "a" * 32, "photos": 3, "faces": 2} | {f"{n}_sha256": "d" * 64 for n in TABLES}],
        "tombstones": [],
        "index": {"key": "Flat", "metric": "inner_product", "parameters": {}, "why": "w", "change": "rebuilt"}
        | files["index.faiss"],
        "files": files,
        "counts": {"indexed": 2, "failed": 1},
        "photos": 3,
        "faces": 2,
        "metrics": {"recall_at_10": 1.0},
        "gate": None,
        "calibration": None,
        "content_sha256": sha256_hex(b""),
        "labels": "folder",
        "labelled_sources": ["/p"],
        "requires": [],
        "library_versions": {"numpy": "2"},
    }


FILES = ("index.faiss", "faces.parquet", "photos.parquet")
TABLES = ("photos", "faces", "embeddings")


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def problems(**changes: Any) -> list[tuple[str, str]]:
    return [(p.path, p.kind) for p in problems_of_manifest(as_bytes(document() | changes))]


def test_a_manifest_comes_back_as_it_was_written() -> None:
    manifest = parse_manifest(as_bytes(document()), where="x")
    written = json.loads(manifest.to_json())
    assert len(written.pop("self_sha256")) == 64
    first = document()  # of before the index had a budget
    assert written == first | {
        "revision": 0,
        "changes": None,
        "index": first["index"] | {"budget": None, "measured": [], "trained": None},
    }
    assert parse_manifest(manifest.to_json(), where="x") == manifest
    assert manifest.to_json().endswith(b"}\n")


def test_a_written_manifest_that_changed_in_a_letter_is_refused() -> None:
    data = parse_manifest(as_bytes(document()), where="x").to_json()
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if problems_of_manifest(changed) == []:  # it hit a blank between two keys, or the name of the hash
            assert parse_manifest(changed, where="x") == parse_manifest(data, where="x")
    changed = data.replace(b'"created_at": "2', b'"created_at": "1')
    assert [p.kind for p in problems_of_manifest(changed)] == ["hash"]
    assert problems_of_manifest(data.replace(b'"metrics": ', b'"metrics": NaN, "x": '))[0].kind == "hash"


def test_keys_that_a_later_format_1_adds_are_ignored_wherever_they_stand() -> None:
    changed = document()
    changed["colour"] = changed["encoder"]["colour"] = changed["files"]["index.faiss"]["colour"] = "red"
    assert parse_manifest(as_bytes(changed), where="x") == parse_manifest(as_bytes(document()), where="x")


def test_keys_that_format_1_gained_may_be_missing() -> None:
    older = {key: value for key, value in document().items() if key not in {"labels", "labelled_sources"}}
    assert parse_manifest(as_bytes(older), where="x").labelled_sources == []


def test_every_problem_is_reported_at_once() -> None:
    broken = document()
    del broken["parent"]
    broken["version"] = 0
    broken["contract"]["id"] = "short"
    broken["shards"][0]["photos_sha256"] = 5
    broken["index"]["metric"] = "l2"
    broken["counts"] = {"indexed": 1, "lost": 1}
    broken["requires"] = ["telepathy"]
    broken["created_at"] = "yesterday"
    del broken["files"]["faces.parquet"]
    found = problems_of_manifest(as_bytes(broken))
    wanted = ["parent", "version", "contract.id", "shards.0.photos_sha256", "index.metric"]
    wanted += ["requires", "counts", "counts", "files", "created_at"]
    assert sorted(p.path for p in found) == sorted(wanted)
    with pytest.raises(ManifestError, match=r"^x is not a manifest of format 1: ") as refused:
        parse_manifest(as_bytes(broken), where="x")
    assert all(f"{p.path}: {p.sentence}" in str(refused.value) for p in found)
    assert "got 0" in str(refused.value)


@pytest.mark.parametrize("key", [key for key in document() if key not in {"labels", "labelled_sources"}])
def test_every_other_key_is_required(key: str) -> None:
    rest = document()
    del rest[key]
    assert key in [p.path for p in problems_of_manifest(as_bytes(rest))]


@pytest.mark.parametrize("wrong", [2, 0, "1", None, 1.5])
def test_another_format_is_the_only_problem_named(wrong: object) -> None:
    sentence = (
        rf"x is not a manifest of format 1: format: got format {wrong!r}, this reader knows format 1: use a newer"
    )
    with pytest.raises(ManifestError, match=sentence):
        parse_manifest(as_bytes({"format": wrong, "anything": "else"}), where="x")


def test_an_unknown_requirement_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"requires: this reader knows none of \['telepathy'\]; a newer lookalike"):
        parse_manifest(as_bytes(document() | {"requires": ["telepathy"]}), where="x")


@pytest.mark.parametrize(
    ("changes", "path", "kind"),
    [
        ({"photos": 4}, "counts", "sum"),
        ({"counts": {"indexed": 3, "failed": 1}}, "counts", "sum"),
        ({"counts": {"indexed": 2, "mislaid": 1}}, "counts", "status"),
        ({"created_at": "2026-13-01"}, "created_at", "time"),
        ({"files": {}}, "files", "missing"),
        ({"index": document()["index"] | {"sha256": "f" * 64}}, "index", "index"),
        ({"index": document()["index"] | {"bytes": 99}}, "index", "index"),
    ],
)
def test_what_does_not_add_up_is_refused(changes: Document, path: str, kind: str) -> None:
    assert problems(**changes) == [(path, kind)]


def test_numbers_as_text_and_booleans_as_numbers_are_refused() -> None:
    assert ("faces", "int_type") in problems(faces="2")
    assert [path for path, _ in problems(faces=True)] == ["faces"]
    assert ("photos", "greater_than_equal") in problems(photos=-1)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe\x00", b"{", b"null", b"[]", b"7", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000],
)
def test_what_is_no_manifest_at_all_is_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(ManifestError, match="^x is not a manifest of format 1: "):
        parse_manifest(data, where="x")


@pytest.mark.parametrize(
    "change", [lambda d: d | {"counts": 5}, lambda d: d | {"files": [1]}, lambda d: d | {"index": 1}]
)
def test_fields_of_a_wrong_shape_are_problems_and_no_crash(change: Callable[[Document], Document]) -> None:
    assert problems_of_manifest(as_bytes(change(document())))


def test_a_manifest_that_does_not_add_up_cannot_be_made_either() -> None:
    with pytest.raises(ValueError, match="counts: 3 photos in all statuses together, 4 seen"):
        Manifest.model_validate(document() | {"photos": 4})
