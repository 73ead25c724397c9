"""Open data sets by name: the only way for other packages to open one."""

import dataclasses

from pyrseg_jax.data.checks import leave_out_bad
from pyrseg_jax.data.datasets import DATASETS
from pyrseg_jax.data.holdout import HOLDOUT, Holdout, take
from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace
from pyrseg_jax.data.image_statistics import measured
from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.spaced_source import images_as
from pyrseg_jax.data.spec import TRAINING, DataLocation, Dataset, DatasetSpec
from pyrseg_jax.errors import UserError

# What to do about an image or label that cannot be used.
ON_ERROR = {
    "stop": "end with an error that names the file",
    "skip": "leave the pair out, and log how many were left out",
}


def find_spec(name: str) -> DatasetSpec:
    """Return the specification of a data set; raises UserError for an unknown name."""
    if name not in DATASETS:
        raise UserError(f"name={name!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[name]


def open_dataset(
    name: str,
    root: str | None,
    prepared: str | None,
    *,
    holdout: int = 0,
    holdout_seed: int = 0,
    folds: int = 0,
    fold: int = 0,
    label_mapping: LabelMapping = LabelMapping(),  # noqa: B008 (it is frozen)
    image_space: ImageSpace = PHOTOGRAPH,
    on_error: str = "stop",
    is_raw: bool = False,
) -> Dataset:
    """Open a data set. If it can be rendered or downloaded, prepare it first.

    Args:
      name: a key of `DATASETS`.
      root: folder or file with the user's files; see `DataLocation`.
      prepared: folder that keeps prepared data sets; see `DataLocation`.
      holdout: number of images, drawn by `holdout_seed`, that leave the training split and form the split `holdout`.
      holdout_seed: seed that decides which images these are, and which images form which fold.
      folds: number of folds that the training split is divided into; 0: it is not divided.
      fold: the fold that forms the split `holdout`, while the others form the training split.
      label_mapping: the meaning of the values in label files, for data sets that accept it.
      image_space: the meaning of the values in image files, for data sets that accept it; percentiles that are not known are
        measured on the training split.
      on_error: "skip" leaves out pairs that cannot be used; with "stop", `checks.check_once` raises an error for them.
      is_raw: whether to read the original files even if they were prepared before.

    Raises:
      UserError: for an unknown name, a missing `root`, or files that do not fit together.
    """
    spec = find_spec(name)
    if not spec.accepts_label_mapping and label_mapping != LabelMapping():
        accepting = " or ".join(name for name, spec in DATASETS.items() if spec.accepts_label_mapping)
        raise UserError(
            f"{label_mapping.describe()}: only name={accepting} takes a label mapping; the label values of {name} are fixed, so "
            "leave it out"
        )
    _check_image_space(name, spec, image_space)
    dataset = spec.open(DataLocation(root, prepared, is_raw), label_mapping)
    dataset = _hold_out(dataset, Holdout(holdout, holdout_seed, folds, fold))
    dataset = _read_as(dataset, image_space, is_skipping=on_error == "skip")
    return _skip_bad(dataset) if on_error == "skip" and not is_raw else dataset


def read_label_space(name: str, root: str | None) -> LabelSpace:
    """Return the classes of a data set, without reading its images.

    Raises:
      UserError: for an unknown name, or a folder without a readable list of classes.
    """
    return find_spec(name).read_label_space(root)


def _hold_out(dataset: Dataset, holdout: Holdout) -> Dataset:
    def open_split(split: str) -> Source:
        if split not in (TRAINING, HOLDOUT) or (split == TRAINING and holdout.is_empty):
            return dataset.open_split(split)
        if holdout.is_empty:
            raise UserError(
                f"the split {HOLDOUT!r} is empty: set holdout=N to the number of training images that form it, or folds=K"
            )
        source = dataset.open_split(TRAINING)
        training, held_out = holdout.draw(len(source))
        return take(source, training if split == TRAINING else held_out)

    if holdout.is_empty:
        return dataclasses.replace(dataset, open_split=open_split)
    # The report of the whole training split does not describe a part of it.
    reports = {split: report for split, report in dataset.reports.items() if split != TRAINING}
    whole = dataset.reports.get(TRAINING)
    return dataclasses.replace(dataset, open_split=open_split, reports=reports, whole_training=whole)


def _check_image_space(name: str, spec: DatasetSpec, space: ImageSpace) -> None:
    if spec.accepts_image_space or space.is_photograph:
        return
    accepting = " or ".join(name for name, spec in DATASETS.items() if spec.accepts_image_space)
    given = f"channels={space.channels}" if space.channels != PHOTOGRAPH.channels else "scaling= or nodata="
    raise UserError(f"{given}: only name={accepting} takes it; the images of {name} are photographs, so leave it out")


def _read_as(dataset: Dataset, space: ImageSpace, is_skipping: bool) -> Dataset:
    """Return the data set with images of this space, whose scaling is measured on the training split where it is not known."""
    if space.is_photograph:
        return dataset
    if not space.is_measured:
        space = measured(space, dataset.open_split(TRAINING), is_skipping)

    def open_split(split: str) -> Source:
        return images_as(dataset.open_split(split), space)

    # Reports on other images do not know which pixels have no data.
    return dataclasses.replace(dataset, open_split=open_split, image_space=space, reports={}, whole_training=None)


def _skip_bad(dataset: Dataset) -> Dataset:
    def open_split(split: str) -> Source:
        return leave_out_bad(dataset.open_split(split), dataset.label_space, f"{dataset.place} ({split})")

    return dataclasses.replace(dataset, open_split=open_split)
