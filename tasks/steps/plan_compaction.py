"""Which shards are put together anew from rows that are stored already: no photo is read, no face is searched.

A shard with rows that the next version no longer has is written again without them, so that their bytes go at the next vacuum.
Small shards are merged when there are many.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.fingerprints import fingerprint, shard_name
from store.manifest import Manifest
from store.shards import cut_into_shards
from tasks.steps.compare_listing import Comparison

__all__ = ["MANY", "Merged", "compact"]

Row = dict[str, Any]
MANY = 8
"""Small shards that a version may have before they are merged; small is a quarter of a shard."""


@dataclass(frozen=True)
class Merged:
    """A shard to put together.

    Attributes:
        shard: its name.
        rows: PLAN rows of its photos; `shard` names the one that each stands in now.
    """

    shard: str
    rows: list[Row]


def compact(found: Comparison, manifest: Manifest | None, *, shard_photos: int) -> tuple[pa.Table, list[Merged]]:
    """The rows whose shards stay, and the shards to put together from the others."""
    if manifest is None or found.kept.num_rows == 0:
        return found.kept, []
    live = {str(each["values"]): int(each["counts"]) for each in found.kept["shard"].value_counts().to_pylist()}
    holds = {shard.name: shard.photos for shard in manifest.shards}
    thin = {name for name, rows in live.items() if rows + found.tried.get(name, 0) < holds.get(name, rows)}
    small = {name for name, rows in live.items() if rows < shard_photos // 4}
    merging = small if len(small) > MANY else set()
    touched = pc.is_in(found.kept["shard"], value_set=pa.array(sorted(thin | merging), pa.string()))
    rows = found.kept.filter(touched).drop_columns(["row_before"]).to_pylist()
    merged = [*_rewritten(rows, thin - merging, manifest.contract.id)]
    merged += _merged(rows, merging, manifest.contract.id, shard_photos)
    same = {one.shard for one in merged if {row["shard"] for row in one.rows} == {one.shard}}
    merged = [one for one in merged if one.shard not in same]
    moved = pa.array(sorted((thin | merging) - same), pa.string())
    return found.kept.filter(pc.invert(pc.is_in(found.kept["shard"], value_set=moved))), merged


def _rewritten(rows: list[Row], names: set[str], contract: str) -> Iterator[Merged]:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row["shard"] in names:
            groups.setdefault((row["shard"], int(row["attempt"] or 0)), []).append(row)
    for (_, attempt), group in sorted(groups.items()):
        yield Merged(shard=shard_name(contract=contract, attempt=attempt, fingerprints=map(_print, group)), rows=group)


def _merged(rows: list[Row], names: set[str], contract: str, shard_photos: int) -> Iterator[Merged]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        if row["shard"] in names:
            groups.setdefault(int(row["attempt"] or 0), []).append(row)
    for attempt, group in sorted(groups.items()):
        for shard, members in cut_into_shards(group, contract=contract, attempt=attempt, shard_photos=shard_photos):
            yield Merged(shard=shard, rows=members)


def _print(row: Mapping[str, Any]) -> str:
    return fingerprint(row["uri"], size=row["size"], etag=row["etag"], mtime_ns=row["mtime_ns"])
