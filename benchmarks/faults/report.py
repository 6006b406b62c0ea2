"""The report of a run, for people: what was injected, how often, and what broke."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.fault import Fault
from benchmarks.faults.progress import Progress
from benchmarks.machine import describe_machine

__all__ = ["TWIN", "as_markdown", "summaries", "write_figures"]

TWIN = "twin"
"""The key of a fault's twin among its results."""

_OF_A_TRIAL = re.compile(r"/\S*?/(?:trials|read_only|disks/[0-9a-f]{32})/[0-9a-f]{32}")
_MARKS = ("<!-- figures -->\n", "<!-- end of figures -->\n")


def summaries(faults: Sequence[Fault], progress: Progress, planned: dict[str, int | None]) -> list[dict[str, Any]]:
    """A row a fault: trials planned, run and skipped, those that broke an invariant, and whether the twin went red."""
    rows = []
    for fault in faults:
        results = progress.of(fault.name)
        trials = {key: result for key, result in results.items() if key != TWIN}
        broken = {key: result["problems"] for key, result in trials.items() if result.get("problems")}
        reasons = sorted({result["skipped"] for result in results.values() if result.get("skipped")})
        states = {result["state"] for result in trials.values() if "state" in result and "problems" in result}
        twin = results.get(TWIN, {})
        rows.append(
            {
                "fault": fault.name,
                "title": fault.title,
                "planned": planned.get(fault.name),
                "run": sum("problems" in result for result in trials.values()),
                "states": len(states) if states else None,
                "broken": len(broken),
                "first_broken": next(((key, [*map(_without_paths, said)]) for key, said in broken.items()), None),
                "twin_red": bool(twin["problems"]) if "problems" in twin else None,
                "twin_said": _without_paths((twin.get("problems") or [""])[0]),
                "skipped": reasons,
                "seconds": round(sum(result.get("seconds", 0.0) for result in results.values()), 1),
            }
        )
    return rows


def _without_paths(said: str) -> str:
    """A problem without this machine's folders."""
    return _OF_A_TRIAL.sub("STORE", said)[:240]


def as_markdown(faults: Sequence[Fault], rows: list[dict[str, Any]], *, command: str, code: str) -> str:
    """The page's tables, what did not finish, the machine and the command."""
    by_name = {fault.name: fault for fault in faults}
    table = ["| fault | trials | broke an invariant | without its guard | seconds |", "| --- | --- | --- | --- | --- |"]
    unfinished = [
        f"- {row['title']}: {row['run']:,} of {row['planned']:,} trials were run, and nothing is said of the others."
        for row in rows
        if row["run"] != row["planned"] and row["planned"]
    ]
    skipped = [f"- {row['title']}: {reason}." for row in rows for reason in row["skipped"]]
    broken = [
        f"- {row['title']}, {row['first_broken'][0]}: {'; '.join(row['first_broken'][1][:3])}"
        for row in rows
        if row["broken"]
    ]
    machine = [f"- {name}: {value}" for name, value in describe_machine().items()]
    nothing = ["- nothing"]
    parts = [
        *(table + [_row(row) for row in rows]),
        *("", "### How", *(_how(by_name[row["fault"]], row) for row in rows)),
        *("", "### Not finished", *(unfinished or nothing)),
        *("", "### Skipped", *(skipped or nothing)),
        *("", "### Broken", *(broken or nothing)),
        *("", "### Machine", *machine, f"- command: `{command}`"),
        f"- code: {code}, a hash of `store/`, `tasks/steps/` and `benchmarks/faults/`, at {_commit()}",
    ]
    return "\n".join(parts) + "\n"


def _row(row: dict[str, Any]) -> str:
    done = f"{row['run']:,}" if row["run"] == row["planned"] else f"{row['run']:,} of {row['planned'] or 0:,}"
    done += "" if row["states"] is None else f", of {row['states']:,} distinct states"
    twin = {True: "red", False: "STAYED GREEN", None: "not run"}[row["twin_red"]]
    return f"| {row['title']} | {done} | {row['broken']} of {row['run']:,} | {twin} | {row['seconds']:,.0f} |"


def _how(fault: Fault, row: dict[str, Any]) -> str:
    said = f"; it said “{row['twin_said']}”" if row["twin_said"] else ""
    return f"- **{fault.title}**: {fault.how}. Twin: {fault.guard}{said}."


def _commit() -> str:
    """The commit of this checkout, and whether it differs from it."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit that is known"
    return f"commit {said}"


def write_figures(page: Path, figures: str) -> None:
    """Put the figures into a page, in place of those that stand between its marks; a new page has nothing else."""
    text = page.read_text() if page.exists() else ""
    before, _, rest = text.partition(_MARKS[0])
    after = rest.partition(_MARKS[1])[2]
    page.write_text(f"{before}{_MARKS[0]}{figures}{_MARKS[1]}{after}")
