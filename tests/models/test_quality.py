import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from models.alignment import ARCFACE_112
from models.quality import FaceQuality, measure_quality, overall_quality

UInt8Array = npt.NDArray[np.uint8]

BOX = np.array([0, 0, 112, 112], np.float32)
LANDMARKS = np.array(ARCFACE_112)


def picture(side: int = 112) -> UInt8Array:
    return np.random.default_rng(1).integers(40, 200, (side, side, 3), np.uint8)


def blurred(image: UInt8Array, radius_px: float) -> UInt8Array:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius_px)))


def measured(image: UInt8Array) -> FaceQuality:
    return measure_quality(image, BOX, LANDMARKS)


def with_nose(x: float, y: float = 71.0) -> npt.NDArray[np.float64]:
    moved = LANDMARKS.copy()
    moved[2] = (x, y)
    return moved


def test_blur_lowers_sharpness_step_by_step() -> None:
    values = [measured(blurred(picture(), radius)).sharpness for radius in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 100 * values[-1]


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = picture()
    grey = image @ np.array([0.299, 0.587, 0.114])
    loop = [
        grey[y - 1, x] + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4 * grey[y, x]
        for y in range(1, 111)
        for x in range(1, 111)
    ]
    assert measured(image).sharpness == pytest.approx(np.var(loop), rel=1e-4)


def test_a_flat_face_has_no_sharpness() -> None:
    assert measured(np.full((112, 112, 3), 130, np.uint8)).sharpness == pytest.approx(0, abs=1e-6)


def test_an_enlarged_face_is_less_sharp_than_the_same_face_in_full_size() -> None:
    full = picture()
    small = np.asarray(Image.fromarray(full).resize((28, 28), Image.Resampling.BILINEAR))
    assert measure_quality(small, BOX / 4, LANDMARKS / 4).sharpness < measured(full).sharpness / 4


def test_brightness_follows_the_pixels_from_black_to_white() -> None:
    values = [measured(np.full((112, 112, 3), level, np.uint8)).brightness for level in (0, 51, 255)]
    assert values == pytest.approx([0, 0.2, 1], abs=1e-5)


def test_only_the_part_of_the_box_inside_the_image_counts() -> None:
    image = picture()
    over_the_edge = measure_quality(image, np.array([56, 0, 168, 112]), LANDMARKS)
    inside = measure_quality(image, np.array([56, 0, 112, 112]), LANDMARKS)
    assert over_the_edge.brightness == inside.brightness > 0.2
    assert over_the_edge.face_px == 112
    assert inside.face_px == 56


def test_face_px_is_the_shorter_side() -> None:
    assert measure_quality(picture(), np.array([10, 20, 40.5, 100]), LANDMARKS).face_px == pytest.approx(30.5)


def test_a_box_outside_the_image_is_black() -> None:
    quality = measure_quality(picture(), np.array([500, 500, 560, 580]), LANDMARKS)
    assert (quality.sharpness, quality.brightness, quality.face_px) == (0, 0, 60)


def test_frontality_falls_as_the_nose_moves_from_the_middle_to_an_eye() -> None:
    left, right = LANDMARKS[0, 0], LANDMARKS[1, 0]
    middle = (left + right) / 2
    values = [measure_quality(picture(), BOX, with_nose(x)).frontality for x in np.linspace(middle, left, 6)]
    np.testing.assert_allclose(values, [1, 0.8, 0.6, 0.4, 0.2, 0], atol=0.01)
    assert measure_quality(picture(), BOX, with_nose(right + 20)).frontality == 0


def test_frontality_does_not_change_when_the_head_is_tilted() -> None:
    angle = np.radians(35)
    rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    upright = with_nose(50)
    tilted = (upright - 56) @ rotation.T + 56
    wanted = measure_quality(picture(), BOX, upright).frontality
    assert 0.5 < wanted < 0.9
    assert measure_quality(picture(), BOX, tilted).frontality == pytest.approx(wanted)


def test_eyes_in_one_place_are_no_frontal_face() -> None:
    assert measure_quality(picture(), BOX, np.full((5, 2), 50.0)).frontality == 0


def test_quality_is_the_product_of_its_shares() -> None:
    good = {"score": 1.0, "face_px": 80.0, "sharpness": 100.0, "brightness": 0.5, "yaw": 0.0, "pitch": 0.0}
    assert overall_quality(**good) == 1
    for worse, share in (
        ({"score": 0.85}, 0.5),
        ({"face_px": 48.0}, 0.5),
        ({"sharpness": 25.0}, 0.25),
        ({"brightness": 0.125}, 0.5),
        ({"brightness": 0.99}, 0.0),
        ({"yaw": 60.0}, 0.5),
        ({"pitch": -60.0}, 0.5),
        ({"yaw": None}, 0.0),
    ):
        assert overall_quality(**{**good, **worse}) == pytest.approx(share), worse  # type: ignore[arg-type]


def test_a_face_on_its_side_is_measured_like_an_upright_one() -> None:
    from models.portraits import draw_person, draw_portrait
    from models.rotation import turn, turn_boxes_back, turn_points_back

    upright = np.asarray(draw_portrait(draw_person(3), view_seed=1))
    box, landmarks = (
        np.array([40.0, 50.0, 150.0, 190.0]),
        np.array([(70.0, 100.0), (120.0, 98.0), (97.0, 125.0), (76.0, 155.0), (117.0, 153.0)]),
    )
    height, width = upright.shape[:2]
    wanted = measure_quality(upright, box, landmarks, score=0.99)
    lying = turn(upright, 90)  # so the way back is three quarters more
    found = measure_quality(
        lying,
        turn_boxes_back(box[None], 270, height=width, width=height)[0],
        turn_points_back(landmarks, 270, height=width, width=height),
        score=0.99,
    )
    for name in ("face_px", "brightness", "frontality", "yaw", "pitch", "quality"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=0.02), name
    assert found.sharpness == pytest.approx(wanted.sharpness, rel=0.1)
    assert abs(found.roll - wanted.roll) % 360 == pytest.approx(90, abs=1e-3)  # type: ignore[operator]
