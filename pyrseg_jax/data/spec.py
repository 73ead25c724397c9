"""Describe a data set to the rest of the package: its specification, where its files are, and the opened data set."""

import dataclasses
from collections.abc import Callable, Mapping

from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace
from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.report import Checksums, DatasetReport
from pyrseg_jax.data.source import Source
from pyrseg_jax.errors import UserError

TRAINING = "training"  # every data set has a split of this name to learn from


def _no_checksums(split: str) -> Checksums:
    return {}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An opened data set. Its splits are opened on demand.

    Attributes:
      label_space: the classes.
      place: the folder that it is read from, for messages.
      open_split: name of a split → its records.
      reports: name of a split → its report, for splits that were checked when the data set was prepared.
      checksums: name of a split → the checksums that were recorded then; see `report.make_report`.
      image_space: what the values in its image files mean.
      sample: opens a part of the training split that stands for all of it where counts are needed, for a split without an end;
        None where the split itself is counted.
      whole_training: the report of the training split with the images that are held out of it, if there are any and it is known.
    """

    label_space: LabelSpace
    place: str
    open_split: Callable[[str], Source]
    reports: dict[str, DatasetReport] = dataclasses.field(default_factory=dict)
    checksums: Callable[[str], Checksums] = _no_checksums
    whole_training: DatasetReport | None = None
    image_space: ImageSpace = PHOTOGRAPH
    sample: Callable[[], Source] | None = None

    def open_counted(self, split: str) -> Source:
        """Open what is read to count the pixels of a split: the split itself, or the sample of one without an end."""
        return self.open_split(split) if self.sample is None or split != TRAINING else self.sample()

    def check_has_end(self, split: str) -> None:
        """Raise UserError for a split without an end, which nobody can evaluate."""
        if self.sample is not None and split == TRAINING:
            raise UserError(
                f"the split {split!r} cannot be evaluated, because its images are rendered while they are read, without an "
                "end: name another one, for example 'validation'"
            )


@dataclasses.dataclass(frozen=True)
class DataLocation:
    """The location of a data set's files.

    Attributes:
      root: folder or file with the user's files; None: download them, or take what was prepared before.
      prepared: folder that keeps prepared data sets; None for TFDS's own folder, `~/tensorflow_datasets`.
      is_raw: whether to read the original files even if they were prepared before.
    """

    root: str | None
    prepared: str | None
    is_raw: bool = False


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Everything that the package knows about a data set before opening it.

    `data/datasets/__init__.py` lists one of these for each data set; no other file names a data set.

    Attributes:
      open: (location, label mapping) → the opened data set, prepared first if necessary. It imports TFDS only if it needs it,
        because that takes a second.
      read_label_space: root → the classes, without reading any image.
      layout: the accepted layouts of the user's files, in one sentence.
      num_images: published number of images in each split; empty where that depends on the user's files.
      accepts_label_mapping: whether the user may say what the values in label files mean.
      accepts_image_space: whether the images may have other channels and values than photographs.
      meaning: a description in one line, for help texts.
    """

    open: Callable[[DataLocation, LabelMapping], Dataset]
    read_label_space: Callable[[str | None], LabelSpace]
    layout: str
    num_images: Mapping[str, int] = dataclasses.field(default_factory=dict)
    accepts_label_mapping: bool = False
    accepts_image_space: bool = False
    meaning: str = ""

    @property
    def num_training_images(self) -> int | None:
        """Published number of training images; None where that depends on the user's files."""
        return self.num_images.get(TRAINING)
