"""Task: tell Prefect that photos have arrived."""

import time

from prefect import get_run_logger, task

from tasks import policies
from tasks.arrivals import build_under_way, emit_arrival
from tasks.steps import look_for_photos as step

__all__ = ["announce_photos"]


@task(name="announce-photos", **policies.ONCE)
def announce_photos(look: step.Look, *, deployment: str, again_after_s: float, full: bool) -> bool:
    """Ask for a build, unless one was asked for already; returns whether it was asked for now."""
    log, now_s = get_run_logger(), time.time()
    if not full and not look.due(now_s=now_s, again_after_s=again_after_s):
        log.info("%s", "announced before" if look.differs else "nothing new")
        return False
    if (build := build_under_way(look)) is not None:
        log.info("the build %s has still to deal with them", build)
        return False
    claimed = step.claim_look(look, now_s=now_s)
    if claimed is None:
        log.info("another watcher announces them, or a build has just ended")
        return False
    try:
        emit_arrival(claimed, deployment=deployment, full=full)
    except BaseException:
        step.withdraw_look(claimed, look)
        raise
    log.info("announced %s", look.counts)
    return True
