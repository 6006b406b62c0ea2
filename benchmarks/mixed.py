"""A folder of mixed formats, sizes and hostile files, built in one go; every reject must be explained.

    python -m benchmarks.mixed --photos DIR --encoder FILE.onnx [--count 2000] [--out FOLDER] [--json]

Photos of DIR are written anew in eleven formats, resized (some to 12 megapixels), turned, tagged and named oddly; 5 % of the
folder are hostile files. Then `lookalike build` runs as anybody would run it, and its accounting is checked.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.hostile_photos import hostile_photos
from benchmarks.machine import describe_machine
from store.layout import open_store
from store.version_files import read_photos_of
from store.versions import read_version

__all__ = ["main", "write_folder"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".avif", ".heic")
_WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": ("JPEG", {"quality": 90}),
    "progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "cmyk": ("JPEG", {"quality": 92}),
    "grey": ("JPEG", {"quality": 92}),
    "png": ("PNG", {}),
    "palette": ("PNG", {}),
    "webp": ("WEBP", {"quality": 85}),
    "bmp": ("BMP", {}),
    "tif": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {"quality": 75, "speed": 9}),
    "heic": ("HEIF", {"quality": 85}),
}
_ENDINGS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIF": ".heic",
}


def write_folder(folder: Path, photos: list[Path], *, count: int, seed: int = 0) -> Counter[str]:
    """Write `count` files, one in twenty of them hostile; how many of each way there are."""
    import pillow_heif  # noqa: PLC0415

    pillow_heif.register_heif_opener()
    rng = random.Random(seed)
    written: Counter[str] = Counter()
    hostile = count // 20
    for one in hostile_photos(20 * hostile, seed=seed):
        stem, ending = os.path.splitext(one.name)
        if written["hostile"] == hostile:
            break
        if ending.lower() in _SUFFIXES and len(one.name.encode()) <= 255:
            (folder / f"{stem}{ending}").write_bytes(one.data)
            written["hostile"] += 1
    for number in range(count - hostile):
        way = rng.choice(list(_WAYS))
        with Image.open(rng.choice(photos)) as opened:
            image = opened.convert({"cmyk": "CMYK", "grey": "L"}.get(way, "RGB"))
        side = 3400 if number % 400 == 0 else rng.choice((120, 180, 250, 250, 400, 640, 900))
        image = image.resize((side, round(side * rng.uniform(0.9, 1.1))))
        if way == "palette":
            image = image.quantize(128)
        if number % 25 == 0:
            image = image.transpose(rng.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)))
        kind, options = _WAYS[way]
        path = folder / f"{number % 20:02d}" / f"{number:05d}{_ENDINGS[kind]}"
        path.parent.mkdir(exist_ok=True)
        image.save(path, kind, **options)
        written[way] += 1
    return written


def main() -> int:
    """Write, build, check, print; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, required=True, help="a folder of photos with faces, such as LFW's images"
    )
    parser.add_argument("--encoder", required=True, help="an ONNX file with its card beside it")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="keep folder and store here (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        folder = out / "photos"
        folder.mkdir(parents=True)
        written = write_folder(folder, sorted(args.photos.rglob("*.jpg")), count=args.count)
        command = [sys.executable, "-m", "app.cli", "build", str(folder), "--store", str(out / "store")]
        done = subprocess.run(
            [*command, "--encoder", args.encoder, "--json"], stdout=subprocess.PIPE, text=True, check=False
        )
        built = json.loads(done.stdout.splitlines()[-1])
        storage = open_store(str(out / "store"))
        rows = read_photos_of(storage, read_version(storage)).to_pylist()
    rejects = Counter((row["status"], row["reason"]) for row in rows if row["status"] != "indexed")
    result = {
        "files": dict(written),
        "seen": built["seen"],
        "photos": built["photos"],
        "adds_up": built["seen"] == sum(built["photos"].values()) == sum(written.values()) == len(rows),
        "unexplained": sum(not reason for (_, reason), _ in rejects.items()),
        "faces": built["faces"],
        "seconds": built["seconds"],
        "machine": describe_machine(),
    }
    for (status, reason), photos in rejects.most_common(25):
        print(f"{photos:>6} {status:<11} {reason}")
    for name, value in result.items():
        print(f"{name:<12} {value}")
    if args.json:
        print(json.dumps(result))
    return 0 if result["adds_up"] and not result["unexplained"] else 1


if __name__ == "__main__":
    sys.exit(main())
