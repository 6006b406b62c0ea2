"""The Arrow schemas of format 1, and the only way tables are read and written.

Format 1 may gain columns, never lose or redefine them: a reader selects by name and treats a missing column as null.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.arrow_memory import keep_freed_memory
from store.arrow_without_pandas import look_for_pandas_in_vain
from store.errors import ArtifactError

__all__ = [
    "ADDED_PHOTOS",
    "FACES",
    "FORMAT",
    "LEFT",
    "LISTING",
    "PHOTOS",
    "PLAN",
    "PLANNED",
    "STATUSES",
    "TO_CODE",
    "VERSION_FACES",
    "VERSION_PHOTOS",
    "coded_schema",
    "embeddings_schema",
    "from_parquet",
    "to_parquet",
    "truth_schema",
]

look_for_pandas_in_vain()
keep_freed_memory()

FORMAT = 1
STATUSES = ("indexed", "no_face", "unreadable", "too_large", "too_small", "duplicate", "forgotten", "failed")

_EACH_ITS_OWN = frozenset(
    {"face_id", "photo_sha256", "uri", "uris", "mtime_ns", "crop", "embedding", "query", "cosines"}
)

_BOX = pa.list_(pa.float32(), 4)
_LANDMARKS = pa.list_(pa.float32(), 10)
_AS_LISTED = [
    pa.field("uri", pa.string(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("etag", pa.string()),
    pa.field("mtime_ns", pa.int64()),
]
_QUALITY = [
    pa.field("face_px", pa.float32()),
    pa.field("sharpness", pa.float32()),
    pa.field("brightness", pa.float32()),
    pa.field("frontality", pa.float32()),
    pa.field("yaw", pa.float32()),
    pa.field("pitch", pa.float32()),
    pa.field("roll", pa.float32()),
    pa.field("quality", pa.float32()),
    pa.field("rotation", pa.int16()),
]

LISTING = pa.schema(
    [
        *_AS_LISTED,
        pa.field("source", pa.string()),
        pa.field("label", pa.string()),
        pa.field("metadata", pa.string()),
    ]
)
"""What a source holds now."""

PLAN = pa.schema(
    [
        *LISTING,
        pa.field("shard", pa.string(), nullable=False),
        pa.field("attempt", pa.int32()),
        pa.field("row_before", pa.int64()),
    ]
)
"""What the next version holds, and the shard that each photo's rows stand in; where that is the shard of before, also the row of the version
before's photos.parquet, which is a hint: that version may have been made anew meanwhile."""

PLANNED = pa.schema([*PLAN, pa.field("row", pa.int64(), nullable=False)])
"""Some rows of a plan, each with its row number among all."""

PHOTOS = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("photo_sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("exif_orientation", pa.int8()),
        pa.field("rotation_used", pa.int16()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("num_faces", pa.int32(), nullable=False),
    ]
)
"""photos/<contract>/<shard>.parquet: a row a photo seen."""

