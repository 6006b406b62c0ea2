import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The untrained encoder of a store, and the store."""
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = str(tmp_path_factory.mktemp("flow") / "store")
    return store, new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))


def test_build_publishes_and_a_second_build_computes_and_publishes_nothing(prefect_api, drawn_people, untrained):
    from flows.build_index import build_index

    store, encoder = untrained
    first = build_index(source=str(drawn_people), store=store, encoder=encoder, labels="folder", shard_photos=6)
    assert first["published"]
    assert first["version"] == 1
    assert first["seen"] == sum(first["photos"].values()) == 24
    assert first["index"]["recall_at_10"] == 1.0
    files = {path: path.stat().st_mtime_ns for path in Path(store).rglob("*.parquet")}

    second = build_index(source=str(drawn_people), store=store)
    assert not second["published"]
    assert second["version"] == 1
    assert second["shards"]["computed"] == 0
    assert second["photos"] == first["photos"]
    assert {path: path.stat().st_mtime_ns for path in Path(store).rglob("*.parquet")} == files


def test_another_encoder_embeds_stored_crops_and_detects_nothing(prefect_api, drawn_people, untrained):
    from flows.build_index import build_index
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store, first = untrained
    other = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=16, seed=5))
    shards = {path: path.stat().st_mtime_ns for path in (Path(store) / "faces").rglob("*.parquet")}
    built = build_index(source=str(drawn_people), store=store, encoder=other)
    assert built["published"]
    assert built["encoder"] == other
    assert built["shards"]["computed"] == 0
    assert built["embedded"] == {"faces": built["faces"], "from_stored_crops": built["faces"], "instead_of": first}
    assert {path: path.stat().st_mtime_ns for path in (Path(store) / "faces").rglob("*.parquet")} == shards


def test_a_lost_shard_is_computed_again_although_prefect_remembers_it(prefect_api, drawn_people, tmp_path):
    from flows.build_index import build_index
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = tmp_path / "store"
    encoder = new_encoder(str(store), settings=NetworkSettings(width=0.25, dimension=32))
    first = build_index(source=str(drawn_people), store=str(store), encoder=encoder, shard_photos=6)
    for folder in ("photos", "faces", "embeddings", "versions"):
        for path in (store / folder).rglob("*"):
            if path.is_file():
                path.unlink()
    again = build_index(source=str(drawn_people), store=str(store), encoder=encoder, shard_photos=6)
    assert again["published"]
    assert again["shards"]["computed"] == first["shards"]["computed"] > 0
    assert again["content_sha256"] == first["content_sha256"]


def test_query_flow_answers_from_the_published_version_and_keeps_json_a_table_and_a_contact_sheet(
    prefect_api, drawn_people, untrained
):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    from flows.query import query

    store, _ = untrained
    picture = sorted(drawn_people.rglob("*.jpg"))[0]
    state = query(image=str(picture), store=store, k=3, return_state=True)
    answer = state.result()
    best = answer["faces"][0]["matches"][0]
    assert best["uri"] == str(picture)
    assert best["cosine"] > 0.99
    with get_client(sync_client=True) as client:
        kept = client.read_flow_run(state.state_details.flow_run_id)
        ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[kept.id]))
        artifacts = {one.key: one for one in client.read_artifacts(artifact_filter=ours)}
    assert kept.name == f"query {picture}"
    assert kept.state.data.serializer.type == "json"
    stored = Path(os.environ["PREFECT_HOME"]) / "storage" / kept.state.data.storage_key
    assert kept.state.result() == json.loads(json.dumps(answer))
    assert best["face_id"] in json.dumps(json.loads(stored.read_bytes()))
    rows = json.loads(artifacts["matches"].data)
    assert [row["face_id"] for row in rows] == [match["face_id"] for match in answer["faces"][0]["matches"]]
    assert rows[0] | {"photo": str(picture), "same person": "", "in words": "uncalibrated"} == rows[0]
    assert artifacts["contact-sheet"].data.count("](data:image/jpeg;base64,") == 4


def test_query_flow_asks_with_a_known_face_or_a_folder_and_filters(prefect_api, drawn_people, untrained, tmp_path):
    from flows.query import query
    from store.errors import QueryError

    store, _ = untrained
    pictures = sorted(drawn_people.rglob("*.jpg"))
    label = pictures[-1].parent.name
    (tmp_path / "asked").mkdir()
    shutil.copy(pictures[0], tmp_path / "asked" / "a.jpg")
    (tmp_path / "asked" / "b.jpg").write_bytes(b"no photo")
    answer = query(image=str(tmp_path / "asked"), store=store, k=2, labels=[label], pictures=False)
    (one,), (refused,) = answer["answers"], answer["refused"]
    matches = one["faces"][0]["matches"]
    assert [match["label"] for match in matches] == [label, label]
    assert refused["image"].endswith("b.jpg")

    known = query(face_id=matches[0]["face_id"], store=store, k=1, taken_to="2999-01-01", pictures=False)
    assert known["face_id"] == known["faces"][0]["matches"][0]["face_id"] == matches[0]["face_id"]
    with pytest.raises(QueryError, match="give either image or face_id"):
        query(store=store)


def test_the_query_form_names_bounds_and_explains_every_parameter():
    from flows.query import query

    fields = query.parameters.model_dump_for_openapi()["properties"]
    assert all(len(field["description"]) > 10 for field in fields.values())
    assert fields["k"] | {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10} == fields["k"]
    assert {"type": "string", "format": "date"} in fields["taken_from"]["anyOf"]
    assert {"type": "array", "items": {"type": "string"}} in fields["labels"]["anyOf"]


def test_train_flow_stores_an_encoder_and_publishes_nothing(prefect_api, drawn_people, tmp_path):
    from flows.train_encoder import train_encoder
    from models.training import TrainingSettings
    from store.encoders import stored_encoders
    from store.layout import open_store
    from store.versions import published_numbers
    from tasks.steps.train_encoder import NetworkSettings

    store = str(tmp_path / "store")
    trained = train_encoder(
        source=str(drawn_people),
        store=store,
        network=NetworkSettings(width=0.25, dimension=32),
        settings=TrainingSettings(epochs=1, batches_per_epoch=1, batch_people=2, batch_photos=2),
        shard_photos=6,
    )
    storage = open_store(store)
    assert stored_encoders(storage) == [trained.encoder]
    assert published_numbers(storage) == []
    assert not (Path(store) / "embeddings").exists()

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        key = ArtifactFilterKey(any_=["trained-encoder"])
        (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=key))
    assert f"# Encoder `{trained.encoder}`" in artifact.data
    assert "data:image/png;base64," in artifact.data


def test_build_killed_half_way_goes_on_where_it_was(prefect_server, drawn_people, tmp_path):
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = tmp_path / "store"
    encoder = new_encoder(str(store), settings=NetworkSettings(width=0.25, dimension=32))
    command = [str(Path(sys.executable).parent / "lookalike"), "build", str(drawn_people), "--store", str(store)]
    command += ["--encoder", encoder, "--shard-photos", "2", "--workers", "1", "--json"]
    env = os.environ | {"PREFECT_API_URL": prefect_server}

    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as build:
        _wait_for(lambda: len(_committed(store)) >= 2, seconds=120)
        children = _children_of(build.pid)
        build.send_signal(signal.SIGKILL)
    assert children
    _wait_for(lambda: not any(_is_alive(child) for child in children), seconds=30)
    finished = {path: path.stat().st_ino for path in _committed(store)}
    assert not (store / "versions" / "CURRENT").exists()
    assert len(finished) >= 2

    rerun = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    result = json.loads(rerun.stdout.splitlines()[-1])
    assert result["published"]
    assert result["version"] == 1
    assert result["shards"]["finished"] == len(finished)
    assert result["shards"]["computed"] >= 1
    assert {path: path.stat().st_ino for path in finished} == finished

    whole = tmp_path / "whole"
    new_encoder(str(whole), settings=NetworkSettings(width=0.25, dimension=32))
    command[command.index(str(store))] = str(whole)
    straight = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert json.loads(straight.stdout.splitlines()[-1])["content_sha256"] == result["content_sha256"]


def _committed(store: Path) -> list[Path]:
    return sorted((store / "photos").rglob("*.parquet"))


def _children_of(pid: int) -> list[Path]:
    """The processes whose parent is `pid`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                    found.append(folder)
    return found


def _is_alive(folder: Path) -> bool:
    """Whether the process still runs; one that nobody has buried yet does not."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(condition, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not happen")
        time.sleep(0.05)
