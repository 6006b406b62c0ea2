import re
from pathlib import Path

import pandas as pd
import pyarrow as pa

from app.cli import COMMANDS
from store.schemas import STATUSES, VERSION_FACES, VERSION_PHOTOS, to_parquet

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text()


def test_the_pandas_example_runs_on_a_version_s_tables(tmp_path, monkeypatch):
    folder = tmp_path / "lookalike-store" / "versions" / "000001"
    folder.mkdir(parents=True)
    photo = {"uri": "/a.jpg", "size": 3, "shard": "0" * 32, "status": "no_face", "reason": "no face was found"}
    face = {"face_id": 1, "photo_sha256": "0" * 64, "uri": "/b.jpg", "box": [0, 0, 9, 9], "score": 1, "shard": "0" * 32}
    for name, schema, row in (("photos", VERSION_PHOTOS, photo), ("faces", VERSION_FACES, face)):
        table = pa.Table.from_pylist([{n: row.get(n) for n in schema.names}], schema=schema)
        (folder / f"{name}.parquet").write_bytes(to_parquet(table, schema))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, pd.DataFrame] = {}
    exec(code, names)
    assert names["photos"]["status"].tolist() == ["no_face"]
    assert names["faces"]["box"][0].tolist() == [0, 0, 9, 9]


def test_every_command_and_make_target_of_the_readme_exists():
    commands = set(re.findall(r"^lookalike (\w+)", README, re.MULTILINE))
    assert commands
    assert commands <= set(COMMANDS)
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE)) | set(re.findall(r"`make (\w+)`", README))
    makefile = (PROJECT / "Makefile").read_text()
    assert {target for target in targets if f"\n{target}:" not in makefile} == set()


def test_every_status_is_explained():
    assert {status for status in STATUSES if f"`{status}`" not in README} == set()


def test_every_link_to_a_file_leads_somewhere():
    for page in [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
