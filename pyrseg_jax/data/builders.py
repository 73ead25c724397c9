"""Build prepared data sets with TFDS: from pairs of files, or from scenes that this package renders.

Both builders take everything that differs between data sets as arguments, so that a data set needs no TFDS code of its own.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from pyrseg_jax.data.file_dataset import FileDataset
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pairs import ArchiveSource
from pyrseg_jax.data.report import DatasetReport, say_first
from pyrseg_jax.data.rules import RULES
from pyrseg_jax.data.shards import FEATURES, Shard, write_shards
from pyrseg_jax.errors import UserError

PAIRS_PER_SHARD = 512
REPORTS, CHECKSUMS, ORIGIN = "reports.json", "checksums.csv", "origin.json"
VERSION = "1.0.0"  # of what this package writes; a part of the folder's name


def _describe(builder: tfds.core.DatasetBuilder, label_space: LabelSpace) -> tfds.core.DatasetInfo:
    names = ", ".join(label_space.names)
    return tfds.core.DatasetInfo(
        builder=builder,
        description=f"{label_space.num_classes} classes: {names}. Label values: {label_space.describe_file_ids()}.",
        features=FEATURES,
    )


class RenderedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Keep a data set that this package renders.

    Args:
      name: the name of the data set.
      label_space: the classes.
      generators: split → function that yields (name, example) with image and label as encoded bytes.
      **kwargs: further arguments for TFDS.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        name: str,
        label_space: LabelSpace,
        generators: Mapping[str, Callable[[], Iterator[tuple[str, dict]]]],
        **kwargs,
    ):
        # TFDS would derive the name from the class.
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self._label_space, self._generators = label_space, generators
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return _describe(self, self._label_space)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {split: generate() for split, generate in self._generators.items()}

    def _generate_examples(self, **kwargs) -> Iterator:
        raise AssertionError("_split_generators returns the iterators themselves, so TFDS never calls this")


class PairBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Keep pairs of files in ArrayRecord, with a report and the checksums of all files beside them.

    Images are kept as their original bytes, label maps as PNG, in the order of the splits' sources. Several processes check and
    write the shards. A complete shard survives when the preparation is interrupted or finds a bad file in another shard; the data
    set itself appears only when all shards are complete.

    Args:
      files: the data set.
      splits: the source of each split.
      place: the path of the files, for the record.
      staging: folder for finished shards.
      num_workers: processes; by default one per core.
      **kwargs: further arguments for TFDS.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        files: FileDataset,
        splits: Mapping[str, ArchiveSource],
        place: str,
        staging: Path,
        num_workers: int | None = None,
        **kwargs,
    ):
        # TFDS would derive the name from the class.
        self.name = files.name  # pyright: ignore[reportAttributeAccessIssue]
        self._files, self._sources, self._place = files, splits, place
        self._staging, self._num_workers = staging, num_workers
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return _describe(self, self._files.label_space)

    def _shard_iterators_per_split(self, dl_manager) -> dict:
        raise AssertionError("_download_and_prepare writes the shards with several processes, so TFDS never calls this")

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        label_space = self._files.label_space
        shards = [
            Shard.of(split, source, start, min(start + PAIRS_PER_SHARD, len(source)), self._staging, label_space)
            for split, source in self._sources.items()
            for start in range(0, len(source), PAIRS_PER_SHARD)
        ]
        results = write_shards(shards, self._sources, label_space, self.name, self._num_workers)
        problems = [message for result in results for _, message in result["report"]["problems"]]
        if problems:
            raise UserError(f"{say_first(problems)}; all good pairs are kept, and the same command continues")
        infos = [
            self._move_shards(split, [shard for shard in shards if shard.split == split]) for split in self._sources
        ]
        self.info.set_splits(tfds.core.SplitDict(infos))
        self._write_records(shards, results)

    def _move_shards(self, split: str, shards: Sequence[Shard]) -> tfds.core.SplitInfo:
        template = self._get_filename_template(split_name=split)
        lengths = [len(shard.indices) for shard in shards]
        num_bytes = 0
        for number, shard in enumerate(shards):
            num_bytes += shard.path.stat().st_size
            os.replace(shard.path, template.sharded_filepath(shard_index=number, num_shards=len(shards)))
        return tfds.core.SplitInfo(split, lengths, num_bytes, template)

    def _write_records(self, shards: Sequence[Shard], results: Sequence[dict]) -> None:
        reports = {split: DatasetReport.empty(self._files.label_space.num_classes) for split in self._sources}
        folder = Path(self.data_dir)
        with (folder / CHECKSUMS).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("split", "name", "image_sha256", "label_sha256"))
            for shard, result in zip(shards, results, strict=True):
                reports[shard.split].merge(DatasetReport.from_json(result["report"]))
                table.writerows((shard.split, *line) for line in result["checksums"])
        texts = {split: report.to_json() for split, report in reports.items()}
        (folder / REPORTS).write_text(json.dumps(texts), encoding="utf-8")
        counts = {split: len(source) for split, source in self._sources.items()}
        # A preparation is complete once this file exists: it is written last.
        origin = {
            "place": self._place,
            "num_images": counts,
            "is_whole": counts == dict(self._files.num_images),
            "rules": RULES,
            "outward_key": self._files.outward_key(self._sources),
        }
        (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
