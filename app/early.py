"""Refusals that need no Prefect, said before it is started."""

import argparse

__all__ = ["refuse_early"]


def refuse_early(args: argparse.Namespace, *, store: str) -> None:
    """Refuse a store, a source, an encoder or an index's budget that cannot be used.

    Raises:
        LookalikeError: one of them cannot; the message is the one the flow would end with half a minute later.
    """
    from models.photo import SUFFIXES  # noqa: PLC0415
    from store.errors import LookalikeError  # noqa: PLC0415
    from store.layout import open_store  # noqa: PLC0415
    from store.sources import check_source  # noqa: PLC0415
    from tasks.steps.resolve_encoder import resolve_encoder  # noqa: PLC0415

    if args.workers < 1:
        raise LookalikeError(f"--workers is {args.workers}: wanted at least 1")
    storage = open_store(store, create=True)
    check_source(args.source, suffixes=SUFFIXES, store_uri=storage.uri)
    if hasattr(args, "memory"):
        _refuse_budget(args)
    if hasattr(args, "encoder"):
        resolve_encoder(args.encoder, store=store)


def _refuse_budget(args: argparse.Namespace) -> None:
    from store.errors import LookalikeError  # noqa: PLC0415
    from store.index_choice import AskedBudget, memory_of  # noqa: PLC0415

    try:
        AskedBudget(memory_of(args.memory) if args.memory is not None else None, args.latency, args.recall)
    except ValueError as error:
        raise LookalikeError(f"the index's budget cannot be used: {error}") from error
