"""A line a query: who asked what kind of question when, and what came of it; never the picture, its name or its faces."""

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from store.errors import LookalikeError

__all__ = ["Audit"]


class Audit:
    """Appends lines of JSON to a file that only its owner reads, or to stderr.

    Args:
        path: of the file; None writes to stderr.

    Raises:
        LookalikeError: the file cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = None if path is None else os.open(path, flags, 0o600)
        except OSError as error:
            raise LookalikeError(f"the audit file {path} cannot be written ({error.strerror})") from error

    def write(self, **told: Any) -> None:
        """One line, written at once, so that lines of several processes do not mix."""
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": "query", **told}
        data = (json.dumps(line, ensure_ascii=True) + "\n").encode()
        if self._file is None:
            sys.stderr.write(data.decode())
            sys.stderr.flush()
        else:
            os.write(self._file, data)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
