"""What several queries want of the nets, done in one go.

Nobody waits so that a batch may become full: what is waiting when a thread becomes free is taken together.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from models.card import EncoderCard
from models.detection import PhotoFaces, find_on_any_side, find_upright, is_sure
from models.encoder import Encoder
from models.photo import Photo
from tasks.steps.asked_photo import Find
from tasks.steps.contract import Contract
from tasks.steps.photo_faces import load_nets

__all__ = ["EncoderTogether", "Together", "find_together"]

T = TypeVar("T")
R = TypeVar("R")
Inputs = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


class Together(Generic[T, R]):
    """Calls a function for one item a thread, with the items of other threads that wait at the same time.

    Args:
        work: gives a result an item, in their order; its answer for an item does not hang on the others.
        threads: does the work; as many batches are under way as it has threads.
        most: items a batch.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], *, threads: Executor, most: int) -> None:
        self._work, self._threads, self._most = work, threads, most
        self._waiting: deque[tuple[T, Future[R]]] = deque()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._waiting)

    def __call__(self, item: T) -> R:
        """The item's result.

        Raises:
            Exception: what the work raises for this very item; whoever was in its batch does not notice.
        """
        mine: Future[R] = Future()
        self._waiting.append((item, mine))
        self._threads.submit(self._take)
        return mine.result()

    def _take(self) -> None:
        """Do what waits; nothing where an earlier batch took it all."""
        batch: list[tuple[T, Future[R]]] = []
        while len(batch) < self._most:
            try:
                batch.append(self._waiting.popleft())
            except IndexError:
                break
        if batch:
            self._do(batch)

    def _do(self, batch: Sequence[tuple[T, Future[R]]]) -> None:
        try:
            results = self._work([item for item, _ in batch])
            if len(results) != len(batch):
                raise AssertionError(f"{len(batch)} items came to {len(results)} results")
        except Exception as error:  # of whose item is found out by doing each alone
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:
                self._do([one])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)


def find_together(threads: Executor, *, most: int) -> Find:
    """Finds the faces of one photo as `find_in_photos` does; photos that wait are searched upright together.

    Args:
        threads: does the work.
        most: photos a batch.
    """
    settings = Contract().detection

    def upright(photos: Sequence[Photo]) -> list[PhotoFaces]:
        return find_upright(photos, nets=load_nets("cpu"), settings=settings)

    def on_any_side(photo: Photo, found: PhotoFaces) -> PhotoFaces:
        return find_on_any_side([photo], [found], nets=load_nets("cpu"), settings=settings)[0]

    upright_together = Together(upright, threads=threads, most=most)

    def find(photo: Photo) -> PhotoFaces:
        found = upright_together(photo)
        if is_sure(found, settings):
            return on_any_side(photo, found)
        return threads.submit(on_any_side, photo, found).result()  # nobody else's answer waits for these turns

    return find


class EncoderTogether:
    """An encoder that embeds the faces of several threads in one batch.

    Args:
        encoder: that does it.
        threads: on which it does it.
        most: calls a batch.
    """

    def __init__(self, encoder: Encoder, *, threads: Executor, most: int) -> None:
        self.encoder = encoder
        self._together = Together(self._of_all, threads=threads, most=most)

    @property
    def card(self) -> EncoderCard:
        """What the encoder is."""
        return self.encoder.card

    def embed(self, inputs_NHWC: Inputs) -> Vectors:
        """The faces' embeddings, in their order; see `Encoder`."""
        return self._together(inputs_NHWC)

    def _of_all(self, calls: Sequence[Inputs]) -> list[Vectors]:
        ends = np.cumsum([len(inputs) for inputs in calls])
        return list(np.split(self.encoder.embed(np.concatenate(calls)), ends[:-1]))
