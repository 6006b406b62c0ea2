import json
import os
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from app.cli import main
from store import index_file, index_trial, verified_files, version_files, version_index
from store.errors import ArtifactError, ManifestError, VersionError
from store.fingerprints import sha256_hex
from store.index_file import build_exact_index, indexed_ids
from store.layout import CURRENT, open_store
from store.manifest import parse_manifest, problems_of_manifest
from store.storage import Storage
from store.verified_files import cache_folder, is_noted
from store.versions import PublishedVersion, read_version, set_current
from tasks.steps import open_version as step
from tasks.steps.open_version import open_version
from tasks.steps.query_photo import query_photo


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process and on a machine that opened nothing before."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(step, "_kept", {})


@pytest.fixture
def photo(drawn_people: Path) -> str:
    return str(sorted(drawn_people.rglob("*.jpg"))[0])


@pytest.fixture
def two(two_versions: Any, tmp_path: Path) -> Storage:
    """A store of two versions: in the second one photo has two uris."""
    return open_store(str(shutil.copytree(two_versions.store, tmp_path / "two")))


def record_anew(storage: Storage, number: int, name: str, data: bytes) -> None:
    """Change a file and the manifest along with it, so that no hash tells."""
    path = f"versions/{number:06d}/manifest.json"
    document = json.loads(storage.read(path))
    del document["self_sha256"]
    document["files"][name] = {"bytes": len(data), "sha256": sha256_hex(data)}
    if name == "index.faiss":
        document["index"] |= document["files"][name]
    storage.write(f"versions/{number:06d}/{name}", data)
    storage.write(path, json.dumps(document).encode())


@pytest.mark.parametrize("name", ["index.faiss", "faces.parquet"])
def test_a_damaged_version_is_refused_before_anybody_parses_it(
    built: Any, photo: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(built.store).write(f"versions/000001/{name}", b"IxFI" + os.urandom(100))
    reader = (version_index, "open_index") if name == "index.faiss" else (version_files, "from_parquet")
    monkeypatch.setattr(*reader, lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(ArtifactError, match=rf"000001/{name} has changed: its sha256 is"):
        query_photo(photo, store=built.store)


def damage_hash(storage: Storage) -> None:
    storage.write("versions/000002/index.faiss", storage.read("versions/000002/index.faiss")[:-1] + b"!")


def damage_manifest(storage: Storage) -> None:
    storage.write("versions/000002/manifest.json", b"{}")


def damage_index(storage: Storage) -> None:
    record_anew(storage, 2, "index.faiss", b"IxFI" + bytes(60))


def damage_parquet(storage: Storage) -> None:
    record_anew(storage, 2, "faces.parquet", b"PAR1 and nothing else")


def damage_dimension(storage: Storage) -> None:
    ids = indexed_ids(open_version(storage, 2)[0].index)
    record_anew(storage, 2, "index.faiss", build_exact_index(ids, np.eye(len(ids), dtype=np.float32)))


def damage_pair(storage: Storage) -> None:
    record_anew(storage, 2, "index.faiss", build_exact_index(np.arange(24), np.eye(24, 32, dtype=np.float32)))


def remove_file(storage: Storage) -> None:
    storage.remove("versions/000002/faces.parquet")


def remove_version(storage: Storage) -> None:
    storage.remove("versions/000002/manifest.json")


def break_current(storage: Storage) -> None:
    storage.remove("versions/000002/manifest.json")
    storage.write(CURRENT, b"\xff")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_hash, "index.faiss has changed: its sha256 is"),
        (damage_manifest, "is not a manifest of format 1"),
        (damage_index, "is not an index that FAISS"),
        (damage_parquet, "cannot be read as Parquet"),
        (damage_dimension, "encoder mismatch"),
        (damage_pair, "index holds other faces than its faces.parquet"),
        (remove_file, "faces.parquet is missing from the store"),
        (remove_version, "has no version 2; there is 1"),
        (break_current, "CURRENT holds .*, wanted a version's number"),
    ],
)
def test_where_current_is_damaged_the_version_before_it_answers_and_says_so(
    two: Storage, damage: Any, says: str
) -> None:
    damage(two)
    step._kept.clear()
    opened, (warning,) = open_version(two)
    assert opened.version.number == 1
    assert max(len(row["uris"]) for row in opened.faces.values()) == 1
    assert warning.endswith("; version 1 answers in its place")
    with pytest.raises((ArtifactError, ManifestError, VersionError), match=says):
        raise VersionError(warning)
    if damage is not break_current:
        with pytest.raises((ArtifactError, ManifestError, VersionError), match=says):
            open_version(two, 2)


