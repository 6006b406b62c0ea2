import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from store.archive import ArchiveError
from store.errors import ArtifactError, LookalikeError, VersionError
from store.fingerprints import canonical_json, sha256_hex
from store.forgotten import add_forgotten, forgotten_key, tag
from store.layout import open_store
from store.schemas import VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.versions import current_number, published_numbers, read_file, read_version
from tasks.steps.move_version import export_version, import_version
from tasks.steps.verify_store import verify_store


@pytest.fixture(scope="module")
def archive(two_versions: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2; not to be changed."""
    file = tmp_path_factory.mktemp("archive") / "two.tar"
    export_version(2, file, store=two_versions.store)
    return file


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    return str(tmp_path / "elsewhere")


def is_untouched(store: str) -> bool:
    """Whether nothing can be seen of an import: no version, no shard, no encoder, nothing half-way."""
    root = Path(store)
    files = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()] if root.exists() else []
    return files == []


def test_a_version_moves_to_another_store_whole(archive: Path, two_versions: Any, elsewhere: str) -> None:
    assert import_version(archive, store=elsewhere) == 1
    assert verify_store(elsewhere).problems == []
    before, after = (read_version(open_store(s), n).manifest for s, n in ((two_versions.store, 2), (elsewhere, 1)))
    assert after.content_sha256 == before.content_sha256
    assert after.files == before.files
    assert (after.parent, after.version, after.revision) == (None, 1, 0)
    assert Storage(elsewhere).names("runs/imports") == []
    assert Storage(elsewhere).names("runs/builds") == []


def test_it_takes_the_next_number_of_a_store_that_has_versions(archive: Path, built: Any) -> None:
    assert import_version(archive, store=built.store) == 2
    storage = open_store(built.store)
    assert (current_number(storage), read_version(storage).manifest.parent) == (2, 1)
    assert import_version(archive, store=built.store) == 3
    assert published_numbers(storage) == [1, 2, 3]
    assert verify_store(built.store).problems == []


def test_an_export_is_the_same_whenever_it_is_made(archive: Path, two_versions: Any, tmp_path: Path) -> None:
    size = export_version(2, tmp_path / "again.tar", store=two_versions.store)
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    assert size == archive.stat().st_size


def test_what_stands_there_is_not_overwritten(archive: Path, two_versions: Any) -> None:
    with pytest.raises(VersionError, match=r"two.tar exists already: give another name, or remove it"):
        export_version(2, archive, store=two_versions.store)
    with pytest.raises(VersionError, match="has no version 9"):
        export_version(9, archive.with_name("nine.tar"), store=two_versions.store)
    with pytest.raises(VersionError, match="cannot be written"):
        export_version(2, archive / "below.tar", store=two_versions.store)


@pytest.mark.parametrize("kind", ["index.faiss", "photos/", "embeddings/", "weights"])
def test_a_damaged_version_is_not_exported(built: Any, tmp_path: Path, kind: str) -> None:
    root = Path(built.store)
    path = next(p for p in sorted(root.rglob("*")) if kind in str(p.relative_to(root)) and p.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match="has changed: its sha256 is .*; it is not exported"):
        export_version(1, tmp_path / "x.tar", store=built.store)
    assert [p.name for p in tmp_path.iterdir()] == ["built"]


def test_the_commands_move_a_version(two_versions: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, store = str(tmp_path / "x.tar"), str(tmp_path / "store")
    assert main(["export", "2", file, "--store", two_versions.store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == Path(file).stat().st_size
    assert main(["import", file, "--store", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": 1, "file": file}
    assert main(["import", str(tmp_path / "no.tar"), "--store", store, "--json"]) == 1
    assert "no.tar does not exist" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]


def test_a_version_moves_to_s3_and_back(archive: Path, s3: str, tmp_path: Path) -> None:
    store = f"{s3}/store"
    assert import_version(archive, store=store) == 1
    assert verify_store(store).problems == []
    export_version(1, tmp_path / "back.tar", store=store)
    assert import_version(tmp_path / "back.tar", store=str(tmp_path / "local")) == 1


# What is refused

Members = dict[str, bytes]


def members_of(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def packed(members: Members, file: Path) -> Path:
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def named(members: Members, kind: str) -> str:
    return next(name for name in members if kind in name)


def with_manifest(members: Members, **changes: Any) -> None:
    name = named(members, "manifest.json")
    document = json.loads(members[name]) | changes
    del document["self_sha256"]
    members[name] = json.dumps(document | {"self_sha256": sha256_hex(canonical_json(document))}).encode()


def without(kind: str) -> Callable[[Members], None]:
    return lambda members: members.pop(named(members, kind)) and None


def spoiled(kind: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        name = named(members, kind)
        members[name] = bytes([members[name][0] ^ 1]) + members[name][1:]

    return change


def longer(kind: str) -> Callable[[Members], None]:
    return lambda members: members.update({(name := named(members, kind)): members[name] + bytes(10)})


def stranger(members: Members) -> None:
    members[f"photos/{'a' * 32}/{'b' * 32}.parquet"] = b"x"


def manifest_last(members: Members) -> None:
    members[name] = members.pop(name := named(members, "manifest.json"))


def other_version(members: Members) -> None:
    with_manifest(members, version=5)


def wrong_counts(members: Members) -> None:
    with_manifest(members, content_sha256="0" * 64)


def climbing(members: Members) -> None:
    record = {"bytes": 1, "sha256": "0" * 64}
    files = json.loads(members[named(members, "manifest.json")])["files"]
    with_manifest(members, files=files | {"../../../evil": record})


def many(members: Members) -> None:
    with_manifest(members, format=2)


REFUSED: list[tuple[Callable[[Members], None], str]] = [
    (without("manifest.json"), "does not begin with a manifest"),
    (manifest_last, "does not begin with a manifest"),
    (without("index.faiss"), "lacks versions/000002/index.faiss"),
    (without("photos/"), "lacks photos/"),
    (without("embeddings/"), "lacks embeddings/"),
    (without("card.json"), "lacks encoders/"),
    (without("weights"), "does not verify: encoders/"),
    (spoiled("manifest.json"), "is not a manifest of format 1"),
    (spoiled("index.faiss"), "index.faiss is not what the manifest says"),
    (spoiled("report.html"), "report.html is not what the manifest says"),
    (spoiled("faces/"), "is not what the manifest says"),
    (spoiled("weights"), "does not verify: encoders/"),
    (spoiled("card.json"), "does not verify: encoders/"),
    (longer("index.faiss"), r"holds versions/000002/index.faiss of \d+ bytes, wanted"),
    (longer("faces/"), "is not what the manifest says"),
    (stranger, "which its manifest does not name"),
    (other_version, "which says it is version 5"),
    (wrong_counts, "does not verify: versions/000002/manifest.json: content_sha256 is not that of the tables"),
    (climbing, r"lacks versions/000002/\.\./\.\./\.\./evil"),
    (many, "got format 2"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_an_archive_that_is_not_what_it_says_leaves_nothing_behind(
    archive: Path, elsewhere: str, tmp_path: Path, change: Callable[[Members], None], says: str
) -> None:
    members = members_of(archive)
    change(members)
    with pytest.raises(ArchiveError, match=says):
        import_version(packed(members, tmp_path / "x.tar"), store=elsewhere)
    assert is_untouched(elsewhere)


def test_archives_that_were_damaged_anywhere_are_refused(archive: Path, elsewhere: str, tmp_path: Path) -> None:
    data, rng = archive.read_bytes(), random.Random(7)
    for n in range(40):
        at = rng.randrange(len(data))
        changed = data[:at] if n % 4 == 0 else data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        (tmp_path / "x.tar").write_bytes(changed)
        try:
            import_version(tmp_path / "x.tar", store=elsewhere)
        except LookalikeError:
            assert is_untouched(elsewhere)
        else:  # it hit what a tar fills its blocks with
            assert members_of(tmp_path / "x.tar") == members_of(archive)
            shutil.rmtree(elsewhere)


def test_a_shard_that_is_there_with_other_bytes_is_not_overwritten(archive: Path, built: Any) -> None:
    storage = open_store(built.store)
    manifest = read_version(storage).manifest
    path = f"faces/{manifest.contract.id}/{manifest.shards[0].name}.parquet"
    storage.write(path, b"another machine's")
    with pytest.raises(VersionError, match="is in this store already, with other bytes than in the archive"):
        import_version(archive, store=built.store)
    assert storage.read(path) == b"another machine's"
    assert published_numbers(storage) == [1]


def test_who_was_forgotten_does_not_come_back(archive: Path, two_versions: Any, elsewhere: str) -> None:
    source = open_store(two_versions.store)
    table = from_parquet(read_file(source, read_version(source), "photos.parquet"), VERSION_PHOTOS, where="x")
    storage = open_store(elsewhere, create=True)
    add_forgotten(storage, [tag(forgotten_key(storage), "photo", table["photo_sha256"].to_pylist()[0])])
    with pytest.raises(VersionError, match=r"holds \d+ photos or faces that were forgotten here"):
        import_version(archive, store=elsewhere)
    assert published_numbers(storage) == []
    assert storage.names("faces") == []
