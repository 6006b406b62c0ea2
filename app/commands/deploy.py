"""Put pools, limits, deployments and alerts on the Prefect server that PREFECT_API_URL names."""

import argparse
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How schedules start."""
    parser.add_argument(
        "--pause-schedules",
        action="store_true",
        help="schedules that are new start paused, instead of as the files say",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Deploy everything; again is no harm."""
    from prefect.settings import get_current_settings  # noqa: PLC0415

    from app.deploying import deploy_everything  # noqa: PLC0415
    from store.errors import LookalikeError  # noqa: PLC0415

    if get_current_settings().api.url is None:
        raise LookalikeError(
            "PREFECT_API_URL names no server: set it (http://127.0.0.1:4200/api), or run `lookalike up`"
        )
    return deploy_everything(store=store_of(args), schedules_on=not args.pause_schedules)


def show(result: dict[str, Any]) -> str:
    """What stands on the server now."""
    lines = [f"{kind}: {', '.join(result[kind])}" for kind in ("pools", "deployments", "automations")]
    if not result["alerts_sent"]:
        lines.append(
            "alerts show in Prefect's event feed only: set LOOKALIKE_ALERT_URL, or make a notification block "
            "`lookalike-alerts` in Prefect, and deploy again"
        )
    return "\n".join(lines)
