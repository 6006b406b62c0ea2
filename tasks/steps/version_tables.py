"""The tables of the next version: rows of the version before where their shard stays, and the rows of shards that are new.

Columns throughout. What is read of a shard follows what is new.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.manifest import Manifest
from store.schemas import ADDED_PHOTOS, FACES, VERSION_FACES, VERSION_PHOTOS
from store.shards import read_faces, read_photos
from store.storage import Storage
from store.version_files import read_faces_of, read_photos_of, taken
from store.versions import PublishedVersion

__all__ = [
    "Before",
    "NextPhotos",
    "faces_of_photos",
    "photos_told",
    "read_before",
    "version_faces",
    "version_photos",
    "with_duplicates",
]

Rows = npt.NDArray[np.int64]

_OF_THE_SHARD = ("photo_sha256", "status", "reason", "width", "height", "num_faces")
_BEGIN = 8  # bytes of a hash
_OF_THE_FACE = [n for n in VERSION_FACES.names if n in FACES.names and n != "uri"]


@dataclass(frozen=True)
class Before:
    """What the version before knows that need not be read again.

    Attributes:
        photos: VERSION_PHOTOS.
        faces: VERSION_FACES.
        manifest: its manifest; None where there is no such version, or one of another contract.
    """

    photos: pa.Table
    faces: pa.Table
    manifest: Manifest | None


@dataclass(frozen=True)
class NextPhotos:
    """The photos of the next version.

    Attributes:
        table: VERSION_PHOTOS, by rising uri.
        before: int64 (N,), the row of the version before that told the same of each, from the same shard; -1 where none did.
    """

    table: pa.Table
    before: Rows


def read_before(storage: Storage, version: PublishedVersion | None, *, contract: str) -> Before:
    """The version before, as far as it serves a build under this contract."""
    if version is None or version.manifest.contract.id != contract:
        return Before(VERSION_PHOTOS.empty_table(), VERSION_FACES.empty_table(), None)
    photos, faces = read_photos_of(storage, version), read_faces_of(storage, version)
    return Before(photos, faces, version.manifest)


def version_photos(storage: Storage, planned: pa.Table, before: Before, *, contract: str) -> NextPhotos:
    """VERSION_PHOTOS by rising uri; of photos with equal bytes the first is indexed, the others are duplicates.

    A planned photo that its shard holds no row of was forgotten; it has no row here either.

    Args:
        storage: the store.
        planned: PLAN, by rising uri.
        before: the version before.
        contract: the contract's id.
    """
    rows_N = _rows_before(planned, before.photos)
    at_N = rows_N.copy()
    told, count = [before.photos.select(_OF_THE_SHARD)], before.photos.num_rows
    others = planned.append_column("place", pa.array(np.arange(planned.num_rows))).filter(rows_N < 0)
    for shard, rows in _by_shard(others):
        stored = read_photos(storage, contract=contract, shard=shard)
        where = pc.index_in(rows["uri"], value_set=stored["uri"].combine_chunks())
        held = _mask(pc.is_valid(where))
        at_N[rows["place"].to_numpy()[held]] = count + where.filter(pa.array(held)).to_numpy()
        told.append(stored.select(_OF_THE_SHARD).cast(told[0].schema))
        count += stored.num_rows
    if not (there := at_N >= 0).all():
        planned, rows_N, at_N = planned.filter(there), rows_N[there], at_N[there]
    found = taken(told, at_N)
    columns = {name: found[name] for name in _OF_THE_SHARD}
    return NextPhotos(with_duplicates(_with_columns(planned, columns).select(VERSION_PHOTOS.names)), rows_N)


def version_faces(storage: Storage, photos: NextPhotos, before: Before, *, contract: str) -> pa.Table:
    """VERSION_FACES by rising face_id: the faces of every indexed photo, from the shard that its row stands in.

    Rows of the version before are taken as they stand where no photo with the same bytes has come, gone or changed.

    Args:
        storage: the store.
        photos: of the next version.
        before: the version before.
        contract: the contract's id.
    """
    if not before.photos.num_rows:
        parts = [_faces_of(storage, photos.table, before, contract=contract)]
        rows = np.arange(parts[0].num_rows)
    else:
        touched = _touched(photos, before.photos)
        old = _mask(pc.is_in(before.faces["photo_sha256"], value_set=touched))
        some = Before(_having(before.photos, touched), before.faces.filter(old), before.manifest)
        anew = _faces_of(storage, _having(photos.table, touched), some, contract=contract)
        rows = np.concatenate([np.flatnonzero(~old), len(old) + np.arange(anew.num_rows)])
        parts = [before.faces, anew]
    ids = np.concatenate([part["face_id"].to_numpy() for part in parts])[rows]
    return taken(parts, rows[np.argsort(ids, kind="stable")])


def _rows_before(planned: pa.Table, before: pa.Table) -> Rows:
    """The row of the version before that a planned photo's shard has told of, int64 (N,), -1 where there is none.

    It is the one that the plan names, if it is what the plan saw; all other rows are read from their shards.
    """
    rows_N: Rows = pc.fill_null(planned["row_before"], -1).to_numpy().copy()
    rows_N[rows_N >= before.num_rows] = -1
    named = np.flatnonzero(rows_N >= 0)
    said = ["uri", "shard"]
    then, now = taken([before.select(said)], rows_N[named]), planned.select(said)
    now = now if len(named) == len(rows_N) else taken([now], named)
    same = [_mask(pc.equal(then[name], now[name])) for name in said]
    rows_N[named[~(same[0] & same[1])]] = -1
    return rows_N


def _touched(photos: NextPhotos, before: pa.Table) -> pa.Array:
    """Hashes of photos that are not told of by the same rows as before."""
    kept = photos.before >= 0
    now, then = photos.table, before.select(["status", "label"]).take(pa.array(photos.before[kept]))
    same = np.ones(then.num_rows, np.bool_)
    for name in ("status", "label"):
        column = now[name].filter(pa.array(kept))
        equal = pc.equal(column, then[name])
        same &= _mask(pc.or_kleene(equal, pc.and_(pc.is_null(column), pc.is_null(then[name]))))
    stays = np.zeros(before.num_rows, np.bool_)
    stays[photos.before[kept][same]] = True
    kept[kept] = same
    hashes = [now["photo_sha256"].filter(pa.array(~kept)), before["photo_sha256"].filter(pa.array(~stays))]
    return pc.drop_null(pc.unique(pa.chunked_array([chunk for one in hashes for chunk in one.chunks], pa.string())))


def _having(photos: pa.Table, hashes: pa.Array) -> pa.Table:
    return photos.filter(_mask(pc.is_in(photos["photo_sha256"], value_set=hashes)))


def _faces_of(storage: Storage, photos: pa.Table, before: Before, *, contract: str) -> pa.Table:
    """VERSION_FACES of these photos, in any order; each has the rows of all photos with its bytes beside it."""
    primary = photos.filter(pc.equal(photos["status"], "indexed"))
    covered = _covered(primary, before)
    parts = [_of_primary(before.faces.select([*_OF_THE_FACE, "shard"]), primary.filter(covered))]
    for shard, missing in _by_shard(primary.filter(~covered)):
        faces = read_faces(storage, contract=contract, shard=shard, columns=_OF_THE_FACE)
        named = faces.append_column(VERSION_FACES.field("shard"), pa.array([shard] * faces.num_rows, pa.string()))
        parts.append(_of_primary(named, missing))
    faces = pa.concat_tables(parts)
    at = pc.index_in(faces["photo_sha256"], value_set=primary["photo_sha256"].combine_chunks())
    hashes, uris = _uris(photos)
    named_by = pc.index_in(faces["photo_sha256"], value_set=hashes)
    shown = _with_columns(
        faces, {"uri": primary["uri"].take(at), "label": primary["label"].take(at), "uris": uris.take(named_by)}
    )
    return shown.select(VERSION_FACES.names).cast(VERSION_FACES)


def photos_told(storage: Storage, planned: pa.Table, *, contract: str) -> pa.Table | None:
    """ADDED_PHOTOS of planned photos as their shards tell of them, none of them a duplicate; None where one has no row there any more.

    Args:
        storage: the store.
        planned: PLANNED, by rising row.
        contract: the contract's id.
    """
    parts = [ADDED_PHOTOS.empty_table()]
    for shard, rows in _by_shard(planned):
        stored = read_photos(storage, contract=contract, shard=shard)
        where = pc.index_in(rows["uri"], value_set=stored["uri"].combine_chunks())
        if where.null_count:
            return None
        told = stored.select(_OF_THE_SHARD).take(where)
        parts.append(
            _with_columns(rows, {name: told[name] for name in _OF_THE_SHARD})
            .select(ADDED_PHOTOS.names)
            .cast(ADDED_PHOTOS)
        )
    return pa.concat_tables(parts).sort_by("row")


def faces_of_photos(storage: Storage, photos: pa.Table, *, contract: str) -> pa.Table:
    """VERSION_FACES by rising face_id of some photos, all that have these bytes among them, read from their shards."""
    nothing = Before(VERSION_PHOTOS.empty_table(), VERSION_FACES.empty_table(), None)
    return _faces_of(storage, photos, nothing, contract=contract).sort_by("face_id").combine_chunks()


def _by_shard(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each shard's name and its rows, in one pass whatever the number of shards."""
    ordered = table.sort_by("shard")
    codes = ordered["shard"].combine_chunks().dictionary_encode()
    of_row = codes.indices.to_numpy(zero_copy_only=False)
    ends = np.searchsorted(of_row, np.arange(len(codes.dictionary) + 1))
    for n, shard in enumerate(codes.dictionary.to_pylist()):
        yield shard, ordered.slice(ends[n], ends[n + 1] - ends[n])


