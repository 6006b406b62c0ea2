"""A version's report: one self-contained page that says what is in it and how it came to be."""

import re
from collections import Counter

import pyarrow as pa

from store.manifest import Manifest
from tasks.steps.pages import render

__all__ = ["count_rejects", "write_report"]

_REASONS = 20


def write_report(manifest: Manifest, *, faces: pa.Table, photos: pa.Table) -> bytes:
    """The report as UTF-8 HTML.

    Args:
        manifest: of the version, complete but for the report itself.
        faces: VERSION_FACES.
        photos: VERSION_PHOTOS.
    """
    labels = Counter(label for label in faces.column("label").to_pylist() if label)
    return render(
        "report.html.j2",
        manifest=manifest,
        reasons=count_rejects(photos)[:_REASONS],
        people=len(labels),
        labelled_faces=sum(labels.values()),
    )


def count_rejects(photos: pa.Table) -> list[tuple[str, str, int]]:
    """Why photos are not in the index: status, reason and how many, most first; reasons that differ in numbers are one.

    Args:
        photos: status and reason of VERSION_PHOTOS.
    """
    rows = zip(photos.column("status").to_pylist(), photos.column("reason").to_pylist(), strict=True)
    kinds = Counter(
        (status, re.sub(r"\d[\d.]*", "N", reason or "no reason")) for status, reason in rows if status != "indexed"
    )
    return [(status, reason, n) for (status, reason), n in kinds.most_common()]
