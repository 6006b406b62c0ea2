import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.mtcnn import nms, torch_nms
from models.mtcnn.torch_nms import survivors_on

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from facenet_pytorch.models.utils import detect_face as published
    from torchvision.ops import nms as torchvision_nms

FloatArray = npt.NDArray[np.float32]


def random_boxes(count: int, *, seed: int, whole: bool = False) -> FloatArray:
    rng = np.random.default_rng(seed)
    first_N2 = rng.uniform(-40, 200, (count, 2))
    boxes_N4 = np.concatenate([first_N2, first_N2 + rng.uniform(1, 90, (count, 2))], axis=1)
    return (np.round(boxes_N4 / 8) * 8 if whole else boxes_N4).astype(np.float32)


def random_groups(count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Rising, of very unequal sizes, some larger than a block."""
    return np.sort(
        np.random.default_rng(seed).choice([3, 4, 5, 90, 91, 92], count, p=[0.45, 0.02, 0.03, 0.4, 0.05, 0.05])
    )


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_suppression_by_union_keeps_what_torchvision_keeps_in_each_group(seed: int, whole: bool) -> None:
    boxes_N4, groups_N = random_boxes(700, seed=seed, whole=whole), random_groups(700, seed=seed)
    scores_N = np.random.default_rng(seed).uniform(0, 1, 700).astype(np.float32)
    if whole:
        scores_N = np.round(scores_N, 1)  # many equal ones: the order of equals matters
    for threshold in (0.3, 0.5, 0.7):
        kept = nms.suppress_by_union(boxes_N4, scores_N, groups_N, iou_threshold=threshold)
        wanted = []
        for group in np.unique(groups_N):
            members = np.flatnonzero(groups_N == group)
            of_group = torchvision_nms(
                torch.from_numpy(boxes_N4[members]), torch.from_numpy(scores_N[members]), threshold
            )
            wanted += members[of_group.numpy()].tolist()
        assert kept.tolist() == wanted


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_suppression_by_the_smaller_box_keeps_what_the_published_one_keeps_in_each_group(seed: int, ties: bool) -> None:
    boxes_N4, groups_N = random_boxes(500, seed=seed), random_groups(500, seed=seed)
    scores_N = np.random.default_rng(seed).permutation(500).astype(np.float32)
    if ties:
        scores_N = np.minimum(scores_N, 300)  # a good part saturates, as ONet's scores do at 1
    kept = nms.suppress_by_smaller(boxes_N4, scores_N, groups_N, threshold=0.7)
    wanted = []
    for group in np.unique(groups_N):
        members = np.flatnonzero(groups_N == group)
        wanted += members[published.nms_numpy(boxes_N4[members], scores_N[members], 0.7, "Min")].tolist()
    assert kept.tolist() == wanted


def one_group(count: int) -> npt.NDArray[np.int64]:
    return np.zeros(count, np.int64)


def test_overlap_equal_to_the_threshold_stays() -> None:
    half_inside = np.array([(0, 0, 10, 10), (0, 0, 10, 5)], np.float32)
    scores_N = np.array([0.9, 0.8], np.float32)
    assert nms.suppress_by_union(half_inside, scores_N, one_group(2), iou_threshold=0.5).tolist() == [0, 1]
    assert nms.suppress_by_union(half_inside, scores_N, one_group(2), iou_threshold=0.49).tolist() == [0]


def test_of_equal_scores_the_first_box_stays_by_union() -> None:
    boxes_N4 = np.array([(0, 0, 10, 10)] * 3, np.float32)
    assert nms.suppress_by_union(boxes_N4, np.ones(3, np.float32), one_group(3), iou_threshold=0.5).tolist() == [0]


def test_equal_boxes_of_two_groups_both_stay() -> None:
    boxes_N4 = np.array([(0, 0, 10, 10)] * 3, np.float32)
    groups_N = np.array([1, 1, 2])
    assert nms.suppress_by_union(boxes_N4, np.ones(3, np.float32), groups_N, iou_threshold=0.5).tolist() == [0, 2]


def test_a_box_inside_a_better_one_goes_only_by_the_smaller() -> None:
    boxes_N4 = np.array([(0, 0, 100, 100), (10, 10, 30, 30)], np.float32)
    scores_N = np.array([0.9, 0.8], np.float32)
    assert nms.suppress_by_smaller(boxes_N4, scores_N, one_group(2), threshold=0.7).tolist() == [0]
    assert nms.suppress_by_union(boxes_N4, scores_N, one_group(2), iou_threshold=0.7).tolist() == [0, 1]


def test_suppressing_nothing_gives_nothing() -> None:
    none, scores = np.empty((0, 4), np.float32), np.empty(0, np.float32)
    assert nms.suppress_by_union(none, scores, one_group(0), iou_threshold=0.5).shape == (0,)
    assert nms.suppress_by_smaller(none, scores, one_group(0), threshold=0.5).shape == (0,)


@pytest.mark.parametrize("block", [16, 1024])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("by_smaller", [False, True])
def test_torch_lets_survive_exactly_whom_numpy_does(
    by_smaller: bool, whole: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of one to hundreds, in blocks smaller and larger than they are, a few pairs at a time and all at once."""
    monkeypatch.setattr(torch_nms, "_BLOCK", block)
    gone = 0
    for seed in range(4):
        monkeypatch.setattr(torch_nms, "_PAIRS", [1, 2_000, 50_000, 2**24][seed])
        sizes = np.random.default_rng(seed).choice([1, 2, 3, 17, 40, 150, 300], 12)
        groups_N = np.repeat(np.cumsum(np.random.default_rng(seed + 9).integers(1, 4, 12)), sizes)
        boxes_N4 = random_boxes(len(groups_N), seed=seed, whole=whole)
        for threshold in (0.0, 0.3, 0.5, 0.7, 1.0):
            overlap = nms.Overlap(threshold, extra_px=int(by_smaller), by_smaller=by_smaller)
            wanted = nms.survivors(boxes_N4, groups_N, overlap)
            np.testing.assert_array_equal(survivors_on("cpu", boxes_N4, groups_N, overlap), wanted)
            gone += len(wanted) - int(wanted.sum())
    assert gone > 1000


def test_torch_follows_the_longest_chain_of_boxes_that_free_each_other() -> None:
    """Each overlaps only the next one: every second one stays, and the last one's fate hangs on the first."""
    first_N = np.arange(501, dtype=np.float32) * 4
    boxes_N4 = np.stack([first_N, np.zeros(501, np.float32), first_N + 6, np.full(501, 10, np.float32)], axis=1)
    overlap = nms.Overlap(0.15, extra_px=0, by_smaller=False)
    assert survivors_on("cpu", boxes_N4, one_group(501), overlap).tolist() == [n % 2 == 0 for n in range(501)]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.6, 0.7])
