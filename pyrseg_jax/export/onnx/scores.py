"""Score ONNX files on the images of a run's evaluation split."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import resize_image, upsample_argmax
from pyrseg_jax.data.source import Source
from pyrseg_jax.evaluation.metrics import scores
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.data_checks import open_data_of_run
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.workdir import Workdir


class Scored(NamedTuple):
    """The images of a split, with their label maps."""

    source: Source
    label_space: LabelSpace
    split: str

    def image(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Return an image in the size that a file takes."""
        return resize_image(decode_pair(self.source[index], self.label_space).image, size)


@naming("data")
def open_images(config: Config, workdir: Workdir) -> Scored:
    """Open the evaluation split of a run; raises UserError if the data set cannot be read."""
    dataset = open_data_of_run(config, workdir)
    return Scored(dataset.open_split(config.evaluation.split), dataset.label_space, config.evaluation.split)


def score(scored: Scored, sessions: Sequence[Any], size: tuple[int, int]) -> list[float]:
    """Return the mIoU of several files, each of which takes images of the same size.

    Images of other sizes are resampled to it, and the class probabilities to the size of the label map.
    """
    num_classes = scored.label_space.num_classes
    counts = np.zeros((len(sessions), num_classes, num_classes), np.int64)
    for index in range(len(scored.source)):
        image, truth = decode_pair(scored.source[index], scored.label_space)
        batch = resize_image(image, size)[None]
        known = truth != scored.label_space.void
        for count, session in zip(counts, sessions, strict=True):
            if truth.shape == size:
                labels = session.run(["labels"], {"image": batch})[0][0]
            else:
                (probs,) = session.run(["probabilities"], {"image": batch})
                labels = upsample_argmax(probs[0], truth.shape)
            pairs = truth[known].astype(np.int64) * num_classes + labels[known]
            count += np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    return [scores(count, scored.label_space.names)["miou"] or 0.0 for count in counts]
