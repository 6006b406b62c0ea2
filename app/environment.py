"""Prefect's surroundings, set before it is imported, from whatever folder `lookalike` is run."""

import os
from pathlib import Path

from app.project import PROJECT

__all__ = ["prepare_prefect"]


def prepare_prefect(*, verbose: bool = False) -> None:
    """Give Prefect a home inside the project, time to start, and no telemetry; what the user has set stays.

    A server that `lookalike up` started there is used, unless the environment names another.

    Args:
        verbose: Prefect's own log lines go to stderr too; otherwise only lookalike's.
    """
    home = PROJECT / ".prefect"
    if not os.access(PROJECT, os.W_OK):
        home = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "lookalike" / "prefect"
    defaults = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        from app.local_server import running_api  # noqa: PLC0415

        url = running_api(Path(os.environ["PREFECT_HOME"]))
        if url is not None:
            os.environ["PREFECT_API_URL"] = url
