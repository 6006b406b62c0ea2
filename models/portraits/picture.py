"""Pictures of made-up people: a portrait, or a group side by side."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from models.portraits.face import paint_brows, paint_ears, paint_eyes, paint_mouth, paint_nose, paint_skin
from models.portraits.hair import covers_ears, paint_back_hair, paint_front_hair
from models.portraits.light import lit
from models.portraits.person import Person
from models.portraits.sheet import Projector, Sheet, mirrored, mix, smooth
from models.portraits.view import Backdrop, Camera, View, sample_view
from models.portraits.worn import paint_beard, paint_glasses

__all__ = ["draw_group", "draw_portrait"]

Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]

_OVERSAMPLING = 2
_MIN_SIDE_PX = 64


def draw_portrait(person: Person, *, view_seed: int, size_px: int = 250) -> UInt8Array:
    """One picture of a person; pose, expression, light, clothes, background and camera follow from the seed.

    Args:
        person: from `draw_person`.
        view_seed: >= 0; the same person, seed and size give the same bytes.
        size_px: the picture's side, at least 64.

    Returns:
        uint8, (size_px, size_px, 3), RGB.

    Raises:
        ValueError: the seed is negative or the size too small; the message holds it.
    """
    if size_px < _MIN_SIDE_PX:
        raise ValueError(f"draw_portrait: size_px must be at least {_MIN_SIDE_PX}, got {size_px}")
    view = sample_view(view_seed, person_seed=person.seed)
    scene = _backdrop(view.backdrop, size_px, size_px)
    _put(scene, person, view, left=0, top=0, side_px=size_px)
    return _photographed(scene, view.camera)


def draw_group(people: Sequence[Person], *, view_seed: int, size_px: tuple[int, int]) -> UInt8Array:
    """One picture of several people side by side, in one light before one background.

    Args:
        people: one at least, from `draw_person`.
        view_seed: >= 0; the same people, seed and size give the same bytes.
        size_px: width and height; a person needs 80 pixels of width and 120 of height.

    Returns:
        uint8, (height, width, 3), RGB.

    Raises:
        ValueError: nobody is given, the seed is negative or the picture too small; the message holds what was given.
    """
    width, height = size_px
    if not people:
        raise ValueError("draw_group: people is empty, give at least one person")
    if width < 80 * len(people) or height < 120:
        raise ValueError(
            f"draw_group: {len(people)} people need {80 * len(people)} x 120 pixels, got {width} x {height}"
        )
    shared = sample_view(view_seed, person_seed=people[0].seed)
    scene = _backdrop(shared.backdrop, width, height)
    pitch_px = width / len(people)
    side_px = round(min(height, 1.9 * pitch_px))
    for place, person in enumerate(people):
        own = sample_view(view_seed, person_seed=person.seed)
        scale = min(own.pose.scale, 0.36 * pitch_px / side_px)  # heads keep clear of their neighbours
        view = replace(own, pose=replace(own.pose, x=0.5, scale=scale), light=shared.light)
        left = round((place + 0.5) * pitch_px - side_px / 2)
        _put(scene, person, view, left=left, top=height - side_px, side_px=side_px)
    return _photographed(scene, shared.camera)


def _put(scene_HWC: Float32Array, person: Person, view: View, *, left: int, top: int, side_px: int) -> None:
    """Draw and light one person and lay them over the scene."""
    sheet = Sheet(side_px * _OVERSAMPLING)
    _paint(sheet, person, view)
    flat = np.asarray(sheet.image.reduce(_OVERSAMPLING), np.float32)
    head, body = (
        np.asarray(mask.reduce(_OVERSAMPLING), np.float32) * np.float32(1 / 255) for mask in (sheet.head, sheet.body)
    )
    shaded = lit(flat, head, person, view)
    x0, x1 = max(left, 0), min(left + side_px, scene_HWC.shape[1])
    part = np.s_[:, x0 - left : x1 - left]
    alpha = body[part][..., None]
    window = scene_HWC[top : top + side_px, x0:x1]
    window += alpha * (shaded[part] - window)


def _paint(sheet: Sheet, person: Person, view: View) -> None:
    """The person in even light, back to front."""
    project = Projector(view.pose, sheet.image.width)
    paint_back_hair(sheet, person, view, project)
    _paint_clothes(sheet, person, view, project)
    if not covers_ears(person):
        paint_ears(sheet, person, project)
    paint_skin(sheet, person, view, project)
    paint_beard(sheet, person, view, project)
    paint_mouth(sheet, person, view, project)
    paint_nose(sheet, person, view, project)
    paint_eyes(sheet, person, view, project)
    paint_brows(sheet, person, view, project)
    paint_front_hair(sheet, person, view, project)
    paint_glasses(sheet, person, view, project)


def _paint_clothes(sheet: Sheet, person: Person, view: View, project: Projector) -> None:
    """Neck, shoulders and collar; they do not turn with the head."""
    upright = Projector(
        replace(view.pose, yaw=0.25 * view.pose.yaw, pitch=0.0, roll=0.2 * view.pose.roll), project.side_px
    )
    neck, unit, clothes = person.bones.neck_width, project.unit_px, view.clothes
    chin = person.bones.chin_height
    throat = smooth(
        mirrored(
            [
                (0, chin + 1.0),
                (0.9 * neck, chin + 0.95),
                (neck + 0.05, chin + 0.36),
                (neck, chin + 0.1),
                (neck, 0.3),
                (0, 0.2),
            ]
        ),
        closed=True,
    )
    broad = 1.10 + 1.2 * (neck - 0.36)
    shoulders = [
        (0, chin + 4.0),
        (broad + 0.45, chin + 4.0),
        (broad + 0.24, chin + 1.1),
        (broad, chin + 0.52),
        (0.74, chin + 0.30),
        (neck + 0.08, chin + 0.15),
    ]
    dip = {"crew": 0.32, "v-neck": 0.72, "shirt": 0.58, "roll-neck": 0.12}[clothes.collar]
    opening = [(0.7 * neck, chin + 0.16 + 0.45 * (dip - 0.16)), (0.0, chin + dip)]
    sheet.paint(upright(throat, -0.15), mix(person.skin.tone, (90, 40, 30), 0.10), part="body")
    sheet.paint(upright(smooth(mirrored(shoulders + opening), closed=True), -0.1), clothes.colour, part="body")
    edge = upright(
        smooth(
            [
                (-neck - 0.08, chin + 0.15),
                (-0.7 * neck, opening[0][1]),
                (0, chin + dip),
                (0.7 * neck, opening[0][1]),
                (neck + 0.08, chin + 0.15),
            ]
        ),
        -0.1,
    )
    if clothes.collar != "roll-neck":
        sheet.line(edge, mix(clothes.colour, (0, 0, 0), 0.35), width_px=0.035 * unit)
    if clothes.collar == "shirt":
        for side in (-1, 1):
            flap = np.array(
                [(neck + 0.06, chin + 0.05), (0.03, chin + dip), (0.24, chin + dip + 0.10), (neck + 0.30, chin + 0.32)]
            ) * (side, 1)
            sheet.paint(upright(flap, 0.0), mix(clothes.colour, clothes.second, 0.35), part="body")
    if clothes.collar == "roll-neck":
        roll = smooth(
            mirrored([(0, chin + 0.36), (neck + 0.11, chin + 0.30), (neck + 0.09, chin - 0.02), (0, chin + 0.10)]),
            closed=True,
        )
        sheet.paint(upright(roll, -0.05), mix(clothes.colour, (0, 0, 0), 0.12), part="body")


def _backdrop(backdrop: Backdrop, width: int, height: int) -> Float32Array:
    """The background, drawn small: enlarging it is its blur."""
    rng = np.random.default_rng(backdrop.seed)
    tall, wide = 64, max(8, round(64 * width / height))
    fade = np.linspace(0, 1, tall)[:, None, None] * rng.uniform(0.2, 1) + np.linspace(0, 1, wide)[
        None, :, None
    ] * rng.uniform(-0.6, 0.6)
    first, second = np.array(backdrop.first), np.array(backdrop.second)
    ground = np.clip(first + np.clip(fade, 0, 1) * (second - first), 0, 255).astype(np.uint8)
    small = Image.fromarray(ground)
    _paint_shapes(ImageDraw.Draw(small, "RGBA"), backdrop, rng, wide, tall)
    small = small.filter(ImageFilter.GaussianBlur(backdrop.blur * 0.64))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _paint_shapes(
    draw: ImageDraw.ImageDraw, backdrop: Backdrop, rng: np.random.Generator, wide: int, tall: int
) -> None:
    def ink(spread: float, alpha: int) -> tuple[int, int, int, int]:
        red, green, blue = (
            np.clip(
                np.array(mix(backdrop.first, backdrop.second, float(rng.uniform()))) + rng.normal(0, spread, 3), 0, 255
            )
            .astype(int)
            .tolist()
        )
        return red, green, blue, alpha

    if backdrop.kind == "bokeh":
        for x, y, radius in rng.uniform((0, 0, 2), (wide, tall, 9), (12 * wide // 64, 3)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink(40, 110))
    elif backdrop.kind == "panels":
        x = float(rng.uniform(-12, 4))
        while x < wide:
            step = float(rng.uniform(7, 22))
            draw.rectangle((x, 0, x + step, tall), fill=ink(26, 150))
            x += step + float(rng.uniform(1, 6))
    elif backdrop.kind == "horizon":
        level = float(rng.uniform(22, 48))
        hills = [(x, level + float(rng.normal(0, 3))) for x in range(-8, wide + 16, 8)]
        draw.polygon([*hills, (wide + 8, tall), (-8, tall)], fill=ink(34, 230))
    elif backdrop.kind == "shelves":
        for top in range(int(rng.integers(-8, 0)), tall, 16):
            x = 0.0
            while x < wide:
                step = float(rng.uniform(2, 6))
                draw.rectangle((x, top + float(rng.uniform(1, 6)), x + step, top + 14), fill=ink(38, 190))
                x += step
            draw.rectangle((0, top + 14, wide, top + 16), fill=ink(10, 230))


def _photographed(scene_HWC: Float32Array, camera: Camera) -> UInt8Array:
    """The scene as a camera keeps it: gains, exposure, contrast, saturation, vignette, blur and noise."""
    height, width, _ = scene_HWC.shape
    softened = Image.fromarray(np.clip(scene_HWC, 0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(camera.blur * min(height, width) / 250)
    )
    picture = np.asarray(softened, np.float32) * (camera.exposure * np.array(camera.gains, np.float32))
    grey = picture @ np.array((0.299, 0.587, 0.114), np.float32)
    picture = grey[..., None] + camera.saturation * (picture - grey[..., None])
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    right = np.linspace(-1, 1, width, dtype=np.float32)[None]
    picture = (picture - 118) * camera.contrast + 118
    picture *= (1 - 0.5 * camera.vignette * (down**2 + right**2))[..., None]
    noise = np.random.default_rng(camera.seed).standard_normal((height, width, 3), np.float32)
    developed: UInt8Array = np.clip(picture + camera.noise * noise + 0.5, 0, 255).astype(np.uint8)
    return developed
