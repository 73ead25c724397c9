"""Check the pairs of a data set and write them in shards, with several processes; each shard is complete or absent."""

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, file_adapters

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.loading import load_pair, naming_pair
from pyrseg_jax.data.record_names import to_stored
from pyrseg_jax.data.records import ShardResult
from pyrseg_jax.data.report import DatasetReport, checksums_of, facts_of, progress
from pyrseg_jax.data.rules import describe_rules
from pyrseg_jax.data.source import FileSource
from pyrseg_jax.distributed.worker_pool import WorkerPool
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents

FEATURES = tfds.features.FeaturesDict(
    {
        # The bytes of the file as it was published: JPEG or PNG.
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "name": tfds.features.Text(),
    }
)
MIN_PAIRS_FOR_POOL = 128  # with fewer pairs, starting the workers takes longer than the work


@dataclasses.dataclass(frozen=True)
class Shard:
    """The pairs `indices` of a split, and the file `path` that they go to."""

    split: str
    indices: range
    path: Path

    @classmethod
    def of(
        cls, split: str, source: FileSource, start: int, stop: int, staging: Path, label_space: LabelSpace
    ) -> "Shard":
        """Return a file name made from the state of the pairs: if a pair changes, the name changes."""
        lines = [describe_rules(), split, repr(label_space.values()), *source.fingerprint()[start:stop]]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
        return cls(split, range(start, stop), staging / f"{digest}.array_record")

    @property
    def result(self) -> Path:
        """The file with the shard's report. It is written last: once it exists, the shard is complete."""
        return self.path.with_suffix(".report.json")

    def is_complete(self) -> bool:
        """Return whether the shard was written before."""
        return self.path.is_file() and self.result.is_file()


def write_shards(
    shards: Sequence[Shard],
    sources: Mapping[str, FileSource],
    label_space: LabelSpace,
    what: str,
    num_workers: int | None = None,
) -> list[dict]:
    """Write the shards that do not exist yet, and return the result of each.

    A result is `{"report": DatasetReport as JSON, "checksums": [[name, *report.checksums_of(…)], …]}`. A shard with problems is
    not written; its result lists them.

    Args:
      shards: the shards, in any order.
      sources: name of a split → its pairs.
      label_space: the classes of the label files.
      what: name of the data set, for the progress bar.
      num_workers: processes; by default one per core that this process may use.

    Raises:
      UserError: if a worker process is killed.
    """
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results = {shard: _read_result(shard) for shard in shards if shard.is_complete()}
    missing = [shard for shard in shards if shard not in results]
    num_pairs = sum(len(shard.indices) for shard in missing)
    for shard in missing:
        shard.path.parent.mkdir(parents=True, exist_ok=True)
    # A daemon process (a data worker) may not start processes of its own.
    is_pool = num_workers > 1 and num_pairs >= MIN_PAIRS_FOR_POOL and not multiprocessing.current_process().daemon
    run = (
        _in_pool(missing, sources, label_space, num_workers)
        if is_pool
        else _in_this_process(missing, sources, label_space)
    )
    with progress(range(num_pairs), f"{what}: checking and writing", num_pairs) as bar:
        for shard, result in run:
            results[shard] = result
            bar.update(len(shard.indices))
    return [results[shard] for shard in shards]


def _read_result(shard: Shard) -> dict:
    advice = "delete this file, and the shard is written again"
    return documents.read_json(shard.result, ShardResult, advice).model_dump()


def write_shard(shard: Shard, source: FileSource, label_space: LabelSpace) -> dict:
    """Check and write one shard; see `write_shards`."""
    found = DatasetReport.empty(label_space.num_classes)
    checksums: list[tuple[str, str, str]] = []
    # TFDS declares a narrower type than it accepts.
    specs = FEATURES.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(specs)  # pyright: ignore[reportArgumentType]

    def examples() -> Iterator[tuple[str, bytes]]:
        for index in shard.indices:
            try:
                with naming_pair(source, index):
                    record, pair = load_pair(source, index, label_space)
                    example = {"image": record["image"], "label": record["label"], "name": to_stored(record["name"])}
                    serialized = serializer.serialize_example(FEATURES.encode_example(example))
                    line = (example["name"], *checksums_of(record["image"], pair.label))
                    found.add(pair.label, facts_of(index, record, pair))
            except UserError as error:
                found.add_problem(index, error)
                continue
            checksums.append(line)
            yield example["name"], serialized

    partial = shard.path.with_suffix(f".{os.getpid()}.partial")
    try:
        tfds.core.ExampleWriter(file_format=file_adapters.FileFormat.ARRAY_RECORD).write(partial, examples())
        result = {"report": found.to_json(), "checksums": checksums}
        if not found.problems:
            os.replace(partial, shard.path)
            partial.write_text(json.dumps(result), encoding="utf-8")
            os.replace(partial, shard.result)
    finally:
        partial.unlink(missing_ok=True)
    return result


def _in_this_process(
    shards: Sequence[Shard], sources: Mapping[str, FileSource], label_space: LabelSpace
) -> Iterator[tuple[Shard, dict]]:
    for shard in shards:
        yield shard, write_shard(shard, sources[shard.split], label_space)


def _in_pool(
    shards: Sequence[Shard], sources: Mapping[str, FileSource], label_space: LabelSpace, num_workers: int
) -> Iterator[tuple[Shard, dict]]:
    with WorkerPool(num_workers, _start_worker, (dict(sources), label_space)) as pool:
        running = {pool.submit(_run_in_worker, shard): shard for shard in shards}
        try:
            for future in concurrent.futures.as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that prepares the data set was killed ({error}): most likely memory ran out; close other programs "
                "and start the same command again: it continues"
            ) from error


# Set once per worker process: sending the sources with every shard would pickle all file names each time.
_worker_state: tuple[Mapping[str, FileSource], LabelSpace]


def _start_worker(sources: Mapping[str, FileSource], label_space: LabelSpace) -> None:
    global _worker_state
    logging.getLogger().addHandler(logging.NullHandler())  # messages travel in results; a worker itself prints nothing
    _worker_state = sources, label_space
    cv2.setNumThreads(1)


def _run_in_worker(shard: Shard) -> dict:
    sources, label_space = _worker_state
    return write_shard(shard, sources[shard.split], label_space)