def with_duplicates(photos: pa.Table) -> pa.Table:
    """Of indexed photos with equal bytes, by rising uri, all but the first are duplicates; before they all were indexed."""
    twins = pc.equal(photos["status"], "duplicate")
    indexed = np.flatnonzero(_mask(pc.or_(twins, pc.equal(photos["status"], "indexed"))))
    later = np.zeros(photos.num_rows, np.bool_)
    hashes = photos["photo_sha256"]
    hashes = hashes if len(indexed) == photos.num_rows else hashes.take(pa.array(indexed))
    later[indexed[_seen_before(hashes.combine_chunks())]] = True
    if not later.any() and not pc.any(twins).as_py():
        return photos
    reason = pc.if_else(twins, pa.scalar(None, pa.string()), photos["reason"])
    status = pc.if_else(twins, "indexed", photos["status"])
    return _with_columns(
        photos,
        {
            "status": pc.if_else(pa.array(later), "duplicate", status),
            "reason": pc.if_else(pa.array(later), "the same bytes are indexed under another uri", reason),
        },
    )


def _seen_before(hashes: pa.Array) -> Rows:
    """Which of these an equal one comes before, ascending; those alone are compared that begin like another one."""
    if (
        hashes.null_count
        or not len(hashes)
        or (lengths := _lengths_of(hashes)).min() != lengths.max()
        or lengths[0] < _BEGIN
    ):
        alike = np.arange(len(hashes))
    else:
        text = np.frombuffer(hashes.buffers()[2], np.uint8)
        start = int(np.frombuffer(hashes.buffers()[1], np.int32)[hashes.offset])
        table = text[start : start + len(hashes) * lengths[0]].reshape(len(hashes), lengths[0])
        begins = np.ascontiguousarray(table[:, :_BEGIN]).view(np.uint64)[:, 0]
        order = np.argsort(begins)
        same = begins[order[1:]] == begins[order[:-1]]
        alike = np.unique(np.concatenate([order[1:][same], order[:-1][same]]))
    codes = hashes.take(pa.array(alike)).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    first = np.unique(codes, return_index=True)[1]
    return np.delete(alike, first)


