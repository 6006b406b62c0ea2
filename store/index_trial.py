"""Open an index file under limits: by itself, as a program, so that a file which kills FAISS kills nobody else.

`python index_trial.py FILE MEMORY_BYTES CPU_SECONDS` opens the file, asks it once, and ends with 0, or with 3 and a sentence.
"""

import os
import resource
import sys
import threading
from typing import Any

import faiss
import numpy as np

__all__ = ["REFUSED", "checked", "open_mapped"]

REFUSED = 3
"""The exit code of a program that refuses a file; any other but 0 says that the file killed it."""

_limits = threading.Lock()


def open_mapped(path: str) -> Any:
    """The index in a file, its vectors mapped and read when they are needed.

    FAISS is told that nothing in a file is larger than the file, which it otherwise believes up to a tebibyte.

    Raises:
        ValueError: FAISS refuses it, or it is not an index of cosines under face ids; the message says why.
    """
    size = max(1, os.path.getsize(path))
    with _limits:  # they are the process's
        faiss.set_deserialization_vector_byte_limit(size)
        faiss.set_deserialization_loop_limit(size)
        try:
            return checked(faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC))
        except (RuntimeError, AssertionError, MemoryError) as error:
            raise ValueError(" ".join(str(error).split())) from error


def checked(index: Any) -> Any:
    """The index itself, if it is one of inner products under an id map.

    Raises:
        ValueError: it is another kind of index.
    """
    if not isinstance(index, faiss.IndexIDMap) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"it is a {type(index).__name__}, wanted inner products under an IndexIDMap")
    if index.index.ntotal != index.ntotal or index.id_map.size() != index.ntotal or index.index.d != index.d:
        raise ValueError(
            f"it says {index.ntotal} vectors and holds {index.index.ntotal}, with {index.id_map.size()} ids"
        )
    return index


def _try(path: str, *, memory_bytes: int, cpu_s: int) -> None:
    with open("/proc/self/statm", "rb") as statm:
        address_space = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    index = open_mapped(path)
    if index.ntotal:
        index.search(np.full((1, index.d), index.d**-0.5, np.float32), min(10, index.ntotal))


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    try:
        _try(sys.argv[1], memory_bytes=int(sys.argv[2]), cpu_s=int(sys.argv[3]))
    except Exception as refusal:
        print(" ".join(str(refusal).split())[:500] or type(refusal).__name__)
        sys.exit(REFUSED)
