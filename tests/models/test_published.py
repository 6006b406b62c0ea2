import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load
from torch import Tensor, nn

from models.card import EncoderCard
from models.encoder import EncoderError, load_encoder
from models.inception_resnet_v1 import InceptionResnetV1
from models.published import PUBLISHED_CARDS
from models.published_file import published_to_safetensors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import facenet_pytorch

VGGFACE2 = PUBLISHED_CARDS["inception-resnet-v1:vggface2"]
SMALL = VGGFACE2.model_copy(update={"architecture": "inception-resnet-v1-x0.25", "dimension": 8})
FACES = np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), np.uint8)


def saved(state: Any, *, old: bool = False) -> bytes:
    sink = io.BytesIO()
    torch.save(state, sink, _use_new_zipfile_serialization=not old)
    return sink.getvalue()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """facenet-pytorch's network after a few steps of training: its weights and batch-norm statistics have moved."""
    start = InceptionResnetV1()
    start.initialise(0)
    network = facenet_pytorch.InceptionResnetV1(pretrained=None, classify=True, num_classes=7)
    network.load_state_dict(start.state_dict(), strict=False)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        inputs = torch.randn(7, 3, 80, 80, generator=generator) * (0.5 + step)
        loss = nn.functional.cross_entropy(network(inputs), torch.arange(7))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    del network.logits
    network.classify = False
    moved = network.state_dict()
    assert not torch.equal(moved["conv2d_1a.conv.weight"], start.conv2d_1a.conv.weight)
    assert moved["block8.branch1.2.bn.running_mean"].abs().max() > 1e-3
    return network.eval()


@pytest.mark.parametrize(
    ("name", "people", "old"),
    [("inception-resnet-v1:vggface2", 8631, True), ("inception-resnet-v1:casia-webface", 10575, False)],
)
def test_a_published_file_embeds_as_in_facenet_pytorch_and_its_classifier_is_dropped(
    trained: nn.Module, name: str, people: int, old: bool
) -> None:
    head = {"logits.weight": torch.zeros(people, 512), "logits.bias": torch.zeros(people)}
    weights = published_to_safetensors(saved({**trained.state_dict(), **head}, old=old), PUBLISHED_CARDS[name])
    assert load(weights).keys() == trained.state_dict().keys()
    ours = load_encoder(PUBLISHED_CARDS[name], weights).embed(FACES)
    with torch.inference_mode():
        theirs = trained((torch.from_numpy(FACES).permute(0, 3, 1, 2) - 127.5) / 128).numpy()
    assert ours.shape == theirs.shape
    assert (ours * theirs).sum(axis=1).min() > 0.99999


