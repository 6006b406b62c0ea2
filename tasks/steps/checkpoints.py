"""A training's checkpoint in the store: tensors as safetensors under their hash, and a JSON document that names them last."""

import json
import uuid

from safetensors.torch import load, save

from models.snapshot import Snapshot
from store.errors import ArtifactError
from store.fingerprints import sha256_hex
from store.storage import Storage

__all__ = ["StoreCheckpoints"]


class StoreCheckpoints:
    """The last snapshot of one training, in a folder of its own.

    The tensors are written first, under a new name; the document that names them and their sha256 replaces the last one in
    one step; then older tensors go. A process that dies in between leaves the last snapshot or the new one, both whole.

    Args:
        storage: the store.
        folder: of this training, under runs/.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder

    def load(self) -> Snapshot | None:
        """The last snapshot, None where there is none.

        Raises:
            ArtifactError: the tensors are missing or not those that the document names.
        """
        path = f"{self._folder}/checkpoint.json"
        if not self._storage.exists(path):
            return None
        try:
            document = json.loads(self._storage.read(path))
            name, sha256 = str(document["tensors"]), str(document["sha256"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(
                f"{self._storage.uri_of(path)} is no checkpoint ({type(error).__name__}): remove {self._folder}"
            ) from error
        tensors = load(self._storage.read(f"{self._folder}/{name}", sha256=sha256))
        return Snapshot(tensors, document["state"])

    def save(self, snapshot: Snapshot) -> None:
        """Keep this snapshot in place of the last."""
        data = save(snapshot.tensors)
        name = f"{uuid.uuid4().hex}.safetensors"
        self._storage.write(f"{self._folder}/{name}", data)
        document = {"tensors": name, "sha256": sha256_hex(data), "state": snapshot.document}
        self._storage.write(f"{self._folder}/checkpoint.json", json.dumps(document).encode())
        for other in self._storage.names(self._folder):
            if other.endswith(".safetensors") and other != name and not other.startswith("job"):
                self._storage.remove(f"{self._folder}/{other}")

    def clear(self) -> None:
        """Remove the folder: the training is over."""
        self._storage.remove(self._folder)
