import math

import pytest

from models.training_settings import DEMO_SETTINGS, PHOTO_SETTINGS, TrainingSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batches_per_epoch", 0),
        ("batch_people", 1),
        ("batch_photos", 1),
        ("batch_strangers", -1),
        ("threads", 0),
        ("learning_rate", 0.0),
        ("learning_rate", 1.0),
        ("warm_up", 1.0),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("margin", 2.0),
        ("hardest_share", 0.0),
        ("rebuild_weight", -1.0),
        ("max_seconds", 0.0),
        ("max_seconds", math.nan),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got {value}, wanted"):
        TrainingSettings(**{name: value})


def test_recommended_settings_have_no_time_limit_that_would_make_results_depend_on_the_machine() -> None:
    assert DEMO_SETTINGS.max_seconds is None
    assert PHOTO_SETTINGS.max_seconds is None
