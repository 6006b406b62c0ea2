"""What the service says when it does not answer: a status, and one sentence for whoever asked."""

import math

from fastapi.responses import JSONResponse

__all__ = ["Refusal", "refuse"]


class Refusal(Exception):  # noqa: N818  an answer
    """A request that is not answered.

    Args:
        status: of HTTP.
        sentence: for whoever asked.
        retry_after_s: when to come again, where that makes sense.
    """

    def __init__(self, status: int, sentence: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry_after_s = status, sentence, retry_after_s


def refuse(refusal: Refusal) -> JSONResponse:
    """The refusal as a response: `{"error": sentence}`."""
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_s)))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="lookalike"'
    return JSONResponse({"error": refusal.sentence}, status_code=refusal.status, headers=headers)
