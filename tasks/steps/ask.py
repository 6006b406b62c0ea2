"""Ask a store: with a photo, with a folder of them, or with a face that it knows already."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from models.photo import SUFFIXES
from store.errors import QueryError, SourceError
from store.layout import open_store
from store.sources import list_source, read_asked
from store.storage import decode_path, is_local, normalise_uri
from tasks.steps.answer import Answer
from tasks.steps.answer_faces import answer_face, answer_photo, refuse_other_encoder
from tasks.steps.asked_photo import read_asked_photo
from tasks.steps.contract import Contract
from tasks.steps.open_version import open_version
from tasks.steps.query_options import AS_USUAL, QueryOptions

__all__ = ["AskedOf", "ask_face", "ask_folder", "ask_photo", "is_folder"]


@dataclass(frozen=True)
class AskedOf:
    """What came of one photo of a folder: an answer, or a sentence that says why there is none."""

    image: str
    answer: Answer | None
    refusal: str | None = None


def ask_photo(
    image: str | bytes, *, store: str, options: QueryOptions = AS_USUAL, name: str = "photo", device: str = "cpu"
) -> Answer:
    """The most similar known faces of each face in a photo.

    Args:
        image: a path, a url that fsspec opens, or the file's bytes.
        store: the store's uri.
        options: how it is asked.
        name: what to call bytes.
        device: of the nets.

    Raises:
        QueryError: the picture is missing, is not an image, shows no face, or an option does not fit.
        VersionError: there is no such version.
        ArtifactError: the version asked for is damaged, or CURRENT is and so are all before it.
    """
    storage = open_store(store)
    opened, refused = open_version(storage, options.version)
    refuse_other_encoder(opened.version, options.encoder)
    uri = name if isinstance(image, bytes) else normalise_uri(image)
    data = image if isinstance(image, bytes) else read_asked(image, max_bytes=Contract().limits.max_bytes)
    asked = read_asked_photo(data, uri=uri, device=device)
    return answer_photo(storage, opened, asked, options=options, warnings=refused, device=device)


def ask_face(face_id: int | str, *, store: str, options: QueryOptions = AS_USUAL) -> Answer:
    """The known faces most similar to one that the store knows; errors as `answer_face` and `open_version` have them.

    Args:
        face_id: as answers give it.
        store: the store's uri.
        options: how it is asked.
    """
    if not str(face_id).isdecimal() or int(face_id) >= 2**63:
        raise QueryError(f"{face_id!r:.40} is no face_id: it is a whole number, as answers give it")
    storage = open_store(store)
    opened, refused = open_version(storage, options.version)
    return answer_face(storage, opened, int(face_id), options=options, warnings=refused)


def is_folder(image: str) -> bool:
    """Whether what is asked with is a folder, a glob, or an s3:// prefix that ends with a slash."""
    uri = normalise_uri(image)
    if is_local(uri):
        path = decode_path(uri)
        return os.path.isdir(path) or (not os.path.exists(path) and any(c in path for c in "*?["))
    return uri.startswith("s3://") and image.endswith("/")


def ask_folder(folder: str, *, store: str, options: QueryOptions = AS_USUAL, device: str = "cpu") -> Iterator[AskedOf]:
    """Each photo of a folder, a glob, an s3:// prefix or a list, by rising uri; a photo that is refused stops nothing.

    Raises:
        SourceError: the folder cannot be listed, or holds no photo.
        VersionError: there is no such version.
        ArtifactError: as for `ask_photo`.
    """
    listing = list_source(folder, suffixes=SUFFIXES, store_uri=normalise_uri(store))
    if not listing.photos:
        raise SourceError(f"{listing.source} holds no photo to ask with")
    for photo in listing.photos:
        try:
            yield AskedOf(photo.uri, ask_photo(photo.uri, store=store, options=options, device=device))
        except QueryError as refused:
            yield AskedOf(photo.uri, None, str(refused))
