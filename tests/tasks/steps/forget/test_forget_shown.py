import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.forgotten import Forgotten
from store.layout import open_store
from tasks.steps import live_filter
from tasks.steps.forget import begin_forget, purge_store
from tasks.steps.forget_exclude import Wish
from tests.tasks.steps.forget.read_back import shown, tables

pytestmark = pytest.mark.usefixtures("easy_faces")
PROJECT = Path(__file__).resolve().parents[4]


def test_from_the_first_phase_on_no_version_shows_them_and_others_take_their_place(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == uri]
    everybody = shown(storage, 2)
    assert face["face_id"] in everybody
    begin_forget(Wish("photo", uri), store=two.store)
    for number in (1, 2):
        assert face["face_id"] not in shown(storage, number)
    assert shown(storage, 2) == everybody - {face["face_id"]}
    for k in range(1, len(everybody)):
        assert len(shown(storage, 2, k=k)) == k


def test_without_the_filter_they_would_still_be_shown(two: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == uri]
    begin_forget(Wish("photo", uri), store=two.store)
    monkeypatch.setattr(live_filter, "read_forgotten", lambda storage: Forgotten(key=None, tags=frozenset()))
    monkeypatch.setattr(live_filter, "_read", {})
    assert face["face_id"] in shown(storage, 2)


_READER = """
import sys, time
import numpy as np
from store.layout import open_store
from tasks.steps.live_filter import search_known
from tasks.steps.open_version import open_version
storage, number = open_store(sys.argv[1]), int(sys.argv[2])
opened, _ = open_version(storage, number)
query = np.ones((1, 32), np.float32) / np.float32(np.sqrt(32))
while True:
    found = [i for i, _ in search_known(storage, opened.index, opened.faces, query, k=20)[0]]
    print(time.time(), *found, flush=True)
    time.sleep(0.1)
"""


def test_a_process_that_holds_the_index_open_stops_showing_them_within_five_seconds(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(storage, 1)[2] if row["uri"] == uri]
    command = [sys.executable, "-c", _READER, two.store, "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as reader:
        assert reader.stdout is not None
        try:
            lines: Iterator[list[str]] = (line.split() for line in reader.stdout)
            assert str(face["face_id"]) in next(lines)
            begin_forget(Wish("photo", uri), store=two.store)
            excluded = time.time()
            purge_store(store=two.store)
            for at, *found in lines:
                if str(face["face_id"]) not in found:
                    assert len(found) > 3
                    break
                assert float(at) < excluded + 5
            later = [next(lines) for _ in range(3)]
            assert all(str(face["face_id"]) not in found for found in later)
        finally:
            reader.kill()


def test_crops_for_training_and_sheets_leave_them_out(two: Any, photos: Path) -> None:
    from tasks.steps.labelled_faces import labelled_faces

    storage = open_store(two.store)
    plan = two.plan(photos, labels="folder")
    before, _ = labelled_faces(storage, plan, contract=two.contract.id)
    begin_forget(Wish("label", "ann"), store=two.store)
    after, labels = labelled_faces(storage, plan, contract=two.contract.id)
    assert set(labels) == {"bob"}
    assert len(before) == 7
    assert len(after) == 4
