"""Forget a photo, a face or a person: remove them from every version, block them, and prove it."""

import argparse
from typing import Any

from app.store_option import store_of
from app.terminal import say, showing_progress

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who is meant; this cannot be taken back."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--photo", metavar="URI", help="a photo, under every name its bytes have")
    who.add_argument("--face", metavar="ID", help="one face, as a query shows its id; its photo stays")
    who.add_argument("--label", metavar="NAME", help="every photo with this label, whole")
    who.add_argument("--resume", action="store_true", help="finish what an interrupted forget began")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Exclude who is meant, which every query follows within seconds, then run the flow `forget`."""
    from tasks.steps.forget import begin_forget  # noqa: PLC0415
    from tasks.steps.forget_exclude import Wish  # noqa: PLC0415

    store = store_of(args)
    wishes = [Wish(kind, getattr(args, kind)) for kind in ("photo", "face", "label") if getattr(args, kind) is not None]
    ticket = begin_forget(wishes[0] if wishes else None, store=store)
    if wishes:
        say("excluded: no query shows it any more; removing what is stored")
    from flows.forget import forget  # noqa: PLC0415

    with showing_progress():
        return forget.with_options(timeout_seconds=0)(store=store, ticket=ticket)


def show(result: dict[str, Any]) -> str:
    """What went, what was looked through, and what no command can take back."""
    scan, versions = result["scan"], ", ".join(map(str, result["versions_rewritten"])) or "none"
    kinds = ", ".join(kind.replace("_", " ") for kind, n in scan["searched"].items() if n)
    lines = [
        f"forgot {result['photos']:,} photos and {result['faces']:,} faces; versions replaced: {versions}",
        f"looked through {scan['files']:,} files, {scan['bytes']:,} bytes, for {sum(scan['searched'].values()):,} traces "
        f"({kinds or 'tags only: this run finished an earlier one'}): {sum(scan['hits'].values())} found",
        f"verified: {'yes' if result['verified'] else 'NO'}; entry of the audit: {result['audit_sha256']}",
        *result["problems"],
    ]
    if result["trained_encoders"]:
        lines.append(
            f"not erased: the weights of {len(result['trained_encoders'])} trained encoders "
            f"({', '.join(one[:12] for one in result['trained_encoders'])}) may have learned from these photos; train anew without them"
        )
    return "\n".join(lines)
