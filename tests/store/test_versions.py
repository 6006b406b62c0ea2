import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from store import versions
from store.errors import ArtifactError, ManifestError, VersionError
from store.fingerprints import sha256_hex
from store.layout import CURRENT
from store.manifest import Manifest
from store.storage import Storage
from store.versions import (
    PublishedVersion,
    current_number,
    publish,
    published_numbers,
    read_file,
    read_version,
    set_current,
)

NAMES = ("index.faiss", "faces.parquet", "photos.parquet", "report.html")


def stage(storage: Storage, build: str) -> dict[str, str]:
    staged = {name: f"runs/builds/{build}/{name}" for name in NAMES}
    for name, path in staged.items():
        storage.write(path, f"{name} of {build}".encode())
    return staged


def manifest(build: str, *, parent: int | None) -> Manifest:
    files = {
        name: {"bytes": len(data), "sha256": sha256_hex(data)}
        for name, data in ((n, f"{n} of {build}".encode()) for n in NAMES)
    }
    document: dict[str, Any] = {
        "format": 1, "version": 1, "parent": parent, "build": build, "created_at": "2026-01-01", "sources": [],
        "contract": {"id": "c" * 32, "settings": {}}, "encoder": {"id": "e" * 32, "dimension": 1}, "shards": [],
        "tombstones": [], "files": files, "counts": {}, "photos": 0, "faces": 0, "metrics": None, "gate": None,
        "calibration": None, "content_sha256": sha256_hex(b""), "requires": [], "library_versions": {},
        "index": {"key": "Flat", "metric": "inner_product", "parameters": {}, "why": "", "change": "rebuilt"}
        | files["index.faiss"],
    }  # fmt: skip
    return Manifest.model_validate(document)


def publish_build(storage: Storage, build: str, *, parent: int | None) -> PublishedVersion:
    return publish(storage, staged=stage(storage, build), manifest=manifest(build, parent=parent), parent=parent)


def holds(storage: Storage, number: int, build: str) -> bool:
    """Whether a version verifies, every file against its manifest."""
    version = read_version(storage, number)
    assert version.manifest.version == number
    return all(read_file(storage, version, name) == f"{name} of {build}".encode() for name in NAMES)


class FailingAt(Storage):
    """Raises at the n-th change, before it or, where `after`, when it is done."""

    def __init__(self, uri: Path, *, n: int, after: bool) -> None:
        super().__init__(uri)
        self.left, self.after, self.depth = n, after, 0

    def changing(self, change: Any) -> Any:
        if self.depth:  # swap writes: one change
            return change()
        self.left -= 1
        self.depth += 1
        try:
            if self.left == 0 and not self.after:
                raise ConnectionError("the disk went away")
            result = change()
            if self.left == 0:
                raise ConnectionError("the answer was lost")
            return result
        finally:
            self.depth -= 1

    def write(self, path: str, data: bytes) -> None:
        self.changing(lambda: super(FailingAt, self).write(path, data))

    def create(self, path: str, data: bytes) -> bool:
        return bool(self.changing(lambda: super(FailingAt, self).create(path, data)))

    def copy(self, source: str, target: str) -> None:
        self.changing(lambda: super(FailingAt, self).copy(source, target))

    def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
        return bool(self.changing(lambda: super(FailingAt, self).swap(path, data, expected=expected)))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


@pytest.fixture
def published(storage: Storage) -> Storage:
    publish_build(storage, "first", parent=None)
    return storage


def test_a_store_without_versions_says_what_to_do(storage: Storage) -> None:
    assert current_number(storage) is None
    assert published_numbers(storage) == []
    with pytest.raises(VersionError, match=r"has no version yet: run `lookalike build SOURCE --store .*` first"):
        read_version(storage)
    with pytest.raises(VersionError, match=r"has no version 3; there is none"):
        read_version(storage, 3)


def test_a_published_version_is_current_and_verifies(published: Storage) -> None:
    assert current_number(published) == 1
    assert published.read(CURRENT) == b"1"
    assert published.names("versions") == ["000001", "CURRENT"]
    assert holds(published, 1, "first")


def test_numbers_ascend_and_each_version_stays(published: Storage) -> None:
    for number, build in enumerate(("second", "third"), start=2):
        assert publish_build(published, build, parent=number - 1).number == number
    assert published_numbers(published) == [1, 2, 3]
    assert [holds(published, n, b) for n, b in ((1, "first"), (2, "second"), (3, "third"))] == [True] * 3


