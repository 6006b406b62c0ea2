"""Find and align the faces of one shard: photos in, rows and crops out.

Photos are read ahead of time, decoded one after another behind the wall, searched together in full batches, and let go.
What a worker holds at once is bounded, whatever the photos are.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.cutting_threads import cutting_threads, in_threads
from models.detection import PhotoFaces, find_in_photos
from models.mtcnn.nets import CascadeNets
from models.photo import Photo, PhotoRefused, full_pixels, read_photo
from store.errors import LookalikeError
from store.fingerprints import fingerprint, sha256_hex
from store.forgotten import Forgotten, add_forgotten, forgotten_key, read_forgotten, tag
from store.layout import faces_path, open_store, photos_path
from store.refs import ArtifactRef
from store.schemas import FACES, LISTING, PHOTOS, from_parquet
from store.shards import commit_shard, find_shard
from store.sources import read_uri
from store.storage import Storage
from tasks.steps.contract import Contract
from tasks.steps.forgotten_rows import without_forgotten
from tasks.steps.photo_faces import load_nets, rows_of_faces
from tasks.steps.wall import OPEN, Wall

__all__ = ["FIND_FACES_VERSION", "FoundFaces", "find_faces", "shard_of"]

FIND_FACES_VERSION = 2
"""Raised in the commit that changes what a shard holds."""

_GROUP_PHOTOS = 32
_GROUP_BYTES = 64 * 2**20
_UNKNOWN_BYTES = 8 * 2**20  # what a photo of unlisted size counts as
_BATCH_PIXELS = 24_000_000
_READERS = 16
_OF_THE_BYTES = ("width", "height", "exif_orientation", "rotation_used", "status", "reason", "num_faces")

Row = dict[str, Any]


@dataclass(frozen=True)
class FoundFaces:
    """A shard after this step.

    Attributes:
        shard: its photos, committed.
        computed: False when it was there already.
    """

    shard: ArtifactRef
    computed: bool


def shard_of(ref: ArtifactRef) -> str:
    """The shard's name in a reference to any of its files."""
    return PurePosixPath(ref.uri).stem


def find_faces(
    request: ArtifactRef, *, store: str, contract: Contract, device: str = "cpu", wall: Wall = OPEN
) -> FoundFaces:
    """Find every face of a shard's photos and commit the shard; nothing is done where it is committed.

    A forgotten photo leaves no row, and is known by its listing from then on; a forgotten face leaves none either.

    Args:
        request: LISTING of the shard's photos.
        store: its uri.
        contract: what faces are found by.
        device: of the nets.
        wall: around the decoding of each photo; photos it has condemned are not touched again.

    Raises:
        LookalikeError: photos were lost, or somebody in them was forgotten meanwhile; nothing is committed then.
    """
    storage = open_store(store, create=True)
    shard = shard_of(request)
    if (there := find_shard(storage, contract=contract.id, shard=shard)) is not None:
        return FoundFaces(shard=there, computed=False)
    data = storage.read(storage.path_of(request.uri), sha256=request.sha256)
    listed: list[Row] = from_parquet(data, LISTING, where=request.uri).to_pylist()
    photo_rows, face_rows = _Search(contract, load_nets(device), wall, read_forgotten(storage)).rows_of(listed)
    if len(photo_rows) != request.rows:
        raise LookalikeError(f"shard {shard} lost photos: {request.rows} listed, {len(photo_rows)} rows")
    forgotten = read_forgotten(storage)
    _block(storage, listed, photo_rows, forgotten)
    seen = photo_rows, face_rows
    photo_rows, face_rows = without_forgotten(photo_rows, face_rows, forgotten)
    committed = commit_shard(
        storage,
        contract=contract.id,
        shard=shard,
        photos=pa.Table.from_pylist(photo_rows, schema=PHOTOS),
        faces=pa.Table.from_pylist(face_rows, schema=FACES),
    )
    kept = without_forgotten(*seen, read_forgotten(storage))
    if (len(kept[0]), len(kept[1])) != (len(photo_rows), len(face_rows)):
        storage.remove(photos_path(contract.id, shard))
        storage.remove(faces_path(contract.id, shard))
        raise LookalikeError("somebody was forgotten while this shard was computed; run the same command again")
    return FoundFaces(shard=committed, computed=True)


