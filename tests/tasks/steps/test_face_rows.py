from typing import Any

import pyarrow as pa
import pytest

from store.schemas import VERSION_FACES
from tasks.steps.face_rows import FaceRows


def row(face_id: int, label: str | None) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(VERSION_FACES.names)
    values |= {
        "face_id": face_id,
        "photo_sha256": f"{face_id:064x}",
        "uri": f"/{face_id}.jpg",
        "uris": [f"/{face_id}.jpg"],
    }
    return values | {"box": [1, 2, 3, 4], "score": 0.9, "shard": "0" * 32, "label": label}


ROWS = [row(7, "ada"), row(2**62, None), row(3, "bob"), row(11, "ada"), row(2, "")]
RIGHT = pa.Table.from_pylist(ROWS, schema=VERSION_FACES)


@pytest.mark.parametrize(
    "table", [RIGHT, RIGHT.sort_by("face_id"), pa.concat_tables([RIGHT.slice(0, 2), RIGHT.slice(2)])]
)
def test_rows_are_those_of_a_dict_of_dicts(table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.steps.face_rows._KEPT", 2)
    rows, wanted = FaceRows(table), {one["face_id"]: one for one in RIGHT.to_pylist()}
    for _ in range(2):
        assert {identity: rows[identity] for identity in rows} == wanted
    assert list(rows) == sorted(wanted)
    assert len(rows) == 5
    assert rows.labels() == {"ada", "bob"}
    assert {one["face_id"] for one in rows.labelled() if one["label"]} == {7, 3, 11}


@pytest.mark.parametrize("stranger", [0, 5, 12, 2**62 + 1, -1, 2**63, 2**70, -(2**63) - 1])
def test_a_face_that_is_not_there_is_not_found(stranger: int) -> None:
    rows = FaceRows(RIGHT)
    assert rows.get(stranger) is None
    assert stranger not in rows
    with pytest.raises(KeyError):
        rows[stranger]


def test_no_faces_have_no_rows() -> None:
    rows = FaceRows(VERSION_FACES.empty_table())
    assert (list(rows), len(rows), rows.get(1), rows.labels()) == ([], 0, None, set())
