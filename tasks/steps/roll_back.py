"""Go back to a version that was published before, or forward again."""

from store.errors import VersionError
from store.layout import open_store
from store.versions import current_number, set_current
from tasks.steps.verify_store import verify_store

__all__ = ["roll_back"]


def roll_back(number: int, *, store: str) -> int:
    """Let CURRENT name a version, once all of it has been read again and found whole; returns its number.

    Versions after it stay, and may be gone forward to; the next build goes on from CURRENT and gets a number above all.

    Raises:
        VersionError: there is no such version, it is damaged, or CURRENT was moved by somebody else meanwhile.
    """
    storage = open_store(store)
    try:
        before = current_number(storage)
    except VersionError:  # unreadable: rolling back repairs it
        before = None
    problems = verify_store(store, version=number).problems
    if problems:
        raise VersionError(
            f"version {number} is damaged, and CURRENT stays {before}: {problems[0].path}: {problems[0].sentence}"
            + (f" (and {len(problems) - 1} more; see `lookalike verify --version {number}`)" if problems[1:] else "")
        )
    if number != before:
        set_current(storage, number, expected=before)
    return number
