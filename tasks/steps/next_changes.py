"""What the next version has as changes to the base of the one before: photos and faces that came, and those that left.

Columns throughout. What is read follows what changed, but for the columns that tell photos and faces apart. Photos and faces are
numbered as in `store/version_files.py`: rows of the base, then rows that were added. N photos, B faces of the base.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.content_hash import table_content_sha256
from store.errors import ArtifactError
from store.schemas import ADDED_PHOTOS, LEFT, PLANNED, STATUSES, VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.version_files import (
    ADDED_FACES,
    ADDED_PHOTOS_FILE,
    FACES_FILE,
    PHOTOS_FILE,
    files_of,
    photo_rows,
    taken,
)
from store.versions import PublishedVersion
from tasks.steps.contract import Contract
from tasks.steps.draft_version import VersionContents
from tasks.steps.plan_build import BuildPlan, PlannedDifference
from tasks.steps.resolve_encoder import EncoderRef
from tasks.steps.update_index import FaceDelta, face_delta
from tasks.steps.version_tables import faces_of_photos, photos_told, with_duplicates

__all__ = ["Before", "NextChanges", "NextRows", "changes_of"]

_OF_A_FACE = ["face_id", "photo_sha256", "shard"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Before:
    """The version before, as far as it is asked for.

    Args:
        storage: the store.
        version: it.
    """

    def __init__(self, storage: Storage, version: PublishedVersion) -> None:
        self.files = files_of(storage, version)
        whole = version.manifest.changes is None
        with ThreadPoolExecutor(1, thread_name_prefix="read-before") as beside:
            ids = beside.submit(self.files.table, FACES_FILE, ["face_id"])
            hashes = self.files.table(PHOTOS_FILE, ["photo_sha256"])["photo_sha256"]
            self.ids_B: Rows = ids.result()["face_id"].to_numpy()
        self.base = len(hashes)
        self.added_photos = ADDED_PHOTOS.empty_table() if whole else self.files.table(ADDED_PHOTOS_FILE)
        self.added_faces = VERSION_FACES.empty_table() if whole else self.files.table(ADDED_FACES)
        self.left_photos, self.left_faces = self.files.left("photos"), self.files.left("faces")
        self.rows = photo_rows(
            self.base, self.left_photos, self.added_photos["row"].to_numpy(), where=self.files.called
        )
        self.hashes = pa.chunked_array([*hashes.chunks, *self.added_photos["photo_sha256"].chunks], pa.string())

    def told(self, columns: list[str]) -> pa.Table:
        """Some columns of the base's photos, and of those added."""
        return pa.concat_tables([self.files.table(PHOTOS_FILE, columns), self.added_photos.select(columns)])

    def whole_photos(self, rows: Rows) -> pa.Table:
        """VERSION_PHOTOS of some of them."""
        base = self.files.table(PHOTOS_FILE) if (rows < self.base).any() else VERSION_PHOTOS.empty_table()
        shift = 0 if base.num_rows else self.base
        return taken([base, self.added_photos.select(VERSION_PHOTOS.names)], rows - shift)

    def faces_having(self, hashes: pa.Array) -> pa.Table:
        """Face_id, photo_sha256 and shard of the base's faces in photos with these hashes; some of them may have left before."""
        if not _among(self.hashes.slice(0, self.base), hashes).any():
            return VERSION_FACES.empty_table().select(_OF_A_FACE)
        faces = self.files.table(FACES_FILE, _OF_A_FACE)
        return faces.filter(pa.array(_among(faces["photo_sha256"], hashes)))


@dataclass(frozen=True)
class NextRows:
    """The photos of the next version.

    Attributes:
        rows: int64 (N,), by rising uri: which of those before each is, -1 where it is told of anew.
        anew: ADDED_PHOTOS, those told of anew.
        touched: hashes of photos that are told of anew, or no longer.
        having: VERSION_PHOTOS, all photos with these hashes.
    """

    rows: Rows
    anew: pa.Table
    touched: pa.Array
    having: pa.Table


