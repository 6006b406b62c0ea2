"""Which faces of a version a query searches: filters become a bit a face before anything is compared."""

import difflib
import json
import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import QueryError
from store.index_filter import Filter, allow_rows, leave_out
from store.storage import Storage, normalise_uri
from store.version_files import read_photos_of
from store.versions import PublishedVersion, read_version
from tasks.steps.open_version import OpenVersion
from tasks.steps.query_options import AS_USUAL, QueryOptions

__all__ = ["allowed_faces"]

Mask = npt.NDArray[np.bool_]

_DATES = ("date", "taken", "taken_at", "datetime")  # of a list's columns; the first that can be read counts
_PHOTOS = ["uri", "photo_sha256", "status", "source", "mtime_ns", "metadata"]
_KEPT = 8
_turn = threading.Lock()


def allowed_faces(
    storage: Storage, opened: OpenVersion, options: QueryOptions, *, asked_sha256: str | None = None
) -> Filter | None:
    """The faces that pass the filters; None where all do.

    Args:
        storage: the store.
        opened: the version whose faces they are.
        options: the filters.
        asked_sha256: of the photo asked with; its faces do not pass where `not_itself` says so.

    Raises:
        QueryError: nobody has such a label, or no photo is from such a source; the message names what comes near.
    """
    allowed = None
    if options.filters != AS_USUAL.filters:
        allowed = allow_rows(opened.index, _passing(storage, opened, options.filters))
    if not options.not_itself or asked_sha256 is None:
        return allowed
    return leave_out(opened.index, allowed, opened.faces.of_photo(asked_sha256))


def _passing(storage: Storage, opened: OpenVersion, filters: tuple[Any, ...]) -> Mask:
    """By rising face id; the same filters asked again cost nothing, for what is opened is one revision of a version."""
    with _turn:
        passes = opened.passing.pop(filters, None)
    if passes is None:
        passes = _filtered(storage, opened, filters)
    with _turn:
        opened.passing[filters] = passes
        while len(opened.passing) > _KEPT:
            opened.passing.pop(next(iter(opened.passing)))
    return passes


def _filtered(storage: Storage, opened: OpenVersion, filters: tuple[Any, ...]) -> Mask:
    labels, sources, taken_from, taken_to, min_quality, not_photos = filters
    faces, number = opened.faces.table, opened.version.number
    passes = np.ones(faces.num_rows, bool)
    if labels:
        passes &= _labelled(faces, labels, number=number)
    if min_quality > 0:
        passes &= _mask(pc.greater_equal(faces["quality"], min_quality))
    if sources or taken_from or taken_to or not_photos:
        photos = _photos(storage, opened.version)
        kept = _mask(pc.is_in(photos["status"], value_set=pa.array(["indexed", "duplicate"])))
        if sources:
            kept &= _from_sources(photos, sources, number=number)
        if taken_from or taken_to:
            kept &= _taken(photos, taken_from, taken_to)
        passes &= _of_photos(faces, photos.filter(kept))
        if not_photos:
            named = pa.array([normalise_uri(uri) for uri in not_photos])
            passes &= ~_of_photos(faces, photos.filter(_mask(pc.is_in(photos["uri"], value_set=named))))
    return passes


def _photos(storage: Storage, version: PublishedVersion) -> pa.Table:
    """What the filters ask of each photo.

    Raises:
        QueryError: the version was rewritten since it was opened.
    """
    if read_version(storage, version.number).manifest.revision != version.manifest.revision:
        raise QueryError(f"version {version.number} was rewritten while it was asked: ask again")
    return read_photos_of(storage, version, _PHOTOS)


def _labelled(faces: pa.Table, labels: Sequence[str], *, number: int) -> Mask:
    known = {label for label in pc.unique(faces["label"]).to_pylist() if label}
    for label in labels:
        if label not in known:
            near = difflib.get_close_matches(label, known, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else f": it knows {len(known):,} people"
            raise QueryError(f"nobody in version {number} is called {label}{hint}")
    return _mask(pc.is_in(faces["label"], value_set=pa.array(labels)))


def _from_sources(photos: pa.Table, sources: Sequence[str], *, number: int) -> Mask:
    """Photos that lie under one of the sources, or that one of them listed."""
    passes = np.zeros(photos.num_rows, bool)
    for source in sources:
        uri = normalise_uri(source)
        under = pc.or_(pc.starts_with(photos["uri"], uri.rstrip("/") + "/"), pc.equal(photos["uri"], uri))
        found = _mask(under) | _mask(pc.equal(photos["source"], uri))
        if not found.any():
            known = sorted({s for s in pc.unique(photos["source"]).to_pylist() if s})
            raise QueryError(f"no photo of version {number} is from {uri}; it was built from {', '.join(known[:5])}")
        passes |= found
    return passes


def _taken(photos: pa.Table, first: date | None, last: date | None) -> Mask:
    """Photos of these days, both included."""
    days = [_day(*row) for row in zip(photos["metadata"].to_pylist(), photos["mtime_ns"].to_pylist(), strict=True)]
    return np.array(
        [day is not None and (first is None or first <= day) and (last is None or day <= last) for day in days], bool
    )


def _day(metadata: str | None, mtime_ns: int | None) -> date | None:
    """The day that the list says, else the file's own, in UTC; None where nobody knows."""
    if metadata and (said := _said_day(metadata)):
        return said
    try:
        return None if mtime_ns is None else datetime.fromtimestamp(mtime_ns / 1e9, UTC).date()
    except (OverflowError, OSError, ValueError):
        return None


def _said_day(metadata: str) -> date | None:
    try:
        columns = {str(name).lower(): value for name, value in json.loads(metadata).items()}
    except (ValueError, AttributeError, RecursionError):
        return None
    for name in _DATES:
        try:
            return datetime.fromisoformat(str(columns[name]).strip()).date()
        except (KeyError, ValueError):
            continue
    return None


def _of_photos(faces: pa.Table, photos: pa.Table) -> Mask:
    return _mask(pc.is_in(faces["photo_sha256"], value_set=photos["photo_sha256"].combine_chunks()))


def _mask(values: Any) -> Mask:
    """As numpy, null as false."""
    mask: Mask = np.asarray(pc.fill_null(values, False)).astype(np.bool_)
    return mask
