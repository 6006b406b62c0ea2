"""Following a store: what is published is opened beside what answers, and takes its place in one step."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from store.errors import LookalikeError
from store.storage import Storage
from tasks.steps.open_version import OpenVersion, open_version

__all__ = ["Followed", "VersionFollower"]

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Followed:
    """A version that answers, and what was said of those that should have.

    Attributes:
        opened: whoever holds it is answered by it wholly, whatever is published meanwhile; it goes when nobody does.
        warnings: a sentence for each version that was refused before it.
    """

    opened: OpenVersion
    warnings: tuple[str, ...]


class VersionFollower:
    """The store's current version, looked for every second by a thread of its own. Close it, or use it in a `with`.

    Args:
        storage: the store.
        prepare: called with a version before it answers: where an encoder is loaded, nobody waits for it.
    """

    def __init__(self, storage: Storage, *, prepare: Callable[[OpenVersion], None] | None = None) -> None:
        self._storage, self._prepare = storage, prepare
        self._now: Followed | None = None
        self._trouble = "the newest version is being opened"
        self._stop = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow-version", daemon=True)

    def __enter__(self) -> "VersionFollower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._now = None

    @property
    def now(self) -> Followed | None:
        """What answers; None before there is anything."""
        return self._now

    @property
    def trouble(self) -> str | None:
        """Why nothing answers, or nothing newer; None when all is well."""
        return self._trouble or None

    def wait(self, timeout_s: float) -> bool:
        """Whether the store has been looked at for the first time."""
        return self._looked.wait(timeout_s)

    def _follow(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                opened, warnings = open_version(self._storage)
                if self._now is None or self._now.opened is not opened or self._now.warnings != warnings:
                    if self._prepare is not None:
                        self._prepare(opened)
                    self._now = Followed(opened, warnings)
                self._trouble = ""
            except LookalikeError as error:
                self._trouble = str(error)
            except Exception as error:  # a thread that dies would leave the service behind for ever
                self._trouble = f"the store cannot be read ({type(error).__name__}: {error})"
            self._looked.set()
            self._stop.wait(max(0.1, _LOOK_EVERY_S - (time.monotonic() - started)))
