"""The invariants, checked by code of its own: it opens a local store with json, hashlib, pyarrow and FAISS alone.

I1 every photo in exactly one status; I2 CURRENT's manifest, files, hashes and counts agree; I3 numbers unique and
ascending; I4 a rerun ends with the same content; I6 nothing published changed a byte. (I5, no reader sees two versions
mixed, is checked where readers run.)
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq

__all__ = ["problems_of_content", "problems_of_forgotten", "problems_of_store", "published_files", "snapshot"]

_STATUSES = {"indexed", "no_face", "unreadable", "too_large", "too_small", "duplicate", "forgotten", "failed"}
Document = dict[str, Any]


def snapshot(store: Path) -> dict[str, str]:
    """The sha256 of every file that a published version stands on, by path."""
    return {str(path.relative_to(store)): _sha256(path) for path in published_files(store) if path.is_file()}


def published_files(store: Path) -> Iterator[Path]:
    """The manifest, files and shards of every version that has a manifest."""
    for folder in _version_folders(store):
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            names = [_file(folder, manifest, name) for name in manifest["files"]]
            shards = [path for shard in manifest["shards"] for path, _ in _shard_files(store, manifest, shard)]
        except (KeyError, TypeError, ValueError):
            continue  # problems_of_store says so
        yield folder / "manifest.json"
        yield from names
        yield from shards


def problems_of_store(store: Path, *, before: dict[str, str] | None = None) -> list[str]:
    """Every invariant that does not hold.

    Args:
        store: a local store; one that has no version yet is whole.
        before: a snapshot, of which nothing may have changed.
    """
    problems = [
        f"I6: {path} changed or went away" for path, digest in (before or {}).items() if _is_not(store, path, digest)
    ]
    manifests: dict[int, Document] = {}
    for folder in _version_folders(store):
        number = int(folder.name)
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            manifests[number] = manifest
            problems += [f"{what} (version {number})" for what in _problems_of_version(store, folder, manifest)]
        except Exception as error:  # whatever is wrong with the bytes
            problems.append(f"I2: version {number} cannot be read: {type(error).__name__}: {error}"[:300])
    return problems + list(_problems_of_numbers(store, manifests))


def problems_of_content(store: Path, wanted: str) -> list[str]:
    """What keeps the store from being what an undisturbed build gives; I4."""
    try:
        number = int((store / "versions/CURRENT").read_bytes())
        folder = store / "versions" / f"{number:06d}"
        manifest = json.loads((folder / "manifest.json").read_bytes())
        got = _content(store, folder, manifest)
    except Exception as error:  # whatever is wrong with the bytes
        return [f"I4: CURRENT cannot be read: {type(error).__name__}: {error}"[:300]]
    return [] if got == wanted else [f"I4: version {number} holds {got[:12]}, an undisturbed build gives {wanted[:12]}"]


def problems_of_forgotten(store: Path, words: Iterable[str], face_ids: Iterable[int]) -> list[str]:
    """Every file that still says something of somebody who was forgotten, in its bytes or its columns.

    Args:
        store: a local store.
        words: uris and hashes of forgotten photos.
        face_ids: of forgotten faces, looked for in digits and as eight bytes.
    """
    ids = list(face_ids)
    needles = [word.encode() for word in (*words, *map(str, ids))] + [
        identity.to_bytes(8, "little") for identity in ids
    ]
    problems = []
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        said = path.read_bytes()
        if path.suffix == ".parquet":
            said += repr(pq.read_table(path).to_pylist()).encode()
        problems += [f"forgotten, and still in {path.relative_to(store)}"] * any(needle in said for needle in needles)
    return problems


def _problems_of_numbers(store: Path, manifests: dict[int, Document]) -> Iterator[str]:
    current = store / "versions/CURRENT"
    if current.exists():
        text = current.read_bytes()
        if not text.isdigit() or int(text) not in manifests:
            yield f"I2: CURRENT holds {text[:20]!r}, versions are {sorted(manifests)}"
    elif manifests and min(manifests) != max(manifests):
        yield f"I2: there is no CURRENT, versions are {sorted(manifests)}"
    builds = Counter(manifest.get("build") for manifest in manifests.values())
    yield from (f"I3: {count} versions are of build {build}" for build, count in builds.items() if count > 1)
    for number, manifest in manifests.items():
        if manifest.get("version") != number:
            yield f"I3: folder {number:06d} holds version {manifest.get('version')}"
        if manifest.get("parent") is not None and not manifest["parent"] < number:
            yield f"I3: version {number} comes after {manifest['parent']}, its parent"


def _problems_of_version(store: Path, folder: Path, manifest: Document) -> Iterator[str]:
    for name, record in manifest["files"].items():
        path = _file(folder, manifest, name)
        if not path.is_file():
            yield f"I2: {name} is missing"
        elif path.stat().st_size != record["bytes"] or _sha256(path) != record["sha256"]:
            yield f"I2: {name} is not what the manifest says"
    for shard in manifest["shards"]:
        for path, digest in _shard_files(store, manifest, shard):
            if not path.is_file() or _sha256(path) != digest:
                yield f"I2: {path.relative_to(store)} is missing or not what the manifest says"
    photos = pq.read_table(_file(folder, manifest, "photos.parquet")).to_pylist()
    faces = pq.read_table(_file(folder, manifest, "faces.parquet")).to_pylist()
    yield from _problems_of_photos(store, manifest, photos)
    yield from _problems_of_faces(folder, manifest, photos, faces)
    if _content(store, folder, manifest) != manifest["content_sha256"]:
        yield "I2: the tables' content is not the manifest's"


def _problems_of_photos(store: Path, manifest: Document, photos: list[Document]) -> Iterator[str]:
    forgotten = manifest["counts"].get("forgotten", 0)
    statuses = Counter(row["status"] for row in photos)
    if unknown := set(statuses) - _STATUSES:
        yield f"I1: statuses {sorted(unknown)}"
    if len({row["uri"] for row in photos}) != len(photos):
        yield "I1: a uri stands in two rows"
    if sum(manifest["counts"].values()) != manifest["photos"] or len(photos) + forgotten != manifest["photos"]:
        yield f"I1: {len(photos)} rows, {manifest['photos']} photos, counts {manifest['counts']}"
    for status, count in manifest["counts"].items():
        if status != "forgotten" and statuses.get(status, 0) != count:
            yield f"I1: {statuses.get(status, 0)} photos are {status}, the manifest says {count}"
    there = {shard["name"]: _uris(store, manifest, shard["name"]) for shard in manifest["shards"]}
    if lost := [row["uri"] for row in photos if row["uri"] not in there.get(row["shard"], set())]:
        yield f"I1: {len(lost)} photos have no row in their shard, the first is {lost[0]}"


def _problems_of_faces(
    folder: Path, manifest: Document, photos: list[Document], faces: list[Document]
) -> Iterator[str]:
    data = np.frombuffer(_file(folder, manifest, "index.faiss").read_bytes(), np.uint8)
    index: Any = faiss.deserialize_index(data)
    in_index = sorted(faiss.vector_to_array(index.id_map).tolist()) if index.ntotal else []
    in_table = [row["face_id"] for row in faces]
    if in_index != in_table or len(in_table) != manifest["faces"]:
        yield f"I2: {len(in_index)} faces in the index, {len(in_table)} in the table, {manifest['faces']} in the manifest"
    found = Counter(row["photo_sha256"] for row in faces)
    for row in photos:
        wanted = row["num_faces"] if row["status"] == "indexed" else None
        if wanted is not None and found[row["photo_sha256"]] != wanted:
            yield f"I1: {row['uri']} has {wanted} faces, {found[row['photo_sha256']]} in the table"
    if strangers := set(found) - {row["photo_sha256"] for row in photos if row["status"] == "indexed"}:
        yield f"I1: faces of {len(strangers)} photos that are not indexed"


def _content(store: Path, folder: Path, manifest: Document) -> str:
    """The content's hash as the format's page describes it."""
    columns = ("uri", "photo_sha256", "status")
    photos = pq.read_table(_file(folder, manifest, "photos.parquet"), columns=list(columns)).to_pylist()
    ids = pq.read_table(_file(folder, manifest, "faces.parquet"), columns=["face_id"]).column("face_id").to_pylist()
    lines = [json.dumps([row[name] for name in columns], separators=(",", ":")) for row in photos]
    return hashlib.sha256("".join(f"{line}\n" for line in [*lines, *map(str, ids)]).encode()).hexdigest()


def _version_folders(store: Path) -> list[Path]:
    folders = (store / "versions").glob("[0-9]*") if (store / "versions").is_dir() else []
    return sorted(folder for folder in folders if (folder / "manifest.json").exists())


def _file(folder: Path, manifest: Document, name: str) -> Path:
    revision = manifest.get("revision", 0)
    return folder / f"r{revision}" / name if revision else folder / name


def _shard_files(store: Path, manifest: Document, shard: Document) -> list[tuple[Path, str]]:
    contract, encoder, name = manifest["contract"]["id"], manifest["encoder"]["id"], shard["name"]
    return [
        (store / "photos" / contract / f"{name}.parquet", shard["photos_sha256"]),
        (store / "faces" / contract / f"{name}.parquet", shard["faces_sha256"]),
        (store / "embeddings" / encoder / f"{name}.parquet", shard["embeddings_sha256"]),
    ]


def _uris(store: Path, manifest: Document, shard: str) -> set[str]:
    path = store / "photos" / manifest["contract"]["id"] / f"{shard}.parquet"
    return set(pq.read_table(path, columns=["uri"]).column("uri").to_pylist())


def _is_not(store: Path, path: str, digest: str) -> bool:
    return not (store / path).is_file() or _sha256(store / path) != digest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
