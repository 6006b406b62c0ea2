import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.cli import main
from store.errors import VersionError
from store.fingerprints import canonical_json, sha256_hex
from store.index_file import build_exact_index, flat_vectors, load_index
from store.layout import CURRENT, open_store
from store.leases import hold_lease
from store.storage import Storage
from store.versions import read_version, set_current
from tasks.steps.verify_store import verify_store

Fault = Callable[[Storage, random.Random], object]


@pytest.fixture
def storage(two_versions: Any, tmp_path: Path) -> Storage:
    return open_store(str(shutil.copytree(two_versions.store, tmp_path / "store")))


def kinds(storage: Storage, **only: int) -> set[str]:
    return {problem.kind for problem in verify_store(storage.uri, **only).problems}


def test_a_clean_store_has_no_problem(storage: Storage) -> None:
    found = verify_store(storage.uri)
    assert found.problems == []
    assert found.versions == [1, 2]
    assert found.shards >= 3
    assert found.unused == 0


def test_the_store_of_the_first_release_has_no_problem_but_its_missing_weights(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "data" / "format1"
    found = verify_store(str(shutil.copytree(source, tmp_path / "store"))).problems
    assert [(p.kind, "holds no weights" in p.sentence) for p in found] == [("encoder", True)]  # it was made without


# Files, and what can happen to their bytes


def files_of(storage: Storage) -> list[str]:
    """Every file of the store that a version stands on."""
    root = Path(storage.uri)
    files = (str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file())
    return [path for path in files if not path.startswith("runs/") and path != CURRENT]


def flipped(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def zeroed(data: bytes, rng: random.Random) -> bytes:
    keep = rng.randrange(len(data))
    return data[:keep] + bytes(len(data) - keep)


def grown(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(1 + rng.randrange(64))


def damage(change: Callable[[bytes, random.Random], bytes], kind: str) -> Fault:
    """A fault that changes one file whose path contains `kind`, and really changes it."""

    def fault(storage: Storage, rng: random.Random) -> None:
        path = rng.choice([path for path in files_of(storage) if kind in path])
        before = storage.read(path)
        after = change(before, rng)
        while after == before:
            after = change(before, rng)
        storage.write(path, after)

    fault.__name__ = f"{change.__name__}-{kind.strip('/')}"
    return fault


CONTENT = (
    "index.faiss",
    "faces.parquet",
    "photos.parquet",
    "report.html",
    "photos/",
    "faces/",
    "embeddings/",
    "weights",
)
FLIPS = [damage(change, kind) for change in (flipped, truncated, zeroed, grown) for kind in CONTENT]
FLIPS += [damage(flipped, "manifest.json"), damage(truncated, "manifest.json"), damage(flipped, "claim")]


# Files that are missing, left over, or another's


def missing(kind: str) -> Fault:
    def fault(storage: Storage, rng: random.Random) -> None:
        storage.remove(rng.choice([path for path in files_of(storage) if kind in path]))

    fault.__name__ = f"missing-{kind.strip('/')}"
    return fault


def swapped(kind: str) -> Fault:
    """Two files of one kind change places."""

    def fault(storage: Storage, rng: random.Random) -> None:
        one, other = rng.sample([path for path in files_of(storage) if kind in path], 2)
        data = storage.read(one)
        storage.write(one, storage.read(other))
        storage.write(other, data)

    fault.__name__ = f"swapped-{kind.strip('/')}"
    return fault


def orphan(path: str, like: str | None = None) -> Fault:
    """A file that nobody names: of random bytes, or a copy of a whole one under another name."""

    def fault(storage: Storage, rng: random.Random) -> None:
        files = files_of(storage)
        contract = next(p for p in files if p.startswith("photos/")).split("/")[1]
        encoder = next(p for p in files if p.startswith("embeddings/")).split("/")[1]
        place = path.format(contract=contract, encoder=encoder, shard=rng.randbytes(16).hex())
        source = next((p for p in files if like and p.startswith(like)), None)
        storage.write(place, storage.read(source) if source else rng.randbytes(500))

    fault.__name__ = f"orphan-{path}"
    return fault


ORPHANS = [
    orphan("photos/{contract}/{shard}.parquet"),
    orphan("photos/{contract}/{shard}.parquet", "photos/"),
    orphan("faces/{contract}/{shard}.parquet"),
    orphan("faces/{contract}/{shard}.parquet", "faces/"),
    orphan("embeddings/{encoder}/{shard}.parquet", "embeddings/"),
    orphan("photos/{contract}/{shard}.parquet.tmp"),
    orphan("versions/000001/index.bak"),
    orphan("versions/000002/r3/index.faiss"),
    orphan("versions/old"),
    orphan("notes.txt"),
]
PLACES = [missing(kind) for kind in (*CONTENT, "claim", "card.json")]
PLACES += [swapped(kind) for kind in ("photos/", "faces/", "embeddings/", "index.faiss", "manifest.json", "claim")]


# A manifest that says something else, with hashes that fit


def rewrite(storage: Storage, number: int, **changes: Any) -> None:
    """Write a manifest as if lookalike had: with a hash of its own."""
    path = f"versions/{number:06d}/manifest.json"
    document = json.loads(storage.read(path)) | changes
    del document["self_sha256"]
    document["self_sha256"] = sha256_hex(canonical_json(document))
    storage.write(path, json.dumps(document).encode())


def claims(change: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> Fault:
    def fault(storage: Storage, rng: random.Random) -> None:
        number = rng.choice([1, 2])
        document = json.loads(storage.read(f"versions/{number:06d}/manifest.json"))
        rewrite(storage, number, **change(document))

    fault.__name__ = f"claims-{name}"
    return fault


def first_shard(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"shards": [document["shards"][0] | changes, *document["shards"][1:]]}


def other_counts(document: dict[str, Any]) -> dict[str, Any]:
    counts = document["counts"]
    return {"counts": counts | {"indexed": counts["indexed"] - 1, "failed": counts["failed"] + 1}}


def more_photos(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "photos": document["photos"] + 1,
        "counts": document["counts"] | {"failed": document["counts"]["failed"] + 1},
    }


def smaller_index(document: dict[str, Any]) -> dict[str, Any]:
    record = document["files"]["index.faiss"] | {"bytes": 7}
    return {"files": document["files"] | {"index.faiss": record}, "index": document["index"] | record}


CLAIMS = [
    claims(other_counts, "counts"),
    claims(more_photos, "photos"),
    claims(lambda d: {"faces": d["faces"] + 1}, "faces"),
    claims(lambda d: first_shard(d, photos=d["shards"][0]["photos"] + 1), "shard-photos"),
    claims(lambda d: first_shard(d, faces=d["shards"][0]["faces"] - 1), "shard-faces"),
    claims(lambda d: first_shard(d, name="0" * 32), "shard-name"),
    claims(lambda d: first_shard(d, embeddings_sha256="0" * 64), "shard-hash"),
    claims(lambda d: {"shards": d["shards"][1:]}, "shard-left-out"),
    claims(lambda d: {"content_sha256": "0" * 64}, "content"),
    claims(lambda d: {"version": d["version"] + 1}, "version"),
    claims(lambda d: {"parent": 9}, "parent"),
    claims(lambda d: {"build": "another"}, "build"),
    claims(lambda d: {"encoder": d["encoder"] | {"id": "e" * 32}}, "encoder"),
    claims(lambda d: {"encoder": d["encoder"] | {"dimension": 16}}, "dimension"),
    claims(lambda d: {"contract": d["contract"] | {"id": "c" * 32}}, "contract"),
    claims(smaller_index, "bytes"),
]


# Files that say something else, with manifests that fit


def put(storage: Storage, number: int, name: str, data: bytes) -> None:
    """Replace a version's file and record its new hash."""
    document = json.loads(storage.read(f"versions/{number:06d}/manifest.json"))
    record = {"bytes": len(data), "sha256": sha256_hex(data)}
    storage.write(f"versions/{number:06d}/{name}", data)
    index = document["index"] | record if name == "index.faiss" else document["index"]
    rewrite(storage, number, files=document["files"] | {name: record}, index=index)


def reindexed(change: Callable[[Any, Any], tuple[Any, Any]], name: str) -> Fault:
    def fault(storage: Storage, rng: random.Random) -> None:
        index = load_index(storage.read("versions/000002/index.faiss"), where="x")
        found = flat_vectors(index)  # it looks into the index
        assert found is not None
        put(storage, 2, "index.faiss", build_exact_index(*change(found[0].copy(), found[1].copy())))

    fault.__name__ = f"index-{name}"
    return fault


def raw_index(ids: Any, vectors: Any) -> bytes:
    import faiss

    index = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors), ids)
    return bytes(faiss.serialize_index(index))


def unit_and_long(storage: Storage, rng: random.Random) -> None:
    found = flat_vectors(load_index(storage.read("versions/000001/index.faiss"), where="x"))
    assert found is not None
    put(storage, 1, "index.faiss", raw_index(found[0], found[1] * 1.5))


def duplicate_ids(storage: Storage, rng: random.Random) -> None:
    found = flat_vectors(load_index(storage.read("versions/000001/index.faiss"), where="x"))
    assert found is not None
    ids = found[0].copy()
    ids[1] = ids[0]
    put(storage, 1, "index.faiss", raw_index(ids, found[1]))


def index_of_another_version(storage: Storage, rng: random.Random) -> None:
    put(storage, 2, "index.faiss", storage.read("versions/000001/index.faiss"))


def table_of_another_version(storage: Storage, rng: random.Random) -> None:
    name = rng.choice(["photos.parquet", "faces.parquet"])
    put(storage, 1, name, storage.read(f"versions/000002/{name}"))


def no_table(storage: Storage, rng: random.Random) -> None:
    put(storage, 1, rng.choice(["photos.parquet", "faces.parquet"]), rng.randbytes(800))


def rows(name: str, change: Callable[[list[dict[str, Any]]], None], what: str) -> Fault:
    """Change the rows of a version's table, and record its new hash."""

    def fault(storage: Storage, rng: random.Random) -> None:
        number = rng.choice([1, 2])
        table = pq.read_table(io.BytesIO(storage.read(f"versions/{number:06d}/{name}")))
        listed = table.to_pylist()
        change(listed)
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(listed, schema=table.schema), sink)
        put(storage, number, name, sink.getvalue())

    fault.__name__ = f"rows-{what}"
    return fault


def shard_rows(kind: str, change: Callable[[list[dict[str, Any]]], None], what: str) -> Fault:
    """Change the rows of a shard's table, and record its new hash in every version."""

    def fault(storage: Storage, rng: random.Random) -> None:
        manifest = read_version(storage, 1).manifest
        shard = rng.choice([s.name for s in manifest.shards if s.faces > 1])
        owner = manifest.encoder.id if kind == "embeddings" else manifest.contract.id
        path = f"{kind}/{owner}/{shard}.parquet"
        table = pq.read_table(io.BytesIO(storage.read(path)))
        listed = table.to_pylist()
        change(listed)
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(listed, schema=table.schema), sink)
        storage.write(path, sink.getvalue())
        for number in (1, 2):
            document = json.loads(storage.read(f"versions/{number:06d}/manifest.json"))
            for record in document["shards"]:
                if record["name"] == shard:
                    record[f"{kind}_sha256"] = sha256_hex(sink.getvalue())
                    if kind != "embeddings":
                        record[kind] = len(listed)
            rewrite(storage, number, shards=document["shards"])

    fault.__name__ = f"shard-{kind}-{what}"
    return fault


