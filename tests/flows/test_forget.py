import json
import os
import re
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.flow


def test_the_command_forgets_a_photo_and_prefect_s_running_database_knows_it_no_more(
    prefect_api, drawn_people, tmp_path, tmp_path_factory, monkeypatch, capsys
):
    from app.cli import main
    from flows.build_index import build_index
    from flows.query import query
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    (home,) = tmp_path_factory.getbasetemp().glob("server[0-9]*/home")
    monkeypatch.setenv("PREFECT_HOME", str(home))
    pictures = sorted(drawn_people.rglob("*.jpg"))[:6]
    for picture in pictures:
        (tmp_path / "photos" / picture.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "photos" / picture.parent.name)
    asked = tmp_path / "photos" / pictures[0].parent.name / pictures[0].name
    store = str(tmp_path / "store")
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    build_index(source=str(tmp_path / "photos"), store=store, encoder=encoder, labels="folder", workers=1)
    (match,) = query(image=str(asked), store=store, k=1)["faces"][0]["matches"]
    assert match["uri"] == str(asked)
    other = tmp_path / "photos" / pictures[-1].parent.name / pictures[-1].name
    query(image=str(other), store=store, k=1)
    words = (str(asked).encode(), match["face_id"].encode())
    gone, kept = _shown(match["face_id"], str(asked)), _shown(str(other))
    assert gone
    assert kept
    assert len(gone & kept) < 0.1 * len(kept)
    gone -= kept
    assert all(word in _bytes_under(home) for word in words)
    assert _share_of(gone, home) > 0.9

    assert main(["forget", "--photo", str(asked), "--store", store, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["verified"]
    assert (result["photos"], result["faces"], result["versions_rewritten"]) == (1, 1, [1])
    assert not any(word in _bytes_under(home) for word in words)
    assert _share_of(gone, home) == 0
    assert _share_of(kept, home) > 0.9, "a sheet that does not show the face stays"
    assert not any(word in _bytes_under(Path(store)) for word in words)
    assert str(asked) not in json.dumps(result)
    assert os.path.exists(asked)  # the source is not ours to change


def _shown(*words: str) -> set[bytes]:
    """Pieces of the pictures of every contact sheet that has one of these words, in base64 as Prefect keeps them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        sheets = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["contact-sheet"])))
    pictures: set[bytes] = set()
    for sheet in sheets:
        if any(word in sheet.data for word in words):
            for found in re.findall(r"data:image/jpeg;base64,([^)]+)", sheet.data):
                end = found[-len(found) // 3 :].encode()  # past the tables that JPEG files share
                pictures |= {end[at : at + 48] for at in range(0, len(end) - 48, 48)}
    return pictures


def _share_of(pieces: set[bytes], folder: Path) -> float:
    """How many of them lie there; a page of the database may end within one."""
    data = _bytes_under(folder)
    return sum(piece in data for piece in pieces) / len(pieces)


def _bytes_under(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