@dataclass(frozen=True)
class NextChanges:
    """The next version as changes to the base of the one before.

    Attributes:
        before: the version before.
        photos: of the next.
        new_faces: VERSION_FACES, by rising face_id: of all photos whose hash is touched.
    """

    before: Before
    photos: NextRows
    new_faces: pa.Table

    @cached_property
    def left_photos(self) -> Rows:
        """Rows of the base."""
        stays = np.zeros(self.before.base, np.bool_)
        stays[self.photos.rows[(self.photos.rows >= 0) & (self.photos.rows < self.before.base)]] = True
        return np.flatnonzero(~stays)

    @cached_property
    def added_photos(self) -> pa.Table:
        """ADDED_PHOTOS, by rising row."""
        places = np.flatnonzero(self.photos.rows >= self.before.base)
        kept = self.before.added_photos.take(pa.array(self.photos.rows[places] - self.before.base))
        kept = kept.set_column(kept.schema.get_field_index("row"), ADDED_PHOTOS.field("row"), pa.array(places))
        return pa.concat_tables([kept, self.photos.anew]).sort_by("row").combine_chunks()

    @cached_property
    def _touched_faces(self) -> pa.Table:
        return self.before.faces_having(self.photos.touched)

    @cached_property
    def left_faces(self) -> Rows:
        """Face ids of the base."""
        return np.union1d(self.before.left_faces, self._touched_faces["face_id"].to_numpy())

    @cached_property
    def added_faces(self) -> pa.Table:
        """VERSION_FACES, by rising face_id."""
        kept = self.before.added_faces
        kept = kept.filter(pa.array(~_among(kept["photo_sha256"], self.photos.touched)))
        return pa.concat_tables([kept, self.new_faces]).sort_by("face_id").combine_chunks()

    @cached_property
    def delta(self) -> FaceDelta:
        """Whose vectors come, go and move."""
        base = self._touched_faces
        base = base.filter(pa.array(~np.isin(base["face_id"].to_numpy(), self.before.left_faces)))
        added = self.before.added_faces
        added = added.filter(pa.array(_among(added["photo_sha256"], self.photos.touched))).select(_OF_A_FACE)
        return face_delta(pa.concat_tables([base, added]), self.new_faces)

    @cached_property
    def share(self) -> float:
        """Of the base's photos or faces that came or left since: the largest of all."""
        photos = max(len(self.left_photos), self.added_photos.num_rows) / max(1, self.before.base)
        faces = max(len(self.left_faces), self.added_faces.num_rows) / max(1, len(self.before.ids_B))
        return float(max(photos, faces))

    @cached_property
    def face_ids(self) -> Rows:
        """Int64, ascending: all of the next version."""
        ids_B = self.before.ids_B
        stays_B = np.ones(len(ids_B), np.bool_)
        stays_B[np.searchsorted(ids_B, self.left_faces)] = False
        ids = np.concatenate([ids_B[stays_B], self.added_faces["face_id"].to_numpy()])
        return np.sort(ids, kind="stable")

    def contents(self, plan: BuildPlan, contract: Contract, encoder: EncoderRef) -> VersionContents:
        """What the next version holds."""
        before, rows = self.before, self.photos.rows
        numbers = rows.copy()
        numbers[rows < 0] = before.base + before.added_photos.num_rows + np.arange(self.photos.anew.num_rows)
        told = before.told(["uri", "status", *(["shard"] if len(before.rows) > np.sum(rows >= 0) else [])])
        told = told.append_column(VERSION_PHOTOS.field("photo_sha256"), before.hashes)
        photos = taken([told, self.photos.anew.select(told.column_names)], numbers)
        counted = {str(one["values"]): int(one["counts"]) for one in photos["status"].value_counts().to_pylist()}
        return VersionContents(
            plan,
            contract,
            encoder,
            before.files.manifest,
            counts={status: counted.get(status, 0) for status in STATUSES} | {"forgotten": plan.forgotten},
            faces=len(self.face_ids),
            shards=self._shards(photos),
            content_sha256=table_content_sha256(photos, self.face_ids),
        )

    def _shards(self, photos: pa.Table) -> frozenset[str]:
        """Names of those that the photos stand in; where nobody left they are those of before, and new ones."""
        if "shard" in photos.column_names:
            return frozenset(photos["shard"].unique().to_pylist())
        before = {shard.name for shard in self.before.files.manifest.shards}
        return frozenset(before | set(self.photos.anew["shard"].unique().to_pylist()))


