import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.same_person import Calibration, LabelledPairs, calibrate, count_cells
from store.encoders import read_card
from store.errors import EncoderUnknownError
from store.layout import encoder_folder, open_store
from store.manifest import Manifest
from store.schemas import VERSION_FACES, from_parquet
from store.storage import Storage
from store.versions import read_file, read_version
from tasks.steps.ask import ask_face
from tasks.steps.calibrate_version import calibrate_version, calibration_of
from tasks.steps.contract import Contract
from tasks.steps.face_blocks import Gallery
from tasks.steps.labelled_pairs import faces_of_people, halves_of, labelled_pairs
from tasks.steps.query_options import QueryOptions
from tasks.steps.resolve_encoder import resolve_encoder

Make = Callable[..., tuple[Any, Any, Any, Any]]
PEOPLE = {f"person {n:02}": 6 for n in range(60)} | {"many": 90, "once": 1}


@pytest.fixture
def storage(builder: Any) -> Storage:
    return open_store(builder.store)


@pytest.fixture(scope="module")
def labelled_store(
    small_encoder: tuple[Path, Any], make_builder: Any, middle_faces: Any, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Version 1 of twenty people, painted five times each; not to be changed."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for person in range(20):
        (folder / "photos" / f"person {person:02}").mkdir(parents=True)
        her = rng.integers(0, 255, (6, 6, 3)).repeat(8, 0).repeat(8, 1)
        for n in range(5):
            noise = rng.integers(0, 255, (6, 6, 3)).repeat(8, 0).repeat(8, 1)
            picture = Image.fromarray((0.8 * her + 0.2 * noise).astype(np.uint8))
            picture.save(folder / "photos" / f"person {person:02}" / f"{n}.png")
    empty, encoder = small_encoder
    shutil.copytree(empty, folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.steps.find_faces.find_in_photos", middle_faces)
        builder = make_builder(store=str(folder / "store"), contract=Contract(), encoder=encoder, shard_photos=100)
        builder.build(folder / "photos", labels="folder")
    return str(folder / "store")


@pytest.fixture(scope="module")
def manifest(labelled_store: str) -> Manifest:
    return read_version(open_store(labelled_store)).manifest


def calibrated(
    storage: Storage, manifest: Manifest, tables: tuple[Any, Any, Any, Any], *, faces: int | None = None
) -> Calibration | None:
    """What a version of these tables gets; as one of so many faces, where `faces` says so."""
    of_faces, photos, ids, embeddings = tables
    of = manifest.model_copy(update={"faces": faces or len(ids)})
    record = calibrate_version(storage, of, faces=of_faces, photos=photos, opened=Gallery(ids, embeddings))
    return None if record is None else Calibration.model_validate(json.loads(json.dumps(record)))


def write_card(storage: Storage, encoder: str, **keys: Any) -> None:
    card = read_card(storage, encoder) | keys
    storage.write(f"{encoder_folder(encoder)}/card.json", json.dumps(card).encode())


def some_calibration() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pairs = LabelledPairs(1 - rng.beta(1, 60, 900), count_cells(1 - rng.beta(2, 30, 9_000)), people=90, faces=300)
    return calibrate(pairs, pairs, faces_a_person=3).model_dump(mode="json")


def test_pairs_are_those_of_a_double_loop_over_main_faces(labelled_faces_of: Make) -> None:
    faces, photos, ids, embeddings = labelled_faces_of({"ada": 3, "bob": 2, "cy": 1}, noise=0.5)
    taken = faces_of_people({"ada", "bob"}, faces=faces, photos=photos, opened=Gallery(ids, embeddings))
    pairs = labelled_pairs(taken)
    rows = {row["face_id"]: row for row in faces.to_pylist()}
    middle = [n for n, i in enumerate(ids) if rows[int(i)]["box"][0] == 30 and rows[int(i)]["label"] != "cy"]
    same, different = [], []
    for one, other in itertools.combinations(middle, 2):
        alike = rows[int(ids[one])]["label"] == rows[int(ids[other])]["label"]
        (same if alike else different).append(float(embeddings[one] @ embeddings[other]))
    assert sorted(taken.ids_L.tolist()) == sorted(ids[middle].tolist())
    assert sorted(pairs.same) == pytest.approx(sorted(same), abs=1e-6)
    np.testing.assert_array_equal(pairs.different, count_cells(different))
    assert (pairs.people, pairs.faces, taken.several()) == (2, 5, 2)


def test_halves_share_nobody_and_stay_the_same_when_others_join() -> None:
    first, second = halves_of(PEOPLE, gallery=1_000)
    assert not first & second
    assert first | second == PEOPLE.keys()
    assert halves_of(dict(reversed(PEOPLE.items())), gallery=1_000) == (first, second)
    assert halves_of(PEOPLE, gallery=1_000, seed=5) != (first, second)


def test_a_version_is_calibrated_by_its_own_labels_on_half_of_the_people_and_tried_on_the_others(
    storage: Storage, manifest: Manifest, labelled_faces_of: Make
) -> None:
    made = calibrated(storage, manifest, labelled_faces_of(PEOPLE))
    assert made is not None
    assert made.source == "labels"
    assert made.fitted_on.people + made.checked_on.people == len(PEOPLE)
    assert made.faces_a_person == pytest.approx(sum(PEOPLE.values()) / len(PEOPLE), abs=1e-3)
    # 15 pairs each of sixty people; of the one with ninety photos at most twenty
    assert made.fitted_on.same + made.checked_on.same == 60 * 15 + 20
    assert made.checked_on.ece < 0.05
    strangers = labelled_faces_of(dict.fromkeys("abcdefghij", 30), seed=1)
    of_strangers = calibrated(storage, manifest, strangers)
    assert of_strangers is None, "ten people are too few"


def test_what_is_said_of_a_pair_holds_for_people_of_another_draw(
    storage: Storage, manifest: Manifest, labelled_faces_of: Make
) -> None:
    made = calibrated(storage, manifest, labelled_faces_of(PEOPLE))
    assert made is not None
    faces, photos, ids, embeddings = labelled_faces_of({f"other {n}": 6 for n in range(120)}, seed=7)
    everybody = set(photos["label"].to_pylist())
    them = labelled_pairs(faces_of_people(everybody, faces=faces, photos=photos, opened=Gallery(ids, embeddings)))
    cosines = np.repeat((np.arange(len(them.different)) + 0.5) * 2 / len(them.different) - 1, them.different)
    for low, high in ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0)):
        p_same = 1 / (1 + np.exp(-made.ratio.log_ratio(them.same)))
        p_different = 1 / (1 + np.exp(-made.ratio.log_ratio(cosines)))
        same = ((p_same >= low) & (p_same < high)).mean()
        different = ((p_different >= low) & (p_different < high)).mean()
        assert low - 0.06 <= same / (same + different) <= high + 0.06