@pytest.mark.parametrize("number", [0, -1, 2])
def test_a_version_that_is_not_there_is_refused_with_those_that_are(published: Storage, number: int) -> None:
    with pytest.raises(VersionError, match=rf"has no version {number}; there is 1$"):
        read_version(published, number)


def test_a_claimed_number_without_a_manifest_is_burned_and_not_listed(published: Storage) -> None:
    published.create("versions/000002/claim", b"somebody who died")
    published.write("versions/000002/index.faiss", b"half")
    assert publish_build(published, "second", parent=1).number == 3
    assert published_numbers(published) == [1, 3]
    with pytest.raises(VersionError, match="has no version 2; there is 1, 3"):
        read_version(published, 2)


@pytest.mark.parametrize("name", ["²", "notes", "0x2"])
def test_other_names_among_the_versions_are_passed_over(published: Storage, name: str) -> None:
    published.write(f"versions/{name}/x", b"")
    assert publish_build(published, "second", parent=1).number == 2


@pytest.mark.parametrize("text", [b"", b"seven", b"-1", b"0", "²".encode(), b"\xff"])
def test_a_current_that_is_no_number_is_refused(published: Storage, text: bytes) -> None:
    published.write(CURRENT, text)
    with pytest.raises(VersionError, match=r"versions/CURRENT holds .*, wanted a version's number"):
        current_number(published)


def test_a_build_planned_on_another_version_is_refused(published: Storage) -> None:
    for parent, planned in ((None, "an empty store"), (7, "version 7")):
        sentence = f"version 1 was published while this build, planned on {planned}, was running; run the build again"
        with pytest.raises(VersionError, match=sentence):
            publish_build(published, "late", parent=parent)
    assert published_numbers(published) == [1]


CHANGES = 7  # a claim, four files, the manifest, CURRENT


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("n", range(1, CHANGES + 1))
def test_a_build_that_dies_at_any_step_leaves_the_old_version_and_a_rerun_publishes(
    published: Storage, tmp_path: Path, n: int, after: bool
) -> None:
    staged = stage(published, "second")
    failing = FailingAt(tmp_path, n=n, after=after)
    with pytest.raises(ConnectionError):
        publish(failing, staged=staged, manifest=manifest("second", parent=1), parent=1)
    current_switched = n == CHANGES and after
    assert current_number(published) == (2 if current_switched else 1)
    assert holds(published, 1, "first")
    again = publish(published, staged=staged, manifest=manifest("second", parent=1), parent=1)
    assert again.number == (2 if current_switched else 2 if n == 1 and not after else 3)
    assert current_number(published) == again.number
    assert holds(published, again.number, "second")


def test_publishing_takes_no_more_steps_than_are_tried_above(published: Storage, tmp_path: Path) -> None:
    counting = FailingAt(tmp_path, n=10**6, after=False)
    publish(counting, staged=stage(published, "second"), manifest=manifest("second", parent=1), parent=1)
    assert 10**6 - counting.left == CHANGES


def test_a_lost_answer_to_the_manifest_s_create_is_no_refusal(published: Storage, tmp_path: Path) -> None:
    class Repeating(Storage):
        """As an S3 client does that tries again when the answer to a PUT was lost."""

        def create(self, path: str, data: bytes) -> bool:
            made = super().create(path, data)
            return made and not path.endswith("manifest.json")

    repeating = Repeating(tmp_path)
    version = publish(repeating, staged=stage(published, "second"), manifest=manifest("second", parent=1), parent=1)
    assert version.number == 2
    assert holds(published, 2, "second")


def test_a_build_that_is_published_already_is_not_published_twice(published: Storage) -> None:
    again = publish_build(published, "first", parent=None)
    assert again.number == 1
    assert published_numbers(published) == [1]


@pytest.mark.parametrize("attempt", range(4))
@pytest.mark.parametrize("parent", [None, 1])
def test_of_racing_builds_on_one_version_one_is_published_and_the_others_are_refused(
    storage: Storage, parent: int | None, attempt: int
) -> None:
    if parent:
        publish_build(storage, "first", parent=None)
    builds = [f"b{n}" for n in range(4)]
    staged = {build: stage(storage, build) for build in builds}
    start = threading.Barrier(len(builds))

    def run(build: str) -> int | str:
        start.wait()
        try:
            mine = manifest(build, parent=parent)
            return publish(Storage(storage.uri), staged=staged[build], manifest=mine, parent=parent).number
        except VersionError as error:
            return str(error)

    with ThreadPoolExecutor(len(builds)) as pool:
        results = list(pool.map(run, builds))
    won = [(build, result) for build, result in zip(builds, results, strict=True) if isinstance(result, int)]
    assert len(won) == 1
    build, number = won[0]
    assert current_number(storage) == number
    assert holds(storage, number, build)
    assert published_numbers(storage) == [*([1] if parent else []), number]
    assert all("was published while this build" in r for r in results if isinstance(r, str))


