"""Where shards are computed: in children of this process, on its processors or its GPUs, or on a cluster."""

import contextlib
from collections.abc import Iterator
from typing import Literal

from tasks.steps.children import children, gpus

__all__ = ["computing"]


@contextlib.contextmanager
def computing(*, workers: int, cluster: str | None = None, device: Literal["cpu", "cuda"] = "cpu") -> Iterator[None]:
    """Have the shards that a flow maps in this block computed.

    Args:
        workers: children of this process; without a cluster, on the processor.
        cluster: `dask://host:port` of a scheduler, whose workers compute them instead.
        device: "cuda" gives each GPU one child, however many workers.

    Raises:
        LookalikeError: there is no GPU, or the cluster cannot be used; the message says why.
    """
    if cluster is not None:
        from tasks.cluster import on_cluster  # noqa: PLC0415  Dask takes a second to import

        with on_cluster(cluster, device=device):
            yield
        return
    slots = gpus() if device == "cuda" else ()
    with children(len(slots) or workers, gpus=slots):
        yield
