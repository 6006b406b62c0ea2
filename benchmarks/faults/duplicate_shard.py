"""One shard delivered twice: two processes commit it at once, and in one of them photos could not be read."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import Bench
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import Child, fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_content, problems_of_store

__all__ = ["FAULT"]

_BUILDS = 4


def _keys(bench: Bench, long: bool) -> list[str]:
    """Both at once, or one killed between a shard's two files and the other coming after it."""
    count = 500 if long else 10
    return [f"race:{n}" for n in range(count)] + [f"killed:{n}" for n in range(count // 10)]


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """Whichever was first is kept, and later builds try again what failed in it, until nothing is left to do."""
    kind = key.split(":", maxsplit=1)[0]
    with bench.fresh_store("empty") as store:
        if kind == "race":
            order = random.Random(key).sample([True, False], 2)
            waits, start = os.pipe()
            both = [_commit(bench, store, fails=fails, gate=(waits, start), without=without) for fails in order]
            os.close(waits)
            os.close(start)
        else:
            both = [_commit(bench, store, fails=True, only_faces=True, without=without)]
        problems = [one.error for one in [child.wait() for child in both] if one.error]
        for _ in range(_BUILDS):  # one that finds a failure in a kept shard tries that photo again
            ended = bench.build(store, without=without)
            if ended.error is not None:
                return [*problems, f"I4: the build failed: {ended.error}"]
            if ended.value is None:
                break
        return [*problems, *problems_of_store(store), *problems_of_content(store, bench.expected)]


def _twin(bench: Bench) -> list[str]:
    """The second delivery overwrites the first, under a version that names its hash."""
    with bench.fresh_store("empty") as store:
        built = bench.build(store)
        assert built.error is None, built.error
        _commit(bench, store, fails=True, without=["link", "first"]).wait()
        return problems_of_store(store)


def _commit(
    bench: Bench,
    store: Path,
    *,
    fails: bool,
    gate: tuple[int, int] | None = None,
    only_faces: bool = False,
    without: Sequence[str] = (),
) -> Child:
    """Commit the first shard in a child; `fails`: its photos with a face could not be read."""

    def commit() -> Any:
        from benchmarks.faults import small_build  # noqa: PLC0415

        remove_guards(without)
        if only_faces:
            remove_guards(["photos_file"])
        known = small_build.load_stored(bench.stored)
        if fails:
            small_build.fail_photos(known)
        if gate is not None:
            os.close(gate[1])
        small_build.commit_first_shard(str(store), bench.source, known, waits=gate[0] if gate else None)

    return fork(commit)


FAULT = Fault(
    name="duplicate_shard",
    title="duplicate delivery of a shard",
    how="two processes commit one shard at once, photos of it unreadable to one of them; and a first one that dies between"
    " the shard's two files",
    guard="a second delivery overwrites the first",
    keys=_keys,
    run=_run,
    twin=_twin,
)
