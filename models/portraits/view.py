"""How a person is seen: pose, expression, light, clothes, background and camera of one picture."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.portraits.person import Colour

__all__ = ["Backdrop", "Camera", "Clothes", "Expression", "Light", "Pose", "View", "sample_view"]

_STREAM = 0x51DE
_CLOTH = np.array(
    [(38, 44, 62), (120, 36, 44), (224, 222, 214), (62, 92, 74), (182, 142, 72), (44, 44, 46), (120, 142, 172), (168, 96, 112),
     (90, 70, 110), (206, 120, 70)], float
)  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """Angles in radians, place and scale as fractions of the picture's side."""

    yaw: float
    pitch: float
    roll: float
    x: float
    y: float
    scale: float


@dataclass(frozen=True)
class Expression:
    """Smile in [-1, 1]; jaw, lids, brow in [0, 1]; gaze as a fraction of the eye's width."""

    smile: float
    jaw_drop: float
    lids: float
    brow_raise: float
    gaze_x: float
    gaze_y: float


@dataclass(frozen=True)
class Light:
    """A key light from `direction` (unit vector, x right, y down, z to the viewer), ambient light and a rim light."""

    direction: tuple[float, float, float]
    key: Colour
    ambient: Colour
    shine: float
    rim: float
    cast_angle: float
    cast: float


@dataclass(frozen=True)
class Clothes:
    """What is worn in this picture."""

    collar: Literal["crew", "v-neck", "shirt", "roll-neck"]
    colour: Colour
    second: Colour


@dataclass(frozen=True)
class Backdrop:
    """What is behind the person; `seed` places its shapes, blur in hundredths of the picture's side."""

    kind: Literal["plain", "bokeh", "panels", "horizon", "shelves"]
    first: Colour
    second: Colour
    blur: float
    seed: int


@dataclass(frozen=True)
class Camera:
    """Gains a channel, exposure and contrast factors, blur and noise (blur in 250ths of the side, noise in grey levels)."""

    gains: Colour
    exposure: float
    contrast: float
    saturation: float
    vignette: float
    blur: float
    noise: float
    seed: int


@dataclass(frozen=True)
class View:
    """Everything about a picture that is not the person."""

    pose: Pose
    expression: Expression
    light: Light
    clothes: Clothes
    backdrop: Backdrop
    camera: Camera


def sample_view(view_seed: int, *, person_seed: int) -> View:
    """The view that belongs to two seeds: two people share no nuisance under one view seed.

    Raises:
        ValueError: a seed is negative; the message holds both.
    """
    if view_seed < 0 or person_seed < 0:
        raise ValueError(f"sample_view: seeds must be >= 0, got view {view_seed}, person {person_seed}")
    rng = np.random.default_rng(np.random.SeedSequence([_STREAM, person_seed, view_seed]))
    return View(
        pose=_pose(rng),
        expression=_expression(rng),
        light=_light(rng),
        clothes=_clothes(rng),
        backdrop=_backdrop(rng),
        camera=_camera(rng),
    )


def _spread(rng: np.random.Generator, limit: float, at: float = 0.55) -> float:
    return limit * float(np.clip(rng.normal(0, at), -1, 1))


def _colour(rgb: np.ndarray) -> Colour:
    red, green, blue = (float(value) for value in rgb)
    return red, green, blue


def _pose(rng: np.random.Generator) -> Pose:
    return Pose(
        yaw=_spread(rng, 0.45),
        pitch=_spread(rng, 0.26),
        roll=_spread(rng, 0.26),
        x=0.5 + _spread(rng, 0.06),
        y=0.48 + _spread(rng, 0.05),
        scale=float(rng.uniform(0.235, 0.33)),
    )


def _expression(rng: np.random.Generator) -> Expression:
    return Expression(
        smile=float(rng.uniform(-0.45, 1.0)),
        jaw_drop=float(rng.choice((0.0, rng.uniform(0.15, 1.0)), p=(0.55, 0.45))),
        lids=float(rng.uniform(0.0, 0.25) if rng.uniform() < 0.8 else rng.uniform(0.3, 0.62)),
        brow_raise=float(rng.uniform(-0.35, 1.0)) ** 3,
        gaze_x=_spread(rng, 0.3),
        gaze_y=_spread(rng, 0.12),
    )


def _light(rng: np.random.Generator) -> Light:
    around = rng.uniform(-1.25, 1.25)
    height = rng.uniform(-0.2, 0.85)
    direction = np.array((np.sin(around) * np.cos(height), -np.sin(height), np.cos(around) * np.cos(height)))
    warmth = rng.uniform(-1, 1)
    strength = rng.uniform(0.5, 1.0)
    tint = np.array((1 + 0.13 * warmth, 1 + 0.02 * warmth, 1 - 0.17 * warmth))
    shade = np.array((1 - 0.10 * warmth, 1.0, 1 + 0.12 * warmth))
    x, y, z = (float(value) for value in direction)
    return Light(
        direction=(x, y, z),
        key=_colour(strength * tint),
        ambient=_colour((0.78 - 0.56 * strength + rng.uniform(-0.04, 0.10)) * shade),
        shine=float(rng.uniform(0.03, 0.20)),
        rim=float(rng.choice((0.0, rng.uniform(0.2, 0.6)), p=(0.6, 0.4))),
        cast_angle=float(rng.uniform(0, 2 * np.pi)),
        cast=float(rng.choice((0.0, rng.uniform(0.2, 0.5)), p=(0.55, 0.45))),
    )


def _clothes(rng: np.random.Generator) -> Clothes:
    first, second = _CLOTH[rng.choice(len(_CLOTH), 2, replace=False)]
    collars: tuple[Literal["crew", "v-neck", "shirt", "roll-neck"], ...] = ("crew", "v-neck", "shirt", "roll-neck")
    return Clothes(
        collar=collars[int(rng.integers(4))], colour=_colour(first * rng.uniform(0.75, 1.15)), second=_colour(second)
    )


def _backdrop(rng: np.random.Generator) -> Backdrop:
    kinds: tuple[Literal["plain", "bokeh", "panels", "horizon", "shelves"], ...] = (
        "plain", "bokeh", "panels", "horizon", "shelves"
    )  # fmt: skip
    hue = rng.uniform(0, 1, 3)
    value = rng.uniform(50, 235)
    first = value * (0.62 + 0.38 * hue)
    second = np.clip(first * rng.uniform(0.45, 1.5) + rng.normal(0, 22, 3), 15, 250)
    return Backdrop(
        kind=kinds[int(rng.integers(len(kinds)))],
        first=_colour(first),
        second=_colour(second),
        blur=float(rng.uniform(1.3, 3.2)),
        seed=int(rng.integers(2**31)),
    )


def _camera(rng: np.random.Generator) -> Camera:
    warmth = rng.normal(0, 0.075)
    green = rng.normal(0, 0.03)
    return Camera(
        gains=(float(1 + warmth), float(1 + green), float(1 - warmth)),
        exposure=float(np.exp(rng.normal(0, 0.13))),
        contrast=float(rng.uniform(0.82, 1.2)),
        saturation=float(rng.uniform(0.6, 1.2)),
        vignette=float(rng.uniform(0, 0.3)),
        blur=float(rng.uniform(0.0, 1.1)),
        noise=float(rng.uniform(0.5, 6.0)),
        seed=int(rng.integers(2**31)),
    )
