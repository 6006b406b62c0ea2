"""Publishing, reading and swapping through seeded scripts of faults: what holds whatever happens on the way."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.faults.fault_proxy import FaultProxy, random_script
from benchmarks.faults.s3_endpoint import S3Endpoint
from store import s3_objects, s3_requests
from store.errors import UnavailableError
from store.fingerprints import sha256_hex
from store.manifest import Manifest
from store.storage import Storage
from store.versions import current_number, publish, read_file, read_version
from tests.conftest import reached_through

NAMES = ("index.faiss", "faces.parquet", "photos.parquet", "report.html")


@pytest.fixture(scope="module")
def faulty() -> Iterator[tuple[S3Endpoint, FaultProxy]]:
    with S3Endpoint() as endpoint, FaultProxy(endpoint.url) as proxy, reached_through(proxy.url):
        yield endpoint, proxy


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_requests, "_FIRST_PAUSE_S", 0.002)


def content(build: str) -> dict[str, bytes]:
    return {name: f"{name} of {build} ".encode() * 50 for name in NAMES}


def manifest(build: str, *, parent: int | None) -> Manifest:
    files = {name: {"bytes": len(data), "sha256": sha256_hex(data)} for name, data in content(build).items()}
    document: dict[str, Any] = {
        "format": 1, "version": 1, "parent": parent, "build": build, "created_at": "2026-01-01", "sources": [],
        "contract": {"id": "c" * 32, "settings": {}}, "encoder": {"id": "e" * 32, "dimension": 1}, "shards": [],
        "tombstones": [], "files": files, "counts": {}, "photos": 0, "faces": 0, "metrics": None, "gate": None,
        "calibration": None, "content_sha256": sha256_hex(b""), "requires": [], "library_versions": {},
        "index": {"key": "Flat", "metric": "inner_product", "parameters": {}, "why": "", "change": "rebuilt"}
        | files["index.faiss"],
    }  # fmt: skip
    return Manifest.model_validate(document)


def build_and_publish(storage: Storage, build: str) -> int:
    """One run of a build, from staging to CURRENT."""
    parent = current_number(storage)
    if parent is not None and read_version(storage).manifest.build == build:
        return parent
    staged = {name: f"runs/builds/{build}/{name}" for name in NAMES}
    for name, path in staged.items():
        storage.write(path, content(build)[name])
    return publish(storage, staged=staged, manifest=manifest(build, parent=parent), parent=parent).number


def until_it_heals(call: Callable[[], int]) -> int:
    for _ in range(10):
        try:
            return call()
        except UnavailableError:
            continue
    raise AssertionError("ten runs, and none went through")


def assert_whole(endpoint: S3Endpoint, prefix: str) -> str | None:
    """CURRENT, its manifest and its files agree, seen past the proxy; the build that is published, if any."""
    held = {k: v[-1].data for k, v in dict(endpoint.objects.bucket("faces").objects).items() if k.startswith(prefix)}
    if (current := held.get(f"{prefix}/versions/CURRENT")) is None:
        return None
    folder = f"{prefix}/versions/{int(current):06d}"
    document = json.loads(held[f"{folder}/manifest.json"])
    assert document["version"] == int(current)
    for name, record in document["files"].items():
        data = held[f"{folder}/{name}"]
        assert (len(data), sha256_hex(data)) == (record["bytes"], record["sha256"])
    return str(document["build"])


@pytest.mark.parametrize("seed", range(30))
def test_a_version_is_published_or_not_and_a_rerun_ends_with_the_same_content(
    faulty: tuple[S3Endpoint, FaultProxy], seed: int
) -> None:
    endpoint, proxy = faulty
    prefix = f"seed-{seed}"
    storage = Storage(f"s3://faces/{prefix}")
    before = len(proxy.injected)
    proxy.follow(random_script(seed, faults=16, requests=90, max_bytes=600))
    numbers = []
    for build in ("build-1", "build-2"):

        def run(build: str = build) -> int:
            try:
                return build_and_publish(storage, build)
            finally:
                assert assert_whole(endpoint, prefix) in {None, "build-1", "build-2"}

        numbers.append(until_it_heals(run))
        assert assert_whole(endpoint, prefix) == build
    assert numbers[0] < numbers[1]
    for number, build in zip(numbers, ("build-1", "build-2"), strict=True):
        version = read_version(storage, number)
        assert {name: read_file(storage, version, name) for name in NAMES} == content(build)
    assert len(proxy.injected) - before >= 8, "the script must hit something"


@pytest.mark.parametrize("seed", range(8))
def test_of_swaps_that_race_through_faults_none_is_lost_and_none_counts_twice(
    faulty: tuple[S3Endpoint, FaultProxy], seed: int
) -> None:
    _, proxy = faulty
    path, uri = "list", f"s3://faces/swaps-{seed}"
    Storage(uri).write(path, b"[]")
    proxy.follow(random_script(seed, faults=20, requests=120, max_bytes=40))
    start = threading.Barrier(3)

    def add(writer: int) -> int:
        storage, refused = Storage(uri), 0
        start.wait()
        for number in range(4):
            item = f"{writer}-{number}"
            while True:
                try:
                    before = storage.read(path)
                    if item in json.loads(before):  # an earlier try went through after all
                        break
                    if storage.swap(path, json.dumps([*json.loads(before), item]).encode(), expected=before):
                        break
                    refused += 1
                except UnavailableError:
                    continue
        return refused

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(add, range(3)))
    proxy.follow([])
    items = json.loads(Storage(uri).read(path))
    assert sorted(items) == [f"{writer}-{number}" for writer in range(3) for number in range(4)]


def test_without_the_checks_of_answers_some_script_breaks_a_publish(
    faulty: tuple[S3Endpoint, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: what the scripts do is more than s3fs and botocore take care of."""
    endpoint, proxy = faulty
    monkeypatch.setattr(s3_requests, "_ALWAYS_SENT", {})
    monkeypatch.setattr(s3_objects, "_vouches", lambda etag, blocks: True)
    broken = 0
    for seed in range(12):
        storage = Storage(f"s3://faces/twin-{seed}")
        proxy.follow(random_script(seed, faults=16, requests=90, max_bytes=600))
        try:
            until_it_heals(lambda storage=storage: build_and_publish(storage, "build-1"))  # type: ignore[misc]
            assert assert_whole(endpoint, f"twin-{seed}") == "build-1"
        except Exception:
            broken += 1
    assert broken