def scale(listed: list[dict[str, Any]]) -> None:
    listed[0]["embedding"] = [2 * x for x in listed[0]["embedding"]]


def turn(listed: list[dict[str, Any]]) -> None:
    listed[0]["embedding"] = [-x for x in listed[0]["embedding"]]


def set_first(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda listed: listed[0].update(changes)


CONSISTENT = [
    reindexed(lambda ids, vectors: (ids, -vectors), "negated"),
    reindexed(lambda ids, vectors: (ids, np.roll(vectors, 1, axis=0)), "shifted"),
    reindexed(lambda ids, vectors: (ids + 1, vectors), "other-ids"),
    reindexed(lambda ids, vectors: (ids[1:], vectors[1:]), "one-less"),
    unit_and_long,
    duplicate_ids,
    index_of_another_version,
    table_of_another_version,
    no_table,
    rows("photos.parquet", lambda r: r.pop(), "photo-lost"),
    rows("photos.parquet", lambda r: r.reverse(), "photos-order"),
    rows("photos.parquet", lambda r: r.append(r[-1]), "photo-twice"),
    rows("photos.parquet", set_first(status="failed"), "status"),
    rows("photos.parquet", set_first(photo_sha256="0" * 64), "photo-hash"),
    rows("photos.parquet", set_first(shard="0" * 32), "photo-shard"),
    rows("photos.parquet", set_first(num_faces=5), "num-faces"),
    rows("faces.parquet", lambda r: r.pop(), "face-lost"),
    rows("faces.parquet", lambda r: r.append(r[-1]), "face-twice"),
    rows("faces.parquet", set_first(photo_sha256="0" * 64), "face-photo"),
    rows("faces.parquet", set_first(box=[0.0, 0.0, 9.0, 9.0]), "face-box"),
    rows("faces.parquet", set_first(shard="0" * 32), "face-shard"),
    shard_rows("embeddings", scale, "not-unit"),
    shard_rows("embeddings", turn, "turned"),
    shard_rows("embeddings", lambda r: r.pop(), "one-less"),
    shard_rows("embeddings", set_first(face_id=1), "other-face"),
    shard_rows("faces", lambda r: r.pop(), "one-less"),
    shard_rows("faces", set_first(face_id=1), "other-face"),
    shard_rows("photos", set_first(num_faces=7), "num-faces"),
    shard_rows("photos", set_first(photo_sha256="0" * 64), "hash"),
    shard_rows("photos", set_first(status="lost"), "status"),
]


def current(data: bytes) -> Fault:
    def fault(storage: Storage, rng: random.Random) -> None:
        storage.write(CURRENT, data)

    fault.__name__ = f"current-{data!r}"
    return fault


def no_current(storage: Storage, rng: random.Random) -> None:
    storage.remove(CURRENT)


def copied_version(storage: Storage, rng: random.Random) -> None:
    for name in storage.names("versions/000001"):
        storage.write(f"versions/000003/{name}", storage.read(f"versions/000001/{name}"))


def card_of_another(storage: Storage, rng: random.Random) -> None:
    path = next(p for p in files_of(storage) if p.endswith("card.json"))
    document = json.loads(storage.read(path))
    document["mirror_average"] = not document["mirror_average"]
    storage.write(path, json.dumps(document).encode())


def encoder_current(storage: Storage, rng: random.Random) -> None:
    storage.write("encoders/CURRENT", b"nobody")


def bad_tags(storage: Storage, rng: random.Random) -> None:
    storage.write("forgotten/tags.json", b'{"format": 1, "tags": ["short"]}')


def bad_removal(storage: Storage, rng: random.Random) -> None:
    storage.write(
        "versions/removal.json", b'{"format": 1, "versions": [], "paths": ["../../etc/passwd"], "sha256s": []}'
    )


OTHERS = [current(data) for data in (b"", b"9", b"one", b"0", b"\xff")]
OTHERS += [no_current, copied_version, card_of_another, encoder_current, bad_tags, bad_removal]
FAULTS: list[Fault] = [*FLIPS, *PLACES, *ORPHANS, *CLAIMS, *CONSISTENT, *OTHERS]


def test_there_are_a_hundred_faults_and_more() -> None:
    assert len(FAULTS) >= 100


@pytest.mark.parametrize("seed", range(len(FAULTS)), ids=[fault.__name__ for fault in FAULTS])
def test_a_planted_fault_is_found(storage: Storage, seed: int) -> None:
    FAULTS[seed](storage, random.Random(seed))
    found = verify_store(storage.uri)
    assert found.problems
    assert all(p.path and p.sentence and p.kind and "\n" not in p.sentence for p in found.problems)


# What is no fault


def test_what_a_running_build_holds_or_an_unfinished_one_asked_for_is_no_orphan(storage: Storage) -> None:
    shard = "ab" * 16
    contract = read_version(storage).manifest.contract.id
    storage.write(f"faces/{contract}/{shard}.parquet", b"half a shard")
    assert kinds(storage) == {"orphan"}
    with hold_lease(storage, "build", shards=[shard]):
        assert kinds(storage) == set()
    storage.write(f"runs/requests/{shard}.parquet", b"")
    assert kinds(storage) == set()


def test_a_publish_that_goes_on_is_no_orphan_and_one_that_died_is(storage: Storage) -> None:
    storage.create("versions/000003/claim", b"somebody")
    storage.write("versions/000003/index.faiss", b"half")
    assert kinds(storage) == set()
    for name in ("claim", "index.faiss"):
        os.utime(Path(storage.uri) / "versions/000003" / name, (1, 1))
    assert kinds(storage) == {"orphan"}


def test_a_whole_shard_that_no_version_uses_is_counted_and_is_no_problem(storage: Storage) -> None:
    only_two = {s.name for s in read_version(storage, 2).manifest.shards}
    only_two -= {s.name for s in read_version(storage, 1).manifest.shards}
    set_current(storage, 1, expected=2)
    shutil.rmtree(Path(storage.uri) / "versions/000002")
    found = verify_store(storage.uri)
    assert found.problems == []
    assert found.unused == len(only_two) > 0


def test_one_version_is_verified_by_itself(storage: Storage) -> None:
    storage.write("versions/000001/report.html", b"other")
    assert kinds(storage, version=2) == set()
    assert kinds(storage, version=1) == {"hash"}
    with pytest.raises(VersionError, match="has no version 7; there is 1, 2"):
        verify_store(storage.uri, version=7)


def test_nothing_is_parsed_that_is_not_what_its_hash_says(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("versions/000002/index.faiss", b"IxFI" + bytes(99))
    monkeypatch.setattr("tasks.steps.verify_version.open_index", lambda *_, **__: pytest.fail("it was opened"))
    assert kinds(storage, version=2) == {"hash"}


def test_the_command_prints_its_keys_and_exits_with_1_where_there_are_problems(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--store", storage.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    storage.write("versions/000001/report.html", b"other")
    assert main(["verify", "--store", storage.uri, "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["path"], problem["kind"]) == ("versions/000001/report.html", "hash")
    assert "the manifest says" in problem["sentence"]
    assert main(["verify", "--store", storage.uri]) == 1
    assert "1 problem: versions 1, 2" in capsys.readouterr().out


def test_a_store_on_s3_is_verified_too(two_versions: Any, s3: str) -> None:
    storage = Storage(f"{s3}/store")
    root = Path(two_versions.store)
    for path in (p for p in root.rglob("*") if p.is_file()):
        storage.write(str(path.relative_to(root)), path.read_bytes())
    assert verify_store(storage.uri).problems == []
    for seed in range(0, len(FLIPS), 4):
        path = f"versions/00000{1 + seed % 2}/index.faiss"
        before = storage.read(path)
        storage.write(path, flipped(before, random.Random(seed)))
        assert kinds(storage) == {"hash"}
        storage.write(path, before)
    storage.remove(CURRENT)
    assert kinds(storage) == {"current"}
