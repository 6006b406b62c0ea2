import math
import random
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from models.mtcnn import cascade, nms, weights
from models.mtcnn.boxes import make_square, place_points, shift_boxes, window_boxes, windows_inside
from models.mtcnn.cascade import CascadeSettings, Face, detect_faces
from models.mtcnn.nets import CascadeNets, ONet, PNet, RNet, load_cascade_nets
from models.mtcnn.pyramid import cut_crops, pyramid_scales, resize_to_level
from models.portraits import draw_group, draw_person

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import facenet_pytorch
    from facenet_pytorch.models.utils import detect_face as published
    from torchvision.ops import nms as torchvision_nms

FloatArray = npt.NDArray[np.float32]
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


def assert_same_faces(photo_HWC: UInt8Array, nets: CascadeNets, oracle: Any) -> int:
    faces = detect_faces(photo_HWC, nets=nets, settings=SETTINGS)
    boxes, scores, landmarks = oracle.detect(Image.fromarray(photo_HWC), landmarks=True)
    assert len(faces) == (0 if boxes is None else len(boxes))
    if boxes is None:
        return 0
    found_N4 = np.array([face.box for face in faces])
    twin = np.abs(found_N4[:, None] - boxes[None].astype(np.float32)).max(axis=2).argmin(axis=1)
    assert sorted(twin) == list(range(len(boxes)))
    np.testing.assert_allclose(found_N4, boxes[twin].astype(np.float32), atol=1e-3, rtol=0)
    np.testing.assert_allclose(
        [face.landmarks for face in faces], landmarks[twin].astype(np.float32), atol=1e-3, rtol=0
    )
    np.testing.assert_allclose([face.score for face in faces], scores[twin].astype(np.float32), atol=1e-5, rtol=0)
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    return len(faces)


# Weights


