"""Watch a source and have arrived photos built, by the Prefect server that PREFECT_API_URL names."""

import argparse
import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.store_option import store_of
from app.terminal import say

__all__ = ["add_arguments", "run", "show"]

_TOKEN = "LOOKALIKE_WATCH_TOKEN"  # noqa: S105  its name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE, and what makes the watcher look."""
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?",
        help="what is watched, as `lookalike build` takes it (default: all that the published version was built from)",
    )  # fmt: skip
    parser.add_argument("--deployment", default="local", help="the deployment of build-index to start (default: local)")
    parser.add_argument(
        "--settle", type=float, default=5.0, help="seconds without a change before it tells (default: 5)"
    )
    parser.add_argument(
        "--every", type=float, default=900.0, help="seconds after which it looks unasked (default: 900)"
    )
    parser.add_argument(
        "--poll", action="store_true", help="for network disks, whose changes the system does not tell of"
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT",
        help=f"also receive bucket notifications, POST /notifications; callers show {_TOKEN} where it is set",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Look at once, and whenever something changes, until interrupted."""
    from app.notification_server import listening_at, notification_app, parse_address  # noqa: PLC0415
    from app.watching import folder_of, ringing_for, watch_until_stopped  # noqa: PLC0415
    from store.notifications import touches  # noqa: PLC0415
    from store.storage import is_local  # noqa: PLC0415
    from tasks.steps.look_for_photos import watched_sources  # noqa: PLC0415

    store, token = store_of(args), os.environ.get(_TOKEN) or None
    listen = parse_address(args.listen, token=token) if args.listen else None
    sources = watched_sources(args.source, store=store)
    look = _Looks(args, store=store)
    bell, stopped = threading.Event(), threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        bell.set()

    def told(uris: list[str]) -> None:
        if any(touches(uri, source) for uri in uris for source in sources):
            bell.set()

    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, stop))
        folders = sorted({folder for source in sources if (folder := folder_of(source)) is not None})
        here = Path(store) if is_local(store) else None
        stack.enter_context(ringing_for(folders, bell, store=here, polling=args.poll))
        if listen is not None:
            stack.enter_context(listening_at(*listen, notification_app(told, token=token)))
        say(f"watching {', '.join(sources)} for {store}")
        watch_until_stopped(look, bell=bell, stopped=stopped, every_s=args.every)
    return {"looks": look.looks, "announced": look.announced}


def show(result: dict[str, Any]) -> str:
    """How often it looked, and how often it had something to tell."""
    return f"looked {result['looks']:,} times, announced {result['announced']:,}"


class _Looks:
    """Runs the flow `watch-source`; what goes wrong is said, and looked at again the next time."""

    def __init__(self, args: argparse.Namespace, *, store: str) -> None:
        from prefect.settings import get_current_settings  # noqa: PLC0415

        from store.errors import LookalikeError  # noqa: PLC0415

        if get_current_settings().api.url is None:
            raise LookalikeError(
                "no Prefect server is named, so nobody would build what arrives: start one and set PREFECT_API_URL to its address"
            )
        self.looks = self.announced = 0
        self._arguments = {
            "source": args.source, "store": store, "deployment": args.deployment, "settle_s": args.settle
        }  # fmt: skip

    def __call__(self) -> None:
        from flows.watch_source import watch_source  # noqa: PLC0415

        self.looks += 1
        try:
            found = watch_source(**self._arguments)
        except Exception as error:  # the disk, the bucket or the server may be back the next time
            say(f"cannot look now ({type(error).__name__}: {' '.join(str(error).split())}); looking again later")
            return
        for one in found:
            if one["announced"]:
                self.announced += 1
                say(
                    f"{one['source']}: {one['added']:,} added, {one['changed']:,} changed, {one['removed']:,} removed; announced"
                )
