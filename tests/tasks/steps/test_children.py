import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest

from store.errors import LookalikeError, SourceError
from tasks.steps.children import ChildDiedError, ChildrenStoppedError, again_after_death, children, run_in_child

PROJECT = Path(__file__).resolve().parents[3]
STEPS = """
import os, signal, time
from store.errors import SourceError

def pid() -> int:
    return os.getpid()

def gpu(seconds: float) -> tuple[int, str]:
    time.sleep(seconds)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]

def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

def leave(code: int) -> None:
    os._exit(code)

def die_so_often(often: int, marks: str) -> int:
    number = len(os.listdir(marks))
    if number < often:
        open(os.path.join(marks, str(number)), "x").close()
        die()
    return number

def slow(seconds: float, *, answer: int) -> int:
    time.sleep(seconds)
    return answer

def threads() -> list[int]:
    import torch
    return [torch.get_num_threads(), int(os.environ["OPENBLAS_NUM_THREADS"])]

def refuse() -> None:
    raise SourceError("no photos in here")
"""
PARENT = """
import sys, threading, time
sys.path[:0] = sys.argv[1:]
import child_steps
from tasks.steps.children import children, run_in_child

if __name__ == "__main__":
    with children(2):
        first = run_in_child(child_steps.pid)
        threading.Thread(target=run_in_child, args=(child_steps.slow, 60), kwargs={"answer": 1}, daemon=True).start()
        second = run_in_child(child_steps.pid)
        while second == first:
            second = run_in_child(child_steps.pid)
        print(first, second, flush=True)
        time.sleep(60)
"""


