import subprocess
import sys

CONVERSIONS = """
import sys
import numpy as np
import pyarrow as pa
{first}
rows = [{{"name": "a", "n": 1, "x": [0.5, None], "b": b"b", "d": {{"k": 1}}}}, {{"name": None, "n": None, "x": None, "b": None, "d": None}}]
table = pa.Table.from_pylist(rows)
pa.array(np.arange(3)), pa.array([1, None], pa.int64()), pa.scalar("s"), pa.array([np.float32(1), float("nan")])
assert table.to_pylist() == rows and table.to_pydict()["n"] == [1, None]
print("pandas" in sys.modules)
{then}
"""


def ran(first: str, then: str = "") -> list[str]:
    code = CONVERSIONS.format(first=first, then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_rows_become_tables_and_tables_rows_without_pandas() -> None:
    assert ran("import store.schemas") == ["False"]


def test_pyarrow_on_its_own_imports_pandas() -> None:
    """The twin of the test before: what is kept out."""
    assert ran("") == ["True"]


def test_who_asks_for_pandas_gets_it() -> None:
    then = "print(table.to_pandas()['n'][0]); import pandas; print(pa.array(pandas.Series([1, 2])).to_pylist())"
    assert ran("import store.schemas", then) == ["False", "1.0", "[1, 2]"]


def test_where_pandas_is_imported_already_it_stays() -> None:
    assert ran("import pandas; import store.schemas", "print(table.to_pandas()['n'][0])") == ["True", "1.0"]
