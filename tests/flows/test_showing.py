"""What an operator finds in Prefect after a build, asked of a real server."""

import json
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def built(prefect_server, drawn_people, tmp_path_factory):
    """A store, the summary of a build with one photo that cannot be read, and its flow run."""
    from prefect import settings
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    from flows.build_index import build_index
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    folder = tmp_path_factory.mktemp("showing")
    source = folder / "a photo [1]"
    source.mkdir()
    for n, picture in enumerate(sorted(drawn_people.rglob("*.jpg"))[:6]):
        (source / f"{n}.jpg").write_bytes(picture.read_bytes())
    (source / "broken.jpg").write_bytes(b"no photo")
    store = str(folder / "store")
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    changes = {settings.PREFECT_API_URL: prefect_server, settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with settings.temporary_settings(changes):
        before = time.time()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOOKALIKE_METRICS", str(folder / "metrics"))
            summary = build_index(source=str(source), store=store, encoder=encoder, shard_photos=3, workers=1)
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name={"like_": str(source)}))
            (run,) = [run for run in runs if run.start_time.timestamp() >= before]
            yield {"store": store, "source": source, "summary": summary, "run": run, "client": client, "folder": folder}


def artifacts(built):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[built["run"].id]))
    return {one.key: one for one in built["client"].read_artifacts(artifact_filter=wanted)}


def test_a_build_is_named_after_what_its_plan_found(built):
    assert built["run"].name == f"build {built['source']} +7 photos"


def test_a_build_leaves_a_table_an_index_card_and_a_link_to_its_report(built):
    found = artifacts(built)
    table = found["build"].data
    rows = {(row["about"], row["what"]): row["value"] for row in json.loads(table)}
    assert rows["photos", "indexed"] == "6"
    assert rows["photos", "seen"] == "7"
    assert rows["new photos", "rejected"] == "1"
    assert any(about == "rejects" and "unreadable" in what for about, what in rows)
    assert float(rows["seconds", "total"]) >= float(rows["seconds", "align"]) > 0
    assert float(rows["speed", "new photos a second"]) > 0
    assert f"{built['summary']['index']['bytes']:,}" in found["index"].data
    assert "Flat" in found["index"].data
    assert "exact search: 6 faces of 32 dimensions are compared" in found["index"].data
    assert "passed: recall@10 of at least 0.95" in found["index"].data
    assert "4 GiB, 20 ms a query, recall@10 of 0.95" in found["index"].data
    assert f"file://{built['store']}/versions/000001/report.html" in found["report"].data


def test_progress_of_mapped_stages_ends_at_a_hundred(built):
    found = artifacts(built)
    for stage in ("align", "embed"):
        assert float(found[f"{stage}-progress"].data) == 100
        assert "of" in found[f"{stage}-progress"].description


def test_each_stage_leaves_one_line_with_its_counts_and_seconds(built):
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[built["run"].id]))
    stages = ("list", "plan", "align", "embed", "index", "check", "publish")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:  # sent by a thread
        lines = [log.message for log in built["client"].read_logs(log_filter=wanted, limit=200)]
        told = {stage: [line for line in lines if line.startswith(f"{stage}: ")] for stage in stages}
        if all(told.values()):
            break
        time.sleep(0.5)
    assert {stage: len(found) for stage, found in told.items()} == dict.fromkeys(stages, 1)
    assert told["align"][0].startswith("align: 7 photos, ")
    assert told["index"][0].startswith("index: 6 faces in ")


def events(built, name: str, *, wanted: int):
    """The events of one name that the server has, when there are so many."""
    body = {"filter": {"event": {"name": [name]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = built["client"]._client.post("/events/filter", json=body).json()["events"]
        found = [event for event in answer if built["store"] in str(event)]
        if len(found) >= wanted:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{len(found)} events {name}, wanted {wanted}")


def test_crops_encoder_embeddings_and_version_are_assets_that_name_what_they_are_made_from(built):
    found = events(built, "prefect.asset.materialization.succeeded", wanted=4)
    payloads = {event["resource"]["prefect.resource.id"].rsplit("/", 2)[-2]: event for event in found}
    assert set(payloads) == {"faces", "encoders", "embeddings", "versions"}
    version = payloads["versions"]
    assert version["payload"] == {"version": 1, "parent": None, "faces": 6, "photos": 7}
    related = [one["prefect.resource.id"] for one in version["related"] if "versions" not in one["prefect.resource.id"]]
    assert any("/embeddings/" in one for one in related)
    assert any("/faces/" in one for one in related)


def test_rejects_above_five_per_cent_of_new_photos_become_an_event(built):
    (event,) = events(built, "lookalike.rejects.high", wanted=1)
    assert event["payload"] == {"store": built["store"], "photos": 7, "rejected": 1}
    assert event["resource"]["prefect.resource.name"] == built["store"]


def test_figures_are_left_for_prometheus_and_a_failure_has_its_own_file(built, tmp_path, monkeypatch):
    from prometheus_client.parser import text_string_to_metric_families

    from tasks.steps.build_metrics import metrics_of_build

    (file,) = (built["folder"] / "metrics").iterdir()
    samples = {
        (sample.name, *sorted(set(sample.labels.values()) - {built["store"]})): sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }
    assert samples["lookalike_photos", "indexed"] == 6
    assert samples["lookalike_build_rejected_photos",] == 1
    assert samples["lookalike_build_stage_seconds", "align"] > 0
    assert abs(samples["lookalike_build_last_success_timestamp_seconds",] - time.time()) < 600
    monkeypatch.setenv("LOOKALIKE_METRICS", str(tmp_path))
    with pytest.raises(OSError, match="full"), metrics_of_build(built["store"]):
        raise OSError("full")
    (failed,) = tmp_path.glob("lookalike_failure_*.prom")
    assert f'lookalike_build_last_failure_timestamp_seconds{{store="{built["store"]}"}}' in failed.read_text()
    assert Path(built["store"]).name in failed.name


def test_a_gate_that_refuses_an_index_becomes_an_event_and_the_old_version_stays(built, prefect_server):
    from prefect import settings

    from flows.build_index import build_index
    from store.errors import GateRefusedError
    from store.layout import open_store
    from store.versions import current_number

    changes = {settings.PREFECT_API_URL: prefect_server, settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with settings.temporary_settings(changes), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.steps.prove_index.RECALL_GATE", 1.01)  # more than any index reaches
        with pytest.raises(
            GateRefusedError, match=r"the gate refused the version: recall@10 is 1.000, wanted at least 1.01"
        ):
            build_index(source=str(built["source"]), store=built["store"], workers=1, latency_ms=7)
    (event,) = events(built, "lookalike.gate.refused", wanted=1)
    assert event["payload"]["recall_at_10"] == "1.000"
    assert event["payload"]["index"] == "Flat"
    assert "the old version stays" in event["payload"]["why"]
    assert event["resource"]["prefect.resource.name"] == built["store"]
    assert current_number(open_store(built["store"])) == 1
