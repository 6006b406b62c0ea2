import dataclasses
import http.server
import json
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from models.card import encoder_id, parse_card
from models.inception_resnet_v1 import InceptionResnetV1
from models.resnet50 import ResNet50
from store.encoders import promote_encoder, read_encoder, stored_encoders
from store.errors import ArtifactError, EncoderUnknownError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.weights import MIRROR
from tasks.steps.progress import listening
from tasks.steps.published_weights import WEIGHTS_FILES
from tasks.steps.resolve_encoder import load_stored_encoder, resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, and no network; the folder of weights in the cache."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(MIRROR, "http://127.0.0.1:9/mirror")
    monkeypatch.setattr("store.download._PAUSE_S", 0.001)
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def files(builder: Any, tmp_path: Path) -> Path:
    """A weights file with its card beside it, as a user has them."""
    stored = read_encoder(open_store(builder.store), builder.encoder.id)
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(stored.weights)
    kept = ("format", "input", "geometry", "mirror_average", "dimension", "architecture")
    weights.with_suffix(".json").write_text(json.dumps({key: stored.card[key] for key in kept}))
    return weights


def test_an_encoder_of_the_store_is_found_by_its_id_and_can_embed(builder: Any) -> None:
    ref = resolve_encoder(builder.encoder.id, store=builder.store)
    assert ref == builder.encoder
    net = load_stored_encoder(open_store(builder.store), ref.id)
    assert net.card.dimension == ref.dimension == 32
    assert encoder_id(net.card) == ref.id


def test_a_card_that_was_changed_in_the_store_is_not_embedded_with(builder: Any) -> None:
    card = Path(builder.store, "encoders", builder.encoder.id, "card.json")
    document = json.loads(card.read_text())
    card.write_text(json.dumps(document | {"mirror_average": not document["mirror_average"]}))
    with pytest.raises(
        ArtifactError, match=f"card.json was damaged or changed: .* in the folder of {builder.encoder.id}"
    ):
        load_stored_encoder(open_store(builder.store), builder.encoder.id)
    card.write_text(json.dumps(document | {"source": "elsewhere"}))  # nothing that an embedding depends on
    assert load_stored_encoder(open_store(builder.store), builder.encoder.id).card.source == "elsewhere"


def test_nothing_asked_for_takes_the_promoted_one_else_the_version_s_else_the_published_one(
    builder: Any, built: Any, cache: Path
) -> None:
    other = new_encoder(built.store, settings=NetworkSettings(width=0.25, dimension=16, seed=1))
    assert resolve_encoder(None, store=built.store).id == built.encoder.id
    promote_encoder(open_store(built.store), other)
    assert resolve_encoder(None, store=built.store).id == other
    sentence = (
        r"20180402-114759-vggface2\.pt is not here, and http://127\.0\.0\.1:9/mirror/20180402-114759-vggface2\.pt gives "
        r"no answer \(ConnectError\): put 20180402-114759-vggface2\.pt, from https://github\.com/timesler/facenet-pytorch/"
        rf"releases/download/v2\.2\.9/20180402-114759-vggface2\.pt, into {cache}, or set {MIRROR} to"
    )
    with pytest.raises(EncoderUnknownError, match=sentence):
        resolve_encoder(None, store=builder.store)


def test_an_unknown_name_lists_what_there_is(builder: Any) -> None:
    sentence = (
        "unknown encoder 'vggface': give one of inception-resnet-v1:vggface2, inception-resnet-v1:casia-webface, resnet50, "
        rf"{builder.encoder.id}, or the path of an .onnx or .safetensors file"
    )
    with pytest.raises(EncoderUnknownError, match=sentence):
        resolve_encoder("vggface", store=builder.store)


def test_a_file_with_its_card_is_put_into_the_store(builder: Any, files: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "other")
    ref = resolve_encoder(str(files), store=store)
    assert ref.id == builder.encoder.id  # the name and the like are no part of the id
    assert ref.name == ref.id
    assert stored_encoders(open_store(store)) == [ref.id]
    assert read_encoder(open_store(store), ref.id).weights == files.read_bytes()
    assert resolve_encoder(ref.id, store=store) == ref


