import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from store.errors import ArtifactError, VersionError
from store.layout import open_store
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.versions import read_file, read_version
from tasks.steps.diff_versions import diff_versions


def rows(store: str, number: int, name: str) -> list[dict[str, Any]]:
    storage, schema = open_store(store), VERSION_PHOTOS if name == "photos.parquet" else VERSION_FACES
    data = read_file(storage, read_version(storage, number), name)
    return list(from_parquet(data, schema, where=name).to_pylist())


def test_a_version_does_not_differ_from_itself(two_versions: Any) -> None:
    same = diff_versions(2, 2, store=two_versions.store)
    assert same["photos"] == {"added": 0, "removed": 0, "changed": 0}
    assert same["faces"] == {"added": 0, "removed": 0}
    assert same["settings"] == same["metrics"] == {}


def test_what_came_and_went_is_what_the_tables_say(two_versions: Any) -> None:
    store = two_versions.store
    uris = [{r["uri"] for r in rows(store, n, "photos.parquet")} for n in (1, 2)]
    ids = [{r["face_id"] for r in rows(store, n, "faces.parquet")} for n in (1, 2)]
    there, back = diff_versions(1, 2, store=store), diff_versions(2, 1, store=store)
    assert there["photos"] == {"added": len(uris[1] - uris[0]), "removed": 0, "changed": 0}
    assert there["photos"]["added"] == back["photos"]["removed"] == 3
    assert there["faces"] == {"added": len(ids[1] - ids[0]), "removed": len(ids[0] - ids[1])}
    before, after = there["settings"]["sources"]
    assert set(before) < set(after)
    assert there["metrics"]["photos"] == [24, 27]
    assert back["metrics"]["photos"] == [27, 24]
    assert "index" not in there["settings"]


def test_photos_that_changed_under_their_uri_are_counted(built: Any, drawn_people: Path, tmp_path: Path) -> None:
    source = shutil.copytree(drawn_people, tmp_path / "photos")
    builder = built
    assert builder.build(source) == 2
    one, other = sorted(source.rglob("*.jpg"))[:2]
    shutil.copy(one, other)
    assert builder.build(source) == 3
    assert diff_versions(2, 3, store=builder.store)["photos"] == {"added": 0, "removed": 0, "changed": 1}


def test_what_is_not_there_or_damaged_is_refused(built: Any) -> None:
    with pytest.raises(VersionError, match="has no version 2; there is 1"):
        diff_versions(1, 2, store=built.store)
    open_store(built.store).write("versions/000001/photos.parquet", b"other")
    with pytest.raises(ArtifactError, match=r"photos.parquet has changed"):
        diff_versions(1, 1, store=built.store)


def test_the_command_shows_both_sides(two_versions: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "1", "2", "--store", two_versions.store, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= {"photos", "faces", "settings", "metrics"}
    assert main(["diff", "1", "2", "--store", two_versions.store]) == 0
    assert "photos: 3 added, 0 removed, 0 changed" in capsys.readouterr().out
