"""Pages for people: every value is escaped, pictures are inside, nothing is loaded from anywhere."""

import base64
from functools import lru_cache
from typing import Any

import jinja2

__all__ = ["jpeg_url", "render"]


def render(template: str, **values: Any) -> bytes:
    """A template of `tasks/steps/templates` filled in, as UTF-8."""
    return _environment().get_template(template).render(values).encode()


def jpeg_url(data: bytes) -> str:
    """A JPEG as a `data:` url."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tasks.steps"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
