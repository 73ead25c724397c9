"""Batches for training, through Grain.

Order and augmentation of training batches are a function of (seed, step) alone: not of the number of workers or
processes, nor of where a run was interrupted.
"""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import cv2
import grain
import numpy as np

from pyrseg_jax.data.decode import Pair, decode_pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.transforms import Augmentation

THREADS = os.cpu_count() or 1


class _Decode(grain.transforms.Map):
    def __init__(self, label_space: LabelSpace):
        self._label_space = label_space

    def map(self, record: dict) -> Pair:
        # Every worker has its own work: OpenCV's threads would only fight over the cores.
        cv2.setNumThreads(0)
        return decode_pair(record, self._label_space)


class _Augment(grain.transforms.RandomMap):
    def __init__(self, augmentation: Augmentation):
        self._augmentation = augmentation

    def random_map(self, pair: Pair, generator: np.random.Generator) -> dict:
        return self._augmentation(pair, generator)._asdict()


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
) -> Iterator[dict[str, np.ndarray]]:
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
    """
    dataset = (
        grain.MapDataset.source(source)
        .seed(seed)
        .shuffle()
        .repeat()
        .map(_Decode(label_space))
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
    return iter(batches)


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