def test_a_missing_file_or_a_missing_card_is_named(builder: Any, files: Path) -> None:
    files.with_suffix(".json").unlink()
    sentence = r"mine\.json does not exist: an encoder is mine\.safetensors with mine\.json beside it"
    with pytest.raises(EncoderUnknownError, match=sentence):
        resolve_encoder(str(files), store=builder.store)
    with pytest.raises(EncoderUnknownError, match=r"none\.onnx does not exist: an encoder is none.onnx with none.json"):
        resolve_encoder(str(files.with_name("none.onnx")), store=builder.store)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (b"{", r"mine\.json is not JSON: "),
        (b"[" * 50_000, r"mine\.json is not JSON: "),
        (b"[]", r"mine\.json is not an encoder card: "),
        ({"dimension": 0, "colour": 1}, r"mine\.json is not an encoder card: dimension: .*; colour: "),
        ({"dimension": 64}, r"mine\.safetensors cannot be used: weights do not fit"),
        ({"architecture": "resnet"}, r"mine\.safetensors cannot be used: card: got architecture resnet"),
        ({"sha256": "0" * 64}, r"mine\.safetensors is not the file its card names: its sha256 is"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused_and_nothing_is_kept(
    builder: Any, files: Path, change: bytes | dict[str, Any], sentence: str
) -> None:
    card = files.with_suffix(".json")
    card.write_bytes(
        change if isinstance(change, bytes) else json.dumps(json.loads(card.read_text()) | change).encode()
    )
    with pytest.raises(EncoderUnknownError, match=sentence) as refused:
        resolve_encoder(str(files), store=builder.store)
    assert str(refused.value).count("mine.") == 1
    assert stored_encoders(open_store(builder.store)) == [builder.encoder.id]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x08\x00\x00\x00\x00\x00\x00\x00{}garbage"])
@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_weights_that_are_none_are_refused(builder: Any, files: Path, suffix: str, data: bytes) -> None:
    weights = files.with_suffix(suffix)
    weights.write_bytes(data)
    with pytest.raises(EncoderUnknownError, match=rf"mine\{suffix} cannot be used: "):
        resolve_encoder(str(weights), store=builder.store)


def test_a_published_file_with_another_hash_is_refused_before_it_is_opened(
    builder: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "20180402-114759-vggface2.pt").write_bytes(b"something else")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    sentence = (
        r"vggface2\.pt is not the published file: it has 14 bytes where 111,898,327 are wanted, and its sha256 is "
        rf"{sha256_hex(b'something else')[:12]}…, wanted 281ceb"
    )
    with pytest.raises(EncoderUnknownError, match=sentence):
        resolve_encoder("inception-resnet-v1:vggface2", store=builder.store)


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["pickle", "torch", "nonsense", "empty"])
def test_a_planted_pickle_is_refused_and_not_executed(builder: Any, cache: Path, tmp_path: Path, how: str) -> None:
    mark = tmp_path / "executed"
    planted = cache / "20180408-102900-casia-webface.pt"
    if how == "torch":
        torch.save({"weights": Planted(mark)}, planted)
    else:
        planted.write_bytes(
            {"pickle": pickle.dumps(Planted(mark), protocol=2), "nonsense": b"PK\x03\x04zip", "empty": b""}[how]
        )
    with pytest.raises(EncoderUnknownError, match=r"casia-webface\.pt: .*nothing in it was run; remove it, and"):
        resolve_encoder("inception-resnet-v1:casia-webface", store=builder.store)
    assert not mark.exists()
    if how == "pickle":
        pickle.loads(planted.read_bytes())
        assert mark.exists()  # it would have


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served on loopback as the mirror."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        monkeypatch.setenv(MIRROR, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def test_a_published_encoder_is_downloaded_once_converted_and_kept_in_the_store(
    builder: Any, cache: Path, mirror: Path, tmp_path: Path
) -> None:
    """With a file of the published one's names and shapes, head included."""
    name, file = "inception-resnet-v1:casia-webface", "20180408-102900-casia-webface.pt"
    network = InceptionResnetV1()
    network.initialise(0)
    head = {"logits.weight": torch.zeros(10575, 512), "logits.bias": torch.zeros(10575)}
    torch.save({**network.state_dict(), **head}, mirror / file)
    told: list[tuple[str, int, int]] = []
    with listening(lambda *news: told.append(news)):
        ref = resolve_encoder(name, store=builder.store)
    assert told[-1] == ("download", told[-1][2], told[-1][2])
    assert len(set(told)) == len(told) > 100  # each MiB once
    assert (ref.name, ref.dimension) == (name, 512)
    stored = read_encoder(open_store(builder.store), ref.id)
    assert stored.card["licence"]
    assert stored.card["training"]["people"] == 10575
    assert ref.id == encoder_id(parse_card(stored.card, where="x"))
    published = (mirror / file).read_bytes()
    assert (cache / file).read_bytes() == published
    assert (cache / f"{file}.sha256").read_text().startswith(sha256_hex(published))

    (mirror / file).unlink()
    assert resolve_encoder(name, store=str(tmp_path / "other")) == ref  # from the cache
    (cache / file).unlink()
    assert resolve_encoder(name, store=builder.store) == ref  # from the store