def test_a_build_that_loses_at_the_last_step_leaves_no_version(published: Storage, tmp_path: Path) -> None:
    class Overtaken(Storage):
        """Another build is published just before CURRENT would be switched."""

        def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
            publish_build(Storage(tmp_path), "faster", parent=1)
            return super().swap(path, data, expected=expected)

    staged = stage(published, "slower")
    with pytest.raises(
        VersionError, match="version 3 was published while this build, planned on version 1, was running"
    ):
        publish(Overtaken(tmp_path), staged=staged, manifest=manifest("slower", parent=1), parent=1)
    assert published_numbers(published) == [1, 3]
    assert current_number(published) == 3
    assert holds(published, 3, "faster")


def test_a_build_whose_last_step_was_done_and_sent_again_is_published(published: Storage, tmp_path: Path) -> None:
    class SentTwice(Storage):
        """The answer is lost on the way, the client sends again, and the store refuses what it holds already."""

        def create(self, path: str, data: bytes) -> bool:
            made = super().create(path, data)
            return made and not path.endswith("manifest.json")

        def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
            super().swap(path, data, expected=expected)
            return False

    staged = stage(published, "second")
    version = publish(SentTwice(tmp_path), staged=staged, manifest=manifest("second", parent=1), parent=1)
    assert version.number == current_number(published) == 2
    assert holds(published, 2, "second")


def test_a_staged_file_that_changed_is_refused_and_nothing_is_published(published: Storage) -> None:
    staged = stage(published, "second")
    published.write(staged["faces.parquet"], b"others")
    with pytest.raises(ArtifactError, match=r"second/faces.parquet has changed"):
        publish(published, staged=staged, manifest=manifest("second", parent=1), parent=1)
    published.remove(staged["faces.parquet"])
    with pytest.raises(ArtifactError, match=r"second/faces.parquet is missing"):
        publish(published, staged=staged, manifest=manifest("second", parent=1), parent=1)
    assert published_numbers(published) == [1]


def test_a_file_that_does_not_read_back_is_refused(published: Storage, tmp_path: Path) -> None:
    class Truncating(Storage):
        def copy(self, source: str, target: str) -> None:
            super().write(target, self.read(source)[:-1])

    staged = stage(published, "second")
    with pytest.raises(VersionError, match=r"000002/index.faiss does not read back as it was written"):
        publish(Truncating(tmp_path), staged=staged, manifest=manifest("second", parent=1), parent=1)
    assert current_number(published) == 1


def test_a_number_is_never_given_twice_even_when_no_listing_shows_it(published: Storage, tmp_path: Path) -> None:
    class Stale(Storage):
        """A listing that shows nothing new, as an object store's once did."""

        def names(self, path: str = "") -> list[str]:
            return ["000001", "CURRENT"] if path == "versions" else super().names(path)

    for n in (2, 3, 4):
        publish_build(published, f"b{n}", parent=n - 1)
    set_current(published, 1, expected=4)
    for n in (2, 3, 4):
        published.remove(f"versions/{n:06d}/manifest.json")  # as a vacuum does, which leaves the claim
    stale = Stale(tmp_path)
    assert published_numbers(stale) == [1]
    version = publish(stale, staged=stage(published, "b5"), manifest=manifest("b5", parent=1), parent=1)
    assert version.number == 5


def test_a_claim_whose_answer_was_lost_is_known_by_the_build_s_uuid(published: Storage, tmp_path: Path) -> None:
    class Repeating(Storage):
        def create(self, path: str, data: bytes) -> bool:
            made = super().create(path, data)
            return made and not path.endswith("claim")

    staged = stage(published, "second")
    version = publish(Repeating(tmp_path), staged=staged, manifest=manifest("second", parent=1), parent=1)
    assert version.number == 2
    assert published.names("versions") == ["000001", "000002", "CURRENT"]


def test_a_manifest_that_another_build_made_is_not_taken_for_our_own(published: Storage, tmp_path: Path) -> None:
    class Foreign(Storage):
        """Another build's manifest stands in the folder: nothing but its uuid tells the two apart."""

        def create(self, path: str, data: bytes) -> bool:
            if path.endswith("000002/manifest.json"):
                super().create(path, manifest("foreign", parent=1).to_json())
            return super().create(path, data)

    staged = stage(published, "second")
    with pytest.raises(VersionError, match=r"000002/manifest.json was made by another build; run the build again"):
        publish(Foreign(tmp_path), staged=staged, manifest=manifest("second", parent=1), parent=1)
    assert current_number(published) == 1


