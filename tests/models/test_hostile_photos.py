import io
import json
import resource
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from benchmarks.hostile_photos import fine_photos, hostile_photos, png_bomb
from models import colour, photo
from models.photo import PhotoLimits, PhotoRefused, read_photo

PROJECT = Path(__file__).resolve().parents[2]
LIMITS = PhotoLimits()


def test_three_hundred_and_more_hostile_files_are_read_or_refused_within_limits() -> None:
    """All in one process: nothing dies, nothing takes ten seconds or a gibibyte."""
    code = """
import collections, json, time
from benchmarks.hostile_photos import hostile_photos
from models.photo import PhotoLimits, PhotoRefused, read_photo
found, slowest, odd = collections.Counter(), 0, []
for one in hostile_photos(400, seed=1):
    for max_side_px in (None, 64):
        started = time.process_time()
        try:
            read_photo(one.data, limits=PhotoLimits(), max_side_px=max_side_px)
            found['read'] += 1
        except PhotoRefused as refused:
            found[refused.status] += 1
            if not refused.reason or len(refused.reason) > 200 or not refused.reason.isprintable():
                odd.append(refused.reason)
        slowest = max(slowest, time.process_time() - started)
peak = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])  # KiB, of this program alone
print(json.dumps({'found': found, 'slowest': slowest, 'odd': odd, 'peak_kib': peak}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert sum(result["found"].values()) == 800
    assert result["found"]["unreadable"] > 100
    assert result["found"]["too_large"] >= 8
    assert result["odd"] == []
    assert result["slowest"] < 10
    assert result["peak_kib"] < 1024 * 1024


def test_hostile_files_are_many_different_ones_and_the_same_for_a_seed() -> None:
    files = list(hostile_photos(400, seed=1))
    assert len({one.name for one in files}) == len({one.data for one in files} | {b""}) == 400
    assert [one.data for one in files] == [one.data for one in hostile_photos(400, seed=1)]


def test_the_pictures_they_are_made_from_are_fine() -> None:
    for suffix, data in fine_photos(seed=0).items():
        read = read_photo(data, limits=LIMITS)
        assert {read.width, read.height} == {96, 72}, suffix


def refusal(data: bytes, limits: PhotoLimits = LIMITS) -> PhotoRefused:
    with pytest.raises(PhotoRefused) as caught:
        read_photo(data, limits=limits)
    return caught.value


# Each guard, and what happens without it


def peak_mib(limits: str) -> int:
    code = f"""
from models.photo import PhotoLimits, PhotoRefused, read_photo
def peak():
    return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
data = open(0, 'rb').read()
before = peak()
try:
    read_photo(data, limits={limits})
except PhotoRefused as refused:
    assert refused.status == 'too_large'
print((peak() - before) // 1024)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    bomb = png_bomb(9440, 9440)
    done = subprocess.run(command, cwd=PROJECT, input=bomb, stdout=subprocess.PIPE, check=True, timeout=120)
    return int(done.stdout)


def test_the_pixel_limit_keeps_a_bomb_from_being_decoded() -> None:
    data = png_bomb(9440, 9440)
    assert len(data) < 300_000
    assert "9440 x 9440 pixels" in refusal(data).reason
    assert peak_mib("PhotoLimits()") < 64
    assert peak_mib("PhotoLimits(max_pixels=90_000_000)") > 150  # the twin


def test_the_byte_limit_keeps_a_large_file_from_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or real(*a, **k))
    data = fine_photos(seed=0)[".png"]
    assert refusal(data, PhotoLimits(max_bytes=1000)).status == "too_large"
    assert opened == []
    read_photo(data, limits=LIMITS)
    assert opened == [1]  # the twin


def test_only_the_allowed_formats_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    ppm = b"P6\n96 72\n255\n" + bytes(96 * 72 * 3)
    icon = io.BytesIO()
    Image.new("RGB", (64, 64)).save(icon, "ICO")
    for data in (ppm, icon.getvalue()):
        assert refusal(data).status == "unreadable"
    monkeypatch.setattr(photo, "_FORMATS", None)
    for data in (ppm, icon.getvalue()):
        assert refusal_or_pixels(data) is not None  # the twin: anything Pillow knows is opened


def refusal_or_pixels(data: bytes) -> Any:
    try:
        return read_photo(data, limits=LIMITS).pixels
    except PhotoRefused:
        return None


def test_a_file_that_ends_too_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = fine_photos(seed=0)[".jpg"][:-300]
    assert "truncated" in refusal(data).reason
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert refusal_or_pixels(data) is not None  # the twin: half a photo would pass


def test_what_pillow_warns_about_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = fine_photos(seed=0)[".jpg"]
    at = jpeg.index(b"II*\0") if b"II*\0" in jpeg else jpeg.index(b"MM\0*")
    order = "<" if jpeg[at : at + 2] == b"II" else ">"
    broken = jpeg[: at + 8] + struct.pack(f"{order}H", 60000) + jpeg[at + 10 :]  # more tags than there are bytes
    assert refusal(broken).status == "unreadable"
    monkeypatch.setattr(photo, "_warnings_are_errors", warnings.catch_warnings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert refusal_or_pixels(broken) is not None  # the twin


def test_what_a_file_says_does_not_reach_the_reason_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    def complain(*args: object, **kwargs: object) -> None:
        raise SyntaxError("bad chunk \x1b[31m\u202e<b>\x07" + "x" * 500)

    monkeypatch.setattr(Image, "open", complain)
    reason = refusal(b"anything").reason
    assert reason.isprintable()
    assert len(reason) <= 200
    assert "\x1b" not in reason
    assert "\u202e" not in reason


@pytest.mark.parametrize(
    "error",
    [ValueError("v"), SyntaxError("s"), TypeError("t"), OverflowError("o"), KeyError("k"), struct.error("e"),
     RecursionError("r"), ZeroDivisionError("z"), EOFError("f"), MemoryError(), Image.DecompressionBombError("b")],
)  # fmt: skip
def test_whatever_a_decoder_raises_is_one_refusal(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    refused = refusal(fine_photos(seed=0)[".jpg"])
    assert refused.status in {"unreadable", "too_large"}
    assert refused.reason


def test_a_decoder_that_gets_no_memory_is_a_refusal() -> None:
    code = """
import resource
from benchmarks.hostile_photos import png_bomb
from models.photo import PhotoLimits, PhotoRefused, read_photo
import models.colour
data = png_bomb(6000, 6000)
size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 60 * 2**20, resource.RLIM_INFINITY))
try:
    read_photo(data, limits=PhotoLimits())
except PhotoRefused as refused:
    print(refused.status, refused.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "unreadable decoding it takes more memory than one photo may take"
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_a_profile_over_the_limit_never_reaches_the_colour_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(colour, "_transform", lambda profile, mode: asked.append(len(profile)))
    grey = Image.fromarray(np.zeros((30, 30, 3), np.uint8))
    colour.to_srgb(grey, bytes(4 * 2**20 + 1))
    assert asked == []
    colour.to_srgb(grey, bytes(4 * 2**20))
    assert asked == [4 * 2**20]  # the twin
