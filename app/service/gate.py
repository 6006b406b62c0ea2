"""How much the service takes on: a few queries at a time, a few that wait, and no more bytes than it has room for."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from app.service.refusals import Refusal

__all__ = ["Gate"]

_GUESS_S = 1.0


class Gate:
    """Counts what one process holds; used from its event loop only.

    Args:
        slots: queries at work at a time.
        together: small queries at work at a time for each slot, besides.
        waiting: queries that may wait.
        held_bytes: that all of them together may bring.
    """

    def __init__(self, *, slots: int, together: int, waiting: int, held_bytes: int) -> None:
        self._slots, self._together, self._waiting, self._room = slots, together, waiting, held_bytes
        self._turns, self._small_turns = asyncio.Semaphore(slots), asyncio.Semaphore(slots * together)
        self._takes_s = _GUESS_S
        self.inside = 0
        self.working = 0
        self.refused = 0

    @contextlib.asynccontextmanager
    async def place(self, most_bytes: int) -> AsyncIterator[None]:
        """A place for a query and the bytes it may bring, before any of them is read.

        Raises:
            Refusal: 503, with a guess of when there is room again.
        """
        if self.inside >= self._slots + self._waiting or most_bytes > self._room:
            self.refused += 1
            wait_s = self._takes_s * (self.inside + 1) / self._slots
            raise Refusal(503, "too many queries at once; come again in a moment", retry_after_s=wait_s)
        self.inside += 1
        self._room -= most_bytes
        try:
            yield
        finally:
            self.inside -= 1
            self._room += most_bytes

    @contextlib.asynccontextmanager
    async def turn(self, *, small: bool = False) -> AsyncIterator[None]:
        """One of the slots, in the order in which they were asked for; small queries share one."""
        async with self._small_turns if small else self._turns:
            started = time.monotonic()
            self.working += 1
            try:
                yield
            finally:
                self.working -= 1
                taken_s = (time.monotonic() - started) / (self._together if small else 1)
                self._takes_s += 0.2 * (taken_s - self._takes_s)
