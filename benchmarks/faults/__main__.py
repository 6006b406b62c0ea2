"""Break a store in every way that can be had for real, and say what held.

    python -m benchmarks.faults (--short | --long) [--only NAME ...] [--work DIR] [--json] [--report FILE] [--seconds N]

The long form keeps its progress in DIR and goes on where it was stopped. The exit code is 1 where an invariant broke or a
twin stayed green.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import Bench, SkippedError, import_steps
from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.fault import Fault
from benchmarks.faults.progress import Progress, code_digest
from benchmarks.faults.report import TWIN, as_markdown, summaries, write_figures

__all__ = ["main", "run_fault"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials that have no result yet and print a row a fault."""
    args = _arguments(arguments)
    faults = [fault for fault in FAULTS if not args.only or fault.name in args.only]
    code = code_digest()
    bench = Bench(Path(args.work).resolve())
    bench.make_base()
    import_steps()
    progress = Progress(bench.work / ("long.jsonl" if args.long else "short.jsonl"), code)
    planned, until = {}, None if args.seconds is None else time.monotonic() + args.seconds
    for left, fault in zip(
        range(len(faults), 0, -1), faults, strict=True
    ):  # what one leaves of its share, the others get
        share = None if until is None else time.monotonic() + (until - time.monotonic()) / left
        planned[fault.name] = run_fault(fault, bench, progress, long=args.long, until=share)
    rows = summaries(faults, progress, planned)
    for row in rows:
        _print(row)
    if args.report:
        command = "make faults" if args.long else "python -m benchmarks.faults --short"
        write_figures(Path(args.report), as_markdown(faults, rows, command=command, code=code))
    if args.json:
        print(json.dumps({"faults": rows}))
    return int(any(row["broken"] or row["twin_red"] is False for row in rows))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--short", action="store_true", help="a seeded sample, at most 3 minutes")
    form.add_argument("--long", action="store_true", help="all trials, some hours")
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], metavar="NAME")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "lookalike-faults"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--report", metavar="FILE", help="write the figures as Markdown, between its marks")
    parser.add_argument(
        "--seconds",
        type=float,
        help="stop after about so long, every fault having had its share; the next run goes on. 0 runs nothing and reports",
    )
    return parser.parse_args(arguments)


def run_fault(fault: Fault, bench: Bench, progress: Progress, *, long: bool, until: float | None) -> int | None:
    """Run what is missing; how many trials there are to be, None where that cannot be said."""
    shutil.rmtree(bench.work / "trials", ignore_errors=True)
    try:
        keys = list(fault.keys(bench, long))
    except SkippedError as skipped:
        progress.add(fault.name, TWIN, skipped=str(skipped))
        return None
    random.Random(fault.name).shuffle(keys)  # a run that is stopped early has seen some of everything
    missing = progress.missing(fault.name, [TWIN, *keys])
    if missing and fault.warm:
        bench.warm_up()
    for key in missing:
        if until is not None and time.monotonic() > until:
            break
        progress.add(fault.name, key, **_result(fault, bench, progress, key))
    return len(keys)


def _result(fault: Fault, bench: Bench, progress: Progress, key: str) -> dict[str, Any]:
    """What a trial said, or the one that was run from the same state."""
    if fault.state is None or key == TWIN:
        return _trial(fault, bench, key)
    state = fault.state(bench, key)
    known = progress.of_state(fault.name, state)
    said = _trial(fault, bench, key) if known is None else {"problems": known["problems"], "seconds": 0.0}
    return said | {"state": state}


def _trial(fault: Fault, bench: Bench, key: str) -> dict[str, Any]:
    started = time.monotonic()
    try:
        problems = fault.twin(bench) if key == TWIN else fault.run(bench, key)
    except SkippedError as skipped:
        return {"skipped": str(skipped)}
    seconds = round(time.monotonic() - started, 3)
    if problems and key != TWIN:
        print(f"{fault.name} {key}: {'; '.join(problems)}", file=sys.stderr, flush=True)
    return {"problems": problems, "seconds": seconds}


def _print(row: dict[str, Any]) -> None:
    twin = {True: "red", False: "STAYED GREEN", None: "not run"}[row["twin_red"]]
    planned = "" if row["planned"] in {None, row["run"]} else f" of {row['planned']}"
    planned += "" if row["states"] is None else f", from {row['states']} distinct states"
    skipped = f"; skipped: {'; '.join(row['skipped'])}" if row["skipped"] else ""
    print(
        f"{row['fault']:<20} {row['broken']} broken, n = {row['run']}{planned}; twin {twin}; {row['seconds']} s{skipped}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
