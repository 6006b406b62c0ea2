"""Readers that ask all the time while versions are published: each answer must be of one version."""

import importlib.util
import os
import random
import time
import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.faults.bench import Bench
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import Ended, fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_store, snapshot

__all__ = ["FAULT"]

_READERS = 4
_PUBLISHES = 10
_FACES = 3
_PAUSE_S = 1.0


def _keys(bench: Bench, long: bool) -> list[str]:
    """A trial is so many publishes: 300 in all, or 20."""
    return [str(n) for n in range(30 if long else 2)]


def _run(bench: Bench, key: str, *, without: Sequence[str] = (), in_place: bool = False) -> list[str]:
    """Publish one version after another, each marked all over by its number, while four readers open CURRENT."""
    with bench.fresh_store("second") as store:
        before = {} if in_place or _vacuum() else snapshot(store)
        publisher = fork(lambda: _publish(store, in_place, key))
        readers = [fork(lambda: _read(bench.work / "cache", store, without)) for _ in range(_READERS)]
        published = publisher.wait()
        (store / "stop").touch()
        return [
            *_problems(published, [reader.wait() for reader in readers]),
            *([] if in_place else problems_of_store(store, before=before)),
        ]


def _twin(bench: Bench) -> list[str]:
    """One version, overwritten in place, opened whatever its hashes are."""
    for key in range(10):
        if problems := _run(bench, str(key), without=["opening"], in_place=True):
            return problems
    return []


def _problems(published: Ended, ended: list[Ended]) -> list[str]:
    problems = [f"the publisher failed: {published.error}"] * (published.error is not None)
    for one in ended:
        if one.error is not None or one.signal:
            problems.append(f"a reader ended: {one.error or one.signal}")
        else:
            problems += [f"I5: {what}" for what in one.value["mixed"][:2]]
            problems += ["a reader got no answer at all"] * (one.value["answers"] == 0)
    return problems


def _read(cache: Path, store: Path, without: Sequence[str]) -> dict[str, Any]:
    """Open CURRENT and ask it, over and over, as an answer does."""
    import numpy as np  # noqa: PLC0415

    from store.index_search import indexed_ids, search  # noqa: PLC0415
    from store.layout import open_store  # noqa: PLC0415
    from tasks.steps.open_version import open_version  # noqa: PLC0415

    os.environ["LOOKALIKE_CACHE"] = str(cache)
    remove_guards(without)
    storage = open_store(str(store))
    answers, mixed, last = 0, [], 0
    parent = os.getppid()
    while not (store / "stop").exists() and os.getppid() == parent:
        opened, refused = open_version(storage)
        number = opened.version.number
        query_D = np.eye(1, opened.version.manifest.encoder.dimension, dtype=np.float32)
        _, found_QK = search(opened.index, query_D, k=_FACES, settings=opened.settings)
        ids = {*found_QK[0].tolist(), *indexed_ids(opened.index).tolist()}
        marks = {row["label"] for row in opened.faces.values()} | {f"mark {i >> 8}" for i in ids if i >> 8 < 1 << 20}
        marks |= {f"mark {number}"} if number > 1 else set()
        marks -= {None}  # of the base's own version
        if len(marks) > 1:
            mixed.append(f"version {number} answered with {sorted(marks)}")
        if number < last:
            mixed.append(f"version {number} came after {last}")
        mixed += [f"a whole version was refused: {sentence}" for sentence in refused]
        last = number
        answers += 1
    return {"answers": answers, "mixed": mixed}


