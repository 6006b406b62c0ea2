"""The bare face: skull, ears, skin, eyes, brows, nose and mouth, drawn flat; `light` gives them their relief."""

import numpy as np

from models.portraits.person import Colour, Person
from models.portraits.sheet import FloatArray, Projector, Sheet, mirrored, mix, ribbon, shifted, smooth
from models.portraits.view import View

__all__ = ["head_outline", "paint_brows", "paint_ears", "paint_eyes", "paint_mouth", "paint_nose", "paint_skin"]

_DARK: Colour = (34, 20, 18)


def head_outline(person: Person, view: View, project: Projector) -> FloatArray:
    """The outline of skull and jaw, (N, 2) pixels."""
    bones, drop = person.bones, 0.07 * view.expression.jaw_drop
    half = [
        (0, bones.chin_height + drop),
        (0.62 * bones.chin_width, bones.chin_height - 0.012 + drop),
        (bones.chin_width, bones.chin_height - 0.07 + drop),
        (bones.jaw_width, bones.jaw_height + 0.5 * drop),
        (0.985 * bones.cheek_width, 0.20),
        (bones.cheek_width, -0.05),
        (bones.forehead_width, -0.42),
        (0.87 * bones.forehead_width, -0.66 * bones.crown_height),
        (0.52 * bones.forehead_width, -0.91 * bones.crown_height),
        (0, -1.01 * bones.crown_height),
    ]
    outline = smooth(mirrored(half), closed=True)
    ahead = np.clip((outline[:, 1] - 0.25) / 0.75, 0, 1) * np.clip(1 - np.abs(outline[:, 0]) / 0.75, 0, 1)
    return project(outline, 0.04 + 0.42 * ahead)


