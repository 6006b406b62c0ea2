"""The hair of the head: behind the face, and over skull and forehead."""

from dataclasses import dataclass

import numpy as np

from models.portraits.face import head_outline
from models.portraits.person import Colour, HairStyle, Person
from models.portraits.sheet import (
    Brush,
    FloatArray,
    Projector,
    Sheet,
    face_depth,
    mirrored,
    mix,
    ribbon,
    shifted,
    smooth,
)
from models.portraits.view import View

__all__ = ["covers_ears", "hair_spread", "paint_back_hair", "paint_front_hair"]

_BLACK: Colour = (12, 9, 9)
_WHITE: Colour = (255, 246, 230)
_STRANDS = 150


@dataclass(frozen=True)
class _Cut:
    """A hair style: how far it stands off the skull, its hairline, how far it falls and how its edge runs."""

    top: float
    sides: float
    hairline: str
    falls_to: float | None = None
    flare: float = 0.0
    bumps: float = 0.0
    ends: float = 0.05


_CUTS: dict[HairStyle, _Cut] = {
    "buzz": _Cut(0.025, 0.012, "round", ends=0.02),
    "short": _Cut(0.12, 0.05, "round"),
    "side-part": _Cut(0.17, 0.06, "sweep"),
    "quiff": _Cut(0.30, 0.04, "high"),
    "receding": _Cut(0.07, 0.05, "receding"),
    "fringe": _Cut(0.15, 0.10, "fringe", falls_to=0.85, flare=0.02, ends=0.75),
    "bob": _Cut(0.15, 0.12, "sweep", falls_to=0.72, flare=0.08, ends=0.60),
    "long": _Cut(0.12, 0.08, "curtain", falls_to=1.75, flare=0.04, ends=0.80),
    "wavy": _Cut(0.18, 0.14, "sweep", falls_to=1.55, flare=0.14, bumps=0.035, ends=0.62),
    "curly": _Cut(0.28, 0.12, "round", falls_to=0.50, flare=0.06, bumps=0.085, ends=0.22),
    "afro": _Cut(0.46, 0.36, "round", bumps=0.05, ends=0.18),
    "bun": _Cut(0.07, 0.02, "high", ends=-0.12),
}


def covers_ears(person: Person) -> bool:
    """Whether the hair falls over the ears."""
    cut = _CUTS.get(person.hair.style)
    return cut is not None and cut.falls_to is not None


def hair_spread(person: Person) -> tuple[float, float]:
    """How far the hair stands off the skull at the sides and at the top, in face units."""
    cut = _CUTS.get(person.hair.style)
    return (0.0, 0.0) if cut is None else (cut.sides * person.hair.volume, cut.top * person.hair.volume)


