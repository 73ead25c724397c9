"""Check and write the pairs of a data set in portions, spread over the cores, each portion whole or not at all."""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, file_adapters

from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.report import Survey, checksums_of, progress
from pyrseg_jax.data.source import Source
from pyrseg_jax.errors import UserError

FEATURES = tfds.features.FeaturesDict(
    {
        # The bytes of the file: JPEG as it was published, or PNG where a data set has these.
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "name": tfds.features.Text(),
    }
)
MIN_PAIRS_FOR_POOL = 128  # below, starting the workers takes longer than the work


@dataclasses.dataclass(frozen=True)
class Portion:
    """Pairs `indices` of a split, and the file that they go to."""

    split: str
    indices: range
    shard: Path

    @classmethod
    def of(cls, split: str, source: Source, start: int, stop: int, staging: Path, label_space: LabelSpace) -> "Portion":
        """Name the portion by the state of its files: a changed file makes another portion."""
        lines = [split, repr(label_space.values()), *source.fingerprint()[start:stop]]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
        return cls(split, range(start, stop), staging / f"{digest}.array_record")

    @property
    def result(self) -> Path:
        """Where its survey is written, last of all: where that is, the portion is whole."""
        return self.shard.with_suffix(".json")

    def is_whole(self) -> bool:
        """Tell whether it was written before."""
        return self.shard.is_file() and self.result.is_file()


def write_portions(
    portions: list[Portion],
    sources: Mapping[str, Source],
    label_space: LabelSpace,
    what: str,
    num_workers: int | None = None,
) -> list[dict]:
    """Write those portions that are not there yet, and return the result of each.

    A result is `{"survey": Survey as JSON, "checksums": [[name, *survey.checksums_of], …]}`. A portion with
    problems is not written, and its result lists them.

    Args:
      portions: in any order.
      sources: of each split.
      label_space: of the label files.
      what: the data set, for the bar.
      num_workers: processes; by default one per core that this process may use.

    Raises:
      UserError: if a worker process is killed.
    """
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results = {portion: json.loads(portion.result.read_text()) for portion in portions if portion.is_whole()}
    missing = [portion for portion in portions if portion not in results]
    num_pairs = sum(len(portion.indices) for portion in missing)
    for portion in missing:
        portion.shard.parent.mkdir(parents=True, exist_ok=True)
    is_pool = num_workers > 1 and num_pairs >= MIN_PAIRS_FOR_POOL and not multiprocessing.current_process().daemon
    run = _in_pool(missing, sources, label_space, num_workers) if is_pool else _here(missing, sources, label_space)
    bar = progress(range(num_pairs), f"{what}: checking and writing", num_pairs)
    with bar:
        for portion, result in run:
            results[portion] = result
            bar.update(len(portion.indices))
    return [results[portion] for portion in portions]


def write_portion(portion: Portion, source: Source, label_space: LabelSpace) -> dict:
    """Check and write one portion; see `write_portions`."""
    found = Survey.empty(label_space.num_classes)
    checksums: list[tuple[str, str, str]] = []
    serializer = example_serializer.ExampleSerializer(FEATURES.get_serialized_info())

    def examples() -> Iterator[tuple[str, bytes]]:
        for index in portion.indices:
            try:
                record = source[index]
                label = decode_pair(record, label_space).label
            except UserError as error:
                found.problems.append((index, str(error)))
                continue
            found.add(label)
            checksums.append((record["name"], *checksums_of(record["image"], label)))
            example = {"image": record["image"], "label": record["label"], "name": record["name"]}
            yield record["name"], serializer.serialize_example(FEATURES.encode_example(example))

    partial = portion.shard.with_suffix(f".{os.getpid()}.partial")
    try:
        tfds.core.ExampleWriter(file_format=file_adapters.FileFormat.ARRAY_RECORD).write(partial, examples())
        result = {"survey": found.to_json(), "checksums": checksums}
        if not found.problems:
            os.replace(partial, portion.shard)
            partial.write_text(json.dumps(result))
            os.replace(partial, portion.result)
    finally:
        partial.unlink(missing_ok=True)
    return result


def _here(
    portions: list[Portion], sources: Mapping[str, Source], label_space: LabelSpace
) -> Iterator[tuple[Portion, dict]]:
    for portion in portions:
        yield portion, write_portion(portion, sources[portion.split], label_space)


def _in_pool(
    portions: list[Portion], sources: Mapping[str, Source], label_space: LabelSpace, num_workers: int
) -> Iterator[tuple[Portion, dict]]:
    # "spawn": a forked child would inherit the threads' locks of whatever the caller has imported.
    context = multiprocessing.get_context("spawn")
    start = {"initializer": _start_worker, "initargs": (dict(sources), label_space)}
    with concurrent.futures.ProcessPoolExecutor(num_workers, context, **start) as pool:
        running = {pool.submit(_run_in_worker, portion): portion for portion in portions}
        try:
            for future in concurrent.futures.as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that prepares the data set was killed ({error}): most likely memory is short; close other programs "
                "and start the same command again: it continues"
            ) from error
        finally:
            for future in running:
                future.cancel()


_worker_state: tuple[Mapping[str, Source], LabelSpace]


def _start_worker(sources: Mapping[str, Source], label_space: LabelSpace) -> None:
    global _worker_state
    _worker_state = sources, label_space
    cv2.setNumThreads(1)


def _run_in_worker(portion: Portion) -> dict:
    sources, label_space = _worker_state
    return write_portion(portion, sources[portion.split], label_space)
