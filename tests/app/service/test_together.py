"""Queries that come at the same time share batches; their answers and their errors stay their own."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.service.asking import SMALL_BYTES
from app.service.together import Together, find_together
from models.detection import find_in_photos
from models.photo import Photo, PhotoLimits, read_photo
from models.rotation import turn
from tasks.steps.contract import Contract
from tasks.steps.photo_faces import load_nets


class Work:
    """Doubles numbers, refuses 13, and waits before its first batch until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.begun.set()
        assert self.may_go_on.wait(30)
        if 13 in numbers:
            raise ValueError("13 was asked for")
        return [2 * number for number in numbers]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as one:
        yield one


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as many:
        yield many


def while_busy(
    work: Work, together: Together[int, int], callers: ThreadPoolExecutor, numbers: Sequence[int]
) -> list[Future[int]]:
    """The calls of all numbers, made while the only thread is busy with 0."""
    first = callers.submit(together, 0)
    assert work.begun.wait(30)
    calls = []
    for number in numbers:
        calls.append(callers.submit(together, number))
        while together.waiting < len(calls):
            threading.Event().wait(0.001)
    work.may_go_on.set()
    assert first.result(30) == 0
    return calls


def test_a_lone_call_is_done_at_once_and_alone(threads: ThreadPoolExecutor) -> None:
    work = Work()
    work.may_go_on.set()
    assert [Together(work, threads=threads, most=4)(number) for number in (1, 2)] == [2, 4]
    assert work.batches == [[1], [2]]


def test_what_waits_is_done_together_in_its_order_and_never_more_than_the_most(
    threads: ThreadPoolExecutor, callers: ThreadPoolExecutor
) -> None:
    work = Work()
    calls = while_busy(work, Together(work, threads=threads, most=4), callers, [1, 2, 3, 4, 5, 6])
    assert [call.result(30) for call in calls] == [2, 4, 6, 8, 10, 12]
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_call_that_fails_fails_alone(threads: ThreadPoolExecutor, callers: ThreadPoolExecutor) -> None:
    work = Work()
    calls = while_busy(work, Together(work, threads=threads, most=4), callers, [1, 13, 3])
    assert (calls[0].result(30), calls[2].result(30)) == (2, 6)
    with pytest.raises(ValueError, match="13 was asked for"):
        calls[1].result(30)


def test_faces_found_together_are_those_found_alone(callers: ThreadPoolExecutor, gallery: Any) -> None:
    """Bit for bit, of photos that are turned and of one without a face too."""
    settings = Contract().detection
    upright = [read_photo(path.read_bytes(), limits=PhotoLimits()).pixels for path in gallery.files()[:6]]
    pixels = [turn(one, 90 * (n % 4)) for n, one in enumerate(upright)] + [np.full((90, 140, 3), 120, np.uint8)]
    photos = [Photo(one, 1, one.shape[1], one.shape[0], full=one) for one in pixels]
    with ThreadPoolExecutor(1) as threads:
        held = threading.Event()
        threads.submit(held.wait, 30)
        find = find_together(threads, most=4)
        calls = [callers.submit(find, photo) for photo in photos]
        held.set()
        together = [call.result(60) for call in calls]
    for photo, got in zip(photos, together, strict=True):
        (wanted,) = find_in_photos([photo], nets=load_nets("cpu"), settings=settings)
        assert (got.rotation, len(got.faces)) == (wanted.rotation, len(wanted.faces))
        for one, other in zip(got.faces, wanted.faces, strict=True):
            assert one.score == other.score
            np.testing.assert_array_equal(one.box, other.box)
            np.testing.assert_array_equal(one.landmarks, other.landmarks)


def test_many_at_once_are_answered_as_one_by_one(service: Any, gallery: Any) -> None:
    """Also a photo of few bytes and many pixels, which is asked with alone, and one that is none."""
    files = gallery.files()[:8]
    photos = [path.read_bytes() for path in files] + [few_bytes_many_pixels(files[0].read_bytes()), b"no photo"]
    ask: Callable[[bytes], Any] = lambda photo: service.search(photo, k=5)  # noqa: E731
    alone = [ask(photo) for photo in photos]
    with ThreadPoolExecutor(len(photos)) as clients:
        at_once = list(clients.map(ask, photos))
    assert [one.status_code for one in at_once] == [200] * 9 + [422]
    for got, wanted in zip(at_once[:-1], alone[:-1], strict=True):
        for face, oracle in zip(got.json()["faces"], wanted.json()["faces"], strict=True):
            assert face["box"] == oracle["box"]
            assert [match["face_id"] for match in face["matches"]] == [match["face_id"] for match in oracle["matches"]]
            cosines = [[match["cosine"] for match in one["matches"]] for one in (face, oracle)]
            np.testing.assert_allclose(cosines[0], cosines[1], atol=2e-6)


def few_bytes_many_pixels(photo: bytes) -> bytes:
    """A photo of a megapixel and more that has few enough bytes to be taken for a small one."""
    sink = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        image.convert("RGB").resize((1400, 1400)).save(sink, "JPEG", quality=60)
    assert len(sink.getvalue()) <= SMALL_BYTES
    return sink.getvalue()
