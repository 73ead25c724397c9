"""Batches for training, through Grain.

Order and augmentation of training batches are a function of (seed, step) alone: not of the number of workers or
processes, nor of where a run was interrupted.
"""

import collections
import concurrent.futures
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence

import cv2
import grain
import numpy as np
from jaxtyping import UInt8

from pyrseg_jax.data.decode import Pair, decode_pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.memory import keep_freed_memory
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)
THREADS = os.cpu_count() or 1


MAX_SKIPPED_IN_A_ROW = 100
_PROBLEM_LENGTH = 400  # of messages that travel with a batch


class _Load(grain.transforms.Map):
    """Index → decoded pair, and the problem with the record if another one had to take its place."""

    def __init__(self, source: Source, label_space: LabelSpace, is_skipping: bool):
        self._source, self._label_space, self._is_skipping = source, label_space, is_skipping

    def map(self, index: int) -> tuple[Pair, str]:
        # Every worker has its own work: OpenCV's threads would only fight over the cores.
        cv2.setNumThreads(0)
        keep_freed_memory()
        problem = ""
        # The next record that can be read takes the place, so that a batch is still a function of seed and step alone.
        for offset in range(min(MAX_SKIPPED_IN_A_ROW, len(self._source)) if self._is_skipping else 1):
            try:
                record = self._source[(int(index) + offset) % len(self._source)]
                return decode_pair(record, self._label_space), problem
            except UserError as error:
                if not self._is_skipping:
                    raise
                problem = problem or str(error)
        raise UserError(f"none of {offset + 1} records in a row can be read, the first: {problem}")


class _Augment(grain.transforms.RandomMap):
    def __init__(self, augmentation: Augmentation):
        self._augmentation = augmentation

    def random_map(self, loaded: tuple[Pair, str], generator: np.random.Generator) -> dict:
        pair, problem = loaded
        return self._augmentation(pair, generator)._asdict() | {"problem": _to_bytes(problem)}


def _to_bytes(problem: str) -> UInt8[np.ndarray, "bytes"]:
    """Pack a message into an array, for only arrays travel quickly between processes."""
    packed = np.zeros(_PROBLEM_LENGTH, np.uint8)
    encoded = problem.encode()[:_PROBLEM_LENGTH]
    packed[: len(encoded)] = list(encoded)
    return packed


class TrainingBatches:
    """Training batches without end; counts the records that had to be skipped, and says each problem once."""

    def __init__(self, batches: Iterator[dict[str, np.ndarray]]):
        self._batches = batches
        self._said: set[bytes] = set()
        self.num_skipped = 0  # records for which another one was taken, since the start of this process

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            batch = next(self._batches)
        except UserError as error:  # Grain appends where its traceback went
            raise UserError(str(error).split(f"\n{'-' * 20}")[0]) from None
        except RuntimeError as error:  # what Grain raises when a worker process has ended
            if isinstance(error, NotImplementedError | RecursionError) or "exit" not in str(error):
                raise
            raise UserError(
                f"a process that reads the data was killed ({_first_line(error)}): most likely memory is short; lower "
                "config.data.workers and start the same command again: it continues from the last checkpoint"
            ) from error
        for packed in batch.pop("problem"):
            problem = packed.tobytes().rstrip(b"\0")
            if problem:
                self.num_skipped += 1
                if problem not in self._said:
                    self._said.add(problem)
                    log.warning("skipped, another record takes its place: %s", problem.decode(errors="ignore"))
        return batch

    def close(self) -> None:
        """End the worker processes."""
        if hasattr(self._batches, "close"):
            self._batches.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
    """Iterate without end over this process's share of the training batches, from step `first_step` on.

    Every epoch is shuffled anew; batches run across the ends of epochs. Each batch is a dict of `image`
    (n, crop, crop, 3) uint8 and `label` (n, crop, crop) uint8 train ids with n = batch_size / num_processes.

    Args:
      source: records as `decode.decode_pair` takes them.
      label_space: of their label files.
      augmentation: applied to each pair.
      batch_size: over all processes.
      seed: of order and augmentation.
      first_step: the batch to begin with; batches before it are not computed.
      workers: processes that read and augment; 0 for threads of this one.
      process_index, num_processes: which share; together the shares are the global batch, for any number of them.
      on_error: "stop": a record that cannot be used is an error; "skip": the next one takes its place, and is counted.

    Raises:
      UserError: while iterating: naming the file of a bad record, or if a worker process was killed.
    """
    dataset = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .repeat()
        .map(_Load(source, label_space, on_error == "skip"))
        .random_map(_Augment(augmentation))
    )
    # After the random map, so that augmentation does not depend on the number of processes.
    dataset = dataset[process_index::num_processes].batch(batch_size // num_processes, drop_remainder=True)
    # A MapDataset is random access: starting at a step needs no saved iterator, which could be restored only with the
    # same number of workers.
    dataset = dataset[first_step:]
    # Two batches in flight per process: enough to hide one slow image, without holding many in memory.
    reading = grain.ReadOptions(num_threads=min(THREADS, 2 if workers else THREADS), prefetch_buffer_size=2)
    batches = dataset.to_iter_dataset(reading)
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return TrainingBatches(iter(batches))


def ordered_map(function: Callable, items: Sequence, num_threads: int) -> Iterator:
    """Map with threads, in order, with only a few results in memory ahead of the one that is asked for."""
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        upcoming = iter(items)
        running = collections.deque(pool.submit(function, item) for item in itertools.islice(upcoming, 2 * num_threads))
        try:
            while running:
                result = running.popleft().result()
                for item in itertools.islice(upcoming, 1):
                    running.append(pool.submit(function, item))
                yield result
        finally:
            for future in running:
                future.cancel()
