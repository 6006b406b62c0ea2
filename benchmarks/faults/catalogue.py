"""All faults, in the order in which they are run."""

from benchmarks.faults import (
    changing_photos,
    clock,
    corrupt,
    disk_full,
    duplicate_shard,
    full_artifacts,
    held_publish,
    io_errors,
    kill_calls,
    kill_command,
    kill_forget,
    kill_moments,
    kill_upkeep,
    permissions,
    power_loss,
    publish_races,
    reading,
    s3_scripts,
)
from benchmarks.faults.fault import Fault

__all__ = ["FAULTS"]

FAULTS: tuple[Fault, ...] = (
    kill_moments.FAULT,
    kill_calls.FAULT,
    kill_upkeep.FAULT,
    kill_forget.FAULT,
    disk_full.FAULT,
    full_artifacts.FAULT,
    io_errors.FAULT,
    power_loss.FAULT,
    s3_scripts.FAULT,
    publish_races.FAULT,
    held_publish.FAULT,
    reading.FAULT,
    corrupt.FAULT,
    duplicate_shard.FAULT,
    permissions.FAULT,
    clock.FAULT,
    changing_photos.FAULT,
    kill_command.FAULT,
)
