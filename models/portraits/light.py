"""Light on a drawn person: a relief of the head, lit from one side, gives the flat drawing its form."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.portraits.hair import hair_spread
from models.portraits.person import Person
from models.portraits.sheet import Projector
from models.portraits.view import View

__all__ = ["lit"]

Float32Array = NDArray[np.float32]

_WRAP = (0.44, 0.28, 0.22)  # light creeps round an edge under the skin, red furthest
_KNEE = 190.0


def lit(flat_HWC: Float32Array, head_HW: Float32Array, person: Person, view: View) -> Float32Array:
    """The drawing under the view's light.

    Args:
        flat_HWC: float32, (H, H, 3), 0..255, the drawing in even light.
        head_HW: float32, (H, H), 0..1, what of it is head.
        person: whose bones give the relief.
        view: pose, expression and light.

    Returns:
        float32, (H, H, 3), 0..255.
    """
    side = flat_HWC.shape[0]
    coarse = (side + 1) // 2
    project = Projector(view.pose, coarse)
    rows, columns = np.mgrid[0:coarse, 0:coarse].astype(np.float64)
    place_P2 = project.unplace(np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1))
    u, v = (axis.reshape(coarse, coarse).astype(np.float32) for axis in place_P2.T)
    head_diffuse, head_shine = _head_light(u, v, person, view, project)
    body_diffuse = _body_light(u, v, person, view)
    head_facing, body_facing, gloss = (_enlarged(field, side) for field in (head_diffuse, body_diffuse, head_shine))
    facing = body_facing + head_HW * (head_facing - body_facing)
    gloss = 255 * head_HW * gloss
    shaded = np.empty_like(flat_HWC)
    for channel, (key, ambient, wrap) in enumerate(zip(view.light.key, view.light.ambient, _WRAP, strict=True)):
        level = np.maximum(facing + wrap, 0) * (key / (1 + wrap)) + ambient
        shaded[..., channel] = flat_HWC[..., channel] * level + key * gloss
    peak = shaded.max(axis=2, keepdims=True)
    over = np.maximum(peak - _KNEE, 0)
    shaded *= 1 - over * over / (255 - _KNEE + over) / np.maximum(peak, 1)  # film burns out gently and keeps its hue
    return shaded


def _head_light(
    u: Float32Array, v: Float32Array, person: Person, view: View, project: Projector
) -> tuple[Float32Array, Float32Array]:
    relief = _relief(u, v, person, view, project)
    step = float(np.hypot(u[0, 1] - u[0, 0], v[0, 1] - v[0, 0]))
    down, right = np.gradient(relief, step)  # along the picture's axes, as the light's direction is: no roll
    cos, sin = float(np.cos(view.pose.roll)), float(np.sin(view.pose.roll))
    x, y, z = view.light.direction
    inverse = 1 / np.sqrt(1 + right**2 + down**2)
    facing = (-right * x - down * y + z) * inverse
    length = float(np.sqrt(x * x + y * y + (z + 1) ** 2))
    gloss = np.clip((-right * x - down * y + z + 1) * (inverse / length), 0, 1) ** 14
    rim = view.light.rim * np.clip((-facing - 0.1), 0, 1) * np.clip(1 - inverse, 0, 1) * 2
    cast = _cast(u * cos - v * sin, u * sin + v * cos, view)
    return ((facing + 0.2) * cast + rim - 0.2).astype(np.float32), (view.light.shine * gloss * cast).astype(np.float32)


def _relief(u: Float32Array, v: Float32Array, person: Person, view: View, project: Projector) -> Float32Array:
    """The head's height towards the viewer in face units, on turned face coordinates."""
    bones = person.bones
    sides, top = hair_spread(person)
    raised = 0.5 * max(0.0, top - 0.25)
    inside = 1 - (u / (1.16 * bones.cheek_width + max(0.08, sides))) ** 2 - ((v + 0.02 + raised) / (1.28 + raised)) ** 2
    squeeze = max(0.4, float(np.cos(view.pose.yaw)))
    relief: Float32Array = 0.72 * np.sqrt(np.clip(inside, 0.03, 1))
    for x, y, wide, tall, height, lift in _bumps(person, view):
        across, down = project.turned(np.array([(x, y)]), None if lift == 0 else lift)[0].tolist()
        right, below = (u - across) * (1 / (wide * squeeze)), (v - down) * (1 / tall)
        relief += height * np.exp(-(right * right) - below * below)
    return relief


