"""Draw people into a folder, a folder a person, as photos of them would lie."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from models.portraits import draw_person, draw_portrait
from tasks.steps.children import run_in_child
from tasks.steps.progress import report

__all__ = ["draw_people", "folder_name"]

_JPEG_QUALITY = 92


def folder_name(name: str) -> str:
    """A person's name as the name of a folder: blanks become underscores."""
    return name.replace(" ", "_")


def draw_people(
    folder: Path, *, people: Sequence[int], views: Sequence[int], seed: int, workers: int, nested: bool = True
) -> list[Path]:
    """Draw some views of some people; the same arguments give the same bytes.

    Args:
        folder: where the pictures go.
        people: their numbers.
        views: numbers of the views; other numbers are unseen views of the same people.
        seed: of all of them.
        workers: people drawn at a time.
        nested: a folder a person; otherwise all pictures in one.

    Returns:
        The pictures' paths, by person and view.
    """
    with ThreadPoolExecutor(workers) as pool:
        calls = [
            pool.submit(run_in_child, _draw_views, folder, person=person, views=views, seed=seed, nested=nested)
            for person in people
        ]
        paths: list[Path] = []
        for done, call in enumerate(calls, start=1):
            paths += call.result()
            report("draw", done, len(calls))
    return paths


def _draw_views(folder: Path, *, person: int, views: Sequence[int], seed: int, nested: bool) -> list[Path]:
    someone = draw_person(seed * 10_000 + person)
    name = folder_name(someone.name)
    target = folder / name if nested else folder
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for view in views:
        pixels_HWC = draw_portrait(someone, view_seed=seed * 10_000_000 + person * 1_000 + view)
        sink = io.BytesIO()
        Image.fromarray(pixels_HWC).save(sink, "JPEG", quality=_JPEG_QUALITY)
        path = target / f"{name}_{view:04d}.jpg"
        path.write_bytes(sink.getvalue())
        paths.append(path)
    return paths
