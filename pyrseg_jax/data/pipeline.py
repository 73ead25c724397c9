"""Read, augment and batch training images with Grain.

The order and augmentation of training batches depend on (seed, step) alone. The number of workers or processes does not change
them, and neither does an interruption.
"""

import contextlib
import logging
from collections.abc import Iterator

import cv2
import grain
import numpy as np
from jaxtyping import UInt8

from pyrseg_jax.data.augmentation.mixing import Mix
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.threads import THREADS
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.distributed.host_memory import keep_memory_between_images
from pyrseg_jax.distributed.worker_processes import end_with_parent, interrupts_left_to_parent
from pyrseg_jax.errors import UserError, escaped, first_line, naming_file

log = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 100
_MIXING = 1  # tells the seeds of the second images from other seeds that are derived from the same one
_PROBLEM_BYTES = 400  # length of the messages that travel with a batch


class _Load(grain.transforms.Map):
    """Map an index to a decoded pair, the problem with its record if another record replaced it, and the name of its image."""

    def __init__(self, source: Source, label_space: LabelSpace, is_skipping: bool):
        self._source, self._label_space, self._is_skipping = source, label_space, is_skipping

    def map(self, element: int) -> tuple[Pair, str, str]:  # pyright: ignore[reportIncompatibleMethodOverride]  # Grain declares None
        # Every worker has work of its own, so OpenCV's threads would only compete for the cores.
        cv2.setNumThreads(0)
        keep_memory_between_images()
        problem = ""
        num_tries = min(MAX_SKIPPED_IN_A_ROW, len(self._source)) if self._is_skipping else 1
        # The next record that can be read replaces a bad one, so that a batch still depends on seed and step alone.
        for offset in range(num_tries):
            try:
                index = (int(element) + offset) % len(self._source)
                record, pair = load_pair(self._source, index, self._label_space)
                return pair, problem, record["image_name"]
            except UserError as error:
                if not self._is_skipping:
                    raise
                problem = problem or str(error)
        raise UserError(f"none of {num_tries} records in a row can be read, the first: {problem}")


class _Augment(grain.transforms.RandomMap):
    def __init__(self, augmentation: Augmentation):
        self._augmentation = augmentation

    def random_map(self, element: tuple[Pair, str, str], rng: np.random.Generator) -> dict:  # pyright: ignore[reportIncompatibleMethodOverride]  # Grain declares None
        pair, problem, name = element
        with naming_file(name, "cannot be scaled and cropped", "remove it from the data set, or use fewer workers"):
            return self._augmentation(pair, rng, name)._asdict() | {"problem": _to_bytes(problem)}


class _Mix(grain.transforms.MapWithIndex):
    """Paste parts of other images into some of the images. The other images are those of the same index in a second order."""

    def __init__(self, mix: Mix, others: grain.MapDataset, seed: int):
        self._mix, self._others, self._seed = mix, others, seed

    def map_with_index(self, index: int, element: dict) -> dict:  # pyright: ignore[reportIncompatibleMethodOverride]  # Grain declares Any
        generator = np.random.default_rng((self._seed, index))
        if not self._mix.is_drawn(generator):
            return element
        other = self._others[index]
        assert other is not None  # Grain gives None for elements that were filtered out, and none are
        pair, pasted = (Pair(parts["image"], parts["label"]) for parts in (element, other))
        problem = element["problem"] if element["problem"].any() else other["problem"]
        return self._mix(pair, pasted, generator)._asdict() | {"problem": problem}


def _to_bytes(problem: str) -> UInt8[np.ndarray, "bytes"]:
    """Pack a message into an array, because only arrays travel quickly between processes."""
    packed = np.zeros(_PROBLEM_BYTES, np.uint8)
    encoded = escaped(problem).encode()[:_PROBLEM_BYTES]  # names of files may hold bytes that are not UTF-8
    packed[: len(encoded)] = list(encoded)
    return packed


