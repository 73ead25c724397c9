"""The data sets by name: `open_dataset` is the one way in for everything above."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from pyrseg_jax.data.datasets.folder import find_pairs, read_class_names
from pyrseg_jax.data.holdout import HOLDOUT, draw_holdout, take
from pyrseg_jax.data.label_mapping import OwnValues, make_label_space
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.report import Checksums, Survey, leave_out
from pyrseg_jax.data.source import Source
from pyrseg_jax.errors import UserError

TRAINING = "training"  # the split to learn from, of every data set
ON_ERROR = ("stop", "skip")  # what to do about a pair that cannot be used


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, its splits opened when asked for.

    Attributes:
      label_space: its classes.
      place: what to call it in messages: the folder that it is read from.
      open_split: name of a split → its records.
      surveys: what was found in each split when the data set was prepared.
      checksums: name of a split → those recorded then, see `survey.survey`.
    """

    label_space: LabelSpace
    place: str
    open_split: Callable[[str], Source]
    surveys: dict[str, Survey] = dataclasses.field(default_factory=dict)
    checksums: Callable[[str], Checksums] = lambda split: {}


@dataclasses.dataclass(frozen=True)
class Where:
    """Where a data set's files are.

    Attributes:
      root: folder or file with the user's files, for data sets that are read from files; None: to be downloaded.
      prepared: folder that keeps prepared data sets; None for TFDS's own place, `~/tensorflow_datasets`.
      is_raw: read the files themselves, whatever is prepared.
    """

    root: str | None
    prepared: str | None
    is_raw: bool = False


def open_dataset(
    name: str,
    root: str | None,
    prepared: str | None,
    *,
    holdout: int = 0,
    holdout_seed: int = 0,
    own_values: OwnValues = OwnValues(),  # noqa: B008 (it is frozen)
    on_error: str = "stop",
    is_raw: bool = False,
) -> Dataset:
    """Open a data set, after preparing it where it is one that can be rendered or downloaded.

    Args:
      name: a key of `DATASETS`.
      root, prepared, is_raw: see `Where`.
      holdout: this many images, drawn by `holdout_seed`, leave the training split and form the split `holdout`.
      own_values: what values in the label files mean, for `folder`.
      on_error: "skip" leaves pairs out that cannot be used; see `survey.check_once` for "stop".

    Raises:
      UserError: for an unknown name, a missing `root`, or files that do not fit together.
    """
    if name not in DATASETS:
        raise UserError(f"config.data.name={name!r}: expected one of {', '.join(DATASETS)}")
    if name != "folder" and own_values != OwnValues():
        raise UserError(
            f"config.data.first_value, config.data.void_value and config.data.remap are for config.data.name=folder; {name} has "
            "label values of its own"
        )
    dataset = _hold_out(DATASETS[name](Where(root, prepared, is_raw), own_values), holdout, holdout_seed)
    return _skip_bad(dataset) if on_error == "skip" and not is_raw else dataset


def count_classes(name: str, root: str | None) -> int:
    """Return how many classes a data set has, without its images.

    Raises:
      UserError: for an unknown name, or a folder without a readable list of classes.
    """
    if name == "folder":
        return _open_folder(Where(root, None), OwnValues()).label_space.num_classes
    if name == "scenes":
        from pyrseg_jax.data.datasets.scenes import LABEL_SPACE

        return LABEL_SPACE.num_classes
    from pyrseg_jax.data.datasets import ade20k, camvid, coco_stuff10k

    builders = {"ade20k": ade20k.Ade20k, "camvid": camvid.Camvid, "coco_stuff10k": coco_stuff10k.CocoStuff10k}
    if name not in builders:
        raise UserError(f"config.data.name={name!r}: expected one of {', '.join(DATASETS)}")
    return builders[name].LABEL_SPACE.num_classes