FACES = pa.schema(
    [
        pa.field("face_id", pa.int64(), nullable=False),
        pa.field("photo_sha256", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("box", _BOX, nullable=False),
        pa.field("landmarks", _LANDMARKS, nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        *_QUALITY,
        pa.field("crop", pa.binary(), nullable=False),
        pa.field("crop_origin", pa.list_(pa.float32(), 2), nullable=False),
        pa.field("crop_scale", pa.float32(), nullable=False),
    ]
)
"""faces/<contract>/<shard>.parquet: a row a face."""

VERSION_PHOTOS = pa.schema(
    [
        *_AS_LISTED,
        pa.field("photo_sha256", pa.string()),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("label", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("source", pa.string()),
        pa.field("attempt", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("num_faces", pa.int32()),
    ]
)
"""versions/<n>/photos.parquet: a row a photo, sorted by uri; `plan` compares a listing with it."""

VERSION_FACES = pa.schema(
    [
        pa.field("face_id", pa.int64(), nullable=False),
        pa.field("photo_sha256", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("uris", pa.list_(pa.string())),
        pa.field("box", _BOX, nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        *_QUALITY,
        pa.field("label", pa.string()),
        pa.field("shard", pa.string(), nullable=False),
    ]
)
"""versions/<n>/faces.parquet: a row a face in the index, sorted by face_id: what a result shows."""


ADDED_PHOTOS = pa.schema([*VERSION_PHOTOS, pa.field("row", pa.int64(), nullable=False)])
"""versions/<n>/added_photos.parquet: a row a photo that its base does not tell of so, and its row among all photos by rising uri."""

LEFT = pa.schema([pa.field("of", pa.string(), nullable=False), pa.field("id", pa.int64(), nullable=False)])
"""versions/<n>/left.parquet: what of the base counts no more: row numbers of `photos`, face ids of `faces` and of `vectors`."""

TO_CODE = pa.schema(
    [
        pa.field("face_id", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
    ]
)
"""A block of faces that a worker codes, by rising face_id: the row of each in the index, its shard, and what the shard's embeddings must hash to."""


def coded_schema(code_bytes: int, finer_bytes: int) -> pa.Schema:
    """Faces as an index keeps them, by rising row: the list of each, its codes, and finer ones where there are any."""
    finer = [pa.field("finer", pa.binary(finer_bytes), nullable=False)] if finer_bytes else []
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("list", pa.int64(), nullable=False),
            pa.field("codes", pa.binary(code_bytes), nullable=False),
            *finer,
        ]
    )


def embeddings_schema(dimension: int) -> pa.Schema:
    """embeddings/<encoder>/<shard>.parquet: a row a face, unit-length float32 of the encoder's dimension."""
    return pa.schema(
        [
            pa.field("face_id", pa.int64(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )


def truth_schema(dimension: int) -> pa.Schema:
    """versions/<n>/truth.parquet: a row a held-out query and share of the faces that it may find; its exact nearest of them."""
    return pa.schema(
        [
            pa.field("purpose", pa.string(), nullable=False),
            pa.field("share", pa.float64(), nullable=False),
            pa.field("face_id", pa.int64(), nullable=False),
            pa.field("query", pa.list_(pa.float32(), dimension), nullable=False),
            pa.field("near", pa.list_(pa.int64()), nullable=False),
            pa.field("cosines", pa.list_(pa.float32()), nullable=False),
            pa.field("hidden", pa.float32(), nullable=False),
            pa.field("added_since", pa.int64(), nullable=False),
        ]
    )


def to_parquet(table: pa.Table, schema: pa.Schema, *, rows_a_group: int = 65_536) -> bytes:
    """The table as Parquet, columns in the schema's order, zstd, with page checksums; equal tables give equal bytes.

    Raises:
        ArtifactError: a column is missing or does not fit; the message names it.
    """
    try:
        ordered = table.select(schema.names).cast(schema)
        ordered.validate(full=True)
    except (KeyError, pa.ArrowException, ValueError) as error:
        raise ArtifactError(f"a table does not fit its schema: {error}") from error
    sink = io.BytesIO()
    pq.write_table(
        ordered,
        sink,
        compression="zstd",
        use_dictionary=_repeating(schema),
        write_page_checksum=True,
        row_group_size=rows_a_group,
    )
    return sink.getvalue()


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns whose values are worth a dictionary, as Parquet names them."""
    return [
        f"{field.name}.list.element" if _kind(field.type) == "lists" else field.name
        for field in schema
        if field.name not in _EACH_ITS_OWN
    ]


def from_parquet(
    data: bytes | Path, schema: pa.Schema, *, where: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """The table in a Parquet file, its bytes or a path of this machine: the schema's columns (or some of them), a missing optional one filled with null.

    Raises:
        ArtifactError: not Parquet, a required column missing, or a column of another type; the message says where.
    """
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    try:
        with pq.ParquetFile(
            io.BytesIO(data) if isinstance(data, bytes) else data, page_checksum_verification=True
        ) as file:
            present = [name for name in wanted.names if name in file.schema_arrow.names]
            table = file.read(columns=present)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{where} cannot be read as Parquet: {error}") from error
    for field in wanted:
        if field.name in table.column_names:
            if _kind(got := table.schema.field(field.name).type) != _kind(field.type):
                raise ArtifactError(f"{where} has {got} in column {field.name}, wanted {field.type}")
        else:
            if not field.nullable:
                raise ArtifactError(
                    f"{where} has no column {field.name}; it was not written by lookalike's format {FORMAT}"
                )
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    try:
        return table.select(wanted.names).cast(wanted)
    except (pa.ArrowException, ValueError) as error:
        raise ArtifactError(f"{where} has columns of another type than format {FORMAT}: {error}") from error


def _kind(kind: pa.DataType) -> str:
    """What a column holds, whatever its width: a cast within one kind reads a file that another writer rewrote."""
    names = {
        "whole numbers": pa.types.is_integer,
        "numbers": pa.types.is_floating,
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
        "bytes": lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
        "lists": lambda t: pa.types.is_list(t) or pa.types.is_fixed_size_list(t) or pa.types.is_large_list(t),
    }
    return next((name for name, holds in names.items() if holds(kind)), str(kind))
