"""Provide `scenes`: rendered pictures of streets, parks and watersides, 256×256 pixels, twelve classes; nothing to download.

With these 256 training and 64 validation scenes, one can try the whole system within minutes, from preparation over training to
evaluation.
"""

import functools
from collections.abc import Iterator

from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.label_space import LabelSpace, ade_layout
from pyrseg_jax.data.spec import DataLocation, Dataset, DatasetSpec
from pyrseg_jax.scenes import CLASS_COLORS, CLASS_NAMES, IS_STUFF, encode_scene, encode_scenes

# A label is 0 where void, else 1 + the index into CLASS_NAMES.
LABEL_SPACE = ade_layout(CLASS_NAMES, colors=CLASS_COLORS, is_stuff=IS_STUFF)
NUM_SCENES = {"training": 256, "validation": 64}


def name_of(split: str, index: int) -> str:
    """Return the name of a scene."""
    return f"{'train' if split == 'training' else 'val'}_{index:05d}"


def generate(split: str) -> Iterator[tuple[str, dict]]:
    """Yield (name, example) for each scene of a split, with image and label as encoded bytes."""
    for index, image, label in encode_scenes(split, NUM_SCENES[split]):
        name = name_of(split, index)
        yield name, {"image": image, "label": label, "name": name}


def render_photograph(index: int) -> bytes:
    """Return the picture of a validation scene as a JPEG file."""
    return encode_scene("validation", index)[1]


def _open(location: DataLocation, mapping: LabelMapping) -> Dataset:
    from pyrseg_jax.data import prepared  # imports TFDS

    generators = {split: functools.partial(generate, split) for split in NUM_SCENES}
    builder = prepared.prepare_rendered("scenes", LABEL_SPACE, generators, location.prepared)
    return Dataset(LABEL_SPACE, str(builder.data_path), lambda split: prepared.PreparedSource(builder, split))


def _read_label_space(root: str | None) -> LabelSpace:
    return LABEL_SPACE


SPEC = DatasetSpec(
    open=_open,
    read_label_space=_read_label_space,
    layout="rendered, no files",
    num_images=NUM_SCENES,
    meaning="rendered streets, parks and watersides, 256×256 pixels, 12 classes; needs no files",
)
