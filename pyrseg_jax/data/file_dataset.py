"""Data sets that come as published files: how to recognize, list and open them.

This file does not import TFDS, so that data sets can be listed quickly. Opening one does.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from pyrseg_jax.data.archive import Archive, open_archive
from pyrseg_jax.data.download import PublishedFile, fetch
from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pairs import ArchiveSource
from pyrseg_jax.data.report import Checksums
from pyrseg_jax.data.rules import RULES
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.spec import DataLocation, Dataset, DatasetSpec
from pyrseg_jax.errors import UserError

Splits = Mapping[str, ArchiveSource]


@dataclasses.dataclass(frozen=True)
class FileDataset:
    """A data set whose authors publish its images and label maps in one file, or in few.

    Attributes:
      name: the name of the data set.
      label_space: the classes.
      published: the file to download.
      num_images: published number of images in each split.
      further: files to download beside that one.
      markers: folders that the data set has, like `images/training`; one of them is enough to recognize it.
      zip_names: names that the published file may have on the user's disk.
      find: the user's root → the files, for a data set that markers and names of files do not find; raises UserError.
      list_splits: archive → the pairs of each split; raises UserError for files that do not fit together.
      layout: the expected folders and files, for error messages.
      aliases: further names of splits → the published name.
      meaning: a description in one line, for help texts.
    """

    name: str
    label_space: LabelSpace
    published: PublishedFile
    num_images: Mapping[str, int]
    list_splits: Callable[[Archive], dict[str, ArchiveSource]]
    layout: str
    markers: tuple[str, ...] = ()
    zip_names: tuple[str, ...] = ()
    further: tuple[PublishedFile, ...] = ()
    find: Callable[[str], Archive] | None = None
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    meaning: str = ""

    def open_files(self, root: str) -> Archive:
        """Find the files below the user's root; raises UserError saying what was expected, if nothing is found."""
        if self.find is not None:
            return self.find(root)
        return open_archive(root, self.markers, self.zip_names, self.name)

    def download(self, folder: Path) -> str:
        """Download the published files if they are not there yet, and return the root to open."""
        if not self.further:
            return str(fetch(self.published, folder))
        folder = folder / self.name
        for published in (self.published, *self.further):
            fetch(published, folder)
        return str(folder)

    def key(self, splits: Splits) -> str:
        """Return a key for the state of the files and the rules for them: any change of a file gives another key."""
        return self._digest({split: source.fingerprint() for split, source in splits.items()})

    def outward_key(self, splits: Splits) -> str:
        """Return a key for the place, names, sizes and times of the files: it stays when a failing disk changes one."""
        return self._digest({split: source.outward_state() for split, source in splits.items()})

    def _digest(self, states: Mapping[str, list[str]]) -> str:
        text = repr((RULES, self.label_space.values(), states))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def published_split(self, split: str) -> str:
        """Return the published name of a split, given that name or an alias."""
        return self.aliases.get(split, split)

    def spec(self) -> DatasetSpec:
        """Return the specification for `DATASETS`."""
        return DatasetSpec(
            open=functools.partial(_open, self),
            read_label_space=lambda root: self.label_space,
            layout=self.layout,
            num_images=self.num_images,
            meaning=self.meaning,
        )


def _open(files: FileDataset, location: DataLocation, mapping: LabelMapping) -> Dataset:
    from pyrseg_jax.data import prepared, rechecked_source  # imports TFDS

    if location.is_raw and not prepared.is_published_set_prepared(files, location):
        return _open_raw(files, location)
    folder = prepared.prepare_files(files, location)
    builder = prepared.open_prepared(folder)
    if rechecked_source.is_outdated(folder):  # its reports are those of earlier rules
        reports, source_class = {}, rechecked_source.RecheckedSource
    else:
        reports, source_class = prepared.read_reports(folder), prepared.PreparedSource
        reports |= {alias: reports[split] for alias, split in files.aliases.items()}

    def open_split(split: str) -> Source:
        return source_class(builder, files.published_split(split))

    return Dataset(files.label_space, str(folder), open_split, reports)


def _open_raw(files: FileDataset, location: DataLocation) -> Dataset:
    from pyrseg_jax.data import prepared

    splits = prepared.find_files(files, location)
    recorded = prepared.read_checksums(files, splits, location)

    def open_split(split: str) -> Source:
        name = files.published_split(split)
        if name not in splits:
            raise UserError(f"the data set {files.name} has no split {split!r}: expected one of {', '.join(splits)}")
        return splits[name]

    def checksums(split: str) -> Checksums:
        return recorded.get(files.published_split(split), {})

    place = next(iter(splits.values())).place()
    return Dataset(files.label_space, place, open_split, checksums=checksums)
