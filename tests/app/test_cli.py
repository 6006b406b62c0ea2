import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from app.cli import main


def refused(capsys, *arguments: str) -> str:
    """The one sentence that a command refuses with, on stderr and as the last line of stdout alike."""
    code = main([*arguments, "--json"])
    captured = capsys.readouterr()
    assert code == 1
    sentence = json.loads(captured.out.splitlines()[-1])["error"]
    assert captured.err.splitlines()[-1] == f"lookalike: {sentence}"
    assert "Traceback" not in captured.err
    return sentence


@pytest.fixture
def photo(drawn_people: Path) -> Path:
    return sorted(drawn_people.rglob("*.jpg"))[0]


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["build"], ["query", "a.jpg", "-k", "many"]])
def test_a_usage_error_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


def test_a_missing_source_is_refused(capsys, tmp_path):
    sentence = refused(capsys, "plan", str(tmp_path / "nowhere"), "--store", str(tmp_path / "store"))
    assert sentence.startswith(f"the source {tmp_path}/nowhere does not exist: give a folder of photos")


@pytest.mark.parametrize("command", ["plan", "build", "train"])
def test_an_empty_source_is_refused(command, capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    sentence = refused(capsys, command, str(tmp_path / "photos"), "--store", str(tmp_path / "store"))
    assert sentence.startswith(f"the source {tmp_path}/photos is empty")


@pytest.mark.parametrize("command", ["plan", "build", "train"])
def test_a_source_without_photos_is_refused(command, capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.md").write_text("no photo")
    sentence = refused(capsys, command, str(tmp_path / "photos"), "--store", str(tmp_path / "store"))
    assert "holds 1 files but no photo: wanted one of .avif .bmp" in sentence


def test_a_store_that_cannot_be_written_is_refused(capsys, drawn_people):
    sentence = refused(capsys, "build", str(drawn_people), "--store", "/proc/lookalike-store")
    assert sentence.startswith("the store /proc/lookalike-store cannot be written (")
    assert "give a folder or an s3:// prefix you may write to with --store" in sentence


def test_a_store_below_a_file_is_refused(capsys, tmp_path, drawn_people):
    (tmp_path / "file").write_text("in the way")
    sentence = refused(capsys, "build", str(drawn_people), "--store", str(tmp_path / "file" / "store"))
    assert f"{tmp_path}/file/store is a file" in sentence


def test_a_folder_that_is_no_store_is_refused_and_stays_as_it_is(capsys, tmp_path, drawn_people):
    (tmp_path / "novel.txt").write_text("Call me Ishmael.")
    sentence = refused(capsys, "build", str(drawn_people), "--store", str(tmp_path))
    assert f"{tmp_path} is not a store: it holds novel.txt" in sentence
    assert os.listdir(tmp_path) == ["novel.txt"]


def test_asking_a_store_that_does_not_exist_says_what_to_run(capsys, tmp_path, photo):
    sentence = refused(capsys, "query", str(photo), "--store", str(tmp_path / "store"))
    assert f"there is no store at {tmp_path}/store: run `lookalike build SOURCE --store" in sentence


def test_asking_before_a_version_is_published_says_what_to_run(capsys, tmp_path, photo):
    (tmp_path / "runs").mkdir()
    sentence = refused(capsys, "query", str(photo), "--store", str(tmp_path))
    assert "has no version yet: run `lookalike build SOURCE" in sentence


def test_an_unknown_encoder_is_refused_before_anything_is_detected(capsys, tmp_path, drawn_people):
    sentence = refused(capsys, "build", str(drawn_people), "--store", str(tmp_path / "s"), "--encoder", "arcface")
    assert sentence.startswith("unknown encoder 'arcface': give one of inception-resnet-v1:vggface2")
    assert not (tmp_path / "s" / "photos").exists()


def test_missing_weights_say_where_to_get_them_and_where_to_put_them(capsys, tmp_path, drawn_people, monkeypatch):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", "http://127.0.0.1:9")
    sentence = refused(capsys, "build", str(drawn_people), "--store", str(tmp_path / "s"))
    assert "put 20180402-114759-vggface2.pt, from https://github.com/timesler/facenet-pytorch/releases/" in sentence
    assert f"into {tmp_path / 'cache' / 'weights'}, or set LOOKALIKE_WEIGHTS_URL to" in sentence


@pytest.fixture(scope="module")
def built(tmp_path_factory, drawn_people):
    """A store with a published version, made by the steps."""
    from tasks.steps.check_version import check_version
    from tasks.steps.contract import Contract
    from tasks.steps.embed_faces import embed_faces
    from tasks.steps.find_faces import find_faces
    from tasks.steps.list_photos import list_photos
    from tasks.steps.plan_build import plan_build
    from tasks.steps.publish_version import publish_version
    from tasks.steps.resolve_encoder import resolve_encoder
    from tasks.steps.train_encoder import NetworkSettings, new_encoder
    from tasks.steps.write_index import write_index

    store = str(tmp_path_factory.mktemp("cli") / "store")
    contract = Contract()
    encoder = resolve_encoder(new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32)), store=store)
    listed = list_photos(str(drawn_people), store=store)
    plan = plan_build(listed, store=store, contract=contract, encoder=encoder.id, labels="folder")
    for request in plan.requests:
        found = find_faces(request, store=store, contract=contract)
        embed_faces(found, store=store, contract=contract.id, encoder=encoder)
    draft = write_index(plan, store=store, contract=contract, encoder=encoder)
    publish_version(check_version(draft, store=store).draft, store=store, plan=plan)
    return store


