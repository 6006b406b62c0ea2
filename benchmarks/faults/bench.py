"""Where trials run: a work folder, the base they start from, and the builds they disturb."""

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import pyarrow as pa

from benchmarks.faults.forks import Child, Ended, fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_content, problems_of_store, snapshot

__all__ = ["STORES", "Bench", "SkippedError", "build", "import_steps", "sample"]

STORES = ("empty", "second")
"""What a build meets: a store without a version, or with one of some other photos."""


class SkippedError(Exception):
    """This system does not let a fault be injected; the message says what is missing, in one sentence."""


def sample(keys: Sequence[str], count: int, *, seed: int) -> list[str]:
    """Some of the keys, in their order, the same ones for the same seed."""
    picked = set(random.Random(seed).sample(range(len(keys)), min(count, len(keys))))
    return [key for n, key in enumerate(keys) if n in picked]


@dataclass(frozen=True)
class Bench:
    """A folder with the base, and room for trials.

    Attributes:
        work: the folder.
    """

    work: Path

    @property
    def base(self) -> Path:
        """Photos, stored results and stores that trials start from."""
        return self.work / "base"

    @property
    def source(self) -> str:
        """The photos."""
        return str(self.base / "photos")

    @property
    def stored(self) -> str:
        """What detector and encoder said about them."""
        return str(self.base / "stored")

    @cached_property
    def expected(self) -> str:
        """The content of an undisturbed build, whatever store it starts from."""
        return str(json.loads((self.base / "expected.json").read_text())["content_sha256"])

    def make_base(self) -> None:
        """Make the base where it is not there, in a process of its own."""
        if not (self.base / "expected.json").exists():
            self.work.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, "-m", "benchmarks.faults.base", str(self.base)], check=True)

    @contextmanager
    def fresh_store(self, name: str, *, under: Path | None = None) -> Iterator[Path]:
        """A copy of one of the base's stores, gone afterwards."""
        store = (under or self.work / "trials") / uuid.uuid4().hex
        shutil.copytree(self.base / name, store)
        try:
            yield store
        finally:
            shutil.rmtree(store, ignore_errors=True)

    def warm_up(self) -> None:
        """Build once in this process, which keeps what a first build compiles and reads; children have it from there."""
        with self.fresh_store("second") as store:
            build(str(store), self.source, self.stored)

    def start_build(
        self,
        store: Path | str,
        *,
        without: Sequence[str] = (),
        prepare: Callable[[], None] | None = None,
        gated: bool = False,
    ) -> Child:
        """Start a build of the source in a child.

        Args:
            store: its uri.
            without: guards to take away in the child.
            prepare: called in the child before it builds.
            gated: it waits for `go`.
        """

        def run() -> Any:
            remove_guards(without)
            if prepare is not None:
                prepare()
            return build(str(store), self.source, self.stored)

        return fork(run, gated=gated)

    def build(self, store: Path | str, *, without: Sequence[str] = (), timeout_s: float = 120.0) -> Ended:
        """Build to the end."""
        return self.start_build(store, without=without).wait(timeout_s)

    def after(self, store: Path, before: dict[str, str], *, without: Sequence[str] = ()) -> list[str]:
        """What does not hold in a store after a fault: now, and after a rerun, which must end with the same content."""
        problems = problems_of_store(store, before=before)
        published = before | snapshot(store)
        again = self.build(store, without=without)
        if again.error is not None or again.signal:
            problems.append(f"I4: the rerun failed: {again.error or f'signal {again.signal}'}")
        problems += [f"after the rerun, {what}" for what in problems_of_store(store, before=published)]
        return problems + problems_of_content(store, self.expected)


def build(store: str, source: str, stored: str, *, search: bool = False) -> int | None:
    """`small_build.build`, imported where it is needed: torch takes its time."""
    from benchmarks.faults.small_build import build as small_build  # noqa: PLC0415

    return small_build(store, source, stored, search=search)


def import_steps() -> None:
    """Import everything once, before children are forked; one thread a child, and no collection that copies their pages."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for commands that are started; here FAISS was imported before
    faiss.omp_set_num_threads(1)
    pa.set_cpu_count(1)
    import jinja2  # noqa: F401, PLC0415
    import s3fs  # noqa: F401, PLC0415

    import tasks.steps.forget  # noqa: PLC0415
    import tasks.steps.open_version  # noqa: F401, PLC0415

    gc.collect()
    gc.freeze()
