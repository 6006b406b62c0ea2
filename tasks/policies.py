"""The only place with retries, delays, caching and limits.

What computes a shard is cached under a key of its inputs, its parameters and its step's version. What lists, checks and
publishes is never cached. Only what can heal is tried again: time-outs, throttling, 5xx and a dead child.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.filesystems import RemoteFileSystem
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task, exponential_backoff

from store.errors import UnavailableError
from store.fingerprints import short_hash
from store.layout import results_folder
from store.storage import Storage
from tasks.steps.children import ChildDiedError
from tasks.steps.embed_faces import EMBED_FACES_VERSION
from tasks.steps.find_faces import FIND_FACES_VERSION, shard_of

__all__ = ["EMBED", "FIND", "ONCE", "WORKERS", "can_heal", "stored_in", "threads"]

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