def _publish(store: Path, in_place: bool, key: str) -> None:
    """Publish and vacuum, at once after the last or some time later."""
    from store.layout import open_store  # noqa: PLC0415
    from store.versions import current_number, publish  # noqa: PLC0415

    storage, draw = open_store(str(store)), random.Random(key)
    for number in range(_PUBLISHES * (5 if in_place else 1)):
        parent = current_number(storage)
        files, manifest = _marked(storage, number + 2, parent)
        if in_place:
            for name, data in files.items():
                storage.write(f"versions/000001/{name}", data)
            storage.write("versions/000001/manifest.json", manifest.model_copy(update={"parent": None}).to_json())
            time.sleep(0.002)
            continue
        folder = f"runs/builds/{manifest.build}"
        for name, data in files.items():
            storage.write(f"{folder}/{name}", data)
        publish(storage, staged={name: f"{folder}/{name}" for name in files}, manifest=manifest, parent=parent)
        if (vacuum := _vacuum()) is not None:
            vacuum(str(store), keep=2)
        time.sleep(draw.choice((0.0, draw.uniform(0.0, _PAUSE_S))))


def _vacuum() -> Callable[..., Any] | None:
    """The store's vacuum, where it has one."""
    if importlib.util.find_spec("tasks.steps.vacuum_store") is None:
        return None
    return importlib.import_module("tasks.steps.vacuum_store").vacuum_store  # type: ignore[no-any-return]


def _marked(storage: Any, number: int, parent: int | None) -> tuple[dict[str, bytes], Any]:
    """A version's files whose every row and vector carries the number, and their manifest."""
    import numpy as np  # noqa: PLC0415

    from store.fingerprints import content_sha256, sha256_hex  # noqa: PLC0415
    from store.index_file import build_exact_index  # noqa: PLC0415
    from store.manifest import FileRecord  # noqa: PLC0415
    from store.schemas import STATUSES, VERSION_FACES, VERSION_PHOTOS, to_parquet  # noqa: PLC0415

    template, photo, face = _template(storage.uri)
    mark, dimension = f"mark {number}", template.encoder.dimension
    ids = [number << 8 | n for n in range(_FACES)]
    photos = [photo | {"label": mark, "num_faces": _FACES}]
    faces = [face | {"label": mark, "face_id": identity} for identity in ids]
    vectors_ND = np.eye(_FACES, dimension, dtype=np.float32)
    files = {
        "index.faiss": build_exact_index(np.asarray(ids, dtype=np.int64), vectors_ND),
        "photos.parquet": to_parquet(pa.Table.from_pylist(photos, schema=VERSION_PHOTOS), VERSION_PHOTOS),
        "faces.parquet": to_parquet(pa.Table.from_pylist(faces, schema=VERSION_FACES), VERSION_FACES),
    }
    records = {name: FileRecord(bytes=len(data), sha256=sha256_hex(data)) for name, data in files.items()}
    changes = {
        "files": records,
        "index": template.index.model_copy(update=records["index.faiss"].model_dump()),
        "counts": dict.fromkeys(STATUSES, 0) | {"indexed": 1},
        "photos": 1,
        "faces": _FACES,
        "parent": parent,
        "build": str(uuid.uuid4()),
        "content_sha256": content_sha256([(photo["uri"], photo["photo_sha256"], "indexed")], ids),
    }
    return files, template.model_copy(update=changes)


@lru_cache(maxsize=1)
def _template(store: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The manifest, a photo's row and a face's row of the base's version."""
    from benchmarks.faults.reader import open_version  # noqa: PLC0415
    from store.layout import open_store  # noqa: PLC0415

    version, photos, faces, _ = open_version(open_store(store))
    photo = next(row for row in photos if row["status"] == "indexed")
    face = next(row for row in faces if row["photo_sha256"] == photo["photo_sha256"])
    return version.manifest, photo, face


FAULT = Fault(
    name="reading",
    title="reading while publishing",
    how=f"a trial is {_PUBLISHES} publishes, one after another, each version marked all over by its number and followed by a"
    f" vacuum that keeps two, and {_READERS} processes that open CURRENT as every answer does (`open_version`) and ask it all the time",
    guard="one version is overwritten in place and opened whatever its hashes are",
    keys=_keys,
    run=_run,
    twin=_twin,
)
