"""Stop the server and the worker that `lookalike up` started."""

import argparse
from typing import Any

from app.commands.up import add_home, home_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which."""
    add_home(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Stop both, by their own pids; no Prefect is needed."""
    from app.local_server import LocalServer  # noqa: PLC0415

    server = LocalServer(home_of(args))
    return {"stopped": server.stop(), "home": str(server.home)}


def show(result: dict[str, Any]) -> str:
    """What became of them."""
    where = f"its data stays in {result['home']}"
    return f"stopped; {where}" if result["stopped"] else f"nothing ran in {result['home']}"
