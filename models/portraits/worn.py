"""What else a person wears on the face for good: beard and glasses."""

import numpy as np

from models.portraits.face import head_outline
from models.portraits.person import Colour, Person
from models.portraits.sheet import FloatArray, Projector, Sheet, mirrored, mix, shifted, smooth
from models.portraits.view import View

__all__ = ["paint_beard", "paint_glasses"]

_BLACK: Colour = (12, 9, 9)
_WHITE: Colour = (255, 246, 230)


def paint_beard(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Stubble, full beard, goatee, moustache or chin strap."""
    style, unit = person.hair.beard, project.unit_px
    if style == "none":
        return
    colour = mix(person.hair.colour, _BLACK, 0.22)
    jaw = _jaw(person, view, style)
    skin = head_outline(person, view, project)
    if style == "stubble":
        sheet.soft(project(jaw), mix(colour, person.skin.tone, 0.25), alpha=0.50, blur_px=0.06 * unit, within=skin)
        return
    if style != "moustache":
        outline = project(jaw, _jaw_depth(jaw))
        sheet.soft(outline, colour, alpha=0.65, blur_px=0.035 * unit)
        sheet.cover(outline, part="head")
        sheet.fill(outline, colour, alpha=0.82)
        _paint_bristles(sheet, person, outline, unit)
    if style in ("full", "goatee", "moustache"):
        moustache = project(_moustache(person, view), 0.60)
        sheet.soft(moustache, colour, alpha=0.6, blur_px=0.02 * unit)
        sheet.fill(moustache, colour, alpha=0.86)
        _paint_bristles(sheet, person, moustache, unit)


def paint_glasses(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Frames, bridge, arms and a reflection."""
    glasses, unit = person.glasses, project.unit_px
    if glasses.style == "none":
        return
    width_px, frame = glasses.thickness * unit, glasses.colour
    inner = None
    for side in (-1, 1):
        shape = _lens(person) * (side, 1)
        lens = project(shape, 0.62)
        sheet.fill(lens, (220, 232, 240), alpha=0.09)
        streak = shifted(
            np.array([(-0.10, -0.12), (-0.04, -0.12), (-0.09, 0.12), (-0.15, 0.12)]), side * person.eyes.spacing, 0.0
        )
        with sheet.clipped(lens) as brush:
            brush.fill(project(streak, 0.62), _WHITE, alpha=0.16 * abs(view.light.direction[0]))
        shadow = shifted(np.concatenate([lens, lens[:1]]), 0, 0.035 * unit)
        sheet.line(shadow, (30, 12, 8), width_px=width_px, alpha=0.16)
        rim = lens[len(lens) // 2 :] if glasses.style == "half-rim" else np.concatenate([lens, lens[:2]])
        sheet.line(rim, frame, width_px=width_px)
        sheet.line(rim - 0.25 * width_px, mix(frame, _WHITE, 0.55), width_px=0.3 * width_px, alpha=0.4)
        hinge = shape[np.argmax(np.abs(shape[:, 0]))]
        arm = np.stack([hinge, (side * (person.bones.cheek_width + 0.01), hinge[1] - 0.02)])
        sheet.line(project(arm, np.array((0.60, 0.05))), frame, width_px=width_px)
        inner = abs(shape[np.argmin(np.abs(shape[:, 0])), 0]) if inner is None else inner
    bridge = smooth([(-(inner or 0.1), -0.03), (0, -0.075), ((inner or 0.1), -0.03)])
    sheet.line(project(bridge, 0.66), frame, width_px=width_px)


def _jaw(person: Person, view: View, style: str) -> FloatArray:
    """The outline of a beard in face coordinates."""
    bones, mouth, drop = person.bones, person.mouth, 0.07 * view.expression.jaw_drop
    chin = bones.chin_height + drop
    below = chin + {"full": 0.10, "goatee": 0.05}.get(style, 0.0)
    under_lip = mouth.height + mouth.lower_lip + 0.125 * view.expression.jaw_drop + 0.05
    if style == "goatee":
        half = [
            (0, below),
            (0.85 * bones.chin_width, chin - 0.04),
            (0.9 * bones.chin_width, chin - 0.2),
            (0.5 * mouth.half_width, under_lip),
            (0, under_lip - 0.03),
        ]
        return smooth(mirrored(half), closed=True)
    strap = 0.10 if style == "chin-strap" else 0.0
    top_y = under_lip + 0.06 if strap else mouth.height - 0.14
    inner = bones.jaw_width - strap if strap else 1.35 * mouth.half_width
    edge = bones.cheek_width - 0.015
    half = [
        (0, below), (0.65 * bones.chin_width, below - 0.015), (bones.chin_width + 0.03, chin - 0.03), (bones.jaw_width + 0.01, bones.jaw_height + 0.03),
        (edge, 0.22), (edge, 0.0), (edge - 0.09, 0.0), (edge - 0.12, 0.25), (max(inner, 0.35), 0.48 if not strap else 0.62),
        (0.72 * mouth.half_width, top_y), (0, top_y),
    ]  # fmt: skip
    return smooth(mirrored(half), closed=True)


def _jaw_depth(jaw_N2: FloatArray) -> FloatArray:
    ahead = np.clip((jaw_N2[:, 1] - 0.25) / 0.75, 0, 1) * np.clip(1 - np.abs(jaw_N2[:, 0]) / 0.75, 0, 1)
    inside = np.clip((0.85 - np.hypot(jaw_N2[:, 0] / 0.8, jaw_N2[:, 1])) / 0.25, 0, 1)
    return 0.04 + 0.42 * ahead + 0.20 * inside


def _moustache(person: Person, view: View) -> FloatArray:
    mouth, nose = person.mouth, person.nose
    half = mouth.half_width * (1 + 0.18 * view.expression.smile)
    top, low = nose.length + 0.07, mouth.height - 0.30 * mouth.upper_lip - 0.02 * view.expression.jaw_drop
    end = (1.18 * half, mouth.height + 0.05 - 0.05 * view.expression.smile)
    shape = [
        (0, top + 0.01),
        (0.35 * half, top),
        (0.85 * half, 0.5 * (top + low) + 0.01),
        end,
        (0.85 * half, low + 0.01),
        (0.4 * half, low),
        (0, low - 0.01),
    ]
    return smooth(mirrored(shape), closed=True)


def _paint_bristles(sheet: Sheet, person: Person, outline_px: FloatArray, unit: float) -> None:
    rng = np.random.default_rng(person.hair.strand_seed + 3)
    low, high = outline_px.min(0), outline_px.max(0)
    count = int(np.clip(0.04 * np.prod((high - low) / (0.05 * unit)) * 12, 20, 110))
    with sheet.clipped(outline_px) as brush:
        for root in rng.uniform(low, high, (count, 2)):
            shade = mix(person.hair.colour, _WHITE if rng.uniform() < 0.4 else _BLACK, 0.35)
            tip = root + rng.normal((0, 0.05 * unit), (0.02 * unit, 0.02 * unit))
            brush.line(np.stack([root, tip]), shade, width_px=0.014 * unit, alpha=0.40)


def _lens(person: Person) -> FloatArray:
    """A lens on the right side, in face coordinates; its second half is the upper rim."""
    style, size = person.glasses.style, person.glasses.size
    half_width, half_height, power = {
        "round": (0.185, 0.175, 2.0), "square": (0.20, 0.155, 4.0), "wide": (0.215, 0.125, 3.2),
        "cat-eye": (0.205, 0.135, 2.6), "half-rim": (0.21, 0.125, 3.5),
    }[style]  # fmt: skip
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    x = half_width * np.sign(cos) * np.abs(cos) ** (2 / power)
    y = half_height * np.sign(sin) * np.abs(sin) ** (2 / power)
    if style == "cat-eye":
        y -= 0.05 * np.clip(x / half_width, 0, 1) ** 2
    inner_gap = max(person.eyes.spacing + 0.015, size * half_width + 0.05)
    return np.stack([size * x + inner_gap, size * y + 0.015], axis=1)