def test_query_prints_the_photo_itself_first_and_writes_the_contact_sheet(built, photo, tmp_path, capsys):
    sheet = tmp_path / "sheet.html"
    assert main(["query", str(photo), "-k", "3", "--store", built, "--out", str(sheet), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["version"] == 1
    best = answer["faces"][0]["matches"][0]
    assert set(best) >= {"face_id", "uri", "label", "box", "cosine", "same_person"}
    assert best["uri"] == str(photo)
    assert best["cosine"] > 0.99
    assert best["face_id"].isdecimal()
    assert best["same_person"] is None
    assert len(answer["faces"][0]["matches"]) == 3
    assert sheet.read_text().count("data:image/jpeg;base64,") == 4


def test_query_takes_a_url(built, photo, capsys):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=photo.parent)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/{photo.name}"
            assert main(["query", url, "-k", "1", "--store", built, "--json"]) == 0
            answer = json.loads(capsys.readouterr().out.splitlines()[-1])
            assert answer["image"] == url
            assert answer["faces"][0]["matches"][0]["uri"] == str(photo)
            gone = refused(capsys, "query", f"{url}.gone.jpg", "--store", built)
            assert gone.startswith(f"{url}.gone.jpg cannot be read (HTTP 404)")
        finally:
            server.shutdown()
            thread.join()


def test_query_refuses_what_is_no_image(built, tmp_path, capsys):
    (tmp_path / "letter.jpg").write_text("Dear Sir")
    assert "cannot be asked with: " in refused(capsys, "query", str(tmp_path / "letter.jpg"), "--store", built)


def test_query_refuses_a_picture_without_a_face(built, tmp_path, capsys):
    Image.new("RGB", (200, 200), "teal").save(tmp_path / "wall.png")
    assert "no face was found in" in refused(capsys, "query", str(tmp_path / "wall.png"), "--store", built)


def test_query_refuses_another_encoder_in_one_sentence(built, photo, capsys):
    sentence = refused(capsys, "query", str(photo), "--store", built, "--encoder", "0" * 32)
    assert sentence.startswith(
        f"encoder mismatch: the photo would be embedded by {'0' * 32}, version 1 was built with "
    )


def test_versions_lists_what_is_published(built, capsys):
    assert main(["versions", "--store", built, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["versions"]
    assert row | {"version": 1, "parent": None, "photos": 24, "current": True} == row


def test_plan_counts_what_is_new_and_leaves_the_store_as_it_is(built, drawn_people, tmp_path, capsys):
    source = tmp_path / "photos"
    shutil.copytree(drawn_people, source)
    assert main(["plan", str(source), "--store", built, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["added"] == 24
    assert counts["removed"] == counts["unchanged"] == 0
    assert main(["plan", str(drawn_people), "--store", built, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["unchanged"] == 24
    assert set(counts) == {"added", "changed", "removed", "unchanged", "failed", "forgotten", "ignored"}
    assert not list((Path(built) / "runs").rglob("*.parquet"))


def test_help_needs_neither_torch_nor_prefect():
    code = "import sys; from app.cli import _parser; _parser(); print([m for m in ('torch', 'prefect', 'faiss', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_query_needs_no_prefect(built, photo):
    code = f"import sys; from app.cli import main; main(['query', {str(photo)!r}, '--store', {built!r}]); print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_demo_runs_from_nothing_with_prefect_s_own_server(tmp_path):
    command = [
        str(Path(sys.executable).parent / "lookalike"),
        "demo",
        "--out",
        "demo",
        "--people",
        "12",
        "--views",
        "3",
    ]
    done = subprocess.run(
        [*command, "--max-seconds", "2", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["version"] == 2
    assert result["faces"] >= 34
    assert 0 <= result["precision_at_1_before"] <= 1
    assert 0 <= result["precision_at_1_after"] <= 1
    page = Path(result["report"]).read_text()
    assert page.count("<li") >= 6
    with Image.open(result["picture"]) as picture:
        assert picture.width > 500

    (tmp_path / "demo" / ".lookalike-demo").unlink()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "is not empty and no earlier demo made it" in again.stderr
    assert (tmp_path / "demo" / "photos").is_dir()
