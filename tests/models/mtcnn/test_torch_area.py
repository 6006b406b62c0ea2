import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.mtcnn import torch_nets
from models.mtcnn.area import area_tables, cut_crops, cut_tile
from models.mtcnn.layout import Layout, Places, lay_out_pyramids
from models.mtcnn.sheets import SHEET_PX
from models.mtcnn.torch_area import cut_crops_there, cut_sheets_there, paint_places, send, tables_on
from models.mtcnn.torch_nets import TorchNets

UInt8Array = npt.NDArray[np.uint8]

SIZES = ((301, 640), (90, 61), (250, 250), (90, 61), (20, 400), (250, 250), (700, 1300))


@pytest.fixture(scope="module")
def photos() -> list[UInt8Array]:
    return [np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8) for n, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def layout() -> Layout:
    found = lay_out_pyramids(SIZES, min_face_px=20, pyramid_factor=0.709)
    assert len(found.sheets) > 1
    return found


def there(layout: Layout) -> Places[torch.Tensor]:
    return Places(*send("cpu", np.stack(layout.places)))


def test_painted_rectangles_are_the_sheets_own(layout: Layout) -> None:
    sheets = len(layout.sheets)
    outside_NHW = torch_nets._outside(there(layout), sheets).numpy()
    owners_NHW = torch_nets._cell_owners(there(layout), sheets).numpy()
    first = 0
    for sheet, outside_HW, owners_HW in zip(layout.sheets, outside_NHW, owners_NHW, strict=True):
        np.testing.assert_array_equal(outside_HW, sheet.mask() < 0)
        np.testing.assert_array_equal(owners_HW, np.where(sheet.owners() < 0, -1, sheet.owners() + first))
        first += len(sheet.places)


def test_rectangles_that_touch_and_reach_the_edge_are_painted_whole() -> None:
    rectangles = [(0, 0, 0, 2, 5), (0, 2, 0, 3, 2), (0, 2, 2, 3, 3), (2, 4, 4, 1, 1)]
    painted = paint_places(*torch.tensor(rectangles).T, sheets=3, side=5)
    wanted = np.full((3, 5, 5), -1)
    for number, (sheet, row, column, rows, columns) in enumerate(rectangles):
        wanted[sheet, row : row + rows, column : column + columns] = number
    np.testing.assert_array_equal(painted.numpy(), wanted)


def test_sheets_show_the_tiles_that_are_cut_one_by_one(photos: list[UInt8Array], layout: Layout) -> None:
    tables = area_tables(photos)
    places = there(layout)
    cut_NHWC = cut_sheets_there(tables_on("cpu", photos), places, torch_nets._owners(places, len(layout.sheets)))
    assert cut_NHWC.shape == (len(layout.sheets), SHEET_PX, SHEET_PX, 3)
    number = 0
    for sheet, cut_HWC in zip(layout.sheets, cut_NHWC.numpy(), strict=True):
        for tile, row, column in sheet.places:
            rows, columns = layout.spans(number)
            wanted_HWC = cut_tile(tables, tile.photo, rows=rows, columns=columns)[..., :3]
            found_HWC = cut_HWC[row : row + tile.rows, column : column + tile.columns]
            np.testing.assert_allclose(found_HWC, wanted_HWC, atol=3e-7)
            number += 1


def test_crops_are_those_cut_by_numpy(photos: list[UInt8Array]) -> None:
    rng = np.random.default_rng(0)
    owners_N = rng.integers(0, len(SIZES), 40)
    sizes_N2 = np.array(SIZES)[owners_N][:, ::-1]
    first_N2 = rng.integers(0, sizes_N2 - 1)
    windows_N4 = np.concatenate([first_N2, rng.integers(first_N2 + 1, sizes_N2 + 1)], axis=1)
    found = cut_crops_there(
        tables_on("cpu", photos), send("cpu", owners_N), torch.from_numpy(windows_N4), side_px=24
    ).numpy()
    np.testing.assert_allclose(
        found, cut_crops(area_tables(photos), owners_N, windows_N4, side_px=24)[..., :3], atol=3e-7
    )


def test_read_only_and_mirrored_photos_are_sent_as_they_look(photos: list[UInt8Array]) -> None:
    mirrored = [photo[:, ::-1] for photo in photos]
    mirrored[0].flags.writeable = False
    found = tables_on("cpu", mirrored)
    wanted = tables_on("cpu", [photo.copy() for photo in mirrored])
    torch.testing.assert_close(found.sums, wanted.sums, rtol=0, atol=0)


@pytest.mark.parametrize("sheets", [1, 2, 5])
def test_windows_do_not_depend_on_how_many_sheets_are_searched_at_a_time(
    sheets: int, photos: list[UInt8Array], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = TorchNets("cpu")
    loaded = nets.load(photos)
    together = nets.propose(loaded, layout, threshold=0.05)
    monkeypatch.setattr(torch_nets, "_CHUNK_SHEETS", sheets)
    some = nets.propose(loaded, layout, threshold=0.05)
    assert len(together.place) > 100
    for name in ("place", "row", "column"):
        np.testing.assert_array_equal(getattr(some, name), getattr(together, name))
    np.testing.assert_allclose(some.score, together.score, atol=1e-6)
    np.testing.assert_allclose(some.shift, together.shift, atol=1e-5)
