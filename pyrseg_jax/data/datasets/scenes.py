"""Provide `scenes`, a small data set of painted street, park and waterside photographs; nothing to download.

It serves to try the whole system, from preparing over training to evaluation, within minutes.
"""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.scenes.classes import CLASS_COLORS, CLASS_NAMES, IS_STUFF
from pyrseg_jax.scenes.encode import encode_scenes

LABEL_SPACE = ade_layout(CLASS_NAMES, colors=CLASS_COLORS, is_stuff=IS_STUFF)
__all__ = ["CLASS_COLORS", "CLASS_NAMES", "FEATURES", "IS_STUFF", "LABEL_SPACE", "Scenes"]

# A label is 0 where void, else 1 + the index into CLASS_NAMES.
FEATURES = {
    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
    "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
    "name": tfds.features.Text(),
}


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Paint 256 training and 64 validation scenes of 256×256 pixels with twelve classes."""

    name = "scenes"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version: twelve classes, five kinds of places, five kinds of weather."}
    NUM_SCENES = {"training": 256, "validation": 64}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=f"Painted scenes; label 0 is void, 1 to 12 are {', '.join(CLASS_NAMES)}.",
            features=tfds.features.FeaturesDict(FEATURES),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split, num) for split, num in self.NUM_SCENES.items()}

    def _generate_examples(self, split: str, num_scenes: int) -> Iterator[tuple[str, dict]]:
        """Yield (name, example) with the image and label as encoded bytes."""
        for index, image, label in encode_scenes(split, num_scenes):
            name = f"{'train' if split == 'training' else 'val'}_{index:05d}"
            yield name, {"image": image, "label": label, "name": name}
