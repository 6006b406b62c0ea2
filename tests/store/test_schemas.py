from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import ArtifactError
from store.schemas import FACES, LISTING, PHOTOS, embeddings_schema, from_parquet, to_parquet

ROWS = [
    {"uri": "/p/a.jpg", "size": 3, "etag": None, "mtime_ns": 5, "source": "/p", "label": "Ann", "metadata": None},
    {"uri": "/p/b.jpg", "size": 4, "etag": "e", "mtime_ns": None, "source": None, "label": None, "metadata": "{}"},
]


def listing(rows: list[dict[str, object]] = ROWS) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=LISTING)


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def test_a_table_comes_back_as_it_was() -> None:
    back = from_parquet(to_parquet(listing(), LISTING), LISTING, where="x")
    assert back.schema == LISTING
    assert back.to_pylist() == ROWS


def test_embeddings_come_back_to_the_bit() -> None:
    schema = embeddings_schema(3)
    rows = [{"face_id": 2**63 - 1, "embedding": [0.1, -1e-30, 3.0]}]
    table = pa.Table.from_pylist(rows, schema=schema)
    assert from_parquet(to_parquet(table, schema), schema, where="x").equals(table)


def test_equal_tables_give_equal_bytes() -> None:
    halves = pa.concat_tables([listing(ROWS[:1]), listing(ROWS[1:])])
    assert to_parquet(listing(), LISTING) == to_parquet(halves, LISTING)
    assert to_parquet(listing(), LISTING) == to_parquet(listing().select(LISTING.names[::-1]), LISTING)


def test_an_empty_table_comes_back() -> None:
    back = from_parquet(to_parquet(FACES.empty_table(), FACES), FACES, where="x")
    assert back.num_rows == 0
    assert back.schema == FACES


def test_an_unknown_column_is_ignored() -> None:
    data = parquet(listing().append_column("colour", pa.array(["red", "blue"])))
    assert from_parquet(data, LISTING, where="x").to_pylist() == ROWS


def test_a_missing_optional_column_is_null() -> None:
    data = parquet(listing().drop_columns(["etag", "source"]))
    back = from_parquet(data, LISTING, where="x")
    assert back.column("etag").to_pylist() == [None, None]
    assert back.column("uri").to_pylist() == ["/p/a.jpg", "/p/b.jpg"]


def test_a_missing_required_column_is_refused() -> None:
    with pytest.raises(ArtifactError, match="^store/x has no column size; it was not written by lookalike's format 1$"):
        from_parquet(parquet(listing().drop_columns(["size"])), LISTING, where="store/x")


@pytest.mark.parametrize(
    ("column", "values"),
    [("size", pa.array(["3", "4"])), ("uri", pa.array([1, 2])), ("mtime_ns", pa.array([1.0, 2.0]))],
)
def test_a_column_of_another_type_is_refused_even_if_it_could_be_converted(column: str, values: pa.Array) -> None:
    table = listing()
    table = table.set_column(table.column_names.index(column), column, values)
    with pytest.raises(ArtifactError, match=f"^x has {values.type} in column {column}, wanted "):
        from_parquet(parquet(table), LISTING, where="x")


def test_null_in_a_required_column_is_refused() -> None:
    table = listing().set_column(0, "uri", pa.array([None, "/p/b.jpg"]))
    with pytest.raises(ArtifactError, match="x has columns of another type than format 1: .*uri"):
        from_parquet(parquet(table), LISTING, where="x")


def test_lists_of_another_length_are_refused() -> None:
    table = pa.table({"face_id": pa.array([1]), "embedding": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))})
    with pytest.raises(ArtifactError, match="x has columns of another type than format 1"):
        from_parquet(parquet(table), embeddings_schema(3), where="x")


def test_another_width_of_the_same_kind_is_read() -> None:
    table = listing().set_column(1, "size", pa.array([3, 4], pa.int32()))
    table = table.set_column(0, "uri", table.column("uri").cast(pa.large_string()))
    assert from_parquet(parquet(table), LISTING, where="x").to_pylist() == ROWS


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="^store/x cannot be read as Parquet: "):
        from_parquet(data, LISTING, where="store/x")


def test_a_flipped_byte_never_changes_what_is_read() -> None:
    rows = [{"uri": f"/p/{n}.jpg", "status": "indexed", "num_faces": n, "photo_sha256": "ab" * 32} for n in range(40)]
    table = pa.Table.from_pylist(rows, schema=PHOTOS)
    data = to_parquet(table, PHOTOS)
    pages = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    chunks = [pages.column(n) for n in range(pages.num_columns)]
    start = min(c.dictionary_page_offset or c.data_page_offset for c in chunks)
    end = max((c.dictionary_page_offset or c.data_page_offset) + c.total_compressed_size for c in chunks)
    refused = 0
    for at in range(start, end, 3):
        broken = bytearray(data)
        broken[at] ^= 0x10
        try:
            assert from_parquet(bytes(broken), PHOTOS, where="x").equals(table)
        except ArtifactError:
            refused += 1
    assert refused > (end - start) / 3 * 0.5  # the rest are bytes of headers that nothing depends on


def test_writing_refuses_a_table_without_a_column_or_with_a_null_where_none_may_be() -> None:
    with pytest.raises(ArtifactError, match="a table does not fit its schema: .*size"):
        to_parquet(listing().drop_columns(["size"]), LISTING)
    with pytest.raises(ArtifactError, match="a table does not fit its schema: .*uri"):
        to_parquet(listing().set_column(0, "uri", pa.array([None, "b"])), LISTING)


def test_some_columns_can_be_read_alone(tmp_path: Path) -> None:
    back = from_parquet(to_parquet(listing(), LISTING), LISTING, where="x", columns=["size", "uri"])
    assert back.to_pylist() == [{"size": 3, "uri": "/p/a.jpg"}, {"size": 4, "uri": "/p/b.jpg"}]
