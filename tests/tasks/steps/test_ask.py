import os
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.portraits import draw_group, draw_person
from models.same_person import LabelledPairs, calibrate, count_cells
from store.errors import QueryError
from store.layout import open_store
from tasks.steps.answer_faces import answer_face
from tasks.steps.ask import ask_face, ask_folder, ask_photo, is_folder
from tasks.steps.open_version import open_version
from tasks.steps.query_options import QueryOptions

ALL = 1_000


@pytest.fixture(scope="module")
def store(built_store: tuple[Path, Any]) -> str:
    return str(built_store[0])


@pytest.fixture(scope="module")
def photo(drawn_people: Path) -> str:
    return str(sorted(drawn_people.rglob("*.jpg"))[0])


def matches(photo: str, store: str, **options: Any) -> Any:
    (face,) = ask_photo(photo, store=store, options=QueryOptions(**{"k": ALL} | options)).faces
    return face.matches


def test_bytes_are_answered_as_their_file_is(store: str, photo: str) -> None:
    of_file, of_bytes = ask_photo(photo, store=store), ask_photo(Path(photo).read_bytes(), store=store, name="pasted")
    assert of_bytes.faces == of_file.faces
    assert of_bytes.image == "pasted"


def test_a_filter_gives_what_filtering_everything_gives(store: str, photo: str) -> None:
    everything = matches(photo, store)
    label = everything[-1].label  # the least similar: after the top 3 nothing of it would be left
    kept = tuple(m.face_id for m in everything if m.label == label)
    asked = matches(photo, store, labels=(label,), k=3)
    assert tuple(m.face_id for m in asked) == kept[:3]
    good = sorted(m.quality for m in everything)[len(everything) // 2]
    best = {m.face_id for m in everything if m.quality >= good}
    assert {m.face_id for m in matches(photo, store, min_quality=good - 1e-6)} >= best
    folder = os.path.dirname(everything[-1].uri)
    assert {m.uri for m in matches(photo, store, sources=(folder,))} == {
        m.uri for m in everything if os.path.dirname(m.uri) == folder
    }
    assert {m.face_id for m in matches(photo, store, min_cosine=everything[4].cosine - 1e-5)} >= {
        m.face_id for m in everything[:5]
    }


def test_how_many_faces_were_searched_is_said(store: str, photo: str) -> None:
    label = matches(photo, store)[0].label
    answer = ask_photo(photo, store=store, options=QueryOptions(labels=(label,)))
    assert answer.searched == 3
    assert len(answer.faces[0].matches) == 3


def test_a_name_or_a_source_that_is_not_there_is_refused_with_what_comes_near(store: str, photo: str) -> None:
    label = matches(photo, store)[0].label
    with pytest.raises(QueryError, match=f"nobody in version 1 is called {label}x; did you mean {label}"):
        matches(photo, store, labels=(label + "x",))
    with pytest.raises(QueryError, match=r"no photo of version 1 is from /nowhere; it was built from "):
        matches(photo, store, sources=("/nowhere",))


def test_photos_can_be_left_out_by_name_and_as_the_one_asked_with(store: str, photo: str) -> None:
    assert matches(photo, store)[0].uri == photo
    for options in ({"not_photos": (photo,)}, {"not_itself": True}):
        left = matches(photo, store, **options)
        assert photo not in {m.uri for m in left}
        assert len(left) == len(matches(photo, store)) - 1


def test_a_date_filter_goes_by_the_list_and_else_by_the_file(builder: Any, drawn_people: Path, tmp_path: Path) -> None:
    photos = sorted(drawn_people.rglob("*.jpg"))[:3]
    copies = [Path(shutil.copy(p, tmp_path / f"{n}.jpg")) for n, p in enumerate(photos)]
    stamp = datetime(2001, 5, 6, 12, tzinfo=UTC).timestamp()
    os.utime(copies[2], (stamp, stamp))
    rows = ["uri,date", f"{copies[0]},1999-12-31", f"{copies[1]},2020-02-03T10:00:00", f"{copies[2]},unknown"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    builder.build(tmp_path / "list.csv")
    found = {
        Path(m.uri).name
        for m in matches(str(copies[0]), builder.store, taken_from=date(2000, 1, 1), taken_to=date(2019, 1, 1))
    }
    assert found == {"2.jpg"}
    later = {Path(m.uri).name for m in matches(str(copies[0]), builder.store, taken_from=date(2020, 2, 3))}
    assert later == {"1.jpg"}


def test_at_most_n_of_a_person_and_the_next_ones_take_their_place(store: str, photo: str) -> None:
    shown = matches(photo, store, k=8, per_person=1)
    assert len(shown) == 8
    assert len({m.label for m in shown}) == 8
    best = {m.label: m.face_id for m in reversed(matches(photo, store))}
    assert {m.label: m.face_id for m in shown} == best


def test_near_duplicates_stand_as_one_match_that_names_the_others(built: Any, photo: str, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    with Image.open(photo) as image:
        image.save(tmp_path / "more" / "again.jpg", quality=60)
    built.build(tmp_path / "more")
    plain, folded = matches(photo, built.store), matches(photo, built.store, fold=True)
    again = str(tmp_path / "more" / "again.jpg")
    assert again in {m.uri for m in plain}
    assert again not in {m.uri for m in folded}
    assert [m.folded for m in folded if m.uri == photo] == [(again,)]
    assert len(folded) == len(plain) - 1


def test_a_known_face_is_asked_with_its_stored_embedding(store: str, photo: str) -> None:
    everything = matches(photo, store)
    answer = ask_face(everything[3].face_id, store=store, options=QueryOptions(k=2))
    assert answer.face_id == everything[3].face_id
    with Image.open(everything[3].uri) as image:
        assert answer.size == image.size
    assert answer.faces[0].matches[0].face_id == everything[3].face_id
    assert answer.faces[0].matches[0].cosine == pytest.approx(1, abs=1e-5)
    others = ask_face(everything[3].face_id, store=store, options=QueryOptions(k=2, not_itself=True))
    assert others.faces[0].matches[0].face_id == answer.faces[0].matches[1].face_id


@pytest.mark.parametrize("face_id", ["-1", "0x3", "9" * 30, ""])
def test_what_is_no_face_id_is_refused(store: str, face_id: str) -> None:
    with pytest.raises(QueryError, match="is no face_id"):
        ask_face(face_id, store=store)


def test_a_face_that_is_not_there_is_refused(store: str) -> None:
    with pytest.raises(QueryError, match="version 1 has no face 7: take a face_id"):
        ask_face(7, store=store)


def test_one_face_of_a_group_can_be_picked(store: str, tmp_path: Path) -> None:
    picture = tmp_path / "group.png"
    Image.fromarray(draw_group([draw_person(n) for n in (31, 32)], view_seed=4, size_px=(480, 320))).save(picture)
    whole = ask_photo(str(picture), store=store, options=QueryOptions(k=2))
    one = ask_photo(str(picture), store=store, options=QueryOptions(k=2, face=2))
    assert one.faces == (whole.faces[1],)
    assert one.faces[0].number == 2
    with pytest.raises(QueryError, match="shows 2 faces, there is no face 3"):
        ask_photo(str(picture), store=store, options=QueryOptions(face=3))


def test_a_folder_is_answered_photo_by_photo_and_a_bad_one_stops_nothing(
    store: str, photo: str, tmp_path: Path
) -> None:
    shutil.copy(photo, tmp_path / "b.jpg")
    (tmp_path / "a.jpg").write_text("no picture")
    assert is_folder(str(tmp_path))
    assert not is_folder(photo)
    bad, good = ask_folder(str(tmp_path), store=store, options=QueryOptions(k=1))
    assert bad.answer is None
    assert "cannot be asked with" in str(bad.refusal)
    assert good.answer is not None
    assert good.answer.faces[0].matches[0].uri == photo


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 0}, "k is 0"),
        ({"face": 0}, "face is 0: faces are counted from 1"),
        ({"per_person": 0}, "per_person is 0"),
        ({"min_quality": 1.5}, "min_quality is 1.5: wanted a number from 0 to 1"),
        ({"min_cosine": float("nan")}, "min_cosine is nan"),
        ({"taken_from": date(2020, 1, 2), "taken_to": date(2020, 1, 1)}, "taken_from is 2020-01-02, after"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(QueryError, match=sentence):
        QueryOptions(**options)


def test_a_calibrated_version_says_how_sure_it_is_and_filters_by_it(store: str, photo: str) -> None:
    rng = np.random.default_rng(0)
    pairs = LabelledPairs(1 - rng.beta(1, 60, 900), count_cells(1 - rng.beta(2, 30, 9_000)), people=90, faces=300)
    record = calibrate(pairs, pairs, faces_a_person=3).model_dump(mode="json")
    storage = open_store(store)
    opened, _ = open_version(storage)
    manifest = opened.version.manifest.model_copy(update={"calibration": record})
    calibrated = replace(opened, version=replace(opened.version, manifest=manifest))
    identity = int(matches(photo, store)[0].face_id)
    everything = answer_face(storage, calibrated, identity, options=QueryOptions(k=ALL)).faces[0]
    sure = [m.same_person for m in everything.matches]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] > sure[-1]
    assert all(m.false_hits is not None and m.grade != "uncalibrated" for m in everything.matches)
    least = (sure[0] + sure[-1]) / 2
    kept = answer_face(storage, calibrated, identity, options=QueryOptions(k=ALL, min_same_person=least)).faces[0]
    assert [m.face_id for m in kept.matches] == [m.face_id for m in everything.matches if m.same_person >= least]
    assert everything.people[0].label == everything.matches[0].label
    with pytest.raises(QueryError, match="not calibrated"):
        answer_face(storage, opened, identity, options=QueryOptions(min_same_person=0.5))
