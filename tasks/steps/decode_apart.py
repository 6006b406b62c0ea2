"""Photos decoded apart, at once: each in a process of its own that was forked a moment before from one that holds nothing.

`run_once_behind_wall` starts an interpreter a photo, which takes most of a second. A service keeps a *nursery* instead: a small
process that has imported the decoders and never sees a photo. For each photo it forks a child, which decodes under the wall's
limits, writes the pixels into memory that it was lent, says their shapes, and ends. What comes back is numbers and pixels, never
pickled objects: a decoder that was taken over can lie about a picture and do no more.

The wire, both ways: a letter, the payload's length as eight bytes, the payload. The memory is sealed at its size, so that the child
cannot take it away from under the reader.
"""

import contextlib
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.photo import Photo, PhotoLimits, PhotoRefused, full_pixels, read_photo
from store.errors import UnavailableError
from tasks.steps.wall import PhotoBudget, PhotoKilledError, death_of, held_to

__all__ = ["DecodingApart", "serve_nursery"]

_HEAD = struct.Struct("<cQ")
_PROJECT = Path(__file__).resolve().parent.parent.parent
_ASK, _SIZES, _REFUSED, _ENDED = b"A", b"S", b"R", b"E"
_MOST_TEXT = 4096
_SPARE_S = 30.0


class DecodingApart:
    """Decodes photos behind the wall; threads may share it. Close it, or use it in a `with`.

    Args:
        budget: a photo's limits; the wall's usual ones when not given.
    """

    def __init__(self, *, budget: PhotoBudget | None = None) -> None:
        self._budget = budget or PhotoBudget()
        self._turn = threading.Lock()
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> "DecodingApart":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the nursery, which takes most of a second; a photo does it where nobody has."""
        with self._turn:
            self._started()

    def close(self) -> None:
        """End the nursery; photos under way still come."""
        with self._turn:
            if self._control is not None:
                self._control.close()
            if self._nursery is not None:
                self._nursery.wait()
            self._nursery = self._control = None

    def read(self, data: bytes, *, limits: PhotoLimits, max_side_px: int, whole: bool = False) -> Photo:
        """The photo as `read_photo` gives it.

        Args:
            data: the file; it may be damaged or hostile.
            limits: checked before its pixels are decoded.
            max_side_px: a photo with a longer side is given smaller.
            whole: with its pixels at full size, whatever its size.

        Raises:
            PhotoRefused: it is unreadable, too large or too small.
            PhotoKilledError: the process died of it; the message says how.
            UnavailableError: no process could be had.
        """
        if len(data) > limits.max_bytes:
            raise PhotoRefused("too_large", f"the file has {len(data)} bytes, the limit is {limits.max_bytes}")
        room = 3 * (limits.max_pixels + max_side_px**2) + mmap.PAGESIZE
        lent = _sealed_memory(room)
        try:
            with self._child(lent) as wire:
                wire.settimeout(self._budget.wall_seconds + _SPARE_S)
                asked = {"limits": asdict(limits), "max_side_px": max_side_px, "whole": whole}
                with contextlib.suppress(OSError):  # it died before it had read all; how, it says below
                    _send(wire, _ASK, json.dumps(asked | {"budget": asdict(self._budget)}).encode())
                    _send(wire, _ASK, data)
                sizes = self._answer(wire)
            return _as_photo(sizes, mmap.mmap(lent, room, prot=mmap.PROT_READ))
        finally:
            os.close(lent)

    def _answer(self, wire: socket.socket) -> dict[str, Any]:
        """What the child says of the pixels it gave, once it has ended."""
        sizes: dict[str, Any] = {}
        while True:
            try:
                kind, length = _head(wire)
                payload = _exactly(wire, min(length, _MOST_TEXT))
            except OSError as error:
                raise UnavailableError("the process that decodes photos went away; ask again") from error
            if kind == _SIZES:
                sizes = json.loads(payload)
            elif kind == _REFUSED:
                refusal = json.loads(payload)
                raise PhotoRefused(refusal["status"], refusal["reason"])
            elif kind == _ENDED and int(payload):
                raise PhotoKilledError(death_of(int(payload), self._budget))
            elif kind == _ENDED:
                return sizes

    def _child(self, lent: int) -> socket.socket:
        """A socket to a fresh child that was lent some memory."""
        for last in (False, True):
            ours, theirs = socket.socketpair()
            try:
                with self._turn, theirs:
                    socket.send_fds(self._started(), [b"c"], [theirs.fileno(), lent])
                return ours
            except OSError as error:
                ours.close()
                self.close()  # the nursery is gone: another one
                if last:
                    raise UnavailableError("no process to decode photos can be started; ask again") from error
        raise AssertionError

    def _started(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair()
            with theirs:
                code = "import sys; from tasks.steps.decode_apart import serve_nursery; serve_nursery(int(sys.argv[1]))"
                path = os.pathsep.join(filter(None, (str(_PROJECT), os.environ.get("PYTHONPATH"))))
                self._nursery = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-P", "-c", code, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8"},
                    start_new_session=True,  # a terminal's Ctrl-C is for the service, which ends it in its own time
                )
            self._control = ours
        return self._control


def _sealed_memory(room: int) -> int:
    """A descriptor of so many bytes of memory; none are taken before they are written, and none can be cut off."""
    lent = os.memfd_create("photo", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(lent, room)
    fcntl.fcntl(lent, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return lent


def _as_photo(sizes: dict[str, Any], memory: mmap.mmap) -> Photo:
    try:
        pixels, full = (_picture(memory, *sizes[name]) for name in ("pixels", "full"))
        return Photo(
            pixels=pixels,
            exif_orientation=int(sizes["exif_orientation"]),
            full_width=int(sizes["full_width"]),
            full_height=int(sizes["full_height"]),
            full=full if sizes["has_full"] else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PhotoKilledError("the decoder gave no picture") from error


def _picture(memory: mmap.mmap, start: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(memory, np.uint8, count=3 * height * width, offset=start).reshape(height, width, 3)


def serve_nursery(control: int) -> None:
    """Fork a child for each socket that comes over the control socket, until that is closed.

    Args:
        control: its file descriptor.
    """
    _import_decoders()
    wakeup, signalled = os.pipe()
    os.set_blocking(signalled, False)
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asking: socket.socket | None = socket.socket(fileno=control)
    wires: dict[int, socket.socket] = {}
    while asking is not None or wires:
        waiting: list[Any] = [wakeup] if asking is None else [wakeup, asking]
        ready = select.select(waiting, [], [])[0]
        if wakeup in ready:
            os.read(wakeup, 512)
        _bury(wires)
        if asking is not None and asking in ready:
            _, given, _, _ = socket.recv_fds(asking, 1, 2)
            if not given:
                asking.close()
                asking = None
                continue
            wire, lent = socket.socket(fileno=given[0]), given[1]
            if (child := os.fork()) == 0:
                _leave(partial(_decode, wire, lent), others=[asking, *wires.values()])
            os.close(lent)
            wires[child] = wire


def _bury(wires: dict[int, socket.socket]) -> None:
    """Tell whoever waits how a child ended."""
    while wires:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with wires.pop(child) as wire:
            wire.settimeout(1.0)
            with contextlib.suppress(OSError):  # nobody waits any more
                _send(wire, _ENDED, str(os.waitstatus_to_exitcode(status)).encode())


def _leave(work: Callable[[], None], *, others: list[socket.socket]) -> None:
    """Do a child's work and end without any of the nursery's clean-up."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for other in others:
            other.close()
        work()
        code = 0
    finally:
        os._exit(code)


