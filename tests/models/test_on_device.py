import pytest
import torch

from models.device_search import screen_on
from models.near_pairs import near_pairs
from models.on_device import DeviceError, on_device


def test_a_device_that_is_missing_is_one_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU at hand")
    import numpy as np

    face = np.eye(4, dtype=np.float32)
    nothing = np.full(4, -np.inf, np.float32)
    assert near_pairs(face, face, nothing, 1)[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(DeviceError, match="device cuda: torch sees no GPU here; use the processor, or a torch built"):
        screen_on("cuda")(face, face, nothing, 1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 MiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_too_little_memory_is_one_sentence_however_the_device_says_it(error: RuntimeError) -> None:
    with (
        pytest.raises(
            DeviceError, match="device cpu: too little memory is left on it for a sum; end what else uses it"
        ),
        on_device("cpu", "a sum"),
    ):
        raise error


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="on purpose") as caught, on_device("cpu", "a sum"):
        raise RuntimeError("on purpose")
    assert not isinstance(caught.value, DeviceError)


def test_products_inside_are_whole_float32() -> None:
    with on_device("cpu", "a sum"):
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.is_inference_mode_enabled()
    assert not torch.is_inference_mode_enabled()
