"""Keep the network busy: read and decode ahead of it, draw and write behind it, and never hold more than a few images."""

import collections
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.prediction.reading import Loaded
from pyrseg_jax.prediction.writing import Outcome, is_full
from pyrseg_jax.run.predictor import Predictor, Segmented, Unusable, Wants

BATCHES_AHEAD = 2  # batches that the device has been given: it computes one while the other waits
MAX_WAITING_BYTES = 2**28  # decoded images that wait for others of their size
ADVICE = "replace it, or move it out of the folder"

Load = Callable[[Item], Loaded | Outcome]
Store = Callable[[Loaded, Segmented], Outcome]


class Pipeline:
    """Segment images in batches.

    Args:
      predictor: the model.
      wants: what the outputs need.
      load: reads an image; it is called in threads.
      store: draws and writes its files; it is called in threads.
    """

    def __init__(self, predictor: Predictor, wants: Wants, load: Load, store: Store):
        self._predictor, self._wants, self._load, self._store = predictor, wants, load, store
        self._waiting: dict[Hashable, list[Loaded]] = collections.defaultdict(list)
        self._started: collections.deque[tuple[list[Loaded], Callable[[], list[Segmented]]]] = collections.deque()
        self._writing: collections.deque[Future[Outcome]] = collections.deque()

    def run(self, items: Sequence[Item], is_stopped: Callable[[], bool] = lambda: False) -> Iterator[Outcome]:
        """Segment images, and yield the outcome of each as soon as it is known. After one that is the last, nothing is begun.

        Args:
          items: the images.
          is_stopped: whether to begin nothing new, and only finish the batches that the device has been given.
        """
        with ThreadPoolExecutor(THREADS) as writers:
            loaded = ordered_map(self._load, items, THREADS)
            try:
                for found in loaded:
                    if isinstance(found, Outcome):
                        yield found
                    elif not is_stopped():
                        yield from self._add(found)
                        yield from self._collect(writers, BATCHES_AHEAD, 2 * THREADS)
                    if is_stopped():
                        break
                for group in [*self._waiting]:
                    if is_stopped():
                        break
                    yield from self._begin(group)
                    yield from self._collect(writers, BATCHES_AHEAD, 2 * THREADS)
                yield from self._collect(writers, 0, 0)
            finally:
                loaded.close()
                for future in self._writing:
                    future.cancel()

    def _add(self, loaded: Loaded) -> Iterator[Outcome]:
        """Put an image to the others of its group, and begin the group if it fills a batch, or too many images wait."""
        try:
            with naming_file(str(loaded.item.path), "cannot be segmented", ADVICE):
                group = self._predictor.group_of(*loaded.masked.image.shape[:2])
        except UserError as error:
            yield Outcome(loaded.item, (str(error),))
            return
        self._waiting[group].append(loaded)
        if len(self._waiting[group]) >= self._predictor.batch_size:
            yield from self._begin(group)
        elif sum(_bytes(group) for group in self._waiting.values()) > MAX_WAITING_BYTES:
            yield from self._begin(max(self._waiting, key=lambda group: _bytes(self._waiting[group])))

    def _begin(self, group: Hashable) -> Iterator[Outcome]:
        batch = self._waiting.pop(group)
        try:
            with naming_file(str(batch[0].item.path), "cannot be segmented", ADVICE):
                finish = self._predictor.start([loaded.masked.image for loaded in batch], self._wants)
        except UserError as error:
            yield from (_failed(loaded.item, error) for loaded in batch)
            return
        self._started.append((batch, finish))

    def _collect(self, writers: ThreadPoolExecutor, num_started: int, num_writing: int) -> Iterator[Outcome]:
        """Wait until no more than these numbers of batches and of images are in work; yield what is finished."""
        while len(self._started) > num_started:
            batch, finish = self._started.popleft()
            try:
                with naming_file(str(batch[0].item.path), "cannot be segmented", ADVICE):
                    predictions = finish()
            except UserError as error:
                yield from (_failed(loaded.item, error) for loaded in batch)
                continue
            for loaded, segmented in zip(batch, predictions, strict=True):
                self._writing.append(writers.submit(self._store, loaded, segmented))
        while len(self._writing) > num_writing or (self._writing and self._writing[0].done()):
            yield self._writing.popleft().result()


def _failed(item: Item, error: UserError) -> Outcome:
    return Outcome(item, (str(error),), is_last=is_full(error) or isinstance(error, Unusable))


def _bytes(batch: Sequence[Loaded]) -> int:
    return sum(loaded.masked.image.nbytes for loaded in batch)
