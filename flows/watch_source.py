"""Flow `watch-source`: look for new photos, and tell of them so that a build is started."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from store.errors import LookalikeError
from tasks import policies
from tasks.announce_photos import announce_photos
from tasks.look_for_photos import look_for_photos
from tasks.steps.look_for_photos import watched_sources

__all__ = ["watch_source"]


@flow(name="watch-source", flow_run_name="watch-source", **policies.WATCH_RUN)
def watch_source(
    source: str | None = None,
    store: str = "lookalike-store",
    deployment: str = "local",
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 5.0,
    longest_s: Annotated[float, Field(ge=0, le=86_400)] = 120.0,
    again_after_s: Annotated[float, Field(ge=0, le=86_400)] = 3600.0,
    full: bool = False,
) -> list[dict[str, Any]]:
    """Compare listings with the published version, and announce photos that no build has dealt with.

    No photo is read and no model is loaded. The event `lookalike.photos.arrived` starts the deployment of `build-index` that it
    names; the same photos are announced once, and again only if no build of them has ended well.

    Args:
        source: a folder, a glob, an s3:// prefix or a list; empty for all that the published version was built from.
        store: a folder or an s3:// prefix; made when it is missing.
        deployment: the deployment of build-index that is to build them.
        settle_s: seconds between two looks when something came; it is announced when both see the same.
        longest_s: seconds after which it is announced although more still comes.
        again_after_s: seconds after which photos are announced again that no build has dealt with; doubled each time.
        full: announce every source whatever its listing says, for a build that compares the hash of every photo.
    """
    told, refused = [], []
    for one in watched_sources(source, store=store):
        try:
            look = look_for_photos(one, store=store, settle_s=settle_s, longest_s=longest_s)
            announced = announce_photos(look, deployment=deployment, again_after_s=again_after_s, full=full)
            told.append(look.as_json() | {"announced": announced})
        except LookalikeError as error:  # the other sources are looked at all the same
            refused.append(error)
    if refused:
        raise refused[0] if len(refused) == 1 else LookalikeError("; ".join(map(str, refused)))
    return told
