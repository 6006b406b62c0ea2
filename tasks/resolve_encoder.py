"""Task: bring the encoder asked for into the store."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import resolve_encoder as step

__all__ = ["resolve_encoder"]


@task(name="resolve-encoder", **policies.ONCE)
def resolve_encoder(asked: str | None, *, store: str) -> step.EncoderRef:
    """The encoder a build is to use."""
    encoder = step.resolve_encoder(asked, store=store)
    get_run_logger().info("encoder %s (%s), %d dimensions", encoder.id, encoder.name, encoder.dimension)
    return encoder