def test_the_package_is_read_as_data_and_never_imported() -> None:
    code = (
        "import sys; from models.mtcnn.nets import load_cascade_nets; load_cascade_nets(); "
        "print([name for name in ('facenet_pytorch', 'torchvision', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(weights.WeightsError, match=r"comes with facenet-pytorch, which is not installed"):
        weights.load_weights("rnet")


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_weights_path", lambda name: tmp_path / "gone.pt")
    with pytest.raises(weights.WeightsError, match=r"onet.pt cannot be read at .*gone.pt \(No such file"):
        weights.load_weights("onet")


def test_changed_weights_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def parse(*args: object, **options: object) -> None:
        raise AssertionError("unchecked bytes were parsed")

    changed = tmp_path / "pnet.pt"
    changed.write_bytes(b"anything")
    monkeypatch.setattr(weights, "_weights_path", lambda name: changed)
    monkeypatch.setattr(torch, "load", parse)
    with pytest.raises(weights.WeightsError, match=f"has sha256 [0-9a-f]{{64}}, wanted {weights.SHA256['pnet']}"):
        weights.load_weights("pnet")


# Nets


@pytest.mark.parametrize(("name", "net"), [("pnet", PNet()), ("rnet", RNet()), ("onet", ONet())])
def test_state_dicts_hold_the_published_names_and_shapes(name: weights.NetName, net: nn.Module) -> None:
    wanted = {key: tensor.shape for key, tensor in weights.load_weights(name).items()}
    assert {key: tensor.shape for key, tensor in net.state_dict().items()} == wanted


@pytest.mark.parametrize(
    ("name", "shape"), [("pnet", (2, 3, 61, 40)), ("rnet", (5, 3, 24, 24)), ("onet", (5, 3, 48, 48))]
)
def test_nets_compute_what_the_published_ones_do(
    name: str, shape: tuple[int, ...], nets: CascadeNets, oracle: Any
) -> None:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        score, *rest = getattr(nets, name)(images)
        *wanted_rest, wanted_scores = getattr(oracle, name)(images)
    torch.testing.assert_close(score, wanted_scores[:, 1])
    for output, wanted in zip(rest, wanted_rest, strict=True):
        torch.testing.assert_close(output, wanted)


def test_loaded_nets_are_ready_for_inference(nets: CascadeNets) -> None:
    for net in (nets.pnet, nets.rnet, nets.onet):
        assert not net.training
        assert not any(parameter.requires_grad for parameter in net.parameters())
    assert nets.device == torch.device("cpu")


# Pyramid


def test_scales_shrink_a_face_of_the_shortest_side_to_the_window_and_go_on_while_the_photo_holds_one() -> None:
    scales = pyramid_scales(250, 400, min_face_px=20, pyramid_factor=0.709)
    assert scales[0] * 20 == 12
    assert np.allclose(np.array(scales[1:]) / scales[:-1], 0.709)
    assert 250 * scales[-1] >= 12 > 250 * scales[-1] * 0.709
    assert pyramid_scales(19, 400, min_face_px=20, pyramid_factor=0.709) == ()


def test_resizing_takes_the_mean_of_each_area() -> None:
    photo_HWC = np.random.default_rng(0).uniform(0, 255, (13, 17, 3)).astype(np.float32)
    photo_1CHW = torch.from_numpy(photo_HWC).permute(2, 0, 1)[None]
    level = resize_to_level(photo_1CHW, 0.37)
    crop = cut_crops(photo_1CHW, np.array([(3, 2, 16, 12), (0, 0, 3, 3)]), side_px=4)
    assert level.shape == (1, 3, int(13 * 0.37 + 1), int(17 * 0.37 + 1))
    np.testing.assert_allclose(level[0].permute(1, 2, 0), area_means(photo_HWC, 5, 7), rtol=1e-5)
    np.testing.assert_allclose(crop[0].permute(1, 2, 0), area_means(photo_HWC[2:12, 3:16], 4, 4), rtol=1e-5)
    np.testing.assert_allclose(crop[1].permute(1, 2, 0), area_means(photo_HWC[:3, :3], 4, 4), rtol=1e-5)


def area_means(image_HWC: FloatArray, height: int, width: int) -> FloatArray:
    rows, columns = image_HWC.shape[:2]
    result = np.zeros((height, width, 3), np.float32)
    for y in range(height):
        for x in range(width):
            y1, y2 = y * rows // height, -(-(y + 1) * rows // height)
            x1, x2 = x * columns // width, -(-(x + 1) * columns // width)
            result[y, x] = image_HWC[y1:y2, x1:x2].mean(axis=(0, 1))
    return result


# Boxes


def random_boxes(count: int, *, seed: int, whole: bool = False) -> FloatArray:
    rng = np.random.default_rng(seed)
    first_N2 = rng.uniform(-40, 200, (count, 2))
    boxes_N4 = np.concatenate([first_N2, first_N2 + rng.uniform(1, 90, (count, 2))], axis=1)
    return (np.round(boxes_N4 / 8) * 8 if whole else boxes_N4).astype(np.float32)


@pytest.mark.parametrize("scale", [0.6, 0.4254, 0.6 * 0.709**5])
def test_windows_lie_where_the_published_cascade_puts_them(scale: float) -> None:
    scores_HW = torch.rand((57, 83), generator=torch.Generator().manual_seed(1))
    wanted, _ = published.generateBoundingBox(torch.zeros(1, 4, 57, 83), scores_HW[None], scale, 0.6)
    cells_N2 = (scores_HW >= 0.6).nonzero().numpy()
    np.testing.assert_array_equal(window_boxes(cells_N2, scale=scale), wanted[:, :4].numpy())


def test_correcting_and_squaring_boxes_equals_the_published_cascade_to_the_bit() -> None:
    boxes_N4 = random_boxes(500, seed=2)
    shift_N4 = np.random.default_rng(3).normal(0, 0.1, (500, 4)).astype(np.float32)
    shifted = published.bbreg(torch.from_numpy(boxes_N4.copy()), torch.from_numpy(shift_N4)).numpy()
    np.testing.assert_array_equal(shift_boxes(boxes_N4, shift_N4, extra_px=1), shifted)
    squares = published.rerec(torch.from_numpy(boxes_N4.copy())).numpy()
    np.testing.assert_array_equal(make_square(boxes_N4), squares)


def test_windows_are_the_published_ones_and_empty_outside_the_photo() -> None:
    boxes_N4 = random_boxes(500, seed=4)
    y, end_y, x, end_x = published.pad(torch.from_numpy(boxes_N4), 120, 90)
    windows_N4 = windows_inside(boxes_N4, height=90, width=120)
    np.testing.assert_array_equal(windows_N4, np.stack([x - 1, y - 1, end_x, end_y], axis=1))
    outside_N = (boxes_N4[:, 0] >= 121) | (boxes_N4[:, 1] >= 91) | (boxes_N4[:, 2:] < 1).any(axis=1)
    assert 0 < outside_N.sum() < 500
    np.testing.assert_array_equal((windows_N4[:, 2:] <= windows_N4[:, :2]).any(axis=1), outside_N)


def test_points_are_given_as_five_x_then_five_y_in_sides_of_the_box() -> None:
    boxes_N4 = np.array([(10, 20, 109, 219)], np.float32)
    points_N10 = np.array([(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)], np.float32)
    wanted_52 = [(9 + 100 * k / 10, 19 + 200 * (k + 5) / 10) for k in range(5)]
    np.testing.assert_allclose(place_points(boxes_N4, points_N10)[0], wanted_52, rtol=1e-6)


# Suppression


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_suppression_by_union_keeps_what_torchvision_keeps(seed: int, whole: bool) -> None:
    boxes_N4 = random_boxes(400, seed=seed, whole=whole)
    scores_N = np.random.default_rng(seed).uniform(0, 1, 400).astype(np.float32)
    if whole:
        scores_N = np.round(scores_N, 1)  # many equal ones: the order of equals matters
    for threshold in (0.3, 0.5, 0.7):
        kept = nms.suppress_by_union(boxes_N4, scores_N, iou_threshold=threshold)
        wanted = torchvision_nms(torch.from_numpy(boxes_N4), torch.from_numpy(scores_N), threshold)
        np.testing.assert_array_equal(kept, wanted.numpy())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_suppression_by_the_smaller_box_keeps_what_the_published_one_keeps(seed: int, ties: bool) -> None:
    boxes_N4 = random_boxes(300, seed=seed)
    scores_N = np.random.default_rng(seed).permutation(300).astype(np.float32)
    if ties:
        scores_N = np.minimum(scores_N, 200)  # a third saturates, as ONet's scores do at 1
    kept = nms.suppress_by_smaller(boxes_N4, scores_N, threshold=0.7)
    np.testing.assert_array_equal(kept, published.nms_numpy(boxes_N4, scores_N, 0.7, "Min"))


def test_overlap_equal_to_the_threshold_stays() -> None:
    half_inside = np.array([(0, 0, 10, 10), (0, 0, 10, 5)], np.float32)
    scores_N = np.array([0.9, 0.8], np.float32)
    assert nms.suppress_by_union(half_inside, scores_N, iou_threshold=0.5).tolist() == [0, 1]
    assert nms.suppress_by_union(half_inside, scores_N, iou_threshold=0.49).tolist() == [0]


def test_of_equal_scores_the_first_box_stays_by_union() -> None:
    boxes_N4 = np.array([(0, 0, 10, 10)] * 3, np.float32)
    assert nms.suppress_by_union(boxes_N4, np.ones(3, np.float32), iou_threshold=0.5).tolist() == [0]


def test_a_box_inside_a_better_one_goes_only_by_the_smaller() -> None:
    boxes_N4 = np.array([(0, 0, 100, 100), (10, 10, 30, 30)], np.float32)
    scores_N = np.array([0.9, 0.8], np.float32)
    assert nms.suppress_by_smaller(boxes_N4, scores_N, threshold=0.7).tolist() == [0]
    assert nms.suppress_by_union(boxes_N4, scores_N, iou_threshold=0.7).tolist() == [0, 1]


def test_suppressing_nothing_gives_nothing() -> None:
    none, scores = np.empty((0, 4), np.float32), np.empty(0, np.float32)
    assert nms.suppress_by_union(none, scores, iou_threshold=0.5).shape == (0,)
    assert nms.suppress_by_smaller(none, scores, threshold=0.5).shape == (0,)


# Cascade


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
        detect_faces(photo, nets=nets, settings=SETTINGS)


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
    assert [face.box.tolist() for face in straight] == [face.box.tolist() for face in copied]
    np.testing.assert_array_equal(photo_HWC, kept)


def test_candidates_outside_the_photo_are_dropped_without_moving_the_others(nets: CascadeNets) -> None:
    photo_1CHW = torch.from_numpy(drawn_group(1).astype(np.float32)[None]).permute(0, 3, 1, 2)
    height, width = photo_1CHW.shape[-2:]
    inside_N4 = cascade._propose(photo_1CHW, nets.pnet, settings=SETTINGS, threshold=0.6)
    outside = np.array(
        [(width + 5, 5, width + 45, 45), (-90, 5, -50, 45), (5, height + 3, 40, height + 38)], np.float32
    )
    mixed_N4 = np.concatenate([outside[:1], inside_N4[:3], outside[1:], inside_N4[3:]])
    with torch.inference_mode():
        wanted = cascade._refine(photo_1CHW, inside_N4, nets.rnet, threshold=0.7)
        found = cascade._refine(photo_1CHW, mixed_N4, nets.rnet, threshold=0.7)
        assert len(wanted) > 0
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert_equal_faces(
            cascade._decide(photo_1CHW, np.concatenate([outside, wanted]), nets.onet, threshold=0.7),
            cascade._decide(photo_1CHW, wanted, nets.onet, threshold=0.7),
        )
        assert cascade._decide(photo_1CHW, outside, nets.onet, threshold=0.7) == []


def assert_equal_faces(found: list[Face], wanted: list[Face]) -> None:
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=1e-3)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-3)
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_noise_with_every_threshold_at_zero_gives_finite_boxes(nets: CascadeNets) -> None:
    noise_HWC = np.random.default_rng(8).integers(0, 256, (61, 97, 3), np.uint8)
    faces = detect_faces(noise_HWC, nets=nets, settings=CascadeSettings(thresholds=(0, 0, 0)))
    assert faces
    assert all(np.isfinite(face.box).all() and np.isfinite(face.landmarks).all() for face in faces)


