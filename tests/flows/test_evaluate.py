from itertools import combinations
from pathlib import Path

import pytest

pytestmark = pytest.mark.flow


def test_evaluate_flow_measures_and_leaves_an_artifact_with_pictures(prefect_api, drawn_people, tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.evaluate import evaluate
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    people = [[f"{p.name}/{f.name}" for f in sorted(p.glob("*.jpg"))] for p in sorted(drawn_people.iterdir())[:4]]
    rows = [f"{a},{b},1" for own in people for a, b in combinations(own, 2)]
    rows += [f"{one[k]},{two[k]},0" for one, two in combinations(people, 2) for k in range(2)]
    (tmp_path / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    store = str(tmp_path / "store")
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    parameters = {"images": str(drawn_people), "pairs": str(tmp_path / "pairs.csv"), "store": store, "encoder": encoder}
    result = evaluate(**parameters, shard_photos=6)
    assert (result["pairs"], result["coverage"]) == (24, 1)
    assert set(result["seconds"]) == {"list", "align", "embed", "measure", "total"}
    assert (Path(store) / "embeddings" / encoder).is_dir()
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["evaluation"]))
        (artifact,) = client.read_artifacts(artifact_filter=wanted)
    assert artifact.type == "markdown"
    assert f"| accuracy | {result['accuracy_mean']:.4f} |" in artifact.data
    assert artifact.data.count("data:image/png;base64,") >= 3
    assert len(artifact.data) < 200_000
