"""From the bytes of an image to the bytes of its answer: decode, batch across requests, segment, encode."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from pyrseg_jax.data.decode import Masked
from pyrseg_jax.data.threads import THREADS
from pyrseg_jax.errors import UserError
from pyrseg_jax.run.predictor import Predictor, Segmented, Wants
from pyrseg_jax.serving.answers import ANSWERS
from pyrseg_jax.serving.batcher import NUM_RUNNING, Batcher
from pyrseg_jax.serving.images import check_header, decode
from pyrseg_jax.serving.limits import Limits
from pyrseg_jax.serving.metrics import Metrics
from pyrseg_jax.serving.refusal import NOT_READY, RETRY, Refusal

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Engine:
    """Segment the images of requests with one model.

    Args:
      predictor: the model.
      model: what tells it from others, as JSON can hold it; part of each JSON answer.
      limits: what is accepted.
      metrics: where to count.
      sizes: (height, width) of the images that are compiled before the server is ready.
      takes_any_size: whether images of other sizes are accepted, too; the first one of a size is compiled.

    Attributes:
      is_ready: whether every listed size is compiled.
    """

    def __init__(
        self,
        predictor: Predictor,
        model: dict[str, Any],
        limits: Limits,
        metrics: Metrics,
        sizes: Sequence[tuple[int, int]],
        takes_any_size: bool,
    ):
        self.predictor, self.limits, self.metrics = predictor, limits, metrics
        self.sizes, self.takes_any_size, self.is_ready = sizes, takes_any_size, False
        self.model = model
        self._groups = {predictor.group_of(*size) for size in sizes}
        self._num_held = 0
        self._starting = threading.Lock()
        self._hosts = ThreadPoolExecutor(max(2, THREADS), "serve-host")
        self._devices = ThreadPoolExecutor(NUM_RUNNING, "serve-device")
        self._batcher = Batcher(self._compute, predictor.batch_size)
        # Images wait as files; only so many are decoded ahead of the network.
        self._decoded = asyncio.Semaphore(2 * predictor.batch_size + THREADS)

    def close(self) -> None:
        """End the threads."""
        for pool in (self._hosts, self._devices):
            pool.shutdown(wait=False, cancel_futures=True)

    def warm_up(self) -> None:
        """Compile everything that images of the listed sizes need; the engine is ready then.

        Raises:
          UserError: if the model cannot segment such an image, or there are too many sizes to keep their programs in memory.
        """
        start = time.perf_counter()
        self._segment_all()
        before = self.metrics.value("pyrseg_compilations_total")
        self._segment_all()
        if self.metrics.value("pyrseg_compilations_total") != before:
            raise UserError(
                f"--sizes lists {len(self.sizes)} sizes, more than the memory for compiled programs holds: list fewer"
            )
        self.is_ready = True
        self.metrics.is_ready.set(1)
        log.info("ready after %.1f s", time.perf_counter() - start)

    def _segment_all(self) -> None:
        space = self.predictor.image_space
        for height, width in self.sizes:
            image = np.full((height, width, space.channels), 127, space.dtype)
            for wants in {answer.wants for answer in ANSWERS.values()}:
                self._segment(wants, [image])

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold one more request inside of the context.

        Raises:
          Refusal: 503, if the server is not ready, or holds as many as it may.
        """
        if not self.is_ready:
            raise Refusal(503, NOT_READY, RETRY, is_unread=True)
        if self._num_held >= self.limits.queue:
            raise Refusal(
                503, f"the server holds {self._num_held} requests already: ask again in a second", RETRY, is_unread=True
            )
        self._num_held += 1
        self.metrics.held.set(self._num_held)
        try:
            yield
        finally:
            self._num_held -= 1
            self.metrics.held.set(self._num_held)

    async def segment(self, data: bytes, form: str) -> bytes:
        """Return the answer for an image.

        Args:
          data: the file.
          form: a key of `ANSWERS`.

        Raises:
          Refusal: 413, 415 or 422 for the image, 504 if there is no answer in time.
          UserError: if the model cannot segment it.
        """
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await self._segment_one(data, form)
        except TimeoutError as error:
            raise Refusal(
                504, f"there was no answer within {self.limits.timeout_s:g} s: ask again later, or send a smaller image"
            ) from error

    async def _segment_one(self, data: bytes, form: str) -> bytes:
        answer, space = ANSWERS[form], self.predictor.image_space
        self._check_size(await self._in_thread(check_header, data, space, self.limits.max_pixels))
        async with self._decoded:
            masked: Masked = await self._in_thread(decode, data, space)
            group = self._check_size(masked.image.shape[:2])
            segmented: Segmented = await self._batcher.submit((group, answer.wants), masked.image)
            content = await self._in_thread(self._encode, form, segmented, masked)
        self.metrics.images.labels(form).inc()
        return content

    def _encode(self, form: str, segmented: Segmented, masked: Masked) -> bytes:
        label_space = self.predictor.label_space
        segmented = segmented.masked(masked.is_void, label_space.void)
        return ANSWERS[form].encode(segmented, label_space, self.model)

    def _check_size(self, size: tuple[int, ...]) -> Hashable:
        group = self.predictor.group_of(size[0], size[1])
        if not self.takes_any_size and group not in self._groups:
            listed = ", ".join(f"{height} × {width}" for height, width in self.sizes)
            raise Refusal(
                422,
                f"the image has {size[0]} × {size[1]} pixels (height × width): expected a size that the network sees as one of "
                f"{listed}; scale or pad it",
            )
        return group

    async def _compute(self, key: tuple[Hashable, Wants], images: Sequence[np.ndarray]) -> Sequence[Segmented]:
        self.metrics.batches.observe(len(images))
        return await asyncio.get_running_loop().run_in_executor(self._devices, self._segment, key[1], images)

    def _segment(self, wants: Wants, images: Sequence[np.ndarray]) -> list[Segmented]:
        with self._starting:  # so that no program is compiled twice
            finish = self.predictor.start(images, wants)
        return finish()

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._hosts, function, *arguments)