def test_people_an_encoder_learnt_from_do_not_flatter_it(
    storage: Storage, manifest: Manifest, labelled_faces_of: Make
) -> None:
    from models.pairs import split_for_training

    write_card(storage, manifest.encoder.id, training={"settings": {"seed": 3}})
    more = labelled_faces_of({f"person {n:03}": 8 for n in range(120)})
    learnt = set(split_for_training(more[1]["label"].to_pylist(), seed=3).train)
    made = calibrated(storage, manifest, more)
    assert made is not None
    assert made.fitted_on.people + made.checked_on.people == 120 - len(learnt) < 60


def test_without_labels_the_card_s_calibration_is_taken_and_said_to_be_the_card_s(
    storage: Storage, manifest: Manifest, labelled_faces_of: Make
) -> None:
    tables = labelled_faces_of({"ada": 2, "bob": 1})
    assert calibrated(storage, manifest, tables) is None
    write_card(storage, manifest.encoder.id, calibration=some_calibration())
    made = calibrated(storage, manifest, tables)
    assert made is not None
    assert made.source == "card"
    assert made.faces_a_person == 1.5, "the prior is the version's, not the card's"
    assert made.ratio == Calibration.model_validate(some_calibration()).ratio


def test_labels_that_bear_out_nothing_high_among_so_many_faces_are_not_used(
    storage: Storage, manifest: Manifest, labelled_faces_of: Make
) -> None:
    tables = labelled_faces_of(PEOPLE)
    made = calibrated(storage, manifest, tables)
    assert made is not None
    odds = made.fitted_on.different / 3 * made.faces_a_person / 2  # of one face, times the number of faces
    most_faces = int(odds * 3 / 7)  # among which it is 7 to 3
    assert calibrated(storage, manifest, tables, faces=int(0.9 * most_faces)) is not None
    assert calibrated(storage, manifest, tables, faces=int(1.1 * most_faces)) is None
    write_card(storage, manifest.encoder.id, calibration=some_calibration())
    carried = calibrated(storage, manifest, tables, faces=int(1.1 * most_faces))
    assert carried is not None
    assert carried.source == "card"


