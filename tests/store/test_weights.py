import dataclasses
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from store.errors import EncoderUnknownError
from store.fingerprints import sha256_hex
from store.weights import MIRROR, WeightsFile, fetch_weights, weights_folder

CONTENT = random.Random(0).randbytes(300_000)
PAGE = b"\n<!DOCTYPE html><html><title>Sign in to the network</title></html>"
CUT = 100_000
CLOSED = "http://127.0.0.1:9"
FILE = WeightsFile(
    name="net.pt",
    url=f"{CLOSED}/v1/net.pt",
    max_bytes=1_000_000,
    bytes=len(CONTENT),
    sha256=sha256_hex(CONTENT),
)
LOOSE = dataclasses.replace(FILE, bytes=None, sha256="")
"""The same, of which nobody published size or hash."""


class Publisher(ThreadingHTTPServer):
    """Gives CONTENT as `mood` says, and notes what it was asked: path, Range, If-Range."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.mood = "good"
        self.asked: list[tuple[str, str | None, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked, _ in self.asked]


class Answer(BaseHTTPRequestHandler):
    server: Publisher

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        served = self.server
        served.asked.append((self.path, self.headers["Range"], self.headers["If-Range"]))
        getattr(self, served.mood)()

    def good(self, *, most: int | None = None, etag: str = '"one"') -> None:
        """Ranges as the standard wants them; `most` cuts the connection after so many bytes."""
        asked, mark = self.headers["Range"], self.headers["If-Range"]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and mark in (None, etag) else 0
        if start and start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : None if most is None else start + most])

    def cut(self) -> None:
        self.good(most=CUT)

    def cut_once_then_busy(self) -> None:
        self.good(most=CUT) if len(self.server.asked) == 1 else self.send_error(503)

    def changing(self) -> None:
        self.good(most=CUT if len(self.server.asked) == 1 else None, etag=f'"{len(self.server.asked)}"')

    def plain(self) -> None:
        """No ranges, no marks; the first connection is cut."""
        self._whole(CONTENT, most=CUT if len(self.server.asked) == 1 else None)

    def liar(self) -> None:
        """Another range than asked for, under the right status."""
        if not self.headers["Range"]:
            return self.cut()
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        return None

    def liar_once(self) -> None:
        self.good() if len(self.server.asked) > 2 else self.liar()

    def busy(self) -> None:
        self.send_error(503) if len(self.server.asked) == 1 else self.good()

    def always_busy(self) -> None:
        self.send_error(503)

    def missing(self) -> None:
        self.send_error(404)

    def page(self) -> None:
        self._whole(PAGE, kind="text/html")

    def unmeasured_page(self) -> None:
        """A page whose length is nowhere said but by its end."""
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(f"{len(PAGE):x}\r\n".encode() + PAGE + b"\r\n0\r\n\r\n")

    def wrong(self) -> None:
        self._whole(CONTENT[::-1])

    def packed(self) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(65536))
        except OSError:
            pass

    def _whole(self, data: bytes, *, most: int | None = None, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:most])


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    with Publisher() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folder(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder of the test's own, and the publisher as its mirror, in a good mood."""
    publisher.mood, publisher.asked = "good", []
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(MIRROR, f"{publisher.url}/v1/")
    monkeypatch.setattr("store.download._PAUSE_S", 0.001)
    return tmp_path / "cache" / "weights"


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def fetched(file: WeightsFile = FILE) -> bytes:
    return fetch_weights(file, accept=bytes)


def refused(file: WeightsFile = FILE) -> str:
    with pytest.raises(EncoderUnknownError) as error:
        fetched(file)
    return str(error.value)


# What goes well


def test_a_file_is_downloaded_once_whole_and_with_progress(publisher: Publisher, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):
        assert fetch_weights(FILE, accept=len, tell=lambda *bytes_: told.append(bytes_)) == len(CONTENT)
    assert publisher.asked == [("/v1/net.pt", None, None)]
    assert (folder / "net.pt").read_bytes() == CONTENT
    assert kept(folder) == ["net.pt"]
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_cut_connections_are_gone_on_with_where_they_were_cut(publisher: Publisher) -> None:
    publisher.mood = "cut"
    assert fetched() == CONTENT
    assert publisher.asked == [
        ("/v1/net.pt", None, None),
        ("/v1/net.pt", "bytes=100000-", '"one"'),
        ("/v1/net.pt", "bytes=200000-", '"one"'),
    ]


def test_a_later_run_goes_on_with_what_an_earlier_one_left(publisher: Publisher, folder: Path) -> None:
    publisher.mood = "cut_once_then_busy"
    assert "answers HTTP 503" in refused()
    assert kept(folder) == ["net.pt.part", "net.pt.part.from"]
    publisher.mood, publisher.asked = "good", []
    assert fetched() == CONTENT
    assert publisher.ranges == ["bytes=100000-"]
    assert kept(folder) == ["net.pt"]


