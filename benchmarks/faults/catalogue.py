"""All faults, in the order in which they are run."""

from benchmarks.faults import (
    changing_photos,
    clock,
    corrupt,
    disk_full,
    duplicate_shard,
    held_publish,
    io_errors,
    kill_calls,
    kill_moments,
    permissions,
    power_loss,
    publish_races,
)
from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

FAULTS: tuple[Fault, ...] = (
    kill_moments.FAULT,
    kill_calls.FAULT,
    disk_full.FAULT,
    io_errors.FAULT,
    power_loss.FAULT,
    publish_races.FAULT,
    held_publish.FAULT,
    corrupt.FAULT,
    duplicate_shard.FAULT,
    permissions.FAULT,
    clock.FAULT,
    changing_photos.FAULT,
)
