"""Those who ask a service while it is measured: one after another, several at once, and strangers who mean harm."""

import contextlib
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

__all__ = ["at_once", "memory_mib", "one_by_one", "percentiles", "strangers"]

Row = dict[str, Any]
_STAGES = ("decode", "detect", "embed", "search")
_WARM = 5
_SLOW = 4
_MIB = 2**20


def one_by_one(url: str, photo: bytes, queries: int) -> Row:
    """Milliseconds of queries that wait for nobody, and of their parts."""
    parts: dict[str, list[float]] = {name: [] for name in ("whole", *_STAGES)}
    with httpx.Client(base_url=url, timeout=120) as client:
        for n in range(_WARM + queries):
            started = time.perf_counter()
            answer = client.post("/api/search", files={"photo": photo}, data={"picture": "true"})
            whole = time.perf_counter() - started
            answer.raise_for_status()
            if n >= _WARM:
                for name, taken in (("whole", whole), *answer.json()["seconds"].items()):
                    parts[name].append(1000 * taken)
    return {name: percentiles(values) for name, values in parts.items()}


def at_once(url: str, pid: int, photo: bytes, *, count: int, seconds: float) -> Row:
    """What so many clients get, each asking again as soon as it is answered."""
    taken: list[float] = []
    statuses: dict[str, int] = {}
    versions: set[int] = set()
    memory = [memory_mib(pid)]
    until = time.monotonic() + seconds

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while time.monotonic() < until:
                started = time.perf_counter()
                try:
                    answer = client.post("/api/search", files={"photo": photo})
                    status = str(answer.status_code)
                except httpx.TransportError as error:
                    status = type(error).__name__
                statuses[status] = statuses.get(status, 0) + 1
                if status == "200":
                    taken.append(1000 * (time.perf_counter() - started))
                    versions.add(answer.json()["version"])

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(memory_mib(pid))
        time.sleep(0.25)
    half = len(memory) // 2
    return {
        "clients": count,
        "seconds": seconds,
        "a_second": round(len(taken) / seconds, 1),
        "ms": percentiles(taken),
        "statuses": statuses,
        "versions": len(versions),
        "memory_mib": {"first_half": round(max(memory[:half])), "second_half": round(max(memory[half:]))},
    }


def percentiles(values: list[float]) -> Row:
    """The median and the 99th percentile; none of no values."""
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


@contextlib.contextmanager
def strangers(url: str) -> Iterator[None]:
    """While the block lasts, some send bodies a byte at a time, endless bodies, forms that are none, and bombs."""
    gone = threading.Event()
    threads = [threading.Thread(target=_until, args=(gone, one, url)) for one in (_slow, _endless, _malformed, _bomb)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        gone.set()
        for thread in threads:
            thread.join()


def _until(gone: threading.Event, act: Callable[[str, threading.Event], None], url: str) -> None:
    while not gone.is_set():
        with contextlib.suppress(OSError, httpx.TransportError):
            act(url, gone)


def _connection(url: str, length: str) -> socket.socket:
    """A connection over which a form was begun."""
    where = urlsplit(url)
    sock = socket.create_connection((where.hostname or "", where.port or 80), timeout=30)
    sock.sendall(
        f"POST /api/search HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: multipart/form-data; boundary=b\r\n{length}\r\n\r\n".encode()
    )
    return sock


def _slow(url: str, gone: threading.Event) -> None:
    """Four bodies that come a byte each half second, until they are given up."""
    with contextlib.ExitStack() as held:
        socks = [held.enter_context(_connection(url, "Content-Length: 100000")) for _ in range(_SLOW)]
        while not gone.wait(0.5):
            for sock in socks:
                sock.sendall(b"x")


def _endless(url: str, gone: threading.Event) -> None:
    """A body without an end, cut off at the limit; the next one a second later."""
    piece = b"%x\r\n%s\r\n" % (_MIB, b"x" * _MIB)
    with contextlib.suppress(OSError), _connection(url, "Transfer-Encoding: chunked") as sock:
        while not gone.is_set():
            sock.sendall(piece)
    gone.wait(1)


def _malformed(url: str, gone: threading.Event) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    httpx.post(f"{url}/api/search", content=b"--b\r\n" + b"X: y\r\n" * 5000, headers=headers)
    gone.wait(0.1)


def _bomb(url: str, gone: threading.Event) -> None:
    """Few bytes that would become 144 megapixels."""
    sink = io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(sink, "PNG")
    while not gone.wait(0.2):
        httpx.post(f"{url}/api/search", files={"photo": sink.getvalue()}, timeout=60)


def memory_mib(pid: int) -> float:
    """Of a process and its children, what is not shared with files: mapped vectors are not counted."""
    total = 0.0
    for one in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        with contextlib.suppress(OSError):
            kept = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{one}/status").read_text())
            total += int(kept[1]) / 1024 if kept else 0
    return total
