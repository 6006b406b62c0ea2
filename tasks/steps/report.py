"""A version's report: one self-contained page that says what is in it and how it came to be."""

import re
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from models.same_person import Calibration
from store.manifest import Manifest
from tasks.steps.calibrate_version import LEAST_CLAIM, LEAST_PAIRS, LEAST_PEOPLE, calibration_of
from tasks.steps.calibration_picture import probability_svg, reliability_svg
from tasks.steps.index_picture import latency_svg, recall_svg
from tasks.steps.index_words import index_rows
from tasks.steps.pages import render

__all__ = ["count_rejects", "write_report"]

_REASONS = 20


def write_report(manifest: Manifest, *, faces: pa.Table, photos: pa.Table) -> bytes:
    """The report as UTF-8 HTML.

    Args:
        manifest: of the version, complete but for the report itself.
        faces: label of VERSION_FACES.
        photos: status and reason of VERSION_PHOTOS.
    """
    calibration = calibration_of(manifest)
    named = faces["label"].filter(pc.greater(pc.binary_length(faces["label"]), 0))
    return render(
        "report.html.j2",
        manifest=manifest,
        reasons=count_rejects(photos)[:_REASONS],
        people=len(named.unique()),
        labelled_faces=len(named),
        calibration=calibration,
        pictures=_pictures(calibration, manifest.faces),
        index_pictures=[picture for picture in (recall_svg(manifest), latency_svg(manifest)) if picture],
        rows=index_rows(manifest),
        least_people=LEAST_PEOPLE,
        least_pairs=LEAST_PAIRS,
        least_claim=LEAST_CLAIM,
    )


def _pictures(calibration: Calibration | None, faces: int) -> tuple[str, str] | None:
    """The calibration's pictures; drawn from numbers, nothing of the user's is in them."""
    return None if calibration is None else (reliability_svg(calibration), probability_svg(calibration, faces))


def count_rejects(photos: pa.Table) -> list[tuple[str, str, int]]:
    """Why photos are not in the index: status, reason and how many, most first; reasons that differ in numbers are one.

    Args:
        photos: status and reason of VERSION_PHOTOS.
    """
    rejects = photos.select(["status", "reason"]).filter(pc.not_equal(photos["status"], "indexed"))
    rows = zip(*(column.to_pylist() for column in rejects.columns), strict=True)
    kinds = Counter((status, re.sub(r"\d[\d.]*", "N", reason or "no reason")) for status, reason in rows)
    return [(status, reason, n) for (status, reason), n in kinds.most_common()]