def _block(storage: Storage, listed: Sequence[Row], photo_rows: Sequence[Row], forgotten: Forgotten) -> None:
    """Note how forgotten bytes are listed here, so that the next plan passes them over without reading them."""
    again = [
        fingerprint(
            str(as_listed["uri"]), size=as_listed["size"], etag=as_listed["etag"], mtime_ns=as_listed["mtime_ns"]
        )
        for as_listed, row in zip(listed, photo_rows, strict=True)
        if row.get("photo_sha256") and forgotten.has("photo", row["photo_sha256"])
    ]
    if again:
        key = forgotten_key(storage)
        add_forgotten(storage, (tag(key, "listed", one) for one in again))


@dataclass(eq=False)
class _Opened:
    """A photo that was decoded, and what is needed to cut its crops."""

    number: int
    row: Row
    data: bytes
    photo: Photo

    @property
    def held_px(self) -> int:
        full = self.photo.full
        held = self.photo.pixels.size if full is None or full is self.photo.pixels else full.size
        return held // 3


@dataclass(frozen=True, eq=False)
class _Ready:
    """A photo at full size whose faces are known, and its row."""

    number: int
    row: Row
    pixels: npt.NDArray[np.uint8]
    faces: PhotoFaces


class _Settled(Exception):  # noqa: N818  an answer about one photo
    """Nothing more is to be done about a photo."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _Search:
    """One shard's photos on their way to rows."""

    def __init__(self, contract: Contract, nets: CascadeNets, wall: Wall, forgotten: Forgotten) -> None:
        self._contract, self._nets, self._wall, self._forgotten = contract, nets, wall, forgotten
        self._faces: dict[int, list[Row]] = {}
        self._first: dict[str, Row] = {}
        self._twins: list[tuple[Row, Row]] = []

    def rows_of(self, listed: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Rows of the photos and of their faces, in the order of the listing."""
        limit = self._contract.limits.max_bytes
        rows = [_row_as_listed(row, limit) for row in listed]
        with ThreadPoolExecutor(_READERS) as readers:
            groups = _groups(listed, max_bytes=limit)
            reading = _start_reading(next(groups, []), listed, limit, readers)
            while reading:
                opened: list[_Opened] = []
                wait(future for _, future in reading)  # nothing else takes memory while photos are decoded
                for number, future in reading:
                    one = self._open(number, rows[number], listed[number], future)
                    if one is None:
                        continue
                    if opened and sum(o.held_px for o in opened) + one.held_px > _BATCH_PIXELS:
                        self._search(opened)
                        opened = []
                    opened.append(one)
                reading = _start_reading(next(groups, []), listed, limit, readers)
                self._search(opened)
        for twin, first in self._twins:
            twin.update({name: first.get(name) for name in _OF_THE_BYTES})
        return rows, [face for number in sorted(self._faces) for face in self._faces[number]]

    def _open(self, number: int, row: Row, listed: Row, reading: Future[bytes]) -> _Opened | None:
        """The photo, or None where its row is complete."""
        try:
            data = self._bytes_of(row, listed, reading)
            if self._forgotten.has("photo", row["photo_sha256"]):
                raise _Settled("forgotten", "it was forgotten")
            if (first := self._first.setdefault(row["photo_sha256"], row)) is not row:
                self._twins.append((row, first))
                return None
            if (reason := self._wall.verdict(number)) is not None:
                raise _Settled("unreadable", reason)
            with self._wall.around(number):
                photo = read_photo(data, limits=self._contract.limits, max_side_px=self._contract.detection.max_side_px)
        except (_Settled, PhotoRefused) as settled:
            row |= {"status": settled.status, "reason": settled.reason}
            return None
        return _Opened(number, row, data, photo)

    def _bytes_of(self, row: Row, listed: Row, reading: Future[bytes]) -> bytes:
        """What was read, its hash noted in the row.

        Raises:
            _Settled: it could not be read, is too large, or is not what was listed.
        """
        if (error := reading.exception()) is not None:  # the photo is tried again by a later build
            why = error if isinstance(error, LookalikeError) else type(error).__name__
            raise _Settled("failed", f"cannot be read: {why}")
        data = reading.result()
        limit = self._contract.limits.max_bytes
        if len(data) > limit:
            raise _Settled("too_large", f"the file has more than {limit} bytes, the limit")
        if listed["size"] and len(data) != listed["size"]:
            raise _Settled("failed", f"the file changed: {listed['size']} bytes were listed, {len(data)} read")
        row |= {"photo_sha256": sha256_hex(data), "bytes": len(data)}
        return data

    def _search(self, opened: list[_Opened]) -> None:
        """Find the faces of a batch and complete its photos' rows."""
        found = find_in_photos([one.photo for one in opened], nets=self._nets, settings=self._contract.detection)
        ready: list[_Ready] = []
        for one, faces in zip(opened, found, strict=True):
            row, photo = one.row, one.photo
            row |= {
                "width": photo.full_width,
                "height": photo.full_height,
                "exif_orientation": photo.exif_orientation,
            }
            if not faces.faces:
                row |= {"status": "no_face", "reason": "no face was found"}
                continue
            try:
                with self._wall.around(one.number):
                    pixels_HWC = full_pixels(photo, one.data, limits=self._contract.limits)
            except PhotoRefused as refused:  # its small version could be decoded, the full one not
                row |= {"status": refused.status, "reason": refused.reason}
                continue
            row |= {"status": "indexed", "num_faces": len(faces.faces), "rotation_used": faces.rotation}
            ready.append(_Ready(one.number, row, pixels_HWC, faces))
            if photo.full is None:  # decoded only now: held no longer than its crops need
                self._cut(ready)
                ready = []
        self._cut(ready)

    def _cut(self, ready: Sequence[_Ready]) -> None:
        """The rows and crops of photos' faces; by several threads beside a GPU, after all decoding behind the wall."""

        def rows_of(one: _Ready) -> list[Row]:
            return rows_of_faces(one.row, one.pixels, one.faces, contract=self._contract)

        cut = in_threads(rows_of, ready, threads=cutting_threads(self._nets.device))
        self._faces |= {one.number: rows for one, rows in zip(ready, cut, strict=True)}


def _row_as_listed(listed: Row, limit: int) -> Row:
    """A photo's row before it is read, complete where the photo is too large to be."""
    row = {
        "uri": listed["uri"],
        "bytes": listed["size"],
        "etag": listed["etag"],
        "mtime_ns": listed["mtime_ns"],
        "photo_sha256": None,
        "num_faces": 0,
        "rotation_used": 0,
    }
    if listed["size"] > limit:
        reason = f"the file has {listed['size']} bytes, the limit is {limit}"
        row |= {"status": "too_large", "reason": reason}
    return row


def _groups(listed: Sequence[Row], *, max_bytes: int) -> Iterator[list[int]]:
    """Numbers of the photos that are read at a time: some tens, and not too many bytes; too large ones are left out."""
    group: list[int] = []
    held = 0
    for number, row in enumerate(listed):
        size = int(row["size"]) or _UNKNOWN_BYTES
        if size > max_bytes:
            continue
        if group and (len(group) == _GROUP_PHOTOS or held + size > _GROUP_BYTES):
            yield group
            group, held = [], 0
        group.append(number)
        held += size
    if group:
        yield group


def _start_reading(
    numbers: Sequence[int], listed: Sequence[Row], limit: int, readers: ThreadPoolExecutor
) -> list[tuple[int, Future[bytes]]]:
    """Start to read a group, each photo at most one byte further than it was listed, or may be."""
    return [
        (n, readers.submit(read_uri, str(listed[n]["uri"]), max_bytes=int(listed[n]["size"]) or limit)) for n in numbers
    ]
