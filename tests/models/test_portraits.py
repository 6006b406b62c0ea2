"""Drawn people: the seeds decide every byte, and facenet-pytorch's detector takes the drawings for faces."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from PIL import Image

from models import portraits
from models.portraits import draw_group, draw_person, draw_portrait

SURE = 0.95


@pytest.fixture(scope="module")
def oracle() -> Iterator[MTCNN]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield MTCNN(keep_all=True)
    torch.set_num_threads(threads)


def found(oracle: MTCNN, picture_HWC: np.ndarray) -> np.ndarray:
    """The sure faces' boxes, (N, 4), N may be 0."""
    boxes, scores = oracle.detect(Image.fromarray(picture_HWC))
    return np.zeros((0, 4)) if boxes is None else boxes[scores >= SURE]


def centres(boxes_N4: np.ndarray) -> np.ndarray:
    return (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2


def test_the_same_seeds_give_the_same_bytes_whatever_was_drawn_before():
    first = draw_portrait(draw_person(3), view_seed=5)
    np.random.seed(1)  # a global state that must not matter
    draw_portrait(draw_person(4), view_seed=9)
    again = draw_portrait(draw_person(3), view_seed=5)
    assert first.tobytes() == again.tobytes()
    assert draw_person(3) == draw_person(3)


def test_a_portrait_is_rgb_bytes_of_the_size_asked_for():
    for size_px in (64, 250, 301):
        picture = draw_portrait(draw_person(1), view_seed=0, size_px=size_px)
        assert picture.dtype == np.uint8
        assert picture.shape == (size_px, size_px, 3)
        assert picture.std() > 10


def test_every_view_of_a_person_is_another_picture():
    person = draw_person(8)
    views = [draw_portrait(person, view_seed=view_seed).astype(int) for view_seed in range(5)]
    assert min(np.abs(a - b).mean() for a, b in combinations(views, 2)) > 10


def test_two_people_share_no_background_under_one_view_seed():
    corners = [draw_portrait(draw_person(seed), view_seed=0)[:40, :40].astype(int) for seed in range(6)]
    assert min(np.abs(a - b).mean() for a, b in combinations(corners, 2)) > 5


def test_no_two_people_are_built_alike():
    people = [draw_person(seed) for seed in range(200)]
    for part in ("bones", "eyes", "nose", "mouth", "skin", "hair"):
        assert len({repr(asdict(getattr(person, part))) for person in people}) == len(people), part


def test_hair_beards_and_glasses_come_in_every_style():
    people = [draw_person(seed) for seed in range(300)]
    assert len({person.hair.style for person in people}) == 13
    assert len({person.hair.beard for person in people}) == 6
    assert len({person.glasses.style for person in people}) == 6


def test_names_are_two_ascii_words_and_none_repeats_in_a_thousand():
    names = [draw_person(seed).name for seed in range(1000)]
    assert len({name.lower() for name in names}) == 1000  # some file systems do not tell upper from lower case
    for name in names:
        first, last = name.split(" ")
        assert (first + last).isascii()
        assert (first + last).isalpha()


def test_the_oracle_finds_the_drawn_face_and_hardly_ever_another(oracle: MTCNN):
    hits, extras, tries = 0, 0, 0
    for seed in range(100, 121):
        for view_seed in range(2):
            boxes_N4 = found(oracle, draw_portrait(draw_person(seed), view_seed=view_seed))
            near = np.abs(centres(boxes_N4) - 125).max(axis=1) < 50
            hits, extras, tries = hits + bool(near.any()), extras + max(0, len(boxes_N4) - 1), tries + 1
    assert hits >= 0.97 * tries, f"{hits} of {tries} found"
    assert extras <= 1


@pytest.mark.parametrize(("count", "size_px"), [(1, (200, 300)), (3, (600, 400)), (5, (900, 300))])
def test_every_face_of_a_group_is_found_side_by_side(oracle: MTCNN, count: int, size_px: tuple[int, int]):
    width, height = size_px
    people = [draw_person(seed) for seed in range(20, 20 + count)]
    picture = draw_group(people, view_seed=1, size_px=size_px)
    assert picture.shape == (height, width, 3)
    pitch_px = width / count
    columns = sorted(int(x // pitch_px) for x in centres(found(oracle, picture))[:, 0])
    assert columns == list(range(count))


def test_a_group_is_the_same_bytes_twice_and_other_bytes_in_another_view():
    people = [draw_person(1), draw_person(2)]
    pictures = [draw_group(people, view_seed=view_seed, size_px=(320, 240)).tobytes() for view_seed in (4, 4, 5)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_pixels_alone_do_not_tell_who_it_is():
    """Views must differ more than people do, or a network would have nothing to learn; chance is 5 in 119."""
    pictures, who = [], []
    for seed in range(20):
        for view_seed in range(4):
            face = draw_portrait(draw_person(seed), view_seed=view_seed, size_px=125)[22:97, 27:97]
            pictures.append(face.astype(np.float32).ravel() - face.mean())
            who.append(seed)
    unit_ND = np.stack(pictures) / np.linalg.norm(pictures, axis=1, keepdims=True)
    cosine_NN = unit_ND @ unit_ND.T
    np.fill_diagonal(cosine_NN, -2)
    assert np.mean(np.array(who)[cosine_NN.argmax(axis=1)] == who) < 0.5


def test_what_cannot_be_drawn_is_refused_by_its_value():
    person = draw_person(0)
    with pytest.raises(ValueError, match=r"seed must be >= 0, got -1"):
        draw_person(-1)
    with pytest.raises(ValueError, match=r"view -2, person 0"):
        draw_portrait(person, view_seed=-2)
    with pytest.raises(ValueError, match=r"at least 64, got 20"):
        draw_portrait(person, view_seed=0, size_px=20)
    with pytest.raises(ValueError, match=r"people is empty"):
        draw_group([], view_seed=0, size_px=(300, 300))
    with pytest.raises(ValueError, match=r"3 people need 240 x 120 pixels, got 200 x 300"):
        draw_group([person] * 3, view_seed=0, size_px=(200, 300))


def test_the_package_gives_what_it_names():
    assert portraits.__all__ == ["Person", "draw_group", "draw_person", "draw_portrait"]
    assert all(hasattr(portraits, name) for name in portraits.__all__)
