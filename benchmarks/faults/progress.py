"""What has been run so far: one JSON object a line, so that a stopped run goes on where it was."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["Progress", "code_digest"]

_PROJECT = Path(__file__).resolve().parents[2]


def code_digest() -> str:
    """Of the code under test and of the trials: results of other code count for nothing."""
    digest = hashlib.sha256()
    for folder in ("store", "tasks/steps", "benchmarks/faults"):
        for path in sorted((_PROJECT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(_PROJECT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class Progress:
    """Results by fault and key, kept in a file.

    Args:
        path: of the file; lines of other code, and a last line that was cut, are passed over.
        code: digest of the code.
    """

    def __init__(self, path: Path, code: str) -> None:
        self._path, self._code = path, code
        self._lines: list[dict[str, Any]] = []
        self._states: dict[tuple[str, str], dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("code") == code:
                self._keep(entry)

    def add(self, fault: str, key: str, **said: Any) -> None:
        """Keep a result."""
        entry = {"code": self._code, "fault": fault, "key": key, **said}
        self._keep(entry)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write("\n" * self._was_cut() + json.dumps(entry) + "\n")

    def of(self, fault: str) -> dict[str, dict[str, Any]]:
        """Results of one fault by key, the last of each."""
        return {entry["key"]: entry for entry in self._lines if entry["fault"] == fault}

    def of_state(self, fault: str, state: str) -> dict[str, Any] | None:
        """The result of the trial that was run from this state; None where there is none yet."""
        return self._states.get((fault, state))

    def missing(self, fault: str, keys: Iterable[str]) -> list[str]:
        """The keys that have no result yet; what was skipped is tried again."""
        there = self.of(fault)
        return [key for key in keys if "problems" not in there.get(key, {})]

    def _keep(self, entry: dict[str, Any]) -> None:
        self._lines.append(entry)
        if "state" in entry and "problems" in entry:
            self._states.setdefault((entry["fault"], entry["state"]), entry)

    def _was_cut(self) -> bool:
        if not self._path.exists() or not self._path.stat().st_size:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"