@pytest.fixture(scope="module", autouse=True)
def importable_steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Steps that a spawned child can import by name."""
    folder = tmp_path_factory.mktemp("steps")
    (folder / "child_steps.py").write_text(STEPS)
    before, path = os.environ.get("PYTHONPATH"), list(sys.path)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(PROJECT)])
    sys.path.insert(0, str(folder))
    yield folder
    sys.path[:] = path
    os.environ.pop("PYTHONPATH") if before is None else os.environ.__setitem__("PYTHONPATH", before)


def steps() -> object:
    import importlib

    return importlib.import_module("child_steps")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_outside_of_children_a_step_is_called_here() -> None:
    assert run_in_child(os.getpid) == os.getpid()


@pytest.mark.timeout(120)
def test_a_child_that_dies_costs_its_own_call_only() -> None:
    child = steps()
    with children(2):
        assert run_in_child(child.pid) != os.getpid()  # type: ignore[attr-defined]
        with ThreadPoolExecutor(3) as pool:
            others = pool.submit(run_in_child, child.slow, 1.0, answer=7)  # type: ignore[attr-defined]
            with pytest.raises(ChildDiedError, match=r"the process that ran die died with exit code -?9"):
                run_in_child(child.die)  # type: ignore[attr-defined]
            assert others.result() == 7
        with pytest.raises(ChildDiedError, match=r"the process that ran leave died with exit code 3"):
            run_in_child(child.leave, 3)  # type: ignore[attr-defined]
        assert run_in_child(child.slow, 0, answer=8) == 8  # type: ignore[attr-defined]
        with pytest.raises(SourceError, match="^no photos in here$"):
            run_in_child(child.refuse)  # type: ignore[attr-defined]
    assert run_in_child(os.getpid) == os.getpid()
    assert issubclass(ChildDiedError, LookalikeError)


def test_a_block_in_which_nothing_is_called_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    process = multiprocessing.get_context("spawn").Process
    start = process.start
    monkeypatch.setattr(process, "start", lambda self: started.append(self) or start(self))
    with children(2):
        pass
    assert started == []
    with children(2):
        assert run_in_child(os.getpid) != os.getpid()
    assert len(started) >= 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("noticed", [True, False])
def test_a_child_that_dies_with_nothing_to_do_is_replaced(noticed: bool) -> None:
    child = steps()
    with children(1):
        first = run_in_child(child.pid)  # type: ignore[attr-defined]
        os.kill(first, signal.SIGKILL)
        if noticed:
            time.sleep(1)
        second = again_after_death(lambda: run_in_child(child.pid), retries=3, delay_s=0.2)  # type: ignore[attr-defined]
        assert second not in {first, os.getpid()}
        assert run_in_child(child.pid) == second  # type: ignore[attr-defined]


@pytest.mark.timeout(120)
def test_a_call_whose_child_dies_is_tried_again_so_often(tmp_path: Path) -> None:
    die_so_often = steps().die_so_often  # type: ignore[attr-defined]
    with children(1):
        assert again_after_death(lambda: run_in_child(die_so_often, 2, str(tmp_path)), retries=2, delay_s=0.01) == 2
        with pytest.raises(ChildDiedError, match="the process that ran die_so_often died with exit code -9"):
            again_after_death(lambda: run_in_child(die_so_often, 9, str(tmp_path)), retries=1, delay_s=0.01)
    assert len(list(tmp_path.iterdir())) == 2 + 2


def test_an_error_that_is_no_death_is_not_tried_again() -> None:
    calls: list[int] = []

    def refuse() -> None:
        calls.append(1)
        raise SourceError("no photos in here")

    with pytest.raises(SourceError):
        again_after_death(refuse, retries=3, delay_s=60)
    assert calls == [1]


def test_a_child_computes_with_one_thread_a_library() -> None:
    with children(1):
        assert run_in_child(steps().threads) == [1, 1]  # type: ignore[attr-defined]
    assert os.environ.get("OPENBLAS_NUM_THREADS") is None


@pytest.mark.timeout(120)
def test_an_error_in_the_block_ends_the_children_and_their_calls() -> None:
    child = steps()
    started = time.monotonic()
    pids: list[int] = []
    with ThreadPoolExecutor(1) as pool:

        def block() -> None:
            with children(1):
                pids.append(run_in_child(child.pid))  # type: ignore[attr-defined]
                pending.append(pool.submit(run_in_child, child.slow, 60, answer=1))  # type: ignore[attr-defined]
                time.sleep(0.5)
                raise KeyError("stop")

        pending: list[Future[int]] = []
        with pytest.raises(KeyError, match="stop"):
            block()
        with pytest.raises(ChildrenStoppedError, match="the processes were stopped before this was done"):
            pending[0].result(timeout=30)
    assert time.monotonic() - started < 50
    assert not alive(pids[0])


def test_a_thread_of_a_block_that_has_ended_begins_nothing_in_this_process() -> None:
    with children(1):
        context = copy_context()
    with pytest.raises(ChildrenStoppedError, match="the processes were stopped before this was begun"):
        context.run(run_in_child, steps().pid)  # type: ignore[attr-defined]
    assert run_in_child(steps().pid) == os.getpid()  # type: ignore[attr-defined]


def test_each_child_has_a_gpu_of_its_own_and_a_new_child_that_of_the_dead_one() -> None:
    child = steps()

    def gpus_of_two(threads: ThreadPoolExecutor) -> dict[int, str]:
        found: dict[int, str] = {}
        deadline = time.monotonic() + 60
        while len(found) < 2:  # one is started later than the other
            assert time.monotonic() < deadline
            with contextlib.suppress(ChildDiedError):
                found = dict(threads.map(lambda _: run_in_child(child.gpu, 0.3), range(2)))  # type: ignore[attr-defined]
        return found

    with children(2, gpus=("GPU-a", "GPU-b")), ThreadPoolExecutor(2) as threads:
        before = gpus_of_two(threads)
        assert sorted(before.values()) == ["GPU-a", "GPU-b"]
        with pytest.raises(ChildDiedError):
            run_in_child(child.die)  # type: ignore[attr-defined]
        after = gpus_of_two(threads)
        assert sorted(after.values()) == ["GPU-a", "GPU-b"]
        assert len(before.keys() & after.keys()) == 1


@pytest.mark.timeout(120)
def test_children_leave_when_their_parent_is_killed(importable_steps: Path, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(importable_steps), str(PROJECT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [pid for pid in pids if alive(pid)] == []
