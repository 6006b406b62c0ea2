"""Keeps pyarrow from importing pandas at its first conversion, which takes longer than a build with nothing new.

pyarrow looks for pandas once, so as to know its objects if it is given any; lookalike gives it none. Whoever calls `to_pandas`
gets pandas all the same: pyarrow then looks again.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa

__all__ = ["look_for_pandas_in_vain"]


class _Nowhere(MetaPathFinder):
    """Finds no pandas, and leaves every other module to the finders after it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not looked for now", name=fullname)


def look_for_pandas_in_vain() -> None:
    """Let pyarrow look once while there is none; nothing is done where pandas is imported already."""
    if "pandas" in sys.modules:
        return
    nowhere = _Nowhere()
    sys.meta_path.insert(0, nowhere)
    try:
        pa.array([0])  # its Python and its C++ both look here, each once
    finally:
        sys.meta_path.remove(nowhere)
