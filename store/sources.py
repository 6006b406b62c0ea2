"""Photos as they are listed: a folder, an s3:// prefix, or a text file with a uri a line."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from store.errors import QueryError, SourceError
from store.storage import decode_path, encode_path, is_local, normalise_uri

__all__ = ["ListedPhoto", "Listing", "list_source", "read_asked", "read_uri"]


@dataclass(frozen=True)
class ListedPhoto:
    """One photo as a listing shows it, unread.

    Attributes:
        uri: normalised.
        size: bytes.
        etag: the object store's, or None.
        mtime_ns: nanoseconds since the epoch, or None where there is an etag.
    """

    uri: str
    size: int
    etag: str | None
    mtime_ns: int | None


@dataclass(frozen=True)
class Listing:
    """What a source holds: its photos by rising uri, and the number of other files."""

    source: str
    photos: tuple[ListedPhoto, ...]
    ignored: int


def list_source(source: str, *, suffixes: frozenset[str], store_uri: str | None = None) -> Listing:
    """List every photo of a source; hidden files and the store itself are passed over.

    Args:
        source: a folder, an `s3://` prefix, or a `.txt` file with one path or url a line.
        suffixes: of the files that count as photos, lower case with the dot.
        store_uri: the store, where it may lie inside the source.

    Raises:
        SourceError: the source is missing, empty, or holds no photo; the message says which.
    """
    uri = normalise_uri(source)
    if uri.endswith(".txt"):
        found = _from_list(uri)
    elif is_local(uri):
        found = _from_folder(uri, store_uri)
    else:
        found = _from_bucket(uri, store_uri)
    photos: dict[str, ListedPhoto] = {}
    ignored = 0
    for photo in found:
        if os.path.splitext(photo.uri.split("?")[0])[1].lower() in suffixes:
            photos[photo.uri] = photo
        else:
            ignored += 1
    if not photos and not ignored:
        raise SourceError(f"the source {uri} is empty: give a folder, an s3:// prefix or a .txt list of photos")
    if not photos:
        kinds = " ".join(sorted(suffixes))
        raise SourceError(f"the source {uri} holds {ignored} files but no photo: wanted one of {kinds}")
    return Listing(source=uri, photos=tuple(photos[key] for key in sorted(photos)), ignored=ignored)


def read_uri(uri: str, *, max_bytes: int) -> bytes:
    """The bytes of a photo, at most `max_bytes` + 1 of them, so that the caller sees that there are more.

    Raises:
        OSError: it cannot be read, as the file system or the service says.
    """
    if is_local(uri):
        with Path(decode_path(uri)).open("rb") as file:
            return file.read(max_bytes + 1)
    with fsspec.open(uri, "rb") as file:
        data: bytes = file.read(max_bytes + 1)
        return data


def read_asked(image: str, *, max_bytes: int) -> bytes:
    """The bytes of a picture that somebody asks with.

    Raises:
        QueryError: it is missing or cannot be read; the message says why.
    """
    uri = normalise_uri(image)
    try:
        return read_uri(uri, max_bytes=max_bytes)
    except FileNotFoundError as error:
        raise QueryError(f"{uri} does not exist: give the path or url of a photo") from error
    except IsADirectoryError as error:
        raise QueryError(f"{uri} is a folder: give the path or url of one photo") from error
    except Exception as error:  # every backend has its own kinds
        raise QueryError(f"{uri} cannot be read ({type(error).__name__}: {error})") from error


def _from_folder(uri: str, store_uri: str | None) -> Iterator[ListedPhoto]:
    root = decode_path(uri)
    if not os.path.isdir(root):
        what = "is a file" if os.path.exists(root) else "does not exist"
        raise SourceError(f"the source {uri} {what}: give a folder of photos, an s3:// prefix or a .txt list")
    store = decode_path(store_uri) if store_uri is not None and is_local(store_uri) else None
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and os.path.join(folder, n) != store)
        for name in files:
            path = os.path.join(folder, name)
            if name.startswith(".") or not os.path.isfile(path):
                continue
            stat = os.stat(path)
            yield ListedPhoto(uri=encode_path(path), size=stat.st_size, etag=None, mtime_ns=stat.st_mtime_ns)


def _from_bucket(uri: str, store_uri: str | None) -> Iterator[ListedPhoto]:
    protocol = uri.split("://", 1)[0]
    try:
        fs, root = fsspec.core.url_to_fs(uri)
        fs.invalidate_cache()
        entries: dict[str, dict[str, Any]] = fs.find(root, detail=True)
    except Exception as error:  # every backend has its own kinds
        raise SourceError(f"the source {uri} cannot be listed ({type(error).__name__}: {error})") from error
    if not entries and not fs.exists(root):
        raise SourceError(f"the source {uri} does not exist: give a folder of photos, an s3:// prefix or a .txt list")
    for key, info in entries.items():
        full = f"{protocol}://{key}"
        hidden = any(part.startswith(".") for part in key[len(root) :].split("/"))
        if hidden or (store_uri is not None and full.startswith(store_uri + "/")):
            continue
        yield _from_info(full, info)


def _from_list(uri: str) -> Iterator[ListedPhoto]:
    try:
        lines = read_uri(uri, max_bytes=2**31).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the list {uri} cannot be read ({type(error).__name__}: {error})") from error
    for line in lines:
        text = line.strip()
        if text and not text.startswith("#"):
            yield _look_up(normalise_uri(text))


def _look_up(uri: str) -> ListedPhoto:
    """A listed uri's size and time; what cannot be looked up keeps size 0 and fails when it is read, as a row."""
    try:
        fs, path = fsspec.core.url_to_fs(decode_path(uri) if is_local(uri) else uri)
        return _from_info(uri, fs.info(path))
    except Exception:  # the reason is found again, and recorded, when the photo is read
        return ListedPhoto(uri=uri, size=0, etag=None, mtime_ns=None)


def _from_info(uri: str, info: dict[str, Any]) -> ListedPhoto:
    etag = info.get("ETag") or info.get("etag")
    modified = info.get("LastModified") or info.get("mtime")
    mtime_ns = None
    if etag is None and modified is not None:
        seconds = modified.timestamp() if isinstance(modified, datetime) else float(modified)
        mtime_ns = round(seconds * 1e9)
    return ListedPhoto(
        uri=uri, size=int(info.get("size") or 0), etag=str(etag).strip('"') if etag else None, mtime_ns=mtime_ns
    )
