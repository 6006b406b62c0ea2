import math

import numpy as np
import numpy.typing as npt
import pytest

from models.pose import MEAN_FACE, estimate_pose

FloatArray = npt.NDArray[np.float64]


def seen(yaw: float, pitch: float, roll: float, *, scale: float = 2.0) -> FloatArray:
    """The mean face's landmarks, turned: yaw to the picture's right, pitch up, then roll clockwise; degrees."""
    y, p, r = (math.radians(angle) for angle in (-yaw, pitch, roll))
    about_y = np.array([(math.cos(y), 0, math.sin(y)), (0, 1, 0), (-math.sin(y), 0, math.cos(y))])
    about_x = np.array([(1, 0, 0), (0, math.cos(p), math.sin(p)), (0, -math.sin(p), math.cos(p))])
    about_z = np.array([(math.cos(r), -math.sin(r), 0), (math.sin(r), math.cos(r), 0), (0, 0, 1)])
    points_53 = np.array(MEAN_FACE) @ (about_z @ about_y @ about_x).T
    result: FloatArray = points_53[:, :2] * scale + (300, 200)
    return result


@pytest.mark.parametrize("yaw", [-60, -20, 0, 35])
@pytest.mark.parametrize("roll", [-170, -90, 0, 12, 90])
def test_yaw_and_roll_come_back(yaw: float, roll: float) -> None:
    np.testing.assert_allclose(estimate_pose(seen(yaw, 0, roll))[0], (yaw, 0, roll), atol=1e-6)


@pytest.mark.parametrize("pitch", [-40, 15])
@pytest.mark.parametrize("roll", [0, 90])
def test_pitch_comes_back(pitch: float, roll: float) -> None:
    np.testing.assert_allclose(estimate_pose(seen(0, pitch, roll))[0], (0, pitch, roll), atol=1e-6)


def test_signs_are_what_one_sees() -> None:
    face = np.array(MEAN_FACE)[:, :2]
    right, up = face.copy(), face.copy()
    right[2, 0] += 6  # the nose goes to the right of the picture
    up[2, 1] -= 6  # the nose goes up
    level = estimate_pose(face)[0]
    assert estimate_pose(right)[0][0] > level[0] + 5
    assert estimate_pose(up)[0][1] > level[1] + 5


def test_a_mirrored_face_looks_to_the_other_side() -> None:
    face = seen(25, 10, 8)
    mirrored = face[[1, 0, 2, 4, 3]] * (-1, 1) + (600, 0)
    yaw, pitch, roll = estimate_pose(face)[0]
    np.testing.assert_allclose(estimate_pose(mirrored)[0], (-yaw, pitch, -roll), atol=1)


def test_size_and_place_do_not_matter_and_faces_come_together() -> None:
    faces = np.stack([seen(20, 5, 3), seen(20, 5, 3, scale=0.3) - 40])
    pose = estimate_pose(faces)
    assert pose.shape == (2, 3)
    np.testing.assert_allclose(pose[0], pose[1], atol=1e-6)


@pytest.mark.parametrize("landmarks", [np.full((5, 2), 3.0), np.full((5, 2), math.nan), np.zeros((5, 2))])
def test_landmarks_that_say_nothing_give_nan(landmarks: FloatArray) -> None:
    assert np.isnan(estimate_pose(landmarks)).all()