class TrainingBatches:
    """Endless training batches. Counts the records that had to be skipped, and logs each problem once.

    Attributes:
      num_skipped: records that another one replaced, since the start of this process.
    """

    def __init__(self, batches: Iterator[dict[str, np.ndarray]]):
        self._batches = batches
        self._logged: set[bytes] = set()
        self.num_skipped = 0
        self._has_started = False

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        # Grain starts its worker processes when it is asked for the first batch.
        starting = contextlib.nullcontext() if self._has_started else interrupts_left_to_parent()
        self._has_started = True
        try:
            with starting:
                batch = next(self._batches)
        except UserError as error:  # Grain appends its own traceback to the message
            raise UserError(str(error).split(f"\n{'-' * 20}")[0]) from None
        except RuntimeError as error:  # Grain raises this when a worker process has ended
            if isinstance(error, NotImplementedError | RecursionError) or "exit" not in str(error):
                raise
            raise UserError(
                f"a process that reads the data was killed ({first_line(error)}): most likely memory ran out; set "
                "workers=N to a smaller number and start the same command again: it continues from the last checkpoint"
            ) from error
        for packed in batch.pop("problem"):
            problem = packed.tobytes().rstrip(b"\0")
            if problem:
                self.num_skipped += 1
                if problem not in self._logged:
                    self._logged.add(problem)
                    log.warning(
                        "skipped a bad record and read another one instead: %s", problem.decode(errors="ignore")
                    )
        return batch

    def close(self) -> None:
        """End the worker processes."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def training_batches(
    source: Source,
    label_space: LabelSpace,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
    on_error: str = "stop",
) -> TrainingBatches:
    """Iterate endlessly over this process's share of the training batches, starting at step `first_step`.

    Every epoch has a new order, and batches run across the ends of epochs. Each batch is a dict of `image` (n, crop, crop, 3)
    uint8 and `label` (n, crop, crop) uint8 train ids, where n = batch_size / num_processes.

    Args:
      source: the training split.
      label_space: the classes of its label files.
      augmentation: a random transformation of each pair; it also says whether pairs are mixed.
      batch_size: number of images in a batch, over all processes.
      seed: seed for the order and the augmentation.
      first_step: the batch to begin with; batches before it are not computed.
      workers: number of processes that read and augment; 0 for threads of this process.
      process_index, num_processes: index and number of shares. The shares of all processes form the global batch.
      on_error: "stop" raises an error for a record that cannot be used; "skip" replaces it with the next one, and counts it.

    Raises:
      UserError: while iterating, naming the file of a bad record, or if a worker process was killed.
    """

    def augmented(order_seed: int) -> grain.MapDataset:
        return (
            grain.MapDataset.range(len(source))
            .seed(order_seed)
            .shuffle()
            .repeat()
            .map(_Load(source, label_space, on_error == "skip"))
            .random_map(_Augment(augmentation))
        )

    dataset = augmented(seed)
    if augmentation.mix is not None:
        others, drawing = (int(number) for number in np.random.SeedSequence((seed, _MIXING)).generate_state(2))
        dataset = dataset.map_with_index(_Mix(augmentation.mix, augmented(others), drawing))
    # The share is taken after the random map, so that augmentation does not depend on the number of processes.
    dataset = dataset[process_index::num_processes].batch(batch_size // num_processes, drop_remainder=True)
    # A MapDataset has random access, so it can start at any step. A saved iterator would need the same number of workers.
    dataset = dataset[first_step:]
    # Two batches in flight per process are enough to hide one slow image without holding many in memory.
    reading = grain.ReadOptions(num_threads=min(THREADS, 2 if workers else THREADS), prefetch_buffer_size=2)
    batches = dataset.to_iter_dataset(reading)
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, end_with_parent)
    with interrupts_left_to_parent():  # Grain starts threads here, which start the worker processes later
        return TrainingBatches(iter(batches))
