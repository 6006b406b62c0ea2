"""Start a Prefect server and a worker on this machine, with everything deployed."""

import argparse
import os
from pathlib import Path
from typing import Any

from app.store_option import store_of
from app.terminal import say

__all__ = ["add_arguments", "add_home", "home_of", "run", "show"]

_PORT = 4200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where, and on which port of the loopback interface."""
    add_home(parser)
    parser.add_argument("--port", type=int, default=_PORT, help=f"on 127.0.0.1 (default: {_PORT})")


def add_home(parser: argparse.ArgumentParser) -> None:
    """The folder that holds everything the server and the worker write."""
    parser.add_argument("--home", type=Path, help="a folder (PREFECT_HOME; default .prefect in the project)")


def home_of(args: argparse.Namespace) -> Path:
    """The folder that was given, or Prefect's home."""
    return args.home or Path(os.environ["PREFECT_HOME"])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Start what does not run yet, then deploy; schedules that are new are paused."""
    from app.local_server import LocalServer, ServerError  # noqa: PLC0415
    from store.errors import LookalikeError  # noqa: PLC0415

    server = LocalServer(home_of(args))
    try:
        say("starting the server (half a minute the first time)")
        os.environ["PREFECT_API_URL"] = server.start_server(args.port)
        os.environ["PREFECT_HOME"] = str(server.home)
        from app.deploying import deploy_everything  # noqa: PLC0415

        say("deploying")
        deployed = deploy_everything(store=store_of(args), schedules_on=False)
        say("starting a worker")
        server.start_worker()
    except ServerError as error:
        raise LookalikeError(str(error)) from error
    return server.as_json() | deployed


def show(result: dict[str, Any]) -> str:
    """Where to look and what to type."""
    return "\n".join(
        [
            f"Prefect runs at {result['ui']}, everything it writes is in {result['home']}",
            f"deployed: {', '.join(result['deployments'])}; schedules are paused",
            "start a run there, or: prefect deployment run 'build-index/local' --param source=FOLDER --watch",
            f"with: export PREFECT_API_URL={result['api']}",
            "stop it: lookalike down",
        ]
    )