def test_a_card_s_calibration_that_cannot_be_read_is_refused_by_name(
    storage: Storage, manifest: Manifest, labelled_faces_of: Make
) -> None:
    broken = some_calibration()
    broken["ratio"]["rise"] = -1
    write_card(storage, manifest.encoder.id, calibration=broken)
    with pytest.raises(
        EncoderUnknownError, match=r"the calibration in the card of encoder .* at ratio\.rise; take it out"
    ):
        calibrated(storage, manifest, labelled_faces_of({"ada": 2}))


def test_a_calibration_of_a_kind_not_known_here_leaves_a_version_uncalibrated(manifest: Manifest) -> None:
    later = some_calibration() | {"ratio": {"method": "gamma"}}
    assert calibration_of(manifest.model_copy(update={"calibration": later})) is None


def test_answers_of_a_labelled_version_say_how_sure_they_are(labelled_store: str) -> None:
    storage = open_store(labelled_store)
    version = read_version(storage)
    made = calibration_of(version.manifest)
    assert made is not None
    assert (made.source, made.fitted_on.same + made.checked_on.same) == ("labels", 20 * 10)
    report = read_file(storage, version, "report.html").decode()
    assert f"{made.checked_on.ece:.4f}" in report
    assert "this version's labels: 10 people, 100 pairs of one person, 1,125 of two" in report

    known = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces").to_pylist()
    options = QueryOptions(k=100, not_itself=True)
    answer = ask_face(known[0]["face_id"], store=labelled_store, options=options)
    matches = answer.faces[0].matches
    assert answer.searched == 99
    for match in matches:
        prior = 0.5 * made.faces_a_person / 99
        odds = float(np.exp(made.ratio.log_ratio([match.cosine])[0])) * prior / (1 - prior)
        assert match.same_person == pytest.approx(odds / (1 + odds), abs=1e-4)
    mine = [match.same_person for match in matches if match.label == known[0]["label"]]
    others = [match.same_person for match in matches if match.label != known[0]["label"]]
    assert np.mean(mine) > 5 * np.mean(others)
    assert answer.calibration == made.summary()


@pytest.mark.usefixtures("easy_faces")
def test_a_version_s_calibration_put_into_a_card_beside_the_weights_serves_photos_without_labels(
    labelled_store: str, make_builder: Any, tmp_path: Path, paint: Callable[..., Path]
) -> None:
    found = read_version(open_store(labelled_store)).manifest
    folder = Path(labelled_store) / encoder_folder(found.encoder.id)
    shutil.copy(folder / "weights.safetensors", tmp_path / "x.safetensors")
    card = json.loads((folder / "card.json").read_text())
    assert "calibration" not in card
    (tmp_path / "x.json").write_text(json.dumps(card | {"calibration": found.calibration}))
    store = str(tmp_path / "store")
    encoder = resolve_encoder(str(tmp_path / "x.safetensors"), store=store)
    assert encoder.id == found.encoder.id, "a calibration is no part of what an encoder is"
    for n in range(4):
        paint(tmp_path / "photos" / f"{n}.png", n)
    make_builder(store=store, contract=Contract(), encoder=encoder).build(tmp_path / "photos")
    manifest = read_version(open_store(store)).manifest
    made, before = calibration_of(manifest), calibration_of(found)
    assert made is not None
    assert before is not None
    assert (made.source, made.ratio, made.faces_a_person) == ("card", before.ratio, 1.0)
    photos = from_parquet(
        read_file(open_store(store), read_version(open_store(store)), "faces.parquet"), VERSION_FACES, where="faces"
    )
    answer = ask_face(photos["face_id"][0].as_py(), store=store)
    assert answer.calibration is not None
    assert answer.calibration["source"] == "card"
    assert all(match.same_person is not None for match in answer.faces[0].matches)
