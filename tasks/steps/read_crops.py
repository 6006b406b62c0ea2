"""The stored crops of an answer's matches."""

from store.layout import open_store
from store.shards import read_faces
from store.versions import read_version
from tasks.steps.answer import Answer
from tasks.steps.live_filter import live_forgotten

__all__ = ["read_crops"]


def read_crops(answer: Answer, *, store: str) -> dict[str, bytes]:
    """The stored crops of every match in an answer: JPEG bytes by face_id; none of those forgotten since.

    Raises:
        ArtifactError: a shard is not what the version's manifest says.
    """
    storage = open_store(store)
    recorded = {shard.name: shard.faces_sha256 for shard in read_version(storage, answer.version).manifest.shards}
    forgotten = live_forgotten(storage)
    wanted: dict[str, set[int]] = {}
    for face in answer.faces:
        for match in face.matches:
            wanted.setdefault(match.shard, set()).add(int(match.face_id))
    crops: dict[str, bytes] = {}
    for shard, ids in wanted.items():
        if shard not in recorded:  # somebody in it was forgotten since
            continue
        columns = ["face_id", "photo_sha256", "box", "crop"]
        faces = read_faces(storage, contract=answer.contract, shard=shard, columns=columns, sha256=recorded[shard])
        for row in faces.to_pylist():
            if row["face_id"] in ids and not forgotten.has_face(row):
                crops[str(row["face_id"])] = row["crop"]
    return crops
