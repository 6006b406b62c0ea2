import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.cli import main
from store.errors import ArtifactError, VersionError
from store.fingerprints import sha256_hex
from store.forgotten import add_forgotten, forgotten_key, tag
from store.layout import open_store
from store.schemas import VERSION_FACES, from_parquet
from store.versions import read_file, read_version
from tasks.steps.export_faces import export_faces
from tasks.steps.stored_faces import read_face_vectors

pytestmark = pytest.mark.usefixtures("easy_faces")


def known(store: str, number: int) -> tuple[Any, Any]:
    """A version's faces, and their embeddings as an index gets them."""
    storage = open_store(store)
    version = read_version(storage, number)
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces")
    encoder = version.manifest.encoder
    return faces, read_face_vectors(
        storage, faces, encoder=encoder.id, dimension=encoder.dimension, recorded=version.manifest
    )


def test_every_face_is_exported_with_its_embedding(two_versions: Any, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    told = export_faces(2, out, store=two_versions.store, most_faces=2)
    files = sorted(out.glob("*.parquet"))
    assert told.files == len(files) > 1
    assert told.bytes == sum(file.stat().st_size for file in files)
    about = json.loads((out / "_export.json").read_text())
    assert about["sha256"] == {file.name: sha256_hex(file.read_bytes()) for file in files}
    faces, vectors_ND = known(two_versions.store, 2)
    rows = {row["face_id"]: row for file in files for row in pq.read_table(file).to_pylist()}
    assert told.faces == about["faces"] == len(rows) == faces.num_rows
    for row, vector_D in zip(faces.to_pylist(), vectors_ND, strict=True):
        exported = rows[row["face_id"]]
        np.testing.assert_array_equal(np.float32(exported.pop("embedding")), vector_D)
        assert exported == {name: row[name] for name in exported}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faces"]


def test_who_was_forgotten_is_not_exported_though_the_version_still_holds_them(built: Any, tmp_path: Path) -> None:
    faces, _ = known(built.store, 1)
    gone = faces["face_id"][0].as_py()
    storage = open_store(built.store)
    add_forgotten(storage, [tag(forgotten_key(storage), "face", str(gone))])
    export_faces(1, tmp_path / "faces", store=built.store)
    left = pq.read_table(tmp_path / "faces")["face_id"].to_pylist()
    assert sorted([*left, gone]) == faces["face_id"].to_pylist()


def test_a_folder_that_exists_and_a_damaged_shard_are_refused_and_leave_nothing(built: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(VersionError, match="exists already"):
        export_faces(1, tmp_path / "there", store=built.store)
    shard = next(Path(built.store, "embeddings").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError):
        export_faces(1, tmp_path / "faces", store=built.store)
    assert [p.name for p in tmp_path.iterdir() if "there" not in p.name and p.name != Path(built.store).name] == []


def test_the_command_says_what_it_wrote(two_versions: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "faces"
    assert main(["export", "2", str(out), "--parquet", "--store", two_versions.store, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["file"], told["files"]) == (2, str(out), 1)
    assert told["faces"] == pq.read_table(out)["face_id"].length()
