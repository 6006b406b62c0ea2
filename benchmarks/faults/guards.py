"""Take a guard away, in the process of a twin: what breaks then is what the guard is for.

The names are fsync, staging, link, swap, hash, readback, write_errors, answers, claim, probe, fingerprint,
first, photos_file, revision and opening.
"""

import hashlib
import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from store import shards, versions
from store.layout import CURRENT
from store.storage import Storage

__all__ = ["GUARDS", "remove_guards"]


def _fsync() -> None:
    """Nothing is flushed."""
    _replace(os, "fsync", lambda _: None)
    _replace(os, "fdatasync", lambda _: None)


def _staging() -> None:
    """Files are written where they will be read, in two halves."""

    def write(self: Storage, path: str, data: bytes, mode: str = "wb") -> None:
        full = f"{self.uri}/{path}"
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, mode, buffering=0) as file:
            file.write(data[: len(data) // 2])
            time.sleep(0.005)
            file.write(data[len(data) // 2 :])

    def create(self: Storage, path: str, data: bytes) -> bool:
        try:
            write(self, path, data, "xb")
        except FileExistsError:
            return False
        return True

    _replace(Storage, "write", write)
    _replace(Storage, "create", create)


def _link() -> None:
    """What should fail where a file stands overwrites it."""

    def overwrite(source: Any, target: Any, **_: Any) -> None:
        part = f"{target}.part{os.getpid()}"
        shutil.copyfile(source, part)
        os.replace(part, target)

    _replace(os, "link", overwrite)


def _swap() -> None:
    """CURRENT is written whatever it holds."""

    def swap(self: Storage, path: str, data: bytes, *, expected: bytes | None) -> bool:
        self.write(path, data)
        return True

    _replace(Storage, "swap", swap)
    _replace(versions, "_refuse_if_moved", _read_current)


def _read_current(storage: Storage, parent: int | None) -> bytes | None:
    return storage.read(CURRENT) if storage.exists(CURRENT) else None


def _hash() -> None:
    """Bytes are used whatever hash was recorded for them."""
    read = Storage.read

    def unchecked(self: Storage, path: str, *, sha256: str | None = None) -> bytes:
        return read(self, path)

    _replace(Storage, "read", unchecked)


def _readback() -> None:
    """What was put in place is not read again."""

    def place(storage: Storage, source: str, target: str, record: Any) -> None:
        storage.write(target, storage.read(source))

    for name in ("_copy_checked", "_place_checked"):
        if hasattr(versions, name):
            _replace(versions, name, place)


def _write_errors() -> None:
    """A write that fails reports success, as some libraries' do on a full disk."""
    real = io.open

    class Careless(io.FileIO):
        def write(self, data: Any, /) -> int:
            left = memoryview(data)
            while left:
                try:
                    left = left[super().write(left) or 0 :]
                except OSError:
                    break
            return len(data)

    def careless(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return Careless(file, mode.replace("b", "")) if mode in {"xb", "wb"} else real(file, mode, *args, **kwargs)

    _replace(io, "open", careless)


def _answers() -> None:
    """What S3 sends is believed."""
    from store import s3_objects  # noqa: PLC0415

    _replace(s3_objects, "_vouches", lambda *_: True)


def _claim() -> None:
    """Versions are numbered by the clock."""
    _replace(versions, "_claim", lambda *_: int(time.time() // 3600))


def _probe() -> None:
    """Nobody tries first whether the store can be written."""
    _replace(Storage, "check_writable", lambda _: None)


def _fingerprint() -> None:
    """A photo is known by its name alone, whatever its size and time."""
    _replace(shards, "fingerprint", lambda uri, **_: hashlib.sha256(uri.encode()).hexdigest())


def _first() -> None:
    """A shard is written though it is committed already."""
    find, asked = shards.find_shard, [0]

    def none_at_first(*args: Any, **kwargs: Any) -> Any:
        asked[0] += 1
        return None if asked[0] == 1 else find(*args, **kwargs)

    _replace(shards, "find_shard", none_at_first)


def _photos_file() -> None:
    """No guard, but a death: the process goes away before the file that would commit a shard."""
    create = Storage.create

    def dying(self: Storage, path: str, data: bytes) -> bool:
        if path.startswith("photos/"):
            os.kill(os.getpid(), signal.SIGKILL)
        return create(self, path, data)

    _replace(Storage, "create", dying)


def _revision() -> None:
    """A version is replaced where it stands, file by file."""
    from tasks.steps import forget_version  # noqa: PLC0415

    def overwrite(storage: Storage, version: Any, manifest: Any, built: Any, files: dict[str, bytes]) -> Any:
        storage.adopt(version.path_of("index.faiss"), built.path)
        for name, data in files.items():
            storage.write(version.path_of(name), data)
        return manifest

    _replace(forget_version, "_write", overwrite)


def _opening() -> None:
    """A version's files are opened as they lie, whatever their hash is and whether they belong together."""
    from store.index_file import load_index  # noqa: PLC0415
    from store.schemas import VERSION_FACES, from_parquet  # noqa: PLC0415
    from tasks.steps import open_version  # noqa: PLC0415
    from tasks.steps.face_rows import FaceRows  # noqa: PLC0415

    def believe(storage: Storage, version: Any) -> Any:
        index = load_index(storage.read(version.path_of("index.faiss")), where="index.faiss")
        data = storage.read(version.path_of("faces.parquet"))
        faces = FaceRows(from_parquet(data, VERSION_FACES, where="faces.parquet"))
        return open_version.OpenVersion(version=version, index=index, faces=faces)

    _replace(open_version, "_open_files", believe)


GUARDS: dict[str, Callable[[], None]] = {
    "fsync": _fsync,
    "staging": _staging,
    "link": _link,
    "swap": _swap,
    "hash": _hash,
    "readback": _readback,
    "write_errors": _write_errors,
    "answers": _answers,
    "claim": _claim,
    "probe": _probe,
    "fingerprint": _fingerprint,
    "first": _first,
    "photos_file": _photos_file,
    "revision": _revision,
    "opening": _opening,
}
"""By name; each changes this process for good."""


def remove_guards(names: Iterable[str]) -> None:
    """Take guards away in this process, for good."""
    for name in names:
        GUARDS[name]()


def _replace(holder: Any, name: str, value: Any) -> None:
    setattr(holder, name, value)
