"""The tables of a version that follows another. The oracle is the same tables made of shards alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from store.fingerprints import face_id, sha256_hex
from store.layout import open_store
from store.schemas import FACES, PHOTOS, PLAN, VERSION_FACES, VERSION_PHOTOS
from store.shards import commit_shard
from store.storage import Storage
from tasks.steps import version_tables
from tasks.steps.version_tables import Before, version_faces, version_photos

CONTRACT = "contract"
NOTHING = Before(VERSION_PHOTOS.empty_table(), VERSION_FACES.empty_table(), None)
BOXES = ([10.0, 10.0, 60.0, 60.0], [70.0, 10.0, 120.0, 60.0])


class Gallery:
    """Photos that come, go, are renamed, get another name, and are put into other shards; some have the same bytes as others."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.rng = storage, np.random.default_rng(0)
        self.photos: dict[str, tuple[str, str | None, str]] = {}  # uri: sha256, label, shard
        self.shards = 0

    def change(self) -> None:
        for uri in self.some(5):
            del self.photos[uri]
        for uri in self.some(4):
            sha256, _, shard = self.photos[uri]
            self.photos[uri] = sha256, str(self.rng.choice(["Ann", "Bo", ""])) or None, shard
        new = {
            f"/photos/{self.rng.integers(10**6):06}.jpg": sha256_hex(bytes([n])) for n in self.rng.choice(40, 9, False)
        }
        moved = {uri: self.photos[uri][0] for uri in self.some(4)}
        for some in (new, moved):
            one_of_each = {sha256: uri for uri, sha256 in some.items()}
            self.commit({uri: sha256 for sha256, uri in one_of_each.items()})

    def some(self, count: int) -> list[str]:
        there = sorted(self.photos)
        return [str(uri) for uri in self.rng.choice(there, min(count, len(there)), replace=False)] if there else []

    def commit(self, some: dict[str, str]) -> None:
        self.shards += 1
        shard = f"{self.shards:02}"
        photos, faces = [], []
        for uri, sha256 in some.items():
            count = int(sha256[0], 16) % 3  # faces
            status = "indexed" if count else "no_face"
            photos.append({"uri": uri, "photo_sha256": sha256, "status": status, "num_faces": count})
            faces += [
                {
                    "face_id": face_id(sha256, box), "photo_sha256": sha256, "uri": uri, "box": box, "landmarks": [1.0] * 10,
                    "score": 0.9, "quality": 0.5, "rotation": 0, "crop": b"", "crop_origin": [0.0, 0.0], "crop_scale": 1.0,
                }
                for box in BOXES[:count]
            ]  # fmt: skip
            self.photos[uri] = sha256, self.photos.get(uri, ("", None, ""))[1], shard
        tables = {"photos": pa.Table.from_pylist(photos, PHOTOS), "faces": pa.Table.from_pylist(faces, FACES)}
        commit_shard(self.storage, contract=CONTRACT, shard=shard, **tables)

    def planned(self, before: Before, *, hints: bool = True) -> pa.Table:
        """As a plan has it, which names the row of each photo that stays in its shard; or misleads."""
        there = list(zip(before.photos["uri"].to_pylist(), before.photos["shard"].to_pylist(), strict=True))
        row_of = {each: row for row, each in enumerate(there)}
        rows = [
            {"uri": uri, "size": 1, "mtime_ns": 1, "source": "/photos", "label": label, "shard": shard}
            | {"row_before": row_of.get((uri, shard)) if hints else int(self.rng.integers(0, 100))}
            for uri, (_, label, shard) in sorted(self.photos.items())
        ]
        return pa.Table.from_pylist(rows, PLAN)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(open_store(str(tmp_path), create=True))


@pytest.mark.parametrize("hints", [True, False])
def test_the_tables_after_many_changes_are_those_that_are_made_of_the_shards_alone(
    gallery: Gallery, hints: bool
) -> None:
    before = NOTHING
    for _ in range(40):
        gallery.change()
        made = []
        for start in (before, NOTHING):
            photos = version_photos(gallery.storage, gallery.planned(start, hints=hints), start, contract=CONTRACT)
            made.append((photos.table, version_faces(gallery.storage, photos, start, contract=CONTRACT)))
        (photos, faces), (wanted_photos, wanted_faces) = made
        assert photos.to_pylist() == wanted_photos.to_pylist()
        assert faces.to_pylist() == wanted_faces.to_pylist()
        assert photos["uri"].to_pylist() == sorted(gallery.photos)
        before = Before(photos, faces, None)
    statuses = set(before.photos["status"].to_pylist())
    assert statuses == {"indexed", "duplicate", "no_face"}
    assert max(len(uris) for uris in before.faces["uris"].to_pylist()) > 1


def test_rows_of_photos_that_stay_as_they_were_are_not_made_again(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.change()
    gallery.change()
    photos = version_photos(gallery.storage, gallery.planned(NOTHING), NOTHING, contract=CONTRACT)
    before = Before(photos.table, version_faces(gallery.storage, photos, NOTHING, contract=CONTRACT), None)
    (gone,) = gallery.some(1)
    sha256 = gallery.photos.pop(gone)[0]
    seen: list[set[str]] = []
    real = version_tables._faces_of
    monkeypatch.setattr(
        version_tables,
        "_faces_of",
        lambda storage, some, *a, **k: (
            seen.append(set(some["photo_sha256"].to_pylist())) or real(storage, some, *a, **k)
        ),
    )
    with monkeypatch.context() as patch:
        patch.setattr(version_tables, "read_photos", None)  # nobody's shard is read
        photos = version_photos(gallery.storage, gallery.planned(before), before, contract=CONTRACT)
    version_faces(gallery.storage, photos, before, contract=CONTRACT)
    assert len(seen) == 1
    assert seen[0] <= {sha256}


@pytest.mark.parametrize("last", ["", None, "short"])
def test_twins_are_found_among_hashes_that_begin_alike(last: str | None) -> None:
    rng = np.random.default_rng(1)
    hashes = [f"{rng.integers(0, 3):08}{rng.integers(0, 4):056}" for _ in range(60)] + [last] * (last != "")
    seen: set[str | None] = set()
    wanted = [n for n, one in enumerate(hashes) if one in seen or seen.add(one)]  # type: ignore[func-returns-value]
    padded = pa.array(["x", *hashes], pa.string()).slice(1)
    assert version_tables._seen_before(padded).tolist() == wanted
