import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.service.settings import ServiceSettings
from store.layout import open_store
from tasks.steps.open_version import open_version


def until(holds: Callable[[], bool], *, seconds: float) -> float:
    """Wait until it holds; how long that took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, "it never came"
        time.sleep(0.1)
    return time.monotonic() - started


def faces_of(store: str, number: int) -> set[str]:
    return {str(face_id) for face_id in open_version(open_store(store), number)[0].faces}


def test_a_new_version_answers_without_a_restart_and_every_answer_is_of_one_version(
    own_gallery: Any, gallery: Any, serving: Any
) -> None:
    photo = own_gallery.files()[0]
    answers: list[tuple[int, set[str]]] = []
    with serving(ServiceSettings(store=own_gallery.store, audit=os.devnull)) as running:
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answer = running.search(photo, k=200)
                assert answer.status_code == 200, answer.text
                answers.append((answer.json()["version"], {m["face_id"] for m in answer.json()["faces"][0]["matches"]}))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for file in gallery.files()[9:15]:
                (own_gallery.photos / file.parent.name).mkdir(exist_ok=True)
                shutil.copy(file, own_gallery.photos / file.parent.name)
            assert own_gallery.build() == 2
            until(lambda: bool(answers) and answers[-1][0] == 2, seconds=60)
        finally:
            stop.set()
            thread.join()
        old = running.search(photo, k=200, version=1).json()
        listed = running.client.get("/api/versions").json()["versions"]
    known = {number: faces_of(own_gallery.store, number) for number in (1, 2)}
    assert len(known[2]) > len(known[1])
    assert {number for number, _ in answers} == {1, 2}
    assert all(faces == known[number] for number, faces in answers)
    assert {m["face_id"] for m in old["faces"][0]["matches"]} == known[1]
    assert [(one["version"], one["current"]) for one in listed] == [(2, True), (1, False)]


def test_a_forgotten_face_is_gone_from_every_route_within_five_seconds(own_gallery: Any, serving: Any) -> None:
    photo = own_gallery.files()[0]
    with serving(ServiceSettings(store=own_gallery.store, audit=os.devnull)) as running:
        face_id = running.search(photo, k=1).json()["faces"][0]["face_id"]
        assert running.client.get(f"/api/faces/{face_id}/crop").status_code == 200
        tag_only(own_gallery.store, face_id)

        def is_gone() -> bool:
            answer = running.search(photo, k=200).json()["faces"][0]
            return face_id not in {m["face_id"] for m in answer["matches"]} and answer["face_id"] is None

        assert until(is_gone, seconds=30) < 5 + 10  # ten for a busy machine
        for route in ("/api/faces/{}", "/api/faces/{}/crop", "/api/photos/{}", "/api/photos/{}/original"):
            assert running.client.get(route.format(face_id)).status_code == 404
        assert running.search_face(face_id=face_id).status_code in {404, 422}


def tag_only(store: str, face_id: str) -> None:
    """The first step of forgetting, after which nothing shows the face any more."""
    from store.forgotten import add_forgotten, forgotten_key, tag

    storage = open_store(store)
    add_forgotten(storage, [tag(forgotten_key(storage), "face", face_id)])


def test_a_store_without_a_version_is_served_and_says_what_to_do(small_store: str, serving: Any) -> None:
    with serving(ServiceSettings(store=small_store, audit=os.devnull), until="/healthz") as running:
        client = running.client
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        until(lambda: "has no version yet" in client.get("/api/versions").json()["trouble"], seconds=20)
        answer = client.post("/api/search", json={"face_id": "1"})
        assert answer.status_code == 404
        assert "run `lookalike build SOURCE" in answer.json()["error"]


@pytest.fixture
def small_store(gallery: Any, tmp_path: Any) -> str:
    shutil.copytree(f"{gallery.store}/encoders", tmp_path / "store" / "encoders")
    return str(tmp_path / "store")
