"""Ask with one photo, in short; `tasks/steps/ask.py` has everything that can be asked."""

from tasks.steps.answer import Answer
from tasks.steps.ask import ask_photo
from tasks.steps.query_options import QueryOptions

__all__ = ["query_photo"]


def query_photo(
    image: str, *, store: str, k: int = 10, version: int | None = None, encoder: str | None = None, device: str = "cpu"
) -> Answer:
    """The k most similar known faces of each face in a photo; arguments and errors as `QueryOptions` and `ask_photo` have them."""
    return ask_photo(image, store=store, options=QueryOptions(k=k, version=version, encoder=encoder), device=device)