def test_resnet50_resolves_to_imagenet_s_weights(builder: Any, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ResNet50()
    network.initialise(0)
    file = WEIGHTS_FILES["resnet50"]
    torch.save({**network.state_dict(), "fc.weight": torch.zeros(1000, 2048)}, mirror / file.name)
    with pytest.raises(EncoderUnknownError, match=r"gave another file than resnet50-0676ba61\.pth: .*wanted 0676ba61…"):
        resolve_encoder("resnet50", store=builder.store)
    begins = dataclasses.replace(file, sha256=sha256_hex((mirror / file.name).read_bytes())[:8])
    monkeypatch.setitem(WEIGHTS_FILES, "resnet50", begins)
    ref = resolve_encoder("resnet50", store=builder.store)
    assert (ref.name, ref.dimension) == ("resnet50", 2048)


def test_a_file_that_is_no_network_is_not_kept(builder: Any, cache: Path, mirror: Path, tmp_path: Path) -> None:
    torch.save({"weights": Planted(tmp_path / "executed")}, mirror / "20180408-102900-casia-webface.pt")
    with pytest.raises(EncoderUnknownError, match=r"cannot be used: .*nothing in it was run; nothing of it was kept"):
        resolve_encoder("inception-resnet-v1:casia-webface", store=builder.store)
    assert not (tmp_path / "executed").exists()
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("value", [torch.nan, 0.0])
def test_weights_that_give_no_direction_are_refused_before_they_are_stored(
    builder: Any, files: Path, value: float
) -> None:
    state = safetensors.torch.load(files.read_bytes())
    state |= {"last_bn.weight": torch.full((32,), value), "last_bn.bias": torch.zeros(32)}
    files.write_bytes(safetensors.torch.save(state))
    with pytest.raises(
        EncoderUnknownError, match=r"mine\.safetensors cannot be used: embedding 0: got a vector that is"
    ):
        resolve_encoder(str(files), store=builder.store)
    assert stored_encoders(open_store(builder.store)) == [builder.encoder.id]


def test_the_mobile_encoder_of_the_test_data_is_usable(builder: Any, real_data: Path) -> None:
    ref = resolve_encoder(str(real_data / "weights" / "mobilefacenet.onnx"), store=builder.store)
    card = parse_card(read_encoder(open_store(builder.store), ref.id).card, where="x")
    assert card.architecture == "onnx"
    assert ref.dimension == card.dimension
    assert ref.id == encoder_id(card)
