"""What it costs to look whether photos came, by the number of files: process and Prefect's start are not counted.

    python -m benchmarks.watch [--files 10000] [--rounds 7] [--quick] [--json]

The files are real and lie in a hundred folders; the version that they are compared with has a row for each. Three looks are told:
`known`, when the last build had the same listing before it; `compared`, when it had not, and nothing differs all the same; `new`,
when one photo in a hundred is new. No look reads a photo.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.incremental import commit_drawn
from benchmarks.machine import describe_machine
from store.layout import open_store
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.list_photos import list_photos
from tasks.steps.look_for_photos import Look, answer_plan, look_for_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.publish_version import publish_version
from tasks.steps.resolve_encoder import EncoderRef
from tasks.steps.write_index import write_index

__all__ = ["main", "measure_looks"]

Row = dict[str, Any]
_ENCODER = EncoderRef(id="e" * 32, name="drawn", dimension=32)


def measure_looks(files: int, *, rounds: int) -> Row:
    """Seconds of each kind of look, and the median."""
    with tempfile.TemporaryDirectory() as folder:
        source, store = Path(folder, "photos"), str(Path(folder, "store"))
        _make(source, range(files))
        kinds = {}
        plan = _publish(source, store)
        kinds["compared"] = [_timed(source, store, added=0) for _ in range(rounds)]
        answer_plan(plan, store=store, look_at="stamps")
        kinds["known"] = [_timed(source, store, added=0) for _ in range(rounds)]
        more = max(1, files // 100)
        _make(source, range(files, files + more))
        kinds["new"] = [_timed(source, store, added=more) for _ in range(rounds)]
    medians = {f"{kind}_s": round(statistics.median(seconds), 3) for kind, seconds in kinds.items()}
    spread = {kind: [round(min(seconds), 3), round(max(seconds), 3)] for kind, seconds in kinds.items()}
    return {"files": files, "rounds": rounds, **medians, "spread": spread}


def _timed(source: Path, store: str, *, added: int) -> float:
    started = time.perf_counter()
    look: Look = look_for_photos(str(source), store=store)
    seconds = time.perf_counter() - started
    if (look.added, look.changed, look.removed) != (added, 0, 0):
        raise SystemExit(f"wanted {added} new photos, got {look.counts}")
    return seconds


def _make(source: Path, numbers: range) -> None:
    for n in numbers:
        path = source / f"{n % 100:02}" / f"{n:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % n)


def _publish(source: Path, store: str) -> Any:
    """A version with a row a file, its shards as a detector that finds a face in each would commit them."""
    contract = Contract()
    listed = list_photos(str(source), store=store)
    for _ in range(2):  # what the first plan wants made is finished for the second
        plan = plan_build(listed, store=store, contract=contract, encoder=_ENCODER.id)
        commit_drawn(open_store(store), plan, _ENCODER)
    draft = write_index(plan, store=store, contract=contract, encoder=_ENCODER)
    publish_version(check_version(draft, store=store).draft, store=store, plan=plan)
    return plan


def main() -> None:
    """Measure, print, and with --json give one object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = measure_looks(500 if args.quick else args.files, rounds=3 if args.quick else args.rounds)
    for kind in ("known", "compared", "new"):
        low, high = result["spread"][kind]
        print(f"{kind:<9} {result[f'{kind}_s']:7.3f} s ({low:.3f} to {high:.3f})")
    result["machine"] = describe_machine()
    print(f"machine: {result['machine']}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
