import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.snapshot import Snapshot
from store.errors import ArtifactError
from store.layout import open_store
from store.storage import Storage
from tasks.steps.checkpoints import StoreCheckpoints

FOLDER = "runs/training/one"


def snapshot(value: float) -> Snapshot:
    return Snapshot({"a.b": torch.full((2, 3), value), "c": torch.tensor(3)}, {"steps": value, "choice": {"s": 2**127}})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_store(str(tmp_path / "store"), create=True)


def test_the_last_snapshot_comes_back_whole(storage: Storage) -> None:
    checkpoints = StoreCheckpoints(storage, FOLDER)
    assert checkpoints.load() is None
    for value in (1.5, 2.5):
        checkpoints.save(snapshot(value))
    found = checkpoints.load()
    assert found is not None
    assert found.document == snapshot(2.5).document
    assert torch.equal(found.part("a")["b"], torch.full((2, 3), 2.5))
    assert len(storage.names(FOLDER)) == 2
    checkpoints.clear()
    assert checkpoints.load() is None


def test_a_kill_while_it_is_written_leaves_the_last_one(storage: Storage) -> None:
    """At each of the three writes and removes, one after another."""
    real = {name: getattr(Storage, name) for name in ("write", "remove")}
    left = 0

    def dying(name: str) -> Callable[..., object]:
        def call(self: Storage, *args: object) -> object:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return real[name](self, *args)

        return call

    StoreCheckpoints(storage, FOLDER).save(snapshot(1.0))
    for attempt in range(3):
        left = attempt
        with pytest.MonkeyPatch.context() as patch:
            for name in real:
                patch.setattr(Storage, name, dying(name))
            with pytest.raises(KeyboardInterrupt):
                StoreCheckpoints(storage, FOLDER).save(snapshot(2.0))
        found = StoreCheckpoints(storage, FOLDER).load()
        assert found is not None
        assert found.document["steps"] == (1.0 if attempt < 2 else 2.0)
    StoreCheckpoints(storage, FOLDER).save(snapshot(3.0))
    assert len(storage.names(FOLDER)) == 2


def test_tensors_that_changed_are_refused_before_they_are_parsed(storage: Storage) -> None:
    checkpoints = StoreCheckpoints(storage, FOLDER)
    checkpoints.save(snapshot(1.0))
    (name,) = (n for n in storage.names(FOLDER) if n.endswith(".safetensors"))
    data = bytearray(storage.read(f"{FOLDER}/{name}"))
    data[-1] ^= 1
    storage.write(f"{FOLDER}/{name}", bytes(data))
    with pytest.raises(ArtifactError, match=f"{name} has changed"):
        checkpoints.load()


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"[" * 100_000, json.dumps({"tensors": "x"}).encode()])
def test_a_document_that_is_none_is_refused(storage: Storage, document: bytes) -> None:
    storage.write(f"{FOLDER}/checkpoint.json", document)
    with pytest.raises(ArtifactError, match=rf"{FOLDER}/checkpoint.json is no checkpoint .*: remove {FOLDER}"):
        StoreCheckpoints(storage, FOLDER).load()
