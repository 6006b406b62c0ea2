import pytest
import torch

from models.full_precision import full_precision


def switches() -> list[str]:
    return [torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision]


def test_float32_is_kept_whole_inside_and_as_it_was_afterwards() -> None:
    before = switches()
    assert before != ["ieee", "ieee"], "as torch comes, convolutions are shortened"
    with full_precision():
        assert switches() == ["ieee", "ieee"]
        with full_precision():
            pass
        assert switches() == ["ieee", "ieee"]
    assert switches() == before


def test_it_is_as_before_after_an_error_too() -> None:
    before = switches()
    with pytest.raises(RuntimeError, match="on purpose"), full_precision():
        raise RuntimeError("on purpose")
    assert switches() == before
