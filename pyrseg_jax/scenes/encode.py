"""Render scenes and encode them, with several processes.

This file imports neither TFDS nor anything else that is slow to import, so that worker processes start quickly.
"""

import io
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import cv2
from absl import logging
from PIL import Image

from pyrseg_jax.distributed.worker_pool import WorkerPool
from pyrseg_jax.scenes.compose import paint_scene

_MIN_SCENES_FOR_POOL = 16  # with fewer scenes, starting the workers takes longer than rendering


def encode_scene(split: str, index: int) -> tuple[int, bytes, bytes]:
    """Render scene `index` and return (index, JPEG bytes of the image, PNG bytes of the labels)."""
    image, labels = paint_scene(split, index)
    as_jpeg, as_png = io.BytesIO(), io.BytesIO()
    Image.fromarray(image).save(as_jpeg, format="JPEG", quality=95, subsampling=0)
    Image.fromarray(labels).save(as_png, format="PNG", optimize=True)
    return index, as_jpeg.getvalue(), as_png.getvalue()


def encode_scenes(split: str, num_scenes: int, num_workers: int | None = None) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield `encode_scene` of 0 … num_scenes - 1, in order.

    Args:
      split: "training" or "validation".
      num_scenes: number of scenes.
      num_workers: number of processes; by default one per core that this process may use. If no processes can be started, this
        one renders the scenes; they are the same.
    """
    if num_workers is None:
        has_affinity = hasattr(os, "sched_getaffinity")
        num_workers = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    num_done = 0
    # A daemon process, such as a data worker, may not start processes of its own.
    if num_workers > 1 and num_scenes >= _MIN_SCENES_FOR_POOL and not multiprocessing.current_process().daemon:
        try:
            for encoded in encode_in_pool(split, num_scenes, num_workers):
                yield encoded
                num_done += 1
        except (OSError, BrokenProcessPool) as error:
            logging.warning("Rendering in one process: the pool of %d failed (%s).", num_workers, error)
    for index in range(num_done, num_scenes):
        yield encode_scene(split, index)


def encode_in_pool(split: str, num_scenes: int, num_workers: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield what `encode_scenes` does, from `num_workers` processes; raises BrokenProcessPool if one of them is killed."""
    with WorkerPool(num_workers, _start_worker) as pool:
        for encoded in [pool.submit(encode_scene, split, index) for index in range(num_scenes)]:
            yield encoded.result()


def _start_worker() -> None:
    cv2.setNumThreads(1)
