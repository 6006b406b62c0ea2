"""A Dask cluster's workers, as those who compute shards: Prefect hands them tasks, and each keeps children of its own."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any, Literal

from distributed import Client, Worker, WorkerPlugin
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings
from prefect_dask.task_runners import DaskTaskRunner

from store.errors import LookalikeError
from tasks.steps.children import children, gpus

__all__ = ["ChildrenOfWorker", "on_cluster", "scheduler_of"]

_SCHEMES = {"dask": "tcp", "dask+tls": "tls"}
_TRIMMING = "MALLOC_TRIM_THRESHOLD_"
"""Dask has its workers give freed memory back at once; in children, which want as much again a moment later, detecting takes half as long again."""


@contextlib.contextmanager
def on_cluster(cluster: str, *, device: Literal["cpu", "cuda"]) -> Iterator[None]:
    """Have what a flow maps in this block done by a cluster's workers.

    Shards and results lie in the store, so any worker can take any shard, and one that dies takes none with it.

    Args:
        cluster: `dask://host:port` of its scheduler.
        device: of the nets.

    Raises:
        LookalikeError: it cannot be used; the message says why.
    """
    address = scheduler_of(cluster)
    if get_current_settings().api.url is None:
        raise LookalikeError("a cluster's workers need a Prefect server that all of them reach: set PREFECT_API_URL")
    run = FlowRunContext.get()
    if run is None:
        raise RuntimeError("only a flow maps shards to a cluster")
    with DaskTaskRunner(address=address, client_kwargs={"timeout": 20}) as runner:
        try:
            client: Client = runner.client
            client.wait_for_workers(1, timeout=60)
        except OSError as error:  # time-outs among them
            raise LookalikeError(
                f"the cluster {cluster} has no scheduler or no worker ({error}): start both first"
            ) from error
        client.register_plugin(ChildrenOfWorker(device))
        with run.model_copy(update={"task_runner": runner}):
            yield


def scheduler_of(cluster: str) -> str:
    """Dask's address of a scheduler that is named as `dask://host:port`, or `dask+tls://host:port`.

    Raises:
        LookalikeError: it is no such name.
    """
    scheme, separator, place = cluster.partition("://")
    if not separator or scheme not in _SCHEMES or not place.rpartition(":")[2].isdigit():
        raise LookalikeError(f"the cluster is {cluster!r}: wanted dask://host:port of a Dask scheduler")
    return f"{_SCHEMES[scheme]}://{place}"


class ChildrenOfWorker(WorkerPlugin):
    """Gives each worker of a cluster a child a thread, or one a GPU, behind which photos are decoded; they stay for later builds.

    Args:
        device: of the nets.
    """

    idempotent = True

    def __init__(self, device: Literal["cpu", "cuda"]) -> None:
        self.name = f"lookalike-children-{device}"
        self._device = device
        self._ending = contextlib.ExitStack()

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker that there is, and in each that comes."""
        multiprocessing.current_process().daemon = (
            False  # a nanny's worker may have no children otherwise; these leave with it
        )
        os.environ.pop(_TRIMMING, None)
        slots = gpus() if self._device == "cuda" else ()
        self._ending.enter_context(children(len(slots) or worker.state.nthreads, gpus=slots))

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the worker ends."""
        self._ending.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_device": self._device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _ending=contextlib.ExitStack())
