import numpy as np
import pytest

from models.rotation import turn, turn_boxes_back, turn_points_back

ROTATIONS = (0, 90, 180, 270)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_dot_is_found_where_it_was(rotation: int) -> None:
    photo = np.zeros((30, 50, 3), np.uint8)
    photo[7, 41] = 255
    turned = turn(photo, rotation)
    row, column = np.argwhere(turned[..., 0])[0]
    back = turn_points_back(np.array([(column, row)]), rotation, height=30, width=50)
    np.testing.assert_array_equal(back, [(41, 7)])
    box = np.array([(column, row, column + 1, row + 1)])
    np.testing.assert_array_equal(turn_boxes_back(box, rotation, height=30, width=50), [(41, 7, 42, 8)])


def test_a_quarter_is_counter_clockwise() -> None:
    photo = np.zeros((3, 5, 3), np.uint8)
    photo[0, 4] = 9  # right above
    assert turn(photo, 90).shape == (5, 3, 3)
    assert turn(photo, 90)[0, 0, 0] == 9  # left above


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_boxes_keep_their_corners_in_order_and_their_area(rotation: int) -> None:
    boxes = np.random.default_rng(0).uniform(0, 20, (40, 4)) + np.array([0, 0, 20, 20])
    back = turn_boxes_back(boxes, rotation, height=60, width=45)
    assert (back[:, 2:] > back[:, :2]).all()
    np.testing.assert_allclose(np.prod(back[:, 2:] - back[:, :2], axis=1), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))


def test_other_angles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0, 90, 180 or 270 degrees, got 45"):
        turn(np.zeros((3, 3, 3), np.uint8), 45)
