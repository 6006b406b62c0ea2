"""Lists of photos: text, CSV or Parquet, with whatever else they say about each photo."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from store.errors import SourceError
from store.fingerprints import canonical_json
from store.storage import is_local, normalise_uri

__all__ = ["LIST_SUFFIXES", "ListedUri", "read_list"]

LIST_SUFFIXES = (".txt", ".csv", ".parquet")

_URI_COLUMNS = ("uri", "url", "path", "image_url", "image", "file")
_LABEL_COLUMN = "label"
_MAX_METADATA_BYTES = 64 * 1024


@dataclass(frozen=True)
class ListedUri:
    """One row of a list.

    Attributes:
        uri: normalised.
        label: the person's name, or None.
        metadata: the row's other columns as a JSON object, or None where it has none.
    """

    uri: str
    label: str | None = None
    metadata: str | None = None


def read_list(data: bytes, *, where: str) -> Iterator[ListedUri]:
    """The rows of a list, by its suffix.

    A text file has a path or url a line; empty lines and lines that begin with # are passed over. A CSV file (with a header)
    and a Parquet file have them in a column named uri, url, path, image_url, image or file; a column `label` names
    the person, all others are kept as metadata. Paths are relative to the list.

    Args:
        data: the file.
        where: its uri.

    Raises:
        SourceError: it cannot be read, has no such column, or a row cannot be taken; the message says which.
    """
    folder = where.rsplit("/", 1)[0]
    rows = _text_rows(data, where) if where.endswith(".txt") else _table_rows(data, where)
    for number, text, label, metadata in rows:
        whole = "://" in text or text.startswith(("/", "~"))
        uri = normalise_uri(text if whole else f"{folder}/{text}")
        if not is_local(uri) and "@" in urlsplit(uri).netloc:
            raise SourceError(f"row {number} of {where} has a name or password in its address: remove it from the list")
        yield ListedUri(uri=uri, label=label, metadata=metadata)


_Row = tuple[int, str, str | None, str | None]


def _text_rows(data: bytes, where: str) -> Iterator[_Row]:
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"the list {where} cannot be read (it is no UTF-8): save it as UTF-8 text") from error
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, text, None, None


def _table_rows(data: bytes, where: str) -> Iterator[_Row]:
    try:
        table = _csv(data) if where.endswith(".csv") else pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"the list {where} cannot be read ({type(error).__name__}: {error})") from error
    column = _uri_column(table.column_names)
    if column is None:
        raise SourceError(
            f"the list {where} has the columns {', '.join(table.column_names)}: one must be named {', '.join(_URI_COLUMNS)}"
        )
    kept = [name for name in table.column_names if name not in {column, _LABEL_COLUMN}]
    for number, row in enumerate(table.to_pylist(), start=1):
        if row[column] in (None, ""):
            continue
        label = row.get(_LABEL_COLUMN)
        metadata = canonical_json({name: _plain(row[name]) for name in kept}).decode() if kept else None
        if metadata is not None and len(metadata) > _MAX_METADATA_BYTES:
            raise SourceError(
                f"row {number} of {where} has {len(metadata)} bytes of metadata, the limit is {_MAX_METADATA_BYTES}: "
                "leave large columns out"
            )
        yield number, str(row[column]).strip(), None if label in (None, "") else str(label), metadata


def _csv(data: bytes) -> pa.Table:
    """The table; what names a photo or a person stays text, even if it looks like a number."""
    names = pa.csv.read_csv(io.BytesIO(data[: 1 << 20].split(b"\n", 1)[0] + b"\n")).column_names
    text = {name: pa.string() for name in names if name.lower() in {*_URI_COLUMNS, _LABEL_COLUMN}}
    return pa.csv.read_csv(io.BytesIO(data), convert_options=pa.csv.ConvertOptions(column_types=text))


def _uri_column(names: list[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in _URI_COLUMNS if name in lower), None)


def _plain(value: Any) -> Any:
    """The value as JSON has it; dates as ISO text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, bytes | Decimal) or not isinstance(value, str | int | bool | None) else value
