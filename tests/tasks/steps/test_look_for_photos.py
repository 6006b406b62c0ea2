import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from store.errors import EmptySourceError, LookalikeError, SourceError
from store.layout import open_store, watch_path
from store.watch_record import answer_listing
from tasks.steps import look_for_photos as step
from tasks.steps.look_for_photos import (
    answer_plan,
    claim_look,
    look_for_photos,
    look_until_settled,
    watched_sources,
    withdraw_look,
)

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]
HOUR = 3600.0


@pytest.fixture
def photos(tmp_path: Path, paint: Paint) -> Path:
    for n in range(6):
        paint(tmp_path / "photos" / f"{n}.png", n)
    return tmp_path / "photos"


@contextlib.contextmanager
def no_photo_read() -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a photo was read")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.sources.read_uri", refuse)
        patch.setattr("tasks.steps.compare_listing.read_uri", refuse)
        yield


def counts(builder: Any, source: Path | str) -> dict[str, int]:
    with no_photo_read():
        look = look_for_photos(str(source), store=builder.store)
    return {name: n for name, n in look.counts.items() if n and name != "photos"}


def test_before_the_first_version_every_photo_is_new(builder: Any, photos: Path) -> None:
    with no_photo_read():
        look = look_for_photos(str(photos), store=builder.store)
    assert look.counts == {"photos": 6, "added": 6, "changed": 0, "removed": 0}
    assert look.version is None
    assert look.due(now_s=0, again_after_s=HOUR)


def test_after_a_build_nothing_is_due_and_each_difference_is_counted(builder: Any, photos: Path, paint: Paint) -> None:
    builder.build(photos)
    assert counts(builder, photos) == {}
    paint(photos / "more" / "new.png", 77)
    (photos / "0.png").unlink()
    paint(photos / "1.png", 99)
    os.utime(photos / "2.png", ns=(1, 1))
    assert counts(builder, photos) == {"added": 1, "changed": 2, "removed": 1}


def test_a_touched_photo_with_its_old_bytes_is_announced_until_a_build_has_seen_it_and_never_after(
    builder: Any, photos: Path
) -> None:
    builder.build(photos)
    os.utime(photos / "2.png", ns=(1, 1))
    assert counts(builder, photos) == {"changed": 1}
    plan = builder.plan(photos)
    assert not plan.needed
    answer_plan(plan, store=builder.store, look_at="failed")
    assert counts(builder, photos) == {"changed": 1}
    answer_plan(plan, store=builder.store, look_at="stamps")
    assert counts(builder, photos) == {}
    os.utime(photos / "3.png", ns=(1, 1))
    assert counts(builder, photos) == {"changed": 2}


