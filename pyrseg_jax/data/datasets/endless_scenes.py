"""Provide `endless_scenes`: the stream of scenes that `scenes` begins, rendered while a training reads them.

A long training sees hardly any scene twice. The first training scenes and all validation scenes are those of `scenes`.
"""

from pyrseg_jax.data.datasets import scenes
from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.source import Record
from pyrseg_jax.data.spec import TRAINING, DataLocation, Dataset, DatasetSpec
from pyrseg_jax.scenes import encode_scene

NUM_TRAINING = 1_000_000  # far more than a training reads


class RenderedSource:
    """The training split: each record is rendered when it is read, and depends on its index alone."""

    def __len__(self) -> int:
        return NUM_TRAINING

    def __getitem__(self, index: int) -> Record:
        _, image, label = encode_scene(TRAINING, int(index))
        name = scenes.name_of(TRAINING, int(index))
        where = f"endless_scenes/{TRAINING}/{name}"
        return {
            "image": image,
            "label": label,
            "image_name": f"{where} (image)",
            "label_name": f"{where} (label)",
            "name": name,
        }

    def __repr__(self) -> str:
        return f"RenderedSource({NUM_TRAINING} scenes)"


def _open(location: DataLocation, mapping: LabelMapping) -> Dataset:
    known = scenes.SPEC.open(location, mapping)
    return Dataset(
        known.label_space,
        known.place,
        lambda split: RenderedSource() if split == TRAINING else known.open_split(split),
        sample=lambda: known.open_split(TRAINING),
    )


SPEC = DatasetSpec(
    open=_open,
    read_label_space=scenes.SPEC.read_label_space,
    layout="rendered, no files",
    num_images={TRAINING: NUM_TRAINING, "validation": scenes.NUM_SCENES["validation"]},
    meaning="the same streets, parks and watersides, a million of them, rendered while the training goes on; needs no files",
)
