import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from models.card import BoxMargin, CardError, EncoderCard, Template, encoder_id, parse_card, problems_of_card

DOCUMENT: dict[str, Any] = {
    "format": 1,
    "input": {"height": 112, "width": 96, "colour": "bgr", "scale": 1, "mean": [1, 2, 3], "std": [4, 5, 6]},
    "geometry": {"box_margin": 0.25},
    "mirror_average": True,
    "dimension": 128,
}
STORED = {**DOCUMENT, "architecture": "onnx", "sha256": "0" * 64}


def changed(**changes: Any) -> dict[str, Any]:
    return {**STORED, **changes}


def test_a_users_card_needs_nothing_more() -> None:
    card = parse_card(DOCUMENT, where="x.json")
    assert card.geometry == BoxMargin(box_margin=0.25)
    assert (card.input.height, card.input.width, card.architecture) == (112, 96, None)
    assert parse_card({**DOCUMENT, "geometry": {"template": "arcface-112"}}, where="x.json").geometry == Template(
        template="arcface-112"
    )


def test_a_card_survives_its_own_json() -> None:
    card = parse_card(changed(metrics={"precision_at_1": 0.5}), where="x.json")
    assert parse_card(json.loads(card.model_dump_json()), where="x.json") == card


@pytest.mark.parametrize("key", sorted(DOCUMENT))
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(CardError, match=rf"^x\.json is not an encoder card: {key}: Field required"):
        parse_card({k: v for k, v in DOCUMENT.items() if k != key}, where="x.json")


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("extra", {"extra": 1}),
        ("format", {"format": 2}),
        ("dimension", {"dimension": 0}),
        ("sha256", {"sha256": "0" * 63}),
        ("geometry", {"geometry": {"template": "other"}}),
        ("geometry", {"geometry": {"template": "arcface-112", "box_margin": 0.1}}),
        ("geometry", {"geometry": {"box_margin": math.nan}}),
        ("input.colour", {"input": {**DOCUMENT["input"], "colour": "grey"}}),
        ("input.scale", {"input": {**DOCUMENT["input"], "scale": math.inf}}),
        ("input.mean.1", {"input": {**DOCUMENT["input"], "mean": [0, math.nan, 0]}}),
        ("input.std.2", {"input": {**DOCUMENT["input"], "std": [1, 1, 0]}}),
    ],
)
def test_a_value_out_of_range_is_named(where: str, change: dict[str, Any]) -> None:
    problems = problems_of_card(changed(**change))
    assert problems
    assert all(problem.startswith(where) for problem in problems)


def test_all_problems_are_reported_at_once() -> None:
    problems = problems_of_card({**STORED, "format": 2, "dimension": -1, "extra": 1})
    assert {problem.split(":")[0] for problem in problems} == {"format", "dimension", "extra"}


@pytest.mark.parametrize("document", [None, [], "card", 1])
def test_what_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(CardError, match="card: Input should be"):
        parse_card(document, where="x.json")


def test_the_id_is_the_hash_of_the_canonical_identity() -> None:
    canonical = (
        '{"architecture":"onnx","dimension":128,"geometry":{"box_margin":0.25},"input":{"colour":"bgr","height":112,'
        '"mean":[1.0,2.0,3.0],"scale":1.0,"std":[4.0,5.0,6.0],"width":96},"mirror_average":true,"sha256":"'
        + "0" * 64
        + '"}'
    )
    assert encoder_id(parse_card(STORED, where="x")) == hashlib.sha256(canonical.encode()).hexdigest()[:32]


def test_the_id_changes_with_the_embedding_and_with_nothing_else() -> None:
    def id_of(**changes: Any) -> str:
        return encoder_id(EncoderCard.model_validate(changed(**changes)))

    plain = id_of()
    for harmless in ({"name": "n"}, {"licence": "l"}, {"source": "s"}, {"training": {}}, {"metrics": {"a": 1}}):
        assert id_of(**harmless) == plain
    others = [
        id_of(architecture="inception-resnet-v1"),
        id_of(sha256="1" * 64),
        id_of(mirror_average=False),
        id_of(dimension=129),
        id_of(geometry={"box_margin": 0.26}),
        id_of(geometry={"template": "arcface-112"}),
        *(id_of(input={**DOCUMENT["input"], key: value}) for key, value in (("colour", "rgb"), ("scale", 2))),
    ]
    assert len({plain, *others}) == 9


@pytest.mark.parametrize("missing", ["architecture", "sha256"])
def test_a_card_that_is_in_no_store_has_no_id(missing: str) -> None:
    with pytest.raises(CardError, match="needs architecture and sha256"):
        encoder_id(parse_card(changed(**{missing: None}), where="x"))


def test_the_card_beside_real_weights_is_one(real_data: Path) -> None:
    path = real_data / "weights" / "mobilefacenet.json"
    assert parse_card(json.loads(path.read_text()), where=str(path)).dimension == 128
