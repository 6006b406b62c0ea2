"""Where pyarrow's tables lie.

pyarrow's own choice, mimalloc, gives memory back at once; taking it again costs a page fault for every 4 KiB, which in a virtual machine
is as much as all that is done with a table of a million rows. jemalloc, which pyarrow brings along on Linux and macOS, keeps it a little.
"""

import os

import pyarrow as pa

__all__ = ["keep_freed_memory"]


def keep_freed_memory() -> None:
    """Let pyarrow use jemalloc where it has it, and where the user has not chosen by ARROW_DEFAULT_MEMORY_POOL."""
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
