import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from store import web
from store.errors import UnreadableError
from store.web import fetch, look_up


class Handler(BaseHTTPRequestHandler):
    """Answers by path: what good and bad servers do."""

    asked: dict[str, int]
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if self.path == "/nohead":
            self._answer(405, b"")
        elif self.path == "/bare":
            self.send_response(200)
            self.end_headers()
        elif self.path == "/old":
            self._answer(200, b"12345", {"Last-Modified": "Tue, 02 Jan 2024 03:04:05 GMT"})
        else:
            self._answer(200, b"12345", {"ETag": '"abc"'})

    def do_GET(self) -> None:  # noqa: PLR0912
        asked = self.server.asked  # type: ignore[attr-defined]
        asked[self.path] = asked.get(self.path, 0) + 1
        if self.path == "/busy":
            ready = asked[self.path] > 1
            self._answer(200 if ready else 503, b"at last" if ready else b"", {"Retry-After": "0"})
        elif self.path == "/always-busy":
            self._answer(503, b"")
        elif self.path.startswith("/hop"):
            self._answer(302, b"", {"Location": f"/hop{int(self.path[4:]) + 1}" if self.path != "/hop3" else "/fine"})
        elif self.path == "/round":
            self._answer(302, b"", {"Location": "/round"})
        elif self.path == "/file":
            self._answer(302, b"", {"Location": "file:///etc/passwd"})
        elif self.path == "/packed":
            self._answer(200, b"\x1f\x8b" + bytes(20), {"Content-Encoding": "gzip"})
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                pass
        elif self.path == "/slow":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            except OSError:
                pass
        elif self.path == "/fine":
            self._answer(200, b"a photo")
        elif self.path == "/asked":
            self._answer(200, (self.headers["Accept-Encoding"] + " " + self.headers["User-Agent"]).encode())
        else:
            self._answer(404, b"no such thing")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.asked = {}  # type: ignore[attr-defined]
    served.daemon_threads = True
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    web._client().close()
    web._client.cache_clear()
    served.shutdown()
    served.server_close()
    thread.join()


def test_bytes_come_as_they_are(server: str) -> None:
    assert fetch(f"{server}/fine", max_bytes=100) == b"a photo"
    assert fetch(f"{server}/asked", max_bytes=100).startswith(b"identity lookalike/")


def test_no_more_than_one_byte_over_the_limit_is_taken(server: str) -> None:
    assert fetch(f"{server}/fine", max_bytes=3) == b"a ph"
    assert len(fetch(f"{server}/endless", max_bytes=1_000_000)) == 1_000_001


def test_a_busy_server_is_asked_again_and_then_given_up(server: str) -> None:
    assert fetch(f"{server}/busy", max_bytes=100) == b"at last"
    with pytest.raises(UnreadableError, match="^HTTP 503$"):
        fetch(f"{server}/always-busy", max_bytes=100)


def test_redirects_are_followed_a_few_times_and_only_on_the_web(server: str) -> None:
    assert fetch(f"{server}/hop0", max_bytes=100) == b"a photo"
    with pytest.raises(UnreadableError, match="TooManyRedirects"):
        fetch(f"{server}/round", max_bytes=100)
    with pytest.raises(UnreadableError, match="UnsupportedProtocol"):
        fetch(f"{server}/file", max_bytes=100)


def test_what_was_compressed_unasked_is_refused(server: str) -> None:
    with pytest.raises(UnreadableError, match="compressed"):
        fetch(f"{server}/packed", max_bytes=100)


def test_a_server_that_drips_is_left(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_DEADLINE_S", 0.6)
    with pytest.raises(UnreadableError, match=r"not all of it came within 0.6 s"):
        fetch(f"{server}/slow", max_bytes=10_000)


def test_what_is_not_there_says_its_status_and_nobody_there_says_so(server: str) -> None:
    with pytest.raises(UnreadableError, match="^HTTP 404$"):
        fetch(f"{server}/nothing", max_bytes=100)
    with pytest.raises(UnreadableError, match="no answer"):
        fetch("http://127.0.0.1:9/x", max_bytes=100)


def test_a_server_is_asked_for_size_and_tag_or_time(server: str) -> None:
    assert look_up(f"{server}/x") == {"size": 5, "ETag": '"abc"'}
    old = look_up(f"{server}/old")
    assert old["size"] == 5
    assert old["LastModified"].year == 2024
    assert look_up(f"{server}/bare") == {"size": 0}
    with pytest.raises(UnreadableError, match="^HTTP 405$"):
        look_up(f"{server}/nohead")


def test_a_list_of_addresses_is_a_source(server: str, tmp_path: object) -> None:
    from pathlib import Path

    from store.sources import list_source, read_uri

    listed = Path(str(tmp_path)) / "l.csv"
    listed.write_text(f"url,label,n\n{server}/a.jpg?v=2,Ann,1\n{server}/nohead,Bob,2\n{server}/b.png,,3\n")
    found = list_source(str(listed), suffixes=frozenset({".jpg", ".png"}))
    assert [(p.uri.rsplit("/", 1)[1], p.size, p.etag, p.label, p.metadata) for p in found.photos] == [
        ("a.jpg?v=2", 5, "abc", "Ann", '{"n":1}'),
        ("b.png", 5, "abc", None, '{"n":3}'),
    ]
    assert found.ignored == 1
    assert read_uri(f"{server}/fine", max_bytes=100) == b"a photo"
