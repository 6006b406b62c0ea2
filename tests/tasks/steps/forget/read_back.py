import json
from pathlib import Path
from typing import Any

import numpy as np

from store.index_file import indexed_ids, load_index
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.versions import PublishedVersion, read_file, read_version
from tasks.steps.live_filter import search_known
from tasks.steps.open_version import open_version
from tasks.steps.verify_store import verify_store

Row = dict[str, Any]


def tables(storage: Storage, number: int) -> tuple[PublishedVersion, list[Row], list[Row]]:
    version = read_version(storage, number)
    photos = from_parquet(read_file(storage, version, "photos.parquet"), VERSION_PHOTOS, where="photos").to_pylist()
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces").to_pylist()
    return version, photos, faces


def names(rows: list[Row]) -> set[str]:
    return {Path(row["uri"]).name for row in rows}


def shown(storage: Storage, number: int, k: int = 20) -> set[int]:
    """The faces that the version shows to anybody."""
    opened, _ = open_version(storage, number)
    query = np.ones((1, 32), np.float32) / np.sqrt(32).astype(np.float32)
    return {identity for identity, _ in search_known(storage, opened.index, opened.faces, query, k=k)[0]}


def everything_holds(storage: Storage, numbers: tuple[int, ...] = (1, 2)) -> None:
    for number in numbers:
        version, photos, faces = tables(storage, number)
        assert len(photos) == version.manifest.photos - version.manifest.counts["forgotten"]
        ids = [row["face_id"] for row in faces]
        index = load_index(read_file(storage, version, "index.faiss"), where="index")
        assert indexed_ids(index).tolist() == ids == sorted(ids)
        assert sum(r["num_faces"] for r in photos if r["status"] == "indexed") == len(faces) == version.manifest.faces
        assert {row["shard"] for row in photos} == {shard.name for shard in version.manifest.shards}
    assert verify_store(storage.uri).problems == []


def traces(root: Path, *words: str) -> list[str]:
    """Files that hold one of the words, Parquet ones decompressed: looked for without the code that is tested."""
    import pyarrow.parquet as pq

    found = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text += json.dumps(pq.read_table(path).to_pylist(), default=lambda b: b.hex()).encode()
        found += [f"{path.name}: {word}" for word in words if word.encode() in text]
    return found