def changes_of(
    storage: Storage, parent: PublishedVersion, plan: BuildPlan, difference: PlannedDifference, *, contract: Contract
) -> NextChanges | None:
    """The next version as changes; None where a planned photo has no row in its shard any more, because it was forgotten.

    Args:
        storage: the store.
        parent: the version before, of the same contract.
        plan: of the next.
        difference: of the plan.
        contract: of the shards.

    Raises:
        ArtifactError: a file is not what was written, or faces of a photo are missing; the message has the figures.
    """
    before = Before(storage, parent)
    photos = _next_rows(storage, before, difference, contract=contract.id)
    if photos is None or len(photos.rows) != plan.table.rows:
        return None
    new_faces = faces_of_photos(storage, photos.having, contract=contract.id)
    indexed = photos.having.filter(pc.equal(photos.having["status"], "indexed"))
    if (found := pc.sum(indexed["num_faces"]).as_py() or 0) != new_faces.num_rows:
        raise ArtifactError(
            f"the version lost faces: {found} were found in photos that came or changed, {new_faces.num_rows} are in their shards"
        )
    return NextChanges(before, photos, new_faces)


def _next_rows(storage: Storage, before: Before, difference: PlannedDifference, *, contract: str) -> NextRows | None:
    came, left = (
        from_parquet(storage.read(storage.path_of(ref.uri), sha256=ref.sha256), schema, where=ref.uri)
        for ref, schema in ((difference.came, PLANNED), (difference.left, LEFT))
    )
    told = photos_told(storage, came, contract=contract)
    if told is None:
        return None
    stays = np.ones(len(before.rows), np.bool_)
    stays[left["id"].to_numpy()] = False
    rows = np.full(int(stays.sum()) + told.num_rows, -1, np.int64)
    old = np.ones(len(rows), np.bool_)
    old[told["row"].to_numpy()] = False
    rows[old] = before.rows[stays]
    gone = before.hashes.take(pa.array(before.rows[~stays]))
    touched = pc.drop_null(pc.unique(pa.chunked_array([*gone.chunks, *told["photo_sha256"].chunks], pa.string())))
    twins = np.flatnonzero(old)[_among(before.hashes, touched)[rows[old]]]
    then = before.whole_photos(rows[twins]).append_column(ADDED_PHOTOS.field("row"), pa.array(twins))
    now = with_duplicates(pa.concat_tables([then, told]).sort_by("row")).select(ADDED_PHOTOS.names)
    of_twins = now.filter(pc.is_in(now["row"], value_set=pa.array(twins)))
    turned = twins[pc.not_equal(of_twins["status"], then["status"]).to_numpy()]
    rows[turned] = -1
    anew = now.filter(pa.array(rows[now["row"].to_numpy()] < 0))
    having = now.filter(pa.array(_among(now["photo_sha256"], touched))).select(VERSION_PHOTOS.names)
    return NextRows(rows, anew, touched, having)


def _among(values: pa.ChunkedArray, wanted: pa.Array) -> Mask:
    mask: Mask = pc.is_in(values, value_set=wanted, skip_nulls=True).to_numpy()
    return mask