def test_photos_that_could_not_be_read_are_no_news(builder: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> bytes:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.steps.find_faces.read_uri", fail)
        builder.build(photos)
    assert builder.plan(photos).counts.failed == 6
    assert counts(builder, photos) == {}


def test_a_list_whose_labels_change_is_news(builder: Any, photos: Path, tmp_path: Path) -> None:
    names = tmp_path / "photos.csv"
    names.write_text("uri,label\n" + "".join(f"{p},Ada\n" for p in sorted(photos.iterdir())))
    builder.build(names)
    assert not look_for_photos(str(names), store=builder.store).differs
    names.write_text(names.read_text().replace("Ada", "Bo"))
    assert look_for_photos(str(names), store=builder.store).relabelled


def test_of_two_watchers_one_may_announce_and_once_more_only_after_growing_waits(builder: Any, photos: Path) -> None:
    one, two = (look_for_photos(str(photos), store=builder.store) for _ in range(2))
    assert one.due(now_s=1000, again_after_s=HOUR)
    assert claim_look(one, now_s=1000) is not None
    assert claim_look(two, now_s=1000) is None

    for claims, waits_s in [(1, HOUR), (2, 2 * HOUR), (3, 4 * HOUR)]:
        again = look_for_photos(str(photos), store=builder.store)
        assert again.record.times == claims
        assert not again.due(now_s=1000 + waits_s - 1, again_after_s=HOUR)
        assert again.due(now_s=1000 + waits_s, again_after_s=HOUR)
        assert claim_look(again, now_s=1000) is not None
    patient = replace(again, record=replace(again.record, times=10_000))
    assert patient.due(now_s=1000 + 24 * HOUR, again_after_s=HOUR)


def test_more_photos_are_announced_at_once_although_the_first_ones_wait(
    builder: Any, photos: Path, paint: Paint
) -> None:
    claim_look(look_for_photos(str(photos), store=builder.store), now_s=1000)
    paint(photos / "more.png", 50)
    more = look_for_photos(str(photos), store=builder.store)
    assert more.due(now_s=1001, again_after_s=HOUR)
    assert claim_look(more, now_s=1001).record.times == 1


def test_an_announcement_that_failed_leaves_the_photos_due(builder: Any, photos: Path) -> None:
    look = look_for_photos(str(photos), store=builder.store)
    claimed = claim_look(look, now_s=1000)
    withdraw_look(claimed, look)
    assert look_for_photos(str(photos), store=builder.store).due(now_s=1000, again_after_s=HOUR)


def test_a_claim_that_a_build_has_answered_meanwhile_is_not_taken_back(builder: Any, photos: Path) -> None:
    look = look_for_photos(str(photos), store=builder.store)
    claimed = claim_look(look, now_s=1000)
    answer_listing(open_store(builder.store), look.source, look.listing)
    withdraw_look(claimed, look)
    assert not look_for_photos(str(photos), store=builder.store).differs


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"answered": 3, "announced": null}'])
def test_a_record_that_cannot_be_read_is_replaced(builder: Any, photos: Path, damage: bytes) -> None:
    open_store(builder.store, create=True).write(watch_path(str(photos)), damage)
    look = look_for_photos(str(photos), store=builder.store)
    assert look.due(now_s=0, again_after_s=HOUR)
    assert claim_look(look, now_s=0).record.times == 1


def test_photos_that_are_still_being_copied_are_waited_for(builder: Any, photos: Path, paint: Paint) -> None:
    slept = []

    def copy_more(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) <= 3:
            paint(photos / f"late{len(slept)}.png", len(slept))

    look = look_until_settled(str(photos), store=builder.store, settle_s=2, longest_s=100, sleep=copy_more)
    assert look.added == 9
    assert slept == [2, 2, 2, 2]


def test_a_stream_that_never_ends_is_announced_in_the_end(builder: Any, photos: Path, paint: Paint) -> None:
    slept: list[float] = []

    def copy_more(seconds: float) -> None:
        slept.append(seconds)
        paint(photos / f"late{len(slept)}.png", len(slept))

    assert look_until_settled(str(photos), store=builder.store, settle_s=2, longest_s=6, sleep=copy_more).added == 9


def test_where_nothing_came_nobody_waits(builder: Any, photos: Path) -> None:
    builder.build(photos)

    def refuse(_: float) -> None:
        raise AssertionError("waited")

    look_until_settled(str(photos), store=builder.store, settle_s=2, longest_s=6, sleep=refuse)


def test_an_empty_inbox_is_no_error_until_the_version_has_photos_of_it(
    builder: Any, photos: Path, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    assert not look_for_photos(str(inbox), store=builder.store).differs
    builder.build(photos)
    for photo in photos.iterdir():
        photo.unlink()
    with pytest.raises(EmptySourceError, match="is empty"):
        look_for_photos(str(photos), store=builder.store)


def test_a_missing_folder_is_an_error(builder: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        look_for_photos(str(tmp_path / "gone"), store=builder.store)


def test_without_a_source_all_that_the_version_was_built_from_is_watched(
    builder: Any, photos: Path, tmp_path: Path, paint: Paint
) -> None:
    with pytest.raises(LookalikeError, match="no version yet: name the source"):
        watched_sources(None, store=builder.store)
    other = paint(tmp_path / "other" / "x.png", 5).parent
    builder.build(photos)
    builder.build(other)
    assert watched_sources(None, store=builder.store) == [str(other), str(photos)]
    assert watched_sources(f"{photos}/", store=builder.store) == [str(photos)]


def test_looking_loads_no_model() -> None:
    heavy = {"torch", "openvino", "onnxruntime", "faiss"}
    code = (
        f"import sys, {step.__name__}; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
