"""What an encoder is: its card, and the id that follows from it."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = [
    "BoxMargin",
    "CardError",
    "EncoderCard",
    "InputSpec",
    "Template",
    "encoder_id",
    "parse_card",
    "problems_of_card",
]

Finite = Annotated[float, Field(allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CardError(ValueError):
    """A card cannot be used; the message names every key at fault."""


class InputSpec(BaseModel):
    """How pixels become a network's input: (pixel * scale - mean) / std, channels in the order of `colour`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: Annotated[int, Field(ge=16, le=1024)]
    width: Annotated[int, Field(ge=16, le=1024)]
    colour: Literal["rgb", "bgr"]
    scale: PositiveFloat
    mean: tuple[Finite, Finite, Finite]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Template(BaseModel):
    """The face is warped by a similarity transform of its five landmarks onto a template."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: Literal["arcface-112"]


class BoxMargin(BaseModel):
    """The box, each side made longer by `box_margin` times its length, is resized without keeping the aspect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    box_margin: Annotated[float, Field(ge=0, le=1)]


class EncoderCard(BaseModel):
    """All that is needed to use an encoder's weights, and what is known about them.

    A user's card needs `format`, `input`, `geometry`, `mirror_average` and `dimension`; the store adds `architecture`
    and `sha256`, the weights file's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    input: InputSpec
    geometry: Template | BoxMargin
    mirror_average: bool
    dimension: Annotated[int, Field(ge=1, le=8192)]
    architecture: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    name: str | None = None
    licence: str | None = None
    source: str | None = None
    training: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    promotion: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None


def problems_of_card(document: object) -> list[str]:
    """One sentence for each key of a parsed JSON document that keeps it from being a card; empty if it is one."""
    try:
        EncoderCard.model_validate(document)
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}, got {e['input']!r:.80}" for e in error.errors()]
    return []


def parse_card(document: object, *, where: str) -> EncoderCard:
    """The card in a parsed JSON document.

    Args:
        document: what `json.loads` returned.
        where: the file it came from, for the message.

    Raises:
        CardError: keys are unknown, missing or out of range; the message names each of them.
    """
    if problems := problems_of_card(document):
        raise CardError(f"{where} is not an encoder card: {'; '.join(problems)}")
    return EncoderCard.model_validate(document)


def encoder_id(card: EncoderCard) -> str:
    """The encoder's id: 32 hex digits over everything that changes an embedding, and nothing else.

    Raises:
        CardError: the card names no architecture or no sha256, as a user's own card may.
    """
    if card.architecture is None or card.sha256 is None:
        raise CardError("an encoder's id needs architecture and sha256 in its card; adding it to a store fills them in")
    identity = card.model_dump(
        mode="json",
        include={"architecture", "sha256", "input", "geometry", "mirror_average", "dimension"},
    )
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