def _lengths_of(texts: pa.Array) -> npt.NDArray[np.int32]:
    lengths: npt.NDArray[np.int32] = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    return lengths


def _covered(primary: pa.Table, before: Before) -> npt.NDArray[np.bool_]:
    """Which photos' faces the version before has from the same shard."""
    indexed = before.photos.filter(pc.equal(before.photos["status"], "indexed"))
    at = pc.index_in(primary["photo_sha256"], value_set=indexed["photo_sha256"].combine_chunks())
    return _mask(pc.equal(indexed["shard"].take(at), primary["shard"]))


def _of_primary(faces: pa.Table, primary: pa.Table) -> pa.Table:
    """The faces that stand in the shard of their photo's row."""
    at = pc.index_in(faces["photo_sha256"], value_set=primary["photo_sha256"].combine_chunks())
    return faces.filter(_mask(pc.equal(primary["shard"].take(at), faces["shard"])))


def _uris(photos: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Each hash that is indexed, and the list of all uris with these bytes, by rising uri."""
    shown = photos.filter(pc.is_in(photos["status"], value_set=pa.array(["indexed", "duplicate"])))
    hashes = shown["photo_sha256"].combine_chunks().dictionary_encode()
    codes = hashes.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    offsets = np.searchsorted(codes[order], np.arange(len(hashes.dictionary) + 1)).astype(np.int32)
    uris = shown["uri"].combine_chunks().take(pa.array(order))
    return hashes.dictionary, pa.ListArray.from_arrays(pa.array(offsets), uris)


def _with_columns(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    for name, values in columns.items():
        field = VERSION_PHOTOS.field(name) if name in VERSION_PHOTOS.names else VERSION_FACES.field(name)
        at = table.schema.get_field_index(name)
        table = table.append_column(field, values) if at < 0 else table.set_column(at, field, values)
    return table


def _mask(values: pa.ChunkedArray | Iterable[bool]) -> npt.NDArray[np.bool_]:
    """As numpy, null as false."""
    mask: npt.NDArray[np.bool_] = np.asarray(pc.fill_null(values, False)).astype(np.bool_)
    return mask