def _bumps(person: Person, view: View) -> list[tuple[float, float, float, float, float, float]]:
    """Each bump of the face: x, y, width, height, how far it stands out, and its depth if it is not the surface's."""
    bones, eyes, nose, mouth, look = person.bones, person.eyes, person.nose, person.mouth, view.expression
    smile = max(look.smile, 0.0)
    middle = [
        (0.0, 0.45 * nose.length, 0.9 * nose.bridge + 0.02, 0.62 * nose.length, 0.10, 0.64),
        (0.0, nose.length - 0.045, 0.85 * nose.tip, 0.085, 0.13, 0.70),
        (0.0, mouth.height, 0.26, 0.16, 0.05, 0.0),
        (0.0, mouth.height + mouth.lower_lip + 0.06, 0.17, 0.05, -0.028, 0.0),
        (0.0, bones.chin_height - 0.11, 0.75 * bones.chin_width, 0.12, 0.075, 0.45),
        (0.0, -0.46, 0.30, 0.22, 0.03, 0.0),
        (0.0, 0.5 * (nose.length + mouth.height), 0.035, 0.07, -0.016, 0.0),
    ]
    paired = [
        (0.62 * nose.width, nose.length - 0.03, 0.055, 0.055, 0.055, 0.62),
        (eyes.spacing, -0.19, 0.20, 0.075, 0.045 + 0.05 * bones.brow_ridge, 0.0),
        (eyes.spacing - 0.02, -0.02, 0.15, 0.10, -0.085, 0.0),
        (eyes.spacing, 0.0, 0.09, 0.06, 0.035, 0.0),
        (0.66 * bones.cheek_width, 0.24 - 0.03 * smile, 0.19, 0.15, 0.04 + 0.04 * bones.cheekbone + 0.03 * smile, 0.0),
        (0.66 * bones.cheek_width, 0.58, 0.17, 0.19, -0.04 * bones.cheekbone, 0.0),
        (1.30 * mouth.half_width, mouth.height - 0.02, 0.09, 0.09, -0.012 - 0.02 * smile, 0.0),
    ]
    return middle + [(sign * bump[0], *bump[1:]) for bump in paired for sign in (-1, 1)]


def _body_light(u: Float32Array, v: Float32Array, person: Person, view: View) -> Float32Array:
    """Neck and shoulders: rounded across, darker under the chin."""
    x, y, z = view.light.direction
    slope = np.clip(u / 1.7, -0.8, 0.8)
    facing = (slope * x + 0.25 * y * -1 + z) / np.sqrt(1 + slope**2)
    chin = person.bones.chin_height + 0.07 * view.expression.jaw_drop
    under = np.exp(-(((u + 0.25 * x) / 0.52) ** 2) - ((v - chin - 0.08) / 0.26) ** 2)
    shaded: Float32Array = (0.92 * (facing + 0.2) * (1 - 0.75 * under) - 0.2).astype(np.float32)
    return shaded


def _cast(right: Float32Array, down: Float32Array, view: View) -> Float32Array:
    """Something out of the picture throws a soft-edged shadow over part of it."""
    light = view.light
    across = right * float(np.cos(light.cast_angle)) + down * float(np.sin(light.cast_angle))
    shadow: Float32Array = (1 - light.cast / (1 + np.exp(np.clip(-(across - 0.12) / 0.07, -30, 30)))).astype(np.float32)
    return shadow


def _enlarged(field_HW: Float32Array, side: int) -> Float32Array:
    grown = Image.fromarray(field_HW, "F").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(grown)