def _hold_out(dataset: Dataset, num_images: int, seed: int) -> Dataset:
    def open_split(split: str) -> Source:
        if split not in (TRAINING, HOLDOUT) or (split == TRAINING and not num_images):
            return dataset.open_split(split)
        if not num_images:
            raise UserError(
                f"the split {HOLDOUT!r} is empty: say with config.data.holdout=N how many training images form it"
            )
        source = dataset.open_split(TRAINING)
        training, held_out = draw_holdout(len(source), num_images, seed)
        return take(source, training if split == TRAINING else held_out)

    surveys = {split: found for split, found in dataset.surveys.items() if split != TRAINING or not num_images}
    return dataclasses.replace(dataset, open_split=open_split, surveys=surveys)


def _skip_bad(dataset: Dataset) -> Dataset:
    def open_split(split: str) -> Source:
        return leave_out(dataset.open_split(split), dataset.label_space, f"{dataset.place} ({split})")

    return dataclasses.replace(dataset, open_split=open_split)


def _open_folder(where: Where, own_values: OwnValues) -> Dataset:
    if where.root is None:
        raise UserError("config.data.root is not set: name the folder that holds images/, annotations/ and classes.txt")
    folder = Path(where.root).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"config.data.root={where.root}: there is no such folder ({folder.absolute()}); name the one that holds "
            "images/, annotations/ and classes.txt"
        )
    label_space = make_label_space(read_class_names(folder), own_values)
    return Dataset(label_space, str(folder), lambda split: find_pairs(folder, split))


# TFDS takes a second to import: whoever reads a folder need not wait for it.


def _open_scenes(where: Where, own_values: OwnValues) -> Dataset:
    from pyrseg_jax.data import prepared as tfds_store
    from pyrseg_jax.data.datasets import scenes

    builder = tfds_store.prepare(
        lambda data_dir: scenes.Scenes(data_dir=data_dir, file_format="array_record"), where.prepared
    )
    return Dataset(scenes.LABEL_SPACE, str(builder.data_path), lambda split: tfds_store.PreparedSource(builder, split))


def _open_ade20k(where: Where, own_values: OwnValues) -> Dataset:
    from pyrseg_jax.data.datasets.ade20k import Ade20k

    return _open_native(Ade20k, where)


def _open_coco_stuff10k(where: Where, own_values: OwnValues) -> Dataset:
    from pyrseg_jax.data.datasets.coco_stuff10k import CocoStuff10k

    return _open_native(CocoStuff10k, where)


def _open_camvid(where: Where, own_values: OwnValues) -> Dataset:
    from pyrseg_jax.data.datasets.camvid import Camvid

    return _open_native(Camvid, where)


def _open_native(builder_class, where: Where) -> Dataset:
    from pyrseg_jax.data import prepared as tfds_store

    aliases, label_space = builder_class.ALIASES, builder_class.LABEL_SPACE
    if where.is_raw and not tfds_store.needs_no_files(builder_class, where.root, where.prepared):
        splits = tfds_store.find_files(builder_class, where.root, where.prepared)

        def open_files(split: str) -> Source:
            if aliases.get(split, split) not in splits:
                raise UserError(
                    f"the data set {builder_class.name} has no split {split!r}: expected one of {', '.join(splits)}"
                )
            return splits[aliases.get(split, split)]

        recorded = tfds_store.read_checksums(builder_class, splits, where.prepared)
        place = next(iter(splits.values())).place()
        return Dataset(label_space, place, open_files, checksums=lambda s: recorded.get(aliases.get(s, s), {}))
    folder = tfds_store.prepare_files(builder_class, where.root, where.prepared)
    builder = tfds_store.open_prepared(folder)
    surveys = tfds_store.read_surveys(folder)
    surveys |= {alias: surveys[split] for alias, split in aliases.items()}

    def open_split(split: str) -> Source:
        return tfds_store.PreparedSource(builder, aliases.get(split, split))

    return Dataset(label_space, str(folder), open_split, surveys)


DATASETS: dict[str, Callable[[Where, OwnValues], Dataset]] = {
    "ade20k": _open_ade20k,
    "coco_stuff10k": _open_coco_stuff10k,
    "camvid": _open_camvid,
    "scenes": _open_scenes,
    "folder": _open_folder,
}
