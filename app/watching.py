"""What wakes a watcher: a folder that changes, a notification, or the clock."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import watchfiles

from store.storage import decode_path, is_local

__all__ = ["folder_of", "ringing_for", "watch_until_stopped"]

_WILDCARD = re.compile(r"[*?\[]")
_AGAIN_S = 5.0
_STILL_THERE_MS = 2000
_DEBOUNCE_MS = 500  # the look itself waits until nothing comes any more


def folder_of(source: str) -> Path | None:
    """The folder of this machine in which a source's files change: itself, a list's, or a glob's fixed part; None for a url."""
    if not is_local(source):
        return None
    path = decode_path(source)
    if os.path.isdir(path):
        return Path(path)
    match = _WILDCARD.search(path)
    return Path(path[: match.start()] if match and not os.path.lexists(path) else path).parent


@contextmanager
def ringing_for(folders: Sequence[Path], bell: threading.Event, *, store: Path | None, polling: bool) -> Iterator[None]:
    """Set the bell whenever a file of the folders comes, changes or goes, while this block runs.

    Hidden files and the store are passed over, as a listing passes them over.

    Args:
        folders: of this machine.
        bell: what is set.
        store: where it is, if on this machine.
        polling: look at every file again and again, where the system tells of no changes: network disks.
    """
    stopped = threading.Event()
    threads = [
        threading.Thread(
            target=_ring, args=(folder, bell, stopped, store, polling), daemon=True, name=f"watch {folder}"
        )
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def watch_until_stopped(
    look: Callable[[], None], *, bell: threading.Event, stopped: threading.Event, every_s: float
) -> None:
    """Look now, whenever the bell was rung, and after `every_s` in any case.

    Args:
        look: looks; what came while it does is looked at afterwards.
        bell: rung by whoever knows that something changed.
        stopped: set, with the bell, to end this.
        every_s: seconds after which it looks unasked.
    """
    while True:
        bell.clear()
        if stopped.is_set():  # asked after clearing, so that no end is slept through
            return
        look()
        bell.wait(every_s)


def _ring(folder: Path, bell: threading.Event, stopped: threading.Event, store: Path | None, polling: bool) -> None:
    def counts(_: watchfiles.Change, path: str) -> bool:
        here = Path(path)
        inside = here.relative_to(folder) if here.is_relative_to(folder) else here
        return not (store is not None and here.is_relative_to(store)) and not any(
            part.startswith(".") for part in inside.parts
        )

    while not stopped.is_set():
        try:
            watched = _identity(folder)
            for changes in watchfiles.watch(
                folder,
                watch_filter=counts,
                debounce=_DEBOUNCE_MS,
                stop_event=stopped,
                rust_timeout=_STILL_THERE_MS,
                yield_on_timeout=True,
                force_polling=polling or None,
                ignore_permission_denied=True,
                raise_interrupt=False,
            ):
                if _identity(folder) != watched:  # another folder in its place, or a disk mounted over it
                    bell.set()
                    break
                if changes:
                    bell.set()
        except OSError:  # the folder is gone, or the system has no more watches: the look says so, the clock goes on
            bell.set()
            stopped.wait(_AGAIN_S)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino
