import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from app.service.answers import SearchAnswer
from app.service.guard import OPEN_PATHS
from tasks.steps.query_photo import query_photo


def numbers_in(value: Any) -> list[list[float]]:
    """Every list of numbers in a JSON document."""
    if isinstance(value, dict):
        return [found for part in value.values() for found in numbers_in(part)]
    if isinstance(value, list):
        plain = [value] if value and all(isinstance(part, int | float) for part in value) else []
        return plain + [found for part in value for found in numbers_in(part)]
    return []


def test_the_api_answers_what_the_step_answers(service: Any, gallery: Any) -> None:
    for path in gallery.files()[::9]:
        got = service.search(path, k=5).json()
        wanted = query_photo(str(path), store=gallery.store, k=5)
        assert got["version"] == wanted.version
        assert [face["box"] for face in got["faces"]] == [list(face.box) for face in wanted.faces]
        for face, oracle in zip(got["faces"], wanted.faces, strict=True):
            assert [m["face_id"] for m in face["matches"]] == [m.face_id for m in oracle.matches]
            assert [m["cosine"] for m in face["matches"]] == pytest.approx([m.cosine for m in oracle.matches], abs=1e-5)
        assert set(got["seconds"]) == {"decode", "detect", "embed", "search"}


def test_a_known_photo_s_face_has_its_id_and_a_query_by_it_shows_the_same(service: Any, gallery: Any) -> None:
    face = service.search(gallery.files()[0], k=6).json()["faces"][0]
    assert face["face_id"] == face["matches"][0]["face_id"]
    again = service.search_face(face_id=face["face_id"], k=6).json()
    assert [m["face_id"] for m in again["faces"][0]["matches"]] == [m["face_id"] for m in face["matches"]]
    assert again["faces"][0]["box"] == face["box"]
    assert again["faces"][0]["crop"].startswith("data:image/jpeg;base64,")


def test_neither_vectors_nor_paths_leave(service: Any, gallery: Any) -> None:
    answers = [service.search(gallery.files()[3], k=9, picture=True), service.client.get("/api/versions")]
    face_id = answers[0].json()["faces"][0]["face_id"]
    answers += [service.client.get(f"/api/faces/{face_id}"), service.search_face(face_id=face_id)]
    for answer in answers:
        assert answer.status_code == 200
        assert str(gallery.photos) not in answer.text
        assert os.path.dirname(gallery.store) not in answer.text
        assert all(len(found) == 4 for found in numbers_in(answer.json()))  # boxes, and nothing else
    name = gallery.files()[3].relative_to(gallery.photos)
    assert answers[2].json()["photo_name"] == str(name)


def test_options_restrict_what_is_searched(service: Any, gallery: Any) -> None:
    photo = gallery.files()[0]
    label = photo.parent.name
    own = service.search(photo, k=50, labels=label).json()["faces"][0]["matches"]
    assert {m["label"] for m in own} == {label}
    assert service.search(photo, k=50, not_itself=True, labels=label).json()["searched"] == len(own) - 1
    assert (
        service.search(photo, k=2, sources=0).json()["faces"][0]["matches"]
        == own[:0] + (service.search(photo, k=2).json()["faces"][0]["matches"])
    )
    left_out = service.search(photo, k=50, not_photos_of=own[0]["face_id"]).json()["faces"][0]["matches"]
    assert own[0]["face_id"] not in {m["face_id"] for m in left_out}
    high = service.search(photo, k=50, min_cosine=0.999).json()["faces"][0]["matches"]
    assert [m["cosine"] >= 0.999 for m in high] == [True] * len(high)


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"k": "0"}, 422, "k: Input should be greater than or equal to 1"),
        ({"k": ["1", "2"]}, 422, "k is given 2 times"),
        ({"colour": "red"}, 422, "colour: Extra inputs are not permitted"),
        ({"version": "99"}, 404, "has no version 99"),
        ({"labels": "Nobody_Atall"}, 422, "nobody in version 1 is called Nobody_Atall"),
        ({"sources": "7"}, 422, "version 1 has 1 sources, there is no 7"),
        ({"taken_from": "yesterday"}, 422, "taken_from: "),
        ({"face": "9"}, 422, "there is no face 9"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_sentence(
    service: Any, gallery: Any, fields: dict[str, Any], status: int, sentence: str
) -> None:
    answer = service.search(gallery.files()[0], **fields)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert gallery.store not in answer.text or status == 404


def test_photos_that_cannot_be_asked_with_are_refused_in_a_sentence(service: Any, jpeg: Any) -> None:
    for photo, sentence in (
        (b"no picture", "the photo cannot be asked with: the bytes are no image"),
        (b"", "the photo cannot be asked with: "),
        (jpeg(), "no face was found in the photo: 320 x 240 pixels searched upright and turned"),
        (jpeg((12, 12)), "its shorter side must have 20"),
    ):
        answer = service.search(photo)
        assert answer.status_code == 422
        assert sentence in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'{"face_id": 7}', b'{"face_id": "x"}', b'{"face_id": "1", "url": "https://a.example"}', b"{}",
     b'{"face_id": "99999999999999999999"}', b'{"k": ' + b"[" * 20_000, b'{"face_id": "1", "k": 1e999}', b"\xff\xfe", b'"\\ud800"'],
)  # fmt: skip
def test_json_that_is_no_question_is_refused(service: Any, body: bytes) -> None:
    answer = service.client.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert set(answer.json()) == {"error"}


