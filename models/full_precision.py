"""Matrix products and convolutions on a GPU in whole float32, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["full_precision"]


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep torch from shortening float32 to ten bits of mantissa (TF32) on a GPU; as it was before afterwards.

    torch has two switches for it, and does not let them be mixed: `fp32_precision` of each kind of operation since 2.9,
    `allow_tf32` before. In newer versions the old one no longer reaches convolutions. Both belong to the process, not to a thread.
    """
    kinds = [torch.backends.cudnn.conv, torch.backends.cuda.matmul] if hasattr(torch.backends.cudnn, "conv") else []
    name, whole = ("fp32_precision", "ieee") if kinds else ("allow_tf32", False)
    switches: list[Any] = kinds or [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [getattr(switch, name) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, name, whole)
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            setattr(switch, name, value)
