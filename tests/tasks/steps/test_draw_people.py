import io
from pathlib import Path

from PIL import Image

from tasks.steps.draw_people import draw_people, folder_name
from tasks.steps.progress import listening


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_each_person_has_a_folder_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    with listening(lambda *what: heard.append(what)):
        paths = draw_people(tmp_path / "a", people=range(3), views=range(2), seed=5, workers=1)
    draw_people(tmp_path / "b", people=range(3), views=range(2), seed=5, workers=3)
    assert len(paths) == len(files(tmp_path / "a")) == 6
    assert all(path.is_file() for path in paths)
    assert len({path.parent for path in paths}) == 3
    assert all(path.name.startswith(path.parent.name) for path in paths)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert all(Image.open(io.BytesIO(path.read_bytes())).format == "JPEG" for path in paths)
    assert heard == [("draw", n, 3) for n in (1, 2, 3)]


def test_other_views_and_other_seeds_are_other_pictures(tmp_path: Path) -> None:
    first = draw_people(tmp_path / "a", people=range(1), views=range(1, 2), seed=5, workers=1)[0]
    view = draw_people(tmp_path / "b", people=range(1), views=range(2, 3), seed=5, workers=1)[0]
    seed = draw_people(tmp_path / "c", people=range(1), views=range(1, 2), seed=6, workers=1)[0]
    assert first.parent.name == view.parent.name
    assert len({p.read_bytes() for p in (first, view, seed)}) == 3


def test_pictures_can_lie_in_one_folder(tmp_path: Path) -> None:
    paths = draw_people(tmp_path, people=range(2), views=range(1), seed=5, workers=1, nested=False)
    assert {path.parent for path in paths} == {tmp_path}
    assert folder_name("Ada B. Quill") == "Ada_B._Quill"
