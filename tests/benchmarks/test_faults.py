"""The short form of `make faults`: a seeded sample of every fault, and every twin, in one process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.catalogue import FAULTS

PROJECT = Path(__file__).resolve().parents[2]
NAMES = [fault.name for fault in FAULTS]


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, dict[str, Any]]]:
    """A row a fault; the folder is one that other users may look into."""
    with tempfile.TemporaryDirectory(prefix="lookalike-faults-", ignore_cleanup_errors=True) as work:
        Path(work).chmod(0o755)
        command = [sys.executable, "-m", "benchmarks.faults", "--short", "--json", "--work", work]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        last = done.stdout.strip().rsplit("\n", 1)[-1]
        if not last.startswith("{"):
            pytest.fail(f"the short form ended with {done.returncode}: {done.stderr[-2000:]}")
        yield {row["fault"]: row for row in json.loads(last)["faults"]}


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", NAMES)
def test_every_invariant_holds_after_the_fault(rows: dict[str, dict[str, Any]], name: str) -> None:
    row = rows[name]
    assert row["broken"] == 0, row["first_broken"]
    if row["run"] == 0:
        pytest.skip("; ".join(row["skipped"]))
    assert row["run"] == row["planned"], row["skipped"]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", NAMES)
def test_without_its_guard_the_check_goes_red(rows: dict[str, dict[str, Any]], name: str) -> None:
    if rows[name]["twin_red"] is None:
        pytest.skip("; ".join(rows[name]["skipped"]))
    assert rows[name]["twin_red"], "the guard was taken away and nothing broke: the trial proves nothing"
