import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from store.archive import ArchiveError, read_members, write_members
from store.errors import ArtifactError
from store.storage import Storage

NAMES = ("versions/000007/manifest.json", f"photos/{'a' * 32}/{'b' * 32}.parquet", f"encoders/{'c' * 32}/card.json")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path)
    for n, name in enumerate(NAMES):
        storage.write(name, name.encode() * 1000 * n)
    return storage


def written(storage: Storage, *, sizes: dict[str, int] | None = None) -> bytes:
    sink = io.BytesIO()
    size = {name: len(storage.read(name)) for name in NAMES} | (sizes or {})
    write_members(sink, storage, iter((name, name, size[name]) for name in NAMES))
    return sink.getvalue()


def read(data: bytes) -> dict[str, bytes]:
    return {m.name: b"".join(m.pieces) for m in read_members(io.BytesIO(data), where="a.tar")}


def test_what_was_written_is_read_and_any_tar_reads_it_too(storage: Storage) -> None:
    data = written(storage)
    assert read(data) == {name: storage.read(name) for name in NAMES}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == list(NAMES)
    assert written(storage) == data


def test_a_member_that_nobody_reads_is_passed_over(storage: Storage) -> None:
    assert [m.name for m in read_members(io.BytesIO(written(storage)), where="a.tar")] == list(NAMES)


def test_a_file_of_another_size_is_not_written(storage: Storage) -> None:
    for n, size in ((0, 10), (1, 10), (1, 10**6)):
        with pytest.raises(
            ArchiveError, match=f"{NAMES[n]} does not have {size} bytes: it changed while it was exported"
        ):
            written(storage, sizes={NAMES[n]: size})
    storage.remove(NAMES[1])
    with pytest.raises(ArtifactError, match="is missing from the store"):
        write_members(io.BytesIO(), storage, iter([(NAMES[1], NAMES[1], 5)]))


def tar_of(*members: tuple[str, Callable[[tarfile.TarInfo], None]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as tar:
        for name, change in members:
            info = tarfile.TarInfo(name)
            info.size = 4
            change(info)
            tar.addfile(info, io.BytesIO(b"data") if info.size else None)
    return sink.getvalue()


def plain(info: tarfile.TarInfo) -> None:
    pass


def kind(letter: bytes, target: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = letter, target, 0

    return change


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tar_of(("/etc/passwd", plain)), r"'/etc/passwd', which is no file of a version"),
        (tar_of(("../x", plain)), r"'\.\./x', which is no file of a version"),
        (tar_of(("versions/000007/../../x", plain)), "which is no file of a version"),
        (tar_of(("versions/000007/a..b", plain)), "which is no file of a version"),
        (tar_of(("versions/000007/.hidden", plain)), "which is no file of a version"),
        (tar_of(("versions/CURRENT", plain)), "which is no file of a version"),
        (tar_of((f"photos/{'A' * 32}/{'b' * 32}.parquet", plain)), "which is no file of a version"),
        (tar_of(("forgotten/key", plain)), "which is no file of a version"),
        (tar_of((NAMES[0] + "\n", plain)), "which is no file of a version"),
        (tar_of((NAMES[0], kind(tarfile.SYMTYPE, "/etc/passwd"))), "holds a symbolic link"),
        (tar_of((NAMES[0], kind(tarfile.LNKTYPE, "x"))), "holds a hard link"),
        (tar_of((NAMES[0], kind(tarfile.CHRTYPE))), "holds a device"),
        (tar_of((NAMES[0], kind(tarfile.BLKTYPE))), "holds a device"),
        (tar_of((NAMES[0], kind(tarfile.FIFOTYPE))), "holds a pipe"),
        (tar_of((NAMES[0], kind(tarfile.DIRTYPE))), "holds a folder"),
        (tar_of(("x" * 300, plain)), "holds an extended header"),
        (tar_of(("x" * 300, plain), kind=tarfile.PAX_FORMAT), "holds an extended header"),
        (tar_of((NAMES[0], plain), (NAMES[0], plain)), "holds versions/000007/manifest.json twice"),
        (tar_of((NAMES[0], plain))[:600], "ends within versions/000007/manifest.json"),
        (tar_of((NAMES[0], plain))[:1024], "ends without a tar's end"),
        (b"", "ends without a tar's end"),
        (b"\x1f\x8b" + bytes(510), "is not an uncompressed tar"),
        (b"PK\3\4" + b"x" * 1000, "is not an uncompressed tar"),
    ],
    ids=str,
)
def test_a_hostile_tar_is_refused_in_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(ArchiveError, match=rf"^a\.tar .*{says}.*nothing was imported$"):
        read(data)


def test_a_size_beyond_the_file_is_refused_without_being_believed() -> None:
    info = tarfile.TarInfo(NAMES[0])
    info.size = 2**60
    with pytest.raises(ArchiveError, match="ends within versions/000007/manifest.json"):
        read(info.tobuf(tarfile.GNU_FORMAT) + b"data")


def test_no_changed_byte_of_a_header_gets_through(storage: Storage) -> None:
    data = written(storage)
    for at in range(500):  # behind the last field a header is padding
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(ArchiveError):
            read(changed)
