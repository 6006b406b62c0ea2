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
from store.schemas import FACES, VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.shards import read_faces, read_photos
from store.storage import Storage
from store.versions import PublishedVersion, read_file

__all__ = ["Before", "read_before", "version_faces", "version_photos"]

_OF_THE_SHARD = ("photo_sha256", "status", "reason", "width", "height", "num_faces")
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


def read_before(storage: Storage, version: PublishedVersion | None, *, contract: str) -> Before:
    """The version before, as far as it serves a build under this contract."""
    if version is None or version.manifest.contract.id != contract:
        return Before(VERSION_PHOTOS.empty_table(), VERSION_FACES.empty_table(), None)
    photos, faces = (
        from_parquet(read_file(storage, version, name), schema, where=f"version {version.number}'s {name}")
        for name, schema in (("photos.parquet", VERSION_PHOTOS), ("faces.parquet", VERSION_FACES))
    )
    return Before(photos, faces, version.manifest)


def version_photos(storage: Storage, planned: pa.Table, before: Before, *, contract: str) -> pa.Table:
    """VERSION_PHOTOS by rising uri; of photos with equal bytes the first is indexed, the others are duplicates.

    A planned photo that its shard holds no row of was forgotten; it has no row here either.

    Args:
        storage: the store.
        planned: PLAN, by rising uri.
        before: the version before.
        contract: the contract's id.
    """
    at = pc.index_in(planned["uri"], value_set=before.photos["uri"].combine_chunks())
    stays = _mask(pc.equal(before.photos["shard"].take(at), planned["shard"]))
    known = planned.filter(stays)
    old = before.photos.take(at.filter(stays))
    parts = [_with_columns(known, {name: old[name] for name in _OF_THE_SHARD})]
    places = [np.flatnonzero(stays)]
    others = planned.append_column("place", pa.array(np.arange(planned.num_rows))).filter(~stays)
    for shard, rows in _by_shard(others):
        stored = read_photos(storage, contract=contract, shard=shard)
        where = pc.index_in(rows["uri"], value_set=stored["uri"].combine_chunks())
        there = pc.is_valid(where)
        found, held = stored.take(where.filter(there)), rows.filter(there)
        places.append(held["place"].to_numpy())
        parts.append(_with_columns(held.drop_columns(["place"]), {name: found[name] for name in _OF_THE_SHARD}))
    by_uri = np.argsort(np.concatenate(places), kind="stable")  # as planned
    return _with_duplicates(pa.concat_tables(parts).take(pa.array(by_uri)))


def version_faces(storage: Storage, photos: pa.Table, before: Before, *, contract: str) -> pa.Table:
    """VERSION_FACES by rising face_id: the faces of every indexed photo, from the shard that its row stands in.

    Rows of the version before are taken as they stand where no photo with the same bytes has come, gone or changed.

    Args:
        storage: the store.
        photos: VERSION_PHOTOS of the next version.
        before: the version before.
        contract: the contract's id.
    """
    touched = _touched(photos, before.photos)
    if touched is None:
        faces = _faces_of(storage, photos, before, contract=contract)
    else:
        old = _mask(pc.is_in(before.faces["photo_sha256"], value_set=touched))
        some = Before(_having(before.photos, touched), before.faces.filter(old), before.manifest)
        anew = _faces_of(storage, _having(photos, touched), some, contract=contract)
        faces = pa.concat_tables([before.faces.filter(~old), anew])
    by_id = np.argsort(faces["face_id"].to_numpy(), kind="stable")
    return faces.take(pa.array(by_id))


def _touched(photos: pa.Table, before: pa.Table) -> pa.Array | None:
    """Hashes of photos that are not told of by the same rows as before; None where there was nothing before."""
    if not before.num_rows:
        return None
    at = pc.index_in(photos["uri"], value_set=before["uri"].combine_chunks())
    there = _mask(pc.is_valid(at))
    now, then = photos.filter(there), before.take(at.filter(there))
    same = np.ones(now.num_rows, np.bool_)
    for name in ("photo_sha256", "shard", "status", "label"):
        equal = pc.equal(now[name], then[name])
        same &= _mask(pc.or_kleene(equal, pc.and_(pc.is_null(now[name]), pc.is_null(then[name]))))
    kept, stays = there.copy(), np.zeros(before.num_rows, np.bool_)
    kept[there] = same
    stays[at.filter(there).to_numpy()[same]] = True
    hashes = [photos["photo_sha256"].filter(~kept), before["photo_sha256"].filter(~stays)]
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


def _by_shard(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each shard's name and its rows, in one pass whatever the number of shards."""
    ordered = table.sort_by("shard")
    codes = ordered["shard"].combine_chunks().dictionary_encode()
    of_row = codes.indices.to_numpy(zero_copy_only=False)
    ends = np.searchsorted(of_row, np.arange(len(codes.dictionary) + 1))
    for n, shard in enumerate(codes.dictionary.to_pylist()):
        yield shard, ordered.slice(ends[n], ends[n + 1] - ends[n])


def _with_duplicates(photos: pa.Table) -> pa.Table:
    """Of indexed photos with equal bytes, by rising uri, all but the first are duplicates; before they all were indexed."""
    twins = pc.equal(photos["status"], "duplicate")
    reason = pc.if_else(twins, pa.scalar(None, pa.string()), photos["reason"])
    indexed = _mask(pc.or_(twins, pc.equal(photos["status"], "indexed")))
    codes = photos["photo_sha256"].filter(indexed).combine_chunks().dictionary_encode().indices
    first = np.zeros(int(indexed.sum()), np.bool_)
    first[np.unique(codes.to_numpy(zero_copy_only=False), return_index=True)[1]] = True
    later = np.zeros(photos.num_rows, np.bool_)
    later[np.flatnonzero(indexed)[~first]] = True
    status = pc.if_else(twins, "indexed", photos["status"])
    return _with_columns(
        photos,
        {
            "status": pc.if_else(pa.array(later), "duplicate", status),
            "reason": pc.if_else(pa.array(later), "the same bytes are indexed under another uri", reason),
        },
    ).select(VERSION_PHOTOS.names)


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
