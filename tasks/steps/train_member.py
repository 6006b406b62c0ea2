"""One of several processes that train together; torchrun starts it.

    torchrun --standalone --nproc-per-node 2 -m tasks.steps.train_member --store STORE --job ID [--device cuda]

The first member tells of each epoch on stdout, a JSON line each, and puts the result beside the job.
"""

import argparse
import json
import sys
from dataclasses import asdict

from models.team import join_team
from models.training import EpochRecord, RunOptions
from store.layout import open_store
from tasks.steps.training_job import read_job, run_job, write_result

__all__ = ["main"]


def main() -> int:
    """Join the team, train, and, as the first member, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="a folder or s3:// prefix that every member reaches")
    parser.add_argument("--job", required=True, help="the job's id, as `lookalike train` prints it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    team, device = join_team(args.device)
    storage = open_store(args.store)
    try:
        result = run_job(read_job(storage, args.job), storage, RunOptions(device=device, team=team, on_epoch=_tell))
    except Exception as error:
        if team.leads:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        raise
    if team.leads:
        write_result(storage, args.job, result)
    return 0


def _tell(record: EpochRecord) -> None:
    print(json.dumps({"epoch": asdict(record)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
