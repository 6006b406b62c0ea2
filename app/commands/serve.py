"""Answer over HTTP, with a page to look at."""

import argparse
import os
from typing import Any

from app.store_option import store_of
from app.terminal import say

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen, whom to let in, how much to take on."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; any but this machine's own wants --tokens"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a host name under which the service is reached; may be given again",
    )
    parser.add_argument(
        "--tokens",
        metavar="FILE",
        help="who may ask: lines `read SECRET NAME` or `admin SECRET NAME`; LOOKALIKE_TOKEN holds a single one",
    )
    parser.add_argument(
        "--allow-url", action="store_true", help="fetch photos from public https addresses that a query names"
    )
    parser.add_argument("--audit", metavar="FILE", help="where the line a query goes (default: stderr)")
    parser.add_argument("--workers", type=int, default=1, help="processes, which share the mapped index (default: 1)")
    parser.add_argument(
        "--together",
        type=int,
        default=4,
        help="queries with a small photo that are worked on together; 1 takes each alone (default: 4)",
    )
    parser.add_argument(
        "--waiting",
        type=int,
        default=16,
        help="queries that may wait in a process before others are told to come again (default: 16)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve until stopped."""
    from app.service.running import check_settings, listen, serve  # noqa: PLC0415
    from app.service.settings import ServiceSettings  # noqa: PLC0415

    settings = ServiceSettings(
        store=store_of(args),
        host=args.host,
        port=args.port,
        names=tuple(args.name),
        tokens=args.tokens,
        allow_url=args.allow_url,
        audit=os.path.abspath(args.audit) if args.audit else None,
        workers=args.workers,
        slots=max(1, (os.cpu_count() or 1) // args.workers),
        together=args.together,
        waiting=args.waiting,
    )
    check_settings(settings)
    listener = listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"serving {settings.store} at http://{shown}:{port}/ (Ctrl-C stops it)")
    with listener:
        serve(settings, listener=listener)
    return {"stopped": True, "host": settings.host, "port": port}


def show(result: dict[str, Any]) -> str:
    """A line."""
    return f"stopped serving at {result['host']}:{result['port']}"
