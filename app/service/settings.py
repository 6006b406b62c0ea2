"""What a service is told when it starts."""

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from store.errors import LookalikeError

__all__ = ["SETTINGS_VARIABLE", "ServiceSettings", "is_loopback"]

SETTINGS_VARIABLE = "LOOKALIKE_SERVICE"
"""Carries the settings to worker processes; no secret is among them."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MIB = 2**20


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a service that listens there."""
    return host in _LOOPBACK


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """How a service listens, whom it lets in, and how much it takes on.

    Attributes:
        store: its uri.
        host: the address to listen at.
        port: 0 takes a free one.
        names: host names under which it is reached, besides the address.
        tokens: path of the file of tokens; None where there is none.
        allow_url: fetch photos from public https addresses that a query names.
        audit: path of the file that gets a line a query; None writes them to stderr.
        workers: processes.
        slots: queries that a process works on at a time.
        together: queries with a small photo that share a slot: their faces are looked for and embedded in one batch.
        waiting: queries that may wait for a slot in a process; others are told to come again.
        max_body_bytes: of one request.
        held_bytes: of all requests that a process holds at a time.
        body_seconds: in which a request must have come.
        searches_a_minute: of one token; as many again may come at once.
        looks_a_minute: of one token, at pictures and lists.

    Raises:
        LookalikeError: a value is out of range; the message names it.
    """

    store: str
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    tokens: str | None = None
    allow_url: bool = False
    audit: str | None = None
    workers: int = 1
    slots: int = 2
    together: int = 4
    waiting: int = 16
    max_body_bytes: int = 64 * _MIB
    held_bytes: int = 256 * _MIB
    body_seconds: float = 30.0
    searches_a_minute: int = 120
    looks_a_minute: int = 3000

    def __post_init__(self) -> None:
        for name in ("workers", "slots", "together", "searches_a_minute", "looks_a_minute"):
            if getattr(self, name) < 1:
                raise LookalikeError(f"{name} is {getattr(self, name)}: wanted at least 1")
        if self.waiting < 0 or not 0 <= self.port < 65536:
            raise LookalikeError(f"waiting is {self.waiting} and port {self.port}: wanted 0 or more, and 0 to 65535")
        if not 1024 <= self.max_body_bytes <= self.held_bytes:
            raise LookalikeError(
                f"max_body_bytes is {self.max_body_bytes}: wanted 1024 to held_bytes, {self.held_bytes}"
            )

    def to_environment(self) -> None:
        """Leave the settings to the processes that are started from here."""
        os.environ[SETTINGS_VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> "ServiceSettings":
        """The settings that the process which started this one left."""
        values: dict[str, Any] = json.loads(os.environ[SETTINGS_VARIABLE])
        return cls(**values | {"names": tuple(values["names"])})
