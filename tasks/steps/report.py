"""A version's report: one self-contained page that says what is in it and how it came to be."""

from collections import Counter

import pyarrow as pa

from store.manifest import Manifest
from tasks.steps.pages import render

__all__ = ["write_report"]

_REASONS = 20


def write_report(manifest: Manifest, *, faces: pa.Table, photos: pa.Table) -> bytes:
    """The report as UTF-8 HTML.

    Args:
        manifest: of the version, complete but for the report itself.
        faces: VERSION_FACES.
        photos: VERSION_PHOTOS.
    """
    statuses = photos.column("status").to_pylist()
    reasons = Counter(
        (status, reason)
        for status, reason in zip(statuses, photos.column("reason").to_pylist(), strict=True)
        if status != "indexed"
    )
    labels = Counter(label for label in faces.column("label").to_pylist() if label)
    return render(
        "report.html.j2",
        manifest=manifest,
        reasons=[(status, reason, n) for (status, reason), n in reasons.most_common(_REASONS)],
        people=len(labels),
        labelled_faces=sum(labels.values()),
    )
