"""List a source: every photo it holds, unread."""

import uuid
from dataclasses import dataclass

import pyarrow as pa

from models.photo import SUFFIXES
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import LISTING, to_parquet
from store.sources import list_source

__all__ = ["ListedSource", "list_photos"]


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
    rows = [
        {name: getattr(photo, name) for name in ("uri", "size", "etag", "mtime_ns", "label", "metadata")}
        | {"source": listing.source}
        for photo in listing.photos
    ]
    data = to_parquet(pa.Table.from_pylist(rows, schema=LISTING), LISTING)
    path = f"runs/listings/{uuid.uuid4()}.parquet"  # its own: another build of the source may remove its listing now
    storage.write(path, data)
    ref = ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=len(rows))
    return ListedSource(source=listing.source, listing=ref, ignored=listing.ignored)