def test_an_unknown_face_is_refused_whatever_its_number(service: Any) -> None:
    for face_id in ("1", "0", "9223372036854775807", "9223372036854775808", "9" * 19):
        assert service.search_face(face_id=face_id).status_code in {404, 422}
        assert service.client.get(f"/api/faces/{face_id}").status_code == 404
        assert service.client.get(f"/api/faces/{face_id}/crop").status_code == 404
        assert service.client.get(f"/api/photos/{face_id}/original").status_code == 404


def test_addresses_are_not_fetched_unless_that_is_switched_on(service: Any) -> None:
    answer = service.search_face(url="https://photos.example/a.jpg")
    assert answer.status_code == 403
    assert "fetches no addresses" in answer.json()["error"]


def test_the_description_names_every_route_and_its_example_is_an_answer(service: Any) -> None:
    described = service.client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/search", "/api/versions", "/api/faces/{face_id}", "/api/faces/{face_id}/crop", "/api/photos/{face_id}",
        "/api/photos/{face_id}/original", "/api/session", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    search = described["paths"]["/api/search"]["post"]
    example = search["responses"]["200"]["content"]["application/json"]["example"]
    assert SearchAnswer.model_validate(example).version == 7
    assert set(search["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"/"} < OPEN_PATHS
    assert "cdn" not in json.dumps(described)


def test_a_query_leaves_nothing_on_any_disk(
    service: Any, gallery: Any, jpeg: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import numpy as np
    from PIL import Image

    large = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)).save(large)
    (tmp_path / "tmp").mkdir()
    opened: list[Any] = []
    real = tempfile.SpooledTemporaryFile.rollover
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda self: (opened.append(self), real(self))[1])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = sorted(Path(gallery.store).rglob("*"))
    assert large.stat().st_size > 3_000_000
    assert service.search(large).status_code == 422  # noise shows no face
    assert service.search(gallery.files()[1]).status_code == 200
    assert opened == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert sorted(Path(gallery.store).rglob("*")) == before


def test_every_query_leaves_a_line_without_the_picture_or_its_name(service: Any, gallery: Any) -> None:
    path = Path(service.app._app._app.state.service.settings.audit)
    before = len(path.read_text().splitlines())
    service.search(gallery.files()[2])
    service.search(b"no picture")
    service.search_face(face_id="1")
    lines = [json.loads(line) for line in path.read_text().splitlines()[before:]]
    assert [(line["kind"], line["outcome"]) for line in lines] == [
        ("photo", "answered"), ("photo", "refused"), ("face", "refused"),
    ]  # fmt: skip
    allowed = {"at", "event", "who", "kind", "outcome", "version", "faces", "searched", "ms"}
    assert all(set(line) <= allowed for line in lines)
    assert path.stat().st_mode & 0o077 == 0
