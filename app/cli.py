"""The `lookalike` command: exit code 0 done, 1 refused or failed with one clear sentence, 2 usage."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from app.environment import prepare_prefect

__all__ = ["main"]

COMMANDS = (
    "demo", "plan", "build", "query", "train", "evaluate",
    "watch", "versions", "diff", "rollback", "verify", "vacuum", "export", "import", "forget", "serve",
    "up", "down", "deploy",
)  # fmt: skip
_MODULES = {"export": "export_version", "import": "import_version"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` is the process's own when it is not given."""
    args = _parser().parse_args(argv)
    prepare_prefect(verbose=args.verbose)
    try:
        result: dict[str, Any] = args.run(args)
    except KeyboardInterrupt:
        return _refuse(args, "interrupted; finished shards are kept, run the same command again to go on")
    except Exception as error:  # the last place: a sentence for the user, the traceback for whoever asks
        if args.verbose:
            raise
        return _refuse(args, _sentence(error))
    if args.json:
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        print(args.show(result), flush=True)
    return 1 if result.get("problems") else 0  # what was asked for is printed, and it is not good


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lookalike", description="Reverse visual search for faces, run by Prefect.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"app.commands.{_MODULES.get(name, name)}")
        command = commands.add_parser(name, help=module.__doc__, description=module.__doc__)
        command.add_argument(
            "--store",
            default=os.environ.get("LOOKALIKE_STORE"),
            help="a folder or s3://bucket/prefix (LOOKALIKE_STORE; default ./lookalike-store)",
        )
        command.add_argument("--json", action="store_true", help="the last line of stdout is one JSON object")
        command.add_argument(
            "--verbose", action="store_true", help="Prefect's log lines, and the traceback of a failure"
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, show=module.show)
    return parser


def _refuse(args: argparse.Namespace, sentence: str) -> int:
    if args.json:
        print(json.dumps({"error": sentence}, ensure_ascii=False), flush=True)
    print(f"lookalike: {sentence}", file=sys.stderr, flush=True)
    return 1


def _sentence(error: BaseException) -> str:
    """The error's own words where it is lookalike's; otherwise its kind too, and where to learn more."""
    from store.errors import LookalikeError  # noqa: PLC0415

    text = " ".join(str(error).split())
    if isinstance(error, LookalikeError):
        return text
    return f"{type(error).__name__}: {text or 'no message'} (run again with --verbose for the whole story)"


if __name__ == "__main__":
    sys.exit(main())
