"""A build's device reaches the stage that makes the index."""

from typing import Any

import pytest

from flows.shards import device_here, index_shards
from store.refs import ArtifactRef


@pytest.mark.parametrize(("cluster", "device"), [(None, "cuda"), ("dask://10.0.0.1:8786", "cpu")])
def test_an_index_is_trained_on_the_builds_device_unless_the_gpus_are_a_clusters(
    cluster: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, asked = ArtifactRef("draft", "0" * 64, 1), {}

    def begun(plan: Any, **options: Any) -> ArtifactRef:
        asked.update(options)
        return draft

    monkeypatch.setattr("flows.shards.write_index", begun)
    nothing: Any = object()
    options = {"store": "store", "contract": nothing, "encoder": nothing}
    assert index_shards(nothing, workers=1, cluster=cluster, device="cuda", **options) is draft
    assert asked == options | {"device": device}
    assert device_here("cpu", cluster) == "cpu"
