"""Work of arrays on a GPU, in whole float32, whose refusals are sentences.

RuntimeError
+-- DeviceError    there is no such device, or it has too little memory
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.full_precision import full_precision

__all__ = ["DeviceError", "on_device"]

_NO_MEMORY = ("out of memory", "ALLOC_FAILED")


class DeviceError(RuntimeError):
    """A device cannot do what is asked; the message says which, what was wanted of it, and what to do."""


@contextmanager
def on_device(device: str, wanted: str) -> Iterator[None]:
    """In this block no product is shortened and nothing is kept for gradients; what it took of the device is given back.

    Args:
        device: "cuda", "cuda:1", or "cpu" to compare with.
        wanted: what is computed, as a noun.

    Raises:
        DeviceError: torch sees no GPU, or it has not enough memory left.
    """
    if not device.startswith("cpu") and not torch.cuda.is_available():
        raise DeviceError(f"device {device}: torch sees no GPU here; use the processor, or a torch built for this GPU")
    try:
        with full_precision(), torch.inference_mode():
            yield
    except RuntimeError as error:  # PyTorch's allocator, CUDA itself and cuBLAS each say it their own way
        if not any(said in str(error) for said in _NO_MEMORY):
            raise
        raise DeviceError(
            f"device {device}: too little memory is left on it for {wanted}; end what else uses it, or use the processor"
        ) from error
    finally:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()  # others wait for it
