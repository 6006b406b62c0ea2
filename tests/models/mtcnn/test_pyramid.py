import numpy as np

from models.mtcnn.pyramid import pyramid_levels, pyramid_scales


def test_scales_shrink_a_face_of_the_shortest_side_to_the_window_and_go_on_while_the_photo_holds_one() -> None:
    scales = pyramid_scales(250, 400, min_face_px=20, pyramid_factor=0.709)
    assert scales[0] * 20 == 12
    assert np.allclose(np.array(scales[1:]) / scales[:-1], 0.709)
    assert 250 * scales[-1] >= 12 > 250 * scales[-1] * 0.709
    assert pyramid_scales(19, 400, min_face_px=20, pyramid_factor=0.709) == ()


def test_levels_have_the_published_sizes_and_cover_the_photo() -> None:
    levels = pyramid_levels(np.array([(250, 400), (19, 30), (47, 33)]), min_face_px=20, pyramid_factor=0.709)
    assert {photo for photo, _ in levels} == {0, 2}
    for (photo, _), level in levels.items():
        height, width = [(250, 400), (19, 30), (47, 33)][photo]
        assert (level.height, level.width) == (int(height * level.scale + 1), int(width * level.scale + 1))
        assert (level.rows.first[0], level.rows.end[-1]) == (0, height)
        assert (level.columns.end - level.columns.first).min() >= 1
