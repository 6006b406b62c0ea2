"""The only place with retries, delays, caching and limits of what runs under Prefect.

What computes a shard is cached under a key of its inputs, its parameters and its step's version. What lists, checks and
publishes is never cached. Only what can heal is tried again: time-outs, throttling, 5xx and a dead child.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
from prefect import get_client, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State, TaskRun
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import concurrency
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.filesystems import RemoteFileSystem
from prefect.settings import get_current_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task, exponential_backoff

from store.errors import UnavailableError
from store.fingerprints import short_hash
from store.layout import results_folder, short_name
from store.storage import Storage
from tasks.steps.children import ChildDiedError
from tasks.steps.code_faces import CODE_FACES_VERSION
from tasks.steps.embed_faces import EMBED_FACES_VERSION
from tasks.steps.find_faces import FIND_FACES_VERSION, shard_of

__all__ = [
    "CODE",
    "EMBED",
    "FIND",
    "GPU_LIMIT",
    "LONG_RUN",
    "ONCE",
    "QUERY_RUN",
    "WATCH_RUN",
    "WORKERS",
    "can_heal",
    "gpu_if",
    "one_build",
    "store_limit",
    "stored_in",
    "threads",
]

WORKERS = os.cpu_count() or 1
"""Children, and threads that wait for them, where nobody says how many."""

RETRIES = 3
_HEALING_CODES = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError", "ServiceUnavailable"}
)
_HEALING_KINDS: tuple[type[BaseException], ...] = (
    ChildDiedError, UnavailableError, TimeoutError, ConnectionError, InterruptedError
)  # fmt: skip


def threads(workers: int = WORKERS) -> TaskRunner[Any]:
    """Prefect's thread pool of so many threads, each of which waits for one child."""
    runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=workers)
    return runner


def can_heal(error: BaseException) -> bool:
    """Whether the same call may succeed later: time-outs, lost connections, throttling, 5xx, a child that died."""
    if isinstance(error, _HEALING_KINDS):
        return True
    response = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, dict):
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return status >= 500 or status == 429 or response.get("Error", {}).get("Code") in _HEALING_CODES
    return False


def _retry_if_it_can_heal(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result()
    except BaseException as error:
        return can_heal(error)
    return False


def _find_key(context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    del context
    shard = shard_of(parameters["request"])
    return "find-faces-" + short_hash([FIND_FACES_VERSION, parameters["store"], parameters["contract"].id, shard])


def _embed_key(context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    del context
    found, encoder = parameters["found"], parameters["encoder"]
    key = [EMBED_FACES_VERSION, parameters["store"], parameters["contract"].id, encoder.id, found.shard.sha256]
    return "embed-faces-" + short_hash(key)


def _code_key(context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    del context
    block, coder = parameters["block"], parameters["coder"]
    key = [
        CODE_FACES_VERSION,
        parameters["store"],
        coder.encoder,
        coder.trained.sha256,
        coder.asked.sha256,
        block.sha256,
    ]
    return "code-faces-" + short_hash(key)


_HEAL: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(1),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _retry_if_it_can_heal,
}

ONCE: dict[str, Any] = {**_HEAL, "cache_policy": NO_CACHE, "persist_result": False}
"""Listing, planning, checking, publishing, training, asking: never cached."""

FIND: dict[str, Any] = {**_HEAL, "cache_key_fn": _find_key, "persist_result": True, "result_serializer": "json"}
"""A shard's faces: cached by contract, shard name (which determines its photos) and step version."""

EMBED: dict[str, Any] = {**_HEAL, "cache_key_fn": _embed_key, "persist_result": True, "result_serializer": "json"}
"""A shard's embeddings: cached by contract, encoder, the shard's bytes and step version."""


CODE: dict[str, Any] = {**_HEAL, "cache_key_fn": _code_key, "persist_result": True, "result_serializer": "json"}
"""A block of an index's faces: cached by the trained index's bytes, the queries', the block's (which faces, in which rows), and step
version."""


def stored_in(task: Task[..., Any], store: str, *, refresh: bool) -> Task[..., Any]:
    """The task with its results kept in the store's runs/, small JSON a call.

    Args:
        task: one that is cached.
        store: the store's uri.
        refresh: run whatever the cache says, because what it remembers is no longer in the store.
    """
    return task.with_options(result_storage=_result_storage(store), refresh_cache=refresh)


def _result_storage(store: str) -> Any:
    storage = Storage(store)
    uri = storage.uri_of(results_folder())
    if storage.local:
        folder = Path(uri)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    block = RemoteFileSystem(basepath=uri, settings={"use_listings_cache": False})
    save: Callable[..., Any] = block.save
    save(f"lookalike-results-{short_hash(uri)}", overwrite=True)
    return block


LONG_RUN: dict[str, Any] = {"timeout_seconds": 24 * 3600.0}
"""Building, training, evaluating, forgetting: a run that goes on for a day is stopped. What it finished is kept, so that the same
run started again goes on; the `lookalike` command takes the limit off, for whoever started it sees it run."""

QUERY_RUN: dict[str, Any] = {"timeout_seconds": 15 * 60.0}
"""One question: most of its time is a process that starts, or weights that are downloaded the first time."""

WATCH_RUN: dict[str, Any] = {"timeout_seconds": 3600.0}
"""Looking for new photos: listing a large bucket takes minutes, and waiting until nothing more comes."""

GPU_LIMIT = "gpu"
"""The global limit on work for GPUs; an operator sets it to their number."""

_LEASE_S = 120.0
"""A slot whose holder died is free again so much later."""


def store_limit(store: str) -> str:
    """The name of the global limit that lets one build at a time into a store."""
    return f"store-{short_name(Storage(store).uri)}"


@contextlib.contextmanager
def one_build(store: str) -> Iterator[None]:
    """Let one run at a time change a store; others wait here.

    Two builds of one store do no harm, but do each other's work. So what is waited for is a lease: it ends with the run, two
    minutes after its process was killed, and while Prefect's server is away the run that holds it goes on.
    """
    with _slot(store_limit(store)):
        yield


@contextlib.contextmanager
def gpu_if(device: Literal["cpu", "cuda"]) -> Iterator[None]:
    """Take one of the slots of the limit `gpu`, where the work is for one."""
    with _slot(GPU_LIMIT) if device == "cuda" else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _slot(name: str) -> Iterator[None]:
    """A slot of a global limit, which is made with one slot where there is none; without a server nobody else is there."""
    if get_current_settings().api.url is None:
        yield
        return
    limit = _limit(name)
    if limit.active_slots >= limit.limit:
        get_run_logger().info("waiting for %s: all %d slots are taken", name, limit.limit)
    held = contextlib.ExitStack()
    held.enter_context(concurrency(name, strict=True, lease_duration=_LEASE_S, raise_on_lease_renewal_failure=False))
    try:
        yield
    finally:
        _give_back(held, name)


def _give_back(held: contextlib.ExitStack, name: str) -> None:
    """Give a slot back; where the server is away its lease ends by itself, and what was done with the slot is done."""
    try:
        held.close()
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        get_run_logger().warning("Prefect did not take back %s, which is free in %.0f s: %s", name, _LEASE_S, error)


def _limit(name: str) -> GlobalConcurrencyLimitResponse:
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectNotFound):
            return client.read_global_concurrency_limit_by_name(name)
        with contextlib.suppress(ObjectAlreadyExists):  # another run was first
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        return client.read_global_concurrency_limit_by_name(name)
