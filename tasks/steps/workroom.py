"""Room on this machine for large files on their way into a store."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.local_files import STAGING
from store.storage import Storage
from store.verified_files import MAKING, cache_folder

__all__ = ["workroom"]


@contextmanager
def workroom(storage: Storage) -> Iterator[Path]:
    """An empty folder that is gone afterwards: a store's own where it lies on this machine, so that files need not be copied.

    Else it is in LOOKALIKE_CACHE. What a killed process leaves is swept after a day: in a store by a vacuum, in the cache when a file in it
    is opened.
    """
    own = storage.local_path(f"{STAGING}/{uuid.uuid4().hex}")
    if own is None:
        cache_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=MAKING) as made:
            yield Path(made)
        return
    own.mkdir(parents=True)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
