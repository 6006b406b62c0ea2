"""Seeded scripts of faults between a build and its S3 endpoint."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import STORES, Bench, build
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_content, problems_of_store, snapshot

__all__ = ["FAULT"]

_STORE = "s3://faces/store"
_FAULTS, _REQUESTS = 12, 200


def _keys(bench: Bench, long: bool) -> list[str]:
    """Half of the scripts meet each store."""
    return [f"{STORES[n % 2]}:{n}" for n in range(1000 if long else 8)]


def _run(bench: Bench, key: str, *, without: Sequence[str] = (), flips: Sequence[tuple[str, int]] = ()) -> list[str]:
    """Build through the script, look past the proxy, build again without faults, look again."""
    name, seed = key.split(":")
    with bench.fresh_store(name) as start, bench.fresh_store("empty") as found, bench.fresh_store("empty") as end:
        before = snapshot(start)
        ended = fork(lambda: _through(bench, start, int(seed), found, end, without, flips)).wait(300)
        if ended.error is not None or ended.signal:
            return [f"the rerun failed: {ended.error or f'signal {ended.signal}'}"]
        problems = [f"no fault of script {seed} hit a request"] * (ended.value["injected"] == 0)
        problems += problems_of_store(found, before=before)
        problems += [f"after the rerun, {what}" for what in problems_of_store(end, before=before | snapshot(found))]
        return problems + problems_of_content(end, bench.expected)


def _twin(bench: Bench) -> list[str]:
    """What S3 sends is believed: a bit flips in each answer, where Parquet names its writer and no page checksum looks."""
    flips: list[tuple[str, int]] = []
    with bench.fresh_store("second") as store:
        built = bench.build(store)
        assert built.error is None, built.error
        for path in store.glob("embeddings/*/*.parquet"):
            flips.append((str(path.relative_to(store)), path.read_bytes().rindex(b"parquet-cpp")))
    return _run(bench, "second:0", without=["hash", "answers"], flips=flips)


def _through(
    bench: Bench,
    start: Path,
    seed: int,
    found: Path,
    end: Path,
    without: Sequence[str],
    flips: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """In a child of its own: endpoint, proxy and builds; what the bucket holds goes into two folders."""
    from benchmarks.faults.fault_proxy import FaultProxy, Rule, random_script  # noqa: PLC0415
    from benchmarks.faults.s3_endpoint import S3Endpoint  # noqa: PLC0415
    from store import s3_requests  # noqa: PLC0415

    s3_requests._FIRST_PAUSE_S = 0.002
    script = random_script(seed, faults=_FAULTS, requests=_REQUESTS, max_bytes=3000)
    if flips:
        script = [Rule("flipped", pattern=f"GET .*{path}", after_bytes=at) for path, at in flips for _ in range(20)]
    with S3Endpoint() as endpoint, FaultProxy(endpoint.url) as proxy:
        os.environ |= {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for path in start.rglob("*"):
            if path.is_file():
                endpoint.objects.put("faces", f"store/{path.relative_to(start)}", path.read_bytes())
        remove_guards(without)
        proxy.follow(script)
        error = None
        try:
            build(_STORE, bench.source, bench.stored)
        except Exception as raised:  # a fault may end a build; what it leaves behind is what counts
            error = f"{type(raised).__name__}: {raised}"
        _dump(endpoint, found)
        proxy.follow([])
        build(_STORE, bench.source, bench.stored)
        _dump(endpoint, end)
        return {"injected": len(proxy.injected), "error": error}


def _dump(endpoint: Any, folder: Path) -> None:
    for key, versions in dict(endpoint.objects.bucket("faces").objects).items():
        path = folder / key.removeprefix("store/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(versions[-1].data)


FAULT = Fault(
    name="s3_scripts",
    title="S3 faults by seeded scripts",
    how=f"a script of {_FAULTS} faults over the first {_REQUESTS} requests of a build: delays, resets, truncated, short and"
    " flipped bodies, 500, 503, 409, an error under 200, lost replies and stale listings",
    guard="what S3 sends is believed, whatever its ETag and hash",
    keys=_keys,
    run=_run,
    twin=_twin,
)