def _decode(wire: socket.socket, lent: int) -> None:
    asked = json.loads(_exactly(wire, _head(wire)[1]))
    data = bytes(_exactly(wire, _head(wire)[1]))
    limits, whole = PhotoLimits(**asked["limits"]), asked["whole"]
    try:
        with held_to(PhotoBudget(**asked["budget"])):
            photo = read_photo(data, limits=limits, max_side_px=asked["max_side_px"])
            full = full_pixels(photo, data, limits=limits) if whole else photo.pixels
            after = -(-_put(lent, photo.pixels, at=0) // mmap.PAGESIZE) * mmap.PAGESIZE
            if full is not photo.pixels:
                _put(lent, full, at=after)
    except PhotoRefused as refused:
        return _send(wire, _REFUSED, json.dumps({"status": refused.status, "reason": refused.reason}).encode())
    sizes = {
        "exif_orientation": photo.exif_orientation,
        "full_width": photo.full_width,
        "full_height": photo.full_height,
        "has_full": whole,
        "pixels": [0, *photo.pixels.shape[:2]],
        "full": [0 if full is photo.pixels else after, *full.shape[:2]],
    }
    return _send(wire, _SIZES, json.dumps(sizes).encode())


def _put(lent: int, picture: npt.NDArray[np.uint8], *, at: int) -> int:
    """Write pixels; returns where they end."""
    rest = memoryview(np.ascontiguousarray(picture).data).cast("B")
    while rest:
        written = os.pwrite(lent, rest, at)
        at, rest = at + written, rest[written:]
    return at


def _import_decoders() -> None:
    """Everything that a decoder imports when it is needed, now: a child is held to limits and has no time for it."""
    import pillow_heif  # noqa: PLC0415
    from PIL import Image, ImageCms, ImageFile  # noqa: F401, PLC0415

    Image.init()
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def _send(wire: socket.socket, kind: bytes, payload: bytes) -> None:
    wire.sendall(_HEAD.pack(kind, len(payload)))
    wire.sendall(payload)


def _head(wire: socket.socket) -> tuple[bytes, int]:
    kind, length = _HEAD.unpack(_exactly(wire, _HEAD.size))
    return kind, length


def _exactly(wire: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        got = wire.recv_into(view)
        if not got:
            raise ConnectionResetError
        view = view[got:]
    return data
