"""List a source: every photo it holds, unread."""

import uuid
from dataclasses import dataclass

import pyarrow as pa

from models.photo import SUFFIXES
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import LISTING, to_parquet
from store.sources import ListedPhoto, Listing, list_source

__all__ = ["ListedSource", "list_photos", "table_of"]

_BATCH = 32_768  # photos that stand as rows of Python at a time
_LISTED = ("uri", "size", "etag", "mtime_ns", "label", "metadata")


@dataclass(frozen=True)
class ListedSource:
    """A listing as it is kept under the store's runs/.

    Attributes:
        source: the source's one spelling.
        listing: LISTING, by rising uri.
        ignored: files that are no photos.
    """

    source: str
    listing: ArtifactRef
    ignored: int


def list_photos(source: str, *, store: str) -> ListedSource:
    """List every photo of a source into the store's runs/.

    Raises:
        SourceError: the source is missing, empty or holds no photo.
    """
    storage = open_store(store, create=True)
    listing = list_source(source, suffixes=SUFFIXES, store_uri=storage.uri)
    table = table_of(listing)
    data = to_parquet(table, LISTING)
    path = f"runs/listings/{uuid.uuid4()}.parquet"  # its own: another build of the source may remove its listing now
    storage.write(path, data)
    ref = ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=table.num_rows)
    return ListedSource(source=listing.source, listing=ref, ignored=listing.ignored)


def table_of(listing: Listing) -> pa.Table:
    """LISTING, by rising uri: the same table, and so the same bytes as Parquet, for the same photos."""
    parts = [_table(listing.photos[n : n + _BATCH], listing.source) for n in range(0, len(listing.photos), _BATCH)]
    return pa.concat_tables([LISTING.empty_table(), *parts])


def _table(photos: tuple[ListedPhoto, ...], source: str) -> pa.Table:
    rows = [{name: getattr(photo, name) for name in _LISTED} | {"source": source} for photo in photos]
    return pa.Table.from_pylist(rows, schema=LISTING)
