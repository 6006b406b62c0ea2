import pytest
import torch

from models.architectures import build_network, is_network, without_classifier
from models.encoder_error import EncoderError
from models.inception_resnet_v1 import InceptionResnetV1
from models.resnet50 import ResNet50


def test_each_name_builds_its_network() -> None:
    with torch.device("meta"):
        published = build_network("inception-resnet-v1", 512)
        narrow = build_network("inception-resnet-v1-x0.25", 32)
        residual = build_network("resnet50", 2048)
    assert isinstance(published, InceptionResnetV1)
    assert published.last_linear.weight.shape == (512, 1792)
    assert narrow.state_dict().keys() == published.state_dict().keys()
    assert isinstance(residual, ResNet50)


@pytest.mark.parametrize("name", ["inception-resnet-v1-x0.25", "resnet50"])
@torch.inference_mode()
def test_a_built_network_takes_its_smallest_input_and_gives_unit_vectors(name: str) -> None:
    network = build_network(name, 16)
    network.initialise(0)
    embeddings = network.eval()(torch.randn(2, 3, *[network.smallest_input_px] * 2))
    assert embeddings.shape == (2, 16)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", ["onnx", "resnet", "resnet50 ", "inception-resnet-v1-x0", "", "none"])
def test_unknown_names_are_refused(name: str) -> None:
    assert not is_network(name)
    with pytest.raises(EncoderError, match=rf"got architecture {name}, wanted inception-resnet-v1, .* or resnet50"):
        build_network(name, 8)


def test_each_network_drops_the_classifier_that_its_published_files_carry() -> None:
    state_dict = {"fc.weight": torch.zeros(1), "logits.bias": torch.zeros(1), "conv1.weight": torch.zeros(1)}
    with torch.device("meta"):
        inception, residual = build_network("inception-resnet-v1-x0.25", 8), build_network("resnet50", 8)
    assert list(without_classifier(inception, state_dict)) == ["fc.weight", "conv1.weight"]
    assert list(without_classifier(residual, state_dict)) == ["logits.bias", "conv1.weight"]
