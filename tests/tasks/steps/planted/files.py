"""Faults of files that a version stands on: bytes changed, files missing, left over or another's, and the store's own records."""

import json
import random
from collections.abc import Callable
from pathlib import Path

from store.layout import CURRENT
from store.storage import Storage

Fault = Callable[[Storage, random.Random], object]


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
