import json
from pathlib import Path

import pytest

from app.cli import main
from app.commands.forget import show
from store.storage import Storage


@pytest.fixture
def store(tmp_path: Path) -> str:
    Storage(tmp_path / "store").write("versions/x", b"")
    return str(tmp_path / "store")


def test_who_is_not_there_is_refused_before_prefect_is_started(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forget", "--photo", "/somebody.jpg", "--store", store, "--json"]) == 1
    out, err = capsys.readouterr()
    assert "has a photo of this uri" in json.loads(out.splitlines()[-1])["error"]
    assert "somebody" not in out + err
    assert main(["forget", "--face", "x1", "--store", store]) == 1
    assert main(["forget", "--label", "", "--store", store]) == 1


@pytest.mark.parametrize("arguments", [[], ["--photo", "/a.jpg", "--label", "ann"], ["--photo", "/a.jpg", "--resume"]])
def test_exactly_one_who_is_wanted(store: str, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["forget", *arguments, "--store", store])
    assert stopped.value.code == 2


def test_what_people_read_says_what_was_found_and_what_stays() -> None:
    scan = {"files": 12, "bytes": 3456, "searched": {"uri": 2, "face_id_bytes": 1, "crop": 0}, "hits": {"uri": 1}}
    text = show(
        {
            "photos": 1, "faces": 2, "versions_rewritten": [3, 4], "scan": scan, "verified": False, "audit_sha256": "ab",
            "problems": ["1 needles of the kind uri were found"], "trained_encoders": ["e" * 32],
        }
    )  # fmt: skip
    assert "forgot 1 photos and 2 faces; versions replaced: 3, 4" in text
    assert "for 3 traces (uri, face id bytes): 1 found" in text
    assert "verified: NO" in text
    assert "not erased: the weights of 1 trained encoders (eeeeeeeeeeee)" in text
