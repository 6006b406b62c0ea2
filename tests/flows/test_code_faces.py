"""A build of more faces than are held at once, on a real Prefect server: their coding is mapped, tried again and remembered."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.flow


@pytest.fixture
def few_are_many(monkeypatch):
    """Two dozen faces are more than are held, enough for codes, and four blocks."""
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 16)
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", 100)
    monkeypatch.setattr("tasks.steps.stored_faces.BLOCK", 5)
    monkeypatch.setattr("tasks.steps.plan_coding._FACES", 5)


@pytest.fixture
def store(tmp_path):
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    new_encoder(str(tmp_path / "store"), settings=NetworkSettings(width=0.25, dimension=32))
    return str(tmp_path / "store")


def coding_runs(client, run, *, faces):
    """The task runs of a flow run that coded blocks of so many faces, once the server has heard of the end of all: it is told by events."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterName

    wanted = {
        "flow_run_filter": FlowRunFilter(id=FlowRunFilterId(any_=[run])),
        "task_run_filter": TaskRunFilter(name=TaskRunFilterName(like_="code-faces")),
    }
    until = time.monotonic() + 30
    while True:
        runs = client.read_task_runs(**wanted)
        coded = sum(
            int(one.name.split("-")[2]) for one in runs if one.state and one.state.is_final()
        )  # code-faces-5-faces
        if coded == faces:
            return runs
        assert time.monotonic() < until, f"the server heard of {coded} of {faces} faces"
        time.sleep(0.1)


def test_a_build_of_many_faces_codes_them_in_mapped_runs_and_publishes(prefect_api, drawn_people, store, few_are_many):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    from flows.build_index import build_index
    from store.layout import open_store
    from tasks.steps.verify_store import verify_store

    (encoder,) = open_store(store).names("encoders")
    state = build_index(
        source=str(drawn_people),
        store=store,
        encoder=encoder,
        shard_photos=3,
        workers=2,
        memory="2.5K",
        return_state=True,
    )
    summary = state.result()
    assert summary["published"]
    assert summary["index"]["key"] != "Flat"
    assert verify_store(store).problems == []
    with get_client(sync_client=True) as client:
        run = state.state_details.flow_run_id
        coded = coding_runs(client, run, faces=summary["faces"])
        ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        artifacts = {one.key: one for one in client.read_artifacts(artifact_filter=ours)}
    assert len(coded) >= 2
    assert {one.state_name for one in coded} == {"Completed"}
    assert float(artifacts["code-progress"].data) == 100
    storage = open_store(store)
    assert storage.names("runs/coding") == storage.names("runs/builds") == []
    assert any(name.startswith("code-faces-") for name in storage.names("runs/results"))


def test_a_block_whose_child_is_killed_is_coded_again_and_a_run_started_again_remembers_all(
    prefect_api, drawn_people, store, few_are_many
):
    from prefect import flow, unmapped
    from prefect.client.orchestration import get_client

    from store.index_choice import AskedBudget
    from store.layout import open_store
    from tasks import policies
    from tasks.code_faces import code_faces
    from tasks.steps.children import children
    from tasks.steps.contract import Contract
    from tasks.steps.embed_faces import embed_faces
    from tasks.steps.find_faces import find_faces
    from tasks.steps.list_photos import list_photos
    from tasks.steps.plan_build import plan_build, with_budget
    from tasks.steps.resolve_encoder import resolve_encoder
    from tasks.steps.write_index import begin_index, finish_index

    contract, encoder = Contract(), resolve_encoder(open_store(store).names("encoders")[0], store=store)
    listed = list_photos(str(drawn_people), store=store)
    plan = plan_build(listed, store=store, contract=contract, encoder=encoder.id, shard_photos=3)
    plan = with_budget(plan, AskedBudget(memory_bytes=2_560))
    for request in plan.requests:
        embed_faces(
            find_faces(request, store=store, contract=contract), store=store, contract=contract.id, encoder=encoder
        )

    @flow(task_runner=policies.threads(2))
    def code(blocks, coder, *, refresh):
        with children(1), killed_while_it_reads(stalled) if refresh else contextlib.nullcontext():
            task = policies.stored_in(code_faces, store, refresh=refresh)
            return [one.result() for one in task.map(list(blocks), store=unmapped(store), coder=unmapped(coder))]

    begun = begin_index(plan, store=store, contract=contract, encoder=encoder)
    stalled = sorted(Path(store, "embeddings", encoder.id).iterdir())[0]
    first = code(begun.requests, begun.coder, refresh=True, return_state=True)
    begun = begin_index(plan, store=store, contract=contract, encoder=encoder)
    assert begun.requests == ()
    faces = sum(block.rows for block in begun.finished)
    second = code(begun.finished, begun.coder, refresh=False, return_state=True)
    with get_client(sync_client=True) as client:
        ran, remembered = (coding_runs(client, one.state_details.flow_run_id, faces=faces) for one in (first, second))
    assert len(ran) == len(remembered) >= 2
    assert sorted(one.run_count for one in ran)[-1] >= 2
    assert {one.state_name for one in ran} == {"Completed"}
    assert {one.state_name for one in remembered} == {"Cached"}
    draft = finish_index(begun, second.result(), plan, store=store, contract=contract, encoder=encoder)
    assert draft.rows == faces


@contextlib.contextmanager
def killed_while_it_reads(file):
    """Kill the first process that reads a file in this block: it finds a pipe there, and waits."""
    aside, ended = file.with_suffix(".aside"), threading.Event()
    file.rename(aside)
    os.mkfifo(file)

    def watch():
        while not ended.wait(0.02):
            with contextlib.suppress(OSError):  # ENXIO: nobody reads
                end = os.open(file, os.O_WRONLY | os.O_NONBLOCK)  # held until the kill: closed, the file would be empty
                try:
                    aside.replace(file)
                    for pid in children_of_this_process():
                        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                            os.kill(pid, signal.SIGKILL)
                finally:
                    os.close(end)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def children_of_this_process():
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