def test_the_refusal_is_on_stderr_and_in_the_answer(
    two: Storage, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_hash(two)
    assert main(["query", photo, "-k", "1", "--store", two.uri, "--json"]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["version"] == 1
    assert f"lookalike: warning: {answer['warnings'][0]}" in said.err
    set_current(two, 1, expected=2)
    assert query_photo(photo, store=two.uri, k=1).warnings == ()


def test_damage_is_found_once_and_not_at_every_query(two: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    damage_hash(two)
    assert open_version(two)[0].version.number == 1
    for module in (version_index, version_files):
        monkeypatch.setattr(module, "verified_file", lambda *_, **__: pytest.fail("hashed again"))
    opened, warnings = open_version(two)
    assert opened.version.number == 1
    assert len(warnings) == 1
    monkeypatch.undo()
    shutil.copyfile(f"{two.uri}/versions/000001/index.faiss", f"{two.uri}/versions/000002/index.faiss")
    assert open_version(two)[0].version.number in {1, 2}  # looked at again, because the file is another one


def test_where_nothing_is_whole_the_first_refusal_is_raised(two: Storage) -> None:
    for number in (1, 2):
        two.write(f"versions/{number:06d}/faces.parquet", b"")
    with pytest.raises(ArtifactError, match="000002/faces.parquet has changed"):
        open_version(two)


def test_a_reader_notices_a_new_current_and_a_rollback(two: Storage) -> None:
    assert open_version(two)[0].version.number == 2
    set_current(two, 1, expected=2)
    assert open_version(two)[0].version.number == 1
    set_current(two, 2, expected=1)
    assert open_version(two)[0].version.number == 2


def raise_revision(storage: Storage, number: int, revision: int) -> None:
    """As forgetting does: files under the revision's own folder, then the manifest in one step; then the old files go."""
    before = read_version(storage, number)
    after = PublishedVersion(number, before.manifest.model_copy(update={"revision": revision}))
    for name in before.manifest.files:
        storage.write(after.path_of(name), storage.read(before.path_of(name)))
    storage.write(after.path_of("manifest.json"), after.manifest.to_json())
    for name in before.manifest.files:
        storage.remove(before.path_of(name))


def test_a_reader_that_holds_a_version_open_notices_a_raised_revision(two: Storage) -> None:
    first, _ = open_version(two)
    assert open_version(two)[0] is first
    raise_revision(two, 2, 1)
    second, _ = open_version(two)
    assert second.version.manifest.revision == 1
    assert indexed_ids(first.index).tolist() == indexed_ids(second.index).tolist()  # what is open stays whole


def test_files_that_vanish_while_they_are_opened_are_looked_for_in_the_new_revision(
    two: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step._open_files

    def overtaken(storage: Storage, version: PublishedVersion) -> Any:
        if version.manifest.revision == 0:
            raise_revision(storage, version.number, 1)
        return real(storage, version)

    monkeypatch.setattr(step, "_open_files", overtaken)
    opened, warnings = open_version(two)
    assert (opened.version.number, opened.version.manifest.revision, warnings) == (2, 1, ())


def test_a_version_removed_while_it_is_opened_leads_to_the_one_that_is_current_then(
    two: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step._open_files

    def overtaken(storage: Storage, version: PublishedVersion) -> Any:
        if version.number == 2:
            set_current(storage, 1, expected=2)
            storage.remove("versions/000002/manifest.json")
            storage.remove("versions/000002/faces.parquet")
        return real(storage, version)

    monkeypatch.setattr(step, "_open_files", overtaken)
    opened, warnings = open_version(two)
    assert (opened.version.number, warnings) == (1, ())


@pytest.mark.parametrize(
    "step_of_opening", [(verified_files, "_hash"), (index_file, "try_index"), (index_trial, "open_mapped")]
)
def test_a_version_removed_at_any_step_of_opening_its_index_leads_to_the_current_one(
    two: Storage, monkeypatch: pytest.MonkeyPatch, step_of_opening: tuple[Any, str]
) -> None:
    real = getattr(*step_of_opening)

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        if two.exists("versions/000002/manifest.json"):
            set_current(two, 1, expected=2)
            two.remove("versions/000002")
        return real(*args, **kwargs)

    monkeypatch.setattr(*step_of_opening, overtaken)
    opened, warnings = open_version(two)
    assert (opened.version.number, warnings) == (1, ())


def test_readers_never_see_two_versions_mixed_while_current_moves(two: Storage) -> None:
    ends, seen, wrong = threading.Event(), set(), []

    def read() -> None:
        while not ends.is_set():
            opened, warnings = open_version(Storage(two.uri))
            uris = max(len(row["uris"]) for row in opened.faces.values())
            seen.add(opened.version.number)
            if uris != opened.version.number or warnings:
                wrong.append((opened.version.number, uris, warnings))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(40):
        set_current(two, 1 + n % 2, expected=2 - n % 2)
    ends.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert seen


def test_the_first_opening_on_a_machine_hashes_and_tries_and_the_next_does_neither(
    two: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_version(two).manifest.files["index.faiss"]
    open_version(two)
    assert is_noted(record.sha256, f"opens-with-faiss-{faiss.__version__}")
    step._kept.clear()
    monkeypatch.setattr(index_file, "try_index", lambda *_, **__: pytest.fail("tried again"))
    open_version(two)
    shutil.rmtree(cache_folder())
    step._kept.clear()
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        open_version(two)


# Corrupt artifacts


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The bytes with a bit flipped, cut off, with zeros at the end, longer, or those of another file."""
    at = rng.randrange(len(data))
    return rng.choice(
        [
            data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
            data[:at],
            data[:at] + bytes(len(data) - at),
            data + rng.randbytes(9),
            other,
        ]
    )


def test_hundreds_of_corrupt_files_are_refused_before_use(two: Storage) -> None:
    rng = random.Random(20)
    names = ("index.faiss", "faces.parquet", "manifest.json")
    before = {name: two.read(f"versions/000002/{name}") for name in names}
    other = {name: two.read(f"versions/000001/{name}") for name in names}
    other["index.faiss"] = before["faces.parquet"]
    harmless = 0
    for n in range(400):
        name = names[n % 3]
        changed = mutated(before[name], other[name], rng)
        two.write(f"versions/000002/{name}", changed)
        if name == "manifest.json" and problems_of_manifest(changed) == []:
            same = parse_manifest(changed, where="x") == parse_manifest(before[name], where="x")
            assert same or changed == other[name]  # a blank between two keys, or the other version's manifest as it is
            harmless += 1
        elif changed != before[name]:
            with pytest.raises((ArtifactError, ManifestError)):
                open_version(two, 2)
        two.write(f"versions/000002/{name}", before[name])
    assert harmless < 40
    assert open_version(two, 2)[0].version.number == 2


def test_without_the_hashes_many_corrupt_indexes_would_be_used(two: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_files, "_check", lambda *_, **__: None)
    monkeypatch.setattr(index_file, "try_index", lambda *_, **__: None)
    rng, path, used = random.Random(21), "versions/000002/index.faiss", 0
    before = two.read(path)
    for _ in range(60):
        at = rng.randrange(len(before))
        two.write(path, before[:at] + bytes([before[at] ^ (1 << rng.randrange(8))]) + before[at + 1 :])
        step._kept.clear()
        try:
            open_version(two, 2)
            used += 1
        except ArtifactError:
            pass
    assert used > 20


def test_corrupt_objects_on_s3_are_refused_too(two: Storage, s3: str) -> None:
    remote, root = Storage(f"{s3}/store"), Path(two.uri)
    for path in (p for p in root.rglob("*") if p.is_file() and "versions" in p.parts):
        remote.write(str(path.relative_to(root)), path.read_bytes())
    assert open_version(remote)[0].version.number == 2
    step._kept.clear()
    assert open_version(remote)[0].version.number == 2  # from this machine
    remote.write("versions/000002/faces.parquet", b"other")
    opened, warnings = open_version(remote)
    assert opened.version.number == 2  # it is open; what is open is whole
    step._kept.clear()
    opened, warnings = open_version(remote)
    assert (opened.version.number, len(warnings)) == (1, 1)
