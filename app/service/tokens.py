"""Who may ask: tokens from a file, compared without telling how far a guess was right, and counted."""

import hashlib
import hmac
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from store.errors import LookalikeError

__all__ = ["ANYBODY", "TOKEN_VARIABLE", "Rates", "Token", "Tokens", "read_tokens"]

TOKEN_VARIABLE = "LOOKALIKE_TOKEN"  # noqa: S105  a name
"""Holds one token of scope admin, where a file of them would be too much."""

Scope = Literal["read", "admin"]
_LEAST_CHARS = 32
_SECRET = re.compile(r"[A-Za-z0-9._~+/=-]+")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")


@dataclass(frozen=True)
class Token:
    """Somebody who may ask.

    Attributes:
        name: by which the audit and the limits know them; never the secret.
        scope: "read" asks and looks; "admin" also reads the metrics and may name addresses to fetch.
        digest: SHA-256 of the secret.
    """

    name: str
    scope: Scope
    digest: bytes


ANYBODY = Token(name="anybody", scope="admin", digest=b"")
"""Whoever sits at this machine, where no tokens are asked for."""


@dataclass(frozen=True)
class Tokens:
    """All that are known; none at all means that everybody who reaches the service is let in."""

    known: tuple[Token, ...]

    def __bool__(self) -> bool:
        return bool(self.known)

    def find(self, secret: str) -> Token | None:
        """Whose secret this is. Every known one is compared, each in a time that does not hang on where it differs."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for token in self.known:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found


def read_tokens(path: str | None) -> Tokens:
    """The tokens of a file, a line each: scope, secret, and a name where wanted; and the one in LOOKALIKE_TOKEN.

    Raises:
        LookalikeError: the file cannot be read, or others can read it; a line is not such a line; a secret is short. The message
            names the line and never a secret.
    """
    known: list[Token] = []
    if path is not None:
        for number, line in enumerate(_read(path).splitlines(), start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                known.append(_parse(line, where=f"{path}, line {number}"))
    if alone := os.environ.get(TOKEN_VARIABLE):
        known.append(_parse(f"admin {alone}", where=TOKEN_VARIABLE))
    if path is not None and not known:
        raise LookalikeError(f"{path} holds no token: write a line `read SECRET NAME` or `admin SECRET NAME`")
    return Tokens(tuple(known))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise LookalikeError(f"others may read the tokens in {path}: chmod 600 {path}")
            return file.read(2**20)
    except (OSError, UnicodeDecodeError) as error:
        raise LookalikeError(f"the tokens in {path} cannot be read ({type(error).__name__})") from error


def _parse(line: str, *, where: str) -> Token:
    scope, *rest = line.split()
    if scope not in {"read", "admin"} or not 1 <= len(rest) <= 2:
        raise LookalikeError(f"{where}: wanted `read SECRET NAME` or `admin SECRET NAME`")
    secret = rest[0]
    if len(secret) < _LEAST_CHARS or not _SECRET.fullmatch(secret):
        raise LookalikeError(
            f"{where}: a secret has at least {_LEAST_CHARS} letters, digits or ._~+/=-; `openssl rand -hex 32` makes one"
        )
    digest = hashlib.sha256(secret.encode()).digest()
    name = rest[1] if len(rest) == 2 else digest.hex()[:8]
    if not _NAME.fullmatch(name):
        raise LookalikeError(f"{where}: a name has at most 40 letters, digits or ._-")
    return Token(name=name, scope="admin" if scope == "admin" else "read", digest=digest)


class Rates:
    """How often each token may ask: a bucket each that holds a minute's worth and fills evenly.

    Args:
        a_minute: of each.
        now: seconds, monotonic.
    """

    def __init__(self, a_minute: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._a_minute, self._now = a_minute, now
        self._full: dict[str, tuple[float, float]] = {}

    def wait_s(self, name: str) -> float:
        """Take one from the bucket; 0.0, or in how many seconds there is one again where it is empty."""
        now, a_second = self._now(), self._a_minute / 60
        left, at = self._full.get(name, (float(self._a_minute), now))
        left = min(float(self._a_minute), left + (now - at) * a_second)
        if left < 1:
            self._full[name] = left, now
            return (1 - left) / a_second
        self._full[name] = left - 1, now
        return 0.0
