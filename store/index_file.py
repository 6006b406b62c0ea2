"""The FAISS index file: inner products under an id map.

Bytes are checked by hash before FAISS sees them; ids are face ids; a search changes nothing.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store import index_trial
from store.errors import ArtifactError
from store.index_choice import Candidate, kind_for
from store.index_search import index_size, indexed_ids, search
from store.index_train import check_vectors, make_index
from store.verified_files import is_noted, note

__all__ = [
    "build_exact_index",
    "build_index",
    "flat_vectors",
    "index_bytes",
    "index_size",
    "indexed_ids",
    "load_index",
    "open_index",
    "search",
    "try_index",
]

_FAISS: str = faiss.__version__  # what opened once with this one may still kill another

_SPARE_BYTES = 512 * 2**20
_TRIAL_S = 120


def build_index(
    candidate: Candidate,
    face_ids_N: npt.NDArray[np.int64],
    embeddings_ND: npt.NDArray[np.float32],
    centres_LD: npt.NDArray[np.float32] | None = None,
) -> faiss.Index:
    """An index of one kind.

    Args:
        candidate: the kind.
        face_ids_N: int64, ascending and unique.
        embeddings_ND: float32, (N, D), unit length.
        centres_LD: as of `train_index`.

    Raises:
        ArtifactError: ids are not ascending, vectors are not finite and of unit length, or too few to train on; the message
            names the first.
    """
    _check(face_ids_N, embeddings_ND)
    if candidate.kind != "exact":
        return make_index(candidate, face_ids_N, embeddings_ND, centres_LD)
    index = faiss.IndexIDMap(faiss.IndexFlatIP(embeddings_ND.shape[1]))
    index.add_with_ids(np.ascontiguousarray(embeddings_ND), face_ids_N)
    return index


def build_exact_index(face_ids_N: npt.NDArray[np.int64], embeddings_ND: npt.NDArray[np.float32]) -> bytes:
    """Serialise an exact index; arguments and refusals as of `build_index`."""
    return index_bytes(build_index(kind_for("exact", *embeddings_ND.shape), face_ids_N, embeddings_ND))


def index_bytes(index: Any) -> bytes:
    """An index as it stands in a file."""
    return bytes(faiss.serialize_index(index))


def _check(face_ids_N: npt.NDArray[np.int64], embeddings_ND: npt.NDArray[np.float32]) -> None:
    if np.any(np.diff(face_ids_N) <= 0):
        at = int(face_ids_N[1:][np.diff(face_ids_N) <= 0][0])
        raise ArtifactError(f"face {at} stands twice in the index or out of order; ids must ascend")
    check_vectors(face_ids_N, embeddings_ND)


def load_index(data: bytes, *, where: str) -> faiss.Index:
    """Open an index from bytes whose hash has been checked.

    Raises:
        ArtifactError: FAISS refuses them; the message says where.
    """
    try:
        index: faiss.Index = index_trial.open_bytes(data)
    except ValueError as error:
        raise _unreadable(where, str(error)) from error
    return index


def open_index(path: Path, *, sha256: str, where: str) -> faiss.Index:
    """Open an index file of this machine by mapping it: no vector is read before it is asked for.

    The first time on a machine that bytes of this hash are opened, a child process opens them before this one does.

    Args:
        path: the file; its hash has been checked.
        sha256: of the file.
        where: what to call it.

    Raises:
        ArtifactError: FAISS refuses it, or dies of it, or it is gone; the message says where.
    """
    try:
        if not is_noted(sha256, opens := f"opens-with-faiss-{_FAISS}"):
            try_index(path, where=where)
            note(sha256, opens)
        index: faiss.Index = index_trial.open_mapped(str(path))
    except FileNotFoundError as error:
        raise ArtifactError(f"{where} was removed while it was opened; open the version that is current now") from error
    except ValueError as error:
        raise _unreadable(where, str(error)) from error
    return index


def try_index(path: Path, *, where: str, memory_bytes: int | None = None, seconds: int = _TRIAL_S) -> None:
    """Open an index file in a child process and ask it once, so that a file which crashes FAISS costs the child.

    Args:
        path: the file, on this machine.
        where: what to call it.
        memory_bytes: by which the child's address space may grow; three times the file and 512 MiB when not given.
        seconds: processor time that it may take; ten times as long by the clock.

    Raises:
        ArtifactError: FAISS refuses the file, or dies of it; the message says where and how.
    """
    allowed = 3 * path.stat().st_size + _SPARE_BYTES if memory_bytes is None else memory_bytes
    command = [sys.executable, "-P", index_trial.__file__, str(path), str(allowed), str(seconds)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, env=env, timeout=10 * seconds, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise _unreadable(where, f"opening it took more than {10 * seconds} s") from error
    if done.returncode == index_trial.REFUSED:
        raise _unreadable(where, done.stdout.decode(errors="replace").strip())
    if done.returncode:
        raise _unreadable(where, f"a process that opened it died of it ({_cause(done.returncode)})")


def _unreadable(where: str, why: str) -> ArtifactError:
    return ArtifactError(f"{where} is not an index that FAISS {_FAISS} reads: {why}")


def _cause(exitcode: int) -> str:
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"exit code {exitcode}"


def flat_vectors(index: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
    """The face ids, int64 (N,), and vectors, float32 (N, D), as they lie in an exact index; None where it keeps none as they were.

    The arrays look into the index, which must stay open as long as they are used.
    """
    flat = faiss.downcast_index(index.index)
    if not isinstance(flat, faiss.IndexFlat) or not flat.ntotal:
        return None
    vectors_ND = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    return faiss.vector_to_array(index.id_map), vectors_ND
