import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from models.mtcnn import area
from models.mtcnn.area import area_tables, cut_crops, cut_tile, span


def noise(height: int, width: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pooled(image_HWC: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    pixels = torch.from_numpy(image_HWC.astype(np.float32)).permute(2, 0, 1)[None]
    means = functional.interpolate(pixels, size=size, mode="area")
    result: npt.NDArray[np.float32] = ((means - 127.5) / 128)[0].permute(1, 2, 0).numpy()
    return result


@pytest.mark.parametrize("size", [(7, 5), (61, 97), (97, 61), (1, 1)])
def test_a_level_is_adaptive_average_pooling(size: tuple[int, int]) -> None:
    photos = [noise(13, 17), noise(122, 89, seed=1)]
    tables = area_tables(photos)
    for number, photo in enumerate(photos):
        rows, columns = span(photo.shape[0], size[0]), span(photo.shape[1], size[1])
        level = cut_tile(tables, number, rows=rows, columns=columns)
        np.testing.assert_allclose(level[..., :3], pooled(photo, size), atol=1e-6)


def test_a_part_of_a_level_is_that_part() -> None:
    photo = noise(90, 70)
    rows, columns = span(90, 54), span(70, 42)
    tables = area_tables([noise(5, 5), photo])
    whole = cut_tile(tables, 1, rows=rows, columns=columns)
    part = cut_tile(tables, 1, rows=rows.part(10, 20), columns=columns.part(30, 12))
    np.testing.assert_array_equal(part, whole[10:30, 30:42])


@pytest.mark.parametrize("side_px", [24, 48])
def test_crops_are_adaptive_average_pooling(side_px: int) -> None:
    photos = [noise(60, 80), noise(200, 150, seed=2)]
    windows = np.array([(0, 0, 80, 60), (3, 2, 16, 12), (5, 7, 6, 8), (10, 20, 140, 199), (149, 199, 150, 200)])
    owners = np.array([0, 0, 0, 1, 1])
    crops = cut_crops(area_tables(photos), owners, windows, side_px=side_px)
    for crop, owner, (x1, y1, x2, y2) in zip(crops, owners, windows, strict=True):
        np.testing.assert_allclose(crop[..., :3], pooled(photos[owner][y1:y2, x1:x2], (side_px, side_px)), atol=1e-6)


def test_sums_that_wrapped_around_give_the_same_areas() -> None:
    """A white photo of 17 megapixels sums to more than 32 bits hold; here the table starts just under their end."""
    photo = noise(40, 30)
    tables = area_tables([photo])
    sums = area._as_sums(tables.sums)
    wrapped = area.AreaTables(
        sums=area._as_elements(sums + np.uint32(2**32 - 1000)), starts=tables.starts, strides=tables.strides
    )
    assert (area._as_sums(wrapped.sums) < sums).any()
    windows = np.array([(0, 0, 30, 40), (4, 9, 28, 33)])
    for kind in (tables, wrapped):
        crops = cut_crops(kind, np.zeros(2, np.int64), windows, side_px=24)
        np.testing.assert_allclose(crops[1, ..., :3], pooled(photo[9:33, 4:28], (24, 24)), atol=1e-6)
