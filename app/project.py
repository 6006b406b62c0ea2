"""Where the project lies."""

from pathlib import Path

__all__ = ["PROJECT"]

PROJECT = Path(__file__).resolve().parent.parent
"""The folder of `flows`, `tasks` and their like, from which lookalike runs as an application."""
