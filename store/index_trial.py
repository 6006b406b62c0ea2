"""Open an index file under limits: by itself, as a program, so that a file which kills FAISS kills nobody else.

`python index_trial.py FILE MEMORY_BYTES CPU_SECONDS` opens the file, asks it once, and ends with 0, or with 3 and a sentence.
"""

import os
import resource
import sys
import threading
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

__all__ = ["REFUSED", "open_bytes", "open_mapped"]

REFUSED = 3
"""The exit code of a program that refuses a file; any other but 0 says that the file killed it."""

_limits = threading.Lock()


def open_mapped(path: str) -> Any:
    """The index in a file, its vectors mapped and read when they are needed.

    Raises:
        ValueError: FAISS refuses it, or it is not an index of cosines under face ids; the message says why.
    """
    return _checked(lambda: faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC), os.path.getsize(path))


def open_bytes(data: bytes) -> Any:
    """The index in some bytes, of which FAISS makes a copy.

    Raises:
        ValueError: as above.
    """
    return _checked(lambda: faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8)), len(data))


def _checked(read: Callable[[], Any], size: int) -> Any:
    """What is read while FAISS is told that nothing in a file is larger than the file, which it otherwise believes up to a tebibyte."""
    with _limits:  # they are the process's
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(max(1, size))
        faiss.set_deserialization_loop_limit(max(1, size))
        try:
            index = read()
        except (RuntimeError, AssertionError, MemoryError) as error:
            raise ValueError(" ".join(str(error).split())) from error
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])
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
