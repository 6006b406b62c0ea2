"""Open a version to be asked: whole, checked, and one version only, whatever is published, forgotten or removed meanwhile."""

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError, ManifestError, VersionError
from store.index_search import SearchSettings, index_size, indexed_ids
from store.layout import version_folder
from store.storage import Storage
from store.version_files import ADDED_FACES, ADDED_INDEX, FACES_FILE, INDEX_FILE, LEFT_FILE, files_of
from store.version_index import open_index_of
from store.versions import MANIFEST, PublishedVersion, current_number, published_numbers, read_version
from tasks.steps.face_rows import FaceRows

__all__ = ["OpenVersion", "open_version"]

_TRIES = 5
_KEPT = 2
_DAMAGE = (ArtifactError, ManifestError, VersionError)
_OPENED_FROM = frozenset({INDEX_FILE, FACES_FILE, ADDED_INDEX, ADDED_FACES, LEFT_FILE})


@dataclass(frozen=True)
class OpenVersion:
    """One version, of one revision, as it is asked.

    Attributes:
        version: its number and manifest.
        index: mapped; it stays whole though its file is removed.
        faces: what a result shows, by face id.
        passing: who passes the filters that were asked with last, for whoever asks so again.
    """

    version: PublishedVersion
    index: Any
    faces: FaceRows
    passing: dict[tuple[Any, ...], npt.NDArray[np.bool_]] = field(default_factory=dict, compare=False)

    @property
    def settings(self) -> SearchSettings:
        """How its index is searched; they go with each call."""
        return SearchSettings.of(self.version.manifest.index.parameters)


@dataclass(frozen=True)
class _Kept:
    """What opening a version came to, for as long as its files stay as they were."""

    stamps: tuple[str | None, ...]
    opened: OpenVersion | None
    error: Exception | None = None


_kept: dict[tuple[str, int], _Kept] = {}
_turn = threading.Lock()


def open_version(storage: Storage, number: int | None = None) -> tuple[OpenVersion, tuple[str, ...]]:
    """A version to ask; it is kept open, and opened anew when CURRENT moves or its revision is raised.

    Args:
        storage: the store.
        number: the version; None takes CURRENT, and the newest before it that is whole where CURRENT is damaged.

    Returns:
        The version, and a sentence for each that was refused before it.

    Raises:
        ArtifactError: a file of the version asked for is missing, is not what was published, or cannot be read.
        ManifestError: its manifest cannot be read.
        VersionError: there is no such version, or none at all.
    """
    with _turn:
        if number is not None:
            return _open(storage, number), ()
        for _ in range(_TRIES):
            before = _current(storage)
            try:
                return _open_newest(storage, before)
            except _DAMAGE:
                if str(_current(storage)) == str(before):
                    raise
    return _open(storage, read_version(storage).number), ()


def _open_newest(storage: Storage, current: int | Exception | None) -> tuple[OpenVersion, tuple[str, ...]]:
    """CURRENT, or the newest whole version before it; all that there are where CURRENT says nothing."""
    if current is None:
        return _open(storage, read_version(storage).number), ()
    first, refusals = None, []
    if isinstance(current, Exception):
        first, refusals = current, [f"{current}"]
    else:
        try:
            return _open(storage, current), ()
        except _DAMAGE as error:
            first, refusals = error, [f"version {current} is damaged: {error}"]
            if _current(storage) != current:
                raise
    below = None if isinstance(current, Exception) else current
    for number in sorted((n for n in published_numbers(storage) if below is None or n < below), reverse=True):
        try:
            opened = _open(storage, number)
        except _DAMAGE as error:
            refusals.append(f"version {number} is damaged: {error}")
            continue
        return opened, tuple(f"{said}; version {number} answers in its place" for said in refusals)
    raise first


def _current(storage: Storage) -> int | Exception | None:
    """CURRENT's number, None where there is none, or why it cannot be read."""
    try:
        return current_number(storage)
    except VersionError as error:
        return error


def _open(storage: Storage, number: int) -> OpenVersion:
    """The version, as it is now; where its files vanish while they are opened, because a new revision took their place, that one."""
    key, manifest = (storage.uri, number), f"{version_folder(number)}/{MANIFEST}"
    for tries_left in reversed(range(_TRIES)):
        kept, stamp = (
            _kept.get(key),
            storage.stamp(manifest),
        )  # before the manifest is read: a newer one is noticed next time
        if kept and kept.opened and kept.stamps[0] == stamp:
            return kept.opened
        version = read_version(storage, number)
        stamps = (
            stamp,
            *(storage.stamp(version.path_of(name)) for name in sorted(_OPENED_FROM & version.manifest.files.keys())),
        )
        if kept and kept.error and kept.stamps == stamps:
            raise type(kept.error)(str(kept.error))
        try:
            opened = _open_files(storage, version)
        except _DAMAGE as error:
            if tries_left and storage.stamp(manifest) != stamp:
                continue
            _keep(key, _Kept(stamps=stamps, opened=None, error=error))
            raise
        _keep(key, _Kept(stamps=stamps, opened=opened))
        return opened
    raise AssertionError


def _keep(key: tuple[str, int], kept: _Kept) -> None:
    _kept.pop(key, None)
    _kept[key] = kept
    while len(_kept) > _KEPT:
        _kept.pop(next(iter(_kept)))


def _open_files(storage: Storage, version: PublishedVersion) -> OpenVersion:
    """A version's index and faces, both named by one manifest."""
    number, manifest = version.number, version.manifest
    files = files_of(storage, version)
    index, table = open_index_of(files), files.faces()
    if (got := index_size(index)[1]) != manifest.encoder.dimension:
        raise ArtifactError(
            f"encoder mismatch: version {number}'s index holds vectors of {got}, its encoder {manifest.encoder.id} makes "
            f"{manifest.encoder.dimension}; roll back or rebuild"
        )
    if not np.array_equal(indexed_ids(index), np.sort(table.column("face_id").to_numpy())):
        raise ArtifactError(f"version {number}'s index holds other faces than its faces.parquet; roll back or rebuild")
    return OpenVersion(version=version, index=index, faces=FaceRows(table))
