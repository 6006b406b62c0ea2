import multiprocessing
import os
import threading
import time

import numpy as np
import numpy.typing as npt
import pytest

from models.card import BoxMargin
from models.cutting_threads import cutting_threads, in_threads
from models.face_input import make_face_input

PHOTO_HWC = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
LANDMARKS_52 = np.zeros((5, 2))


def cut(box: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return make_face_input(PHOTO_HWC, box, LANDMARKS_52, geometry=BoxMargin(box_margin=0.1), height=160, width=160)


def boxes(count: int) -> list[npt.NDArray[np.float64]]:
    rng = np.random.default_rng(1)
    first_N2 = rng.uniform(-20, 250, (count, 2))
    return list(np.concatenate([first_N2, first_N2 + rng.uniform(5, 200, (count, 2))], axis=1))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("threads", [1, 3, 8, 100])
def test_threads_cut_what_one_cuts_in_the_same_order(threads: int, count: int) -> None:
    found = in_threads(cut, boxes(count), threads=threads)
    wanted = [cut(box) for box in boxes(count)]
    assert len(found) == count
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_so_many_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=30)
    assert sorted(in_threads(lambda _: together.wait(), range(4), threads=4)) == [0, 1, 2, 3]


def test_one_thread_is_the_callers_own() -> None:
    assert set(in_threads(lambda _: threading.get_ident(), range(5), threads=1)) == {threading.get_ident()}
    assert threading.get_ident() not in in_threads(lambda _: threading.get_ident(), range(5), threads=2)


def test_an_error_is_raised_when_nothing_runs_any_more() -> None:
    done: list[int] = []

    def slow_or_wrong(number: int) -> None:
        if number == 0:
            raise ValueError("number 0 has no face")
        time.sleep(0.05)
        done.append(number)

    with pytest.raises(ValueError, match="number 0 has no face"):
        in_threads(slow_or_wrong, range(4), threads=4)
    assert sorted(done) == [1, 2, 3]


def test_the_processor_is_left_to_workers_and_a_gpu_is_fed_by_the_cores_there_are() -> None:
    assert cutting_threads("cpu") == 1
    assert cutting_threads("cuda:1") == cutting_threads("cuda") == min(8, len(os.sched_getaffinity(0)))


def in_a_child(answer: "multiprocessing.connection.Connection") -> None:
    answer.send(in_threads(abs, [-1, -2, -3], threads=2))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    in_threads(abs, range(4), threads=4)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=in_a_child, args=(there,))
    child.start()
    assert here.poll(60)
    assert here.recv() == [1, 2, 3]
    child.join()