def test_faces_do_not_depend_on_how_many_crops_are_computed_at_a_time(
    nets: CascadeNets, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_HWC = drawn_group(2)
    wanted = detect_faces(photo_HWC, nets=nets, settings=SETTINGS)
    monkeypatch.setattr(cascade, "_CHUNK_CROPS", 3)
    assert_equal_faces(detect_faces(photo_HWC, nets=nets, settings=SETTINGS), wanted)


def test_the_last_threshold_keeps_the_faces_above_it(nets: CascadeNets) -> None:
    photo_HWC = drawn_group(1)
    every = detect_faces(photo_HWC, nets=nets, settings=SETTINGS)
    between = (every[0].score + every[-1].score) / 2
    above = detect_faces(photo_HWC, nets=nets, settings=CascadeSettings(thresholds=(0.6, 0.7, between)))
    assert 0 < len(above) < len(every)
    assert_equal_faces(above, [face for face in every if face.score > between])


def drawn_group(seed: int) -> UInt8Array:
    return draw_group([draw_person(10 * seed + k) for k in range(4)], view_seed=seed, size_px=(640, 240))


def test_drawn_faces_are_found_where_facenet_pytorch_finds_them(nets: CascadeNets, oracle: Any) -> None:
    assert sum(assert_same_faces(drawn_group(seed), nets, oracle) for seed in range(6)) >= 12


def test_real_faces_are_found_where_facenet_pytorch_finds_them(real_data: Path, nets: CascadeNets, oracle: Any) -> None:
    paths = sorted((real_data / "lfw" / "images").glob("*/*.jpg"))
    chosen = random.Random(11).sample(paths, 300)
    assert sum(assert_same_faces(read(path), nets, oracle) for path in chosen) > 300


def test_real_faces_of_many_sizes_in_one_photo_are_found_where_facenet_pytorch_finds_them(
    real_data: Path, nets: CascadeNets, oracle: Any
) -> None:
    paths = sorted((real_data / "lfw" / "images").glob("*/*.jpg"))
    rng = random.Random(12)
    found = 0
    for _ in range(5):
        photo = Image.new("RGB", (rng.randint(500, 900), rng.randint(400, 700)), (90, 120, 60))
        for path in rng.sample(paths, 6):
            side = rng.randint(80, 400)
            with Image.open(path) as one:
                place = (rng.randint(-60, photo.width - 60), rng.randint(-60, photo.height - 60))
                photo.paste(one.convert("RGB").resize((side, side)), place)
        found += assert_same_faces(np.asarray(photo), nets, oracle)
    assert found >= 10


def read(path: Path) -> UInt8Array:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
