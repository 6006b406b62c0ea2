"""What a process of the service keeps warm: the current version, the nets, and a nursery for decoders."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from app.service.settings import ServiceSettings
from app.service.together import EncoderTogether, find_together
from models.photo import Photo, PhotoLimits, PhotoRefused
from store.errors import VersionError
from store.forgotten import Forgotten
from store.layout import open_store
from store.versions import published_numbers
from tasks.steps.answer import Answer
from tasks.steps.answer_faces import answer_face, answer_photo
from tasks.steps.asked_photo import encoder_of, find_asked, read_asked_photo
from tasks.steps.decode_apart import DecodingApart
from tasks.steps.follow_version import VersionFollower
from tasks.steps.live_filter import live_forgotten
from tasks.steps.open_version import OpenVersion, open_version
from tasks.steps.query_options import QueryOptions

__all__ = ["SMALL_BYTES", "Asked", "Asker", "NotSmallError"]

SMALL_BYTES = 512 * 1024
"""A photo of no more bytes may be small; whether it is, its pixels say."""

_SHOWN_AS = "the photo"
_SMALL_PIXELS = 2**20
_MOST_LABELS = 5000


class NotSmallError(Exception):
    """A photo of few bytes turns out to have many pixels: it is asked with alone."""


@dataclass(frozen=True)
class Asked:
    """An answer, with what is needed to show it.

    Attributes:
        answer: the matches.
        opened: the version that gave it.
        face_ids: the id of each answered face where the version knows it, else None.
    """

    answer: Answer
    opened: OpenVersion
    face_ids: tuple[str | None, ...]


class Asker:
    """Asks the store's versions; close it, or use it in a `with`. Its methods block and are called from `threads`.

    Args:
        settings: of the service.

    Raises:
        StoreError: there is no store.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.storage = open_store(settings.store)
        self.threads = ThreadPoolExecutor(settings.slots, thread_name_prefix="ask")
        self.small_threads = ThreadPoolExecutor(settings.slots * settings.together, thread_name_prefix="ask-small")
        self._finds = ThreadPoolExecutor(settings.slots, thread_name_prefix="find")
        self._embeds = ThreadPoolExecutor(settings.slots, thread_name_prefix="embed")
        self.shows = ThreadPoolExecutor(4, thread_name_prefix="show")
        self.decoding = DecodingApart()
        self._together = settings.together
        self._find_together = find_together(self._finds, most=settings.together)
        self._encoders: dict[str, EncoderTogether] = {}
        self._follower = VersionFollower(self.storage, prepare=self._warm)
        self._warmed = False
        self._labels: tuple[OpenVersion, Forgotten, list[str]] | None = None

    def __enter__(self) -> "Asker":
        self.decoding.start()
        self._follower.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.__exit__()
        for threads in (self.threads, self.small_threads, self.shows, self._finds, self._embeds):
            threads.shutdown()
        self.decoding.close()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be answered, or nothing newer; None when all is well."""
        return self._follower.trouble

    @property
    def is_ready(self) -> bool:
        """Whether a version answers, warm."""
        return self._follower.now is not None

    def opened(self, number: int | None) -> OpenVersion:
        """A version to ask; None is the one that is followed.

        Raises:
            VersionError: there is no such version, or none yet.
            ArtifactError: it is damaged.
        """
        return self._opened(number)[0]

    def numbers(self) -> list[int]:
        """Of all versions."""
        return published_numbers(self.storage)

    def labels(self) -> list[str]:
        """The names of people in the version that is followed, sorted, at most 5,000; none of whom all faces were forgotten."""
        if (now := self._follower.now) is None:
            return []
        forgotten = live_forgotten(self.storage)
        kept = self._labels
        if kept is None or kept[0] is not now.opened or kept[1] != forgotten:
            rows = now.opened.faces
            names = rows.labels()
            if forgotten:
                names = {row["label"] for row in rows.labelled() if row["label"] and not forgotten.has_face(row)}
            self._labels = kept = now.opened, forgotten, sorted(names)[:_MOST_LABELS]
        return kept[2]

    def ask_photo(self, data: bytes, options: QueryOptions, *, small: bool = False) -> Asked:
        """The matches of a photo's faces; errors as `answer_photo` has them.

        Args:
            data: the photo's bytes.
            options: how it is asked.
            small: its faces are looked for together with those of others; called from `small_threads`.

        Raises:
            NotSmallError: it has too many pixels for that.
        """
        opened, warnings = self._opened(options.version)
        decode, find = (self._decode_small, self._find_together) if small else (self._decode, None)
        asked = read_asked_photo(data, uri=_SHOWN_AS, decode=decode, find=find)
        encoder = self._encoder(opened)
        answer = answer_photo(self.storage, opened, asked, options=options, warnings=warnings, encoder=encoder)
        forgotten = live_forgotten(self.storage)
        ids: list[str | None] = []
        for face in answer.faces:
            known = opened.faces.get(asked.rows[face.number - 1]["face_id"])
            ids.append(None if known is None or forgotten.has_face(known) else str(known["face_id"]))
        return Asked(answer, opened, tuple(ids))

    def ask_face(self, face_id: int, options: QueryOptions) -> Asked:
        """The matches of a face that a version knows; errors as `answer_face` has them."""
        opened, warnings = self._opened(options.version)
        answer = answer_face(self.storage, opened, face_id, options=options, warnings=warnings)
        return Asked(answer, opened, (str(face_id),))

    def _opened(self, number: int | None) -> tuple[OpenVersion, tuple[str, ...]]:
        now = self._follower.now
        if now is not None and number in {None, now.opened.version.number}:
            return now.opened, now.warnings
        if number is None:
            raise VersionError(self._follower.trouble or "no version is published yet")
        return open_version(self.storage, number)

    def _decode(self, _: Callable[..., Photo], data: bytes, *, limits: PhotoLimits, max_side_px: int) -> Photo:
        return self.decoding.read(data, limits=limits, max_side_px=max_side_px, whole=True)

    def _decode_small(self, _: Callable[..., Photo], data: bytes, *, limits: PhotoLimits, max_side_px: int) -> Photo:
        try:
            few = replace(limits, max_pixels=_SMALL_PIXELS)
            return self.decoding.read(data, limits=few, max_side_px=max_side_px, whole=True)
        except PhotoRefused as refused:
            if refused.status == "too_large":
                raise NotSmallError from refused
            raise

    def _encoder(self, opened: OpenVersion) -> EncoderTogether:
        """The version's, kept like the one it wraps."""
        encoder = encoder_of(self.storage, opened.version.manifest.encoder.id)
        kept = self._encoders.get(opened.version.manifest.encoder.id)
        if kept is None or kept.encoder is not encoder:
            kept = EncoderTogether(encoder, threads=self._embeds, most=self._together)
            self._encoders = {opened.version.manifest.encoder.id: kept}
        return kept

    def _warm(self, opened: OpenVersion) -> None:
        """Let every thread have used the nets once, so that nobody's query is the first."""
        noise_HWC = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
        photo = Photo(noise_HWC, exif_orientation=1, full_width=320, full_height=240, full=noise_HWC)
        encoder = encoder_of(self.storage, opened.version.manifest.encoder.id)
        inputs = np.zeros((1, encoder.card.input.height, encoder.card.input.width, 3), np.uint8) + 127
        inputs[0, ::2] = 90

        def pause() -> None:
            time.sleep(0.05)  # so that the next call goes to another thread

        def find() -> None:
            find_asked(photo, sha256="0" * 64, uri="noise")
            pause()

        def embed() -> None:
            for faces in range(1, self._together + 1):  # each number the first time takes longer
                encoder.embed(np.repeat(inputs, faces, axis=0))
            pause()

        calls = [(self._embeds, embed)]
        if not self._warmed:
            calls += [(self.threads, find), (self._finds, find)]
        for done in [threads.submit(call) for threads, call in calls for _ in range(threads._max_workers)]:
            done.result()
        self._warmed = True
