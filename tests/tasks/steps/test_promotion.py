import pytest

from models.people import PeopleMetrics
from tasks.steps.promotion import Candidate, judge

START = Candidate("network it started from", "scratch", 0.2)
IN_USE = Candidate("encoder in use", "abc", 0.6)


def judged(precision: float, *rivals: Candidate):  # type: ignore[no-untyped-def]
    return judge(PeopleMetrics(precision, 0.9), rivals, margin=0.05, queries=100)


@pytest.mark.parametrize(
    ("precision", "rivals", "promoted", "why"),
    [
        (
            0.25,
            [START],
            True,
            "promoted: precision@1 0.250 on held-out people, against 0.200 of the network it started from",
        ),
        (
            0.24,
            [START],
            False,
            "kept, not promoted: precision@1 0.240 on held-out people is not 0.05 better than 0.200 of the",
        ),
        (0.1, [START], False, "is not 0.05 better than 0.200 of the network it started from"),
        (0.64, [START, IN_USE], False, "is not 0.05 better than 0.600 of the encoder in use"),
        (0.65, [START, IN_USE], True, "against 0.200 of the network it started from and 0.600 of the encoder in use"),
    ],
)
def test_only_what_beats_everybody_by_the_margin_is_promoted(
    precision: float, rivals: list[Candidate], promoted: bool, why: str
) -> None:
    found = judged(precision, *rivals)
    assert found.promoted is promoted
    assert why in found.why
    assert [row.precision_at_1 for row in found.table] == [precision, *(r.precision_at_1 for r in rivals)]
    assert found.as_json()["margin"] == 0.05
