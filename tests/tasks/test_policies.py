from dataclasses import replace

import pytest
from prefect import flow, task

from store.errors import ArtifactError
from store.refs import ArtifactRef
from tasks import policies
from tasks.code_faces import code_faces
from tasks.find_faces import find_faces
from tasks.steps import find_faces as step
from tasks.steps.children import ChildDiedError
from tasks.steps.code_faces import CODE_FACES_VERSION, Coder
from tasks.steps.contract import Contract


class Throttled(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}


@pytest.mark.parametrize(
    "error",
    [
        ChildDiedError("died"),
        TimeoutError(),
        ConnectionResetError(),
        Throttled(503, "SlowDown"),
        Throttled(400, "Throttling"),
    ],
)
def test_what_can_heal_is_tried_again(error):
    assert policies.can_heal(error)


@pytest.mark.parametrize(
    "error", [ArtifactError("bad schema"), ValueError("bad"), PermissionError(), Throttled(403, "AccessDenied")]
)
def test_what_cannot_heal_is_not_tried_again(error):
    assert not policies.can_heal(error)


def key_of(**changes):
    parameters = {
        "request": ArtifactRef(
            uri="/s/runs/requests/0123456789abcdef0123456789abcdef.parquet", sha256="0" * 64, rows=3
        ),
        "store": "/s",
        "contract": Contract(),
    }
    return find_faces.cache_key_fn(None, parameters | changes)


def test_the_cache_key_of_a_shard_follows_its_name_its_store_its_contract_and_the_step_s_version(monkeypatch):
    from models.detection import DetectionSettings
    from models.mtcnn.cascade import CascadeSettings

    other = ArtifactRef(uri="/s/runs/requests/ffffffffffffffffffffffffffffffff.parquet", sha256="0" * 64, rows=3)
    keys = [
        key_of(),
        key_of(request=other),
        key_of(store="/t"),
        key_of(contract=Contract(detection=DetectionSettings(cascade=CascadeSettings(min_face_px=40)))),
    ]
    monkeypatch.setattr(policies, "FIND_FACES_VERSION", step.FIND_FACES_VERSION + 1)
    keys.append(key_of())
    assert len(set(keys)) == 5


def test_the_cache_key_of_a_block_follows_what_it_is_coded_with_its_faces_and_the_step_s_version(monkeypatch):
    block, other = (ArtifactRef(uri="/s/runs/coding/a/b.parquet", sha256=one * 64, rows=3) for one in "01")
    coder = Coder("runs/coding/a", trained=block, asked=block, encoder="e" * 32, dimension=8)

    def key(**changes):
        return code_faces.cache_key_fn(None, {"block": block, "store": "/s", "coder": coder} | changes)

    keys = [
        key(),
        key(block=other),
        key(store="/t"),
        key(coder=replace(coder, trained=other)),
        key(coder=replace(coder, asked=other)),
    ]
    assert key(coder=replace(coder, folder="runs/coding/c")) == key()
    monkeypatch.setattr(policies, "CODE_FACES_VERSION", CODE_FACES_VERSION + 1)
    keys.append(key())
    assert len(set(keys)) == 6


@pytest.mark.flow
def test_a_task_whose_child_died_runs_again_and_a_bad_schema_does_not(prefect_api):
    calls = []

    @task(**{**policies.ONCE, "retry_delay_seconds": 0})
    def work(error: Exception, times: int) -> int:
        calls.append(error)
        if len(calls) <= times:
            raise error
        return len(calls)

    @flow
    def run(error: Exception, times: int) -> int:
        return work(error, times)

    assert run(ChildDiedError("killed"), 2) == 3
    calls.clear()
    with pytest.raises(ArtifactError, match="columns"):
        run(ArtifactError("columns of another type"), 1)
    assert len(calls) == 1
