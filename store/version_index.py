"""Open the index of a version, whether it stands there whole or as changes to that of another version."""

from pathlib import Path
from typing import Any

from store import index_trial
from store.errors import ArtifactError
from store.index_changed import ChangedIndex
from store.index_file import open_index
from store.verified_files import verified_file
from store.version_files import ADDED_INDEX, INDEX_FILE, VersionFiles

__all__ = ["open_index_of"]


def open_index_of(files: VersionFiles, *, known: bool = False, copies: Path | None = None) -> Any:
    """The index, its files mapped; what its manifest says of their hashes is checked first.

    Args:
        files: of the version.
        known: they were written or tried before, as those of a draft and of its parent: no child process tries them first.
        copies: a folder of this machine for objects whose bytes have just been checked, and which are not to be kept.

    Raises:
        ArtifactError: a file is missing, is not what the manifest says, or is no index; or the changes do not fit.
    """
    base = _opened(files, INDEX_FILE, known, copies)
    if files.manifest.changes is None:
        return base
    try:
        return ChangedIndex(base, _opened(files, ADDED_INDEX, known, copies), files.left("vectors"))
    except ArtifactError as error:
        raise ArtifactError(f"{files.called}'s index does not fit together: {error}; roll back or rebuild") from error


def _opened(files: VersionFiles, name: str, known: bool, copies: Path | None) -> Any:
    record = files.manifest.files[name]
    path = None if copies is None else files.storage.local_path(files.paths[name]) or _copied(files, name, copies)
    if path is None:
        path = verified_file(files.storage, files.paths[name], sha256=record.sha256, size=record.bytes)
    where = f"{files.called}'s {'index' if name == INDEX_FILE else name}"
    if not known:
        return open_index(path, sha256=record.sha256, where=where)
    try:
        return index_trial.open_mapped(str(path))
    except ValueError as error:
        raise ArtifactError(f"{where} is not an index that can be asked: {error}") from error


def _copied(files: VersionFiles, name: str, folder: Path) -> Path:
    path = folder / name
    with path.open("wb") as file:
        file.writelines(files.storage.chunks(files.paths[name]))
    return path
