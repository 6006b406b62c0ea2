import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.steps import live_filter
from tasks.steps.contract import Contract

Paint = Callable[[Path, int | None], Path]


def take_photos(folder: Path, paint: Paint) -> Path:
    """Two people with three pictures each, a copy of one picture, and a broken one."""
    for n in range(6):
        paint(folder / ("ann" if n < 3 else "bob") / f"{n}.png", n)
    shutil.copy(folder / "ann" / "1.png", folder / "bob" / "copy.png")
    (folder / "bob" / "broken.png").write_bytes(b"x")
    return folder


def build_two(builder: Any, photos: Path, paint: Paint) -> None:
    """Two versions: the photos, and one more."""
    builder.build(photos, labels="folder")
    paint(photos / "bob" / "9.png", 9)
    builder.build(photos, labels="folder")


@pytest.fixture(scope="session")
def made(
    small_encoder: Any, make_builder: Any, middle_faces: Any, paint: Paint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Path]]:
    """A store of two versions and its photos, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(small_encoder[0], folder / "store")
    builder = make_builder(store=str(folder / "store"), contract=Contract(), encoder=small_encoder[1])
    photos = take_photos(folder / "photos", paint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.steps.find_faces.find_in_photos", middle_faces)
        build_two(builder, photos, paint)
    return builder, photos


@pytest.fixture
def photos(made: tuple[Any, Path]) -> Path:
    return made[1]


@pytest.fixture
def two(made: tuple[Any, Path], tmp_path: Path) -> Any:
    """A copy of the store that a test may change; its photos are everybody's."""
    shutil.copytree(made[0].store, tmp_path / "two")
    return replace(made[0], store=str(tmp_path / "two"))


@pytest.fixture
def own_photos(tmp_path: Path, paint: Paint) -> Path:
    return take_photos(tmp_path / "photos", paint)


@pytest.fixture
def own(builder: Any, own_photos: Path, paint: Paint) -> Any:
    """Such a store with photos of its own, for tests that build again."""
    build_two(builder, own_photos, paint)
    return builder


@pytest.fixture(autouse=True)
def no_prefect_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setattr(live_filter, "FRESH_S", 0.0)
