import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.service import hurried
from app.service.settings import ServiceSettings

_MIB = 2**20
FORM = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'


@pytest.fixture(scope="module")
def small(gallery: Any, serving: Any) -> Iterator[Any]:
    """A service with little room: 2 MiB a request, 8 in all, a second to send it in, three places."""
    settings = ServiceSettings(
        store=gallery.store,
        audit=os.devnull,
        max_body_bytes=2 * _MIB,
        held_bytes=8 * _MIB,
        body_seconds=1.0,
        slots=1,
        waiting=2,
    )
    with serving(settings) as running:
        yield running


def connection(service: Any) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    sock.settimeout(30)
    return sock


def head(service: Any, length: str | None, *, kind: bytes = b"multipart/form-data; boundary=b") -> bytes:
    size = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: " + length.encode()
    return (
        b"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: %s\r\n%s\r\n\r\n"
        % (service.port, kind, size)
    )  # fmt: skip


def answer_of(sock: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            got += part
            if b"\r\n\r\n" in got:
                break
    return got


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(small: Any) -> None:
    for length in (str(2 * _MIB + 1), "9" * 18):
        with connection(small) as sock:
            sock.sendall(head(small, length))
            assert answer_of(sock).startswith(b"HTTP/1.1 413 ")


def test_an_endless_body_is_cut_off_at_the_limit_and_memory_stays_flat(small: Any) -> None:
    before, sent = resident_bytes(), 0
    for _ in range(5):
        with connection(small) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(head(small, None) + b"%x\r\n%s\r\n" % (len(FORM), FORM))
            piece = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
            while sent < 10**9:
                sock.sendall(piece)
                sent += len(piece)
        with connection(small) as sock:
            sock.sendall(head(small, None) + b"300000\r\n" + b"x" * (3 * _MIB))
            assert b" 413 " in answer_of(sock)
    assert resident_bytes() - before < 64 * _MIB


def test_a_body_that_comes_slowly_is_given_up_and_holds_nobody_up(small: Any, gallery: Any) -> None:
    photo = gallery.files()[0]
    alone = min(_timed(small, photo) for _ in range(3))
    with connection(small) as one, connection(small) as two:
        for sock in (one, two):
            sock.sendall(head(small, "100000") + FORM)
        meanwhile = _timed(small, photo)
        started = time.monotonic()
        assert answer_of(one).startswith(b"HTTP/1.1 408 ")
        assert answer_of(two).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 10
    assert alone > 0
    assert meanwhile > 0  # it was answered at all, though two of three places were held


def _timed(service: Any, photo: Path) -> float:
    started = time.monotonic()
    assert service.search(photo).status_code == 200
    return time.monotonic() - started


def test_headers_that_do_not_come_are_not_waited_for(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hurried, "_HEAD_S", 0.3)
    with connection(small) as silent, connection(small) as dripping:
        dripping.sendall(b"POST /api/search HTTP/1.1\r\nHo")
        started = time.monotonic()
        assert answer_of(silent) == b""
        assert answer_of(dripping) == b""
        assert time.monotonic() - started < 8
    with connection(small) as patient:  # and one that asks twice over one connection is served twice
        for _ in range(2):
            patient.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"HTTP/1.1 200" in answer_of(patient)
            time.sleep(0.1)


def test_more_than_fit_are_told_to_come_again_before_they_are_read(small: Any, gallery: Any) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(3):
            sock = held.enter_context(connection(small))
            sock.sendall(head(small, "100000"))
        time.sleep(0.3)
        refused = small.search(gallery.files()[0])
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert "too many queries at once" in refused.json()["error"]
        assert small.client.get("/healthz").status_code == 200
    time.sleep(0.3)  # those who hung up made room
    assert small.search(gallery.files()[0]).status_code == 200


def test_many_at_once_are_each_answered_or_told_to_come_again(small: Any, gallery: Any) -> None:
    photo, statuses = gallery.files()[0].read_bytes(), []

    def ask() -> None:
        with httpx.Client(base_url=small.url, timeout=120) as client:
            statuses.append(client.post("/api/search", files={"photo": photo}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 3
    assert small.search(photo).status_code == 200


def test_few_bytes_that_would_become_many_pixels_are_refused_and_memory_stays_flat(small: Any, gallery: Any) -> None:
    sink = io.BytesIO()
    Image.new("L", (8_000, 8_000)).save(sink, "PNG")
    bomb = sink.getvalue()
    assert len(bomb) < 512 * 1024
    assert small.search(gallery.files()[0]).status_code == 200
    before = resident_bytes()
    for _ in range(4):
        refused = small.search(bomb)
        assert refused.status_code == 422
        assert "8000 x 8000 pixels" in refused.json()["error"]
    assert resident_bytes() - before < 64 * _MIB
    assert small.search(gallery.files()[0]).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--\r\n",
        b"no boundary at all",
        FORM + b"never ends",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\n\xff\r\n--b--\r\n',
        b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n' + b"9" * 100_000 + b"\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n1\r\n' * 60 + b"--b--\r\n",
        (FORM + b"x\r\n") * 3 + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\nnot a file\r\n--b--\r\n',
    ],
    ids=range(11),
)
def test_a_malformed_form_is_refused_and_the_next_query_answered(small: Any, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = small.client.post("/api/search", content=body, headers=headers)
    assert answer.status_code in {400, 422}
    assert set(answer.json()) == {"error"}
    assert small.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "image/jpeg", "multipart/form-data", "multipart/form-data; boundary="]
)
def test_another_kind_of_body_is_refused(small: Any, kind: str) -> None:
    answer = small.client.post("/api/search", content=b"x", headers={"Content-Type": kind})
    assert answer.status_code in {400, 415}


def test_a_request_that_is_not_http_is_refused_and_costs_nothing(small: Any) -> None:
    for junk in (b"\x16\x03\x01\x02\x00" * 20, b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000, b"\r\n" * 1000, b"\0" * 100):
        with connection(small) as sock, contextlib.suppress(ConnectionError, TimeoutError):
            sock.sendall(junk)
            sock.shutdown(socket.SHUT_WR)
            got = answer_of(sock)
            assert got == b"" or got.startswith(b"HTTP/1.1 4")
    assert small.client.get("/healthz").status_code == 200
