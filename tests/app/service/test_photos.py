import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.service.settings import ServiceSettings
from store.layout import open_store
from tasks.steps.open_version import open_version
from tasks.steps.show_face import _lies_inside, photo_name


@pytest.fixture(scope="module")
def own(gallery: Any, make_gallery: Any, serving: Any) -> Iterator[tuple[Any, Any, dict[str, str]]]:
    """A gallery whose photos tests may spoil, each its own, served; and the id of each photo's face."""
    own_gallery = make_gallery(gallery.files()[:12])
    with serving(ServiceSettings(store=own_gallery.store, audit=os.devnull)) as running:
        opened, _ = open_version(open_store(own_gallery.store))
        yield own_gallery, running, {row["uri"]: str(face_id) for face_id, row in opened.faces.items()}


def test_a_face_s_picture_its_photo_and_the_original_are_shown(service: Any, gallery: Any) -> None:
    path = gallery.files()[4]
    face_id = service.search(path, k=1).json()["faces"][0]["face_id"]
    crop = service.client.get(f"/api/faces/{face_id}/crop", params={"side_px": 96})
    assert Image.open(io.BytesIO(crop.content)).size == (96, 96)
    photo = service.client.get(f"/api/photos/{face_id}", params={"side_px": 100})
    assert Image.open(io.BytesIO(photo.content)).size == (100, 100)
    for picture in (crop, photo):
        assert picture.headers["Content-Type"] == "image/jpeg"
        assert picture.headers["Cache-Control"] == "no-store"
        assert not Image.open(io.BytesIO(picture.content)).getexif()
    original = service.client.get(f"/api/photos/{face_id}/original")
    assert original.content == path.read_bytes()
    assert original.headers["Content-Disposition"] == f'attachment; filename="{face_id}.jpeg"'
    details = service.client.get(f"/api/faces/{face_id}").json()
    assert details["label"] == path.parent.name
    assert details["photo_name"] == f"{path.parent.name}/{path.name}"


TRAVERSALS = [
    "..", "../", "..%2f", "%2e%2e%2f", "%2e%2e/%2e%2e/etc/passwd", "..%252f..%252fetc%252fpasswd", "....//", "..\\", "..%5c",
    "%c0%ae%c0%ae/", "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "1/../../etc/passwd", "1%00", "1%00.jpg",
    "1;/etc/passwd", "~root", "-1", "+1", "0x1", "1e3", "١", "1 ", "s3://faces/x", "C:\\x", "CON", "1/original/../../../../etc/passwd",
    "%e5%98%8a", "1%0d%0aX:y", "{face_id}", "a" * 4000,
]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_spelling_of_a_path_is_the_id_of_a_photo(service: Any, name: str) -> None:
    for route in ("/api/photos/{}", "/api/photos/{}/original", "/api/faces/{}/crop", "/static/{}", "/static/..{}"):
        path = route.format(name).encode("utf-8", "surrogateescape")
        answer = service.raw(bytes(b if 32 < b < 128 else 37 for b in path))
        assert re.match(rb"HTTP/1.1 (400|403|404|405|422) ", answer), (path, answer[:80])
        assert b"root:" not in answer


def test_a_link_that_leads_out_of_the_sources_shows_nothing(own: Any, tmp_path: Path) -> None:
    _, running, ids = own
    path = Path(sorted(ids)[1])
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.move(path, outside / "same.jpg")  # the very bytes that were indexed, but elsewhere
    path.symlink_to(outside / "same.jpg")
    assert_not_shown(running, ids[str(path)])
    path.unlink()
    shutil.copy(outside / "same.jpg", path)
    assert running.client.get(f"/api/photos/{ids[str(path)]}/original").content == path.read_bytes()


def test_a_folder_that_became_a_link_shows_nothing(own: Any, tmp_path: Path) -> None:
    _, running, ids = own
    path = Path(sorted(ids)[-1])
    shutil.move(path.parent, tmp_path / "moved")
    path.parent.symlink_to(tmp_path / "moved")
    assert_not_shown(running, ids[str(path)])


@pytest.mark.parametrize("number", range(5))
def test_only_the_very_bytes_that_were_indexed_are_shown(own: Any, number: int) -> None:
    _, running, ids = own
    change = ("other bytes", "another photo", "gone", "a pipe", "a folder")[number]
    path, other = (Path(uri) for uri in (sorted(ids)[3 + number], sorted(ids)[0]))
    path.unlink()
    if change == "other bytes":
        path.write_bytes(b"root:x:0:0:root:/root:/bin/sh")
    elif change == "another photo":
        shutil.copy(other, path)
    elif change == "a pipe":
        os.mkfifo(path)
    elif change == "a folder":
        path.mkdir()
    assert_not_shown(running, ids[str(path)])


def assert_not_shown(running: Any, face_id: str) -> None:
    for route in (f"/api/photos/{face_id}", f"/api/photos/{face_id}/original"):
        answer = running.client.get(route)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/json"
        assert "is not where it was when it was indexed" in answer.json()["error"]
    assert running.client.get(f"/api/faces/{face_id}/crop").status_code == 200  # which the store keeps


@pytest.mark.parametrize(
    ("uri", "sources", "inside"),
    [
        ("s3://b/p/a.jpg", ["s3://b/p"], True),
        ("s3://b/p/../q/a.jpg", ["s3://b/p"], False),
        ("s3://b/p/./a.jpg", ["s3://b/p"], False),
        ("s3://b/pq/a.jpg", ["s3://b/p"], False),
        ("s3://c/p/a.jpg", ["s3://b/p"], False),
        ("s3://b/p/x/a.jpg", ["s3://b/p/*/a.jpg"], True),
        ("https://photos.example/a.jpg", ["/lists/web.txt"], False),
        ("gs://b/p/a.jpg", ["gs://b/p"], False),
        ("/nowhere/p/a.jpg", ["/nowhere/p"], True),
        ("/nowhere/pq/a.jpg", ["/nowhere/p"], False),
        ("/nowhere/p/../q/a.jpg", ["/nowhere/p"], False),
        ("/nowhere/a.jpg", ["s3://b"], False),
        ("/nowhere/a.jpg", ["/lists/some.txt"], True),
    ],
)
def test_what_lies_inside_the_sources(uri: str, sources: list[str], inside: bool) -> None:
    assert _lies_inside(uri, sources) is inside


def test_a_photo_is_called_by_its_path_below_its_source() -> None:
    assert photo_name("/home/me/photos/Ann/1.jpg", ["/home/me/photos", "/home"]) == "Ann/1.jpg"
    assert photo_name("/elsewhere/secret/1.jpg", ["/home/me/photos"]) == "1.jpg"
    assert photo_name("s3://b/p/Ann/1.jpg", ["s3://b/p"]) == "Ann/1.jpg"
