import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from store.errors import VersionError
from store.layout import CURRENT, open_store
from store.storage import Storage
from store.versions import current_number, published_numbers, read_version
from tasks.steps import roll_back as step
from tasks.steps.open_version import open_version
from tasks.steps.roll_back import roll_back


@pytest.fixture
def storage(two_versions: Any, tmp_path: Path) -> Storage:
    return open_store(str(shutil.copytree(two_versions.store, tmp_path / "store")))


def test_going_back_moves_current_and_leaves_the_versions_ahead(storage: Storage) -> None:
    assert roll_back(1, store=storage.uri) == 1
    assert open_version(storage)[0].version.number == 1
    assert published_numbers(storage) == [1, 2]
    assert roll_back(2, store=storage.uri) == 2
    assert roll_back(2, store=storage.uri) == 2
    assert open_version(storage)[0].version.number == 2


def test_the_next_build_goes_on_from_current_under_a_new_number(
    storage: Storage, two_versions: Any, drawn_people: Path, tmp_path: Path
) -> None:
    roll_back(1, store=storage.uri)
    (tmp_path / "more").mkdir()
    shutil.copy(sorted(drawn_people.rglob("*.jpg"))[0], tmp_path / "more" / "twin.jpg")
    assert replace(two_versions, store=storage.uri).build(tmp_path / "more") == 3
    assert read_version(storage).manifest.parent == 1
    assert read_version(storage).manifest.photos == 25


@pytest.mark.parametrize("name", ["index.faiss", "report.html", "manifest.json"])
def test_a_damaged_version_does_not_become_current(storage: Storage, name: str) -> None:
    storage.write(f"versions/000001/{name}", b"other")
    with pytest.raises(Exception, match=rf"(version 1 is damaged, and CURRENT stays 2: .*{name}|is not a manifest)"):
        roll_back(1, store=storage.uri)
    assert current_number(storage) == 2


def test_a_version_that_is_not_there_is_refused(storage: Storage) -> None:
    with pytest.raises(VersionError, match="has no version 7; there is 1, 2"):
        roll_back(7, store=storage.uri)


def test_a_build_that_publishes_meanwhile_is_not_undone(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = step.verify_store

    def overtaken(store: str, *, version: int) -> Any:
        storage.write(CURRENT, b"1")
        return real(store, version=version)

    monkeypatch.setattr(step, "verify_store", overtaken)
    with pytest.raises(VersionError, match="CURRENT changed meanwhile; look with `lookalike versions` and try again"):
        roll_back(1, store=storage.uri)


def test_it_repairs_a_current_that_says_nothing(storage: Storage) -> None:
    storage.write(CURRENT, b"\xff")
    assert roll_back(2, store=storage.uri) == 2
    assert current_number(storage) == 2
    storage.remove(CURRENT)
    assert roll_back(1, store=storage.uri) == 1


def test_the_command_says_what_is_current_and_versions_marks_it(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", "1", "--store", storage.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"current": 1}
    storage.write("versions/000002/manifest.json", b"{}")
    assert main(["versions", "--store", storage.uri, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["versions"]
    assert [(row["version"], row["current"], row["problem"] is None) for row in rows] == [
        (1, True, True),
        (2, False, False),
    ]
    assert main(["versions", "--store", storage.uri]) == 0
    assert "2 damaged: " in capsys.readouterr().out
    assert main(["rollback", "3", "--store", storage.uri, "--json"]) == 1