def paint_back_hair(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """The hair behind face and neck, and a bun on top."""
    cut = _CUTS.get(person.hair.style)
    if cut is None:
        return
    bones, colour = person.bones, person.hair.colour
    if person.hair.style == "bun":
        angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
        ball = np.stack([0.27 * np.cos(angle), -bones.crown_height - 0.17 + 0.24 * np.sin(angle)], axis=1)
        sheet.paint(project(ball, -0.25), mix(colour, _BLACK, 0.12), part="head")
        for bend in (-0.12, 0.0, 0.12):
            strand = smooth(
                [
                    (-0.2, -bones.crown_height - 0.1),
                    (bend, -bones.crown_height - 0.28 + bend),
                    (0.2, -bones.crown_height - 0.1),
                ]
            )
            sheet.line(project(strand, -0.2), mix(colour, _WHITE, 0.25), width_px=0.02 * project.unit_px, alpha=0.5)
    if cut.falls_to is None:
        return
    side, low = bones.cheek_width + cut.sides * person.hair.volume, cut.falls_to
    half = [
        (0, low),
        (0.5 * side, low + 0.02),
        (side + cut.flare, low - 0.12),
        (side + cut.flare, 0.5 * low),
        (side, -0.1),
        (0.8 * side, -0.7),
        (0, -1.0),
    ]
    fall = _bumpy(smooth(mirrored(half), closed=True), cut.bumps, person.hair.strand_seed)
    outline = project(fall, -0.30)
    sheet.paint(outline, mix(colour, _BLACK, 0.26), part="body")
    rng = np.random.default_rng(person.hair.strand_seed + 2)
    with sheet.clipped(outline) as brush:
        y = np.linspace(-0.7, low, 10)
        x_S10 = rng.uniform(-side, side, (60, 1)) + rng.normal(0, 0.03, (60, 1)) * y + 0.6 * cut.bumps * np.sin(9 * y)
        lines_S10_2 = np.stack([x_S10, np.broadcast_to(y, x_S10.shape)], axis=2)
        for line, tone in zip(
            project(lines_S10_2.reshape(-1, 2), -0.30).reshape(60, 10, 2), rng.uniform(size=60), strict=True
        ):
            brush.line(line, mix(colour, _BLACK, 0.08 + 0.5 * float(tone)), width_px=0.02 * project.unit_px, alpha=0.5)


def paint_front_hair(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """The hair over skull and forehead, with its strands and its shadow on the skin."""
    cut = _CUTS.get(person.hair.style)
    if cut is None:
        return
    edge, line = _contour(person, cut), _hairline(person, cut)
    edge_px, line_px = project(edge, -0.04), project(line, _hairline_depth(line))
    outline = np.concatenate([edge_px, line_px[::-1]])
    unit, colour = project.unit_px, person.hair.colour
    skin = head_outline(person, view, project)
    sheet.soft(
        ribbon(shifted(line_px, 0, 0.03 * unit), 0.11 * unit, taper=0.3),
        (44, 20, 14),
        alpha=0.42,
        blur_px=0.04 * unit,
        within=skin,
    )
    if person.hair.style == "buzz":
        sheet.soft(outline, mix(colour, person.skin.tone, 0.2), alpha=0.85, blur_px=0.02 * unit)
        sheet.cover(edge_px, part="head")
        return
    sheet.paint(outline, colour, part="head")
    with sheet.clipped(outline) as brush:
        _paint_strands(brush, person, cut, edge_px, line_px, unit)
    if not cut.bumps:
        middle = 0.62 * _evenly(edge_px, 24) + 0.38 * _evenly(line_px, 24)
        sheen = ribbon(middle[5:19], 0.13 * unit)
        sheet.soft(sheen, mix(colour, _WHITE, 0.55), alpha=0.34, blur_px=0.045 * unit, within=outline)


def _contour(person: Person, cut: _Cut) -> FloatArray:
    """The hair's outer edge from the left end over the crown to the right end."""
    bones, volume = person.bones, person.hair.volume
    top, side = cut.top * volume, cut.sides * volume
    half = [
        (0, -bones.crown_height - top),
        (0.55 * (bones.forehead_width + side), -0.90 * bones.crown_height - 0.90 * top),
        (0.90 * (bones.forehead_width + side), -0.62 * bones.crown_height - 0.50 * top),
        (bones.forehead_width + side + 0.01, -0.38),
        (bones.cheek_width + side + 0.01, 0.5 * cut.ends - 0.13),
        (bones.cheek_width + 0.6 * side + 0.3 * cut.flare, cut.ends),
    ]
    right = np.array(half)
    edge = smooth(np.concatenate([right[:0:-1] * (-1, 1), right]))
    if cut.hairline in ("sweep", "curtain", "high"):  # the parting dents the crown, a quiff leans
        lean = 0.25 if cut.hairline == "high" else 0.10
        edge[:, 1] *= 1 - lean * top * np.sign(person.hair.part) * np.clip(edge[:, 0], -1, 1)
    return _bumpy(edge, cut.bumps, person.hair.strand_seed)


def _hairline(person: Person, cut: _Cut) -> FloatArray:
    """The hair's inner edge from the left end over the forehead to the right end."""
    bones, part = person.bones, person.hair.part
    high, wide = -bones.hairline_height, bones.forehead_width
    tip = (bones.cheek_width - 0.035, cut.ends)
    temple = (0.90 * wide, -0.34)
    sides = {
        "round": [tip, (0.95 * wide, -0.18), (0.84 * wide, -0.42), (0.5 * wide, high + 0.02), (0, high)],
        "high": [tip, temple, (0.80 * wide, -0.48), (0.45 * wide, high - 0.06), (0, high - 0.08)],
        "receding": [
            tip,
            temple,
            (0.86 * wide, -0.58),
            (0.55 * wide, high - 0.20),
            (0.22 * wide, high - 0.10),
            (0, high - 0.03),
        ],
        "fringe": [
            tip,
            (0.82 * wide, 0.2),
            (0.78 * wide, -0.16),
            (0.66 * wide, -0.31),
            (0.3 * wide, -0.33),
            (0, -0.31),
        ],
        "curtain": [
            tip,
            (0.90 * wide, 0.3),
            (0.84 * wide, -0.12),
            (0.52 * wide, -0.45),
            (0.15 * wide, high - 0.10),
            (0, high - 0.18),
        ],
    }
    if cut.hairline in sides:
        right = np.array(sides[cut.hairline])
        line = smooth(np.concatenate([right[:-1] * (-1, 1), right[::-1]]))
    else:
        long_side = 0.12 if cut.falls_to else -0.22
        near = [(tip[0], cut.ends), (0.90 * wide, long_side), (0.80 * wide, -0.48), (abs(part) + 0.02, high - 0.14)]
        far = [
            (abs(part) - 0.12, high - 0.02),
            (-0.35 * wide, -0.48),
            (-0.78 * wide, -0.33),
            (-0.90 * wide, long_side + 0.06),
            (-tip[0], cut.ends),
        ]
        swept = smooth(near + far)[::-1]
        line = swept if part > 0 else (swept * (-1, 1))[::-1]
    return _bumpy(line, 0.5 * cut.bumps, person.hair.strand_seed + 5)


def _bumpy(curve: FloatArray, size: float, seed: int) -> FloatArray:
    """Curls: the curve swings to and fro across itself."""
    if size == 0:
        return curve
    rng = np.random.default_rng(seed)
    step = np.cumsum(np.linalg.norm(np.diff(curve, axis=0, prepend=curve[:1]), axis=1))
    place = np.linspace(0, step[-1], 220)
    fine_N2 = np.stack([np.interp(place, step, curve[:, 0]), np.interp(place, step, curve[:, 1])], axis=1)
    phase = np.linspace(0, step[-1] / 0.13, 220) + np.cumsum(rng.normal(0, 0.12, 220))
    outward = fine_N2 - (0, 0.1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
    curly: FloatArray = fine_N2 + outward * (size * (np.abs(np.sin(phase)) - 0.5))[:, None]
    return curly


def _paint_strands(
    brush: Brush, person: Person, cut: _Cut, edge_px: FloatArray, line_px: FloatArray, unit: float
) -> None:
    rng = np.random.default_rng(person.hair.strand_seed)
    colour = person.hair.colour
    place_S, tone_S, width_S = rng.uniform((0, -1, 0.006), (1, 1, 0.022), (_STRANDS, 3)).T
    combed = 0.10 * np.sign(person.hair.part) * (cut.hairline in ("sweep", "high"))
    root_S2 = edge_px[(place_S * (len(edge_px) - 1)).astype(int)]
    end_S2 = line_px[(np.clip(place_S + combed, 0, 0.999) * (len(line_px) - 1)).astype(int)]
    curls = _ringlets if cut.bumps > 0.04 else _strands
    for strand_N2, tone, width in zip(curls(rng, root_S2, end_S2, unit), tone_S, width_S, strict=True):
        shade = mix(colour, _WHITE, 0.28 * tone) if tone > 0 else mix(colour, _BLACK, -0.45 * tone)
        brush.line(strand_N2, shade, width_px=width * unit, alpha=0.42)


def _strands(rng: np.random.Generator, root_S2: FloatArray, end_S2: FloatArray, unit: float) -> FloatArray:
    """Strands from crown to hairline, (S, 6, 2) pixels."""
    t = np.linspace(0, 1, 6)[None, :, None]
    end_S2 = end_S2 + rng.normal(0, 0.04 * unit, end_S2.shape)
    middle_S2 = (root_S2 + end_S2) / 2 + rng.normal(0, 0.025 * unit, end_S2.shape) + (0, -0.07 * unit)
    bent: FloatArray = (1 - t) ** 2 * root_S2[:, None] + 2 * t * (1 - t) * middle_S2[:, None] + t**2 * end_S2[:, None]
    return bent


def _ringlets(rng: np.random.Generator, root_S2: FloatArray, end_S2: FloatArray, unit: float) -> FloatArray:
    """Small open rings between crown and hairline, (S, 7, 2) pixels."""
    start, radius, share = rng.uniform((0, 0.03, 0), (6.3, 0.07, 1), (len(root_S2), 3)).T[:, :, None]
    angle = start + np.linspace(0, 4.5, 7)
    ring = unit * radius[:, :, None] * np.stack([np.cos(angle), np.sin(angle)], axis=2)
    rings: FloatArray = (root_S2 + share * (end_S2 - root_S2))[:, None] + ring
    return rings


def _evenly(line_N2: FloatArray, count: int) -> FloatArray:
    picked: FloatArray = line_N2[np.linspace(0, len(line_N2) - 1, count).astype(int)]
    return picked


def _hairline_depth(line_N2: FloatArray) -> FloatArray:
    """The hairline lies on the face in front and on the head's edge at the sides."""
    depth: FloatArray = face_depth(line_N2) * np.clip((0.66 - np.abs(line_N2[:, 0])) / 0.36, 0, 1)
    return depth
