import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.notification_server import PATH, listening_at, notification_app, parse_address
from app.watching import folder_of, ringing_for, watch_until_stopped
from store.errors import LookalikeError

SENT = Path(__file__).resolve().parents[1] / "data" / "notifications"
BIN = Path(sys.executable).parent


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[threading.Event]:
    """Rung by photos/, with the store inside it."""
    (tmp_path / "photos" / "store").mkdir(parents=True)
    rung = threading.Event()
    with ringing_for([tmp_path / "photos"], rung, store=tmp_path / "photos" / "store", polling=False):
        time.sleep(0.5)  # until the system watches
        yield rung


def test_a_recorded_notification_is_received_and_nothing_else_is(port: int) -> None:
    told: list[list[str]] = []
    with listening_at("127.0.0.1", port, notification_app(told.append, token=None)):
        url = f"http://127.0.0.1:{port}{PATH}"
        assert httpx.post(url, content=(SENT / "ceph-put.json").read_bytes()).json() == {"objects": 1}
        refused = httpx.post(url, content=b"<xml>")
        assert (refused.status_code, refused.json()["error"][:33]) == (400, "this is no bucket notification (J")
        assert httpx.post(url, content=b" " * 2**21).status_code == 413
        assert httpx.get(url).status_code == 405
        assert httpx.get(f"http://127.0.0.1:{port}/docs").status_code == 404
    assert told == [["s3://archive/2026/red flower+ä &%41.jpg"]]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer guess", 401),
        ("Basic !", 401),
        ("Bearer s3cret", 200),
        ("Basic " + base64.b64encode(b"anybody:s3cret").decode(), 200),
        ("Basic " + base64.b64encode(b"s3cret:guess").decode(), 401),
        ("Bearer \xe4".encode("latin-1"), 401),
    ],
)
def test_without_the_token_nobody_is_listened_to(port: int, header: str | None, status: int) -> None:
    told: list[list[str]] = []
    with listening_at("127.0.0.1", port, notification_app(told.append, token="s3cret")):
        headers = {} if header is None else {"Authorization": header}
        answer = httpx.post(f"http://127.0.0.1:{port}{PATH}", content=(SENT / "aws.json").read_bytes(), headers=headers)
    assert answer.status_code == status
    assert len(told) == (status == 200)


def test_an_address_that_others_reach_needs_a_token() -> None:
    assert parse_address("127.0.0.1:8088", token=None) == ("127.0.0.1", 8088)
    assert parse_address("[::1]:8088", token=None) == ("::1", 8088)
    assert parse_address("0.0.0.0:80", token="t") == ("0.0.0.0", 80)
    with pytest.raises(LookalikeError, match="set LOOKALIKE_WATCH_TOKEN"):
        parse_address("0.0.0.0:80", token=None)
    for wrong in ("8088", "localhost", "localhost:0", "localhost:70000", ":80"):
        with pytest.raises(LookalikeError, match="wanted HOST:PORT"):
            parse_address(wrong, token=None)


def test_a_port_in_use_is_said(port: int) -> None:
    app = notification_app(lambda uris: None, token=None)
    with (
        listening_at("127.0.0.1", port, app),
        pytest.raises(LookalikeError, match="is it in use"),
        listening_at("127.0.0.1", port, app),
    ):
        pass


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.jpg").write_bytes(b"1"),
        lambda folder: (folder / "deep" / "er").mkdir(parents=True),
        lambda folder: (folder / "old.jpg").unlink(),
        lambda folder: (folder.parent / "elsewhere").rename(folder / "moved"),
    ],
    ids=["a file comes", "a folder comes", "a file goes", "a folder full of files is moved in"],
)
def test_whatever_happens_in_the_folder_rings(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "old.jpg").write_bytes(b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(b"1")
    bell = threading.Event()
    with ringing_for([folder], bell, store=None, polling=False):
        time.sleep(0.5)
        assert not bell.is_set()
        change(folder)
        assert bell.wait(10)


def test_the_store_and_hidden_files_ring_nothing(tmp_path: Path, bell: threading.Event) -> None:
    (tmp_path / "photos" / "store" / "index").write_bytes(b"1")
    (tmp_path / "photos" / ".half.jpg").write_bytes(b"1")
    assert not bell.wait(1.5)
    (tmp_path / "photos" / "whole.jpg").write_bytes(b"1")
    assert bell.wait(10)


def test_another_folder_in_its_place_is_watched_instead(
    tmp_path: Path, bell: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.watching._AGAIN_S", 0.1)
    (tmp_path / "photos").rename(tmp_path / "away")
    assert bell.wait(10)
    (tmp_path / "photos").mkdir()
    time.sleep(3)
    bell.clear()
    (tmp_path / "photos" / "new.jpg").write_bytes(b"1")
    assert bell.wait(10)


def test_a_source_s_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert folder_of(str(tmp_path / "photos")) == tmp_path / "photos"
    assert folder_of(str(tmp_path / "photos" / "2*" / "x.jpg")) == tmp_path / "photos"
    assert folder_of(str(tmp_path / "list.csv")) == tmp_path
    assert folder_of("s3://archive/2026") is None


def test_the_watcher_looks_at_once_on_the_bell_by_the_clock_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    bell, stopped, looks = threading.Event(), threading.Event(), []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 1:
            bell.set()  # while it looks: looked at again
        if len(looks) == 3:
            stopped.set()
            bell.set()

    started = time.monotonic()
    watch_until_stopped(look, bell=bell, stopped=stopped, every_s=0.3)
    assert len(looks) == 3
    assert looks[1] - started < 0.25
    assert looks[2] - looks[1] >= 0.3


def test_without_a_server_there_is_nobody_to_build(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    command = [str(BIN / "lookalike"), "watch", "photos", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "set PREFECT_API_URL" in json.loads(done.stdout.splitlines()[-1])["error"]
