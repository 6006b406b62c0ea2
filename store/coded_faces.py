"""Coded faces as a Parquet file, from whoever codes a block of them to whoever merges the blocks into an index.

B faces of a block, C bytes of a face's codes, F of its finer codes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.index_stream import CodedFaces
from store.schemas import coded_schema, from_parquet, to_parquet

__all__ = ["coded_parquet", "read_coded"]

Bytes = npt.NDArray[np.uint8]


def coded_parquet(parts: Sequence[CodedFaces]) -> bytes:
    """All faces of some parts, by rising row.

    Args:
        parts: coded by the same index; at least one.
    """
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    codes = np.concatenate([part.codes for part in parts])[order]
    finer = np.concatenate([part.finer for part in parts])[order]
    columns = {
        "row": pa.array(rows[order]),
        "list": pa.array(np.concatenate([part.lists for part in parts])[order]),
        "codes": _binary(codes),
        **({"finer": _binary(finer)} if finer.shape[1] else {}),
    }
    return to_parquet(pa.table(columns), coded_schema(codes.shape[1], finer.shape[1]))


def read_coded(data: bytes, *, code_bytes: int, finer_bytes: int, where: str) -> CodedFaces:
    """The faces in such a file.

    Args:
        data: of the file; its hash has been checked.
        code_bytes: C of the index that they are for.
        finer_bytes: F of it, 0 where it has no finer codes.
        where: what to call it.

    Raises:
        ArtifactError: it is none, or of codes of another length; the message says where.
    """
    table = from_parquet(data, coded_schema(code_bytes, finer_bytes), where=where)
    rows = table["row"].to_numpy()
    return CodedFaces(
        rows=rows,
        lists=table["list"].to_numpy(),
        codes=_bytes(table["codes"], code_bytes),
        finer=_bytes(table["finer"], finer_bytes) if finer_bytes else np.zeros((len(rows), 0), np.uint8),
    )


def _binary(codes_BC: Bytes) -> pa.Array:
    """A column of values of C bytes each."""
    count, width = codes_BC.shape
    buffer = pa.py_buffer(np.ascontiguousarray(codes_BC))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, buffer])


def _bytes(column: pa.ChunkedArray, width: int) -> Bytes:
    """The values of such a column, uint8 (B, C)."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, width)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in column.chunks
    ]
    return np.concatenate([np.zeros((0, width), np.uint8), *chunks])
