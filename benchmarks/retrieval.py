"""How often the nearest other photo of a published version shows the same person, and whether photos find themselves.

    python -m benchmarks.retrieval --store STORE [--photos N] [--json]

Leave-one-out over people with two or more photos: the main face of each photo (nearest the centre) asks for the nearest
main face of any other photo; people are named by label, or by the photo's folder. Then N photos are asked anew, from
their files, and must find themselves first.
"""

import argparse
import json
import random
import sys
from typing import Any

from benchmarks.machine import describe_machine
from store.layout import open_store
from store.storage import normalise_uri
from store.version_files import read_photos_of
from store.versions import read_version
from tasks.steps.leave_one_out import leave_one_out
from tasks.steps.query_photo import query_photo

__all__ = ["main", "measure"]


def measure(store: str, *, photos: int) -> dict[str, Any]:
    """The figures, by name."""
    storage = open_store(store)
    version = read_version(storage)
    measured = leave_one_out(store)
    table = read_photos_of(storage, version)
    indexed = [row["uri"] for row in table.select(["uri", "status"]).to_pylist() if row["status"] == "indexed"]
    asked = random.Random(0).sample(indexed, min(photos, len(indexed)))
    lowest = 1.0
    first = 0
    for uri in asked:
        answer = query_photo(uri, store=store, k=1)
        best = [face.matches[0] for face in answer.faces]
        first += all(uri in match.uris for match in best)
        lowest = min(lowest, *(match.cosine for match in best))
    return {
        "version": version.number,
        "photos": version.manifest.photos,
        "faces": version.manifest.faces,
        "with_a_face": sum(version.manifest.counts[status] for status in ("indexed", "duplicate"))
        / version.manifest.photos,
        "precision_at_1": measured.precision_at_1,
        "queries": measured.queries,
        "gallery": measured.gallery,
        "asked_anew": len(asked),
        "found_themselves_first": first,
        "lowest_own_cosine": lowest,
    }


def main() -> int:
    """Print the figures; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="lookalike-store")
    parser.add_argument("--photos", type=int, default=50, help="photos to ask anew (default: 50)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = measure(normalise_uri(args.store), photos=args.photos) | {"machine": describe_machine()}
    for name, value in result.items():
        print(f"{name:<24} {value}")
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
