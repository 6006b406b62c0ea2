import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.steps.children import ChildDiedError, children
from tasks.steps.wall import OPEN, PhotoBudget, PhotoKilledError, Wall, run_behind_wall, run_once_behind_wall

PROJECT = Path(__file__).resolve().parents[3]
SMALL = PhotoBudget(cpu_seconds=0.5, wall_seconds=1.5, memory_bytes=128 * 2**20)
STEPS = """
import ctypes, os, re, signal, time
import numpy as np

def decode(kind, marker=""):
    if kind == "fine":
        return "read"
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "leaves":
        os._exit(7)
    if kind == "spins":  # in C, holding the GIL
        re.match(r"(a+)+$", "a" * 60 + "b")
    if kind == "sleeps":
        time.sleep(60)
    if kind == "bloats":
        try:
            np.ones((2**30,), np.uint8)
        except MemoryError:
            return "too much memory"
        return "bloated"
    if kind == "chatters":
        os.write(2, b"decoder: scanline 7 is odd")
    if kind == "once" and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "read"

def shard(kinds, marker="", *, wall):
    rows = []
    for number, kind in enumerate(kinds):
        if (reason := wall.verdict(number)) is not None:
            rows.append(reason)
            continue
        with wall.around(number):
            rows.append(decode(kind, marker))
    return rows

def speaks_afterwards(*, wall):
    with wall.around(0):
        decode("chatters")
    os.write(2, b"the step's own words")

def dies_between(kinds, *, wall):
    with wall.around(0):
        decode("fine")
    os.kill(os.getpid(), signal.SIGKILL)

def without_a_wall(kinds, *, wall):
    return [decode(kind) for kind in kinds]

def slow_afterwards(*, wall):
    with wall.around(0):
        decode("fine")
    end = time.process_time() + 1.2
    while time.process_time() < end:
        pass
    return bytes(len(np.ones((2**28,), np.uint8)) - 2**28 + 3)

def big(n):
    return bytes(n)
"""


