"""The `--store` option, which every command has."""

import argparse

from store.storage import normalise_uri

__all__ = ["DEFAULT_STORE", "store_of"]

DEFAULT_STORE = "lookalike-store"


def store_of(args: argparse.Namespace) -> str:
    """The store's one spelling: what was given, LOOKALIKE_STORE, or ./lookalike-store."""
    return normalise_uri(args.store or DEFAULT_STORE)