def test_without_the_uuid_s_check_another_build_s_version_would_be_called_ours(
    published: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = versions.read_manifest

    def without_uuid(storage: Storage, path: str) -> Manifest:
        read = real(storage, path)
        return read.model_copy(update={"build": "second"}) if "000002" in path else read

    class Foreign(Storage):
        def create(self, path: str, data: bytes) -> bool:
            if path.endswith("000002/manifest.json"):
                super().create(path, manifest("foreign", parent=1).to_json())
            return super().create(path, data)

    monkeypatch.setattr(versions, "read_manifest", without_uuid)
    staged = stage(published, "second")
    publish(Foreign(tmp_path), staged=staged, manifest=manifest("second", parent=1), parent=1)
    monkeypatch.undo()
    assert read_version(published).manifest.build == "foreign"


def test_a_swap_whose_answer_was_lost_is_known_though_another_build_went_on_from_it(
    published: Storage, tmp_path: Path
) -> None:
    class Overtaken(Storage):
        def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
            super().swap(path, data, expected=expected)
            publish_build(Storage(tmp_path), "third", parent=2)
            return False

    staged = stage(published, "second")
    assert publish(Overtaken(tmp_path), staged=staged, manifest=manifest("second", parent=1), parent=1).number == 2
    assert published_numbers(published) == [1, 2, 3]
    assert current_number(published) == 3


def test_files_that_went_away_before_the_manifest_make_no_version(published: Storage, tmp_path: Path) -> None:
    class Losing(Storage):
        def copy(self, source: str, target: str) -> None:
            super().copy(source, target)
            if target.endswith("report.html"):
                self.remove(target.replace("report.html", "faces.parquet"))

    staged = stage(published, "second")
    with pytest.raises(VersionError, match=r"faces.parquet of version 2 went away while it was published"):
        publish(Losing(tmp_path), staged=staged, manifest=manifest("second", parent=1), parent=1)
    assert published_numbers(published) == [1]


def test_current_is_moved_to_a_version_that_is_there_and_only_from_where_it_was(published: Storage) -> None:
    publish_build(published, "second", parent=1)
    set_current(published, 1, expected=2)
    assert current_number(published) == 1
    assert publish_build(published, "third", parent=1).number == 3
    assert read_version(published).manifest.parent == 1
    with pytest.raises(VersionError, match="CURRENT changed meanwhile"):
        set_current(published, 2, expected=1)
    with pytest.raises(VersionError, match="has no version 9; there is 1, 2, 3"):
        set_current(published, 9, expected=3)
    assert current_number(published) == 3


def test_a_current_that_cannot_be_read_can_be_moved(published: Storage) -> None:
    published.write(CURRENT, b"\xff")
    set_current(published, 1, expected=None)
    assert current_number(published) == 1


def test_files_that_are_not_those_of_the_manifest_are_refused(published: Storage) -> None:
    staged = stage(published, "second")
    del staged["report.html"]
    with pytest.raises(VersionError, match=r"the files are \[.*\], the manifest names \[.*'report.html'\]"):
        publish(published, staged=staged, manifest=manifest("second", parent=1), parent=1)


def test_files_of_a_raised_revision_lie_in_a_folder_of_their_own(published: Storage) -> None:
    version = read_version(published)
    assert version.path_of("index.faiss") == "versions/000001/index.faiss"
    raised = PublishedVersion(number=1, manifest=version.manifest.model_copy(update={"revision": 2}))
    assert raised.path_of("index.faiss") == "versions/000001/r2/index.faiss"
    assert raised.path_of("manifest.json") == "versions/000001/manifest.json"
    published.write("versions/000001/r2/index.faiss", published.read("versions/000001/index.faiss"))
    published.remove("versions/000001/index.faiss")
    assert read_file(published, raised, "index.faiss") == b"index.faiss of first"


def test_a_published_file_that_was_tampered_with_is_refused_before_anybody_parses_it(published: Storage) -> None:
    published.write("versions/000001/index.faiss", b"an index that crashes FAISS")
    with pytest.raises(ArtifactError, match=r"000001/index.faiss has changed: its sha256 is .* it is not used"):
        read_file(published, read_version(published), "index.faiss")


def test_a_manifest_that_was_tampered_with_is_refused(published: Storage) -> None:
    published.write("versions/000001/manifest.json", b"{}")
    with pytest.raises(ManifestError, match=r"000001/manifest.json is not a manifest of format 1"):
        read_version(published)
