import warnings

import numpy as np
import pytest
import torch

from models.mtcnn import torch_nets
from models.mtcnn.area import span
from models.mtcnn.layout import layout_of
from models.mtcnn.nets import load_cascade_nets
from models.mtcnn.pyramid import Level
from models.mtcnn.sheets import SHEET_PX, Sheet, Tile, cut_into_tiles, lay_out
from models.mtcnn.torch_nets import TorchNets

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import facenet_pytorch

SIDES = [12, 13, 14, 15, 40, 151, 511, 512, 513, 514, 515, 1013, 1014, 1015, 1500]


@pytest.mark.parametrize("height", SIDES)
@pytest.mark.parametrize("width", [12, 151, 513, 1015])
def test_tiles_cover_every_cell_of_a_level_once(height: int, width: int) -> None:
    cells = np.zeros((-(-(height - 2) // 2) - 4, -(-(width - 2) // 2) - 4), int)
    for tile in cut_into_tiles(0, 0, height=height, width=width):
        rows, columns = tile.cells
        assert min(rows, columns) >= 1
        assert max(tile.rows, tile.columns) <= SHEET_PX
        assert 2 * tile.first_row + tile.rows <= height
        assert 2 * tile.first_column + tile.columns <= width
        cells[tile.first_row : tile.first_row + rows, tile.first_column : tile.first_column + columns] += 1
    assert (cells == 1).all()


def test_tiles_lie_on_even_pixels_inside_their_sheet_and_on_nothing_else() -> None:
    rng = np.random.default_rng(0)
    tiles = [
        Tile(n, 0, 0, 0, int(rows), int(columns)) for n, (rows, columns) in enumerate(rng.integers(12, 200, (150, 2)))
    ] + [Tile(900, 0, 0, 0, 512, 512), Tile(901, 0, 0, 0, 511, 12)]
    sheets = list(lay_out(tiles))
    assert sorted(t.photo for s in sheets for t, _, _ in s.places) == sorted(t.photo for t in tiles)
    for sheet in sheets:
        taken = np.zeros((SHEET_PX, SHEET_PX), int)
        for tile, row, column in sheet.places:
            assert row % 2 == column % 2 == 0
            assert row + tile.rows <= SHEET_PX
            assert column + tile.columns <= SHEET_PX
            taken[row : row + tile.rows, column : column + tile.columns] += 1
        assert taken.max() == 1


def test_sheets_are_well_filled() -> None:
    levels = [151, 107, 76, 54, 38, 27, 20, 14]  # of a photo of 250 x 250
    tiles = [Tile(photo, k, 0, 0, side, side) for photo in range(32) for k, side in enumerate(levels)]
    sheets = list(lay_out(tiles))
    assert sum(t.rows * t.columns for t in tiles) / (len(sheets) * SHEET_PX**2) > 0.9


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("without_mask", [False, True])
def test_a_tile_on_a_full_sheet_gives_what_its_level_gives_alone(
    runtime: str, without_mask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sides odd and even; without the mask the pooling at an odd edge sees the neighbour, and the last cells differ."""
    if without_mask:
        monkeypatch.setattr(Sheet, "mask", lambda self: np.zeros((SHEET_PX - 2, SHEET_PX - 2), np.float32))
        monkeypatch.setattr(
            torch_nets, "_outside", lambda places, sheets: torch.zeros(sheets, SHEET_PX - 2, SHEET_PX - 2).bool()
        )
    photos = [
        np.random.default_rng(n).integers(0, 256, (h, w, 3), np.uint8)
        for n, (h, w) in enumerate([(40, 61), (61, 40), (60, 60), (61, 61), (13, 200)] * 4)
    ]
    tiles = [Tile(n, 0, 0, 0, *photo.shape[:2]) for n, photo in enumerate(photos)]
    (sheet,) = lay_out(tiles)
    nets = load_cascade_nets() if runtime == "openvino" else TorchNets("cpu")
    levels = {(t.photo, 0): Level(1.0, span(t.rows, t.rows), span(t.columns, t.columns)) for t in tiles}
    cells = nets.propose(nets.load(photos), layout_of([sheet], levels), threshold=0)
    pnet = facenet_pytorch.PNet()
    worst = 0.0
    for place, (tile, _, _) in enumerate(sheet.places):
        pixels = torch.from_numpy(photos[tile.photo].astype(np.float32)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            shift, scores = pnet((pixels - 127.5) / 128)
        mine = cells.place == place
        assert mine.sum() == scores.shape[2] * scores.shape[3] == np.prod(tile.cells)
        wanted = scores[0, 1, cells.row[mine], cells.column[mine]].numpy()
        worst = max(worst, float(np.abs(cells.score[mine] - wanted).max()))
        if not without_mask:
            np.testing.assert_allclose(
                cells.shift[mine], shift[0][:, cells.row[mine], cells.column[mine]].T.numpy(), atol=1e-5
            )
    assert worst < 1e-5 if not without_mask else worst > 1e-3
