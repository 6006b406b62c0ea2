import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.forgotten import read_forgotten
from store.layout import open_store
from store.storage import Storage
from tasks.steps.forget import forget_now
from tasks.steps.forget_exclude import Wish
from tests.tasks.steps.forget.read_back import tables, traces

pytestmark = pytest.mark.usefixtures("easy_faces")


class DyingAt(Storage):
    """Raises before the n-th change; `left` says how many changes there were."""

    left = 0

    def changing(self, change: Callable[[], Any]) -> Any:
        DyingAt.left -= 1
        if DyingAt.left == 0:
            raise KeyboardInterrupt
        return change()

    def write(self, path: str, data: bytes) -> None:
        self.changing(lambda: super(DyingAt, self).write(path, data))

    def create(self, path: str, data: bytes) -> bool:
        return bool(self.changing(lambda: super(DyingAt, self).create(path, data)))

    def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
        return bool(self.changing(lambda: super(DyingAt, self).swap(path, data, expected=expected)))

    def remove(self, path: str) -> None:
        self.changing(lambda: super(DyingAt, self).remove(path))


def test_a_forget_killed_at_any_change_is_finished_by_the_next(
    two: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(open_store(two.store), 2)[2] if row["uri"] == uri]
    words = (uri, "copy.png", str(face["face_id"]), face["photo_sha256"])
    monkeypatch.setattr("tasks.steps.forget.open_store", DyingAt)
    n, finished = 1, False
    while not finished:
        store = tmp_path / "killed" / f"{n}"
        shutil.copytree(two.store, store)
        DyingAt.left = n
        try:
            forget_now(Wish("photo", uri), store=str(store))
            finished = True
        except KeyboardInterrupt:
            pass
        DyingAt.left = 0
        # before the tags are written there is nothing to finish but the wish itself
        began = bool(read_forgotten(Storage(store)))
        result = forget_now(None if began and n % 2 else Wish("photo", uri), store=str(store))
        assert result["verified"]
        assert traces(store, *words) == [], f"killed at change {n}"
        for number in (1, 2):
            version, _, _ = tables(open_store(str(store)), number)
            assert version.manifest.counts["forgotten"] == 2
        shutil.rmtree(store)
        n += 1
    assert n > 20
