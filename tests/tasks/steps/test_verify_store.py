import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from store.errors import VersionError
from store.layout import CURRENT, open_store
from store.leases import hold_lease
from store.storage import Storage
from store.versions import read_version, set_current
from tasks.steps.verify_store import verify_store
from tests.tasks.steps.planted.files import FLIPS, ORPHANS, OTHERS, PLACES, Fault, flipped
from tests.tasks.steps.planted.manifests import CLAIMS
from tests.tasks.steps.planted.tables import CONSISTENT

FAULTS: list[Fault] = [*FLIPS, *PLACES, *ORPHANS, *CLAIMS, *CONSISTENT, *OTHERS]


@pytest.fixture
def storage(two_versions: Any, tmp_path: Path) -> Storage:
    return open_store(str(shutil.copytree(two_versions.store, tmp_path / "store")))


def kinds(storage: Storage, **only: int) -> set[str]:
    return {problem.kind for problem in verify_store(storage.uri, **only).problems}


def test_a_clean_store_has_no_problem(storage: Storage) -> None:
    found = verify_store(storage.uri)
    assert found.problems == []
    assert found.versions == [1, 2]
    assert found.shards >= 3
    assert found.unused == 0


def test_the_store_of_the_first_release_has_no_problem_but_its_missing_weights(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "data" / "format1"
    found = verify_store(str(shutil.copytree(source, tmp_path / "store"))).problems
    assert [(p.kind, "holds no weights" in p.sentence) for p in found] == [("encoder", True)]  # it was made without


def test_there_are_a_hundred_faults_and_more() -> None:
    assert len(FAULTS) >= 100


@pytest.mark.parametrize("seed", range(len(FAULTS)), ids=[fault.__name__ for fault in FAULTS])
def test_a_planted_fault_is_found(storage: Storage, seed: int) -> None:
    FAULTS[seed](storage, random.Random(seed))
    found = verify_store(storage.uri)
    assert found.problems
    assert all(p.path and p.sentence and p.kind and "\n" not in p.sentence for p in found.problems)


# What is no fault


def test_what_a_running_build_holds_or_an_unfinished_one_asked_for_is_no_orphan(storage: Storage) -> None:
    shard = "ab" * 16
    contract = read_version(storage).manifest.contract.id
    storage.write(f"faces/{contract}/{shard}.parquet", b"half a shard")
    assert kinds(storage) == {"orphan"}
    with hold_lease(storage, "build", shards=[shard]):
        assert kinds(storage) == set()
    storage.write(f"runs/requests/{shard}.parquet", b"")
    assert kinds(storage) == set()


def test_a_publish_that_goes_on_is_no_orphan_and_one_that_died_is(storage: Storage) -> None:
    storage.create("versions/000003/claim", b"somebody")
    storage.write("versions/000003/index.faiss", b"half")
    assert kinds(storage) == set()
    for name in ("claim", "index.faiss"):
        os.utime(Path(storage.uri) / "versions/000003" / name, (1, 1))
    assert kinds(storage) == {"orphan"}


def test_a_whole_shard_that_no_version_uses_is_counted_and_is_no_problem(storage: Storage) -> None:
    only_two = {s.name for s in read_version(storage, 2).manifest.shards}
    only_two -= {s.name for s in read_version(storage, 1).manifest.shards}
    set_current(storage, 1, expected=2)
    shutil.rmtree(Path(storage.uri) / "versions/000002")
    found = verify_store(storage.uri)
    assert found.problems == []
    assert found.unused == len(only_two) > 0


def test_one_version_is_verified_by_itself(storage: Storage) -> None:
    storage.write("versions/000001/report.html", b"other")
    assert kinds(storage, version=2) == set()
    assert kinds(storage, version=1) == {"hash"}
    with pytest.raises(VersionError, match="has no version 7; there is 1, 2"):
        verify_store(storage.uri, version=7)


def test_nothing_is_parsed_that_is_not_what_its_hash_says(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("versions/000002/index.faiss", b"IxFI" + bytes(99))
    monkeypatch.setattr("store.version_index.open_index", lambda *_, **__: pytest.fail("it was opened"))
    assert kinds(storage, version=2) == {"hash"}


def test_the_command_prints_its_keys_and_exits_with_1_where_there_are_problems(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--store", storage.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    storage.write("versions/000001/report.html", b"other")
    assert main(["verify", "--store", storage.uri, "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["path"], problem["kind"]) == ("versions/000001/report.html", "hash")
    assert "the manifest says" in problem["sentence"]
    assert main(["verify", "--store", storage.uri]) == 1
    assert "1 problem: versions 1, 2" in capsys.readouterr().out


def test_a_store_on_s3_is_verified_too(two_versions: Any, s3: str) -> None:
    storage = Storage(f"{s3}/store")
    root = Path(two_versions.store)
    for path in (p for p in root.rglob("*") if p.is_file()):
        storage.write(str(path.relative_to(root)), path.read_bytes())
    assert verify_store(storage.uri).problems == []
    for seed in range(0, len(FLIPS), 4):
        path = f"versions/00000{1 + seed % 2}/index.faiss"
        before = storage.read(path)
        storage.write(path, flipped(before, random.Random(seed)))
        assert kinds(storage) == {"hash"}
        storage.write(path, before)
    storage.remove(CURRENT)
    assert kinds(storage) == {"current"}
