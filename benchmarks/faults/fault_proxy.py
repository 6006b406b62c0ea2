"""A proxy before an S3 endpoint that injects faults by a script, the same ones for the same seed and the same requests."""

import contextlib
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Literal, get_args
from urllib.parse import urlsplit

from benchmarks.faults.loopback import LoopbackServer, Serving
from benchmarks.faults.s3_endpoint import error_document, read_body

__all__ = ["FAULTS", "FaultKind", "FaultProxy", "Injected", "Rule", "random_script"]

FaultKind = Literal[
    "delay",
    "reset",
    "truncated",
    "short",
    "flipped",
    "error_500",
    "slow_down_503",
    "conflict_409",
    "error_under_200",
    "page_under_200",
    "lost_reply",
    "stale_listing",
]
"""What is done to a request.

delay: the answer comes late. reset: the connection is reset after some bytes of the answer, none of which may have come.
truncated: the body ends early under its full Content-Length. short: the body is cut, and its length says so too.
flipped: one bit of the body is another. error_500, slow_down_503, conflict_409: S3's errors; the endpoint is not asked.
error_under_200, page_under_200: an error document of S3's, or a page as gateways show it, in place of the answer and with status
200; the endpoint is not asked. lost_reply: the endpoint answers and the connection is reset, so that a write is done and nobody
told. stale_listing: the answer to an earlier listing of the same, or an empty one; other requests pass.
"""

FAULTS: tuple[FaultKind, ...] = get_args(FaultKind)

