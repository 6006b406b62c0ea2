"""Who is drawn: a made-up person and everything about them that does not change from picture to picture.

Face coordinates, used by all of `models.portraits`: the origin lies between the eyes, x to the right as seen, y down, z towards
the viewer; 1.0 is about the distance from the eyes to the chin.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from models.portraits.names import person_name

__all__ = ["Bones", "Colour", "Eyes", "Glasses", "Hair", "Mouth", "Nose", "Person", "Skin", "draw_person"]

Colour = tuple[float, float, float]
HairStyle = Literal[
    "bald", "buzz", "short", "side-part", "quiff", "receding", "fringe", "bob", "long", "wavy", "curly", "afro", "bun"
]
BeardStyle = Literal["none", "stubble", "full", "goatee", "moustache", "chin-strap"]
GlassesStyle = Literal["none", "round", "square", "wide", "cat-eye", "half-rim"]

_STREAM = 0x9E0B1E  # keeps the people's random numbers apart from the views'

_SKIN_TONES = np.array(
    [(244, 213, 192), (237, 200, 172), (229, 184, 150), (211, 160, 122), (184, 132, 95), (150, 102, 71), (122, 82, 58)],
    float,
)
_HAIR_COLOURS = np.array(
    [
        (34, 27, 25),
        (58, 40, 30),
        (92, 62, 40),
        (134, 92, 54),
        (196, 152, 92),
        (222, 188, 132),
        (150, 66, 34),
        (176, 92, 46),
    ],
    float,
)
_EYE_COLOURS = np.array(
    [(70, 44, 28), (102, 68, 38), (120, 102, 58), (84, 118, 82), (82, 122, 158), (110, 128, 142)], float
)
_FRAME_COLOURS = np.array(
    [(28, 26, 30), (92, 52, 30), (150, 28, 40), (38, 62, 112), (152, 122, 70), (120, 124, 130)], float
)

_STYLES_LONG: dict[HairStyle, float] = {
    "fringe": 3,
    "bob": 3,
    "long": 3,
    "wavy": 3,
    "curly": 2,
    "afro": 1,
    "bun": 3,
    "short": 1,
}
_STYLES_SHORT: dict[HairStyle, float] = {
    "bald": 1.5, "buzz": 2, "short": 2.5, "side-part": 3, "quiff": 2.5, "receding": 2, "curly": 2, "afro": 1, "long": 0.7
}  # fmt: skip


@dataclass(frozen=True)
class Bones:
    """The skull and jaw, half widths and heights in face units."""

    cheek_width: float
    jaw_width: float
    jaw_height: float
    chin_width: float
    chin_height: float
    forehead_width: float
    hairline_height: float
    crown_height: float
    cheekbone: float
    brow_ridge: float
    ear_size: float
    ear_tilt: float
    neck_width: float


@dataclass(frozen=True)
class Eyes:
    """Eyes and brows: distances in face units, slant in radians, bend in [0, 1]."""

    spacing: float
    half_width: float
    opening: float
    slant: float
    lid_fold: float
    lashes: float
    iris: Colour
    brow_height: float
    brow_thickness: float
    brow_slant: float
    brow_bend: float
    brow_length: float


@dataclass(frozen=True)
class Nose:
    """The nose in face units."""

    length: float
    width: float
    bridge: float
    tip: float
    upturn: float


@dataclass(frozen=True)
class Mouth:
    """The mouth in face units; `tint` in [0, 1] is how red the lips are."""

    height: float
    half_width: float
    upper_lip: float
    lower_lip: float
    bow: float
    tint: float


@dataclass(frozen=True)
class Skin:
    """The skin: tone in sRGB 0..255, strengths in [0, 1], marks as (x, y) in face units."""

    tone: Colour
    blush: float
    age_lines: float
    freckles: tuple[tuple[float, float], ...]
    moles: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Hair:
    """Hair and beard: colours in sRGB 0..255, `part` the parting's x in face units, `strand_seed` the fall of the strands."""

    style: HairStyle
    beard: BeardStyle
    colour: Colour
    volume: float
    part: float
    strand_seed: int


