"""A photo at an address that a stranger names: https only, and only from where anybody on the internet could get it.

The name is resolved once, every address it has must be public, and the connection goes to the address that was looked at: a name
that changes its mind in between (DNS rebinding) changes nothing. Each redirect is a new address and is looked at as the first was.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urljoin

import httpcore
import httpx

from store.errors import UnreadableError

__all__ = ["fetch_public", "is_public_address"]

_DEADLINE_S = 15.0
_SILENCE_S = 5.0
_REDIRECTS = 3
_MOVED = frozenset({301, 302, 303, 307, 308})

_REFUSED = tuple(
    ipaddress.ip_network(net)
    for net in (
        "::/96",  # IPv4-compatible, of old
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 of one's own network
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local, of old
        "192.88.99.0/24",  # relays of 6to4
        "5f00::/16",  # segment routing
        "3fff::/20",  # documentation, which Python calls global
    )
)
"""Beside what Python knows: addresses that carry another one inside, or whose meaning hangs on the network they are used in."""

Resolve = Callable[[str, int], Iterable[str]]


def is_public_address(address: str) -> bool:
    """Whether an IP address is one that the whole internet reaches, and means the same machine everywhere.

    Args:
        address: as the resolver gives it; a scope (`fe80::1%eth0`) is never public.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if getattr(ip, "scope_id", None) or ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    return not any(ip in net for net in _REFUSED if net.version == ip.version)


def fetch_public(
    url: str,
    *,
    max_bytes: int,
    resolve: Resolve | None = None,
    is_allowed: Callable[[str], bool] = is_public_address,
    context: ssl.SSLContext | None = None,
    port: int = 443,
) -> bytes:
    """The bytes at a public https address, at most `max_bytes` + 1 of them; no proxy of the environment is used.

    Args:
        url: https, without a name or password in it.
        max_bytes: no more than one byte over it is read.
        resolve: host and port to addresses; the machine's resolver when not given.
        is_allowed: whether an address may be connected to.
        context: whom TLS trusts; the machine's certificates when not given.
        port: the only one that a url may name.

    Raises:
        UnreadableError: another scheme or port, an address that is not public, no answer within 15 seconds, more than three
            redirects, or another status than 200. The message never says what stands at an address that was refused.
    """
    until = time.monotonic() + _DEADLINE_S
    backend = _CheckedBackend(resolve or _resolve, is_allowed, until)
    with httpcore.ConnectionPool(ssl_context=context or ssl.create_default_context(), network_backend=backend) as pool:
        for _ in range(_REDIRECTS + 1):
            target = _checked_url(url, port)
            try:
                with pool.stream("GET", target, headers=_headers(target), extensions=_timeouts()) as answer:
                    if answer.status not in _MOVED:
                        return _body(answer, max_bytes=max_bytes, until=until)
                    url = urljoin(url, _header(answer, b"location"))
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
                raise UnreadableError(f"no answer ({type(error).__name__})") from error
    raise UnreadableError(f"it leads on more than {_REDIRECTS} times")


def _checked_url(url: str, port: int) -> httpcore.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise UnreadableError("the address is not a url") from error
    if parsed.scheme != "https" or not parsed.host:
        raise UnreadableError("only https:// addresses are fetched")
    if parsed.userinfo:
        raise UnreadableError("an address with a name or password in it is not fetched")
    if (parsed.port or 443) != port:
        raise UnreadableError(f"only port {port} is asked, the address names {parsed.port}")
    return httpcore.URL(scheme=b"https", host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)


def _headers(target: httpcore.URL) -> dict[bytes | str, bytes | str]:
    host = target.host.decode()
    return {"Host": host if target.port in (None, 443) else f"{host}:{target.port}", "Accept-Encoding": "identity"}


def _timeouts() -> dict[str, Any]:
    return {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), _SILENCE_S)}


def _header(answer: httpcore.Response, name: bytes) -> str:
    for key, value in answer.headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return ""


def _body(answer: httpcore.Response, *, max_bytes: int, until: float) -> bytes:
    if answer.status != 200:
        raise UnreadableError(f"HTTP {answer.status}")
    if _header(answer, b"content-encoding") not in {"", "identity"}:
        raise UnreadableError("the server sends it compressed, which was not asked for")
    body = bytearray()
    for part in answer.iter_stream():
        body += part
        if len(body) > max_bytes:
            break
        if time.monotonic() > until:
            raise UnreadableError(f"not all of it came within {_DEADLINE_S:g} s")
    return bytes(body[: max_bytes + 1])


def _resolve(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were looked at, until the time is up.

    Args:
        resolve: host and port to addresses.
        is_allowed: whether an address may be connected to.
        until: of the monotonic clock, for everything together.
    """

    def __init__(self, resolve: Resolve, is_allowed: Callable[[str], bool], until: float) -> None:
        self._resolve, self._is_allowed, self._until = resolve, is_allowed, until
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first of the host's addresses, all of which must be allowed."""
        try:
            addresses = list(self._resolve(host.strip("[]"), port))
        except (OSError, UnicodeError) as error:
            raise UnreadableError("its name has no address") from error
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise UnreadableError("its address is not a public one")
        stream = self._backend.connect_tcp(addresses[0], port, _left(self._until, timeout), None, socket_options)
        return _HurriedStream(stream, self._until)


class _HurriedStream(httpcore.NetworkStream):
    """A connection none of whose waits goes on after the time is up, however slowly bytes drip in."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream, self._until = stream, until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._until, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._until, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._until, timeout))
        return _HurriedStream(stream, self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(until: float, timeout: float | None) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left if timeout is None else min(left, timeout)
