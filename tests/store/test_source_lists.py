import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import SourceError
from store.source_lists import ListedUri, read_list


def rows(data: bytes, name: str) -> list[ListedUri]:
    return list(read_list(data, where=f"/lists/{name}"))


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def test_a_text_list_has_a_path_or_url_a_line() -> None:
    found = rows("\ufeff# mine\na b.jpg\r\n\n/abs/c.jpg\nhttps://h.example/d.jpg?x=1\ns3://b/e.png\n".encode(), "l.txt")
    assert [row.uri for row in found] == [
        "/lists/a b.jpg",
        "/abs/c.jpg",
        "https://h.example/d.jpg?x=1",
        "s3://b/e.png",
    ]
    assert {(row.label, row.metadata) for row in found} == {(None, None)}


def test_a_csv_list_keeps_its_other_columns_and_text_that_looks_like_numbers() -> None:
    data = b"id,URL,label,taken,price\n1,a.jpg,007,2024-05-06,1.5\n2,,x,,\n3,b.jpg,,,nan\n"
    first, second = rows(data, "l.csv")
    assert (first.uri, first.label) == ("/lists/a.jpg", "007")
    assert json.loads(first.metadata or "") == {"id": 1, "taken": "2024-05-06", "price": 1.5}
    assert (second.uri, second.label) == ("/lists/b.jpg", None)
    assert json.loads(second.metadata or "") == {"id": 3, "taken": None, "price": None}


def test_a_parquet_list_keeps_nested_values_and_dates() -> None:
    table = pa.table(
        {
            "Path": ["a.jpg", "b.jpg"],
            "tags": [["x", "y"], None],
            "at": [datetime.datetime(2024, 1, 2, 3, 4, 5), None],
            "raw": [b"\x00\xff", None],
        }
    )
    first, second = rows(parquet(table), "l.parquet")
    assert json.loads(first.metadata or "") == {"tags": ["x", "y"], "at": "2024-01-02T03:04:05", "raw": "b'\\x00\\xff'"}
    assert json.loads(second.metadata or "") == {"tags": None, "at": None, "raw": None}


def test_a_table_of_nothing_but_names_has_no_metadata() -> None:
    assert rows(b"uri\na.jpg\n", "l.csv") == [ListedUri("/lists/a.jpg")]


@pytest.mark.parametrize(
    ("data", "name", "match"),
    [
        (b"\xff\xfe\x00", "l.txt", r"it is no UTF-8"),
        (b"", "l.csv", r"the list /lists/l.csv cannot be read"),
        (b"no parquet", "l.parquet", r"the list /lists/l.parquet cannot be read"),
        (b"photo,name\na.jpg,x\n", "l.csv", r"has the columns photo, name: one must be named uri, url, path"),
        (b"https://me:secret@h.example/a.jpg\n", "l.txt", r"row 1 of /lists/l.txt has a name or password in its address"),
        (b"uri,text\na.jpg," + b"x" * 70_000 + b"\n", "l.csv", r"row 1 of .* has 7\d+ bytes of metadata, the limit is 65536"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_taken_is_refused_and_says_why(data: bytes, name: str, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        rows(data, name)
    assert "secret" not in str(caught.value)


def test_suffixes_decide(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        rows(b"a.jpg\n", "l.parquet")
