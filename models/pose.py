"""Where a face looks, from its five landmarks."""

import numpy as np
import numpy.typing as npt

__all__ = ["MEAN_FACE", "estimate_pose"]

FloatArray = npt.NDArray[np.float64]

MEAN_FACE: tuple[tuple[float, float, float], ...] = (
    (38.2946, 51.6963, 0.0),
    (73.5318, 51.5014, 0.0),
    (56.0252, 71.7366, -20.0),
    (41.5493, 92.3655, 2.0),
    (70.7299, 92.2041, 2.0),
)
"""Left eye, right eye, nose, mouth corners of a mean face that looks ahead: x to the right, y down, z away from the camera."""


def estimate_pose(landmarks_N52: npt.ArrayLike) -> FloatArray:
    """Yaw, pitch and roll of faces, float64 (N, 3), degrees; nan where the landmarks are not finite or lie on one spot.

    Yaw is positive when the face looks to the right of the picture, pitch when it looks up, roll when it is turned
    clockwise in the picture, -180 to 180; yaw and pitch are about the face's own upright, so a turned picture changes
    roll only.

    A scaled orthographic camera is fitted to the mean face: least squares for its two rows, then the nearest two rows of
    a rotation. Landmarks are few and noisy; expect some ten degrees of error.

    Args:
        landmarks_N52: (N, 5, 2), left eye, right eye, nose, left and right mouth corner, pixels.

    References:
        DeMenthon, Davis. Model-based object pose in 25 lines of code. IJCV 1995: the first step, without iterations. x and
        y of the mean face are ArcFace's template; the depths are those with the least error over LFW's photos.
    """
    points_N52 = np.asarray(landmarks_N52, np.float64).reshape(-1, 5, 2)
    centred_N52 = points_N52 - points_N52.mean(axis=1, keepdims=True)
    model_53 = np.array(MEAN_FACE) - np.mean(MEAN_FACE, axis=0)
    usable_N = np.isfinite(centred_N52).all(axis=(1, 2)) & (np.abs(np.nan_to_num(centred_N52)).max(axis=(1, 2)) > 1e-6)
    camera_N23 = np.nan_to_num(centred_N52).transpose(0, 2, 1) @ np.linalg.pinv(model_53).T
    u_N22, strengths_N2, vt_N23 = np.linalg.svd(camera_N23, full_matrices=False)
    right_N3, down_N3 = (u_N22 @ vt_N23).transpose(1, 0, 2)
    ahead_N3 = -np.cross(right_N3, down_N3)  # the third row of the rotation, towards the camera
    roll_N = np.arctan2(down_N3[:, 0], right_N3[:, 0])
    looks_x, looks_y = -right_N3[:, 2], -down_N3[:, 2]
    along_N = looks_x * np.cos(roll_N) + looks_y * np.sin(roll_N)
    up_N = looks_x * np.sin(roll_N) - looks_y * np.cos(roll_N)
    yaw_N = np.arctan2(along_N, np.abs(ahead_N3[:, 2]))
    pitch_N = np.arctan2(up_N, np.hypot(along_N, ahead_N3[:, 2]))
    pose_N3: FloatArray = np.degrees(np.stack([yaw_N, pitch_N, roll_N], axis=1))
    pose_N3[~usable_N | (strengths_N2[:, 1] <= 0)] = np.nan
    return pose_N3