@dataclass(frozen=True)
class Glasses:
    """Glasses, or the style `none`; thickness in face units."""

    style: GlassesStyle
    colour: Colour
    thickness: float
    size: float


@dataclass(frozen=True)
class Person:
    """A made-up person: all that is the same in each of their pictures.

    `name` is two ASCII words with one space, fit for a folder's name; no two of the seeds 0..999 share one.
    """

    seed: int
    name: str
    bones: Bones
    eyes: Eyes
    nose: Nose
    mouth: Mouth
    skin: Skin
    hair: Hair
    glasses: Glasses


def draw_person(seed: int) -> Person:
    """The person that belongs to a seed, the same one each time.

    Args:
        seed: >= 0; seeds below 1,000 have names of their own.

    Raises:
        ValueError: the seed is negative; the message holds it.
    """
    if seed < 0:
        raise ValueError(f"draw_person: seed must be >= 0, got {seed}")
    rng = np.random.default_rng(np.random.SeedSequence([_STREAM, seed]))
    sturdy = float(rng.beta(0.6, 0.6))  # heavy jaw, thick brows and beards tend to come together, as long hair does
    age = float(rng.uniform()) ** 2.2
    tan = float(rng.uniform())  # 0 the palest skin, 1 the darkest; dark skin goes with dark hair and eyes
    return Person(
        seed=seed,
        name=person_name(seed),
        bones=_bones(rng, sturdy),
        eyes=_eyes(rng, sturdy, tan),
        nose=_nose(rng, sturdy),
        mouth=_mouth(rng, sturdy),
        skin=_skin(rng, age, tan),
        hair=_hair(rng, sturdy, age, tan),
        glasses=_glasses(rng),
    )


def _around(rng: np.random.Generator, centre: float, spread: float) -> float:
    return centre + spread * float(np.clip(rng.normal(0, 0.6), -1, 1))


def _bones(rng: np.random.Generator, sturdy: float) -> Bones:
    cheek = _around(rng, 0.66, 0.075)
    return Bones(
        cheek_width=cheek,
        jaw_width=cheek * _around(rng, 0.80 + 0.06 * sturdy, 0.07),
        jaw_height=_around(rng, 0.60, 0.06),
        chin_width=_around(rng, 0.21 + 0.07 * sturdy, 0.07),
        chin_height=_around(rng, 1.0 + 0.03 * sturdy, 0.075),
        forehead_width=cheek * _around(rng, 0.95, 0.045),
        hairline_height=_around(rng, 0.62, 0.09),
        crown_height=_around(rng, 0.94, 0.05),
        cheekbone=_around(rng, 0.5, 0.5),
        brow_ridge=_around(rng, 0.3 + 0.4 * sturdy, 0.3),
        ear_size=_around(rng, 0.25, 0.06),
        ear_tilt=_around(rng, 0.0, 0.06),
        neck_width=_around(rng, 0.32 + 0.12 * sturdy, 0.03),
    )


def _eyes(rng: np.random.Generator, sturdy: float, tan: float) -> Eyes:
    iris = _EYE_COLOURS[rng.integers(3 if tan > 0.55 else len(_EYE_COLOURS))] + rng.normal(0, 8, 3)
    return Eyes(
        spacing=_around(rng, 0.300, 0.045),
        half_width=_around(rng, 0.156, 0.026),
        opening=_around(rng, 0.50, 0.13),
        slant=_around(rng, 0.03, 0.16),
        lid_fold=_around(rng, 0.5, 0.5),
        lashes=_around(rng, 0.75 - 0.45 * sturdy, 0.25),
        iris=_colour(iris),
        brow_height=_around(rng, 0.225 - 0.02 * sturdy, 0.05),
        brow_thickness=_around(rng, 0.042 + 0.03 * sturdy, 0.022),
        brow_slant=_around(rng, 0.02, 0.16),
        brow_bend=_around(rng, 0.055 - 0.02 * sturdy, 0.045),
        brow_length=_around(rng, 0.185, 0.035),
    )


