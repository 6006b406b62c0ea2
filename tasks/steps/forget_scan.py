"""The proof: every byte under a store is looked through for what was forgotten. What is looked for is held in memory only."""

import html
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.forgotten import read_forgotten
from store.layout import FORGOTTEN_KEY, embeddings_path, faces_path
from store.schemas import FACES, from_parquet
from store.storage import Storage
from tasks.steps.forget_exclude import Excluded

__all__ = ["Needles", "Scan", "gather_needles", "scan_bytes", "scan_store"]

_SLICE = 24
_GO_ON = re.compile(rb"[0-9A-Za-z._-]")


@dataclass
class Needles:
    """What must not be found any more, by kind.

    Attributes:
        uri: of photos, as they stand in JSON, in HTML and by themselves.
        label: names, in quotes or as a whole cell.
        face_id: in decimal digits.
        face_id_bytes: eight bytes, as FAISS and Arrow keep them.
        photo_hash: hex and raw.
        crop: slices of the JPEG files.
        vector: pieces of the embeddings' float32 bytes.
    """

    uri: set[bytes] = field(default_factory=set)
    label: set[bytes] = field(default_factory=set)
    face_id: set[bytes] = field(default_factory=set)
    face_id_bytes: set[bytes] = field(default_factory=set)
    photo_hash: set[bytes] = field(default_factory=set)
    crop: set[bytes] = field(default_factory=set)
    vector: set[bytes] = field(default_factory=set)

    def kinds(self) -> dict[str, set[bytes]]:
        """The needles by the name of their kind."""
        return dict(self.__dict__)

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {kind: len(some) for kind, some in self.kinds().items()}


@dataclass
class Scan:
    """What a scan found.

    Attributes:
        files: looked through.
        bytes: of them, decompressed.
        searched: needles by kind.
        hits: of them found, by kind; all zero is the proof.
    """

    files: int = 0
    bytes: int = 0
    searched: dict[str, int] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not any(self.hits.values())


def gather_needles(storage: Storage, excluded: Excluded) -> Needles:
    """What to look for after a purge, read from the shards before it."""
    needles = Needles()
    for uri in excluded.uris:
        for text in (uri, html.escape(uri)):
            needles.uri |= {text.encode(), json.dumps(text)[1:-1].encode()}
    for label in excluded.labels:
        text = json.dumps(label)
        needles.label |= {text.encode(), f'"{label}"'.encode(), json.dumps(text)[1:-1].encode()}
    for sha256 in excluded.sha256s:
        needles.photo_hash |= {sha256.encode(), bytes.fromhex(sha256)}
    forgotten = read_forgotten(storage)
    for contract, shard in sorted(excluded.shards):
        path = faces_path(contract, shard)
        if not storage.exists(path):
            continue
        table = from_parquet(
            storage.read(path), FACES, where=storage.uri_of(path), columns=["face_id", "photo_sha256", "box", "crop"]
        )
        gone = {row["face_id"]: row["crop"] for row in table.to_pylist() if forgotten.has_face(row)}
        for identity, crop in gone.items():
            excluded.face_ids.add(identity)
            needles.crop |= set(_slices(crop))
        for encoder in storage.names("embeddings"):
            needles.vector |= set(_vector_slices(storage, embeddings_path(encoder, shard), set(gone)))
    for identity in excluded.face_ids:
        needles.face_id.add(str(identity).encode())
        needles.face_id_bytes.add(int(identity).to_bytes(8, "little", signed=True))
    return needles


def scan_store(storage: Storage, needles: Needles) -> Scan:
    """Look through every file under the store: Parquet column by column as it is decompressed, all else as it lies.

    The key of the tags is left out: it is random.
    """
    scan = Scan(searched=needles.counts(), hits=dict.fromkeys(needles.counts(), 0))
    for path in _walk(storage):
        if path == FORGOTTEN_KEY:
            continue
        data = storage.read(path)
        scan.files += 1
        for part, cells in _parts(path, data):
            scan.bytes += len(part)
            for kind, n in scan_bytes(part, needles, cells=cells).items():
                scan.hits[kind] += n
    return scan


def scan_bytes(data: bytes, needles: Needles, *, cells: bool = False) -> dict[str, int]:
    """How many needles of each kind are in the bytes.

    Args:
        data: any.
        needles: to look for.
        cells: the data are texts of cells, a line each, among which a label stands without quotes.
    """
    hits = {}
    lines = set(data.split(b"\n")) if cells else set()
    for kind, some in needles.kinds().items():
        if kind in {"uri", "face_id"}:
            hits[kind] = sum(_stands_alone(data, one) for one in some)
        elif kind == "label":
            hits[kind] = sum(one in data or json.loads(one).encode() in lines for one in some if _is_json(one))
            hits[kind] += sum(one in data for one in some if not _is_json(one))
        else:
            hits[kind] = sum(one in data for one in some)
    return hits


def _is_json(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), str)
    except ValueError:
        return False


def _stands_alone(data: bytes, needle: bytes) -> bool:
    """Whether it is there and no longer name or number goes on behind it, nor a number before a number."""
    at = data.find(needle)
    while at >= 0:
        end = at + len(needle)
        longer = _GO_ON.match(data, end) or (needle[:1].isdigit() and data[max(at - 1, 0) : at].isdigit())
        if not longer:
            return True
        at = data.find(needle, at + 1)
    return False


def _slices(crop: bytes) -> Iterator[bytes]:
    """Pieces of a JPEG's pixels that no other picture has: from its later half, with many different bytes."""
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):
        start = int(len(crop) * share)
        piece = crop[start : start + _SLICE]
        if len(set(piece)) > _SLICE // 2:
            yield piece


def _vector_slices(storage: Storage, path: str, ids: set[int]) -> Iterator[bytes]:
    if not ids or not storage.exists(path):
        return
    table = pq.read_table(io.BytesIO(storage.read(path)))
    for row in table.filter(pa.array([i in ids for i in table.column("face_id").to_pylist()], pa.bool_())).to_pylist():
        data = np.asarray(row["embedding"], np.float32).tobytes()
        yield data[:32]
        yield data[-32:]


def _walk(storage: Storage, folder: str = "") -> Iterator[str]:
    try:
        names = storage.names(folder)
    except NotADirectoryError:
        yield folder
        return
    if not names and folder and not storage.local:
        yield folder
    for name in names:
        yield from _walk(storage, f"{folder}/{name}" if folder else name)


def _parts(path: str, data: bytes) -> Iterator[tuple[bytes, bool]]:
    """The bytes to look through, each with whether it holds the texts of cells."""
    yield data, False
    if not path.endswith(".parquet"):
        return
    try:
        table = pq.read_table(io.BytesIO(data))
    except (OSError, pa.ArrowException):
        return  # what cannot be read was looked through as it lies
    for column in table.columns:
        yield from _column(column)


def _column(column: pa.ChunkedArray) -> Iterator[tuple[bytes, bool]]:
    for chunk in column.chunks:
        flat = chunk
        while pa.types.is_nested(flat.type):
            flat = flat.flatten()
        if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
            yield _joined(flat.to_pylist()), True
        elif pa.types.is_binary(flat.type) or pa.types.is_large_binary(flat.type):
            yield b"\n".join(one or b"" for one in flat.to_pylist()), False
        else:
            for buffer in flat.buffers():
                if buffer is not None:
                    yield buffer.to_pybytes(), False


def _joined(texts: Iterable[str | None]) -> bytes:
    return "\n".join(text or "" for text in texts).encode()