def test_torchvisions_file_loads_without_its_classifier_and_embeds_its_pooled_features() -> None:
    network = torchvision.models.resnet50(weights=None).eval()
    card = PUBLISHED_CARDS["resnet50"]
    ours = load_encoder(card, published_to_safetensors(saved(network.state_dict()), card))
    faces = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    usual = torchvision.transforms.functional.normalize(
        torch.from_numpy(faces).permute(0, 3, 1, 2) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    network.fc = nn.Identity()
    with torch.inference_mode():
        theirs = nn.functional.normalize(network(usual), dim=1).numpy()
    assert (ours.embed(faces) * theirs).sum(axis=1).min() > 0.99999


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    network = InceptionResnetV1(0.25, 8)
    network.initialise(0)
    return network.state_dict()


def test_the_same_tensors_give_the_same_bytes_whatever_the_file_s_format(small: dict[str, Tensor]) -> None:
    """Weights are named by their hash."""
    backwards = dict(reversed(small.items()))
    assert published_to_safetensors(saved(small), SMALL) == published_to_safetensors(saved(backwards, old=True), SMALL)


def test_files_older_than_batch_counters_load(small: dict[str, Tensor]) -> None:
    counted = {**small, **{name: torch.zeros((), dtype=torch.int64) for name in small if name.endswith("_tracked")}}
    old = {name: value for name, value in small.items() if not name.endswith("num_batches_tracked")}
    assert published_to_safetensors(saved(old), SMALL) == published_to_safetensors(saved(counted), SMALL)


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("make", [pickle.dumps, saved, lambda plant: saved(plant, old=True)], ids=["raw", "new", "old"])
def test_a_planted_pickle_is_refused_and_not_run(make: Callable[[Any], bytes], tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    data = make({"conv2d_1a.conv.weight": Planted(mark)})
    with pytest.raises(
        EncoderError, match=r"the file holds no plain state dict \(.*\); nothing in it was run"
    ) as refused:
        published_to_safetensors(data, SMALL)
    assert "\n" not in str(refused.value)
    assert not mark.exists()
    if make is pickle.dumps:
        pickle.loads(data)
        assert mark.exists()  # it would have


def test_a_torchscript_archive_is_refused_and_not_run(small: dict[str, Tensor]) -> None:
    sink = io.BytesIO(saved(small))
    with zipfile.ZipFile(sink, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
        archive.writestr("archive/code/__torch__.py", b"def forward(self): ...")
    with pytest.raises(EncoderError, match=r"the file holds a TorchScript program, wanted a plain state dict; nothing"):
        published_to_safetensors(sink.getvalue(), SMALL)


def test_an_archive_that_would_grow_is_refused_before_it_does(small: dict[str, Tensor]) -> None:
    source, sink = zipfile.ZipFile(io.BytesIO(saved(small))), io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
        archive.writestr("archive/data/9999", bytes(50_000_000))
    with pytest.raises(
        EncoderError, match=r"the file is a compressed archive of \d{8} bytes, wanted tensors stored as"
    ):
        published_to_safetensors(sink.getvalue(), SMALL)


def test_a_tensor_that_claims_terabytes_is_refused_by_its_shape(small: dict[str, Tensor]) -> None:
    vast = {**small, "last_bn.bias": torch.zeros(1).expand(2**21, 2**21)}
    with pytest.raises(
        EncoderError, match=r"another network than .*: last_bn\.bias is \(2097152, 2097152\), wanted \(8,\)"
    ):
        published_to_safetensors(saved(vast), SMALL)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, -1])
def test_truncated_files_are_refused(small: dict[str, Tensor], kept: float, old: bool) -> None:
    data = saved(small, old=old)
    data = data[: int(kept * len(data))] if isinstance(kept, float) else data[:kept]
    with pytest.raises(EncoderError, match=r"the file holds no plain state dict \(.*\); nothing in it was run"):
        published_to_safetensors(data, SMALL)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: list(s.values()), "the file holds list, wanted a state dict of plain tensors"),
        (lambda s: {**s, "epoch": 3}, "the file holds dict, wanted a state dict of plain tensors"),
        (lambda s: {**s, "last_bn.bias": torch.zeros(8).to_sparse()}, "the file holds dict, wanted a state dict"),
        (lambda s: {**s, "last_bn.bias": torch.zeros(8, device="meta")}, "the file holds dict, wanted a state dict"),
        (lambda s: {**s, "last_bn.bias": torch.zeros(9)}, r"last_bn\.bias is \(9,\), wanted \(8,\)"),
        (lambda s: {**s, "last_bn.bias": torch.zeros(8, dtype=torch.int64)}, r"last_bn\.bias is torch\.int64, wanted"),
        (lambda s: {**s, "extra\n\x1b[2J": torch.zeros(8)}, r"'extra\\n\\x1b\[2J' is unknown"),
        (lambda s: {k: v for k, v in s.items() if k != "last_bn.bias"}, r"last_bn\.bias is missing"),
    ],
    ids=["list", "number", "sparse", "meta", "shape", "kind", "unknown", "missing"],
)
def test_another_content_is_refused_in_a_sentence(
    small: dict[str, Tensor], change: Callable[[dict[str, Tensor]], Any], sentence: str
) -> None:
    with pytest.raises(EncoderError, match=sentence) as refused:
        published_to_safetensors(saved(change(small)), SMALL)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("nothing in it was run")


def test_cards_say_what_a_user_must_know() -> None:
    for name, card in PUBLISHED_CARDS.items():
        assert card.name == name
        assert card.licence
        assert card.source
        assert card.training
        assert EncoderCard.model_validate_json(card.model_dump_json()) == card