def paint_skin(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Head, blush, shadows of the sockets, lines of age, freckles and moles."""
    tone, unit = person.skin.tone, project.unit_px
    deep = mix(tone, (110, 40, 30), 0.35)
    outline = head_outline(person, view, project)
    sheet.paint(outline, tone, part="head")
    for side in (-1, 1):
        x = side * (person.eyes.spacing + 0.06)
        sheet.soft(
            _oval(project, x, 0.30, 0.16, 0.12),
            mix(tone, (214, 84, 72), 0.5),
            alpha=0.38 * person.skin.blush,
            blur_px=0.11 * unit,
        )
        x = side * person.eyes.spacing
        sheet.soft(_oval(project, x, -0.03, 0.19, 0.11), deep, alpha=0.30, blur_px=0.05 * unit, within=outline)
        sheet.soft(
            _oval(project, x, 0.10, 0.12, 0.025), deep, alpha=0.14 + 0.25 * person.skin.age_lines, blur_px=0.03 * unit
        )
    sheet.soft(
        _oval(project, 0, 0.86 * person.nose.length, 0.11, 0.09),
        mix(tone, (204, 80, 66), 0.45),
        alpha=0.30,
        blur_px=0.06 * unit,
    )
    _paint_marks(sheet, person, project)
    _paint_lines(sheet, person, view, project)


def paint_ears(sheet: Sheet, person: Person, project: Projector) -> None:
    """Both ears, behind the head."""
    for side in (-1, 1):
        _paint_ear(sheet, person, project, side)


def paint_eyes(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Both eyes with lids and lashes."""
    for side in (-1, 1):
        _paint_eye(sheet, person, view, project, side)


def paint_brows(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Both brows: a soft stroke and the hairs on it."""
    eyes = person.eyes
    grey_less = mix(person.hair.colour, (60, 44, 36), 0.45)
    rng = np.random.default_rng(person.hair.strand_seed + 1)
    t = np.linspace(-1, 1, 12)
    for side in (-1, 1):
        x = side * (eyes.spacing + 0.02 + eyes.brow_length * t)
        rise = eyes.brow_height + 0.06 * view.expression.brow_raise
        y = -rise - eyes.brow_slant * eyes.brow_length * t - eyes.brow_bend * (1 - (t - 0.25) ** 2)
        line = project(np.stack([x, y], axis=1))
        width = eyes.brow_thickness * project.unit_px
        sheet.fill(ribbon(line, 1.25 * width, taper=0.85, widest=0.35), grey_less, alpha=0.55)
        sheet.fill(ribbon(line, 0.85 * width, taper=0.9, widest=0.35), grey_less, alpha=0.65)
        for place in rng.uniform(0, 10.4, 16):
            root = line[int(place)] + rng.normal(0, 0.22 * width, 2)
            along = line[int(place) + 1] - line[int(place)]
            tip = root + 0.9 * along + (0, -0.35 * width)
            sheet.line(np.stack([root, tip]), mix(grey_less, _DARK, 0.5), width_px=0.012 * project.unit_px, alpha=0.5)


def paint_nose(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Nostrils, the wings' folds and the tip's underside; the bridge is the light's work."""
    nose, unit = person.nose, project.unit_px
    deep = mix(person.skin.tone, (70, 22, 16), 0.62)
    base, wide = nose.length, nose.width * (1 + 0.10 * max(view.expression.smile, 0))
    depth = 0.60 + 0.10
    under = smooth(
        [
            (-0.85 * wide, base),
            (-0.4 * wide, base + 0.035),
            (0, base + 0.05),
            (0.4 * wide, base + 0.035),
            (0.85 * wide, base),
        ]
    )
    sheet.soft(ribbon(project(under, depth - 0.04), 0.07 * unit), deep, alpha=0.55, blur_px=0.022 * unit)
    for side in (-1, 1):
        wing = smooth(
            [
                (0.80 * wide, base - 0.13),
                (1.04 * wide, base - 0.055),
                (0.98 * wide, base + 0.012),
                (0.70 * wide, base + 0.02),
            ]
        )
        sheet.fill(ribbon(project(wing * (side, 1), 0.60), 0.034 * unit, widest=0.7), deep, alpha=0.75)
        hole = _ring(side * 0.42 * wide, base + 0.004 - 0.012 * nose.upturn, 0.30 * wide, 0.022 + 0.009 * nose.upturn)
        sheet.fill(project(hole, depth - 0.03), mix(deep, _DARK, 0.6), alpha=0.9)
    bridge = smooth(
        [(nose.bridge + 0.02, -0.10), (nose.bridge, 0.05), (nose.bridge + 0.012, 0.55 * base), (nose.tip, 0.8 * base)]
    )
    far = 1 if view.light.direction[0] < 0 else -1
    sheet.soft(ribbon(project(bridge * (far, 1), 0.64), 0.075 * unit), deep, alpha=0.34, blur_px=0.028 * unit)


def paint_mouth(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Lips, and teeth and tongue when the mouth is open."""
    mouth, look, unit = person.mouth, view.expression, project.unit_px
    tone = person.skin.tone
    lip = mix(mix(tone, (120, 40, 40), 0.28), (188, 60, 70), 0.62 * mouth.tint)
    half = mouth.half_width * (1 + 0.22 * look.smile - 0.10 * look.jaw_drop)
    y = mouth.height - 0.01 * look.smile
    corner = (half, y - 0.055 * look.smile)
    gap_up, gap_down = 0.02 * look.jaw_drop, 0.125 * look.jaw_drop
    bow = 0.35 * mouth.upper_lip * mouth.bow
    top = smooth(
        mirrored(
            [
                (0, y - gap_up - mouth.upper_lip + bow),
                (0.22 * half, y - gap_up - mouth.upper_lip),
                (0.6 * half, y - gap_up - 0.55 * mouth.upper_lip),
                corner,
            ]
        )[[3, 2, 1, 0, 6, 5, 4]]
    )
    seam_up = smooth(_through(corner, half, y - gap_up + 0.010, y - gap_up + 0.002))
    seam_down = smooth(_through(corner, half, y + gap_down + 0.010, y + gap_down + 0.002))
    low = smooth(_through(corner, half, y + gap_down + mouth.lower_lip, y + gap_down + 0.74 * mouth.lower_lip))
    if look.jaw_drop > 0.05:
        inside = project(np.concatenate([seam_up, seam_down[::-1]]), 0.55)
        with sheet.clipped(inside) as brush:
            brush.fill(inside, (58, 16, 20))
            brush.fill(_oval(project, 0, y + 1.15 * gap_down, 0.55 * half, 0.05), (168, 74, 78))
            teeth = np.concatenate(
                [
                    shifted(seam_up, 0, -0.01),
                    (seam_up * (0.9, 1) + (0, 0.012 + 0.035 * min(1, 1.6 * look.jaw_drop)))[::-1],
                ]
            )
            brush.fill(project(teeth, 0.55), (238, 232, 220))
    sheet.fill(project(np.concatenate([top, seam_up[::-1]]), 0.58), mix(lip, _DARK, 0.12))
    sheet.fill(project(np.concatenate([seam_down, low[::-1]]), 0.58), lip)
    shine = smooth(
        [
            (-0.35 * half, y + gap_down + 0.42 * mouth.lower_lip),
            (0, y + gap_down + 0.48 * mouth.lower_lip),
            (0.35 * half, y + gap_down + 0.42 * mouth.lower_lip),
        ]
    )
    sheet.soft(ribbon(project(shine, 0.60), 0.03 * unit), (255, 226, 220), alpha=0.40, blur_px=0.016 * unit)
    for seam in (seam_up, seam_down):
        sheet.fill(ribbon(project(seam, 0.575), 0.022 * unit, taper=0.6), mix(lip, _DARK, 0.72), alpha=0.85)
    sheet.soft(
        _oval(project, 0, y + gap_down + mouth.lower_lip + 0.045, 0.5 * half, 0.018),
        mix(tone, (80, 26, 20), 0.6),
        alpha=0.40,
        blur_px=0.022 * unit,
    )


def _through(corner: tuple[float, float], half: float, middle_y: float, flank_y: float) -> list[tuple[float, float]]:
    """A line from corner to corner of the mouth."""
    bend = 0.55 * (corner[1] - flank_y)
    flank = flank_y + 0.35 * bend
    return [(-corner[0], corner[1]), (-0.55 * half, flank), (0, middle_y), (0.55 * half, flank), corner]


def _ring(x: float, y: float, half_width: float, half_height: float) -> FloatArray:
    angle = np.linspace(0, 2 * np.pi, 22, endpoint=False)
    return np.stack([x + half_width * np.cos(angle), y + half_height * np.sin(angle)], axis=1)


def _oval(project: Projector, x: float, y: float, half_width: float, half_height: float) -> FloatArray:
    return project(_ring(x, y, half_width, half_height))


def _paint_ear(sheet: Sheet, person: Person, project: Projector, side: int) -> None:
    bones, tone = person.bones, person.skin.tone
    size, x = bones.ear_size, bones.cheek_width - 0.05
    shape = np.array([(0, -0.75), (0.30, -1.05), (0.62, -0.85), (0.62, -0.2), (0.42, 0.55), (0.2, 1.0), (0, 0.8)])
    ear = smooth(shape * size + (x, 0.14) + shape[:, 1:] * (-bones.ear_tilt, 0), closed=True)
    sheet.paint(project(ear * (side, 1), -0.12), mix(tone, (190, 70, 60), 0.14), part="head")
    inner = smooth((shape[1:6] * 0.66 + (0.14, -0.02)) * size + (x, 0.14))
    sheet.fill(
        ribbon(project(inner * (side, 1), -0.10), 0.05 * project.unit_px), mix(tone, (90, 28, 20), 0.45), alpha=0.7
    )


def _paint_marks(sheet: Sheet, person: Person, project: Projector) -> None:
    brown = mix(person.skin.tone, (120, 60, 30), 0.55)
    for place, spot in enumerate(project(person.skin.freckles) if person.skin.freckles else ()):
        sheet.dot(spot, brown, radius_px=(0.010 + 0.004 * (place % 3)) * project.unit_px, alpha=0.45)
    for spot in person.skin.moles:
        sheet.dot(project([spot])[0], mix(brown, _DARK, 0.5), radius_px=0.020 * project.unit_px, alpha=0.9)


def _paint_lines(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Folds beside the mouth, crow's feet and forehead lines, by age and expression."""
    age, look, unit = person.skin.age_lines, view.expression, project.unit_px
    deep = mix(person.skin.tone, (84, 30, 22), 0.55)
    fold = 0.10 + 0.38 * age + 0.30 * max(look.smile, 0)
    wide, base = person.nose.width, person.nose.length
    for side in (-1, 1):
        line = smooth(
            [
                (1.12 * wide, base - 0.06),
                (1.5 * wide + 0.02, base + 0.08),
                (person.mouth.half_width * (1.12 + 0.2 * max(look.smile, 0)), person.mouth.height - 0.03),
            ]
        )
        sheet.soft(ribbon(project(line * (side, 1)), 0.045 * unit), deep, alpha=min(0.75, fold), blur_px=0.016 * unit)
        x = person.eyes.spacing + person.eyes.half_width
        for fan in (-0.035, 0.015, 0.06):
            feet = np.array([(x + 0.035, 0.02 + 0.4 * fan), (x + 0.13, 0.01 + 1.6 * fan)])
            sheet.line(
                project(feet * (side, 1)), deep, width_px=0.014 * unit, alpha=0.55 * age + 0.12 * max(look.smile, 0)
            )
    for row in range(3):
        y = -0.36 - 0.085 * row - 0.03 * look.brow_raise
        across = project(smooth([(-0.30, y + 0.02), (-0.12, y - 0.012), (0.12, y - 0.012), (0.30, y + 0.02)]))
        sheet.fill(ribbon(across, 0.018 * unit), deep, alpha=0.45 * age + 0.25 * max(look.brow_raise, 0))


def _lids(person: Person, view: View, side: int) -> list[FloatArray]:
    """Upper lid, lower lid and the fold above, from the inner to the outer corner, in face coordinates."""
    eyes, look = person.eyes, view.expression
    t = np.linspace(-1, 1, 15)
    arch = (1 - t**2) ** 0.75
    x = side * (eyes.spacing + eyes.half_width * t)
    tilt = -eyes.slant * eyes.half_width * t
    height = eyes.half_width * eyes.opening
    open_up = 1.12 * height * (1 - 0.95 * look.lids) * (1 + 0.12 * max(look.brow_raise, 0))
    raised = 0.62 * height * (1 - 0.35 * max(look.smile, 0) - 0.2 * look.lids)
    upper = tilt - open_up * arch * (1 - 0.12 * t)
    lower = tilt + raised * arch * (1 + 0.15 * t)
    fold = tilt - (1.25 * height + 0.018 + 0.02 * eyes.lid_fold) * (1 - t**2) ** 0.6
    return [np.stack([x, y], axis=1) for y in (upper, lower, fold)]


def _paint_eye(sheet: Sheet, person: Person, view: View, project: Projector, side: int) -> None:
    eyes, look, unit = person.eyes, view.expression, project.unit_px
    upper, lower, fold = _lids(person, view, side)
    tone = person.skin.tone
    deep = mix(tone, (60, 24, 18), 0.6)
    opening = project(np.concatenate([upper, lower[::-1]]))
    iris_at = np.array([(side * eyes.spacing + look.gaze_x * eyes.half_width, -0.012 + look.gaze_y * eyes.half_width)])
    centre, radius = project(iris_at)[0], 0.078 * unit
    with sheet.clipped(opening) as brush:
        brush.fill(opening, mix((240, 236, 230), tone, 0.08))
        brush.dot(centre, mix(eyes.iris, _DARK, 0.7), radius_px=radius)
        brush.dot(centre, eyes.iris, radius_px=0.86 * radius)
        brush.dot(shifted(centre, 0, 0.25 * radius), mix(eyes.iris, (255, 240, 200), 0.25), radius_px=0.58 * radius)
        brush.dot(centre, (14, 10, 10), radius_px=0.44 * radius)
        brush.fill(ribbon(project(shifted(upper, 0, 0.012)), 0.085 * unit, taper=0.4), (70, 46, 40), alpha=0.42)
        glint = np.array(view.light.direction[:2]) * 0.42 * radius
        brush.dot(centre + glint, (255, 255, 255), radius_px=0.20 * radius, alpha=0.92)
    sheet.fill(ribbon(project(fold), 0.022 * unit, taper=0.8), deep, alpha=0.35 + 0.5 * eyes.lid_fold)
    sheet.fill(ribbon(project(lower), 0.016 * unit, taper=0.7), deep, alpha=0.6)
    dark = mix(_DARK, deep, 0.25)
    sheet.fill(ribbon(project(upper), (0.026 + 0.022 * eyes.lashes) * unit, taper=0.65, widest=0.62), dark, alpha=0.92)
    wing = np.array([upper[-2], upper[-1] + (side * 0.03 * eyes.lashes, -0.022 * eyes.lashes)])
    sheet.line(project(wing), dark, width_px=0.018 * unit, alpha=eyes.lashes)
