import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest


@contextlib.contextmanager
def command(gallery: Any, tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`lookalike serve` as a user starts it, ready."""
    env = os.environ | {"TMPDIR": str(tmp_path)}
    started = [sys.executable, "-m", "app.cli", "serve", "--store", gallery.store, "--port", "0", *arguments]
    with subprocess.Popen(started, stderr=subprocess.PIPE, env=env, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            url = re.findall(r"at (http://127\.0\.0\.1:\d+)/ ", said)[0]
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/readyz").status_code == 200:
                        break
                time.sleep(0.2)
            yield process, url
        finally:
            if process.poll() is None:
                process.kill()


def test_a_service_that_is_told_to_stop_answers_what_it_has_begun(gallery: Any, tmp_path: Path) -> None:
    answers: list[httpx.Response] = []
    with command(gallery, tmp_path, "--audit", str(tmp_path / "audit")) as (process, url):
        photo = gallery.files()[0].read_bytes()

        def ask() -> None:
            answers.append(httpx.post(f"{url}/api/search", files={"photo": photo}, timeout=60))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        counted = ""
        while "lookalike_queries_inside 0.0" in (counted := httpx.get(f"{url}/metrics").text) and not answers:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(60) == 0
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len((tmp_path / "audit").read_text().splitlines()) == 4
    assert "lookalike_queries" in counted
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_several_processes_answer_at_one_address_and_count_together(gallery: Any, tmp_path: Path) -> None:
    photo = gallery.files()[1].read_bytes()
    with command(gallery, tmp_path, "--workers", "2", "--audit", str(tmp_path / "audit")) as (process, url):
        for _ in range(6):
            assert httpx.post(f"{url}/api/search", files={"photo": photo}, timeout=60).status_code in {200, 404}
        text = httpx.get(f"{url}/metrics").text
        counted = sum(float(n) for n in re.findall(r"lookalike_queries_total\{.*\} (\S+)", text))
        assert counted == 6
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not list(tmp_path.glob("lookalike-counts-*"))
