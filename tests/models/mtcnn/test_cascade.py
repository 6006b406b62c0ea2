import math
import random
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models.mtcnn import cascade
from models.mtcnn.cascade import CascadeSettings, Face, detect_faces, detect_faces_in_batch
from models.mtcnn.nets import CascadeNets, load_cascade_nets
from models.mtcnn.torch_nets import TorchNets
from models.portraits import draw_group, draw_person

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import facenet_pytorch

UInt8Array = npt.NDArray[np.uint8]

SETTINGS = CascadeSettings()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nets() -> CascadeNets:
    return load_cascade_nets()


@pytest.fixture(scope="module")
def oracle() -> Any:
    return facenet_pytorch.MTCNN(keep_all=True)


def in_batches(
    photos: Sequence[UInt8Array], nets: CascadeNets, settings: CascadeSettings = SETTINGS
) -> list[list[Face]]:
    batches = [photos[start : start + 32] for start in range(0, len(photos), 32)]
    return [faces for batch in batches for faces in detect_faces_in_batch(batch, nets=nets, settings=settings)]


def assert_same_faces(photo_HWC: UInt8Array, faces: list[Face], oracle: Any) -> int:
    """As facenet-pytorch finds them in this photo alone; far within half a pixel and a thousandth of a score."""
    boxes, scores, landmarks = oracle.detect(Image.fromarray(photo_HWC), landmarks=True)
    assert len(faces) == (0 if boxes is None else len(boxes))
    if boxes is None:
        return 0
    found_N4 = np.array([face.box for face in faces])
    twin = np.abs(found_N4[:, None] - boxes[None].astype(np.float32)).max(axis=2).argmin(axis=1)
    assert sorted(twin) == list(range(len(boxes)))
    np.testing.assert_allclose(found_N4, boxes[twin].astype(np.float32), atol=0.01, rtol=0)
    np.testing.assert_allclose([f.landmarks for f in faces], landmarks[twin].astype(np.float32), atol=0.01, rtol=0)
    np.testing.assert_allclose([f.score for f in faces], scores[twin].astype(np.float32), atol=1e-4, rtol=0)
    assert [f.score for f in faces] == sorted((f.score for f in faces), reverse=True)
    return len(faces)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"min_face_px": 0}, r"min_face_px must be at least 6, got 0"),
        ({"min_face_px": math.nan}, r"min_face_px .* got nan"),
        ({"thresholds": (0.6, 0.7, 1.2)}, r"thresholds must be three numbers in \[0, 1\], got \(0.6, 0.7, 1.2\)"),
        ({"thresholds": (0.6, 0.7)}, r"thresholds must be three"),
        ({"pyramid_factor": 1.0}, r"pyramid_factor must lie between 0 and 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CascadeSettings(**wrong)


@pytest.mark.parametrize("photo", [np.zeros((40, 40), np.uint8), np.zeros((40, 40, 3), np.float32)])
def test_what_is_no_rgb_photo_is_refused(photo: Any, nets: CascadeNets) -> None:
    with pytest.raises(ValueError, match=r"wanted uint8 \(H, W, 3\).*got (uint8|float32) \(40, 40"):
        detect_faces_in_batch([np.zeros((40, 40, 3), np.uint8), photo], nets=nets, settings=SETTINGS)


def test_no_photos_have_no_faces(nets: CascadeNets) -> None:
    assert detect_faces_in_batch([], nets=nets, settings=SETTINGS) == []


@pytest.mark.parametrize("shape", [(1, 1), (5, 4000), (4000, 5), (11, 11), (19, 300), (20, 20), (21, 20), (33, 47)])
def test_photos_of_any_size_are_searched_and_a_flat_one_has_no_face(shape: tuple[int, int], nets: CascadeNets) -> None:
    for level in (0, 127, 255):
        assert detect_faces(np.full((*shape, 3), level, np.uint8), nets=nets, settings=SETTINGS) == []


def test_read_only_and_mirrored_photos_are_accepted_and_left_as_they_are(nets: CascadeNets) -> None:
    photo_HWC = drawn_group(3)
    kept = photo_HWC.copy()
    photo_HWC.flags.writeable = False
    straight = detect_faces(photo_HWC[:, ::-1], nets=nets, settings=SETTINGS)
    copied = detect_faces(np.ascontiguousarray(photo_HWC[:, ::-1]), nets=nets, settings=SETTINGS)
    assert_identical([straight], [copied])
    np.testing.assert_array_equal(photo_HWC, kept)


def test_candidates_outside_their_photo_are_dropped_without_moving_the_others(nets: CascadeNets) -> None:
    photo_HWC = drawn_group(1)
    height, width = photo_HWC.shape[:2]
    sizes_P2 = np.array([(height, width)])
    loaded = nets.load([photo_HWC])
    inside = cascade._propose(loaded, sizes_P2, nets, settings=SETTINGS)
    outside_N4 = np.array(
        [(width + 5, 5, width + 45, 45), (-90, 5, -50, 45), (5, height + 3, 40, height + 38)], np.float32
    )

    def candidates(boxes_N4: Any) -> Any:
        return cascade._Candidates(np.zeros(len(boxes_N4), np.int64), boxes_N4)

    mixed = candidates(np.concatenate([outside_N4[:1], inside.box[:3], outside_N4[1:], inside.box[3:]]))
    wanted = cascade._refine(loaded, inside, sizes_P2, nets, threshold=0.7)
    assert len(wanted.box) > 0
    np.testing.assert_allclose(cascade._refine(loaded, mixed, sizes_P2, nets, threshold=0.7).box, wanted.box, atol=1e-4)
    with_outside = candidates(np.concatenate([outside_N4, wanted.box]))
    found = cascade._decide(loaded, with_outside, sizes_P2, nets, threshold=0.7)
    assert_identical(found, cascade._decide(loaded, wanted, sizes_P2, nets, threshold=0.7))
    assert cascade._decide(loaded, candidates(outside_N4), sizes_P2, nets, threshold=0.7) == [[]]


def assert_identical(found: list[list[Face]], wanted: list[list[Face]]) -> None:
    assert [len(faces) for faces in found] == [len(faces) for faces in wanted]
    for one, other in zip([f for fs in found for f in fs], [f for fs in wanted for f in fs], strict=True):
        assert one.score == other.score
        np.testing.assert_array_equal(one.box, other.box)
        np.testing.assert_array_equal(one.landmarks, other.landmarks)


def test_noise_with_every_threshold_at_zero_gives_finite_boxes(nets: CascadeNets) -> None:
    noise_HWC = np.random.default_rng(8).integers(0, 256, (61, 97, 3), np.uint8)
    faces = detect_faces(noise_HWC, nets=nets, settings=CascadeSettings(thresholds=(0, 0, 0)))
    assert faces
    assert all(np.isfinite(face.box).all() and np.isfinite(face.landmarks).all() for face in faces)


def test_thresholds_of_one_pass_nothing(nets: CascadeNets) -> None:
    assert detect_faces(drawn_group(2), nets=nets, settings=CascadeSettings(thresholds=(1, 1, 1))) == []


def test_the_last_threshold_keeps_the_faces_above_it(nets: CascadeNets) -> None:
    photo_HWC = drawn_group(1)
    every = detect_faces(photo_HWC, nets=nets, settings=SETTINGS)
    between = (every[0].score + every[-1].score) / 2
    above = detect_faces(photo_HWC, nets=nets, settings=CascadeSettings(thresholds=(0.6, 0.7, between)))
    assert 0 < len(above) < len(every)
    assert_identical([above], [[face for face in every if face.score > between]])


def drawn_group(seed: int) -> UInt8Array:
    return draw_group([draw_person(10 * seed + k) for k in range(4)], view_seed=seed, size_px=(640, 240))


def test_drawn_faces_are_found_where_facenet_pytorch_finds_them(nets: CascadeNets, oracle: Any) -> None:
    photos = [drawn_group(seed) for seed in range(6)]
    assert sum(map(assert_same_faces, photos, in_batches(photos, nets), [oracle] * 6)) >= 12


def test_a_photo_larger_than_a_sheet_is_searched_as_facenet_pytorch_does(nets: CascadeNets, oracle: Any) -> None:
    photo_HWC = np.asarray(Image.fromarray(drawn_group(4)).resize((1437, 1101)))
    assert assert_same_faces(photo_HWC, detect_faces(photo_HWC, nets=nets, settings=SETTINGS), oracle) >= 1


def test_faces_do_not_depend_on_the_company_of_their_photo(nets: CascadeNets) -> None:
    photos = [np.asarray(Image.fromarray(drawn_group(n)).resize((200 + 77 * n, 300 - 31 * n))) for n in range(6)]
    alone = [detect_faces(photo, nets=nets, settings=SETTINGS) for photo in photos]
    assert sum(map(len, alone)) >= 6
    assert_identical(in_batches(photos, nets), alone)
    assert_identical(in_batches(photos[::-1], nets)[::-1], alone)


def test_torch_finds_the_same_faces(nets: CascadeNets) -> None:
    photos = [drawn_group(seed)[:, : 500 - 60 * seed] for seed in range(4)]
    pairs = zip(in_batches(photos, nets), in_batches(photos, TorchNets("cpu")), strict=True)
    for found, wanted in pairs:
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one.box, other.box, atol=0.01)
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_two_threads_may_use_the_same_nets(nets: CascadeNets) -> None:
    photos = [drawn_group(seed) for seed in range(3)]
    wanted = in_batches(photos, nets)
    found: list[Any] = [None] * 4

    def search(n: int) -> None:
        found[n] = in_batches(photos, nets)

    threads = [threading.Thread(target=search, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        assert_identical(one, wanted)


def test_a_thousand_real_photos_show_the_faces_facenet_pytorch_finds(
    real_data: Path, nets: CascadeNets, oracle: Any
) -> None:
    paths = sorted((real_data / "lfw" / "images").glob("*/*.jpg"))
    photos = [read(path) for path in random.Random(11).sample(paths, 1000)]
    assert sum(map(assert_same_faces, photos, in_batches(photos, nets), [oracle] * 1000)) > 1000


def test_real_photos_of_mixed_sizes_show_the_faces_facenet_pytorch_finds(
    real_data: Path, nets: CascadeNets, oracle: Any
) -> None:
    paths = sorted((real_data / "lfw" / "images").glob("*/*.jpg"))
    rng = random.Random(12)
    photos = [np.asarray(several_people(rng.sample(paths, 6), rng)) for _ in range(8)]
    for path in rng.sample(paths, 52):
        size = (rng.randint(20, 700), rng.randint(20, 700))
        photos.append(np.asarray(Image.fromarray(read(path)).resize(size)))
    rng.shuffle(photos)
    assert sum(map(assert_same_faces, photos, in_batches(photos, nets), [oracle] * 60)) >= 50


@pytest.mark.parametrize(
    "settings",
    [
        CascadeSettings(min_face_px=12),
        CascadeSettings(min_face_px=45),
        CascadeSettings(thresholds=(0.5, 0.6, 0.6)),
        CascadeSettings(pyramid_factor=0.5),
    ],
)
def test_other_settings_mean_what_they_mean_to_facenet_pytorch(
    real_data: Path, nets: CascadeNets, settings: CascadeSettings
) -> None:
    paths = sorted((real_data / "lfw" / "images").glob("*/*.jpg"))
    photos = [read(path) for path in random.Random(13).sample(paths, 20)]
    oracle = facenet_pytorch.MTCNN(
        keep_all=True,
        min_face_size=settings.min_face_px,
        thresholds=list(settings.thresholds),
        factor=settings.pyramid_factor,
    )
    assert sum(map(assert_same_faces, photos, in_batches(photos, nets, settings), [oracle] * 20)) >= 18


def several_people(paths: Sequence[Path], rng: random.Random) -> Image.Image:
    photo = Image.new("RGB", (rng.randint(500, 900), rng.randint(400, 700)), (90, 120, 60))
    for path in paths:
        side = rng.randint(80, 400)
        place = (rng.randint(-60, photo.width - 60), rng.randint(-60, photo.height - 60))
        photo.paste(Image.fromarray(read(path)).resize((side, side)), place)
    return photo


def read(path: Path) -> UInt8Array:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
