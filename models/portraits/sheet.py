"""What a portrait is drawn on: face coordinates become pixels, points become curves, curves become paint."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from models.portraits.person import Colour
from models.portraits.view import Pose

__all__ = ["Brush", "FloatArray", "Projector", "Sheet", "face_depth", "mirrored", "mix", "ribbon", "shifted", "smooth"]

FloatArray = NDArray[np.float64]
Part = Literal["head", "body"]

_SPAN_POINTS = 7
_T = np.linspace(0, 1, _SPAN_POINTS, endpoint=False)
_CATMULL_ROM = (
    np.stack([np.ones_like(_T), _T, _T**2, _T**3], axis=1)
    @ np.array([(0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1)], float)
    / 2
)


def smooth(points: Sequence[Sequence[float]] | FloatArray, *, closed: bool = False) -> FloatArray:
    """A Catmull-Rom curve through (N, 2) points, seven points a span."""
    points_N2 = np.asarray(points, float)
    before, after = (points_N2[-1:], points_N2[:2]) if closed else (points_N2[:1], points_N2[-1:])
    padded = np.concatenate([before, points_N2, after])
    spans = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
    curve = np.einsum("tk,mkd->mtd", _CATMULL_ROM, spans).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points_N2[-1:]])


def shifted(points_N2: FloatArray, right: float, down: float) -> FloatArray:
    """The points moved to the right and down."""
    moved: FloatArray = points_N2 + np.array((right, down))
    return moved


def mirrored(points: Sequence[Sequence[float]] | FloatArray) -> FloatArray:
    """Points of the right half followed by their mirror image in reverse: one closed, symmetric outline."""
    half_N2 = np.asarray(points, float)
    other = half_N2[::-1] * (-1, 1)
    return np.concatenate([half_N2, other[np.abs(other[:, 0]) > 1e-9]])


def ribbon(centre_N2: FloatArray, width: float, *, taper: float = 1.0, widest: float = 0.5) -> FloatArray:
    """The outline of a stroke along a line: `width` at its widest place, thinner by `taper` at both ends."""
    along = np.gradient(centre_N2, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    t = np.linspace(0, 1, len(centre_N2))
    bulge = np.where(t < widest, t / widest, (1 - t) / (1 - widest))
    half = (width / 2 * (1 - taper * (1 - np.sqrt(np.clip(bulge, 0, 1)))))[:, None]
    return np.concatenate([centre_N2 + half * normal, (centre_N2 - half * normal)[::-1]])


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` of the way from the first to the second."""
    red, green, blue = (a + share * (b - a) for a, b in zip(first, second, strict=True))
    return red, green, blue


def face_depth(points_N2: FloatArray) -> FloatArray:
    """How far the face's surface stands out towards the viewer at each point, (N,) in face units."""
    inside = 1 - (points_N2[:, 0] / 0.80) ** 2 - ((points_N2[:, 1] - 0.05) / 1.30) ** 2
    return 0.60 * np.sqrt(np.clip(inside, 0.02, 1))


@dataclass(frozen=True)
class Projector:
    """Turns face coordinates into pixels of a square sheet of `side_px`."""

    pose: Pose
    side_px: int

    @property
    def unit_px(self) -> float:
        """Pixels a face unit."""
        return self.pose.scale * self.side_px

    def turned(self, points_N2: FloatArray, depth: FloatArray | float | None = None) -> FloatArray:
        """Points after yaw and pitch, before roll, scale and place; depth is the face's surface unless given."""
        z = face_depth(points_N2) if depth is None else np.broadcast_to(np.asarray(depth, float), len(points_N2))
        x, y = points_N2[:, 0], points_N2[:, 1]
        x_yaw = x * np.cos(self.pose.yaw) + z * np.sin(self.pose.yaw)
        z_yaw = z * np.cos(self.pose.yaw) - x * np.sin(self.pose.yaw)
        y_pitch = y * np.cos(self.pose.pitch) - z_yaw * np.sin(self.pose.pitch)
        nearer = 1 + 0.10 * (z_yaw - 0.3)
        return np.stack([x_yaw * nearer, y_pitch * nearer], axis=1)

    def place(self, turned_N2: FloatArray) -> FloatArray:
        """Roll, scale and place turned points on the sheet."""
        cos, sin = np.cos(self.pose.roll), np.sin(self.pose.roll)
        rolled = turned_N2 @ np.array([(cos, sin), (-sin, cos)])
        placed: FloatArray = rolled * self.unit_px + np.array((self.pose.x, self.pose.y)) * self.side_px
        return placed

    def unplace(self, pixels_N2: FloatArray) -> FloatArray:
        """The inverse of `place`."""
        cos, sin = np.cos(self.pose.roll), np.sin(self.pose.roll)
        rolled = (pixels_N2 - np.array((self.pose.x, self.pose.y)) * self.side_px) / self.unit_px
        turned: FloatArray = rolled @ np.array([(cos, -sin), (sin, cos)])
        return turned

    def __call__(
        self, points: Sequence[Sequence[float]] | FloatArray, depth: FloatArray | float | None = None
    ) -> FloatArray:
        """Pixels of (N, 2) face coordinates, on the face's surface unless a depth is given."""
        return self.place(self.turned(np.asarray(points, float), depth))


