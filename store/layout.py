"""Where things lie in a store of format 1, and what makes a folder a store."""

import re

from store.errors import LookalikeError, StoreError
from store.fingerprints import short_hash
from store.storage import Storage

__all__ = [
    "CURRENT",
    "ENCODER_CURRENT",
    "FOLDERS",
    "FORGOTTEN_KEY",
    "FORGOTTEN_TAGS",
    "build_folder",
    "builds_folder",
    "coding_folder",
    "compaction_path",
    "embeddings_path",
    "encoder_folder",
    "faces_path",
    "open_store",
    "photos_path",
    "request_path",
    "results_folder",
    "short_name",
    "version_file",
    "version_folder",
    "watch_path",
]

CURRENT = "versions/CURRENT"
ENCODER_CURRENT = "encoders/CURRENT"
FORGOTTEN_KEY = "forgotten/key"
FORGOTTEN_TAGS = "forgotten/tags.json"
FOLDERS = frozenset({"photos", "faces", "embeddings", "encoders", "versions", "runs", "forgotten", "audit", "labels"})


def open_store(uri: str, *, create: bool = False) -> Storage:
    """The store at a uri.

    Args:
        uri: a folder, or `s3://bucket/prefix`.
        create: an empty or missing folder becomes a store, and the store must be writable.

    Raises:
        StoreError: not a store, missing, or not writable; the message says which and what to do.
        UnavailableError: S3 does not answer.
    """
    try:
        storage = Storage(uri)
        names = {name for name in storage.names() if not name.startswith(".")}
    except NotADirectoryError as error:
        raise StoreError(f"the store {uri} is a file: give a folder or an s3:// prefix with --store") from error
    except LookalikeError:
        raise
    except Exception as error:  # every backend has its own kinds
        raise StoreError(f"the store {uri} cannot be opened ({type(error).__name__}: {error})") from error
    if names and not names & FOLDERS:
        some = ", ".join(sorted(names)[:3])
        raise StoreError(f"{storage.uri} is not a store: it holds {some}; give an empty folder or a store with --store")
    if not names and not create:
        raise StoreError(
            f"there is no store at {storage.uri}: run `lookalike build SOURCE --store {storage.uri}` first"
        )
    if create:
        storage.check_writable()
    return storage


def short_name(uri: str) -> str:
    """A store's name where no uri can stand, as in a file's name: its last folder, and a hash that tells it from others."""
    last = re.sub(r"[^\w.-]+", "-", uri.rstrip("/").rsplit("/", 1)[-1]).strip("-")
    return f"{last or 'store'}-{short_hash(uri)[:8]}"


def photos_path(contract: str, shard: str) -> str:
    """The file that commits a shard: its photos' rows."""
    return f"photos/{contract}/{shard}.parquet"


def faces_path(contract: str, shard: str) -> str:
    """A shard's faces with their crops."""
    return f"faces/{contract}/{shard}.parquet"


def embeddings_path(encoder: str, shard: str) -> str:
    """A shard's embeddings by one encoder."""
    return f"embeddings/{encoder}/{shard}.parquet"


def encoder_folder(encoder: str) -> str:
    """An encoder's weights and card."""
    return f"encoders/{encoder}"


def version_folder(number: int) -> str:
    """A version's files."""
    return f"versions/{number:06d}"


def version_file(number: int, revision: int, name: str) -> str:
    """One of a version's files; the manifest stands in the folder itself, files of a later revision in one of their own."""
    folder = version_folder(number)
    return f"{folder}/r{revision}/{name}" if revision and name != "manifest.json" else f"{folder}/{name}"


def request_path(shard: str) -> str:
    """The listed photos that a shard is made of, written before it is computed."""
    return f"runs/requests/{shard}.parquet"


def compaction_path(shard: str) -> str:
    """The rows of other shards that a shard is put together from, written before it is."""
    return f"runs/compactions/{shard}.parquet"


def builds_folder() -> str:
    """Drafts of versions, a folder a build."""
    return "runs/builds"


def build_folder(build: str) -> str:
    """A version's files before it is published."""
    return f"{builds_folder()}/{build}"


def coding_folder(identity: str = "") -> str:
    """What an index is put together from, of which workers code a block of faces each; or where all such folders lie."""
    return f"runs/coding/{identity}".rstrip("/")


def results_folder() -> str:
    """Prefect's results."""
    return "runs/results"


def watch_path(source: str) -> str:
    """What is known of a source's listings: announced, and answered by a build."""
    return f"runs/watch/{short_hash(source)}.json"
