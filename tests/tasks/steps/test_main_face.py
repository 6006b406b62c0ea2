import pytest

from tasks.steps.main_face import main_face


def face(x: float, y: float, *, side: float = 20, score: float = 0.9) -> dict[str, object]:
    return {"box": [x - side / 2, y - side / 2, x + side / 2, y + side / 2], "score": score}


def test_the_face_nearest_the_centre_is_the_main_one_whatever_its_size_and_score() -> None:
    near, large, sure = face(105, 55), face(150, 50, side=90), face(20, 20, score=1.0)
    for order in ([near, large, sure], [sure, large, near]):
        assert main_face(order, photo_size=(200, 100)) is near


def test_of_two_equally_near_the_surer_one_is_the_main_one() -> None:
    left, right = face(80, 50, score=0.8), face(120, 50, score=0.95)
    for order in ([left, right], [right, left]):
        assert main_face(order, photo_size=(200, 100)) is right


def test_a_single_face_is_the_main_one() -> None:
    only = face(-300, 900)
    assert main_face([only], photo_size=(200, 100)) is only


def test_no_face_has_no_main_one() -> None:
    with pytest.raises(ValueError, match="empty"):
        main_face([], photo_size=(200, 100))
