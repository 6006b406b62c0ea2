"""A build's device reaches the stage that makes the index."""

from typing import Any

import pytest

from flows.shards import index_shards
from store.refs import ArtifactRef


def test_the_device_of_a_build_is_the_device_of_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    draft, asked = ArtifactRef("draft", "0" * 64, 1), {}

    def begun(plan: Any, **options: Any) -> ArtifactRef:
        asked.update(options)
        return draft

    monkeypatch.setattr("flows.shards.write_index", begun)
    nothing: Any = object()
    options = {"store": "store", "contract": nothing, "encoder": nothing, "device": "cuda"}
    assert index_shards(nothing, workers=1, **options) is draft
    assert asked == options