def test_what_was_whole_but_not_yet_in_place_is_not_fetched_again(publisher: Publisher, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "net.pt.part").write_bytes(CONTENT)
    assert fetched() == CONTENT
    assert publisher.ranges == ["bytes=300000-"]


@pytest.mark.parametrize("mood", ["plain", "changing", "liar_once"])
@pytest.mark.parametrize("file", [FILE, LOOSE], ids=["known", "unknown"])
def test_without_the_right_range_of_the_same_file_it_starts_over(
    publisher: Publisher, folder: Path, mood: str, file: WeightsFile
) -> None:
    publisher.mood = mood
    assert fetched(file) == CONTENT
    assert (folder / "net.pt").read_bytes() == CONTENT
    assert len(publisher.asked) == (3 if mood == "liar_once" else 2)


def test_rotten_leftovers_cost_a_second_download_and_nothing_else(publisher: Publisher, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "net.pt.part").write_bytes(bytes(CUT))
    assert fetched() == CONTENT
    assert publisher.ranges == ["bytes=100000-", None]


def test_leftovers_of_an_unknown_version_are_not_joined_where_no_hash_would_tell(
    publisher: Publisher, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "net.pt.part").write_bytes(bytes(CUT))
    assert fetched(LOOSE) == CONTENT
    assert publisher.ranges == [None]


def test_a_busy_server_is_asked_again(publisher: Publisher) -> None:
    publisher.mood = "busy"
    assert fetched() == CONTENT
    assert len(publisher.asked) == 2


def test_two_processes_at_once_download_it_once(publisher: Publisher, folder: Path) -> None:
    code = (
        "from store.weights import *; import sys; "
        f"file = WeightsFile(name='net.pt', url='', max_bytes=10**6, sha256='{FILE.sha256}'); "
        "print(fetch_weights(file, accept=len))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in started] == [str(len(CONTENT))] * 2
    assert len(publisher.asked) == 1
    assert kept(folder) == ["net.pt"]


# Mirrors


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "{}/"])
def test_a_mirror_may_be_a_folder(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    monkeypatch.setenv(MIRROR, spelling.format(mirror).replace(" ", "%20" if "file" in spelling else " "))
    assert f"{mirror}/net.pt does not exist, where {MIRROR} says it is: put net.pt" in refused()
    (mirror / "net.pt").write_bytes(CONTENT)
    assert fetched() == CONTENT
    assert kept(folder) == ["net.pt"]


def test_without_a_mirror_the_publisher_is_asked(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR)
    assert fetched(dataclasses.replace(FILE, url=f"{publisher.url}/release/net.pt")) == CONTENT
    assert publisher.asked[0][0] == "/release/net.pt"


def test_other_mirrors_are_refused_and_their_passwords_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, "ftp://me:secret@host/x")
    assert refused().startswith(f"{MIRROR} is ftp://host/x: wanted http://, https://, file:// or a folder")
    monkeypatch.setenv(MIRROR, "http://me:secret@127.0.0.1:9")
    assert "secret" not in refused()


# What goes wrong


def test_offline_one_sentence_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR)
    assert refused() == (
        f"net.pt is not here, and {FILE.url} gives no answer (ConnectError): put net.pt, from {FILE.url}, into {folder}, "
        f"or set {MIRROR} to an address or folder that holds it"
    )


@pytest.mark.parametrize(
    ("mood", "sentence", "asked"),
    [
        ("missing", "answers HTTP 404: put net.pt, from", 1),
        ("always_busy", "answers HTTP 503: put net.pt", 3),
        (
            "page",
            "offers 66 bytes (text/html), wanted 300,000: another file, or the page of a proxy or a login: put",
            1,
        ),
        ("unmeasured_page", "it has 66 bytes of a web page where 300,000 are wanted, and its sha256 is", 1),
        ("wrong", "gave another file than net.pt: it has 300,000 bytes, and its sha256 is", 1),
        ("packed", "sends it compressed, which was not asked for", 1),
        ("endless", "sends more than 300,000 bytes", 1),
    ],
)
def test_another_answer_is_refused_in_a_sentence_and_nothing_is_kept(
    publisher: Publisher, folder: Path, mood: str, sentence: str, asked: int
) -> None:
    publisher.mood = mood
    found = refused()
    assert sentence in found
    assert f"into {folder}, or set {MIRROR}" in found
    assert kept(folder) == []
    assert len(publisher.asked) == asked


def test_a_server_that_never_gives_the_right_range_is_left(publisher: Publisher, folder: Path) -> None:
    publisher.mood = "liar"
    assert "answers HTTP 206 with Content-Range 'bytes 7-299999/300000'" in refused()
    assert publisher.ranges == [None, "bytes=100000-", None, "bytes=100000-"]
    assert kept(folder) == []


