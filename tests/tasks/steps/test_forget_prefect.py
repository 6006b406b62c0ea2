"""What is taken out of a database such as Prefect's; the real server's is in tests/flows/test_forget.py."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from tasks.steps.forget_prefect import redact_prefect, scan_prefect
from tasks.steps.forget_scan import Needles

FACE, OTHER = "4930363423334335526", "1111111111111111111"
PICTURE = "![](data:image/jpeg;base64,/9j/4AAQSkZJRgABAQ)"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a database of artifacts, of the events that repeat them, and of notes in plain text."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    path = tmp_path / "prefect.db"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE artifact (key TEXT, data JSON, description TEXT)")
        db.execute("CREATE TABLE events (event TEXT, payload JSON)")
        db.execute("CREATE TABLE note (body TEXT, about TEXT, size INTEGER)")
        for face in (FACE, OTHER):
            sheet = f"of /photos/{face}.jpg\n\n| {PICTURE} | cosine 0.9 | face {face} |"
            db.execute("INSERT INTO artifact VALUES (?, ?, ?)", (face, json.dumps(sheet), "matches"))
            payload = json.dumps({"type": "markdown", "data": sheet, "key": "contact-sheet"})
            db.execute("INSERT INTO events VALUES (?, ?)", ("created", payload))
            db.execute("INSERT INTO note VALUES (?, ?, ?)", (f"{{{PICTURE}", f"face {face}", 3))
        db.execute("INSERT INTO artifact VALUES ('table', ?, '')", (json.dumps(json.dumps([{"face_id": FACE}])),))
    return path


def rows(path: Path, table: str) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()


def test_what_shows_a_picture_and_names_the_face_anywhere_in_its_row_is_emptied_and_nothing_else(
    database: Path,
) -> None:
    before = {table: rows(database, table) for table in ("artifact", "events", "note")}
    assert redact_prefect(Needles(face_id={FACE.encode()})) > 0
    artifacts, events, notes = (rows(database, table) for table in ("artifact", "events", "note"))
    assert json.loads(artifacts[0][1]).startswith("A face that was shown here was forgotten")
    assert json.loads(events[0][1]).keys() == {"data"}
    assert notes[0] == ("A face that was shown here was forgotten, and the pictures with it.", "face forgotten", 3)
    assert (artifacts[1], events[1], notes[1]) == tuple(before[table][1] for table in before)
    assert json.loads(json.loads(artifacts[2][1])) == [{"face_id": "forgotten"}]
    assert database.read_bytes().count(b"base64") == 3


def test_after_it_nothing_is_found_and_a_result_that_names_the_face_is_gone(database: Path) -> None:
    (database.parent / "storage").mkdir()
    for name in (FACE, OTHER):
        (database.parent / "storage" / name[:4]).write_text(json.dumps({"face_id": name}))
    needles = Needles(face_id={FACE.encode()})
    assert scan_prefect(needles)[1]["face_id"] > 0
    redact_prefect(needles)
    files, hits = scan_prefect(needles)
    assert files == 2
    assert set(hits.values()) == {0}
    assert [path.name for path in (database.parent / "storage").iterdir()] == [OTHER[:4]]