@pytest.fixture(scope="module", autouse=True)
def importable_steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Steps that a spawned child can import by name."""
    folder = tmp_path_factory.mktemp("wall-steps")
    (folder / "wall_steps.py").write_text(STEPS)
    before, path = os.environ.get("PYTHONPATH"), list(sys.path)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(PROJECT)])
    sys.path.insert(0, str(folder))
    yield
    sys.path[:] = path
    os.environ.pop("PYTHONPATH") if before is None else os.environ.__setitem__("PYTHONPATH", before)


@pytest.fixture(scope="module")
def pool(importable_steps: None) -> Iterator[None]:
    with children(2):
        yield


def shard_of(kinds: list[str], marker: str = "") -> list[str]:
    import wall_steps

    return run_behind_wall(wall_steps.shard, kinds, marker, budget=SMALL)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("segfault", "the decoder died of it twice (SIGSEGV)"),
        ("killed", "the decoder died of it twice (SIGKILL)"),
        ("leaves", "the decoder died of it twice (exit code 7)"),
        ("spins", "decoding it took more than 0.5 s of processor time"),
        ("sleeps", "decoding it took more than 1.5 s of time"),
        ("bloats", "too much memory"),
    ],
)
def test_a_photo_that_kills_hangs_or_bloats_costs_itself_and_nothing_else(pool: None, kind: str, reason: str) -> None:
    kinds = ["fine"] * 12
    kinds[5] = kind
    rows = shard_of(kinds)
    assert rows[5] == reason
    assert rows[:5] + rows[6:] == ["read"] * 11


def test_two_culprits_in_one_shard_are_both_found(pool: None) -> None:
    rows = shard_of(["fine", "segfault", "fine", "spins", "fine"])
    assert [row == "read" for row in rows] == [True, False, True, False, True]


def test_a_stray_kill_condemns_nobody(pool: None, tmp_path: Path) -> None:
    assert shard_of(["fine", "once", "fine"], str(tmp_path / "killed")) == ["read"] * 3
    assert (tmp_path / "killed").exists()


def test_a_child_that_dies_over_no_photo_is_for_others_to_try_again(pool: None) -> None:
    import wall_steps

    with pytest.raises(ChildDiedError, match=r"dies_between died with exit code -9"):
        run_behind_wall(wall_steps.dies_between, ["fine"], budget=SMALL)


def test_without_the_journal_one_photo_fails_the_shard(pool: None) -> None:
    """The twin: nobody knows which photo it was."""
    import wall_steps

    with pytest.raises(ChildDiedError, match=r"without_a_wall died"):
        run_behind_wall(wall_steps.without_a_wall, ["fine", "segfault", "fine"], budget=SMALL)


def test_limits_end_with_the_photo(pool: None) -> None:
    import wall_steps

    assert run_behind_wall(wall_steps.slow_afterwards, budget=SMALL) == b"\0\0\0"


def test_shards_of_several_threads_keep_their_culprits_apart(pool: None) -> None:
    found: dict[int, list[str]] = {}

    def one(n: int) -> None:
        kinds = ["fine"] * 6
        kinds[n] = "segfault"
        found[n] = shard_of(kinds)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(3):
        assert [k for k, row in enumerate(found[n]) if row != "read"] == [n]


def outlasts(code: str, seconds: float) -> bool:
    """Whether a process that decodes runs longer than so many seconds."""
    program = f"import sys; sys.path[:0] = {[*sys.path[:2], str(PROJECT)]!r}; {code}"
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return True
    finally:
        process.kill()
        process.wait()
    return False


def test_without_the_timer_the_hang_goes_on() -> None:
    walled = "from tasks.steps.wall import _limits, PhotoBudget; import wall_steps\n"
    spin = "with _limits(PhotoBudget(cpu_seconds={})): wall_steps.decode('spins')"
    assert not outlasts(walled + spin.format(0.3), 20)
    assert outlasts(walled + spin.format(3600).replace("0.3", ""), 4)


def test_without_the_memory_limit_a_gigabyte_is_taken(pool: None) -> None:
    import wall_steps

    large = PhotoBudget(memory_bytes=3 * 2**30)
    assert run_behind_wall(wall_steps.shard, ["bloats"], budget=large) == ["bloated"]


def test_in_the_users_own_process_nothing_is_limited() -> None:
    import wall_steps

    before = signal.getsignal(signal.SIGALRM)
    assert wall_steps.shard(["fine", "fine"], wall=OPEN) == ["read", "read"]
    with Wall().around(3):
        assert signal.getitimer(signal.ITIMER_PROF)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is before
    assert OPEN.verdict(0) is None


def test_what_decoders_print_of_a_file_does_not_reach_the_user_and_what_the_step_prints_does(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import wall_steps

    with children(1):
        run_behind_wall(wall_steps.speaks_afterwards, budget=SMALL)
    run_once_behind_wall(wall_steps.decode, "chatters", budget=SMALL)
    told = capfd.readouterr().err
    assert "the step's own words" in told
    assert "scanline" not in told


def test_no_journal_stays_behind(pool: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shard_of(["fine", "segfault"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "match"),
    [("segfault", r"died of it"), ("spins", r"more than 0.5 s of processor time")],
)
def test_one_photo_may_be_decoded_in_a_process_of_its_own(kind: str, match: str) -> None:
    import wall_steps

    with pytest.raises(PhotoKilledError, match=match):
        run_once_behind_wall(wall_steps.decode, kind, budget=SMALL)
    assert run_once_behind_wall(wall_steps.decode, "fine", budget=SMALL) == "read"


def test_what_comes_back_from_a_process_of_its_own_may_be_large() -> None:
    import wall_steps

    started = time.monotonic()
    assert len(run_once_behind_wall(wall_steps.big, 50_000_000)) == 50_000_000
    assert time.monotonic() - started < 60