def test_a_web_page_in_place_of_a_file_of_unknown_hash_is_not_kept(publisher: Publisher, folder: Path) -> None:
    publisher.mood = "page"
    assert "it has 66 bytes of a web page, and its sha256 is" in refused(LOOSE)
    assert kept(folder) == []


def test_no_more_than_the_limit_is_taken_of_a_file_of_unknown_size(publisher: Publisher, folder: Path) -> None:
    small = dataclasses.replace(LOOSE, max_bytes=1000)
    assert "offers 300,000 bytes (no type), more than 1,000, the limit" in refused(small)
    publisher.mood = "endless"
    assert "sends more than 1,000 bytes" in refused(small)
    assert kept(folder) == []


def test_a_server_that_drips_is_left(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher.mood = "plain"
    monkeypatch.setattr("store.download._DEADLINE_S", -1.0)
    assert "did not give all of it within" in refused()


def test_a_file_that_its_reader_refuses_is_not_kept(folder: Path) -> None:
    def accept(data: bytes) -> None:
        raise ValueError("the file holds a poem")

    with pytest.raises(
        EncoderUnknownError, match=r"cannot be used: the file holds a poem; nothing of it was kept: put"
    ):
        fetch_weights(LOOSE, accept=accept)
    assert kept(folder) == []
    folder.joinpath("net.pt").write_bytes(b"by hand")
    with pytest.raises(EncoderUnknownError, match=r"net\.pt: the file holds a poem; remove it, and it is fetched anew"):
        fetch_weights(LOOSE, accept=accept)
    assert kept(folder) == ["net.pt"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "file"))
    found = refused()
    assert (
        f"{tmp_path}/file/weights cannot be read or written (Not a directory): make room, or set LOOKALIKE_CACHE"
        in found
    )


# Hashes


def test_a_file_put_there_by_hand_is_checked_before_it_is_read(folder: Path, publisher: Publisher) -> None:
    folder.mkdir(parents=True)
    (folder / "net.pt").write_bytes(CONTENT[::-1])

    def accept(data: bytes) -> Any:
        pytest.fail("it was read")

    sentence = (
        rf"net\.pt is not the published file: it has 300,000 bytes, and its sha256 is {sha256_hex(CONTENT[::-1])[:12]}…, "
        rf"wanted {FILE.sha256[:12]}…; remove it, and it is fetched anew"
    )
    with pytest.raises(EncoderUnknownError, match=sentence):
        fetch_weights(FILE, accept=accept)
    assert publisher.asked == []


def test_a_hash_that_nobody_published_is_recorded_at_first_use_and_a_change_is_refused(
    folder: Path, publisher: Publisher
) -> None:
    assert fetched(LOOSE) == CONTENT
    assert (folder / "net.pt.sha256").read_text() == f"{FILE.sha256}  net.pt\n"
    (folder / "net.pt").write_bytes(b"another")
    assert f"wanted {FILE.sha256[:12]}…; remove it" in refused(LOOSE)
    (folder / "net.pt").unlink()
    publisher.mood = "wrong"
    assert "nothing of it was kept" in refused(LOOSE)
    assert kept(folder) == ["net.pt.sha256"]
    publisher.mood = "good"
    assert fetched(LOOSE) == CONTENT


def test_the_beginning_of_a_hash_is_checked_and_the_whole_recorded(folder: Path) -> None:
    beginning = dataclasses.replace(LOOSE, sha256=FILE.sha256[:8])
    assert fetched(beginning) == CONTENT
    assert (folder / "net.pt.sha256").read_text().startswith(FILE.sha256)
    (folder / "net.pt").unlink()
    (folder / "net.pt.sha256").unlink()
    assert "wanted 00000000…; nothing of it was kept" in refused(dataclasses.replace(LOOSE, sha256="00000000"))


@pytest.mark.parametrize("record", ["", "not a hash", "0" * 64, "Z" * 64])
def test_a_record_that_is_none_is_refused(folder: Path, record: str) -> None:
    beginning = dataclasses.replace(LOOSE, sha256=FILE.sha256[:8])
    assert fetched(beginning) == CONTENT
    (folder / "net.pt.sha256").write_text(record)
    assert "net.pt.sha256 holds no sha256 of net.pt: remove it if you trust net.pt" in refused(beginning)


def test_weights_are_kept_in_the_user_s_cache_or_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", "/x")
    assert weights_folder() == Path("/x/weights")
    monkeypatch.delenv("LOOKALIKE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert weights_folder() == Path("/y/lookalike/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/z")
    assert weights_folder() == Path("/z/.cache/lookalike/weights")
