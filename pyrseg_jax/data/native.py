"""What the data sets that come as files have in common: found, read in portions on all cores, checked, and kept by TFDS.

A portion is a shard to be: some hundred pairs, decoded for checking and written as they are. A portion that is whole is kept
when the preparation is interrupted or finds a bad file in another one; the data set itself appears only when all are.
"""

import csv
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.download import Published
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pairs import ArchiveSource
from pyrseg_jax.data.report import Survey
from pyrseg_jax.data.shards import FEATURES, Portion, write_portions
from pyrseg_jax.errors import UserError

PAIRS_PER_PORTION = 512
SURVEYS, CHECKSUMS, ORIGIN = "surveys.json", "checksums.csv", "origin.json"


class NativeBuilder(tfds.core.ShardBasedBuilder):
    """Keep the files of a data set as TFDS does, in ArrayRecord, with a survey and the checksums of all files beside it.

    Images are kept as their original bytes, label maps as PNG. The order is that of the splits' sources, always.

    Args:
      splits: the source of each split.
      place: where the files are, for the record.
      staging: folder for finished portions.
      num_workers: processes; by default one per core.
      **kwargs: TFDS's own.
    """

    VERSION = tfds.core.Version("1.0.0")
    LABEL_SPACE: ClassVar[LabelSpace]
    PUBLISHED: ClassVar[Published]
    NUM_IMAGES: ClassVar[dict[str, int]]  # of the published splits
    MARKERS: ClassVar[tuple[str, ...]]  # folders by which the data set is known
    ZIP_NAMES: ClassVar[tuple[str, ...]]
    ALIASES: ClassVar[dict[str, str]] = {}  # other names of splits

    def __init__(
        self,
        *,
        splits: Mapping[str, ArchiveSource],
        place: str,
        staging: Path,
        num_workers: int | None = None,
        **kwargs,
    ):
        self._sources, self._place, self._staging, self._num_workers = splits, place, staging, num_workers
        super().__init__(**kwargs)

    @staticmethod
    def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
        """List the pairs of each split; raises UserError for files that do not fit together."""
        raise NotImplementedError

    @classmethod
    def key(cls, splits: Mapping[str, ArchiveSource]) -> str:
        """Name the state of the files: another one when any file is added, removed or changed."""
        lines = [f"{split}: {line}" for split, source in splits.items() for line in source.fingerprint()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def _info(self) -> tfds.core.DatasetInfo:
        names = ", ".join(self.LABEL_SPACE.names)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.LABEL_SPACE.num_classes} classes: {names}. Label values: {self.LABEL_SPACE.describe_file_ids()}.",
            features=FEATURES,
        )

    def _shard_iterators_per_split(self, dl_manager) -> dict:
        raise NotImplementedError("portions are written by several processes: see _download_and_prepare")

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        portions = [
            Portion.of(
                split, source, start, min(start + PAIRS_PER_PORTION, len(source)), self._staging, self.LABEL_SPACE
            )
            for split, source in self._sources.items()
            for start in range(0, len(source), PAIRS_PER_PORTION)
        ]
        results = write_portions(portions, self._sources, self.LABEL_SPACE, self.name, self._num_workers)
        problems = [
            (portion, *problem)
            for portion, result in zip(portions, results)
            for problem in result["survey"]["problems"]
        ]
        if problems:
            others = (
                f" (and {len(problems) - 1} more problems: --mode=validate lists them all)" if len(problems) > 1 else ""
            )
            raise UserError(f"{problems[0][2]}{others}; what is good is kept, the same command continues")
        infos = []
        for split in self._sources:
            parts = [(portion, result) for portion, result in zip(portions, results) if portion.split == split]
            infos.append(self._move_shards(split, [portion for portion, _ in parts]))
        self.info.set_splits(tfds.core.SplitDict(infos))
        self._write_records(portions, results)

    def _move_shards(self, split: str, portions: list[Portion]) -> tfds.core.SplitInfo:
        template = self._get_filename_template(split_name=split)
        lengths = [len(portion.indices) for portion in portions]
        num_bytes = 0
        for number, portion in enumerate(portions):
            num_bytes += portion.shard.stat().st_size
            os.replace(portion.shard, template.sharded_filepath(shard_index=number, num_shards=len(portions)))
        return tfds.core.SplitInfo(split, lengths, num_bytes, template)

    def _write_records(self, portions: list[Portion], results: list[dict]) -> None:
        surveys = {split: Survey.empty(self.LABEL_SPACE.num_classes) for split in self._sources}
        with (Path(self.data_dir) / CHECKSUMS).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("split", "name", "image_sha256", "label_sha256"))
            for portion, result in zip(portions, results):
                surveys[portion.split].merge(Survey.from_json(result["survey"]))
                table.writerows((portion.split, *line) for line in result["checksums"])
        texts = {split: survey.to_json() for split, survey in surveys.items()}
        (Path(self.data_dir) / SURVEYS).write_text(json.dumps(texts))
        counts = {split: len(source) for split, source in self._sources.items()}
        origin = {"place": self._place, "num_images": counts, "is_whole": counts == self.NUM_IMAGES}
        (Path(self.data_dir) / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")
