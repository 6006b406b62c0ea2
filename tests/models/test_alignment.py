import math

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.alignment import ARCFACE_112, similarity_transform, template_points, warp_to_template

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


def similarity(*, scale: float, degrees: float, shift: tuple[float, float]) -> FloatArray:
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([(cos, -sin, shift[0]), (sin, cos, shift[1])])


def moved(matrix_23: FloatArray, points_N2: npt.ArrayLike) -> FloatArray:
    return np.asarray(points_N2) @ matrix_23[:, :2].T + matrix_23[:, 2]


def landmarks_under(*, scale: float, degrees: float, shift: tuple[float, float]) -> FloatArray:
    return moved(similarity(scale=scale, degrees=degrees, shift=shift), ARCFACE_112)


def smooth_picture(height: int, width: int, *, grain_px: int = 4, seed: int = 0) -> UInt8Array:
    noise = np.random.default_rng(seed).integers(0, 256, (height // grain_px + 1, width // grain_px + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def sampled(image_HWC: UInt8Array, back_23: FloatArray, height: int, width: int) -> FloatArray:
    """A double loop: bilinear between pixel centres, clamped in the outermost half pixel, black beyond."""
    rows, columns = image_HWC.shape[:2]
    result = np.zeros((height, width, 3))
    for v in range(height):
        for u in range(width):
            x, y = back_23 @ (u, v, 1)
            if not (-0.5 <= x < columns - 0.5 and -0.5 <= y < rows - 0.5):
                continue
            x, y = min(max(x, 0), columns - 1), min(max(y, 0), rows - 1)
            x1, y1 = int(x), int(y)
            x2, y2 = min(x1 + 1, columns - 1), min(y1 + 1, rows - 1)
            upper = image_HWC[y1, x1] * (1 - x + x1) + image_HWC[y1, x2] * (x - x1)
            lower = image_HWC[y2, x1] * (1 - x + x1) + image_HWC[y2, x2] * (x - x1)
            result[v, u] = upper * (1 - y + y1) + lower * (y - y1)
    return result


def inverse(matrix_23: FloatArray) -> FloatArray:
    whole: FloatArray = np.linalg.inv(np.vstack([matrix_23, (0, 0, 1)]))
    return whole[:2]


@pytest.mark.parametrize(("scale", "degrees"), [(1, 0), (0.3, 20), (2.5, -75), (1, 180)])
def test_a_similarity_is_found_again_from_moved_points(scale: float, degrees: float) -> None:
    matrix = similarity(scale=scale, degrees=degrees, shift=(12.5, -7))
    np.testing.assert_allclose(similarity_transform(ARCFACE_112, moved(matrix, ARCFACE_112)), matrix, atol=1e-9)


def test_no_other_similarity_has_a_smaller_squared_error() -> None:
    rng = np.random.default_rng(4)
    points, targets = rng.uniform(0, 100, (5, 2)), rng.uniform(0, 100, (5, 2))
    best = similarity_transform(points, targets)
    # The oracle: a similarity without mirroring is linear in (a, b, tx, ty).
    rows = [row for x, y in points for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), targets.ravel(), rcond=None)[0]
    np.testing.assert_allclose(best, [(a, -b, tx), (b, a, ty)], atol=1e-9)


def test_mirrored_points_are_not_matched_by_mirroring() -> None:
    mirrored = np.array(ARCFACE_112) * (-1, 1)
    linear = similarity_transform(ARCFACE_112, mirrored)[:, :2]
    assert np.linalg.det(linear) > 0


@pytest.mark.parametrize("points", [[(5.0, 5.0)] * 5, [(math.nan, 0.0), *ARCFACE_112[1:]]])
def test_points_without_a_transform_are_shown(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"wanted finite points that differ, got \[\[(5.0|nan), "):
        similarity_transform(points, ARCFACE_112)


def test_the_template_grows_with_the_input() -> None:
    np.testing.assert_array_equal(template_points(height=112, width=112), ARCFACE_112)
    np.testing.assert_allclose(template_points(height=224, width=168), np.array(ARCFACE_112) * (1.5, 2))


def test_landmarks_on_the_template_leave_the_pixels_as_they_are() -> None:
    image = smooth_picture(112, 112)
    warped = warp_to_template(image, np.array(ARCFACE_112), height=112, width=112)
    assert np.abs(warped.astype(int) - image).max() <= 1  # the sampler cuts fractions off


def test_whole_pixel_shifts_move_pixels_and_show_black_outside() -> None:
    image = smooth_picture(112, 112)
    warped = warp_to_template(image, np.array(ARCFACE_112) - (10, 4), height=112, width=112)
    assert np.abs(warped[4:, 10:].astype(int) - image[:-4, :-10]).max() <= 1
    assert warped[:4].max() == 0
    assert warped[:, :10].max() == 0


@pytest.mark.parametrize(
    ("scale", "degrees", "shift", "size"),
    [(1.0, 17, (40, 10), 112), (1.4, -33, (20, 90), 112), (0.5, 100, (110, 30), 112), (1.3, 8, (5, -30), 160)],
)
def test_warping_samples_where_the_double_loop_does(
    scale: float, degrees: float, shift: tuple[float, float], size: int
) -> None:
    image = smooth_picture(200, 230, seed=2)
    landmarks = landmarks_under(scale=scale, degrees=degrees, shift=shift)
    warped = warp_to_template(image, landmarks, height=size, width=size)
    back = inverse(similarity_transform(landmarks, template_points(height=size, width=size)))
    wanted = sampled(image, back, size, size)
    difference = np.abs(warped - wanted)
    assert (difference <= 1.01).mean() > 0.999  # a pixel on the image's very edge may fall to either side
    assert np.median(difference) < 0.6


def test_a_large_face_is_averaged_not_sampled() -> None:
    checks = np.indices((1100, 1100)).sum(axis=0) % 2 * 255
    image = np.repeat(checks.astype(np.uint8)[..., None], 3, axis=2)
    warped = warp_to_template(image, landmarks_under(scale=6.3, degrees=11, shift=(180, 60)), height=112, width=112)
    assert 115 < warped.min() <= warped.max() < 140


@pytest.mark.parametrize("scale", [1.6, 2.0, 4.0, 9.0])
def test_a_shrunk_face_lies_where_the_double_loop_puts_it(scale: float) -> None:
    image = smooth_picture(1400, 1400, grain_px=round(12 * scale), seed=5)
    landmarks = landmarks_under(scale=scale, degrees=25, shift=(260, 40))
    warped = warp_to_template(image, landmarks, height=112, width=112).astype(float)
    back = inverse(similarity_transform(landmarks, ARCFACE_112))
    error = np.abs(warped - sampled(image, back, 112, 112)).mean()
    shifted_back = back + np.array([(0, 0, scale / 2), (0, 0, scale / 2)])
    half_pixel_off = np.abs(warped - sampled(image, shifted_back, 112, 112)).mean()
    assert error < 2
    assert error < half_pixel_off / 2


def test_a_face_outside_the_image_is_black() -> None:
    landmarks = np.array(ARCFACE_112) + 5000
    warped = warp_to_template(smooth_picture(50, 60), landmarks, height=112, width=96)
    assert warped.shape == (112, 96, 3)
    assert warped.max() == 0


def test_what_is_no_rgb_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warp_to_template: wanted uint8 \(H, W, 3\).*got uint8 \(50, 60\)"):
        warp_to_template(np.zeros((50, 60), np.uint8), np.array(ARCFACE_112), height=112, width=112)
