"""Code one block of faces with an index that is trained, and find who among them is nearest to the queries it is tuned with.

What is read and what is written lies in the store, each file under its own hash, so that any worker can take any block, and a block
that is coded is coded for every build that would code the same.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from store.coded_faces import coded_parquet
from store.errors import ArtifactError
from store.fingerprints import canonical_json, sha256_hex, short_hash
from store.index_stream import code_faces as codes_of
from store.index_train import check_vectors
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import TO_CODE, from_parquet
from store.storage import Storage
from store.trained_index import read_trained
from tasks.steps.held_out_truth import HeldOut, read_truth, truth_parquet
from tasks.steps.index_device import screen_for
from tasks.steps.stored_faces import open_part

__all__ = ["CODE_FACES_VERSION", "CodedBlock", "Coder", "code_faces", "commit_name", "keep", "read_kept"]

CODE_FACES_VERSION = 2
"""Raised in the commit that changes what a coded block holds, or how its index is chosen and trained."""


@dataclass(frozen=True)
class Coder:
    """What faces are coded with.

    Attributes:
        folder: of the store, which all of it lies in.
        trained: the index without faces.
        asked: the queries it is tuned with, which have found nobody yet.
        encoder: id of the one whose embeddings are coded.
        dimension: of these.
    """

    folder: str
    trained: ArtifactRef
    asked: ArtifactRef
    encoder: str
    dimension: int


@dataclass(frozen=True)
class CodedBlock:
    """A block after this step.

    Attributes:
        block: sha256 of the block's TO_CODE.
        codes: the faces as the index keeps them.
        near: the queries with their nearest of the block.
        computed: False when it was there already.
    """

    block: str
    codes: ArtifactRef
    near: ArtifactRef
    computed: bool


def code_faces(block: ArtifactRef, *, store: str, coder: Coder, device: str = "cpu") -> CodedBlock:
    """Code a block of faces and keep it; nothing is done where that is kept already.

    Args:
        block: TO_CODE of the faces.
        store: its uri.
        coder: what they are coded with.
        device: as of `index_device`, where the queries are compared with them; what is kept is the same on any.

    Raises:
        ArtifactError: a file is not what was recorded, a face has no embedding, or one that is none; the message names it.
    """
    storage = open_store(store)
    if (there := _kept(storage, block, coder)) is not None:
        return there
    trained, asked = _opened(store, coder)
    table = from_parquet(read_kept(storage, block), TO_CODE, where=block.uri)
    faces = open_part(storage, table, encoder=coder.encoder, dimension=coder.dimension)
    rows_B, near, coded = table["row"].to_numpy(), asked.near[1.0], []
    screen = screen_for(device)
    for at, vectors_BD in faces.blocks():
        check_vectors(faces.ids[at], vectors_BD)
        coded.append(codes_of(trained, rows_B[at], vectors_BD))
        near = near.added(faces.ids[at], vectors_BD, screen=screen)
    found = truth_parquet((replace(asked, near={1.0: near}),), dimension=coder.dimension)
    names = {
        "codes": keep(storage, coder.folder, coded_parquet(coded), rows=block.rows).sha256,
        "near": keep(storage, coder.folder, found, rows=len(asked.faces)).sha256,
    }
    storage.create(f"{coder.folder}/{commit_name(coder, block.sha256)}", canonical_json(names))
    there = _kept(storage, block, coder)  # another worker's, where that one was first
    if there is None:
        raise ArtifactError(f"what {block.uri} was coded to is gone from the store; run the same command again")
    return replace(there, computed=True)


def keep(storage: Storage, folder: str, data: bytes, *, rows: int, suffix: str = ".parquet") -> ArtifactRef:
    """Put bytes into a folder under their hash."""
    sha256 = sha256_hex(data)
    path = f"{folder}/{sha256}{suffix}"
    storage.write(path, data)
    return ArtifactRef(uri=storage.uri_of(path), sha256=sha256, rows=rows)


def read_kept(storage: Storage, ref: ArtifactRef) -> bytes:
    """The bytes of a file, checked.

    Raises:
        ArtifactError: it is missing, or not what was recorded.
    """
    return storage.read(storage.path_of(ref.uri), sha256=ref.sha256)


def commit_name(coder: Coder, block: str) -> str:
    """The file that is written last, in the coder's folder: with it a block, named by its hash, is coded by this coder."""
    return f"{short_hash([coder.trained.sha256, coder.asked.sha256, block])}.json"


def _kept(storage: Storage, block: ArtifactRef, coder: Coder) -> CodedBlock | None:
    """What an earlier call kept; their bytes are checked by whoever reads them."""
    path = f"{coder.folder}/{commit_name(coder, block.sha256)}"
    if not storage.exists(path):
        return None
    try:
        names = json.loads(storage.read(path))
        codes, near = (
            ArtifactRef(storage.uri_of(f"{coder.folder}/{names[what]}.parquet"), names[what], rows)
            for what, rows in (("codes", block.rows), ("near", coder.asked.rows))
        )
    except (ValueError, KeyError, TypeError):  # nobody's: it was written whole or not at all
        storage.remove(path)
        return None
    return CodedBlock(block.sha256, codes, near, computed=False)


@lru_cache(maxsize=1)
def _opened(store: str, coder: Coder) -> tuple[Any, HeldOut]:
    """The trained index, and the queries."""
    storage = open_store(store)
    trained = read_trained(read_kept(storage, coder.trained), where=coder.trained.uri)
    asked = read_truth(read_kept(storage, coder.asked), dimension=coder.dimension, where=coder.asked.uri)
    return trained, asked["tune"]
