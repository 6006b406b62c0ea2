"""Keep what a plan builds on from being vacuumed while it is carried out."""

import contextlib
import uuid
from collections.abc import Iterator

from store.layout import open_store
from store.leases import hold_lease
from tasks.steps.find_faces import shard_of
from tasks.steps.plan_build import BuildPlan

__all__ = ["hold_plan"]


@contextlib.contextmanager
def hold_plan(plan: BuildPlan, *, store: str) -> Iterator[None]:
    """Hold a lease on every shard of the plan, those it will make among them, while this block runs.

    Raises:
        VersionError: a vacuum is removing some of them right now; the message says what to do.
    """
    refs = (*plan.requests, *plan.finished, *plan.compactions, *plan.kept)
    with hold_lease(open_store(store), f"build-{uuid.uuid4()}", shards=map(shard_of, refs)):
        yield
