import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from store import public_web
from store.errors import UnreadableError
from store.public_web import fetch_public, is_public_address

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.1.2.3",
    "127.255.255.255", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170",
    "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7",
    "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::808:808", "64:ff9b:1::7f00:1", "100::1", "2001::1",
    "2001:0:7f00:1::1", "2001:2::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::1", "2002:a00:1::", "2002:c0a8:101::1",
    "3fff::1", "5f00::1", "fc00::1", "fd12:3456:789a::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff05::2",
    "2606:4700::1111%eth0", "not an address", "",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450::1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_not_everybody_reaches_is_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_that_everybody_reaches_is_public(address: str) -> None:
    assert is_public_address(address)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/photo":
            return self._answer(200, b"a photo")
        if self.path == "/round":
            return self._answer(302, b"", Location="/round")
        if self.path.startswith("/to?"):
            return self._answer(302, b"", Location=self.path[4:])
        if self.path == "/packed":
            return self._answer(200, b"x", **{"Content-Encoding": "gzip"})
        if self.path == "/drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for n in range(100):
                self.wfile.write(b"X-%d: drip\r\n" % n)
                time.sleep(0.1)
        return self._answer(404, b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Counting(ThreadingHTTPServer):
    """Counts the connections it was asked for, before any TLS."""

    daemon_threads = True
    connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own for photos.example, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "photos.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("photos.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Counting, ssl.SSLContext]]:
    """An https server on loopback, and a context that trusts it."""
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    server = Counting(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server, ssl.create_default_context(cafile=str(cert))
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def get(listener: tuple[Counting, ssl.SSLContext]) -> Any:
    """Fetch from the listener as if photos.example were a public machine."""
    server, context = listener
    port = server.server_address[1]

    def fetch(path: str, *, host: str = "photos.example", max_bytes: int = 1000, **asked: Any) -> bytes:
        given = {"resolve": lambda host, port: ["127.0.0.1"], "is_allowed": lambda address: True} | asked
        return fetch_public(f"https://{host}:{port}{path}", max_bytes=max_bytes, context=context, port=port, **given)

    return fetch


def test_a_photo_at_a_public_address_comes_and_not_a_byte_more_than_allowed(get: Any) -> None:
    assert get("/photo") == b"a photo"
    assert get("/photo", max_bytes=3) == b"a ph"
    assert get("/to?/photo") == b"a photo"


def spellings(port: int) -> list[str]:
    hosts = [
        *(a for a in PRIVATE if a[:1].isdigit() and ":" not in a),
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
    ]
    hosts += [f"[{a}]" for a in PRIVATE if ":" in a and "%" not in a] + ["017700000001", "127.0.0.1.", "LOCALHOST"]
    return [f"https://{host}:{port}/photo" for host in hosts]


def test_no_spelling_of_an_address_that_is_not_public_gets_a_connection(listener: Any) -> None:
    server, context = listener
    before = server.connections
    urls = spellings(server.server_address[1])
    assert len(urls) > 60
    for url in urls:
        with pytest.raises(UnreadableError):
            fetch_public(url, max_bytes=9, context=context, port=server.server_address[1])
    assert server.connections == before
    with socket.create_connection(("127.0.0.1", server.server_address[1])):
        time.sleep(0.2)
    assert server.connections == before + 1  # so the count counts


def test_a_name_that_has_one_private_address_among_public_ones_is_refused(get: Any, listener: Any) -> None:
    before = listener[0].connections
    with pytest.raises(UnreadableError, match="its address is not a public one"):
        get("/photo", resolve=lambda host, port: ["1.1.1.1", "127.0.0.1"], is_allowed=is_public_address)
    assert listener[0].connections == before


def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_looked_at(get: Any) -> None:
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    assert get("/photo", resolve=rebinding, is_allowed=lambda address: address == "127.0.0.1") == b"a photo"
    assert asked == ["photos.example"]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("http://photos.example/photo", "only https"),
        ("file:///etc/passwd", "only https"),
        ("https://u:p@photos.example/photo", "name or password"),
        ("https://photos.example:22/photo", "only port"),
        ("gopher://photos.example/", "only https"),
        ("//photos.example:9/x", "only port"),
    ],
)
def test_a_redirect_is_looked_at_like_the_first_address(get: Any, target: str, sentence: str) -> None:
    with pytest.raises(UnreadableError, match=sentence):
        get(f"/to?{target}")


def test_a_redirect_to_a_private_machine_is_refused(get: Any, listener: Any) -> None:
    port = listener[0].server_address[1]
    known = {"photos.example": ["127.0.0.1"], "inside.example": ["10.1.2.3"]}
    with pytest.raises(UnreadableError, match="not a public one"):
        get(
            f"/to?https://inside.example:{port}/secret",
            resolve=lambda host, port: known[host],
            is_allowed=lambda address: address == "127.0.0.1",
        )


def test_endless_redirects_other_statuses_and_packed_bodies_are_refused(get: Any) -> None:
    for path, sentence in (("/round", "more than 3 times"), ("/none", "HTTP 404"), ("/packed", "compressed")):
        with pytest.raises(UnreadableError, match=sentence):
            get(path)


def test_another_certificate_than_the_name_s_is_no_answer(get: Any) -> None:
    with pytest.raises(UnreadableError, match="no answer"):
        get("/photo", host="other.example")


def test_headers_that_drip_in_do_not_outlast_the_deadline(get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_web, "_DEADLINE_S", 0.5)
    started = time.monotonic()
    with pytest.raises(UnreadableError, match="no answer"):
        get("/drip")
    assert time.monotonic() - started < 5


def test_the_table_holds_some_sixty_addresses_of_every_kind() -> None:
    assert len(PRIVATE) >= 58
    assert all(ipaddress.ip_address(a) for a in PRIVATE if a and " " not in a and "%" not in a)
