import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from store.errors import LookalikeError, VersionError
from store.fingerprints import sha256_hex
from store.forgotten import add_forgotten, forgotten_key, read_forgotten, tag
from store.layout import open_store
from store.storage import Storage
from tasks.steps.forget import begin_forget, forget_now, purge_store
from tasks.steps.forget_exclude import Wish
from tests.tasks.steps.forget.read_back import everything_holds, names, tables, traces

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]


def test_the_same_bytes_are_not_ingested_again_and_a_re_encoded_copy_is(own: Any, own_photos: Path) -> None:
    storage = open_store(own.store)
    uri = own_photos / "ann" / "1.png"
    forget_now(Wish("photo", str(uri)), store=own.store)
    shutil.copy(uri, own_photos / "bob" / "under_another_name.png")
    sink = io.BytesIO()
    Image.open(uri).save(sink, "PNG", compress_level=1)
    (own_photos / "bob" / "encoded_again.png").write_bytes(sink.getvalue())
    tags = read_forgotten(storage).tags
    assert own.build(own_photos) == 3
    version, rows, _ = tables(storage, 3)
    assert "encoded_again.png" in names(rows)
    assert names(rows) & {"1.png", "copy.png", "under_another_name.png"} == set()
    assert version.manifest.counts["forgotten"] >= 1
    assert len(read_forgotten(storage).tags) > len(tags)  # the new name is known without reading it from now on
    assert traces(Path(own.store) / "versions", "under_another_name") == []
    assert traces(Path(own.store) / "photos", "under_another_name") == []
    everything_holds(storage, (1, 2, 3))


def test_a_forgotten_face_is_not_found_again_where_the_photo_is_searched_anew(
    own: Any, own_photos: Path, paint: Paint
) -> None:
    storage = open_store(own.store)
    uri = own_photos / "ann" / "0.png"
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == str(uri)]
    forget_now(Wish("face", str(face["face_id"])), store=own.store)
    shutil.copy(uri, own_photos / "again.png")
    own.build(own_photos)
    _, rows, faces = tables(storage, 3)
    assert face["face_id"] not in {row["face_id"] for row in faces}
    (photo,) = [row for row in rows if row["uri"] == str(own_photos / "again.png")]
    assert (photo["status"], photo["num_faces"]) == ("no_face", 0)


def test_a_build_under_way_does_not_bring_them_back(own: Any, own_photos: Path, paint: Paint) -> None:
    from tasks.steps.check_version import check_version
    from tasks.steps.publish_version import publish_version

    paint(own_photos / "ann" / "7.png", 7)
    plan = own.plan(own_photos)
    checked = check_version(own.draft(plan), store=own.store)
    begin_forget(Wish("photo", str(own_photos / "ann" / "1.png")), store=own.store)
    with pytest.raises(
        VersionError,
        match="somebody was forgotten while this build was running, or is not forgotten to the end: run `lookalike forget --resume`",
    ):
        publish_version(checked.draft, store=own.store, plan=plan)
    purge_store(store=own.store)
    everything_holds(open_store(own.store))
    assert own.build(own_photos) == 3
    assert "1.png" not in names(tables(open_store(own.store), 3)[1])


def test_a_shard_that_was_computed_while_somebody_was_forgotten_is_not_kept(
    own: Any, own_photos: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.steps import find_faces as step

    new = paint(own_photos / "ann" / "8.png", 8)
    sha256 = sha256_hex(new.read_bytes())
    commit = step.commit_shard

    def overtaken(storage: Storage, **what: Any) -> Any:
        done = commit(storage, **what)
        add_forgotten(storage, [tag(forgotten_key(storage), "photo", sha256)])
        return done

    monkeypatch.setattr(step, "commit_shard", overtaken)
    plan = own.plan(own_photos)
    with pytest.raises(LookalikeError, match="somebody was forgotten while this shard was computed; run the same"):
        own.draft(plan)
    monkeypatch.setattr(step, "commit_shard", commit)
    assert traces(Path(own.store) / "photos", sha256) == []
    own.build(own_photos)
    assert "8.png" not in names(tables(open_store(own.store), 3)[1])


def test_somebody_forgotten_at_the_very_moment_of_a_publish_is_gone_when_it_ends(
    own: Any, own_photos: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.steps import publish_version as step

    paint(own_photos / "ann" / "8.png", 8)
    uri, publish = str(own_photos / "ann" / "1.png"), step.publish

    def overtaken(storage: Storage, **what: Any) -> Any:
        begin_forget(Wish("photo", uri), store=own.store)
        return publish(storage, **what)

    monkeypatch.setattr(step, "publish", overtaken)
    assert own.build(own_photos) == 3
    assert "1.png" not in names(tables(open_store(own.store), 3)[1])
    assert traces(Path(own.store), uri) == []
    everything_holds(open_store(own.store), (1, 2, 3))
