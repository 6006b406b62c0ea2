import io

import numpy as np
from PIL import Image

from models.portraits import draw_person, draw_portrait
from models.same_shot import SAME_SHOT, shot_signature

LANDMARKS = np.array([(70, 80), (110, 80), (90, 105), (75, 125), (105, 125)], np.float32)


def picture(person: int, view: int) -> np.ndarray:
    return np.asarray(Image.fromarray(draw_portrait(draw_person(person), view_seed=view)).resize((180, 200)))


def encoded_anew(pixels: np.ndarray) -> np.ndarray:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=50)
    return np.asarray(Image.open(sink).convert("RGB"))


def test_a_copy_of_another_size_and_quality_is_the_same_shot() -> None:
    photo = picture(1, 1)
    small = np.asarray(Image.fromarray(encoded_anew(photo)).resize((135, 150)))
    product = shot_signature(photo, LANDMARKS) @ shot_signature(small, LANDMARKS * 0.75)
    assert product >= SAME_SHOT


def test_another_view_and_another_person_are_other_shots() -> None:
    one = shot_signature(picture(1, 1), LANDMARKS)
    assert one @ shot_signature(picture(1, 2), LANDMARKS) < SAME_SHOT
    assert one @ shot_signature(picture(2, 1), LANDMARKS) < SAME_SHOT


def test_a_face_without_any_contrast_resembles_nothing() -> None:
    flat = shot_signature(np.full((200, 180, 3), 90, np.uint8), LANDMARKS)
    assert flat @ flat < SAME_SHOT
