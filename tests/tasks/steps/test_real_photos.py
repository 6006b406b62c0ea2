import shutil
from pathlib import Path

import pytest

from store.layout import open_store
from store.versions import read_version
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import embed_faces
from tasks.steps.find_faces import find_faces
from tasks.steps.leave_one_out import leave_one_out
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.publish_version import publish_version
from tasks.steps.query_photo import query_photo
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.write_index import write_index

PEOPLE = 40


@pytest.fixture(scope="module")
def real_store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A version of forty real people with two to four photos each, embedded by a real encoder, and its photos."""
    folder = tmp_path_factory.mktemp("real")
    several = [p for p in sorted((real_data / "lfw" / "images").iterdir()) if 2 <= len(list(p.glob("*.jpg"))) <= 4]
    for person in several[:PEOPLE]:
        shutil.copytree(person, folder / "photos" / person.name)
    store, contract = str(folder / "store"), Contract()
    encoder = resolve_encoder(str(real_data / "weights" / "mobilefacenet.onnx"), store=store)
    plan = plan_build(
        list_photos(str(folder / "photos"), store=store),
        store=store,
        contract=contract,
        encoder=encoder.id,
        labels="folder",
    )
    for request in plan.requests:
        embed_faces(
            find_faces(request, store=store, contract=contract), store=store, contract=contract.id, encoder=encoder
        )
    draft = write_index(plan, store=store, contract=contract, encoder=encoder)
    publish_version(check_version(draft, store=store).draft, store=store, plan=plan)
    return store, folder / "photos"


def test_the_nearest_other_photo_shows_the_same_person_for_at_least_95_in_100(real_store: tuple[str, Path]) -> None:
    store, photos = real_store
    measured = leave_one_out(store)
    print(f"leave-one-out over {measured.queries} photos: {measured.precision_at_1:.4f}")
    assert measured.queries == len(list(photos.rglob("*.jpg")))
    assert measured.precision_at_1 >= 0.95


def test_a_face_is_found_in_nearly_every_photo_and_each_photo_is_accounted_for(real_store: tuple[str, Path]) -> None:
    store, photos = real_store
    manifest = read_version(open_store(store)).manifest
    assert sum(manifest.counts.values()) == manifest.photos == len(list(photos.rglob("*.jpg")))
    assert manifest.counts["indexed"] >= 0.99 * manifest.photos


def test_a_real_photo_finds_itself_first_and_then_its_person(real_store: tuple[str, Path]) -> None:
    store, photos = real_store
    right = 0
    asked = [sorted(person.glob("*.jpg"))[0] for person in sorted(photos.iterdir())[:10]]
    for photo in asked:
        faces = query_photo(str(photo), store=store, k=2).faces
        assert all(photo.as_posix() == face.matches[0].uri and face.matches[0].cosine >= 0.99 for face in faces)
        right += any(face.matches[1].label == photo.parent.name for face in faces)
    assert right >= 9
