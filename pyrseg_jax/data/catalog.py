"""The data sets by name: `open_dataset` is the one way in for everything above."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from pyrseg_jax.data.folder import find_pairs, read_classes
from pyrseg_jax.data.holdout import HOLDOUT, draw_holdout, take
from pyrseg_jax.data.label_space import LabelSpace, ade_layout
from pyrseg_jax.data.source import Source
from pyrseg_jax.errors import UserError

TRAINING = "training"  # the split to learn from, of every data set


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, its splits opened when asked for.

    Attributes:
      label_space: its classes.
      place: what to call it in messages: the folder that it is read from.
      open_split: name of a split → its records.
    """

    label_space: LabelSpace
    place: str
    open_split: Callable[[str], Source]


def open_dataset(
    name: str, root: str | None, prepared: str | None, *, holdout: int = 0, holdout_seed: int = 0
) -> Dataset:
    """Open a data set, after preparing it where it is one that can be rendered or downloaded.

    Args:
      name: a key of `DATASETS`.
      root: folder with the user's files, for data sets that are read from files.
      prepared: folder that keeps prepared data sets; None for TFDS's own place, `~/tensorflow_datasets`.
      holdout: this many images, drawn by `holdout_seed`, leave the training split and form the split `holdout`.

    Raises:
      UserError: for an unknown name, a missing `root`, or files that do not fit together.
    """
    if name not in DATASETS:
        raise UserError(f"config.data.name={name!r}: expected one of {', '.join(DATASETS)}")
    return _hold_out(DATASETS[name](root, prepared), holdout, holdout_seed)


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

    return dataclasses.replace(dataset, open_split=open_split)


def _open_folder(root: str | None, prepared: str | None) -> Dataset:
    if root is None:
        raise UserError("config.data.root is not set: name the folder that holds images/, annotations/ and classes.txt")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"config.data.root={root}: there is no such folder ({folder.absolute()}); name the one that holds "
            "images/, annotations/ and classes.txt"
        )
    return Dataset(read_classes(folder), str(folder), lambda split: find_pairs(folder, split))


def _open_scenes(root: str | None, prepared: str | None) -> Dataset:
    # TFDS takes a second to import: whoever reads a folder need not wait for it.
    from pyrseg_jax.data import prepared as tfds_store
    from pyrseg_jax.data.builders import scenes

    builder = tfds_store.prepare(scenes.Scenes, prepared)
    label_space = ade_layout(scenes.CLASS_NAMES, colors=scenes.CLASS_COLORS, is_stuff=scenes.IS_STUFF)
    return Dataset(label_space, str(builder.data_path), lambda split: tfds_store.PreparedSource(builder, split))


DATASETS: dict[str, Callable[[str | None, str | None], Dataset]] = {"folder": _open_folder, "scenes": _open_scenes}
