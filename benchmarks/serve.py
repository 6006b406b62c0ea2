"""What a query to `lookalike serve` costs, and what becomes of many at once.

    python -m benchmarks.serve [--faces 5000 100000] [--million] [--seconds 60] [--clients 1 4 16] [--compare] [--json]

For each size a store is made: faces with drawn vectors of 512 dimensions that are spread like real ones (`benchmarks/face_vectors.py`), and an
untrained encoder of the published Inception-ResNet V1's size, so that every part costs what it costs with real ones. Where the index is an
approximate one, it is tuned and proven with drawn vectors too, for there are no crops that could be embedded again. The real command serves it from a
process of its own. Then, over HTTP from here: one client, one query after another, a photo of 250 pixels and one of 12 megapixels, split into what
the service says of its parts; several clients at once; one among strangers who send slow, endless and malformed bodies and bombs; and four clients
while one version after another is published. With --compare, services that work on small photos together and one by one are asked in turn.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.drawn_queries import drawn_queries
from benchmarks.face_vectors import FaceVectors
from benchmarks.incremental import commit_drawn, list_drawn
from benchmarks.machine import describe_machine
from benchmarks.serve_clients import at_once, memory_mib, one_by_one, strangers
from store.layout import open_store
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.draw_people import draw_people
from tasks.steps.plan_build import plan_build
from tasks.steps.publish_version import publish_version
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder
from tasks.steps.write_index import write_index

__all__ = ["drawing", "main", "measure_size"]

Row = dict[str, Any]
_NETWORK = NetworkSettings(width=1.0, dimension=512, input_px=160)
_ROUNDS = 3
_MORE_PHOTOS = 10


def measure_size(faces: int, *, seconds: float, queries: int, clients: Sequence[int], compare: bool = False) -> Row:
    """All figures for a gallery of so many faces; `compare` also asks a service that takes each query alone."""
    with tempfile.TemporaryDirectory() as folder:
        store, photos = str(Path(folder, "store")), _photos(Path(folder, "drawn"))
        encoder = new_encoder(store, settings=_NETWORK)
        started = time.perf_counter()
        _publish(store, encoder, faces)
        row: Row = {"faces": faces, "made_in_s": round(time.perf_counter() - started, 1)}
        with _served(store, Path(folder)) as (url, pid):
            row["one_by_one"] = {name: one_by_one(url, photo, queries) for name, photo in photos.items()}
            small = photos["250 x 250"]
            row["at_once"] = [at_once(url, pid, small, count=n, seconds=seconds) for n in clients]
            with strangers(url):
                row["among_strangers"] = one_by_one(url, small, queries) | {"memory_mib": round(memory_mib(pid))}
            with _publishing(store, encoder, faces):
                row["while_publishing"] = at_once(url, pid, small, count=4, seconds=seconds)
        if compare:
            row["together_and_alone"] = _compare(store, Path(folder), small, clients=clients, seconds=seconds)
    return row


def _compare(store: str, folder: Path, photo: bytes, *, clients: Sequence[int], seconds: float) -> list[Row]:
    """Two services, one that works on small photos together and one that does not, asked in turn."""
    rows = []
    with contextlib.ExitStack() as running:
        found: dict[str, tuple[str, int]] = {}
        for name, together in (("together", 4), ("alone", 1)):
            (folder / name).mkdir()
            found[name] = running.enter_context(_served(store, folder / name, together=together))
        for count in clients:
            rounds: dict[str, list[Row]] = {name: [] for name in found}
            for _ in range(_ROUNDS):
                for name, (url, pid) in found.items():
                    rounds[name].append(at_once(url, pid, photo, count=count, seconds=seconds / _ROUNDS))
            rows.append({"clients": count} | {name: _median(some) for name, some in rounds.items()})
    return rows


def _median(rounds: list[Row]) -> Row:
    """The middle of several rounds, and their spread of answers a second."""
    each = sorted(one["a_second"] for one in rounds)
    ms = {p: float(np.median([one["ms"][p] for one in rounds])) for p in ("p50", "p99")}
    return {"a_second": float(np.median(each)), "from_to": [each[0], each[-1]], "ms": ms}


def _photos(folder: Path) -> dict[str, bytes]:
    """A drawn face as a small photo, and in the middle of a photo of 12 megapixels."""
    draw_people(folder, people=range(1), views=range(1, 2), seed=0, workers=1)
    small = next(folder.rglob("*.jpg"))
    with Image.open(small) as drawn:
        noise_HWC = np.random.default_rng(0).integers(96, 160, (300, 400, 3), np.uint8)
        large = Image.fromarray(noise_HWC).resize((4000, 3000))
        large.paste(drawn.resize((1500, 1500)), (1250, 750))
    sink = io.BytesIO()
    large.save(sink, "JPEG", quality=90)
    return {"250 x 250": small.read_bytes(), "4,000 x 3,000": sink.getvalue()}


def _publish(store: str, encoder: str, faces: int) -> None:
    """A version of so many drawn rows, each a photo with one face."""
    storage, contract, ref = open_store(store, create=True), Contract(), resolve_encoder(encoder, store=store)
    plan = plan_build(list_drawn(storage, faces), store=store, contract=contract, encoder=ref.id)
    commit_drawn(storage, plan, ref, draw=drawing(plan.table.rows, ref.dimension))
    with drawn_queries(FaceVectors(plan.table.rows, ref.dimension, seed=plan.table.rows)):
        draft = write_index(plan, store=store, contract=contract, encoder=ref)
        publish_version(check_version(draft, store=store).draft, store=store, plan=plan)


def drawing(faces: int, dimension: int) -> Callable[[int], npt.NDArray[np.float32]]:
    """A function that gives the next drawn vectors, so many at a time; another number of faces is of other people."""
    left, blocks = np.zeros((0, dimension), np.float32), itertools.count()
    drawn = FaceVectors(faces, dimension, seed=faces)

    def draw(count: int) -> npt.NDArray[np.float32]:
        nonlocal left
        while len(left) < count:
            left = np.concatenate([left, drawn.block(next(blocks))[1]])
        some, left = left[:count], left[count:]
        return some

    return draw


# The service


@contextlib.contextmanager
def _served(store: str, folder: Path, *, together: int = 4) -> Iterator[tuple[str, int]]:
    """The real command, ready, in a process of its own: its address and its pid."""
    said = folder / "said"
    command = [sys.executable, "-m", "app.cli", "serve", "--store", store, "--port", "0", "--audit", f"{folder}/audit"]
    command += ["--together", str(together)]
    with said.open("wb") as out, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out) as process:
        try:
            yield _ready(process, said), process.pid
        finally:
            process.terminate()


def _ready(process: subprocess.Popen[bytes], said: Path) -> str:
    while process.poll() is None:
        if found := re.findall(r"at (http://127\.0\.0\.1:\d+)/ ", said.read_text()):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{found[0]}/readyz", timeout=60).status_code == 200:
                    return str(found[0])
        time.sleep(0.1)
    raise SystemExit(f"the service ended:\n{said.read_text()}")


@contextlib.contextmanager
def _publishing(store: str, encoder: str, faces: int) -> Iterator[None]:
    """Another process publishes a version with a few photos more, and the next when that is done."""
    command = [sys.executable, "-m", "benchmarks.serve", "--publish", store, encoder, str(faces)]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


# The command


def _print(row: Row) -> None:
    print(f"{row['faces']:,} faces (made in {row['made_in_s']} s)")
    among = row["among_strangers"]
    print(
        f"  one client among strangers: whole {among['whole']['p50']} / {among['whole']['p99']} ms, {among['memory_mib']} MiB"
    )
    for one in row.get("together_and_alone", []):
        for name in ("together", "alone"):
            of = one[name]
            print(
                f"  {one['clients']} clients, {name}: {of['a_second']} a second ({of['from_to']}), ms {of['ms']['p50']} / {of['ms']['p99']}"
            )
    for photo, parts in row["one_by_one"].items():
        told = "  ".join(f"{name} {ms['p50']} / {ms['p99']}" for name, ms in parts.items())
        print(f"  one client, {photo}: ms p50 / p99: {told}")
    for name, one in [("", row_) for row_ in row["at_once"]] + [(" while publishing", row["while_publishing"])]:
        memory = one["memory_mib"]
        print(
            f"  {one['clients']} clients{name}: {one['a_second']} a second, ms {one['ms']['p50']} / {one['ms']['p99']}, "
            f"{one['statuses']}, {one['versions']} versions, {memory['first_half']} then {memory['second_half']} MiB"
        )


def main() -> None:
    """Measure, print, and with --json give one object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="+", default=[5_000, 100_000], help="sizes (default: 5000 100000)")
    parser.add_argument("--million", action="store_true", help="a million faces too; takes 8 GiB and many minutes")
    parser.add_argument("--seconds", type=float, default=60, help="of each round of clients (default: 60)")
    parser.add_argument("--queries", type=int, default=100, help="asked one by one of each photo (default: 100)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="at once (default: 1 4 16)")
    parser.add_argument("--compare", action="store_true", help="ask a service that takes each query alone too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--publish", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish:
        store, encoder, faces = args.publish
        for more in range(1, 1_000):
            _publish(store, encoder, int(faces) + more * _MORE_PHOTOS)
        return
    rows = []
    for faces in args.faces + ([1_000_000] if args.million else []):
        asked = {"seconds": args.seconds, "queries": args.queries, "clients": args.clients, "compare": args.compare}
        rows.append(measure_size(faces, **asked))
        _print(rows[-1])
    result = {"machine": describe_machine() | {"load": os.getloadavg()[0]}, "serve": {"rows": rows}}
    print(f"machine: {result['machine']}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
