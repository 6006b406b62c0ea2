"""A planted secret is searched for everywhere after a build from S3 to S3 with everything logged."""

import io
import logging
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.faults.s3_endpoint import S3Endpoint
from store.errors import RefusedError
from store.layout import open_store
from store.sources import list_source
from store.storage import Storage
from tests.conftest import reached_through

SECRET, TOKEN = "canary-secret-7f3a9c", "canary-token-51be02"


def give_by_environment(patch: pytest.MonkeyPatch, folder: Path) -> None:
    del folder
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_SESSION_TOKEN", TOKEN)


def give_by_profile(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.delenv("AWS_ACCESS_KEY_ID")
    patch.delenv("AWS_SECRET_ACCESS_KEY")
    text = f"[photos]\naws_access_key_id = test\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n"
    (folder / "credentials").write_text(text)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    patch.setenv("AWS_PROFILE", "photos")


def holds(data: bytes) -> bool:
    return any(secret.encode() in data for secret in (SECRET, TOKEN))


def unpacked(data: bytes) -> bytes:
    """A file's text and, of Parquet, its columns' too."""
    if data[:4] != b"PAR1":
        return data
    return data + repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()


def searched(endpoint: S3Endpoint) -> dict[str, bytes]:
    """Every object, and every address that was asked for."""
    objects = {key: kept[-1].data for key, kept in endpoint.objects.bucket("faces").objects.items()}
    return objects | {"addresses": repr(endpoint.answered).encode()}


@pytest.fixture
def every_log(tmp_path):
    """A file of all that is logged; Prefect takes the root's handlers away, so each library's logger has this one."""
    handler = logging.FileHandler(tmp_path / "log.txt")
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("prefect", "s3fs", "fsspec", "botocore", "aiobotocore", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        if "botocore" not in logger.name:
            logger.setLevel(logging.DEBUG)
    yield tmp_path / "log.txt"
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)
    handler.close()


def prefect_files(folder):
    """What Prefect's server keeps, journals too; it writes down what a run did some seconds late."""
    for _ in range(60):
        kept = {str(path): path.read_bytes() for path in folder.glob("server*/**/*") if path.is_file()}
        if any(".db" in name and b"find-faces" in data for name, data in kept.items()):
            break
        time.sleep(0.5)
    return kept


@pytest.mark.flow
def test_no_credential_is_in_the_store_in_prefect_or_in_any_log(
    prefect_api, tmp_path, tmp_path_factory, monkeypatch, drawn_people, every_log, capfd
):
    from flows.build_index import build_index
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    monkeypatch.setenv("S3FS_LOGGING_LEVEL", "DEBUG")  # in children too
    monkeypatch.setenv("PREFECT_LOGGING_ROOT_LEVEL", "DEBUG")
    with S3Endpoint() as endpoint, reached_through(endpoint.url):
        give_by_environment(monkeypatch, tmp_path)
        for picture in sorted(drawn_people.rglob("*.jpg"))[:2]:
            Storage("s3://faces").upload(f"in/{picture.name}", picture)
        encoder = new_encoder("s3://faces/store", settings=NetworkSettings(width=0.25, dimension=32))
        result = build_index(source="s3://faces/in", store="s3://faces/store", encoder=encoder, workers=1)
        assert result["published"]
    everything = searched(endpoint)
    assert "store/versions/CURRENT" in everything
    assert any("/runs/results/" in key for key in everything)
    kept = prefect_files(tmp_path_factory.getbasetemp())
    assert any(".db" in name and b"find-faces" in data for name, data in kept.items()), "its database"
    everything |= kept
    out, err = capfd.readouterr()
    everything |= {"stdout": out.encode(), "stderr": err.encode(), "log": every_log.read_bytes()}
    assert b"CALL" in everything["stderr"] or b"DEBUG s3fs" in everything["log"]
    assert [name for name, data in everything.items() if holds(unpacked(data))] == []


@pytest.mark.parametrize("give", [give_by_environment, give_by_profile])
def test_no_credential_is_in_what_is_written_logged_or_refused(give, monkeypatch, tmp_path, caplog):
    with S3Endpoint(access_key="test") as endpoint, reached_through(endpoint.url), caplog.at_level(logging.DEBUG):
        give(monkeypatch, tmp_path)
        open_store("s3://faces/store", create=True).write("runs/x.jpg", b"1")
        assert list_source("s3://faces/store", suffixes=frozenset({".jpg"})).photos
        endpoint.access_key = "another"
        with pytest.raises(RefusedError) as refused:
            open_store("s3://faces/store")
    everything = searched(endpoint) | {"log": caplog.text.encode(), "refusal": repr(refused.value).encode()}
    assert "DEBUG" in caplog.text
    assert [name for name, data in everything.items() if holds(data)] == []


def test_without_the_level_of_its_libraries_a_token_is_logged(monkeypatch, tmp_path, caplog):
    """The twin: botocore writes the headers that it signs, a session's token among them, at debug level."""
    with S3Endpoint() as endpoint, reached_through(endpoint.url), caplog.at_level(logging.DEBUG):
        give_by_environment(monkeypatch, tmp_path)
        Storage("s3://faces/a").write("x", b"1")
        assert not holds(caplog.text.encode())
        with caplog.at_level(logging.DEBUG, logger="botocore"), caplog.at_level(logging.DEBUG, logger="aiobotocore"):
            Storage("s3://faces/a").write("x", b"2")
        assert holds(caplog.text.encode())
