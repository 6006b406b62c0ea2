"""What all trials start from, made once: drawn photos, what detector and encoder say about them, and two small stores.

    python -m benchmarks.faults.base FOLDER

FOLDER gets `photos/` (drawn people, a copy, a photo without a face, a broken file), `stored/` (see `small_build.py`),
`encoders/`; `empty/` and `second/`: stores with the encoder's card, without a version and with one of some of the photos, one
of which is gone meanwhile; and `expected.json`, what an undisturbed build gives.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.faults.small_build import SHARD_PHOTOS, build
from store.layout import open_store
from store.shards import read_embeddings, read_faces, read_photos
from store.versions import read_version
from tasks.steps.contract import Contract
from tasks.steps.draw_people import draw_people
from tasks.steps.embed_faces import embed_faces
from tasks.steps.find_faces import find_faces, shard_of
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder

__all__ = ["make_base"]

_LATER = 4  # photos that come after the first version
_TIME_NS = 1_700_000_000_000_000_000


def make_base(folder: Path) -> None:
    """Make everything in a folder that does not exist yet."""
    making = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    photos = folder / "photos"  # uris are absolute: the photos lie where they will stay
    draw_people(photos, people=range(4), views=range(2), seed=5, workers=1)
    drawn = sorted(photos.rglob("*.jpg"))
    shutil.copyfile(drawn[0], photos / "copy.jpg")
    Image.new("RGB", (96, 96), (90, 120, 90)).save(photos / "nobody.png")
    (photos / "broken.jpg").write_bytes(b"no photo at all")
    Image.new("RGB", (80, 80), (10, 10, 90)).save(photos / "gone.png")
    for path in sorted(photos.rglob("*.*")):
        os.utime(path, ns=(_TIME_NS, _TIME_NS))
    _store_results(folder, making)
    for name in ("empty", "second"):  # a build reads the card alone; who needs the weights adds them
        shutil.copytree(making / "encoders", folder / name / "encoders", ignore=shutil.ignore_patterns("weights.*"))
    shutil.move(making / "encoders", folder / "encoders")
    shutil.rmtree(making)
    later = [*drawn[-_LATER:], photos / "copy.jpg"]
    _set_aside(later, folder / "aside")
    build(str(folder / "second"), str(photos), str(folder / "stored"))
    _bring_back(later, folder / "aside")
    (photos / "gone.png").unlink()
    contents = {name: _content_of_a_build(folder, name) for name in ("empty", "second")}
    assert len(set(contents.values())) == 1, contents
    (folder / "expected.json").write_text(json.dumps({"content_sha256": contents["empty"]}))


def _store_results(folder: Path, making: Path) -> None:
    """Search and embed every photo for real, once."""
    store, contract = str(making), Contract()
    encoder = resolve_encoder(new_encoder(store, settings=NetworkSettings(width=0.25, dimension=16)), store=store)
    listed = list_photos(str(folder / "photos"), store=store)
    plan = plan_build(listed, store=store, contract=contract, encoder=encoder.id, shard_photos=SHARD_PHOTOS)
    storage = open_store(store)
    tables: dict[str, list[pa.Table]] = {"photos": [], "faces": [], "embeddings": []}
    for request in plan.requests:
        name = shard_of(request)
        found = find_faces(request, store=store, contract=contract)
        embed_faces(found, store=store, contract=contract.id, encoder=encoder)
        tables["photos"].append(read_photos(storage, contract=contract.id, shard=name))
        tables["faces"].append(read_faces(storage, contract=contract.id, shard=name))
        vectors = read_embeddings(storage, encoder=encoder.id, shard=name, dimension=encoder.dimension)
        tables["embeddings"].append(vectors)
    stored = folder / "stored"
    stored.mkdir()
    for kind, parts in tables.items():
        pq.write_table(pa.concat_tables(parts), stored / f"{kind}.parquet")
    named = {"id": encoder.id, "name": encoder.name, "dimension": encoder.dimension}
    (stored / "encoder.json").write_text(json.dumps(named))


def _set_aside(paths: list[Path], aside: Path) -> None:
    aside.mkdir()
    for path in paths:
        os.rename(path, aside / path.name)


def _bring_back(paths: list[Path], aside: Path) -> None:
    for path in paths:
        os.rename(aside / path.name, path)
    aside.rmdir()


def _content_of_a_build(folder: Path, name: str) -> str:
    store = folder / "undisturbed"
    shutil.copytree(folder / name, store)
    build(str(store), str(folder / "photos"), str(folder / "stored"))
    content = read_version(open_store(str(store))).manifest.content_sha256
    shutil.rmtree(store)
    return content


if __name__ == "__main__":
    make_base(Path(sys.argv[1]).resolve())
