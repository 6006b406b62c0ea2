"""`lookalike serve` as a user starts it: a process of its own, told to stop while it answers; two workers at one address."""

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.service.running import listen


@contextlib.contextmanager
def command(store: str, tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The command, ready, and the address it says; what it writes goes to a file, so that no full pipe holds it up."""
    said, env = tmp_path / "said", os.environ | {"TMPDIR": str(tmp_path)}
    started = [sys.executable, "-m", "app.cli", "serve", "--store", store, "--port", "0", "--audit"]
    with (
        said.open("wb") as out,
        subprocess.Popen([*started, str(tmp_path / "audit"), *arguments], stderr=out, env=env) as process,
    ):
        try:
            yield process, ready(process, said)
        finally:
            if process.poll() is None:
                process.kill()


def ready(process: subprocess.Popen[bytes], said: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, said.read_text()
        if found := re.findall(r"at (http://127\.0\.0\.1:\d+)/ ", said.read_text()):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{found[0]}/readyz").status_code == 200:
                    return str(found[0])
        time.sleep(0.05)
    raise AssertionError(said.read_text())


def ask(url: str, photo: bytes) -> httpx.Response:
    return httpx.post(f"{url}/api/search", files={"photo": photo}, timeout=60)


def enlarged(file: Path) -> bytes:
    """A photo that takes a while to answer."""
    sink = io.BytesIO()
    with Image.open(file) as photo:
        photo.convert("RGB").resize((3000, 3000)).save(sink, "JPEG")
    return sink.getvalue()


def inside(url: str) -> int:
    found = re.search(r"^lookalike_queries_inside (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def test_a_service_that_is_told_to_stop_answers_what_it_has_begun(own_gallery: Any, tmp_path: Path) -> None:
    answers: list[int] = []
    photo = enlarged(own_gallery.files()[0])
    with command(own_gallery.store, tmp_path) as (process, url):
        threads = [threading.Thread(target=lambda: answers.append(ask(url, photo).status_code)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while inside(url) + len(answers) < 6:
            time.sleep(0.02)
        assert len(answers) < 6, "all were answered before anybody looked: ask with a larger photo"
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(60) == 0
    assert answers == [200] * 6
    assert len((tmp_path / "audit").read_text().splitlines()) == 6
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def children(pid: int) -> list[int]:
    """The workers; Python's resource tracker is a child too."""
    found = (int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def lives(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_two_workers_answer_at_one_address_count_together_and_one_that_dies_is_replaced(
    own_gallery: Any, tmp_path: Path
) -> None:
    photo = own_gallery.files()[1].read_bytes()
    with command(own_gallery.store, tmp_path, "--workers", "2") as (process, url):
        first = children(process.pid)
        assert len(first) == 2
        answers = [ask(url, photo).status_code for _ in range(6)]
        assert set(answers) <= {200, 404}  # 404: the slower of the two has no version open yet
        counted = re.findall(r"lookalike_queries_total\{.*\} (\S+)", httpx.get(f"{url}/metrics").text)
        assert sum(map(float, counted)) == 6
        os.kill(first[0], signal.SIGKILL)
        deadline = time.monotonic() + 25  # sooner than a worker that is merely silent
        while len(now := children(process.pid)) < 2 or now == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert first[1] in now
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not list(tmp_path.glob("lookalike-counts-*"))
    assert not [pid for pid in {*first, *now} if lives(pid)]


def test_workers_stop_by_themselves_when_the_process_that_started_them_is_killed(
    own_gallery: Any, tmp_path: Path
) -> None:
    with command(own_gallery.store, tmp_path, "--workers", "2") as (process, _):
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
    deadline = time.monotonic() + 30
    while any(lives(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_small_packets_are_sent_at_once() -> None:
    """Otherwise every answer would wait 40 ms for a receipt of its headers."""

    async def of_an_accepted_connection() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                accepted = writer.get_extra_info("socket")
                found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(answer, sock=listener):
                with socket.create_connection(listener.getsockname()):
                    return await found

    assert asyncio.run(of_an_accepted_connection()) == 1
