"""Photos as they are listed: a folder, a glob, an s3:// or other url that fsspec knows, or a list of paths and urls."""

import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import fsspec
from fsspec.utils import glob_translate

from store.errors import EmptySourceError, LookalikeError, QueryError, RefusedError, SourceError, UnreadableError
from store.s3_objects import ListedObject, fetch_object, list_objects, look_up_object, split_uri
from store.source_lists import LIST_SUFFIXES, read_list
from store.storage import decode_path, encode_path, is_local, normalise_uri
from store.web import fetch, is_web, look_up

__all__ = ["ListedPhoto", "Listing", "check_source", "list_source", "read_asked", "read_uri"]


@dataclass(frozen=True, slots=True)
class ListedPhoto:
    """One photo as a listing shows it, unread.

    Attributes:
        uri: normalised.
        size: bytes.
        etag: the object store's, or None.
        mtime_ns: nanoseconds since the epoch, or None where there is an etag.
        label: the person's name, where a list gives one.
        metadata: JSON object of a list's other columns, or None.
    """

    uri: str
    size: int
    etag: str | None
    mtime_ns: int | None
    label: str | None = None
    metadata: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a source holds: its photos by rising uri, and the number of other files."""

    source: str
    photos: tuple[ListedPhoto, ...]
    ignored: int


_WILDCARD = re.compile(r"[*?\[]")
_LOOK_UPS = 16


def list_source(source: str, *, suffixes: frozenset[str], store_uri: str | None = None) -> Listing:
    """List every photo of a source; hidden files and the store itself are passed over.

    Links to files are followed, links to folders are not.

    Args:
        source: a folder, a glob, an `s3://` prefix or another url that fsspec lists, or a list (.txt, .csv, .parquet) of
            paths and urls. What exists under its own name is no glob. A uri that a list names twice counts once, by its
            last row.
        suffixes: of the files that count as photos, lower case with the dot.
        store_uri: the store, where it may lie inside the source.

    Raises:
        EmptySourceError: the source is empty, or holds no photo.
        SourceError: the source is missing, or a part of it cannot be listed; the message says which.
    """
    uri = normalise_uri(source)
    photos: dict[str, ListedPhoto] = {}
    ignored = 0
    for photo in _found(uri, store_uri):
        if _is_photo(photo, suffixes):
            photos[photo.uri] = photo
        else:
            ignored += 1
    _refuse_without_photos(uri, photos=len(photos), ignored=ignored, suffixes=suffixes)
    return Listing(source=uri, photos=tuple(photos[key] for key in sorted(photos)), ignored=ignored)


def check_source(source: str, *, suffixes: frozenset[str], store_uri: str | None = None) -> None:
    """Refuse a source on this machine that holds no photo; looks no further than the first one, and not into urls.

    Raises:
        SourceError: as `list_source` does.
        RefusedError: an s3:// address has a name or password in it.
    """
    uri = normalise_uri(source)
    if _is_s3(uri):
        split_uri(uri)  # which a name or password in it does not get past
    if not is_local(uri) or _is_list(uri):
        return
    ignored = 0
    for photo in _found(uri, store_uri):
        if _is_photo(photo, suffixes):
            return
        ignored += 1
    _refuse_without_photos(uri, photos=0, ignored=ignored, suffixes=suffixes)


def _found(uri: str, store_uri: str | None) -> Iterator[ListedPhoto]:
    if _is_list(uri):
        return _from_list(uri)
    if is_web(uri):
        raise SourceError(f"the source {uri} cannot be listed: name web addresses in a list (.txt, .csv or .parquet)")
    if _is_glob(uri):
        return _from_glob(uri, store_uri)
    return _from_folder(uri, store_uri) if is_local(uri) else _from_bucket(uri, store_uri)


def _is_list(uri: str) -> bool:
    is_folder = is_local(uri) and os.path.isdir(decode_path(uri))
    return uri.endswith(LIST_SUFFIXES) and not is_folder and not _is_glob(uri)


def _is_glob(uri: str) -> bool:
    """Whether the uri has a wildcard and nothing stands under it as it is written."""
    if not _WILDCARD.search(uri):
        return False
    if is_local(uri):
        return not os.path.lexists(decode_path(uri))
    try:
        if _is_s3(uri):
            return look_up_object(uri) is None and not any(True for _ in list_objects(uri, _below(uri), at_most=1))
        fs, path = fsspec.core.url_to_fs(uri)
        return not fs.exists(path)
    except Exception:  # the reason is found again, and told, when it is listed
        return True


def _from_glob(uri: str, store_uri: str | None) -> Iterator[ListedPhoto]:
    """What the pattern matches, and everything in the folders that it matches."""
    match = _WILDCARD.search(uri)
    assert match is not None  # noqa: S101
    base = uri[: match.start()].rpartition("/")[0] or "/"
    if base.endswith(":/"):
        raise SourceError(f"the glob {uri} leaves the bucket open: name it")
    matching = re.compile(f"(?:{glob_translate(uri)})|(?:{glob_translate(uri + '/**')})")
    found = _from_folder(base, store_uri) if is_local(uri) else _from_bucket(base, store_uri)
    return (photo for photo in found if matching.match(photo.uri))


def _is_photo(photo: ListedPhoto, suffixes: frozenset[str]) -> bool:
    return os.path.splitext(_name(photo.uri))[1].lower() in suffixes


def _refuse_without_photos(uri: str, *, photos: int, ignored: int, suffixes: frozenset[str]) -> None:
    if not photos and not ignored:
        raise EmptySourceError(f"the source {uri} is empty: give a folder, a glob, an s3:// prefix or a list of photos")
    if not photos:
        kinds = " ".join(sorted(suffixes))
        raise EmptySourceError(f"the source {uri} holds {ignored} files but no photo: wanted one of {kinds}")


def read_uri(uri: str, *, max_bytes: int) -> bytes:
    """The bytes of a photo, at most `max_bytes` + 1 of them, so that the caller sees that there are more.

    Raises:
        OSError: it cannot be read, as the file system or the service says.
        UnreadableError: a web server or S3 does not give it.
        UnavailableError: S3 does not answer.
    """
    if is_web(uri):
        return fetch(uri, max_bytes=max_bytes)
    if is_local(uri):
        descriptor = os.open(decode_path(uri), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{uri} is no regular file")
            return file.read(max_bytes + 1)
    if _is_s3(uri):
        try:
            return fetch_object(uri, max_bytes=max_bytes)[0]
        except RefusedError as error:
            raise UnreadableError(str(error)) from error
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
    except UnreadableError as error:
        raise QueryError(f"{uri} cannot be read ({error}): give the path or url of a photo") from error
    except Exception as error:  # every backend has its own kinds
        raise QueryError(f"{uri} cannot be read ({type(error).__name__}: {error})") from error


def _from_folder(uri: str, store_uri: str | None) -> Iterator[ListedPhoto]:
    root = decode_path(uri)
    if not os.path.isdir(root):
        what = "is a file" if os.path.exists(root) else "does not exist"
        raise SourceError(f"the source {uri} {what}: give a folder of photos, a glob, an s3:// prefix or a list")
    store = os.path.realpath(decode_path(store_uri)) if store_uri is not None and is_local(store_uri) else None
    for folder, folders, files in os.walk(root, onerror=_refuse_part):
        real = os.path.realpath(folder)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and os.path.join(real, n) != store)
        for name in files:
            if not name.startswith(".") and (photo := _from_file(os.path.join(folder, name))) is not None:
                yield photo


def _refuse_part(error: OSError) -> None:
    """Photos in a folder that cannot be listed now would count as removed; a folder that has gone holds none."""
    if isinstance(error, FileNotFoundError):
        return
    raise SourceError(f"{error.filename} cannot be listed ({type(error).__name__}: {error.strerror})") from error


def _from_file(path: str) -> ListedPhoto | None:
    """A file, None for what is none; one that cannot be looked at keeps size 0 and fails when it is read, as a row.

    Raises:
        SourceError: another file has the same uri.
    """
    uri = encode_path(path)
    if uri != path and os.path.lexists(uri):
        raise SourceError(f"two files have the uri {uri}, one with bytes in its name that are no UTF-8: rename one")
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError:
        return ListedPhoto(uri=uri, size=0, etag=None, mtime_ns=None)
    if not stat.S_ISREG(found.st_mode):
        return None
    return ListedPhoto(uri=uri, size=found.st_size, etag=None, mtime_ns=found.st_mtime_ns)


def _is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def _below(uri: str) -> str:
    """What the keys of all objects under the uri begin with."""
    _, key = split_uri(uri)
    return f"{key}/" if key else ""


def _from_bucket(uri: str, store_uri: str | None) -> Iterator[ListedPhoto]:
    found = _from_s3(uri) if _is_s3(uri) else _from_elsewhere(uri)
    listed = False
    for photo in found:
        listed = True
        hidden = any(part.startswith(".") for part in photo.uri[len(uri) :].split("/"))
        if not hidden and (store_uri is None or not photo.uri.startswith(store_uri + "/")):
            yield photo
    if not listed:
        raise EmptySourceError(
            f"the source {uri} does not exist: give a folder of photos, a glob, an s3:// prefix or a list"
        )


def _from_s3(uri: str) -> Iterator[ListedPhoto]:
    """Every object under the uri, page by page, or the one object that it names."""
    bucket, _ = split_uri(uri)
    listed = False
    try:
        for found in list_objects(uri, _below(uri)):
            listed = True
            if not found.key.endswith("/"):  # a folder that some client has drawn
                yield _from_object(f"s3://{bucket}/{found.key}", found)
        if not listed and split_uri(uri)[1] and (one := look_up_object(uri)) is not None:
            yield _from_object(uri, one)
    except LookalikeError as error:
        raise SourceError(f"the source cannot be listed: {error}") from error


def _from_object(uri: str, found: ListedObject) -> ListedPhoto:
    return _from_info(uri, {"size": found.size, "ETag": found.etag, "LastModified": found.modified})


def _from_elsewhere(uri: str) -> Iterator[ListedPhoto]:
    protocol = uri.split("://", 1)[0]
    try:
        fs, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        fs.invalidate_cache()
        entries: dict[str, dict[str, Any]] = fs.find(root, detail=True)
    except Exception as error:  # every backend has its own kinds
        raise SourceError(f"the source {uri} cannot be listed ({type(error).__name__}: {error})") from error
    for key, info in entries.items():
        yield _from_info(f"{protocol}://{key}", info)


def _from_list(uri: str) -> Iterator[ListedPhoto]:
    try:
        data = read_uri(uri, max_bytes=2**31)
    except Exception as error:  # every backend has its own kinds
        raise SourceError(f"the list {uri} cannot be read ({type(error).__name__}: {error})") from error
    rows = list(read_list(data, where=uri))
    with ThreadPoolExecutor(_LOOK_UPS) as pool:
        for row, photo in zip(rows, pool.map(lambda row: _look_up(row.uri), rows), strict=True):
            yield replace(photo, label=row.label, metadata=row.metadata)


def _look_up(uri: str) -> ListedPhoto:
    """A listed uri's size and time; what cannot be looked up keeps size 0 and fails when it is read, as a row."""
    unknown = ListedPhoto(uri=uri, size=0, etag=None, mtime_ns=None)
    if is_local(uri):
        return _from_file(decode_path(uri)) or unknown
    try:
        if is_web(uri):
            return _from_info(uri, look_up(uri))
        if _is_s3(uri):
            found = look_up_object(uri)
            return unknown if found is None else _from_object(uri, found)
        fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        return _from_info(uri, fs.info(path))
    except Exception:  # the reason is found again, and recorded, when the photo is read
        return unknown


def _name(uri: str) -> str:
    """The part of a uri that has the suffix; only a web address has a query behind it."""
    return uri.split("?", maxsplit=1)[0] if is_web(uri) else uri


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
