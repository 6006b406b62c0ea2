import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli import main
from store.errors import ManifestError, VersionError
from store.layout import open_store
from store.leases import hold_lease
from store.removal import REMOVAL, read_removal
from store.storage import Storage
from store.verified_files import cache_folder
from store.versions import current_number, published_numbers, read_version, set_current
from tasks.steps import vacuum_store as step
from tasks.steps.open_version import open_version
from tasks.steps.vacuum_store import vacuum_store
from tasks.steps.verify_store import verify_store
from tasks.steps.workroom import workroom


@pytest.fixture(scope="module")
def four_versions(two_versions: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Versions 1 to 4: the second has three photos more, the third two of them, the fourth another one in their place."""
    folder = tmp_path_factory.mktemp("four")
    builder = replace(two_versions, store=str(shutil.copytree(two_versions.store, folder / "store")))
    more = next(Path(s) for s in read_version(open_store(builder.store)).manifest.sources if s.endswith("/more"))
    (folder / "aside").mkdir()
    for n, name in enumerate(("large1.jpg", "large2.jpg")):
        (more / name).rename(folder / "aside" / name)
        if n:
            (more / "twin.jpg").rename(folder / "aside" / "twin.jpg")
            with Image.open(folder / "aside" / "large1.jpg") as image:
                image.resize((image.width // 4 * 3, image.height // 4 * 3)).save(more / "other.jpg")
        assert builder.build(more) == 3 + n
    (more / "other.jpg").unlink()
    for photo in (folder / "aside").iterdir():
        photo.rename(more / photo.name)
    return builder.store


@pytest.fixture
def storage(four_versions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return open_store(str(shutil.copytree(four_versions, tmp_path / "store")))


def files(storage: Storage) -> set[str]:
    root = Path(storage.uri)
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.parts[len(root.parts)] != "runs"}


def shards_of(storage: Storage, number: int) -> set[str]:
    return {shard.name for shard in read_version(storage, number).manifest.shards}


def problems(storage: Storage) -> list[tuple[str, str]]:
    return [(p.path, p.kind) for p in verify_store(storage.uri).problems]


def test_old_versions_go_with_the_shards_that_only_they_stand_on(storage: Storage) -> None:
    only_old = set().union(*(shards_of(storage, n) for n in (1, 2, 3))) - shards_of(storage, 4)
    contract = read_version(storage).manifest.contract.id
    encoder = read_version(storage).manifest.encoder.id
    assert only_old
    done = vacuum_store(storage.uri, keep=1)
    assert (done.removed, done.kept, done.shards, done.spared) == ((1, 2, 3), (4,), len(only_old), 0)
    assert published_numbers(storage) == [4]
    for shard in only_old:
        assert not storage.exists(f"photos/{contract}/{shard}.parquet")
        assert not storage.exists(f"faces/{contract}/{shard}.parquet")
        assert not storage.exists(f"embeddings/{encoder}/{shard}.parquet")
    assert problems(storage) == []
    assert verify_store(storage.uri).unused == 0
    assert storage.names("versions/000002") == ["claim"]
    assert vacuum_store(storage.uri, keep=1).removed == ()


def test_numbers_are_not_given_again_after_the_highest_versions_went(
    storage: Storage, two_versions: Any, drawn_people: Path
) -> None:
    set_current(storage, 1, expected=4)
    storage.remove("versions/000004/manifest.json")  # a version ahead that somebody gave up by hand
    builder = replace(two_versions, store=storage.uri)
    copy = Path(storage.uri).parent / "again"
    shutil.copytree(drawn_people, copy)
    assert builder.build(copy) == 5
    assert read_version(storage).manifest.parent == 1


def test_current_and_its_ancestors_stay_and_so_do_the_newest_numbers(storage: Storage) -> None:
    set_current(storage, 2, expected=4)
    done = vacuum_store(storage.uri, keep=1)
    assert done.kept == (2, 4)
    assert done.removed == (1, 3)
    set_current(storage, 4, expected=2)
    assert problems(storage) == []


def test_young_versions_stay(storage: Storage) -> None:
    assert vacuum_store(storage.uri, keep=1, older_than_days=1).removed == ()
    manifest = Path(storage.uri) / "versions/000001/manifest.json"
    os.utime(manifest, (manifest.stat().st_atime, manifest.stat().st_mtime - 2 * 86_400))
    assert vacuum_store(storage.uri, keep=1, older_than_days=1).removed == (1,)
    assert published_numbers(storage) == [2, 3, 4]


def test_a_dry_run_says_what_would_go_and_removes_nothing(storage: Storage) -> None:
    before = files(storage)
    said = vacuum_store(storage.uri, keep=1, dry_run=True)
    assert files(storage) == before
    assert said.dry_run
    done = vacuum_store(storage.uri, keep=1)
    assert (done.removed, done.files, done.shards) == (said.removed, said.files, said.shards)
    assert len(before) - len(files(storage)) == done.files


def test_shards_that_a_running_build_holds_stay_and_go_when_it_is_gone(storage: Storage) -> None:
    held = sorted(set().union(*(shards_of(storage, n) for n in (1, 2, 3))) - shards_of(storage, 4))
    contract = read_version(storage).manifest.contract.id
    with hold_lease(storage, "build", shards=held):
        done = vacuum_store(storage.uri, keep=1)
        assert (done.removed, done.shards, done.spared) == ((1, 2, 3), 0, len(held))
        assert all(storage.exists(f"photos/{contract}/{shard}.parquet") for shard in held)
        assert problems(storage) == []


def test_a_build_that_comes_while_a_vacuum_removes_its_shards_is_told_to_wait(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = sorted(shards_of(storage, 2) - shards_of(storage, 4))
    real, refusals = Storage.remove, []

    def remove(self: Storage, path: str) -> None:
        if path.startswith("photos/") and not refusals:
            try:
                with hold_lease(Storage(storage.uri), "build", shards=held):
                    refusals.append("it was let in")
            except VersionError as error:
                refusals.append(str(error))
        real(self, path)

    monkeypatch.setattr(Storage, "remove", remove)
    vacuum_store(storage.uri, keep=1)
    assert len(refusals) == 1
    assert refusals[0].startswith(f"a vacuum is removing {len(held)} shards that would be used again")


class Killed(BaseException):
    """What no code of lookalike catches."""


def count_removals(storage: Storage, monkeypatch: pytest.MonkeyPatch, *, at: int, after: bool) -> list[str]:
    """Die at one removal, before it or after it; a lease's and a probe's do not count, for a dead process makes none."""
    real, removed = Storage.remove, []

    def remove(self: Storage, path: str) -> None:
        if path.startswith("runs/"):
            return None if len(removed) > at else real(self, path)
        removed.append(path)
        if len(removed) == at + 1 and not after:
            raise Killed
        real(self, path)
        if len(removed) == at + 1:
            raise Killed
        return None

    monkeypatch.setattr(Storage, "remove", remove)
    return removed


def test_killed_at_any_removal_it_leaves_kept_versions_whole_and_a_rerun_ends_it(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_store(str(shutil.copytree(storage.uri, tmp_path / "whole")))
    with monkeypatch.context() as patch:
        removed = count_removals(whole, patch, at=10**6, after=False)
        vacuum_store(whole.uri, keep=1)
    assert len(removed) > 15
    for at in range(len(removed)):
        folder = tmp_path / f"{at}"
        broken = open_store(str(shutil.copytree(storage.uri, folder)))
        with monkeypatch.context() as patch:
            count_removals(broken, patch, at=at, after=bool(at % 2))
            with pytest.raises(Killed):
                vacuum_store(broken.uri, keep=1)
        assert problems(broken) == []
        assert current_number(broken) == 4
        vacuum_store(broken.uri, keep=1)
        assert files(broken) == files(whole)
        shutil.rmtree(folder)


def test_a_build_takes_back_what_a_dead_vacuum_was_about_to_remove(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = sorted(shards_of(storage, 2) - shards_of(storage, 4))
    with monkeypatch.context() as patch:
        count_removals(storage, patch, at=0, after=True)
        with pytest.raises(Killed):
            vacuum_store(storage.uri, keep=1)
    for name in storage.names("runs/leases"):
        os.utime(Path(storage.uri) / "runs/leases" / name, (1, 1))  # it is gone for a while
    contract = read_version(storage).manifest.contract.id
    with hold_lease(storage, "build", shards=held):
        removal = read_removal(storage)
        assert removal is not None
        assert removal.shards.isdisjoint(held)
        assert vacuum_store(storage.uri, keep=1).kept == (4,)
    assert all(storage.exists(f"photos/{contract}/{shard}.parquet") for shard in held)
    assert not storage.exists(REMOVAL)


def test_a_rollback_to_a_version_that_is_going_is_refused(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        count_removals(storage, patch, at=0, after=False)
        with pytest.raises(Killed):
            vacuum_store(storage.uri, keep=1)
    with pytest.raises(VersionError, match="version 1 is being removed by a vacuum; CURRENT stays as it was"):
        set_current(storage, 1, expected=4)
    assert current_number(storage) == 4


def test_a_version_that_became_current_before_anything_went_stays(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step.add_removal

    def overtaken(storage: Storage, new: Any) -> Any:
        set_current(storage, 1, expected=4)
        return real(storage, new)

    monkeypatch.setattr(step, "add_removal", overtaken)
    done = vacuum_store(storage.uri, keep=1)
    assert done.removed == (2, 3)
    assert done.kept == (1, 4)
    assert problems(storage) == []


def test_a_manifest_that_cannot_be_read_stops_it_before_anything_goes(storage: Storage) -> None:
    storage.write("versions/000002/manifest.json", b"{}")
    before = files(storage)
    with pytest.raises(ManifestError, match="nothing was removed, for it is not known what version 2 stands on"):
        vacuum_store(storage.uri, keep=1)
    assert files(storage) == before


def test_a_listing_that_shows_too_little_removes_nothing_that_is_used(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_current(storage, 2, expected=4)
    real = Storage.names

    def stale(self: Storage, path: str = "") -> list[str]:
        return ["000001", "CURRENT"] if path == "versions" else real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "names", stale)
        assert vacuum_store(storage.uri, keep=2).removed == ()
    set_current(storage, 4, expected=2)
    assert problems(storage) == []


def test_what_a_dead_publish_left_goes_after_a_day(storage: Storage) -> None:
    storage.create("versions/000005/claim", b"dead")
    storage.write("versions/000005/index.faiss", b"half")
    vacuum_store(storage.uri)
    assert storage.exists("versions/000005/index.faiss")
    os.utime(Path(storage.uri) / "versions/000005/claim", (1, 1))
    vacuum_store(storage.uri)
    assert storage.names("versions/000005") == ["claim"]


def test_what_readers_kept_on_this_machine_goes_along(storage: Storage) -> None:
    sha256 = read_version(storage, 1).manifest.index.sha256
    open_version(storage, 1)
    assert (cache_folder() / "checked" / sha256).is_dir()
    vacuum_store(storage.uri, keep=1)
    assert not (cache_folder() / "checked" / sha256).exists()


@pytest.mark.parametrize(("keep", "age"), [(0, 0.0), (-1, 0.0), (1, -1.0)])
def test_keeping_nothing_is_refused(storage: Storage, keep: int, age: float) -> None:
    with pytest.raises(VersionError, match="wanted at least 1, and no less than 0"):
        vacuum_store(storage.uri, keep=keep, older_than_days=age)


def test_the_command_says_what_went(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vacuum", "--keep", "2", "--dry-run", "--store", storage.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == [1, 2]
    assert main(["vacuum", "--keep", "2", "--store", storage.uri]) == 0
    assert capsys.readouterr().out.startswith("removed versions 1, 2: ")
    assert main(["vacuum", "--keep", "0", "--store", storage.uri, "--json"]) == 1


def test_on_s3_old_versions_go_too(storage: Storage, s3: str) -> None:
    remote, root = Storage(f"{s3}/store"), Path(storage.uri)
    for path in sorted(files(storage)):
        remote.write(path, (root / path).read_bytes())
    done = vacuum_store(remote.uri, keep=2)
    assert (done.removed, done.kept) == ((1, 2), (3, 4))
    assert problems(remote) == []
    assert remote.names("versions/000001") == ["claim"]
    assert open_version(remote)[0].version.number == 4


def test_what_dead_processes_left_on_its_way_goes_after_a_day_and_what_is_under_way_stays(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = Path(storage.uri) / "runs/staging"
    with monkeypatch.context() as patch, workroom(storage) as room:
        patch.setattr("tasks.steps.workroom.shutil.rmtree", lambda *_, **__: None)  # as if it were killed
        (room / "codes").write_bytes(b"half an index")
    (staging / "dead").write_bytes(b"half a table")
    (staging / "alive").write_bytes(b"half a table")
    for path in (room, staging / "dead"):
        os.utime(path, (path.stat().st_mtime - 2 * 86_400,) * 2)
    vacuum_store(storage.uri, dry_run=True)
    assert room.exists()
    vacuum_store(storage.uri)
    assert [path.name for path in staging.iterdir()] == ["alive"]


@pytest.mark.parametrize("kind", ["builds", "coding"])
def test_drafts_and_coded_faces_of_dead_builds_go_after_a_day_unless_a_build_runs(storage: Storage, kind: str) -> None:
    runs = Path(storage.uri) / "runs" / kind
    for name in ("dead", "alive"):
        for file in ("one", "two"):
            storage.write(f"runs/{kind}/{name}/{file}", b"half of something")
    (runs / "empty").mkdir()
    long_ago = time.time() - 2 * 86_400
    for path in (
        runs / "dead/one",
        runs / "dead/two",
        runs / "alive/one",
        runs / "dead",
        runs / "alive",
        runs / "empty",
    ):
        os.utime(path, (long_ago,) * 2)
    with hold_lease(storage, "build-of-days", shards=()):
        vacuum_store(storage.uri)
    vacuum_store(storage.uri, dry_run=True)
    assert storage.names(f"runs/{kind}") == ["alive", "dead", "empty"]
    vacuum_store(storage.uri)
    assert storage.names(f"runs/{kind}") == ["alive"]
    assert storage.names(f"runs/{kind}/alive") == ["one", "two"]
