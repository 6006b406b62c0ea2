import io
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.portraits import draw_group, draw_person
from store.errors import ArtifactError, QueryError, StoreError, VersionError
from store.layout import open_store
from tasks.steps.query_photo import query_photo
from tasks.steps.read_crops import read_crops


@pytest.fixture(scope="module")
def store(built_store: tuple[Path, Any]) -> str:
    return str(built_store[0])


@pytest.fixture(scope="module")
def photo(drawn_people: Path) -> str:
    return str(sorted(drawn_people.rglob("*.jpg"))[0])


def test_a_photo_of_the_gallery_finds_itself_first(store: str, drawn_people: Path) -> None:
    for path in sorted(drawn_people.rglob("*.jpg"))[::7]:
        answer = query_photo(str(path), store=store, k=3)
        first = answer.faces[0].matches[0]
        assert first.uri == str(path)
        assert first.cosine > 0.99
        assert first.label == path.parent.name
        assert first.box == answer.faces[0].box


def test_matches_fall_and_are_as_many_as_asked_for_or_as_there_are(store: str, photo: str) -> None:
    for k in (1, 4, 500):
        (face,) = query_photo(photo, store=store, k=k).faces
        cosines = [m.cosine for m in face.matches]
        assert cosines == sorted(cosines, reverse=True)
        assert len({m.face_id for m in face.matches}) == len(cosines)
        assert len(cosines) == min(k, len(query_photo(photo, store=store, k=10**6).faces[0].matches))


def test_the_answer_as_json_holds_no_pixels_and_ids_as_text(store: str, photo: str) -> None:
    answer = query_photo(photo, store=store, k=2).as_json()
    match = answer["faces"][0]["matches"][0]
    assert set(answer) >= {"version", "image", "faces"}
    assert set(match) >= {"face_id", "uri", "uris", "label", "box", "cosine", "same_person", "rotation", "grade"}
    assert not {"shard", "crop"} & set(match)
    assert match["face_id"].isdigit()
    assert match["same_person"] is None
    assert answer["image"] == photo


def test_the_stored_crops_of_all_matches_can_be_read(store: str, photo: str) -> None:
    answer = query_photo(photo, store=store, k=5)
    crops = read_crops(answer, store=store)
    assert set(crops) == {m.face_id for m in answer.faces[0].matches}
    assert all(Image.open(io.BytesIO(crop)).format == "JPEG" for crop in crops.values())


def test_a_group_picture_gives_one_entry_a_face(store: str, tmp_path: Path) -> None:
    people = [draw_person(n) for n in (31, 32, 33)]
    Image.fromarray(draw_group(people, view_seed=4, size_px=(640, 320))).save(tmp_path / "group.png")
    answer = query_photo(str(tmp_path / "group.png"), store=store, k=2)
    assert len(answer.faces) == 3
    centres = sorted((face.box[0] + face.box[2]) / 2 for face in answer.faces)
    assert all(right - left > 60 for left, right in itertools.pairwise(centres))
    assert all(len(face.matches) == 2 for face in answer.faces)
    assert answer.size == (640, 320)
    assert Image.open(io.BytesIO(answer.picture)).size == (640, 320)


def test_what_cannot_be_asked_with_is_refused_in_one_sentence(store: str, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"/no.jpg does not exist: give the path or url of a photo"):
        query_photo(f"{tmp_path}/no.jpg", store=store)
    with pytest.raises(QueryError, match=r"is a folder: give the path or url of one photo"):
        query_photo(str(tmp_path), store=store)
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(QueryError, match=r"/a.jpg cannot be asked with: the bytes are no image"):
        query_photo(f"{tmp_path}/a.jpg", store=store)
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(QueryError, match=r"/empty.jpg cannot be asked with: "):
        query_photo(f"{tmp_path}/empty.jpg", store=store)
    Image.new("RGB", (120, 90), (9, 9, 99)).save(tmp_path / "blue.png")
    with pytest.raises(
        QueryError,
        match=r"no face was found in .*/blue.png: 120 x 90 pixels searched upright and turned by 90, 180, 270 degrees",
    ):
        query_photo(f"{tmp_path}/blue.png", store=store)


@pytest.mark.parametrize("k", [0, -3])
def test_fewer_than_one_match_cannot_be_asked_for(store: str, photo: str, k: int) -> None:
    with pytest.raises(QueryError, match=f"k is {k}: ask for at least 1 match"):
        query_photo(photo, store=store, k=k)


def test_another_encoder_than_the_version_s_is_refused(store: str, photo: str, built_store: tuple[Path, Any]) -> None:
    own = built_store[1]
    for name in (own.id, own.name):
        assert query_photo(photo, store=store, k=1, encoder=name).faces
    sentence = (
        rf"encoder mismatch: the photo would be embedded by resnet, version 1 was built with {own.id}\. Query with"
    )
    with pytest.raises(QueryError, match=sentence):
        query_photo(photo, store=store, k=1, encoder="resnet")


def test_a_version_or_a_store_that_is_not_there_is_refused(
    store: str, photo: str, tmp_path: Path, builder: Any
) -> None:
    assert query_photo(photo, store=store, k=1, version=1).version == 1
    with pytest.raises(VersionError, match="has no version 2; there is 1"):
        query_photo(photo, store=store, version=2)
    with pytest.raises(VersionError, match=r"has no version yet: run `lookalike build"):
        query_photo(photo, store=builder.store)
    with pytest.raises(StoreError, match="there is no store at"):
        query_photo(photo, store=f"{tmp_path}/nowhere")


def test_a_version_without_faces_answers_without_matches(builder: Any, photo: str, tmp_path: Path) -> None:
    (tmp_path / "sky").mkdir()
    Image.new("RGB", (120, 90), (9, 9, 99)).save(tmp_path / "sky" / "a.png")
    builder.build(tmp_path / "sky")
    assert query_photo(photo, store=builder.store, k=5).faces[0].matches == ()


def test_tampered_weights_are_refused(built: Any, photo: str) -> None:
    open_store(built.store).write(f"encoders/{built.encoder.id}/weights.safetensors", b"other")
    with pytest.raises(ArtifactError, match=r"weights.safetensors has changed"):
        query_photo(photo, store=built.store)


def test_a_query_changes_nothing_in_the_store(built: Any, photo: str) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = [p for p in Path(built.store).rglob("*") if p.is_file()]
        return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}

    before = state()
    query_photo(photo, store=built.store)
    assert state() == before


def test_a_photo_turned_by_exif_is_found_as_if_it_were_upright(store: str, photo: str, tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(Path(photo).read_bytes()))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    upright = tmp_path / "upright.png"
    image.save(upright)
    turned = query_photo(str(tmp_path / "turned.png"), store=store, k=1)
    straight = query_photo(str(upright), store=store, k=1)
    np.testing.assert_allclose(turned.faces[0].box, straight.faces[0].box, atol=0.01)
    assert turned.faces[0].matches[0].face_id == straight.faces[0].matches[0].face_id


def test_a_new_build_is_asked_at_once(built: Any, photo: str, drawn_people: Path, tmp_path: Path) -> None:
    assert query_photo(photo, store=built.store, k=1).version == 1
    (tmp_path / "more").mkdir()
    shutil.copy(photo, tmp_path / "more" / "twin.jpg")
    built.build(tmp_path / "more")
    answer = query_photo(photo, store=built.store, k=1)
    assert answer.version == 2
    assert len(answer.faces[0].matches[0].uris) == 2
    assert query_photo(photo, store=built.store, k=1, version=1).faces[0].matches[0].uris == (photo,)
