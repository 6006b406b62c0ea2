import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.mtcnn.boxes import make_square, place_points, shift_boxes, window_boxes, windows_inside

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from facenet_pytorch.models.utils import detect_face as published

FloatArray = npt.NDArray[np.float32]


def random_boxes(count: int, *, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    first_N2 = rng.uniform(-40, 200, (count, 2))
    boxes_N4 = np.concatenate([first_N2, first_N2 + rng.uniform(1, 90, (count, 2))], axis=1)
    return boxes_N4.astype(np.float32)


@pytest.mark.parametrize("scale", [0.6, 0.4254, 0.6 * 0.709**5])
def test_windows_lie_where_the_published_cascade_puts_them(scale: float) -> None:
    scores_HW = torch.rand((57, 83), generator=torch.Generator().manual_seed(1))
    wanted, _ = published.generateBoundingBox(torch.zeros(1, 4, 57, 83), scores_HW[None], scale, 0.6)
    cells_N2 = (scores_HW >= 0.6).nonzero().numpy()
    np.testing.assert_array_equal(window_boxes(cells_N2, scale=scale), wanted[:, :4].numpy())
    scales_N = np.full(len(cells_N2), scale, np.float32)
    np.testing.assert_array_equal(window_boxes(cells_N2, scale=scales_N), wanted[:, :4].numpy())


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
    windows_N4 = windows_inside(boxes_N4, sizes_N2=np.array([90, 120]))
    np.testing.assert_array_equal(windows_N4, np.stack([x - 1, y - 1, end_x, end_y], axis=1))
    outside_N = (boxes_N4[:, 0] >= 121) | (boxes_N4[:, 1] >= 91) | (boxes_N4[:, 2:] < 1).any(axis=1)
    assert 0 < outside_N.sum() < 500
    np.testing.assert_array_equal((windows_N4[:, 2:] <= windows_N4[:, :2]).any(axis=1), outside_N)


def test_points_are_given_as_five_x_then_five_y_in_sides_of_the_box() -> None:
    boxes_N4 = np.array([(10, 20, 109, 219)], np.float32)
    points_N10 = np.array([(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)], np.float32)
    wanted_52 = [(9 + 100 * k / 10, 19 + 200 * (k + 5) / 10) for k in range(5)]
    np.testing.assert_allclose(place_points(boxes_N4, points_N10)[0], wanted_52, rtol=1e-6)
