"""Colour: pixels of any embedded ICC profile become sRGB, which is what nets are trained on and browsers show."""

import io
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms

__all__ = ["to_srgb"]

_MAX_PROFILE_BYTES = 4 * 2**20
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture in sRGB, mode RGB.

    Perceptual intent: what a profile's maker meant for photos; for matrix profiles, as cameras and phones embed, all
    intents come to the same. A profile that is broken, larger than 4 MiB or for other pixels is ignored, as browsers do: a
    photo is not lost for its profile. One that is sRGB changes nothing.

    Args:
        image: mode L, RGB or CMYK.
        profile: the ICC profile's bytes, as the file has them.
    """
    transform = _transform(bytes(profile), image.mode) if len(profile) <= _MAX_PROFILE_BYTES else None
    if transform is not None:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None  # noqa: S101  a new image, since it is not done in place
        return converted
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """The way from a profile to sRGB, or None where there is none to go."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODES.get(opened.profile.xcolor_space) != mode or "srgb" in ImageCms.getProfileDescription(opened).lower():
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