class Brush:
    """Draws on an RGB image whose corner lies at `origin` of the sheet; points are (N, 2) pixels of the sheet."""

    def __init__(self, image: Image.Image, *, origin: tuple[int, int] = (0, 0)) -> None:
        self.image = image
        self.origin = np.array(origin, float)
        self._draw = ImageDraw.Draw(image, "RGBA")

    def fill(self, points_N2: FloatArray, colour: Colour, *, alpha: float = 1.0) -> None:
        """Fill a polygon."""
        self._draw.polygon(_flat(points_N2, self.origin), fill=_ink(colour, alpha))

    def line(self, points_N2: FloatArray, colour: Colour, *, width_px: float, alpha: float = 1.0) -> None:
        """Draw a line of even width."""
        joint = "curve" if alpha == 1.0 else None  # a joint is drawn twice, which shows through thin paint
        self._draw.line(
            _flat(points_N2, self.origin), fill=_ink(colour, alpha), width=max(1, round(width_px)), joint=joint
        )

    def dot(self, centre_2: FloatArray, colour: Colour, *, radius_px: float, alpha: float = 1.0) -> None:
        """Fill a circle."""
        x, y = (float(value) for value in centre_2 - self.origin)
        self._draw.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=_ink(colour, alpha))


class Sheet(Brush):
    """A square of paint with two masks: what is head, lit as a head, and what else belongs to the person."""

    def __init__(self, side_px: int) -> None:
        super().__init__(Image.new("RGB", (side_px, side_px), (128, 128, 128)))
        self.head = Image.new("L", (side_px, side_px))
        self.body = Image.new("L", (side_px, side_px))

    def paint(self, points_N2: FloatArray, colour: Colour, *, part: Part) -> None:
        """Fill a polygon that is part of the person."""
        self.fill(points_N2, colour)
        self.cover(points_N2, part=part)

    def cover(self, points_N2: FloatArray, *, part: Part) -> None:
        """Say that a polygon is part of the person; what is in front takes a pixel from what is behind."""
        flat = _flat(points_N2)
        ImageDraw.Draw(self.body).polygon(flat, fill=255)
        ImageDraw.Draw(self.head).polygon(flat, fill=255 if part == "head" else 0)

    @contextmanager
    def clipped(self, outline_N2: FloatArray) -> Iterator[Brush]:
        """A brush that leaves paint only inside an outline."""
        box = self._box(outline_N2, margin_px=1)
        patch = Brush(self.image.crop(box), origin=box[:2])
        yield patch
        mask = Image.new("L", patch.image.size)
        ImageDraw.Draw(mask).polygon(_flat(outline_N2, patch.origin), fill=255)
        self.image.paste(patch.image, box[:2], mask)

    def soft(
        self, points_N2: FloatArray, colour: Colour, *, alpha: float, blur_px: float, within: FloatArray | None = None
    ) -> None:
        """Fill a polygon with blurred edges, worked out at a quarter of the resolution; `within` cuts it sharply."""
        box = self._box(points_N2, margin_px=2 * blur_px + 4)
        width, height = box[2] - box[0], box[3] - box[1]
        small = Image.new("L", (width // 4 + 1, height // 4 + 1))
        corner = np.array(box[:2], float)
        ImageDraw.Draw(small).polygon(_flat(points_N2 / 4, corner / 4), fill=round(255 * alpha))
        mask = small.filter(ImageFilter.GaussianBlur(blur_px / 4)).resize((width, height), Image.Resampling.BILINEAR)
        if within is not None:
            cut = Image.new("L", mask.size)
            ImageDraw.Draw(cut).polygon(_flat(within, corner), fill=255)
            empty = Image.new("L", mask.size)
            mask = Image.composite(mask, empty, cut)
        self.image.paste(_ink(colour, 1.0)[:3], box, mask)

    def _box(self, points_N2: FloatArray, *, margin_px: float) -> tuple[int, int, int, int]:
        low = np.clip(np.floor(points_N2.min(0) - margin_px), 0, self.image.width - 2).astype(int)
        high = np.clip(np.ceil(points_N2.max(0) + margin_px), low + 2, self.image.width).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _flat(points_N2: FloatArray, origin: FloatArray | float = 0.0) -> list[float]:
    flat: list[float] = (points_N2 - origin).ravel().tolist()
    return flat


def _ink(colour: Colour, alpha: float) -> tuple[int, int, int, int]:
    red, green, blue = (max(0, min(255, round(value))) for value in colour)
    return red, green, blue, round(255 * max(0.0, min(1.0, alpha)))
