"""Hostile files, made from drawn pictures by a seed: what a wall around decoders must stand.

No real photo goes in. Kinds: cut short at many offsets, bits flipped, ranges swapped, lengths in headers changed, bombs
(little bytes, many pixels), sides of zero, other things under a photo's name, loops in metadata, odd names.
"""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["HostilePhoto", "fine_photos", "hostile_photos", "png_bomb"]

_NAMES = (
    "line\nbreak.jpg", "\x1b[31mred.png", "<script>alert(1)<script>.jpg", "-rf.jpg", "100%41.jpg", "a::b.png",
    "\u202egpj.exe.jpg", "e\u0301.jpg", "\u00e9.jpg", "snow\u2603 \U0001f600.webp", "#?&=.jpg", "x" * 250 + ".jpg", "CON.jpg",
    "'; drop table.jpg", "{{7*7}}.jpg", "$(touch x).jpg", " .jpg", "a.jpg.php.jpg",
)  # fmt: skip


@dataclass(frozen=True)
class HostilePhoto:
    """One file: its name in a folder, its bytes, and what was done to it."""

    name: str
    data: bytes
    kind: str


def fine_photos(*, seed: int, size: tuple[int, int] = (96, 72)) -> dict[str, bytes]:
    """One small picture in every format, by suffix; the ground from which hostile ones are made."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a drawn picture"
    import pillow_heif  # noqa: PLC0415

    heif = io.BytesIO()
    pillow_heif.from_pillow(picture).save(heif, quality=60)
    return {
        ".jpg": _saved(picture, "JPEG", exif=exif),
        ".progressive.jpg": _saved(picture, "JPEG", progressive=True),
        ".cmyk.jpg": _saved(picture.convert("CMYK"), "JPEG"),
        ".png": _saved(picture, "PNG", exif=exif),
        ".palette.png": _saved(picture.quantize(32), "PNG"),
        ".webp": _saved(picture, "WEBP", exif=exif),
        ".bmp": _saved(picture, "BMP"),
        ".gif": _saved(picture.quantize(64), "GIF", save_all=True, append_images=[picture.quantize(16)]),
        ".tif": _saved(picture, "TIFF", compression="tiff_lzw"),
        ".deflate.tif": _saved(picture, "TIFF", compression="tiff_adobe_deflate"),
        ".avif": _saved(picture, "AVIF", quality=50),
        ".heic": heif.getvalue(),
    }


def hostile_photos(count: int, *, seed: int) -> Iterator[HostilePhoto]:
    """So many hostile files, each under a name of its own; the same ones for the same seed.

    The bombs and other single pieces come first, then damaged pictures of all formats in turn.
    """
    rng = random.Random(seed)
    taken: set[str] = set()
    pieces = [*_single_pieces(), *_damaged(rng, count)]
    for number, (suffix, data, kind) in enumerate(pieces[:count]):
        name = _NAMES[number] if number < len(_NAMES) else f"{number:05d}-{kind}{suffix}"
        if name in taken:
            name = f"{number:05d}{suffix}"
        taken.add(name)
        yield HostilePhoto(name=name, data=data, kind=kind)


_Piece = tuple[str, bytes, str]


def _single_pieces() -> list[_Piece]:
    fine = fine_photos(seed=7)
    jpeg, png = fine[".jpg"], fine[".png"]
    return [
        (".jpg", b"", "empty"),
        (".png", png_bomb(9440, 9440), "bomb of 89 megapixels"),
        (".jpg", _with_jpeg_size(jpeg, 65535, 65535), "header of 65535 x 65535"),
        (".jpg", _with_jpeg_size(jpeg, 0, 72), "height of zero"),
        (".png", png_bomb(0, 50), "width of zero"),
        (".png", png_bomb(2**31 - 1, 2**31 - 1, pixels=False), "header of 2^31 squared"),
        (".png", _png_with(png, b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 9)), "bomb in a text chunk"),
        (".png", _png_with(png, b"iCCP", b"k\0\0" + zlib.compress(bytes(80_000_000), 9)), "bomb in a profile"),
        (".png", _png_with(png, b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(40)), "metadata with 65535 tags"),
        (".gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0xF7, 0, 0) + bytes(768) + b",", "screen of 65535 squared"),
        (".bmp", _with_bmp_size(fine[".bmp"], 40_000, 40_000), "header of 40000 squared"),
        (".bmp", _with_bmp_size(fine[".bmp"], -96, 72), "negative width"),
        (".tif", _looping_tiff(), "directory that points to itself"),
        (".tif", _tiff_of_size(60_000, 60_000), "header of 60000 squared"),
        (".tif", fine[".tif"][:4] + struct.pack("<I", 2**32 - 1) + fine[".tif"][8:], "directory beyond the end"),
        (".webp", _riff_of_size(fine[".webp"], 2**32 - 2), "length of 4 GiB"),
        (".avif", fine[".avif"].replace(b"ispe" + bytes(4), b"ispe" + bytes(4), 1)[:200], "half a header"),
        (".avif", _with_ispe(fine[".avif"], 65535, 65535), "header of 65535 x 65535"),
        (".heic", _with_ispe(fine[".heic"], 65535, 65535), "header of 65535 x 65535"),
        (".jpg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "svg"),
        (".jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", "postscript"),
        (".jpg", b"%PDF-1.7\n1 0 obj<<>>endobj", "pdf"),
        (".png", b"P6\n96 72\n255\n" + bytes(96 * 72 * 3), "ppm"),
        (".png", b"8BPS\0\1" + bytes(600), "psd"),
        (".jpg", _zip(), "zip"),
        (".jpg", jpeg + _zip(), "jpeg and zip in one"),
        (".gif", jpeg, "jpeg under another name"),
        (".jpg", fine[".heic"], "heic under another name"),
        (".jpg", b"\xff\xd8" + b"\xff\xfe\xff\xff" + b"A" * 65533 + jpeg[2:], "comment of 64 KiB"),
        (".jpg", b"\xff\xd8" + b"\xff\xe1\x00\x10Exif\0\0II*\0\x08\0\0\0" + jpeg[2:], "metadata cut short"),
        (".jpg", jpeg * 40, "forty pictures in one"),
    ]  # fmt: skip


def _damaged(rng: random.Random, count: int) -> Iterator[_Piece]:
    """Pictures of all formats in turn: cut, flipped, swapped, lengths changed."""
    for number in range(count):
        fine = _cached_fine(number % 3)
        suffix = list(fine)[number % len(fine)]
        data = bytearray(fine[suffix])
        kind = ("cut", "bits", "swap", "lengths", "zeros")[(number // len(fine)) % 5]
        if kind == "cut":
            data = data[: rng.randrange(1, len(data))]
        elif kind == "bits":
            for _ in range(rng.choice((1, 3, 30, 300))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == "swap":
            size = rng.randrange(1, max(2, len(data) // 4))
            one, other = rng.randrange(len(data) - size), rng.randrange(len(data) - size)
            data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
        elif kind == "lengths":
            for _ in range(rng.choice((1, 2, 8))):
                at = rng.randrange(min(400, len(data) - 4))
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\1\0\0"))
        else:
            size = rng.randrange(1, len(data) // 2)
            at = rng.randrange(len(data) - size)
            data[at : at + size] = bytes(size)
        yield suffix, bytes(data), kind


_fine: dict[int, dict[str, bytes]] = {}


def _cached_fine(seed: int) -> dict[str, bytes]:
    if seed not in _fine:
        _fine[seed] = fine_photos(seed=seed, size=(96 + 40 * seed, 72 + 31 * seed))
    return _fine[seed]


def png_bomb(width: int, height: int, *, pixels: bool = True) -> bytes:
    """A white PNG of one bit a pixel, some hundred kilobytes or less."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compressobj(9)
    packed = (
        b"".join(body.compress(b"\0" + b"\xff" * (3 * width)) for _ in range(height if pixels else 0)) + body.flush()
    )
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_with(png: bytes, kind: bytes, data: bytes) -> bytes:
    return png[:33] + _chunk(kind, data) + png[33:]


def _with_jpeg_size(jpeg: bytes, height: int, width: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def _with_bmp_size(bmp: bytes, width: int, height: int) -> bytes:
    return bmp[:18] + struct.pack("<ii", width, height) + bmp[26:]


def _with_ispe(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def _riff_of_size(webp: bytes, size: int) -> bytes:
    return webp[:4] + struct.pack("<I", size) + webp[8:]


def _looping_tiff() -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, 64) for tag in (256, 257))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries + struct.pack("<I", 8)


def _tiff_of_size(width: int, height: int) -> bytes:
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 64))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + bytes(64)


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("../../evil.txt", (2000, 1, 1, 0, 0, 0)), bytes(100_000), zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()