def test_torch_compares_with_the_threshold_as_numpy_does_to_the_last_bit(threshold: float) -> None:
    """Shares whose float32 lies next to the threshold, on either side of it; some thresholds are no float32."""
    share = np.float32(threshold) - 16 * np.spacing(np.float32(threshold))
    stays = []
    for _ in range(80):
        boxes_N4 = np.array([(0, 0, 1, 1), (0, 0, 1, share)], np.float32)
        overlap = nms.Overlap(threshold, extra_px=0, by_smaller=False)
        stays.append(bool(survivors_on("cpu", boxes_N4, one_group(2), overlap)[1]))
        assert stays[-1] == nms.survivors(boxes_N4, one_group(2), overlap)[1]
        share = np.nextafter(share, np.float32(1))
    assert stays == sorted(stays, reverse=True)
    assert set(stays) == {True, False}


def test_boxes_without_area_survive_by_torch_as_by_numpy() -> None:
    boxes_N4 = np.array([(5, 5, 5, 5), (5, 5, 5, 5), (0, 0, 9, 9), (9, 9, 0, 0), (0, 0, 9, 9)], np.float32)
    for overlap in (nms.Overlap(0.5, extra_px=0, by_smaller=False), nms.Overlap(0.5, extra_px=1, by_smaller=True)):
        wanted = nms.survivors(boxes_N4, one_group(5), overlap)
        np.testing.assert_array_equal(survivors_on("cpu", boxes_N4, one_group(5), overlap), wanted)


def test_of_no_boxes_none_survives_by_torch() -> None:
    overlap = nms.Overlap(0.5, extra_px=0, by_smaller=False)
    assert survivors_on("cpu", np.empty((0, 4), np.float32), one_group(0), overlap).shape == (0,)