_KEPT_FROM_THE_CLIENT = frozenset({"expect", "connection", "transfer-encoding", "content-length"})
_KEPT_FROM_THE_ENDPOINT = frozenset({"connection", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Rule:
    """One fault of a script, injected once.

    Attributes:
        fault: its kind.
        number: of the request, 0 the first that came; None: any.
        pattern: of "METHOD /path?query", searched; None: any.
        after_bytes: of the body, for reset, truncated, short and flipped.
        delay_s: for delay.
    """

    fault: FaultKind
    number: int | None = None
    pattern: str | None = None
    after_bytes: int = 0
    delay_s: float = 0.05

    def fits(self, number: int, asked: str) -> bool:
        """Whether it is meant for this request."""
        return (self.number is None or self.number == number) and (
            self.pattern is None or re.search(self.pattern, asked) is not None
        )


@dataclass(frozen=True)
class Injected:
    """A fault as it was injected: the request's number, what it asked, and the rule."""

    number: int
    asked: str
    rule: Rule


def random_script(
    seed: int, *, faults: int = 4, requests: int = 60, kinds: Sequence[FaultKind] = FAULTS, max_bytes: int = 4096
) -> list[Rule]:
    """A script drawn from a seed.

    Args:
        seed: the same one gives the same script.
        faults: how many.
        requests: they fall on the first so many.
        kinds: are drawn from these.
        max_bytes: a body is cut before this many.
    """
    draw = random.Random(seed)
    numbers = sorted(draw.sample(range(requests), min(faults, requests)))
    return [Rule(draw.choice(kinds), number=number, after_bytes=draw.randrange(max_bytes)) for number in numbers]


class FaultProxy(LoopbackServer):
    """A proxy on a free port of loopback, while the context lasts.

    Requests that come one after another meet the same faults each time; where several are under way at once, their
    order is theirs, and `injected` says which were hit.

    Args:
        upstream: the endpoint's url.
        script: its faults; the first rule that fits a request is injected, once.

    Attributes:
        url: to be given to clients.
        injected: the faults so far.
        requests: how many came so far.
    """

    def __init__(self, upstream: str, script: Sequence[Rule] = ()) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self.upstream = (parts.hostname, parts.port or 80)
        self.injected: list[Injected] = []
        self.requests = 0
        self._pending = list(script)
        self._listings: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
        self._lock = threading.Lock()
        super().__init__(_Handler)

    def follow(self, script: Sequence[Rule]) -> None:
        """Take another script and count requests from 0 again."""
        with self._lock:
            self._pending, self.requests = list(script), 0

    def fault_of(self, asked: str) -> Rule | None:
        """The fault of the request that has just come, if any; it is then used up."""
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
            rule = next((rule for rule in self._pending if rule.fits(number, asked)), None)
            if rule is not None:
                self._pending.remove(rule)
                self.injected.append(Injected(number, asked, rule))
            return rule

    def earlier(self, asked: str, answer: "_Reply | None" = None) -> "_Reply | None":
        """The first answer to a listing that went through, and the one kept now, if any."""
        with self._lock:
            before = self._listings.get(asked)
            if answer is not None and before is None:
                self._listings[asked] = answer
            return before


_Reply = tuple[int, list[tuple[str, str]], bytes]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Serving
    _upstream: http.client.HTTPConnection | None = None

    @property
    def _proxy(self) -> FaultProxy:
        proxy: FaultProxy = self.server.owner
        return proxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: faults stand in `injected`."""

    def _answer(self) -> None:
        body = read_body(self)
        asked = f"{self.command} {self.path}"
        rule = self._proxy.fault_of(asked)
        if rule is None:
            self._send(self._forward(body, asked))
        else:
            self._inject(rule, body, asked)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def finish(self) -> None:
        """Let go of both connections."""
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def _inject(self, rule: Rule, body: bytes, asked: str) -> None:
        match rule.fault:
            case "error_500":
                self._send(_error(500, "InternalError", "We encountered an internal error. Please try again."))
            case "slow_down_503":
                self._send(_error(503, "SlowDown", "Please reduce your request rate."))
            case "conflict_409":
                message = "The conditional request cannot succeed due to a conflicting operation against this resource."
                self._send(_error(409, "ConditionalRequestConflict", message))
            case "error_under_200":
                self._send(_error(200, "InternalError", "We encountered an internal error. Please try again."))
            case "page_under_200":
                self._send((200, [("Content-Type", "text/html")], b"<html><body>Please sign in.</body></html>"))
            case "delay":
                time.sleep(rule.delay_s)
                self._send(self._forward(body, asked))
            case "lost_reply":
                self._forward(body, asked)
                self._reset()
            case "stale_listing":
                stale = self._stale(asked)
                self._send(self._forward(body, asked) if stale is None else stale)
            case _:
                self._damage(rule, self._forward(body, asked))

    def _damage(self, rule: Rule, reply: _Reply) -> None:
        status, headers, body = reply
        cut = min(rule.after_bytes, max(0, len(body) - 1))
        if rule.fault == "short":
            self._send((status, headers, body[:cut]))
        elif rule.fault == "flipped" and body:
            self._send((status, headers, body[:cut] + bytes([body[cut] ^ 1]) + body[cut + 1 :]))
        elif rule.fault == "flipped":
            self._send(reply)
        else:
            self._send((status, headers, body[:cut]), length=len(body))
            self.wfile.flush()
            if rule.fault == "reset":
                self._reset()
            self.close_connection = True

    def _reset(self) -> None:
        """End the connection as a machine does that went away."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _forward(self, body: bytes, asked: str) -> _Reply:
        """What the endpoint answers; listings are remembered."""
        if self._upstream is None:
            self._upstream = http.client.HTTPConnection(*self._proxy.upstream, timeout=60)
        upstream = self._upstream
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _KEPT_FROM_THE_CLIENT:
                upstream.putheader(name, value)
        if body or self.command in {"PUT", "POST"}:
            upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body or None)
        answer = upstream.getresponse()
        length = answer.getheader("content-length")
        headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _KEPT_FROM_THE_ENDPOINT]
        if self.command == "HEAD" and length is not None:
            headers.append(("Content-Length", length))
        reply = (answer.status, headers, answer.read())
        if _is_listing(asked):
            self._proxy.earlier(asked, reply)
        return reply

    def _stale(self, asked: str) -> _Reply | None:
        if not _is_listing(asked):
            return None
        empty = b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
        return self._proxy.earlier(asked) or (200, [("Content-Type", "application/xml")], empty)

    def _send(self, reply: _Reply, *, length: int | None = None) -> None:
        status, headers, body = reply
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if not any(name.lower() == "content-length" for name, _ in headers) and status != 204:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self.wfile.write(head + (b"" if self.command == "HEAD" else body))


def _is_listing(asked: str) -> bool:
    return asked.startswith("GET ") and "list-type=2" in asked


def _error(status: int, code: str, message: str) -> _Reply:
    return status, [("Content-Type", "application/xml")], error_document(code, message)