def _nose(rng: np.random.Generator, sturdy: float) -> Nose:
    return Nose(
        length=_around(rng, 0.405, 0.065),
        width=_around(rng, 0.138 + 0.02 * sturdy, 0.042),
        bridge=_around(rng, 0.058, 0.02),
        tip=_around(rng, 0.085, 0.025),
        upturn=_around(rng, 0.0, 1.0),
    )


def _mouth(rng: np.random.Generator, sturdy: float) -> Mouth:
    return Mouth(
        height=_around(rng, 0.655, 0.035),
        half_width=_around(rng, 0.235, 0.055),
        upper_lip=_around(rng, 0.055 - 0.012 * sturdy, 0.03),
        lower_lip=_around(rng, 0.080 - 0.012 * sturdy, 0.035),
        bow=_around(rng, 0.5, 0.5),
        tint=_around(rng, 0.55 - 0.3 * sturdy, 0.25),
    )


def _skin(rng: np.random.Generator, age: float, tan: float) -> Skin:
    place = tan * (len(_SKIN_TONES) - 1)
    low = min(int(place), len(_SKIN_TONES) - 2)
    tone = _SKIN_TONES[low] + (place - low) * (_SKIN_TONES[low + 1] - _SKIN_TONES[low]) + rng.normal(0, 3, 3)
    freckled = place < 2.8 and rng.uniform() < 0.3
    spots = rng.normal((0, 0.22), (0.26, 0.10), (int(rng.integers(25, 55)), 2)) if freckled else np.zeros((0, 2))
    moles = rng.uniform((-0.5, -0.4), (0.5, 0.85), (int(rng.choice(3, p=(0.6, 0.3, 0.1))), 2))
    return Skin(
        tone=_colour(tone),
        blush=_around(rng, 0.5, 0.5),
        age_lines=max(0.0, (age - 0.25) / 0.75),
        freckles=_points(spots),
        moles=_points(moles),
    )


def _hair(rng: np.random.Generator, sturdy: float, age: float, tan: float) -> Hair:
    weights = _STYLES_SHORT if rng.uniform() < sturdy else _STYLES_LONG
    share = np.array(list(weights.values()))
    style = list(weights)[int(rng.choice(len(share), p=share / share.sum()))]
    beards: tuple[BeardStyle, ...] = get_args(BeardStyle)
    beard: BeardStyle = (
        beards[int(rng.choice(len(beards), p=(0.34, 0.16, 0.18, 0.12, 0.12, 0.08)))] if sturdy > 0.5 else "none"
    )
    colour = _HAIR_COLOURS[rng.integers(4 if tan > 0.55 else len(_HAIR_COLOURS))] * rng.uniform(0.85, 1.15)
    grey = float(np.clip((age - 0.5) * 2 + rng.normal(0, 0.15), 0, 1)) if age > 0.5 else 0.0
    colour = colour + grey * (np.array((196.0, 194, 192)) - colour)
    return Hair(
        style=style,
        beard=beard,
        colour=_colour(colour),
        volume=_around(rng, 1.0, 0.35),
        part=float(rng.choice((-1, 1)) * rng.uniform(0.12, 0.34)),
        strand_seed=int(rng.integers(2**31)),
    )


def _glasses(rng: np.random.Generator) -> Glasses:
    styles: tuple[GlassesStyle, ...] = get_args(GlassesStyle)
    return Glasses(
        style=styles[int(rng.choice(len(styles), p=(0.66, 0.09, 0.07, 0.07, 0.05, 0.06)))],
        colour=_colour(_FRAME_COLOURS[rng.integers(len(_FRAME_COLOURS))]),
        thickness=_around(rng, 0.026, 0.012),
        size=_around(rng, 1.0, 0.12),
    )


def _colour(rgb: np.ndarray) -> Colour:
    red, green, blue = (float(value) for value in np.clip(rgb, 8, 252))
    return red, green, blue


def _points(points_N2: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points_N2)
